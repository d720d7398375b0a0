//! A descriptor that somebody else has open, opened again.

#[cfg(target_os = "linux")]
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use super::stat;
use crate::mapped_file::Identity;
use crate::{Errno, Result};

/// What a descriptor may be used for: `(to read, to write)`.
pub fn access_of(fd: BorrowedFd) -> Result<(bool, bool)> {
    let flags = flags_of(fd)?;
    #[cfg(target_os = "linux")]
    if flags & libc::O_PATH != 0 {
        return Ok((false, false));
    }
    Ok(match flags & libc::O_ACCMODE {
        libc::O_RDONLY => (true, false),
        libc::O_WRONLY => (false, true),
        _ => (true, true),
    })
}

fn flags_of(fd: BorrowedFd) -> Result<libc::c_int> {
    // SAFETY: takes no pointers.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) } {
        -1 => Err(Errno::last()),
        flags => Ok(flags),
    }
}

/// Another descriptor of the same file: as far as the system can, one that shares no position, no flags and no locks with
/// the first; else a duplicate, which has `flags` only if the first one has them.
pub fn reopen_as(fd: BorrowedFd, flags: libc::c_int) -> Result<OwnedFd> {
    match reopen_apart(fd, flags) {
        Ok(again) => match Identity::of(&stat(again.as_fd())?) == Identity::of(&stat(fd)?) {
            true => Ok(again),
            // The number was given to another file in the meantime.
            false => Err(Errno(libc::EBADF)),
        },
        Err(_) if (flags ^ flags_of(fd)?) & libc::O_APPEND == 0 => Ok(fd.try_clone_to_owned()?),
        error => error,
    }
}

#[cfg(target_os = "linux")]
fn reopen_apart(fd: BorrowedFd, flags: libc::c_int) -> Result<OwnedFd> {
    let path = CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let path = path.map_err(|_| Errno::INVAL)?;
    // SAFETY: the path is NUL-terminated and outlives the call.
    match unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) } {
        -1 => Err(Errno::last()),
        // SAFETY: the descriptor is new and nobody else's.
        fd => Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }),
    }
}

/// Elsewhere, what is opened so is a duplicate.
#[cfg(not(target_os = "linux"))]
fn reopen_apart(_fd: BorrowedFd, _flags: libc::c_int) -> Result<OwnedFd> {
    Err(Errno::NOTSUP)
}

/// The path of an open file, as far as the system tells it. It may lead to another file, or nowhere.
pub fn path_of(fd: BorrowedFd) -> PathBuf {
    let number = fd.as_raw_fd();
    let link = format!("/proc/self/fd/{number}");
    std::fs::read_link(link).unwrap_or_else(|_| format!("/dev/fd/{number}").into())
}
