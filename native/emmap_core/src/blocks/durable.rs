//! The steps of a sync. The page D of a group records the blocks that the last sync covered: they exist after a power failure.
//! D is written when the blocks are on the disk, and what D needs does not change until the next D is on the disk.

use std::sync::OnceLock;

use super::layout::{self, group, WORDS};
use super::{page, Locked, Result};
use crate::store::{checksum, Shared};

use super::replacing::InSlot;

/// What was live in a group when a sync began.
pub struct Seen {
    pub group: u64,
    live: Vec<u64>,
}

/// The checksum of a page D: 0 for a page of zeros.
fn checksum_of(words: &[u64]) -> u64 {
    static OF_ZEROS: OnceLock<u32> = OnceLock::new();
    let of = |words: &[u64]| {
        let append = |crc, word: &u64| checksum::append(crc, &word.to_ne_bytes());
        words.iter().fold(0, append)
    };
    u64::from(of(words) ^ OF_ZEROS.get_or_init(|| of(&[0; WORDS as usize])))
}

impl<S: Shared> Locked<'_, S> {
    /// A page D, if its checksum is right.
    pub(super) fn durable(&self, number: u64, copy: usize) -> Result<Option<Vec<u64>>> {
        let words = self.words(number, group::DURABLE[copy])?;
        let at = page::word(self.geometry.group(number) + group::DURABLE[copy], WORDS);
        Ok((self.load(at)? == checksum_of(&words)).then_some(words))
    }

    /// Writes a page D.
    pub(super) fn set_durable(&self, number: u64, copy: usize, words: &[u64]) -> Result<()> {
        let start = self.geometry.group(number) + group::DURABLE[copy];
        for (word, bits) in words.iter().enumerate() {
            self.shared.store(page::word(start, word as u64), *bits)?;
        }
        let at = page::word(start, WORDS);
        Ok(self.shared.store(at, checksum_of(words))?)
    }

    /// The number of a sync that begins.
    pub fn begin_sync(&self) -> Result<u64> {
        let number = self.load(layout::SYNCS_BEGUN)?.saturating_add(1);
        self.shared.store(layout::SYNCS_BEGUN, number)?;
        Ok(number)
    }

    /// Step 1: what is live in a group that changed, which is held from now on.
    pub fn see_group(&self, number: u64) -> Result<Option<Seen>> {
        let start = self.geometry.group(number);
        if self.load(start + group::CHANGED)? == 0 {
            return Ok(None);
        }
        // At any moment, one page D is on the disk. The first one will be overwritten. If it was written by a sync that did
        // not end, it may not be on the disk, but then the second one is: that is written only while the first is on the disk.
        if self.durable(number, 1)?.is_none() {
            if let Some(first) = self.durable(number, 0)? {
                self.set_durable(number, 1, &first)?;
            }
        }
        let live = self.words(number, group::LIVE)?;
        for (word, bits) in live.iter().enumerate() {
            let at = page::word(start + group::HELD, word as u64);
            let held = self.load(at)?;
            if held | bits != held {
                self.shared.store(at, held | bits)?;
            }
        }
        self.shared
            .store(start + group::CHANGED, group::CHANGE_SEEN)?;
        Ok(Some(Seen {
            group: number,
            live,
        }))
    }

    /// The blocks in slots, which the sync will move to their own places.
    pub fn see_slots(&self) -> Result<Vec<InSlot>> {
        self.pin_slots()
    }

    /// Step 2, after everything was written to the disk: D, and the blocks in slots in their own places.
    pub fn cover(&self, seen: &Seen) -> Result<()> {
        self.set_durable(seen.group, 0, &seen.live)
    }

    pub fn cover_slot(&self, in_slot: &InSlot) -> Result<()> {
        self.move_if_still(in_slot)
    }

    /// Step 3, after everything was written to the disk again: the slots are free, and what is not needed any more.
    pub fn end_slot_of_sync(&self, in_slot: &InSlot) -> Result<()> {
        self.end_if_still(in_slot)
    }

    pub fn end_group(&self, seen: &Seen) -> Result<()> {
        let start = self.geometry.group(seen.group);
        // First, because blocks that are not held may be reused, and must not be in the second page then.
        self.set_durable(seen.group, 1, &seen.live)?;
        for (word, bits) in (0..WORDS).zip(&seen.live) {
            let at = page::word(start + group::HELD, word);
            let held = self.load(at)?;
            if held == *bits {
                continue;
            }
            let mut change = self.change();
            change.set(at, *bits)?;
            let live = self.load(page::word(start + group::LIVE, word))?;
            let freed = held & !bits & !live;
            if freed != 0 {
                let first = seen.group * layout::BITS + word * 64;
                let first = first + u64::from(freed.trailing_zeros());
                self.free_in_word((seen.group, word), first, &mut change)?;
            }
            change.commit()?;
        }
        if self.load(start + group::CHANGED)? == group::CHANGE_SEEN {
            self.shared.store(start + group::CHANGED, 0)?;
        }
        Ok(())
    }

    pub fn end_sync(&self, number: u64) -> Result<()> {
        match self.load(layout::SYNCS_DONE)? < number {
            true => Ok(self.shared.store(layout::SYNCS_DONE, number)?),
            false => Ok(()),
        }
    }
}
