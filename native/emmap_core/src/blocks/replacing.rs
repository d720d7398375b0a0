//! Replaces a block, so that it has either the old or the new bytes wherever a program dies: the new bytes are written to a
//! slot, which becomes the place of the block by one change.
//!
//! A block that a sync has covered stays in its slot until the next sync, because its own place is what a power failure leaves.
//! That sync writes to its own place. From then until this is on the disk, the slot is [`PINNED`]: it has the only bytes
//! that certainly survive a power failure, and no other block uses it, even if this one is replaced again or freed.

use super::contents::{self, stored_checksum};
use super::layout::{self, SLOT_ADDRESSES, SLOT_NUMBERS, SLOT_NUMBER_BYTES};
use super::{Geometry, Locked, Result, Stop};
use crate::store::log::Change;
use crate::store::{checksum, Shared};

use std::collections::HashSet;

/// In the word of a slot: the block's own place may be incomplete, until a sync has copied the block there.
pub const PINNED: u64 = 1 << 63;
/// In the word of a slot that is pinned: the block is now in another slot, or was freed.
pub const SUPERSEDED: u64 = 1 << 62;
pub const FLAGS: u64 = PINNED | SUPERSEDED;
/// In the word of a slot: address + 1. The last bits of the number of the replacement are between it and the flags: after a
/// power failure, the word may be on the disk together with previous contents of the slot for the same block.
pub const ADDRESS: u64 = (1 << 45) - 1;

const _: () = assert!(layout::BITS * layout::BITS * layout::BITS < ADDRESS);

/// A slot in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InSlot {
    pub slot: u64,
    word: u64,
    /// Of the replacement.
    pub number: u64,
    /// When a sync began, this was the latest slot of the block.
    latest: bool,
}

impl InSlot {
    pub fn address(&self) -> u64 {
        (self.word & ADDRESS).wrapping_sub(1)
    }

    pub(super) fn in_use(self) -> InSlot {
        let word = self.word & !SUPERSEDED;
        InSlot { word, ..self }
    }

    /// The slot does not contain the current block any more.
    pub fn is_superseded(&self) -> bool {
        self.word & SUPERSEDED != 0
    }
}

/// The word of a slot.
fn word_of(address: u64, number: u64) -> u64 {
    ((address + 1) & ADDRESS) | (number << ADDRESS.count_ones() & !FLAGS)
}

#[inline(always)]
fn address_at(slot: u64) -> u64 {
    SLOT_ADDRESSES + slot * 8
}

#[inline(always)]
fn number_at(slot: u64) -> u64 {
    SLOT_NUMBERS + slot * SLOT_NUMBER_BYTES
}

/// The seed of the checksum of a slot.
fn slot_seed(geometry: &Geometry, address: u64, number: u64) -> u32 {
    checksum::append(geometry.seed(address), &number.to_le_bytes())
}

/// The slot that a block is in.
#[inline(always)]
fn find<S: Shared>(shared: &S, geometry: &Geometry, address: u64) -> crate::Result<Option<u64>> {
    match shared.load(layout::REPLACED)? {
        0 => Ok(None),
        _ => find_in_use(shared, geometry, address),
    }
}

#[cold]
fn find_in_use<S: Shared>(
    shared: &S,
    geometry: &Geometry,
    address: u64,
) -> crate::Result<Option<u64>> {
    loop {
        let before = shared.load(layout::REPLACEMENT)?;
        for slot in geometry.slots_of(address) {
            if is_of(shared.load(address_at(slot))?, address) {
                return Ok(Some(slot));
            }
        }
        // The number changes while a block moves from one slot to another, so this search may have missed it.
        if shared.load(layout::REPLACEMENT)? == before {
            return Ok(None);
        }
    }
}

/// Whether the word of a slot contains this block.
#[inline(always)]
fn is_of(word: u64, address: u64) -> bool {
    word & (ADDRESS | SUPERSEDED) == address + 1
}

