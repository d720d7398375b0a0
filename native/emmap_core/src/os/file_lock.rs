//! The lock of a file whose size is about to change.

use std::os::fd::{AsRawFd, BorrowedFd};
#[cfg(target_os = "linux")]
use std::time::{Duration, Instant};

use super::retry;
#[cfg(target_os = "linux")]
use crate::Errno;
use crate::Result;

/// Held, no other open file of the same kind, in this process or another, holds it: the size of a
/// file must not move between looking at it and changing it. The kernel frees the lock of a holder
/// that dies. It is one byte beyond the end of any file; a program that locks *all* of the file holds
/// it too, and after two seconds of that the answer is EBUSY.
///
/// Dropped, it is free, whatever happened meanwhile.
pub struct FileLock<'a> {
    /// `None`: a file system without locks.
    held: Option<BorrowedFd<'a>>,
}

/// Runs `act` under the lock of the file.
pub fn with_file_lock<R>(fd: BorrowedFd, act: impl FnOnce() -> R) -> Result<R> {
    let _lock = FileLock::wait(fd)?;
    Ok(act())
}

#[cfg(target_os = "linux")]
impl FileLock<'_> {
    pub fn wait(fd: BorrowedFd<'_>) -> Result<FileLock<'_>> {
        const PATIENCE: Duration = Duration::from_secs(2);
        let start = Instant::now();
        let mut kind = libc::F_WRLCK;
        loop {
            match change(fd, kind as _) {
                Ok(()) => return Ok(FileLock { held: Some(fd) }),
                // Open for reading only: a caller that does not change the file keeps only those out that do.
                Err(Errno(libc::EBADF)) if kind == libc::F_WRLCK => kind = libc::F_RDLCK,
                Err(Errno(libc::EAGAIN) | Errno(libc::EACCES)) if start.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(Errno(libc::EAGAIN) | Errno(libc::EACCES)) => return Err(Errno(libc::EBUSY)),
                // A file system without locks: nobody can have one.
                Err(Errno(libc::EINVAL) | Errno(libc::ENOLCK) | Errno(libc::EOPNOTSUPP)) => {
                    return Ok(FileLock { held: None });
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(target_os = "linux")]
impl Drop for FileLock<'_> {
    fn drop(&mut self) {
        if let Some(fd) = self.held {
            let _ = change(fd, libc::F_UNLCK as _);
        }
    }
}

#[cfg(target_os = "linux")]
fn change(fd: BorrowedFd, kind: libc::c_int) -> Result<()> {
    let lock = libc::flock {
        l_type: kind as _,
        l_whence: libc::SEEK_SET as _,
        l_start: libc::off_t::MAX - 1,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: `lock` outlives the call.
    retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &lock) })
}

#[cfg(not(target_os = "linux"))]
impl FileLock<'_> {
    pub fn wait(fd: BorrowedFd<'_>) -> Result<FileLock<'_>> {
        // SAFETY: takes no pointers.
        retry(|| unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX) })?;
        Ok(FileLock { held: Some(fd) })
    }
}

#[cfg(not(target_os = "linux"))]
impl Drop for FileLock<'_> {
    fn drop(&mut self) {
        if let Some(fd) = self.held {
            // SAFETY: takes no pointers.
            unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_UN) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::panic::{catch_unwind, AssertUnwindSafe};

    #[test]
    fn a_panic_frees_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let other = File::options()
            .read(true)
            .write(true)
            .open(file.path())
            .unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            with_file_lock(file.as_file().as_fd(), || {
                #[cfg(target_os = "linux")]
                assert!(change(other.as_fd(), libc::F_WRLCK as _).is_err(), "held");
                panic!("under the lock");
            })
        }));
        assert!(panicked.is_err());
        #[cfg(target_os = "linux")]
        assert_eq!(change(other.as_fd(), libc::F_WRLCK as _), Ok(()));
        #[cfg(not(target_os = "linux"))]
        assert!(FileLock::wait(other.as_fd()).is_ok());
    }
}
