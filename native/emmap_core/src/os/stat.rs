//! What the system knows of an open file, and where the file has data.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{check, offset_of};
use crate::{Errno, Result};

/// The result of `fstat`. Times are seconds since 1970, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Bytes.
    pub size: u64,
    /// The kind of file and its permissions, as `st_mode`.
    pub mode: u32,
    pub links: u64,
    pub device: u64,
    /// Of a device file: which device it is.
    pub special_device: u64,
    pub inode: u64,
    pub uid: u32,
    pub gid: u32,
    pub accessed: i64,
    pub modified: i64,
    pub changed: i64,
    /// Of the second of `modified`, and of `changed`.
    pub modified_nanos: i64,
    pub changed_nanos: i64,
    /// Bytes of the blocks that the file has on its disk.
    pub allocated: u64,
    /// How many bytes to read or write at a time. On hugetlbfs it is the size of a page.
    pub preferred: usize,
}

#[allow(clippy::unnecessary_cast)] // the types of the fields differ between systems
pub fn stat(fd: BorrowedFd) -> Result<Stat> {
    // POSIX leaves this open, and all systems that we support agree on it.
    const BLOCK: u64 = 512;
    // SAFETY: a zeroed stat is a valid one; fstat fills it.
    let stat = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        check(libc::fstat(fd.as_raw_fd(), &mut stat))?;
        stat
    };
    Ok(Stat {
        size: u64::try_from(stat.st_size).map_err(|_| Errno::IO)?,
        mode: stat.st_mode as u32,
        links: stat.st_nlink as u64,
        device: stat.st_dev as u64,
        special_device: stat.st_rdev as u64,
        inode: stat.st_ino as u64,
        uid: stat.st_uid as u32,
        gid: stat.st_gid as u32,
        accessed: stat.st_atime as i64,
        modified: stat.st_mtime as i64,
        changed: stat.st_ctime as i64,
        modified_nanos: stat.st_mtime_nsec as i64,
        changed_nanos: stat.st_ctime_nsec as i64,
        allocated: u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK,
        preferred: stat.st_blksize as usize,
    })
}

impl Stat {
    /// Whether the permissions allow this process to read and to write, as `:file` computes it for
    /// an open file: by owner, group and others. The rights of root are not considered.
    #[allow(clippy::unnecessary_cast)] // the types differ between systems
    pub fn access(&self) -> (bool, bool) {
        // SAFETY: neither call takes arguments, and neither can fail.
        let (user, group) = unsafe { (libc::geteuid() as u32, libc::getegid() as u32) };
        let shift = match (self.uid == user, self.gid == group) {
            (true, _) => 6,
            (false, true) => 3,
            (false, false) => 0,
        };
        let bits = self.mode >> shift;
        (bits & 0o4 != 0, bits & 0o2 != 0)
    }
}

/// Whether a descriptor is open for reading only.
pub fn is_for_reading(fd: BorrowedFd) -> Result<bool> {
    let mut flags = 0;
    super::retry(|| {
        // SAFETY: takes no pointers.
        flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
        flags.min(0)
    })?;
    Ok(flags & libc::O_ACCMODE == libc::O_RDONLY)
}

/// Whether a file is in an overlay: see [`crate::copy_up`].
#[cfg(target_os = "linux")]
#[allow(clippy::unnecessary_cast)] // the types of the fields differ between systems
pub fn is_on_overlay(fd: BorrowedFd) -> Result<bool> {
    const OVERLAYFS_MAGIC: u64 = 0x794C_7630;
    // SAFETY: `stat` is filled before it is read.
    let kind = unsafe {
        let mut stat: libc::statfs = std::mem::zeroed();
        super::retry(|| libc::fstatfs(fd.as_raw_fd(), &mut stat))?;
        stat.f_type as u64 & 0xFFFF_FFFF
    };
    Ok(kind == OVERLAYFS_MAGIC)
}

/// No overlays here.
#[cfg(not(target_os = "linux"))]
pub fn is_on_overlay(_fd: BorrowedFd) -> Result<bool> {
    Ok(false)
}

