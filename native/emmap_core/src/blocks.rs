//! A store of blocks of one size in a file, for any number of programs at once, intact wherever one of them dies.
//! `docs/formats.md` has the format for readers in other languages.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`layout`] | where everything is |
//! | [`description`] | what the headers of the file say |
//! | [`page`] | pages of bits: the first one that is not full |
//! | [`allocation`] | which blocks are in use, and the lowest one that is free |
//! | [`contents`] | the bytes of a block and their checksum |
//! | [`replacing`] | new bytes for a block, so that it has the old ones or the new ones |
//! | [`durable`] | the steps of a sync |
//! | [`trimming`] | the free end of the file |
//! | [`check`] | what must hold at all times |
//! | [`recovery`] | the state after a reboot, from what is on the disk |
//! | [`participation`] | the part of this program in a file of blocks |
//! | [`calls`] | what a program calls |
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

/// Why a call did not do what it should. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Posix(Errno),
    /// No block with this address is in use.
    Absent,
    /// The block with this address is damaged.
    Corrupt(u64),
    /// What comes next may wait, and the caller must not.
    Busy,
    /// There must be room for so many blocks first.
    Grow(u64),
    /// A sync must move replaced blocks to their places first.
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
