//! New bytes for a block, so that whoever dies, it has the old ones or the new ones: they are written to a slot, which
//! becomes the place of the block by one change.
//!
//! A block that a sync has covered stays in its slot until the next sync: its own place is what a power failure leaves.

use super::contents::{self, stored_checksum};
use super::layout::{self, SLOT_ADDRESSES, SLOT_NUMBERS, SLOT_NUMBER_BYTES};
use super::{Geometry, Locked, Result, Stop};
use crate::store::log::Change;
use crate::store::{checksum, Shared};

/// A slot in use: its number, and that of the replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InSlot {
    pub slot: u64,
    pub address: u64,
    pub number: u64,
}

#[inline(always)]
fn address_at(slot: u64) -> u64 {
    SLOT_ADDRESSES + slot * 8
}

#[inline(always)]
fn number_at(slot: u64) -> u64 {
    SLOT_NUMBERS + slot * SLOT_NUMBER_BYTES
}

/// What the checksum of a slot begins with.
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
    for slot in geometry.slots_of(address) {
        if shared.load(address_at(slot))? == address + 1 {
            return Ok(Some(slot));
        }
    }
    Ok(None)
}

/// Copies a block to `out`, wherever it is. `false`: it is damaged, or changed meanwhile.
///
/// # Safety
/// `out` must have room for a block, and be no map.
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
    // Still the same: the checksum of a slot names the block and the replacement.
    Ok(u64::from(crc) == expected && shared.load(address_at(slot))? == address + 1)
}

/// Whether a block is as its checksum says, wherever it is. `false`: it is damaged, or changed meanwhile.
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
    /// Gives a block new bytes. [`Stop::Sync`]: all slots that it can have are in use.
    ///
    /// # Safety
    /// `data` must have as many readable bytes as a block has.
    pub unsafe fn replace(&self, address: u64, data: *const u8) -> Result<()> {
        let bits = self.live_bits(address)?.ok_or(Stop::Absent)?;
        let (shared, geometry) = (self.shared, self.geometry);
        let before = find(shared, geometry, address)?;
        let slot = self.free_slot_for(address)?.ok_or(Stop::Sync)?;
        let number = self.load(layout::REPLACEMENT)?.wrapping_add(1);
        shared.store(layout::REPLACEMENT, number)?;
        let seed = slot_seed(geometry, address, number);
        let count = geometry.block_size as usize;
        // SAFETY: the caller's promise.
        let crc = unsafe { contents::write(shared, geometry.slot(slot), data, count, seed)? };
        shared.store(number_at(slot), number)?;
        shared.store(number_at(slot) + 8, crc.into())?;
        let mut change = self.change();
        change.set(address_at(slot), address + 1)?;
        match before {
            Some(before) => change.set(address_at(before), 0)?,
            None => change.set(layout::REPLACED, self.load(layout::REPLACED)? + 1)?,
        }
        change.commit()?;
        let held = self.load(bits.held)? & bits.bit != 0;
        match held {
            true => Ok(()),
            false => {
                self.move_home(address, slot)?;
                self.end_slot(slot)
            }
        }
    }

    fn free_slot_for(&self, address: u64) -> crate::Result<Option<u64>> {
        for slot in self.geometry.slots_of(address) {
            if self.load(address_at(slot))? == 0 {
                return Ok(Some(slot));
            }
        }
        Ok(None)
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
        self.end_slot_with(slot, &mut change)?;
        Ok(change.commit()?)
    }

    fn end_slot_with(&self, slot: u64, change: &mut Change<S>) -> Result<()> {
        change.set(address_at(slot), 0)?;
        let replaced = self.load(layout::REPLACED)?;
        Ok(change.set(layout::REPLACED, replaced.saturating_sub(1))?)
    }

    /// The block is not needed any more, wherever it is.
    #[inline(always)]
    pub(super) fn free_slot(&self, address: u64, change: &mut Change<S>) -> Result<()> {
        match find(self.shared, self.geometry, address)? {
            None => Ok(()),
            Some(slot) => self.end_slot_with(slot, change),
        }
    }

    /// Whether a block is in a slot.
    pub fn is_replaced(&self, address: u64) -> Result<bool> {
        Ok(find(self.shared, self.geometry, address)?.is_some())
    }

    /// The slots in use.
    pub fn in_slots(&self) -> Result<Vec<InSlot>> {
        let mut found = Vec::new();
        if self.load(layout::REPLACED)? == 0 {
            return Ok(found);
        }
        for slot in 0..self.geometry.slots {
            if let Some(address) = self.load(address_at(slot))?.checked_sub(1) {
                let number = self.load(number_at(slot))?;
                found.push(InSlot {
                    slot,
                    address,
                    number,
                });
            }
        }
        Ok(found)
    }

    fn is_still(&self, in_slot: &InSlot) -> Result<bool> {
        Ok(self.load(address_at(in_slot.slot))? == in_slot.address + 1
            && self.load(number_at(in_slot.slot))? == in_slot.number)
    }

    /// Copies a block from its slot to its own place, unless it was replaced or freed since.
    pub(super) fn move_if_still(&self, in_slot: &InSlot) -> Result<()> {
        match self.is_still(in_slot)? && self.is_slot_sound(in_slot)? {
            true => self.move_home(in_slot.address, in_slot.slot),
            // A slot that is damaged keeps its block: who reads it is told.
            false => Ok(()),
        }
    }

    pub(super) fn end_if_still(&self, in_slot: &InSlot) -> Result<()> {
        match self.is_still(in_slot)? && self.is_slot_sound(in_slot)? {
            true => self.end_slot(in_slot.slot),
            false => Ok(()),
        }
    }

    /// Whether the bytes in a slot are as its checksum says.
    pub(super) fn is_slot_sound(&self, in_slot: &InSlot) -> crate::Result<bool> {
        let (shared, geometry) = (self.shared, self.geometry);
        let seed = slot_seed(geometry, in_slot.address, in_slot.number);
        let (at, count) = (geometry.slot(in_slot.slot), geometry.block_size);
        let crc = contents::walk(shared, at, count, seed, |_, _| Ok(()))?;
        Ok(u64::from(crc) == shared.load(number_at(in_slot.slot) + 8)?)
    }

    /// After a reboot: only these slots are in use.
    pub(super) fn set_slots(&self, in_use: &[InSlot]) -> Result<()> {
        for slot in 0..layout::MOST_SLOTS {
            let found = in_use.iter().find(|in_slot| in_slot.slot == slot);
            let address = found.map_or(0, |in_slot| in_slot.address + 1);
            self.shared.store(address_at(slot), address)?;
        }
        Ok(self.shared.store(layout::REPLACED, in_use.len() as u64)?)
    }

    /// After a reboot: what each slot says of itself.
    pub(super) fn told_by_slots(&self) -> Result<Vec<InSlot>> {
        let mut told = Vec::new();
        for slot in 0..self.geometry.slots {
            if let Some(address) = self.load(address_at(slot))?.checked_sub(1) {
                let number = self.load(number_at(slot))?;
                told.push(InSlot {
                    slot,
                    address,
                    number,
                });
            }
        }
        Ok(told)
    }
}
