//! Finds a name: a table of slots with linear probing, at most half of which are in use.

use super::entry::{self, Name};
use super::layout::{self, Geometry, LINE};
use super::Result;
use crate::store::Shared;
use crate::Errno;

/// The bits of a slot with the number of a line. The others have bits of the hash.
const LINE_BITS: u32 = 40;
pub const LEAST_SLOTS: u64 = 1024;
const MOST_LOG: u64 = LINE_BITS as u64 - 1;

/// How many slots a call examines that must be short. A table of which half is in use has hardly any longer run.
pub const BRIEF: u64 = 256;

/// Where the slots are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directory {
    /// The first slot.
    at: u64,
    pub slots: u64,
}

/// The result of a look-up without the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    At(u64),
    Absent,
    /// It is necessary to take the lock: the map is too short, there are too many slots to examine, or the directory
    /// changes.
    Unknown,
}

/// The result of a search in a directory.
enum Place {
    /// The entry of the counter.
    Entry(u64),
    /// A free slot ended the search.
    Free,
    /// All slots that were examined are in use.
    None,
    /// It is not inside the map.
    Beyond,
}

#[inline(always)]
fn slot_of(at: u64, hash: u64) -> u64 {
    (at / LINE) | (hash >> LINE_BITS << LINE_BITS)
}

#[inline(always)]
fn entry_of(slot: u64) -> u64 {
    (slot & ((1 << LINE_BITS) - 1)) * LINE
}

impl Directory {
    /// The slots of the directory whose entry is at `at`.
    pub fn of_entry(at: u64, slots: u64) -> Directory {
        Directory {
            at: at + LINE,
            slots,
        }
    }

    /// The word in the control area.
    pub fn word(&self) -> u64 {
        (self.at / LINE) << 8 | u64::from(self.slots.trailing_zeros())
    }

    /// `None`: there is none at the moment, or the word is damaged.
    #[inline(always)]
    fn of_word(word: u64) -> Option<Directory> {
        let log = word & 0xff;
        let line = word >> 8;
        let valid = log <= MOST_LOG && (1..1 << LINE_BITS).contains(&line);
        valid.then(|| Directory {
            at: line * LINE,
            slots: 1 << log,
        })
    }

    /// The current directory; EIO if there is none. The caller holds the lock.
    pub fn current<S: Shared>(shared: &S) -> Result<Directory> {
        let word = shared.load(layout::DIRECTORY)?;
        Ok(Directory::of_word(word).ok_or(Errno::IO)?)
    }

    fn end(&self) -> u64 {
        self.at + self.slots * 8
    }

    fn slot(&self, number: u64) -> u64 {
        self.at + (number & (self.slots - 1)) * 8
    }

    /// Examines at most `most` slots.
    #[inline(always)]
    fn search<S: Shared>(
        &self,
        shared: &S,
        geometry: &Geometry,
        name: &Name,
        most: u64,
    ) -> crate::Result<Place> {
        if self.end() > shared.len() {
            return Ok(Place::Beyond);
        }
        for step in 0..most.min(self.slots) {
            let slot = shared.load(self.slot(name.hash.wrapping_add(step)))?;
            if slot == 0 {
                return Ok(Place::Free);
            }
            if slot >> LINE_BITS != name.hash >> LINE_BITS {
                continue;
            }
            let at = entry_of(slot);
            let end = at + entry::counter_bytes(geometry, name.bytes.len());
            if end > shared.len() {
                return Ok(Place::Beyond);
            }
            if entry::has_name(shared, geometry, at, name.bytes)? {
                return Ok(Place::Entry(at));
            }
        }
        Ok(Place::None)
    }

    /// The entry of the counter with this name. The caller holds the lock, and its map has all entries: EIO if the file is
    /// damaged.
    pub fn find<S: Shared>(
        &self,
        shared: &S,
        geometry: &Geometry,
        name: &Name,
    ) -> Result<Option<u64>> {
        match self.search(shared, geometry, name, u64::MAX)? {
            Place::Entry(at) => Ok(Some(at)),
            Place::Free | Place::None => Ok(None),
            Place::Beyond => Err(Errno::IO.into()),
        }
    }

    /// The offset of the slot for a new counter, and its contents.
    pub fn free_slot<S: Shared>(&self, shared: &S, hash: u64, entry: u64) -> Result<(u64, u64)> {
        for step in 0..self.slots {
            let slot = self.slot(hash.wrapping_add(step));
            if shared.load(slot)? == 0 {
                return Ok((slot, slot_of(entry, hash)));
            }
        }
        // At least half of them are free.
        Err(Errno::IO.into())
    }

    /// Calls `act` with each entry. The caller holds the lock.
    pub fn each<S: Shared>(
        &self,
        shared: &S,
        mut act: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        for number in 0..self.slots {
            match shared.load(self.slot(number))? {
                0 => (),
                slot => act(entry_of(slot))?,
            }
        }
        Ok(())
    }

    /// Frees all slots.
    pub fn clear<S: Shared>(&self, shared: &S) -> Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut at = self.at;
        while at < self.end() {
            let count = (self.end() - at).min(ZEROS.len() as u64);
            shared.write(at, &ZEROS[..count as usize])?;
            at += count;
        }
        Ok(())
    }
}

/// The entry of the counter with this name, without the lock.
#[inline(always)]
pub fn find<S: Shared>(shared: &S, geometry: &Geometry, name: &Name) -> crate::Result<Found> {
    let word = shared.load(layout::DIRECTORY)?;
    let Some(directory) = Directory::of_word(word) else {
        return Ok(Found::Unknown);
    };
    match directory.search(shared, geometry, name, BRIEF)? {
        Place::Entry(at) => Ok(Found::At(at)),
        // A directory that was replaced in the meantime does not have the latest counters.
        Place::Free if shared.load(layout::DIRECTORY)? == word => Ok(Found::Absent),
        Place::Free | Place::None | Place::Beyond => Ok(Found::Unknown),
    }
}
