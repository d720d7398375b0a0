//! What the files of all structures have in common. A structure provides a layout ([`Structure`]) and an
//! algorithm; this module creates, checks, grows and maps its file.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`medium`] | the bytes of a file: in a file, in its map, or in tests on a medium that crashes |
//! | [`header`] | two headers, one of which is in force |
//! | [`create`] | a file that is complete before it gets its name |
//! | [`grow`] | the order in which a file is changed to a larger layout |
//! | [`mod@open`] | open, check, create, grow under the lock, map |
//! | [`shared`] | the words and bytes that several programs change at once |
//! | [`log`] | changes of several words that are made completely or not at all |
//! | [`participants`] | the programs that use the file |
//! | [`pins`] | what live binaries show |
//! | [`exclusive`] | the lock, which is taken from a participant that died |
//! | [`held`] | the lock while a call holds it |
//! | [`boot`] | whether the state is from this boot |
//! | [`checksum`] | the checksum of records and blocks |
//!
//! A file gets its name only when it is complete, and growing writes a second header next to the
//! first. So after a crash at any moment, the file is either in the old state or in the new one.

pub mod boot;
pub mod checksum;
pub mod create;
pub mod exclusive;
pub mod grow;
pub mod header;
pub mod held;
pub mod log;
pub mod medium;
pub mod open;
pub mod participants;
pub mod pins;
pub mod shared;

pub use header::{Body, InForce};
pub use medium::Medium;
pub use open::{open, reattach, Absent, Opened};
pub use shared::Shared;

use std::convert::Infallible;

use crate::Errno;

/// Why a file cannot be used for a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFormat {
    /// Another kind of file.
    Kind,
    /// An unknown version.
    Version,
    /// Written on a machine with the other byte order.
    Endianness,
    /// Shorter than its header says.
    Length,
    /// Both headers are damaged.
    Checksum,
    /// A header is intact, but what it describes is not.
    Content,
}

/// Why a file was not opened. In all cases, the file is unchanged. `M`: why an intact file does not satisfy
/// the request, for the structures that have such reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error<M = Infallible> {
    Posix(Errno),
    BadFormat(BadFormat),
    Mismatch(M),
}

impl<M> From<Errno> for Error<M> {
    fn from(error: Errno) -> Error<M> {
        Error::Posix(error)
    }
}

impl<M> From<BadFormat> for Error<M> {
    fn from(error: BadFormat) -> Error<M> {
        Error::BadFormat(error)
    }
}

impl<M> Error<M> {
    /// Converts the error of a call that only reads a file.
    pub fn of(error: Error) -> Error<M> {
        match error {
            Error::Posix(error) => Error::Posix(error),
            Error::BadFormat(why) => Error::BadFormat(why),
            Error::Mismatch(never) => match never {},
        }
    }
}

/// A write that puts a layout in force: the bytes and their offset.
pub type Commit = (u64, Vec<u8>);

/// The layout of a structure's file: where everything is, according to the header in force.
///
/// [`mod@open`], [`create`] and [`grow`] call the methods. All numbers that come from a file are
/// checked in [`Body::decode`] and [`Structure::read`], before they are used in arithmetic.
pub trait Structure: Sized {
    /// What a caller requests.
    type Request;
    /// Why an intact file does not satisfy a request; [`Infallible`] if it always does.
    type Mismatch;
    /// The fields of the structure in the headers.
    type Body: Body;
    /// Whether the file grows while it is mapped. Otherwise, the map keeps its initial size.
    const GROWS_MAPPED: bool = false;

    /// The layout of a new file.
    fn new(request: &Self::Request) -> Result<Self, Error<Self::Mismatch>>;

    /// Reads and checks the layout of a file: [`header::read`], and what the header describes.
    fn read(medium: &impl Medium) -> Result<Self, Error>;

    /// The layout to which the file must grow for `request`; `None` if this layout satisfies it.
    fn wanted(&self, request: &Self::Request) -> Result<Option<Self>, Error<Self::Mismatch>>;

    /// The minimum size of a file with this layout; `None` if it exceeds the size of any file.
    fn file_size(&self) -> Option<u64>;

    /// The offset from which the blocks of a new file are allocated. Before it are the headers, and
    /// room that stays a hole until it is used.
    fn allocated_from(&self) -> u64 {
        header::END
    }

    /// Writes what its headers describe to a new file, which consists of zeros.
    fn fill(&self, _medium: &mut impl Medium) -> crate::Result<()> {
        Ok(())
    }

    /// Writes what the headers of this layout will describe to a file of layout `before`, in room
    /// that the file already has and that `before` does not use. The bytes after the end of `before`
    /// will be zeros.
    fn prepare(&self, _before: &Self, _medium: &mut impl Medium) -> crate::Result<()> {
        Ok(())
    }

    /// The contents of the headers.
    fn body(&self) -> crate::Result<Self::Body>;

    /// The header from which it was read.
    fn in_force(&self) -> InForce;

    /// The writes that put this layout in force, in order: each is on the disk before the next.
    /// After the first of them the file has this layout.
    fn commits(&self) -> crate::Result<Vec<Commit>> {
        header::commits(&self.body()?, self.in_force())
    }

    /// Removes what an interrupted growth left. Together with parts of the next header, it could
    /// become a complete header that describes something that does not exist.
    fn clear_leftover(&self, medium: &mut impl Medium) -> crate::Result<()> {
        header::clear_leftover::<Self::Body>(medium, self.in_force())
    }
}
