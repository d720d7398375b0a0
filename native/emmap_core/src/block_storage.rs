//! The block storage of the predecessor (saleyn/emmap), in any map and in its format. `docs/formats.md` describes the format
//! for readers in other languages. [`crate::blocks`] is a different structure, with a different format.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`layout`] | where everything is |
//! | [`turn`] | one change of a storage at a time |
//! | [`masks`] | which blocks are in use, according to the masks in the map |
//! | [`storing`] | storing and freeing blocks |
//! | [`repair`] | making the masks consistent again |
//! | [`calls`] | the calls of a program |
//!
//! Others may write anything to the map. The position of everything depends only on the block size, so nothing in the map
//! is followed as a pointer, and every offset is checked against the length of the map.

pub mod calls;
pub mod layout;
pub mod masks;
pub mod repair;
pub mod storing;
pub mod turn;

pub use layout::{Place, PLACES};
pub use masks::{Mapped, Storage};

use crate::Errno;

/// Why a call failed. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Posix(Errno),
    /// The map is too short for a storage.
    Absent,
    /// The data is not as long as a block.
    WrongSize,
    /// All addresses are in use.
    Full,
    /// The next step may wait, and the caller must not.
    Busy,
    /// The map must grow to this length first.
    Grow(u64),
}

impl From<Errno> for Stop {
    fn from(error: Errno) -> Stop {
        Stop::Posix(error)
    }
}

pub type Result<T> = std::result::Result<T, Stop>;