/// Opens the file of a descriptor again, for reading, and has the descriptor lead there. In one step for other threads.
#[cfg(target_os = "linux")]
pub fn reopen_for_reading(fd: BorrowedFd) -> Result<()> {
    let path = format!("/proc/self/fd/{}\0", fd.as_raw_fd());
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: the path is NUL-terminated and outlives the call.
    let opened = unsafe { libc::open(path.as_ptr().cast(), flags) };
    if opened == -1 {
        return Err(Errno::last());
    }
    super::retry(|| {
        // SAFETY: both descriptors are ours; the owner of `fd` keeps it, and closes it as before.
        unsafe { libc::dup3(opened, fd.as_raw_fd(), libc::O_CLOEXEC) }.min(0)
    })
    // SAFETY: opened above, and nobody else's.
    .and(check(unsafe { libc::close(opened) }))
}

/// No overlays here.
#[cfg(not(target_os = "linux"))]
pub fn reopen_for_reading(_fd: BorrowedFd) -> Result<()> {
    Err(Errno::NOTSUP)
}

/// The first byte at or after `offset` that is data and not a hole; `None` if the rest of the file
/// is a hole. A file system that does not know holes says that everything is data. Moves the
/// descriptor's own position, which nothing here uses.
#[cfg(any(target_os = "linux", target_os = "macos", target_os = "freebsd"))]
pub fn next_data(fd: BorrowedFd, offset: u64) -> Result<Option<u64>> {
    seek(fd, offset, libc::SEEK_DATA)
}

/// Whether [`next_data`] knows what was written to the file through a map a moment ago. File systems in user space are not
/// told before the kernel writes those pages back.
#[cfg(target_os = "linux")]
#[allow(clippy::unnecessary_cast)] // the types of the fields differ between systems
pub fn tells_holes(fd: BorrowedFd) -> bool {
    const FUSE_SUPER_MAGIC: u64 = 0x6573_5546;
    // SAFETY: `stat` is filled before it is read.
    unsafe {
        let mut stat: libc::statfs = std::mem::zeroed();
        libc::fstatfs(fd.as_raw_fd(), &mut stat) == 0
            && stat.f_type as u64 & 0xFFFF_FFFF != FUSE_SUPER_MAGIC
    }
}

#[cfg(not(target_os = "linux"))]
pub fn tells_holes(_fd: BorrowedFd) -> bool {
    false
}

/// The first byte at or after `offset`, which is data, that belongs to a hole: the end of the file
/// counts as one.
#[cfg(any(target_os = "linux", target_os = "macos", target_os = "freebsd"))]
pub fn next_hole(fd: BorrowedFd, offset: u64) -> Result<Option<u64>> {
    seek(fd, offset, libc::SEEK_HOLE)
}

#[cfg(any(target_os = "linux", target_os = "macos", target_os = "freebsd"))]
fn seek(fd: BorrowedFd, offset: u64, whence: libc::c_int) -> Result<Option<u64>> {
    let start = offset_of(offset)?;
    loop {
        // SAFETY: takes no pointers.
        match unsafe { libc::lseek(fd.as_raw_fd(), start, whence) } {
            -1 => match Errno::last() {
                Errno(libc::EINTR) => continue,
                Errno(libc::ENXIO) => return Ok(None),
                // This file system has no such call.
                Errno(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS | libc::ESPIPE) => {
                    return Ok((whence == libc::SEEK_DATA).then_some(offset));
                }
                error => return Err(error),
            },
            #[allow(clippy::unnecessary_cast)] // off_t has 32 bits on some systems
            found => return u64::try_from(found as i64).map(Some).map_err(|_| Errno::IO),
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos", target_os = "freebsd")))]
pub fn next_data(_fd: BorrowedFd, offset: u64) -> Result<Option<u64>> {
    Ok(Some(offset))
}

#[cfg(not(any(target_os = "linux", target_os = "macos", target_os = "freebsd")))]
pub fn next_hole(_fd: BorrowedFd, _offset: u64) -> Result<Option<u64>> {
    Ok(None)
}
