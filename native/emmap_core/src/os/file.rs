//! The size, the blocks and the durability of a file.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

#[cfg(target_os = "linux")]
use super::check;
use super::{offset_of, retry, Advice};
use crate::{Errno, Result};

/// Makes the file at least `to` bytes long and never shorter, whatever others do to it meanwhile;
/// the blocks of `from .. to` are allocated first, unless it is `sparse`. What fails leaves the size
/// as it was.
pub fn extend(fd: BorrowedFd, from: u64, to: u64, sparse: bool) -> Result<()> {
    // Asked before anything is allocated: what a file system allocated before it failed could be
    // given back only by cutting the file, and with it what others appended meanwhile.
    if to > file_size_limit() {
        return Err(Errno(libc::EFBIG));
    }
    if !sparse {
        if to - from > free_bytes(fd)? {
            return Err(Errno::NOSPC);
        }
        match allocate_blocks(fd, from, to - from, true) {
            Err(Errno(libc::EOPNOTSUPP) | Errno(libc::ENOSYS)) => {
                return write_zeros(fd, from, to);
            }
            answer => answer?,
        }
    }
    // Allocating the last byte moves the end of the file forward, and nothing else; ftruncate
    // would cut what another program appended since we looked.
    match allocate_blocks(fd, to - 1, 1, false) {
        Err(Errno(libc::EOPNOTSUPP) | Errno(libc::ENOSYS)) => set_size(fd, to),
        answer => answer,
    }
}

/// `ulimit -f`, in bytes.
#[allow(clippy::unnecessary_cast)] // 32 bits on some systems
fn file_size_limit() -> u64 {
    // SAFETY: `limit` is filled before it is read.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        match libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) {
            0 if limit.rlim_cur != libc::RLIM_INFINITY => limit.rlim_cur as u64,
            _ => u64::MAX,
        }
    }
}

/// What this user may still write to the file system of a file.
#[allow(clippy::unnecessary_cast)] // the types of the fields differ between systems
fn free_bytes(fd: BorrowedFd) -> Result<u64> {
    // SAFETY: `stat` is filled before it is read; geteuid cannot fail.
    unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        retry(|| libc::fstatvfs(fd.as_raw_fd(), &mut stat))?;
        let root = libc::geteuid() == 0;
        let blocks = if root { stat.f_bfree } else { stat.f_bavail };
        match (stat.f_blocks, stat.f_frsize) {
            // A file system that does not say, or has no limit.
            (0, _) | (_, 0) => Ok(u64::MAX),
            (_, size) => Ok((blocks as u64).saturating_mul(size as u64)),
        }
    }
}

/// Allocates blocks; with `keep_size` the file does not grow.
#[cfg(target_os = "linux")]
pub fn allocate_blocks(fd: BorrowedFd, from: u64, count: u64, keep_size: bool) -> Result<()> {
    let mode = if keep_size {
        libc::FALLOC_FL_KEEP_SIZE
    } else {
        0
    };
    let (from, count) = (offset_of(from)?, offset_of(count)?);
    // SAFETY: takes no pointers.
    retry(|| unsafe { libc::fallocate(fd.as_raw_fd(), mode, from, count) })
}

