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
