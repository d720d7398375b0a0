//! Files of persistent counters: their format, how they come to be, and how they grow.
//! `docs/formats.md` has the format for readers in other languages.
//!
//! A file has its name only once it is whole, and growing writes a second header beside the first.
//! So a crash at any moment leaves what was there before or what was to be, and nothing between.

mod file;
pub mod format;
mod grid;
pub mod medium;
mod names;

pub use file::{open, reattach, Counters, Request};
pub use format::{BadFormat, Layout};
pub use grid::{Grid, Refused};

use crate::Errno;

/// Why counters could not be opened. None of these touches the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    Posix(Errno),
    BadFormat(BadFormat),
    /// The file has other names than those asked for; these are the file's.
    OtherNames(Vec<String>),
}

impl From<Errno> for Error {
    fn from(error: Errno) -> Error {
        Error::Posix(error)
    }
}

impl From<BadFormat> for Error {
    fn from(error: BadFormat) -> Error {
        Error::BadFormat(error)
    }
}
