//! The error of every call: a POSIX number, as the system or a file would return it.

/// A POSIX error number (`libc::ENOSPC`, …).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

pub type Result<T> = std::result::Result<T, Errno>;

impl Errno {
    /// The mapping was closed. Not a number of the system: those are positive.
    pub const CLOSED: Errno = Errno(-1);
    /// This process holds live binaries of the file, which is to be shortened. Not EBUSY, because a garbage collection may
    /// release them, but not the lock of another program.
    pub const LENT: Errno = Errno(-2);

    /// The size of the file is being changed by another call or program. This call is to be repeated where it may wait.
    /// See [`crate::patience`].
    pub const WAIT_SIZE: Errno = Errno(-3);
    /// As [`Errno::WAIT_SIZE`]: another copy is running there.
    pub const WAIT_COPY: Errno = Errno(-4);
    /// As [`Errno::WAIT_SIZE`]: another call or program holds the lock of the structure.
    pub const WAIT_STORE: Errno = Errno(-5);
    /// As [`Errno::WAIT_STORE`], but it may hold the lock for minutes.
    pub const WAIT_LONG: Errno = Errno(-6);

    pub const ACCES: Errno = Errno(libc::EACCES);
    pub const BUSY: Errno = Errno(libc::EBUSY);
    pub const EXIST: Errno = Errno(libc::EEXIST);
    pub const INTR: Errno = Errno(libc::EINTR);
    pub const INVAL: Errno = Errno(libc::EINVAL);
    pub const IO: Errno = Errno(libc::EIO);
    pub const ISDIR: Errno = Errno(libc::EISDIR);
    pub const NODEV: Errno = Errno(libc::ENODEV);
    pub const NOMEM: Errno = Errno(libc::ENOMEM);
    pub const NOSPC: Errno = Errno(libc::ENOSPC);
    pub const NOTSUP: Errno = Errno(libc::ENOTSUP);
    pub const PERM: Errno = Errno(libc::EPERM);
    pub const STALE: Errno = Errno(libc::ESTALE);

    /// Whether the call has to be repeated where it may wait.
    pub fn is_wait(self) -> bool {
        matches!(
            self,
            Errno::WAIT_SIZE | Errno::WAIT_COPY | Errno::WAIT_STORE | Errno::WAIT_LONG
        )
    }

    /// The error of the last system call of this thread.
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
        match error.kind() {
            // The file was truncated while it was read.
            std::io::ErrorKind::UnexpectedEof => Errno::STALE,
            _ => Errno(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, Read};

    #[test]
    fn errors_of_the_library_that_the_system_did_not_give() {
        let mut all = [0; 2];
        let short = (&[1u8][..]).read_exact(&mut all).unwrap_err();
        assert_eq!(Errno::from(short), Errno::STALE);
        assert_eq!(Errno::from(Error::other("?")), Errno::IO);
        let system = Error::from_raw_os_error(libc::ENOSPC);
        assert_eq!(Errno::from(system), Errno::NOSPC);
    }
}
