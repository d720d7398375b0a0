//! Changes of several words that a writer makes either completely or not at all, wherever it dies.
//!
//! The words are first written to a log. Setting the number of entries is the commit. Then they are applied, and the number
//! is set to 0. A thread that takes the lock from a dead writer applies the log again.

use super::Shared;
use crate::{Errno, Result};

/// Where the log of a structure is.
#[derive(Clone, Copy)]
pub struct Place {
    /// The word with the number of entries that must be applied.
    pub length: u64,
    /// The entries: the offset of a word, and its value.
    pub entries: u64,
    /// The maximum number of entries.
    pub capacity: u64,
}

const ENTRY: u64 = 16;

/// A change in progress. Nothing has happened until [`Change::commit`].
pub struct Change<'a, S> {
    shared: &'a S,
    place: &'static Place,
    length: u64,
}

impl<'a, S: Shared> Change<'a, S> {
    /// One change at a time: the caller holds the lock.
    #[inline(always)]
    pub fn new(shared: &'a S, place: &'static Place) -> Change<'a, S> {
        Change {
            shared,
            place,
            length: 0,
        }
    }

    #[inline(always)]
    pub fn set(&mut self, at: u64, value: u64) -> Result<()> {
        if self.length == self.place.capacity {
            return Err(Errno(libc::E2BIG));
        }
        let entry = self.place.entries + self.length * ENTRY;
        self.shared.store(entry, at)?;
        self.shared.store(entry + 8, value)?;
        self.length += 1;
        Ok(())
    }

    #[inline(always)]
    pub fn commit(self) -> Result<()> {
        let (shared, place) = (self.shared, self.place);
        match self.length {
            0 => Ok(()),
            // A single store needs no log.
            1 => {
                let entry = place.entries;
                shared.store(shared.load(entry)?, shared.load(entry + 8)?)
            }
            length => {
                shared.store(place.length, length)?;
                apply(shared, place, length)?;
                shared.store(place.length, 0)
            }
        }
    }
}

/// Changes two words, as a [`Change`] of them would, in a third of the time.
#[inline(always)]
pub fn set_two<S: Shared>(
    shared: &S,
    place: &'static Place,
    [(first, one), (second, other)]: [(u64, u64); 2],
) -> Result<()> {
    shared.store(place.entries, first)?;
    shared.store(place.entries + 8, one)?;
    shared.store(place.entries + ENTRY, second)?;
    shared.store(place.entries + ENTRY + 8, other)?;
    shared.store(place.length, 2)?;
    shared.store(first, one)?;
    shared.store(second, other)?;
    shared.store(place.length, 0)
}

#[inline(always)]
fn apply<S: Shared>(shared: &S, place: &Place, entries: u64) -> Result<()> {
    for number in 0..entries {
        let entry = place.entries + number * ENTRY;
        shared.store(shared.load(entry)?, shared.load(entry + 8)?)?;
    }
    Ok(())
}

/// Completes the change of a writer that died. The caller holds its lock.
pub fn replay<S: Shared>(shared: &S, place: &Place) -> Result<()> {
    let length = shared.load(place.length)?;
    apply(shared, place, length.min(place.capacity))?;
    shared.store(place.length, 0)
}
