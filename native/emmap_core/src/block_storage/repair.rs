//! Masks that agree with each other again.
//!
//! The mask of a group is taken for the truth, except for blocks that end behind the end of the map: those are lost, and
//! their places free. What the masks of sections and of the root say follows from it.

use super::layout::{Place, MASK, PARTS, TWO_MASKS};
use super::masks::{Storage, ALL};
use super::Result;
use crate::store::Shared;

impl<S: Shared> Storage<'_, S> {
    /// Repairs from `start` on, and looks at no more than `most` places, at least at one. Returns where to go on; `None` at
    /// the end. Places whose mask was never written are not counted.
    pub fn repair(&self, start: Place, most: u64) -> Result<Option<Place>> {
        let root = self.geometry.root();
        if self.block_size() == 0 || !self.has(root, TWO_MASKS) {
            return Ok(None);
        }
        let mut left = most;
        for section in start.section()..PARTS {
            let first = start.max(Place::new(section, 0, 0));
            let at = self.geometry.section(section);
            if !self.has(at, TWO_MASKS) {
                self.note_part(root, section, None)?;
                continue;
            }
            let last = self.repair_section(first, &mut left)?;
            let has = (self.free_of(at)?, self.used_of(at)?);
            self.note_part(root, section, Some(has))?;
            if let Some(last) = last {
                return Ok(last.next());
            }
        }
        Ok(None)
    }

    /// As [`Storage::repair`], up to the end of a section, whose masks were written. Returns the last place of as many as
    /// are left.
    fn repair_section(&self, start: Place, left: &mut u64) -> Result<Option<Place>> {
        let section = start.section();
        let at = self.geometry.section(section);
        for group in start.group()..PARTS {
            let first = start.max(Place::new(section, group, 0));
            let mask = self.geometry.group(section, group);
            if !self.has(mask, MASK) {
                self.note_part(at, group, None)?;
                continue;
            }
            let free = self.free_of(mask)? | !self.fitting(section, group);
            self.set_free(mask, free)?;
            self.note_part(at, group, Some((free, !free)))?;
            let places = PARTS - first.block();
            if *left <= places {
                let last = first.block() + left.saturating_sub(1);
                return Ok(Some(Place::new(section, group, last)));
            }
            *left -= places;
        }
        Ok(None)
    }

    /// Says in the masks at `at` what a part has: places that are free, and blocks in use. `None`: the part has no masks yet.
    fn note_part(&self, at: u64, part: u64, has: Option<(u64, u64)>) -> Result<()> {
        let (free, used) = has.unwrap_or((ALL, 0));
        let with = |mask: u64, set: bool| mask & !(1 << part) | u64::from(set) << part;
        self.set_free(at, with(self.free_of(at)?, free != 0))?;
        self.set_used(at, with(self.used_of(at)?, used != 0))
    }
}
