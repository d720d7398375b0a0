//! The order in which a file is changed to a larger layout.

use std::fs::File;
use std::os::fd::AsFd;

use super::medium::{write_zeros, Medium};
use super::{Error, Structure};
use crate::{os, Errno, Result};

/// Changes a file of layout `before` to one of layout `after`, in an order that is safe against
/// crashes. What `before` describes is not changed. If this fails, the file keeps its length.
pub fn write<S: Structure>(before: &S, after: &S, medium: &mut impl Medium) -> Result<()> {
    let size = after.file_size().ok_or(Errno(libc::EFBIG))?;
    let end = before.file_size().unwrap_or(0);
    let commits = after.commits()?;
    before.clear_leftover(medium)?;
    after.prepare(before, medium)?;
    // New room must be zeros, but there may be data past the old end.
    let stale = medium.len()?.min(size);
    write_zeros(medium, end, stale)?;
    medium.extend(size, end)?;
    // What the new header describes is on the disk before the header.
    medium.sync()?;
    for (at, header) in commits {
        medium.write_at(at, &header)?;
        // At any moment, one header is complete.
        medium.sync()?;
    }
    Ok(())
}

/// Grows the file for `request`, under its lock, if it does not satisfy the request yet. Returns its
/// layout.
pub fn under_lock<S: Structure>(
    file: &mut File,
    request: &S::Request,
) -> std::result::Result<S, Error<S::Mismatch>> {
    let lock = file.try_clone().map_err(Errno::from)?;
    os::with_file_lock(lock.as_fd(), || {
        // Another opener may have grown it during the wait.
        let before = S::read(file).map_err(Error::of)?;
        match before.wanted(request)? {
            None => Ok(before),
            Some(after) => {
                write(&before, &after, file)?;
                Ok(after)
            }
        }
    })?
}
