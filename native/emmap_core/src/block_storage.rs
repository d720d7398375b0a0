//! The block storage of the predecessor (saleyn/emmap), in any map and in its format. `docs/formats.md` has the format for
//! readers in other languages. [`crate::blocks`] is another structure, with a format of its own.
//!
//! | module | its one job |
//! | --- | --- |
//! | [`layout`] | where everything is |
//! | [`turn`] | one change of a storage at a time |
//! | [`masks`] | which blocks are in use, by the masks in the map |
//! | [`storing`] | blocks that are stored and freed |
//! | [`repair`] | masks that agree with each other again |
//! | [`calls`] | what a program calls |
//!
//! The map is one that others write to as they like. Where everything is depends on the block size alone, so nothing in it
//! is followed as a pointer; and every offset is checked against the length of the map.

pub mod calls;
pub mod layout;
pub mod masks;
pub mod repair;
pub mod storing;
pub mod turn;

pub use layout::{Place, PLACES};
pub use masks::{Mapped, Storage};

use crate::Errno;

/// Why a call did not do what it should. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Posix(Errno),
    /// The map is too short for a storage.
    Absent,
    /// The data is not as long as a block.
    WrongSize,
    /// All places are taken.
    Full,
    /// What comes next may wait, and the caller must not.
    Busy,
    /// The map must be so long first.
    Grow(u64),
}

impl From<Errno> for Stop {
    fn from(error: Errno) -> Stop {
        Stop::Posix(error)
    }
}

pub type Result<T> = std::result::Result<T, Stop>;
