//! The error of every call: a POSIX number, as the system gave it or as a file would answer.

/// A POSIX error number (`libc::ENOSPC`, …).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

pub type Result<T> = std::result::Result<T, Errno>;

impl Errno {
    pub const ACCES: Errno = Errno(libc::EACCES);
    pub const EXIST: Errno = Errno(libc::EEXIST);
    pub const INVAL: Errno = Errno(libc::EINVAL);
    pub const IO: Errno = Errno(libc::EIO);
    pub const ISDIR: Errno = Errno(libc::EISDIR);
    pub const NODEV: Errno = Errno(libc::ENODEV);
    pub const NOMEM: Errno = Errno(libc::ENOMEM);
    pub const NOSPC: Errno = Errno(libc::ENOSPC);
    pub const NOTSUP: Errno = Errno(libc::ENOTSUP);
    pub const STALE: Errno = Errno(libc::ESTALE);

    /// What the last system call of this thread left behind.
    pub fn last() -> Errno {
        Errno(
            std::io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or(libc::EIO),
        )
    }
}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Errno {
        Errno(error.raw_os_error().unwrap_or(libc::EIO))
    }
}
