//! Locks of single bytes of a file, which the kernel releases however their holder dies. They need no byte to be there.

use std::fs::File;
#[cfg(any(target_os = "linux", target_os = "macos"))]
use std::os::fd::FromRawFd;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::retry;
use crate::{Errno, Result};

/// A descriptor with an open file description of its own: a lock that is taken on it ends when it is closed, also if the
/// file stays mapped through another one.
#[cfg(target_os = "linux")]
pub fn reopen(fd: BorrowedFd) -> Result<File> {
    let path = format!("/proc/self/fd/{}\0", fd.as_raw_fd());
    // SAFETY: the path is NUL-terminated and outlives the call.
    let opened = unsafe { libc::open(path.as_ptr().cast(), libc::O_RDWR | libc::O_CLOEXEC) };
    match opened {
        -1 => Err(Errno::last()),
        // SAFETY: the descriptor was opened above, and belongs to nobody else.
        fd => Ok(unsafe { File::from_raw_fd(fd) }),
    }
}

/// As above, where a path of the descriptor can be asked for.
#[cfg(target_os = "macos")]
pub fn reopen(fd: BorrowedFd) -> Result<File> {
    let mut path = [0u8; libc::PATH_MAX as usize];
    // SAFETY: F_GETPATH writes at most PATH_MAX bytes, with a NUL.
    retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETPATH, path.as_mut_ptr()) })?;
    // SAFETY: the path is NUL-terminated and outlives the call.
    let opened = unsafe { libc::open(path.as_ptr().cast(), libc::O_RDWR | libc::O_CLOEXEC) };
    match opened {
        -1 => Err(Errno::last()),
        // SAFETY: the descriptor was opened above, and belongs to nobody else.
        fd => Ok(unsafe { File::from_raw_fd(fd) }),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub fn reopen(fd: BorrowedFd) -> Result<File> {
    Ok(fd.try_clone_to_owned()?.into())
}

/// Locks one byte until `file` is closed. `false`: another open file description has it.
#[cfg(target_os = "linux")]
pub fn try_lock_byte(file: &File, offset: u64) -> Result<bool> {
    let lock = byte(offset, libc::F_WRLCK);
    // SAFETY: `lock` outlives the call.
    match retry(|| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) }) {
        Ok(()) => Ok(true),
        Err(Errno(libc::EAGAIN) | Errno(libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether another open file description has the lock of this byte.
#[cfg(target_os = "linux")]
pub fn is_byte_locked(file: &File, offset: u64) -> Result<bool> {
    let mut lock = byte(offset, libc::F_WRLCK);
    // SAFETY: `lock` outlives the call, which changes it.
    retry(|| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) })?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

#[cfg(target_os = "linux")]
fn byte(offset: u64, kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as _,
        l_whence: libc::SEEK_SET as _,
        l_start: offset as libc::off_t,
        l_len: 1,
        l_pid: 0,
    }
}

/// No such locks here: one lock for all bytes.
#[cfg(not(target_os = "linux"))]
pub fn try_lock_byte(file: &File, _offset: u64) -> Result<bool> {
    // SAFETY: takes no pointers.
    match retry(|| unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(()) => Ok(true),
        Err(Errno(libc::EWOULDBLOCK)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Here, only the caller can hold the lock.
#[cfg(not(target_os = "linux"))]
pub fn is_byte_locked(_file: &File, _offset: u64) -> Result<bool> {
    Ok(false)
}
