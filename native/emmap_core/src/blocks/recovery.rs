//! Rebuilds the state after a reboot from the contents of the disk, where any page may be older than any other.
//!
//! Only bits are read. A block that the last sync covered exists. Later blocks were never acknowledged as durable, and are
//! dropped.

use super::layout::{self, group, BITS, WORDS};
use super::replacing::InSlot;
use super::{page, Locked, Result};
use crate::store::Shared;
use crate::{interrupt, Errno};

/// How many bytes are read between two checks whether the recovery is still needed. An abandoned recovery leaves the same state
/// as one whose program died.
const WATCHED: u64 = 64 << 10;

/// The result of a recovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    pub kept: u64,
    /// No sync had covered them.
    pub dropped: u64,
}

impl<S: Shared> Locked<'_, S> {
    /// Rebuilds the state of a file that no other program uses. `closed`: it is unchanged since its last participant closed it,
    /// which synced everything; the bits in use are compared with what that sync covered.
    ///
    /// EIO: the file is shorter than what a sync covered.
    pub fn recover(&self, closed: bool) -> Result<Recovered> {
        let shared = self.shared;
        let locks = [layout::LOCK, layout::SYNC_LOCK, layout::CAPACITY_LOCK];
        for word in locks.into_iter().chain([layout::LOG.length]) {
            shared.store(word, 0)?;
        }
        let mut recovered = Recovered::default();
        let (mut full, mut taken_end) = (Vec::new(), 0);
        let groups = self.groups_in_file();
        if !self.is_empty_from(self.geometry.group(groups))? {
            return Err(Errno::IO.into());
        }
        for number in 0..groups {
            interrupt::check()?;
            let taken = self.recover_group(number, closed, &mut recovered)?;
            full.push(taken.iter().all(|word| *word == u64::MAX));
            if let Some(last) = taken.iter().rposition(|word| *word != 0) {
                let bit = u64::from(63 - taken[last].leading_zeros());
                taken_end = number * BITS + last as u64 * 64 + bit + 1;
            }
        }
        if self.geometry.file_size(taken_end) > shared.len() {
            return Err(Errno::IO.into());
        }
        self.rebuild_directories(&full)?;
        shared.store(layout::COUNT, recovered.kept)?;
        shared.store(layout::CAPACITY, taken_end)?;
        shared.store(layout::HINT, 0)?;
        // No thread waits for a sync.
        shared.store(layout::SYNCS_DONE, 0)?;
        shared.store(layout::SYNCS_BEGUN, 0)?;
        self.recover_slots()?;
        if recovered != Recovered::default() {
            let before = self.load(layout::RECOVERIES)?;
            shared.store(layout::RECOVERIES, before.wrapping_add(1).max(1))?;
            shared.store(layout::KEPT, recovered.kept)?;
            shared.store(layout::DROPPED, recovered.dropped)?;
        }
        Ok(recovered)
    }

    /// How many groups have all of their bits in the file.
    fn groups_in_file(&self) -> u64 {
        let most = self.geometry.most_blocks / BITS;
        let fits = |number: &u64| self.geometry.group(*number) + group::BLOCKS <= self.shared.len();
        (0..most).take_while(fits).count() as u64
    }

    /// Whether the file contains only zeros from here to its end, which is the end of a truncated group.
    fn is_empty_from(&self, at: u64) -> Result<bool> {
        let end = self.shared.len() / 8 * 8;
        for at in (at..end).step_by(8) {
            if at.is_multiple_of(WATCHED) {
                interrupt::check()?;
            }
            if self.load(at)? != 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns which blocks of the group are taken.
    fn recover_group(
        &self,
        number: u64,
        closed: bool,
        recovered: &mut Recovered,
    ) -> Result<Vec<u64>> {
        let start = self.geometry.group(number);
        let live = self.words(number, group::LIVE)?;
        let copies = [self.durable(number, 0)?, self.durable(number, 1)?];
        let alike = copies[0].is_some() && copies[0] == copies[1];
        let [first, second] = copies;
        if let (Some(first), false) = (&first, alike) {
            // Blocks that only the second one contains may be reused.
            self.set_durable(number, 1, first)?;
        }
        // Both are damaged: no block is lost silently, because reading a torn block reports it.
        let durable = first.or(second).unwrap_or_else(|| live.clone());
        let mut changed = !alike;
        for (word, (live, durable)) in live.iter().zip(&durable).enumerate() {
            let kept = if closed { *durable } else { live & durable };
            recovered.kept += u64::from(kept.count_ones());
            recovered.dropped += u64::from((live & !durable).count_ones());
            changed |= kept != *durable;
            let at = page::word(start, word as u64);
            self.set(at + group::LIVE, kept)?;
            self.set(at + group::HELD, *durable)?;
        }
        let full = durable.iter().map(|word| *word == u64::MAX);
        self.set_page_full(start + group::LIVE, full)?;
        let mark = if changed { group::CHANGED_SINCE } else { 0 };
        self.set(start + group::CHANGED, mark)?;
        Ok(durable)
    }

    /// Stores a value only if it differs, so that a correct page stays clean.
    fn set(&self, at: u64, value: u64) -> Result<()> {
        match self.load(at)? == value {
            true => Ok(()),
            false => Ok(self.shared.store(at, value)?),
        }
    }

    /// Which words of a page are full.
    fn set_page_full(&self, at: u64, full: impl Iterator<Item = bool>) -> Result<()> {
        let mut words = [0u64; 8];
        for (word, full) in full.enumerate() {
            words[word / 64] |= u64::from(full) << (word % 64);
        }
        for (word, bits) in words.into_iter().enumerate() {
            self.set(page::word(at, WORDS + word as u64), bits)?;
        }
        Ok(())
    }

    fn rebuild_directories(&self, full: &[bool]) -> Result<()> {
        let mut supers = Vec::new();
        for (number, groups) in full.chunks(BITS as usize).enumerate() {
            let directory = self.geometry.directory(number as u64);
            supers.push(self.rebuild_directory(directory, groups)?);
        }
        self.rebuild_directory(layout::DIRECTORY, &supers)?;
        Ok(())
    }

    /// Whether all bits are set.
    fn rebuild_directory(&self, at: u64, bits: &[bool]) -> Result<bool> {
        let mut words = [0u64; WORDS as usize];
        for (number, bit) in bits.iter().enumerate() {
            words[number / 64] |= u64::from(*bit) << (number % 64);
        }
        for (word, bits) in words.into_iter().enumerate() {
            self.set(page::word(at, word as u64), bits)?;
        }
        let full = words.iter().map(|word| *word == u64::MAX);
        self.set_page_full(at, full)?;
        Ok(words.iter().all(|word| *word == u64::MAX))
    }

    /// Slots whose blocks are in use count if they are complete; of two with the same block, the later one counts.
    fn recover_slots(&self) -> Result<()> {
        let mut in_use: Vec<InSlot> = Vec::new();
        let last = self.last_replacement()?;
        self.shared.store(layout::REPLACEMENT, last)?;
        for told in self.in_slots()? {
            // The record that it was superseded may be lost.
            let told = told.in_use();
            if !self.is_possible(&told)? || !self.is_slot_sound(&told)? {
                continue;
            }
            match in_use
                .iter_mut()
                .find(|other| other.address() == told.address())
            {
                Some(other) if other.number < told.number => *other = told,
                Some(_) => (),
                None => in_use.push(told),
            }
        }
        self.set_slots(&in_use)
    }

    /// Whether the blocks in use are those that the last sync covered, as after a close, and everything else matches.
    pub fn is_as_synced(&self) -> Result<bool> {
        let capacity = self.load(layout::CAPACITY)?;
        if capacity > self.geometry.most_blocks
            || self.geometry.file_size(capacity) > self.shared.len()
            || !self.in_slots()?.is_empty()
        {
            return Ok(false);
        }
        for number in 0..self.geometry.groups_of(capacity) {
            interrupt::check()?;
            let live = self.words(number, group::LIVE)?;
            let held = self.words(number, group::HELD)?;
            if live != held || self.durable(number, 0)?.as_ref() != Some(&live) {
                return Ok(false);
            }
        }
        Ok(self.check().is_ok())
    }

    /// Completes the change of a writer that died.
    pub fn replay(shared: &S) -> crate::Result<()> {
        crate::store::log::replay(shared, &layout::LOG)
    }
}
