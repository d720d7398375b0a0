//! Counters whose names appear at run time. Any number of programs find a counter without a lock, and add one under a lock.
//! `docs/formats.md` describes the format for readers in other languages.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`layout`] | where everything is, and the contents of the headers |
//! | [`entry`] | an entry: its first line, its name, its checksum |
//! | [`directory`] | finds a name |
//! | [`adding`] | adds a name, and doubles the directory |
//! | [`recovery`] | rebuilds the state after a reboot from the contents of the disk |
//! | [`walk`] | all counters in the order in which they were added |
//! | [`participation`] | the participation of this program in a file |
//!
//! Entries never move and are never removed. Everything that changes the file is a method of [`Locked`], which exists while
//! this program holds the lock. The last step of each change is made with [`crate::store::log`], so that another program can
//! take the lock at any instruction.

pub mod adding;
pub mod directory;
pub mod entry;
pub mod layout;
pub mod participation;
pub mod recovery;
pub mod walk;

pub use entry::{Name, MOST_NAME};
pub use layout::{Geometry, Layout};
pub use participation::{is_dynamic, open, Dynamic, Request};

use crate::store::Shared;
use crate::Errno;

/// Why a call failed. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Posix(Errno),
    /// No counter has this name.
    Absent,
    /// The file has as many names as this program allows.
    Full,
    /// The next step may wait, and the caller must not.
    Busy,
    /// The file must first be this long.
    Grow(u64),
}

impl From<Errno> for Stop {
    fn from(error: Errno) -> Stop {
        Stop::Posix(error)
    }
}

pub type Result<T> = std::result::Result<T, Stop>;

/// The state of a file, while this program holds its lock.
pub struct Locked<'a, S: Shared> {
    pub shared: &'a S,
    pub geometry: &'a Geometry,
}