/// Copies a block to `out` from wherever it is. `false`: it is damaged, or changed in the meantime.
///
/// # Safety
/// `out` must have room for a block, outside of any map.
#[inline(always)]
pub unsafe fn read<S: Shared>(
    shared: &S,
    geometry: &Geometry,
    address: u64,
    out: *mut u8,
) -> crate::Result<bool> {
    if let Some(slot) = find(shared, geometry, address)? {
        // SAFETY: the caller's promise.
        return unsafe { read_slot(shared, geometry, (address, slot), out) };
    }
    let place = geometry.place(address);
    let expected = stored_checksum(shared, &place)?;
    let (at, seed) = (geometry.block_at(&place), geometry.seed(address));
    let count = geometry.block_size as usize;
    // SAFETY: the caller's promise.
    Ok(unsafe { contents::read(shared, at, out, count, seed)? } == expected)
}

/// # Safety
/// As [`read`].
#[cold]
unsafe fn read_slot<S: Shared>(
    shared: &S,
    geometry: &Geometry,
    (address, slot): (u64, u64),
    out: *mut u8,
) -> crate::Result<bool> {
    let number = shared.load(number_at(slot))?;
    let expected = shared.load(number_at(slot) + 8)?;
    let seed = slot_seed(geometry, address, number);
    let count = geometry.block_size as usize;
    // SAFETY: the caller's promise.
    let crc = unsafe { contents::read(shared, geometry.slot(slot), out, count, seed)? };
    // Check that it is unchanged: the checksum of a slot depends on the block and the replacement.
    Ok(u64::from(crc) == expected && is_of(shared.load(address_at(slot))?, address))
}

/// Whether a block matches its checksum, wherever it is. `false`: it is damaged, or changed in the meantime.
pub fn is_sound<S: Shared>(shared: &S, geometry: &Geometry, address: u64) -> crate::Result<bool> {
    let count = geometry.block_size;
    if let Some(slot) = find(shared, geometry, address)? {
        let (number, expected) = (
            shared.load(number_at(slot))?,
            shared.load(number_at(slot) + 8)?,
        );
        let seed = slot_seed(geometry, address, number);
        let crc = contents::walk(shared, geometry.slot(slot), count, seed, |_, _| Ok(()))?;
        return Ok(u64::from(crc) == expected);
    }
    let place = geometry.place(address);
    let expected = stored_checksum(shared, &place)?;
    let (at, seed) = (geometry.block_at(&place), geometry.seed(address));
    Ok(contents::walk(shared, at, count, seed, |_, _| Ok(()))? == expected)
}

