//! Rebuilds the state after a reboot from the contents of the disk, where any line may be older than any other.
//!
//! Entries are written one after the other, and a sync covers all before the end. So what a sync covered comes first, and what
//! is damaged was added after it.

use super::directory::{Directory, LEAST_SLOTS};
use super::entry::{self, Entry, Kind, Name, MOST_NAME};
use super::layout::{self, ENTRIES, LINE, MOST_BYTES};
use super::{Locked, Result, Stop};
use crate::store::Shared;
use crate::{interrupt, Errno};

/// Beyond so many bytes without an entry, none is looked for: a file can have a very large hole.
const LONGEST_GAP: u64 = 64 << 20;
/// How many lines are read between two checks whether the recovery is still needed. An abandoned recovery leaves a state that
/// the next one recovers.
const WATCHED: u64 = 4096;

/// The result of a recovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    pub kept: u64,
    /// Entries that were not complete.
    pub dropped: u64,
}

/// What is in the file.
struct Contents {
    counters: Vec<u64>,
    /// The entry of the largest directory, and its slots.
    directory: Option<(u64, u64)>,
    /// Ranges without an entry that counts.
    gaps: Vec<(u64, u64)>,
    /// After the last entry that counts.
    end: u64,
    /// After the last line that was examined.
    examined: u64,
    dropped: u64,
}

impl<S: Shared> Locked<'_, S> {
    /// Rebuilds the state. [`Stop::Grow`]: the file is too short for a directory. Call it again once it is longer.
    pub fn recover(&self, sync: impl FnOnce() -> crate::Result<()>) -> Result<Recovered> {
        let shared = self.shared;
        // From here on, every look-up takes the lock.
        shared.store(layout::DIRECTORY, 0)?;
        shared.store(layout::LOG.length, 0)?;
        let mut found = self.examine()?;
        for (from, to) in &found.gaps {
            entry::write_other(shared, self.geometry, *from, Kind::Gap, to - from)?;
        }
        if self.clear(found.end, found.examined)? {
            // Otherwise, a new entry could be completed by parts of an old one, and have its value.
            sync()?;
        }
        let (directory, end) = self.directory_for(&found)?;
        let mut kept = 0;
        for at in std::mem::take(&mut found.counters) {
            match self.enter(&directory, at)? {
                true => kept += 1,
                false => found.dropped += 1,
            }
            if kept % WATCHED == 0 {
                interrupt::check()?;
            }
        }
        shared.store(layout::LAST, end)?;
        shared.store(layout::COUNT, kept)?;
        shared.store(layout::DROPPED, found.dropped)?;
        let recoveries = shared.load(layout::RECOVERIES)?;
        shared.store(layout::RECOVERIES, recoveries.wrapping_add(1))?;
        shared.store(layout::DIRECTORY, directory.word())?;
        Ok(Recovered {
            kept,
            dropped: found.dropped,
        })
    }

    fn examine(&self) -> Result<Contents> {
        let shared = self.shared;
        let len = (shared.len() / LINE * LINE).min(MOST_BYTES - LINE);
        let mut found = Contents {
            counters: Vec::new(),
            directory: None,
            gaps: Vec::new(),
            end: ENTRIES,
            examined: ENTRIES,
            dropped: 0,
        };
        let (mut at, mut lines) = (ENTRIES, 0u64);
        // The start of a range without an entry.
        let mut gap = ENTRIES;
        while at < len && at - gap < LONGEST_GAP {
            lines += 1;
            if lines.is_multiple_of(WATCHED) {
                interrupt::check()?;
            }
            let entry = Entry::read(shared, at)?;
            let sound = match &entry {
                Some(entry) => entry.is_sound(shared, self.geometry, at)?,
                None => false,
            };
            let Some(entry) = entry.filter(|_| sound) else {
                found.dropped += u64::from(entry.is_some_and(|it| it.kind == Kind::Counter));
                at += LINE;
                continue;
            };
            let end = at + entry.bytes(self.geometry);
            if entry.kind != Kind::Gap {
                if gap < at {
                    found.gaps.push((gap, at));
                }
                gap = end;
                found.end = end;
            }
            match entry.kind {
                Kind::Counter => found.add_counter(at)?,
                Kind::Directory => {
                    let largest = found.directory.map_or(0, |(_, slots)| slots);
                    if entry.number >= largest {
                        found.directory = Some((at, entry.number));
                    }
                }
                Kind::Gap => (),
            }
            at = end;
        }
        found.examined = at.min(len);
        Ok(found)
    }

    /// Writes zeros to `from .. to`, and returns whether there was anything else.
    fn clear(&self, from: u64, to: u64) -> Result<bool> {
        const ZEROS: [u8; LINE as usize] = [0; LINE as usize];
        let mut changed = false;
        let mut at = from;
        while at < to {
            let mut line = ZEROS;
            self.shared.read(at, &mut line)?;
            if line != ZEROS {
                self.shared.write(at, &ZEROS)?;
                changed = true;
            }
            at += LINE;
            if (at / LINE).is_multiple_of(WATCHED) {
                interrupt::check()?;
            }
        }
        Ok(changed)
    }

    /// An empty directory with enough slots, and the end of the entries.
    fn directory_for(&self, found: &Contents) -> Result<(Directory, u64)> {
        let needed = (found.counters.len() as u64 * 2)
            .next_power_of_two()
            .max(LEAST_SLOTS);
        match found.directory {
            Some((at, slots)) if slots >= needed => {
                let directory = Directory::of_entry(at, slots);
                directory.clear(self.shared)?;
                Ok((directory, found.end))
            }
            _ => {
                let end = found.end + entry::directory_bytes(needed);
                if end >= MOST_BYTES {
                    return Err(Errno(libc::EFBIG).into());
                }
                if end > self.shared.len() {
                    return Err(Stop::Grow(end));
                }
                Ok((self.new_directory(found.end, needed)?, end))
            }
        }
    }

    /// Adds a counter to the directory. `false`: there is one with this name, and this one becomes a gap.
    fn enter(&self, directory: &Directory, at: u64) -> Result<bool> {
        let shared = self.shared;
        let entry = Entry::read(shared, at)?.ok_or(Errno::IO)?;
        let mut buffer = [0; MOST_NAME];
        let name = entry::read_name(shared, self.geometry, at, entry.name, &mut buffer)?;
        let name = Name {
            bytes: name,
            hash: entry.number,
        };
        if directory.find(shared, self.geometry, &name)?.is_some() {
            let bytes = entry.bytes(self.geometry);
            entry::write_other(shared, self.geometry, at, Kind::Gap, bytes)?;
            return Ok(false);
        }
        let (slot, contents) = directory.free_slot(shared, name.hash, at)?;
        shared.store(slot, contents)?;
        Ok(true)
    }
}

impl Contents {
    fn add_counter(&mut self, at: u64) -> Result<()> {
        // Their number comes from the file.
        self.counters.try_reserve(1).map_err(|_| Errno::NOMEM)?;
        self.counters.push(at);
        Ok(())
    }
}
