//! What every file of a structure shares. A structure supplies a layout ([`Structure`]) and an
//! algorithm; creating, checking, growing and mapping its file is done here.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`medium`] | the bytes of a file: in a file, in its map, or in tests on a medium that crashes |
//! | [`header`] | two headers, of which one is in force |
//! | [`create`] | a file that is complete before it gets its name |
//! | [`grow`] | the order in which a file is changed to a larger layout |
//! | [`mod@open`] | open, check, create, grow under the lock, map |
//! | [`shared`] | the words and bytes that several programs change at once |
//! | [`log`] | changes of several words that are made completely or not at all |
//! | [`participants`] | who uses the file now |
//! | [`pins`] | what live binaries show |
//! | [`exclusive`] | the lock, which is taken from a participant that died |
//! | [`held`] | the lock while a call holds it |
//! | [`boot`] | whether the state is of this boot |
//! | [`checksum`] | the checksum of records and blocks |
//!
//! A file gets its name only when it is complete, and a growth writes a second header next to the
//! first. So a crash at any moment leaves the old state or the new one, and nothing in between.

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

/// Why a file cannot be used as a structure's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFormat {
    /// Another kind of file.
    Kind,
    /// A version that is not known here.
    Version,
    /// Written on a machine of the other byte order.
    Endianness,
    /// Shorter than its header says.
    Length,
    /// Neither header is as it was written.
    Checksum,
    /// A header is as it was written, and what it describes is not.
    Content,
}

/// Why a file was not opened. None of these touches the file. `M`: why a sound file does not serve
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
    /// The error of a call that only reads a file, as one of a call with a request.
    pub fn of(error: Error) -> Error<M> {
        match error {
            Error::Posix(error) => Error::Posix(error),
            Error::BadFormat(why) => Error::BadFormat(why),
            Error::Mismatch(never) => match never {},
        }
    }
}

/// A write that puts a layout in force: what, and at which offset.
pub type Commit = (u64, Vec<u8>);

/// The layout of a structure's file: where everything is, as the header in force says.
///
/// [`mod@open`], [`create`] and [`grow`] call the methods. All numbers that come from a file are
/// checked in [`Body::decode`] and [`Structure::read`], before they are used in arithmetic.
pub trait Structure: Sized {
    /// What a caller asks for.
    type Request;
    /// Why a sound file does not serve a request; [`Infallible`] if any does.
    type Mismatch;
    /// What the headers have between the store's own fields.
    type Body: Body;
    /// Whether the file grows under its own map; else the map keeps the size that it has at first.
    const GROWS_MAPPED: bool = false;

    /// The layout of a new file.
    fn new(request: &Self::Request) -> Result<Self, Error<Self::Mismatch>>;

    /// Reads and checks the layout of a file: [`header::read`], and what the header describes.
    fn read(medium: &impl Medium) -> Result<Self, Error>;

    /// The layout that the file must grow to for `request`; `None` if this one serves it.
    fn wanted(&self, request: &Self::Request) -> Result<Option<Self>, Error<Self::Mismatch>>;

    /// The least size of a file with this layout; `None`: no file can have it.
    fn file_size(&self) -> Option<u64>;

    /// The offset from which a new file has its blocks allocated; before it are the headers, and
    /// room that stays a hole until it is used.
    fn allocated_from(&self) -> u64 {
        header::END
    }

    /// Writes to a new file, which is zeros, what its headers describe.
    fn fill(&self, _medium: &mut impl Medium) -> crate::Result<()> {
        Ok(())
    }

    /// Writes to a file of layout `before` what the headers of this layout will describe, in room
    /// that the file has already and that `before` does not use. What follows the end of `before`
    /// will be zeros.
    fn prepare(&self, _before: &Self, _medium: &mut impl Medium) -> crate::Result<()> {
        Ok(())
    }

    /// What the headers say.
    fn body(&self) -> crate::Result<Self::Body>;

    /// Which header it was read from.
    fn in_force(&self) -> InForce;

    /// The writes that put this layout in force, in order: each is on the disk before the next.
    /// After the first of them the file has this layout.
    fn commits(&self) -> crate::Result<Vec<Commit>> {
        header::commits(&self.body()?, self.in_force())
    }

    /// Removes what an interrupted growth left: together with parts of the next header it could
    /// become complete, and describe what is not there.
    fn clear_leftover(&self, medium: &mut impl Medium) -> crate::Result<()> {
        header::clear_leftover::<Self::Body>(medium, self.in_force())
    }
}