impl<S: Shared> Locked<'_, S> {
    /// Replaces the bytes of a block. [`Stop::Sync`]: all its possible slots are in use. [`Stop::Corrupt`]: by damaged blocks.
    ///
    /// # Safety
    /// `data` must have as many readable bytes as a block has.
    pub unsafe fn replace(&self, address: u64, data: *const u8) -> Result<()> {
        let bits = self.live_bits(address)?.ok_or(Stop::Absent)?;
        let held = self.load(bits.held)? & bits.bit != 0;
        let (shared, geometry) = (self.shared, self.geometry);
        let before = find(shared, geometry, address)?;
        let slot = self.free_slot_for(address)?;
        let number = self.load(layout::REPLACEMENT)?.wrapping_add(1);
        let seed = slot_seed(geometry, address, number);
        let count = geometry.block_size as usize;
        // SAFETY: the caller's promise.
        let crc = unsafe { contents::write(shared, geometry.slot(slot), data, count, seed)? };
        shared.store(number_at(slot), number)?;
        shared.store(number_at(slot) + 8, crc.into())?;
        let mut change = self.change();
        // A block that is not held is copied to its own place immediately.
        let pinned = if held { 0 } else { PINNED };
        change.set(address_at(slot), word_of(address, number) | pinned)?;
        // Between the two slots: see `find_in_use`.
        change.set(layout::REPLACEMENT, number)?;
        let replaced = self.load(layout::REPLACED)?.wrapping_add(1);
        change.set(layout::REPLACED, replaced)?;
        if let Some(before) = before {
            self.leave_slot(before, (held, replaced), &mut change)?;
        }
        change.commit()?;
        match held {
            true => Ok(()),
            false => {
                self.move_home(address, slot)?;
                self.end_slot(slot)
            }
        }
    }

    fn is_held(&self, address: u64) -> Result<bool> {
        let bits = self.bits(address);
        Ok(self.load(bits.held)? & bits.bit != 0)
    }

    /// The block leaves this slot. After a power failure, the slot may still be needed if a sync has covered the block.
    fn leave_slot(
        &self,
        slot: u64,
        (held, replaced): (bool, u64),
        change: &mut Change<S>,
    ) -> Result<()> {
        let word = self.load(address_at(slot))?;
        if held && word & PINNED != 0 {
            return Ok(change.set(address_at(slot), word | SUPERSEDED)?);
        }
        change.set(address_at(slot), 0)?;
        Ok(change.set(layout::REPLACED, replaced.saturating_sub(1))?)
    }

    fn free_slot_for(&self, address: u64) -> Result<u64> {
        let mut damaged = None;
        for slot in self.geometry.slots_of(address) {
            let word = self.load(address_at(slot))?;
            if word == 0 {
                return Ok(slot);
            }
            let in_slot = self.in_slot(slot, word)?;
            match self.can_end(&in_slot)? {
                true => damaged = Some(Stop::Sync),
                false => damaged = damaged.or(Some(Stop::Corrupt(in_slot.address()))),
            }
        }
        // A sync does not free a slot whose block is damaged.
        Err(damaged.unwrap_or(Stop::Sync))
    }

    /// Copies a block from its slot to its own place.
    fn move_home(&self, address: u64, slot: u64) -> Result<()> {
        let (shared, geometry) = (self.shared, self.geometry);
        let place = geometry.place(address);
        let home = geometry.block_at(&place);
        let mut crc = geometry.seed(address);
        let (at, count) = (geometry.slot(slot), geometry.block_size);
        contents::walk(shared, at, count, 0, |done, bytes| {
            crc = checksum::append(crc, bytes);
            shared.write(home + done, bytes)
        })?;
        Ok(self.put_checksum(&place, crc)?)
    }

    fn end_slot(&self, slot: u64) -> Result<()> {
        let mut change = self.change();
        change.set(address_at(slot), 0)?;
        let replaced = self.load(layout::REPLACED)?;
        change.set(layout::REPLACED, replaced.saturating_sub(1))?;
        Ok(change.commit()?)
    }

    /// The block is not needed any more, wherever it is.
    #[inline(always)]
    pub(super) fn free_slot(&self, address: u64, change: &mut Change<S>) -> Result<()> {
        match find(self.shared, self.geometry, address)? {
            None => Ok(()),
            Some(slot) => {
                let (held, replaced) = (self.is_held(address)?, self.load(layout::REPLACED)?);
                self.leave_slot(slot, (held, replaced), change)
            }
        }
    }

    /// Whether a block is in a slot.
    pub fn is_replaced(&self, address: u64) -> Result<bool> {
        Ok(find(self.shared, self.geometry, address)?.is_some())
    }

    fn in_slot(&self, slot: u64, word: u64) -> Result<InSlot> {
        Ok(InSlot {
            slot,
            word,
            number: self.load(number_at(slot))?,
            latest: true,
        })
    }

    /// The slots in use.
    pub fn in_slots(&self) -> Result<Vec<InSlot>> {
        let mut found = Vec::new();
        for slot in 0..self.geometry.slots {
            match self.load(address_at(slot))? {
                0 => (),
                word => found.push(self.in_slot(slot, word)?),
            }
        }
        Ok(found)
    }

    /// The slots in use, which are pinned from now on.
    pub(super) fn pin_slots(&self) -> Result<Vec<InSlot>> {
        let mut found = self.in_slots()?;
        for in_slot in &found {
            let at = address_at(in_slot.slot);
            self.shared.store(at, self.load(at)? | PINNED)?;
        }
        found.sort_by_key(|in_slot| std::cmp::Reverse(in_slot.number));
        let mut later = HashSet::new();
        for in_slot in &mut found {
            in_slot.latest = later.insert(in_slot.address());
        }
        Ok(found)
    }

    fn is_still(&self, in_slot: &InSlot) -> Result<bool> {
        let now = self.now(in_slot)?;
        Ok(now.word & !FLAGS == in_slot.word & !FLAGS && now.number == in_slot.number)
    }

    /// Whether the block may be in this slot; otherwise the slot is damaged.
    pub(super) fn is_possible(&self, in_slot: &InSlot) -> Result<bool> {
        let address = in_slot.address();
        if address >= self.load(layout::CAPACITY)?
            || in_slot.word & !FLAGS != word_of(address, in_slot.number)
            || !self.geometry.slots_of(address).contains(&in_slot.slot)
        {
            return Ok(false);
        }
        match in_slot.is_superseded() {
            true => self.is_held(address),
            false => self.is_live(address),
        }
    }

    /// A damaged slot keeps its block, so that reading it reports the damage.
    fn can_end(&self, in_slot: &InSlot) -> Result<bool> {
        Ok(
            in_slot.is_superseded()
                || !self.is_possible(in_slot)?
                || self.is_slot_sound(in_slot)?,
        )
    }

    /// Copies a block from its slot to its own place, unless the slot has another one by now. One that was superseded, too:
    /// a power failure may leave no other place of the block.
    ///
    /// Of two slots, which are on the disk, only the later one matters; the other one is free on the disk before the later
    /// one is, for it would count again.
    pub(super) fn move_if_still(&self, in_slot: &InSlot) -> Result<()> {
        if !self.is_still(in_slot)? {
            return Ok(());
        }
        if !in_slot.latest {
            return self.end_slot(in_slot.slot);
        }
        match self.is_possible(&self.now(in_slot)?)? && self.is_slot_sound(in_slot)? {
            true => self.move_home(in_slot.address(), in_slot.slot),
            false => Ok(()),
        }
    }

    pub(super) fn end_if_still(&self, in_slot: &InSlot) -> Result<()> {
        match self.is_still(in_slot)? && self.can_end(&self.now(in_slot)?)? {
            true => self.end_slot(in_slot.slot),
            false => Ok(()),
        }
    }

    /// It may have been superseded since.
    fn now(&self, in_slot: &InSlot) -> Result<InSlot> {
        self.in_slot(in_slot.slot, self.load(address_at(in_slot.slot))?)
    }

    /// Whether the bytes in a slot are as its checksum says.
    pub(super) fn is_slot_sound(&self, in_slot: &InSlot) -> crate::Result<bool> {
        let (shared, geometry) = (self.shared, self.geometry);
        let seed = slot_seed(geometry, in_slot.address(), in_slot.number);
        let (at, count) = (geometry.slot(in_slot.slot), geometry.block_size);
        let crc = contents::walk(shared, at, count, seed, |_, _| Ok(()))?;
        Ok(u64::from(crc) == shared.load(number_at(in_slot.slot) + 8)?)
    }

    /// After a reboot: the number of the last replacement, of which any slot may have something.
    pub(super) fn last_replacement(&self) -> Result<u64> {
        let mut last = self.load(layout::REPLACEMENT)?;
        for slot in 0..self.geometry.slots {
            let number = self.load(number_at(slot))?;
            // A file does not live as long as it takes to get there.
            if number < 1 << 62 {
                last = last.max(number);
            }
        }
        Ok(last)
    }

    /// After a reboot: only these slots are in use. What is in the own places of their blocks is not known.
    pub(super) fn set_slots(&self, in_use: &[InSlot]) -> Result<()> {
        for slot in 0..layout::MOST_SLOTS {
            let found = in_use.iter().find(|in_slot| in_slot.slot == slot);
            let word = found.map_or(0, |in_slot| in_slot.word & !FLAGS | PINNED);
            self.shared.store(address_at(slot), word)?;
        }
        Ok(self.shared.store(layout::REPLACED, in_use.len() as u64)?)
    }
}
