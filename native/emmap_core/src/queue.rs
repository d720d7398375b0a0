//! A queue in a file, for any number of programs at once, intact wherever one of them dies. `docs/formats.md` has the format
//! for readers in other languages.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`layout`] | where everything is |
//! | [`summary`] | what the headers of the file say, for a reboot |
//! | [`record`] | one record and its checksum |
//! | [`segment`] | segments, and which of them are in use |
//! | [`tail`] | adding records |
//! | [`admission`] | which items may be pushed |
//! | [`reading`] | what a cursor finds, and where it continues after damage |
//! | [`claims`] | items that were checked out and not yet acknowledged |
//! | [`recycling`] | segments that are not needed any more |
//! | [`pins`] | payloads that are shown where they are |
//! | [`readers`] | cursors that are created and deleted |
//! | [`check`] | what must hold at all times |
//! | [`recovery`] | the state after a reboot, from what is on the disk |
//! | [`participation`] | the part of this program in a queue |
//! | [`calls`] | what a program calls |
//! | [`batches`] | many items in one call |
//! | [`waiting`] | waiting for items and for space |
//!
//! Everything that changes the file is a method of [`Locked`], which exists while this program holds the lock. A method makes
//! its changes with [`crate::store::log`], so that another program can take the lock at any instruction.

pub mod admission;
pub mod batches;
pub mod calls;
pub mod check;

pub mod claims;
pub mod layout;
pub mod participation;
pub mod pins;
pub mod readers;
pub mod reading;
pub mod record;
pub mod recovery;
pub mod recycling;
pub mod segment;
pub mod summary;
pub mod tail;
pub mod waiting;

pub use admission::Limits;
pub use claims::{Claimed, Receipt};
pub use participation::{open, Pushed, Queue};
pub use pins::Pin;
pub use reading::{Found, Room, Taken};
pub use record::{Content, Extension};
pub use summary::{Request, DEFAULT_SEGMENT, SEGMENT_SIZES};

use crate::store::log::Change;
use crate::store::Shared;
use crate::Errno;

/// Why a call did not do what it should. Nothing has changed, but for [`Stop::Corrupt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Posix(Errno),
    /// The record at this position is damaged. The cursor has moved past it.
    Corrupt(u64),
    /// The queue is as large as it may be.
    Full,
    /// No such claim (any more).
    Gone,
    /// What comes next may wait, and the caller must not.
    Busy,
    /// The file must be so long first.
    Grow(u64),
    /// A header with the current floors must be on the disk first.
    Checkpoint,
}

impl From<Errno> for Stop {
    fn from(error: Errno) -> Stop {
        Stop::Posix(error)
    }
}

pub type Result<T> = std::result::Result<T, Stop>;

/// The state of a queue, while this program holds its lock.
pub struct Locked<'a, S: Shared> {
    pub shared: &'a S,
    pub segment_size: u64,
    /// The slot of this program.
    pub slot: u32,
    /// Whether this call may take long.
    pub may_wait: bool,
    /// Where the salt of a new segment is from: [`segment::new_salt`], but in tests of what it is for.
    pub new_salt: fn() -> u64,
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

    /// Whether the cursor exists.
    fn is_active(&self, cursor: usize) -> crate::Result<bool> {
        Ok(self.load(layout::cursor::at(cursor) + layout::cursor::STATE)? == 1)
    }
}
