//! Which blocks are in use, by the masks in the map.
//!
//! The mask of a group is the truth. Those of sections and of the root say which parts are worth a look. A mask behind the
//! last one in use was never written: all places under it are free.

use std::sync::atomic::{fence, Ordering};

use super::layout::{Geometry, Place, HEADER, LAST, MASK, PARTS, TWO_MASKS};
use super::{Result, Stop};
use crate::interrupt;
use crate::store::Shared;

pub(super) const ALL: u64 = u64::MAX;

const _: () = assert!(PARTS == u64::BITS as u64);

/// A storage in memory that is as long as it was when this was made.
pub struct Storage<'a, S: Shared> {
    shared: &'a S,
    pub(super) geometry: Geometry,
    /// The position of the last mask in use.
    last: i64,
}

/// The bits that are set, from the lowest on.
pub(super) fn bits(mut mask: u64) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || {
        let bit = (mask != 0).then(|| u64::from(mask.trailing_zeros()));
        mask &= mask.wrapping_sub(1);
        bit
    })
}

/// The bits from this one on.
fn from(bit: u64) -> u64 {
    ALL << bit
}

/// A storage in a map.
pub type Mapped<'a> = Storage<'a, crate::store::shared::Mapped<'a>>;

impl<'a, S: Shared> Storage<'a, S> {
    pub fn of(shared: &'a S) -> Result<Storage<'a, S>> {
        if shared.len() < HEADER {
            return Err(Stop::Absent);
        }
        let (mut block_size, mut last) = ([0; 4], [0; 8]);
        shared.read(0, &mut block_size)?;
        shared.read(LAST, &mut last)?;
        Ok(Storage {
            shared,
            geometry: Geometry {
                block_size: u32::from_ne_bytes(block_size).into(),
            },
            last: (HEADER as i64).saturating_add(i64::from_ne_bytes(last)),
        })
    }

    /// In bytes; 0 where no storage was ever made.
    pub fn block_size(&self) -> u64 {
        self.geometry.block_size
    }

    /// Whether the header can be one: it says of a mask, inside the map, that it is the last one in use.
    pub fn is_plausible(&self) -> bool {
        match u64::try_from(self.last) {
            _ if self.block_size() == 0 => false,
            Ok(last) => self.last == HEADER as i64 - 1 || self.geometry.is_mask(last),
            Err(_) => false,
        }
    }

    /// Whether the map has all masks, and all blocks in use.
    pub fn is_whole(&self) -> Result<bool> {
        if self.last < HEADER as i64 {
            return Ok(true);
        }
        if !self.fits(self.last as u64, MASK) {
            return Ok(false);
        }
        for (section, group) in self.groups() {
            interrupt::check()?;
            let in_use = !self.free_of(self.geometry.group(section, group))?;
            if in_use & !self.fitting(section, group) != 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether bytes are inside the map.
    pub(super) fn fits(&self, at: u64, count: u64) -> bool {
        let len = self.shared.len();
        count <= len && at <= len - count
    }

    /// Whether a mask was ever written.
    pub(super) fn is_written(&self, at: u64) -> bool {
        // No position is as large as a signed integer can be.
        at as i64 <= self.last
    }

    /// Whether the masks at `at` were ever written, and are inside the map.
    pub(super) fn has(&self, at: u64, bytes: u64) -> bool {
        self.is_written(at) && self.fits(at, bytes)
    }

    fn word(&self, at: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        self.shared.read(at, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Sets a word after everything that was set before: whoever ends here leaves masks that can be used.
    pub(super) fn set_word(&self, at: u64, value: u64) -> Result<()> {
        fence(Ordering::SeqCst);
        Ok(self.shared.write(at, &value.to_ne_bytes())?)
    }

    /// Of the root, a section or a group: which parts have a free place.
    pub(super) fn free_of(&self, at: u64) -> Result<u64> {
        self.word(at)
    }

    /// Of the root or a section: which parts have a block in use.
    pub(super) fn used_of(&self, at: u64) -> Result<u64> {
        self.word(at + MASK)
    }

    pub(super) fn set_free(&self, at: u64, mask: u64) -> Result<()> {
        match self.free_of(at)? == mask {
            true => Ok(()),
            false => self.set_word(at, mask),
        }
    }

    pub(super) fn set_used(&self, at: u64, mask: u64) -> Result<()> {
        match self.used_of(at)? == mask {
            true => Ok(()),
            false => self.set_word(at + MASK, mask),
        }
    }

    /// Says that masks up to this one were written.
    pub(super) fn set_last(&self, at: u64) -> Result<()> {
        self.set_word(LAST, at - HEADER)
    }

    /// Makes an empty storage.
    pub fn clear(&self, block_size: u32) -> Result<()> {
        // In this order: what is left of other blocks has no mask in use.
        self.set_word(LAST, -1i64 as u64)?;
        fence(Ordering::SeqCst);
        Ok(self.shared.write(0, &block_size.to_ne_bytes())?)
    }

    /// The places of a group whose blocks are inside the map, which its mask must do.
    pub(super) fn fitting(&self, section: u64, group: u64) -> u64 {
        let start = self.geometry.group(section, group) + MASK;
        let room = self.shared.len().saturating_sub(start);
        match room.checked_div(self.block_size()).unwrap_or(PARTS) {
            count if count >= PARTS => ALL,
            count => !from(count),
        }
    }

    /// Where the block with this address is, if it is in use.
    pub fn find(&self, address: u64) -> Result<Option<u64>> {
        let Some(place) = Place::of_address(address) else {
            return Ok(None);
        };
        let group = self.geometry.group(place.section(), place.group());
        let at = self.geometry.block(place);
        let in_use = self.block_size() > 0
            && self.has(group, MASK)
            && self.free_of(group)? >> place.block() & 1 == 0
            && self.fits(at, self.block_size());
        Ok(in_use.then_some(at))
    }

    /// The first block from `start` on that is in use, as the masks of root and sections have it: its place, and where it
    /// is.
    pub fn next(&self, start: Place) -> Result<Option<(Place, u64)>> {
        self.next_of(start, |at| self.used_of(at))
    }

    /// As [`Storage::next`], whatever the masks of root and sections say.
    pub fn next_of_groups(&self, start: Place) -> Result<Option<(Place, u64)>> {
        self.next_of(start, |_| Ok(ALL))
    }

    fn next_of(
        &self,
        start: Place,
        parts: impl Fn(u64) -> Result<u64>,
    ) -> Result<Option<(Place, u64)>> {
        let root = self.geometry.root();
        if self.block_size() == 0 || !self.has(root, TWO_MASKS) {
            return Ok(None);
        }
        for section in bits(parts(root)? & from(start.section())) {
            let start = start.max(Place::new(section, 0, 0));
            let at = self.geometry.section(section);
            if !self.has(at, TWO_MASKS) {
                break;
            }
            for group in bits(parts(at)? & from(start.group())) {
                let start = start.max(Place::new(section, group, 0));
                let at = self.geometry.group(section, group);
                if !self.has(at, MASK) {
                    return Ok(None);
                }
                let in_use = !self.free_of(at)? & from(start.block());
                if let Some(block) = bits(in_use & self.fitting(section, group)).next() {
                    let place = Place::new(section, group, block);
                    return Ok(Some((place, self.geometry.block(place))));
                }
            }
        }
        Ok(None)
    }

    /// All groups whose masks were written, and are inside the map.
    fn groups(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        (0..PARTS * PARTS)
            .map(|number| (number / PARTS, number % PARTS))
            .take_while(|(section, group)| self.has(self.geometry.group(*section, *group), MASK))
    }
}