/// Allocates blocks; with `keep_size` the file does not grow.
#[cfg(target_os = "macos")]
pub fn allocate_blocks(fd: BorrowedFd, from: u64, count: u64, keep_size: bool) -> Result<()> {
    let mut store = libc::fstore_t {
        fst_flags: libc::F_ALLOCATEALL,
        fst_posmode: libc::F_PEOFPOSMODE,
        fst_offset: 0,
        fst_length: offset_of(count)?,
        fst_bytesalloc: 0,
    };
    // SAFETY: `store` outlives the call.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_PREALLOCATE, &mut store) } == -1 {
        return Err(Errno::last());
    }
    if keep_size {
        Ok(())
    } else {
        set_size(fd, crate::range::checked_end(from, count)?)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub fn allocate_blocks(fd: BorrowedFd, from: u64, count: u64, keep_size: bool) -> Result<()> {
    if keep_size {
        return Err(Errno::NOTSUP);
    }
    let (from, count) = (offset_of(from)?, offset_of(count)?);
    // SAFETY: takes no pointers. posix_fallocate answers the error itself.
    match unsafe { libc::posix_fallocate(fd.as_raw_fd(), from, count) } {
        0 => Ok(()),
        error => Err(Errno(error)),
    }
}

/// For file systems without fallocate: the blocks are there once something is written in them.
fn write_zeros(fd: BorrowedFd, from: u64, to: u64) -> Result<()> {
    let zeros = [0u8; 16 << 10];
    let mut at = from;
    while at < to {
        let count = zeros
            .len()
            .min(usize::try_from(to - at).unwrap_or(usize::MAX));
        // SAFETY: `zeros` holds at least `count` bytes.
        let wrote =
            unsafe { libc::pwrite(fd.as_raw_fd(), zeros.as_ptr().cast(), count, offset_of(at)?) };
        match wrote {
            -1 if Errno::last() == Errno(libc::EINTR) => continue,
            -1 => return Err(Errno::last()),
            0 => return Err(Errno::NOSPC),
            _ => at += wrote as u64,
        }
    }
    Ok(())
}

pub fn set_size(fd: BorrowedFd, size: u64) -> Result<()> {
    let size = offset_of(size)?;
    // SAFETY: takes no pointers.
    retry(|| unsafe { libc::ftruncate(fd.as_raw_fd(), size) })
}

/// Runs a call that may raise SIGXFSZ (`ulimit -f`) so that it answers EFBIG instead: the signal
/// is blocked on this thread, and taken back if it came.
pub fn without_sigxfsz<R>(call: impl FnOnce() -> Result<R>) -> Result<R> {
    // SAFETY: both sets are initialised by sigemptyset before they are read.
    let (blocked, before) = unsafe {
        let mut blocked: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut blocked);
        libc::sigaddset(&mut blocked, libc::SIGXFSZ);
        libc::pthread_sigmask(libc::SIG_BLOCK, &blocked, &mut before);
        (blocked, before)
    };
    let answer = call();
    // SAFETY: the sets are initialised; sigwait returns at once, for the signal is pending.
    unsafe {
        let mut pending: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&mut pending);
        if libc::sigismember(&pending, libc::SIGXFSZ) == 1 {
            let mut signal = 0;
            libc::sigwait(&blocked, &mut signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
    }
    answer
}

#[cfg(not(target_os = "macos"))]
pub fn sync_data(fd: BorrowedFd) -> Result<()> {
    // SAFETY: takes no pointers.
    retry(|| unsafe { libc::fdatasync(fd.as_raw_fd()) })
}

#[cfg(not(target_os = "macos"))]
pub fn sync_all(fd: BorrowedFd) -> Result<()> {
    // SAFETY: takes no pointers.
    retry(|| unsafe { libc::fsync(fd.as_raw_fd()) })
}

#[cfg(target_os = "macos")]
pub fn sync_data(fd: BorrowedFd) -> Result<()> {
    sync_all(fd)
}

/// fsync on macOS stops at the drive's cache; F_FULLFSYNC does not.
#[cfg(target_os = "macos")]
pub fn sync_all(fd: BorrowedFd) -> Result<()> {
    // SAFETY: takes no pointers.
    match retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_FULLFSYNC) }) {
        Err(Errno(libc::ENOTSUP) | Errno(libc::EINVAL)) => {
            // SAFETY: takes no pointers.
            retry(|| unsafe { libc::fsync(fd.as_raw_fd()) })
        }
        answer => answer,
    }
}

/// Starts writing dirty pages to the disk and does not wait.
#[cfg(target_os = "linux")]
#[allow(clippy::unnecessary_cast)] // off_t has 32 bits on some systems, these have 64 on all
pub fn start_write_back(fd: BorrowedFd, offset: u64, count: u64) -> Result<()> {
    let offset = offset_of(offset)? as libc::off64_t;
    let count = offset_of(count)? as libc::off64_t;
    let flags = libc::SYNC_FILE_RANGE_WRITE;
    // SAFETY: takes no pointers.
    match check(unsafe { libc::sync_file_range(fd.as_raw_fd(), offset, count, flags) }) {
        // Not every file system can; the kernel writes back in its own time.
        Err(Errno(libc::ENOSYS) | Errno(libc::ESPIPE)) => Ok(()),
        answer => answer,
    }
}

/// Tells the kernel about a range of the file. `count` 0: to the end.
#[cfg(target_os = "linux")]
pub fn advise_file(fd: BorrowedFd, offset: u64, count: u64, advice: Advice) -> Result<()> {
    let advice = match advice {
        Advice::Normal => libc::POSIX_FADV_NORMAL,
        Advice::Sequential => libc::POSIX_FADV_SEQUENTIAL,
        Advice::Random => libc::POSIX_FADV_RANDOM,
        Advice::NoReuse => libc::POSIX_FADV_NOREUSE,
        Advice::WillNeed => libc::POSIX_FADV_WILLNEED,
        Advice::DontNeed => libc::POSIX_FADV_DONTNEED,
    };
    let (offset, count) = (offset_of(offset)?, offset_of(count)?);
    // SAFETY: takes no pointers. posix_fadvise answers the error itself.
    match unsafe { libc::posix_fadvise(fd.as_raw_fd(), offset, count, advice) } {
        0 => Ok(()),
        error => Err(Errno(error)),
    }
}

#[cfg(not(target_os = "linux"))]
pub fn advise_file(_fd: BorrowedFd, _offset: u64, _count: u64, _advice: Advice) -> Result<()> {
    Ok(())
}
