//! Which blocks are in use, and the lowest free block.
//!
//! A block is taken while it is live (L) or held (H). Pages of bits mark the words that are full of taken blocks, and
//! directories the groups that are full.

use super::layout::{self, group, Place, BITS, WORDS};
use super::{page, Locked, Result, Stop};
use crate::store::log::{self, Change};
use crate::store::Shared;
use crate::Errno;

/// Where the bits of a block are.
#[derive(Clone, Copy)]
pub struct Bits {
    pub group: u64,
    /// The number of the word in the group.
    pub word: u64,
    /// Offsets of the words in L and H.
    pub live: u64,
    pub held: u64,
    pub bit: u64,
}

impl Bits {
    #[inline(always)]
    fn of(place: &Place) -> Bits {
        let word = place.index / 64;
        Bits {
            group: place.group,
            word,
            live: page::word(place.start + group::LIVE, word),
            held: page::word(place.start + group::HELD, word),
            bit: 1 << (place.index % 64),
        }
    }
}

impl<S: Shared> Locked<'_, S> {
    #[inline(always)]
    pub(super) fn bits(&self, address: u64) -> Bits {
        Bits::of(&self.geometry.place(address))
    }

    /// Whether a block with this address is in use. `EINVAL`: it is past the end of this map.
    #[inline(always)]
    pub fn is_live(&self, address: u64) -> Result<bool> {
        Ok(self.live_bits(address)?.is_some())
    }

    /// The bits of a block that is in use.
    #[inline(always)]
    pub(super) fn live_bits(&self, address: u64) -> Result<Option<Bits>> {
        if address >= self.load(layout::CAPACITY)? {
            return Ok(None);
        }
        let bits = self.bits(address);
        Ok((self.load(bits.live)? & bits.bit != 0).then_some(bits))
    }

    /// The lowest free address. The file may have no room for it yet.
    #[inline(always)]
    fn lowest_free(&self) -> Result<u64> {
        let (hint, capacity) = (self.load(layout::HINT)?, self.load(layout::CAPACITY)?);
        if hint >= capacity {
            return Ok(capacity);
        }
        let bits = self.bits(hint);
        let taken = self.load(bits.live)? | self.load(bits.held)?;
        let free = !taken & (u64::MAX << (hint % 64));
        match free {
            0 => self.search_free(hint, capacity),
            _ => Ok(hint / 64 * 64 + u64::from(free.trailing_zeros())),
        }
    }

    /// The lowest free address, in the word after the one of the hint, or found through the directories.
    #[cold]
    fn search_free(&self, hint: u64, capacity: u64) -> Result<u64> {
        let next = (hint / 64 + 1) * 64;
        if next < capacity {
            let bits = self.bits(next);
            let taken = self.load(bits.live)? | self.load(bits.held)?;
            if taken != u64::MAX {
                return Ok(next + u64::from(taken.trailing_ones()));
            }
        }
        loop {
            let number = page::first_clear(self.shared, layout::DIRECTORY)?;
            let super_group = number.ok_or(Errno::NOSPC)?;
            if super_group * BITS * BITS >= capacity {
                return Ok(capacity);
            }
            let directory = self.geometry.directory(super_group);
            let mut change = self.change();
            let Some(number) = page::first_clear(self.shared, directory)? else {
                // The file is damaged: everything is full, but not marked as full.
                page::set(
                    self.shared,
                    layout::DIRECTORY,
                    super_group,
                    true,
                    &mut change,
                )?;
                change.commit()?;
                continue;
            };
            let number = super_group * BITS + number;
            if number * BITS >= capacity {
                return Ok(capacity);
            }
            if let Some(place) = self.first_free_of(number)? {
                return Ok((number * BITS + place).min(capacity));
            }
            // As above.
            self.fill_group(number, &mut change)?;
            change.commit()?;
        }
    }

    /// The first free block of a group.
    fn first_free_of(&self, number: u64) -> Result<Option<u64>> {
        let start = self.geometry.group(number);
        let mut from = 0;
        while let Some(word) = page::first_word(self.shared, start + group::LIVE, from)? {
            let taken = self.load(page::word(start + group::LIVE, word))?
                | self.load(page::word(start + group::HELD, word))?;
            if taken != u64::MAX {
                return Ok(Some(word * 64 + u64::from(taken.trailing_ones())));
            }
            from = word + 1;
        }
        Ok(None)
    }

    /// Marks a word of a group as full of taken blocks.
    #[inline(always)]
    fn fill_word(&self, number: u64, word: u64, change: &mut Change<S>) -> Result<()> {
        let live = self.geometry.group(number) + group::LIVE;
        match page::set_full(self.shared, live, word, true, change)? {
            true => self.fill_group(number, change),
            false => Ok(()),
        }
    }

    #[cold]
    fn fill_group(&self, number: u64, change: &mut Change<S>) -> Result<()> {
        let directory = self.geometry.directory(number / BITS);
        if page::set(self.shared, directory, number, true, change)? {
            page::set(self.shared, layout::DIRECTORY, number / BITS, true, change)?;
        }
        Ok(())
    }

    /// Marks blocks of a word as free. `first` is the lowest of them.
    #[inline(always)]
    pub(super) fn free_in_word(
        &self,
        (number, word): (u64, u64),
        first: u64,
        change: &mut Change<S>,
    ) -> Result<()> {
        let live = self.geometry.group(number) + group::LIVE;
        let (at, bit) = page::full(live, word);
        if self.load(at)? & bit != 0 {
            self.free_in_full_word((number, word), change)?;
        }
        self.lower_hint(first)
    }

    #[cold]
    fn free_in_full_word(&self, (number, word): (u64, u64), change: &mut Change<S>) -> Result<()> {
        let live = self.geometry.group(number) + group::LIVE;
        page::set_full(self.shared, live, word, false, change)?;
        let directory = self.geometry.directory(number / BITS);
        page::set(self.shared, directory, number, false, change)?;
        page::set(self.shared, layout::DIRECTORY, number / BITS, false, change)?;
        Ok(())
    }

    /// Marks that a sync has to look at the group that begins at `start`.
    #[inline(always)]
    fn note_change(&self, start: u64) -> Result<()> {
        let at = start + group::CHANGED;
        match self.load(at)? == group::CHANGED_SINCE {
            true => Ok(()),
            false => Ok(self.shared.store(at, group::CHANGED_SINCE)?),
        }
    }

    /// Stores a block at the lowest free address, and returns the address.
    ///
    /// # Safety
    /// `data` must have as many readable bytes as a block has.
    #[inline(always)]
    pub unsafe fn store(&self, data: *const u8) -> Result<u64> {
        let address = self.lowest_free()?;
        let room = self.check_room(address);
        if room.is_err() {
            // If the directories are damaged, the file must not grow again and again.
            self.shared
                .store(layout::HINT, self.load(layout::CAPACITY)?)?;
        }
        room?;
        let place = self.geometry.place(address);
        // SAFETY: the caller's promise.
        unsafe { self.take(address, &place, data)? };
        // Afterwards, because a hint that is too low only costs a search.
        self.shared.store(layout::HINT, address + 1)?;
        Ok(address)
    }

    /// As [`Locked::store`], at this address; EEXIST if it is in use. A held address needs a sync first.
    ///
    /// # Safety
    /// As [`Locked::store`].
    pub unsafe fn store_at(&self, address: u64, data: *const u8) -> Result<()> {
        self.check_room(address)?;
        let place = self.geometry.place(address);
        let bits = Bits::of(&place);
        if self.load(bits.live)? & bits.bit != 0 {
            return Err(Errno::EXIST.into());
        }
        if self.load(bits.held)? & bits.bit != 0 {
            return Err(Stop::Sync);
        }
        // SAFETY: the caller's promise.
        unsafe { self.take(address, &place, data) }
    }

    /// Whether the file has room for the block with this address.
    #[inline(always)]
    fn check_room(&self, address: u64) -> Result<()> {
        let capacity = self.load(layout::CAPACITY)?;
        if address < capacity {
            return Ok(());
        }
        if address >= self.geometry.most_blocks {
            return Err(Errno(libc::EFBIG).into());
        }
        Err(Stop::Grow(self.geometry.capacity_for(address, capacity)))
    }

    /// Stores a block at an address that is not taken.
    ///
    /// # Safety
    /// As [`Locked::store`].
    #[inline(always)]
    unsafe fn take(&self, address: u64, place: &layout::Place, data: *const u8) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.put(address, place, data)? };
        self.note_change(place.start)?;
        let bits = Bits::of(place);
        let live = self.load(bits.live)? | bits.bit;
        let taken = live | self.load(bits.held)?;
        let count = self.load(layout::COUNT)?.wrapping_add(1);
        if taken != u64::MAX {
            let words = [(bits.live, live), (layout::COUNT, count)];
            log::set_two(self.shared, &layout::LOG, words)?;
        } else {
            let mut change = self.change();
            change.set(bits.live, live)?;
            change.set(layout::COUNT, count)?;
            self.fill_word(bits.group, bits.word, &mut change)?;
            change.commit()?;
        }
        Ok(())
    }

    /// Frees a block.
    #[inline(always)]
    pub fn free(&self, address: u64) -> Result<()> {
        let bits = self.live_bits(address)?.ok_or(Stop::Absent)?;
        self.note_change(bits.live - bits.word * 8 - group::LIVE)?;
        let live = self.load(bits.live)? & !bits.bit;
        let count = self.load(layout::COUNT)?.saturating_sub(1);
        let start = bits.live - bits.word * 8;
        let (at, full) = page::full(start, bits.word);
        if self.load(layout::REPLACED)? != 0 || self.load(at)? & full != 0 {
            return self.free_with_more(address, &bits, live, count);
        }
        if self.load(bits.held)? & bits.bit == 0 {
            self.lower_hint(address)?;
        }
        let words = [(bits.live, live), (layout::COUNT, count)];
        Ok(log::set_two(self.shared, &layout::LOG, words)?)
    }

    /// For changes of more than two words.
    #[cold]
    fn free_with_more(&self, address: u64, bits: &Bits, live: u64, count: u64) -> Result<()> {
        let mut change = self.change();
        self.free_slot(address, &mut change)?;
        change.set(bits.live, live)?;
        change.set(layout::COUNT, count)?;
        if self.load(bits.held)? & bits.bit == 0 {
            self.free_in_word((bits.group, bits.word), address, &mut change)?;
        }
        Ok(change.commit()?)
    }

    /// To be called before an address becomes free: a hint that is too low only costs a search.
    #[inline(always)]
    fn lower_hint(&self, address: u64) -> Result<()> {
        match address < self.load(layout::HINT)? {
            true => Ok(self.shared.store(layout::HINT, address)?),
            false => Ok(()),
        }
    }

    /// The first block in use from `from` on, below `end`.
    pub fn next_live(&self, from: u64, end: u64) -> Result<Option<u64>> {
        let end = end.min(self.load(layout::CAPACITY)?);
        let mut at = from;
        while at < end {
            let live = self.load(self.bits(at).live)? & (u64::MAX << (at % 64));
            if live != 0 {
                let found = at / 64 * 64 + u64::from(live.trailing_zeros());
                return Ok((found < end).then_some(found));
            }
            at = (at / 64 + 1) * 64;
        }
        Ok(None)
    }

    /// The last block below `end` that is in use or, with `held`, held.
    pub fn last_taken(&self, end: u64, held: bool) -> Result<Option<u64>> {
        let mut at = end.min(self.load(layout::CAPACITY)?);
        while at > 0 {
            let bits = self.bits(at - 1);
            let mut taken = self.load(bits.live)?;
            if held {
                taken |= self.load(bits.held)?;
            }
            taken &= u64::MAX >> (63 - (at - 1) % 64);
            if taken != 0 {
                return Ok(Some(
                    (at - 1) / 64 * 64 + 63 - u64::from(taken.leading_zeros()),
                ));
            }
            at = (at - 1) / 64 * 64;
        }
        Ok(None)
    }

    /// The words of L or H of a group.
    pub(super) fn words(&self, number: u64, page_of: u64) -> Result<Vec<u64>> {
        let start = self.geometry.group(number) + page_of;
        let words = (0..WORDS).map(|word| self.load(page::word(start, word)));
        Ok(words.collect::<crate::Result<_>>()?)
    }
}
