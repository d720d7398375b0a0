//! Blocks that are stored and freed.
//!
//! The order of the changes is such that a program that ends after any of them leaves a storage that needs no repair: a mask
//! of the root or a section may then promise a free place, or a block in use, where there is none. Both are found out when
//! somebody looks there. It never hides one.

use super::layout::{Place, MASK, TWO_MASKS};
use super::masks::{bits, Storage, ALL};
use super::{Result, Stop};
use crate::store::Shared;

impl<S: Shared> Storage<'_, S> {
    /// Stores a block of `count` bytes at the first free place, and returns its address. `copy` copies it to a position, at
    /// which there is room; where it fails, nothing is stored.
    pub fn store(&self, count: u64, copy: impl FnOnce(u64) -> Result<()>) -> Result<u64> {
        if count == 0 || count != self.block_size() {
            return Err(Stop::WrongSize);
        }
        let place = self.first_free()?.ok_or(Stop::Full)?;
        copy(self.geometry.block(place))?;
        self.write_masks(place)?;
        self.take(place)?;
        Ok(place.address())
    }

    /// The first free place, whose block is inside the map.
    fn first_free(&self) -> Result<Option<Place>> {
        let root = self.geometry.root();
        for section in bits(self.free_parts(root, TWO_MASKS)?) {
            let at = self.geometry.section(section);
            for group in bits(self.free_parts(at, TWO_MASKS)?) {
                let mask = self.geometry.group(section, group);
                if let Some(block) = bits(self.free_parts(mask, MASK)?).next() {
                    let place = Place::new(section, group, block);
                    let at = self.geometry.block(place);
                    return match self.fits(at, self.block_size()) {
                        true => Ok(Some(place)),
                        false => Err(Stop::Grow(at + self.block_size())),
                    };
                }
                // It is full, and was not said to be.
                self.set_free(at, self.free_of(at)? & !(1 << group))?;
            }
            self.set_free(root, self.free_of(root)? & !(1 << section))?;
        }
        Ok(None)
    }

    /// Which parts may have a free place.
    fn free_parts(&self, at: u64, bytes: u64) -> Result<u64> {
        match self.is_written(at) {
            false => Ok(ALL),
            true if self.fits(at, bytes) => self.free_of(at),
            true => Err(Stop::Grow(at + bytes)),
        }
    }

    /// Writes the masks above a place that were never written. The place must be inside the map.
    fn write_masks(&self, place: Place) -> Result<()> {
        let (root, section, group) = self.masks_above(place);
        if self.is_written(group) {
            return Ok(());
        }
        for at in [root, section] {
            if !self.is_written(at) {
                self.set_word(at, ALL)?;
                self.set_word(at + MASK, 0)?;
            }
        }
        self.set_word(group, ALL)?;
        self.set_last(group)
    }

    fn masks_above(&self, place: Place) -> (u64, u64, u64) {
        (
            self.geometry.root(),
            self.geometry.section(place.section()),
            self.geometry.group(place.section(), place.group()),
        )
    }

    fn take(&self, place: Place) -> Result<()> {
        let (root, section, group) = self.masks_above(place);
        let (in_root, in_section) = (1 << place.section(), 1 << place.group());
        self.set_used(root, self.used_of(root)? | in_root)?;
        self.set_used(section, self.used_of(section)? | in_section)?;
        self.set_free(group, self.free_of(group)? & !(1 << place.block()))?;
        if self.free_of(group)? == 0 {
            self.set_free(section, self.free_of(section)? & !in_section)?;
        }
        if self.free_of(section)? == 0 {
            self.set_free(root, self.free_of(root)? & !in_root)?;
        }
        Ok(())
    }

    /// Ends the use of a block, and returns whether there was one.
    pub fn free(&self, address: u64) -> Result<bool> {
        let Some(place) = Place::of_address(address) else {
            return Ok(false);
        };
        let (root, section, group) = self.masks_above(place);
        if self.block_size() == 0 || !self.has(group, MASK) {
            return Ok(false);
        }
        let (before, bit) = (self.free_of(group)?, 1 << place.block());
        if before & bit != 0 {
            return Ok(false);
        }
        let (in_root, in_section) = (1 << place.section(), 1 << place.group());
        self.set_free(root, self.free_of(root)? | in_root)?;
        self.set_free(section, self.free_of(section)? | in_section)?;
        self.set_free(group, before | bit)?;
        if before | bit == ALL {
            self.set_used(section, self.used_of(section)? & !in_section)?;
        }
        if self.used_of(section)? == 0 {
            self.set_used(root, self.used_of(root)? & !in_root)?;
        }
        Ok(true)
    }
}
