//! A store of fixed-size blocks in a file, for any number of programs at once. It is intact wherever one of them dies.
//! `docs/formats.md` describes the format for readers in other languages.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`layout`] | where everything is |
//! | [`description`] | the contents of the headers |
//! | [`page`] | pages of bits: finds the first bit that is not set |
//! | [`allocation`] | which blocks are in use, and the lowest free block |
//! | [`contents`] | the bytes of a block and their checksum |
//! | [`replacing`] | replaces a block, so that it has either the old or the new bytes |
//! | [`durable`] | the steps of a sync |
//! | [`trimming`] | the free end of the file |
//! | [`check`] | the invariants |
//! | [`recovery`] | rebuilds the state after a reboot from the contents of the disk |
//! | [`participation`] | the participation of this program in a file of blocks |
//! | [`calls`] | the calls of a program |
//!
//! Everything that changes the file is a method of [`Locked`], which exists while this program holds the lock. A method makes
//! its changes with [`crate::store::log`], so that another program can take the lock at any instruction.

pub mod allocation;
pub mod calls;
pub mod check;
pub mod contents;
pub mod description;
pub mod durable;
pub mod layout;
pub mod page;
pub mod participation;
pub mod recovery;
pub mod replacing;
pub mod trimming;

pub use description::{Request, BLOCK_SIZES};
pub use layout::Geometry;
pub use participation::{open, Blocks};

use crate::store::log::Change;
use crate::store::Shared;
use crate::Errno;

/// Why a call failed. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Posix(Errno),
    /// No block with this address is in use.
    Absent,
    /// The block with this address is damaged.
    Corrupt(u64),
    /// The next step may wait, and the caller must not.
    Busy,
    /// The file must first get room for this many blocks.
    Grow(u64),
    /// A sync must first move replaced blocks to their places.
    Sync,
}

impl From<Errno> for Stop {
    fn from(error: Errno) -> Stop {
        Stop::Posix(error)
    }
}

pub type Result<T> = std::result::Result<T, Stop>;

/// The state of a file of blocks, while this program holds its lock.
pub struct Locked<'a, S: Shared> {
    pub shared: &'a S,
    pub geometry: &'a Geometry,
}

impl<'a, S: Shared> Locked<'a, S> {
    #[inline(always)]
    fn change(&self) -> Change<'a, S> {
        Change::new(self.shared, &layout::LOG)
    }

    #[inline(always)]
    fn load(&self, at: u64) -> crate::Result<u64> {
        self.shared.load(at)
    }
}
