//! The lock of a file whose size is about to change.

use std::os::fd::{AsRawFd, BorrowedFd};
#[cfg(target_os = "linux")]
use std::time::{Duration, Instant};

use super::retry;
#[cfg(target_os = "linux")]
use crate::Errno;
use crate::Result;

/// Runs `act` while no other open file of the same kind, in this process or another, does: the size
/// of a file must not move between looking at it and changing it. The kernel frees the lock of a
/// holder that dies. It is one byte beyond the end of any file; a program that locks *all* of the
/// file holds it too, and after two seconds of that the answer is EBUSY.
#[cfg(target_os = "linux")]
pub fn with_file_lock<R>(fd: BorrowedFd, act: impl FnOnce() -> R) -> Result<R> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let start = Instant::now();
    let mut kind = libc::F_WRLCK;
    loop {
        match change_file_lock(fd, kind as _) {
            Ok(()) => break,
            // Open for reading only: who does not change the file keeps only those out who do.
            Err(Errno(libc::EBADF)) if kind == libc::F_WRLCK => kind = libc::F_RDLCK,
            Err(Errno(libc::EAGAIN) | Errno(libc::EACCES)) if start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(Errno(libc::EAGAIN) | Errno(libc::EACCES)) => return Err(Errno(libc::EBUSY)),
            // A file system without locks: nobody can have one.
            Err(Errno(libc::EINVAL) | Errno(libc::ENOLCK) | Errno(libc::EOPNOTSUPP)) => {
                return Ok(act());
            }
            Err(error) => return Err(error),
        }
    }
    let answer = act();
    let _ = change_file_lock(fd, libc::F_UNLCK as _);
    Ok(answer)
}

#[cfg(target_os = "linux")]
fn change_file_lock(fd: BorrowedFd, kind: libc::c_int) -> Result<()> {
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
pub fn with_file_lock<R>(fd: BorrowedFd, act: impl FnOnce() -> R) -> Result<R> {
    // SAFETY: takes no pointers.
    retry(|| unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX) })?;
    let answer = act();
    // SAFETY: takes no pointers.
    unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_UN) };
    Ok(answer)
}
