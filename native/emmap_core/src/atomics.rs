//! Atomic integers in a map: 64-bit signed, native endian, sequentially consistent.
//!
//! They take no lock, and are atomic with respect to every thread, process and program that maps the file
//! and also uses atomic instructions.

use std::sync::atomic::AtomicI64;

use crate::bounds::checked_range;
use crate::{Errno, Region, Result};

/// The size of an integer in bytes. Its position must be a multiple of this.
pub const WORD: usize = 8;

impl Region {
    /// The integer at `position`; EINVAL if it is misaligned or not inside the map.
    #[inline]
    pub fn word(&self, position: u64) -> Result<&AtomicI64> {
        let start = checked_range(position, WORD, self.len()).ok_or(Errno::INVAL)?;
        // SAFETY: inside the map, as checked in the line above.
        let at = unsafe { self.pointer(start) }.cast::<AtomicI64>();
        // A map may begin anywhere in a file, so both must be checked.
        if start % WORD != 0 || !at.is_aligned() {
            return Err(Errno::INVAL);
        }
        // SAFETY: aligned, and eight bytes inside the map, which stays mapped for as long as the
        // region lives (1: Alive). This library accesses it as a number only atomically.
        Ok(unsafe { &*at })
    }

    /// As [`Region::word`], for changing it: EACCES on a read-only map.
    #[inline]
    pub fn word_mut(&self, position: u64) -> Result<&AtomicI64> {
        if !self.writable() {
            return Err(Errno::ACCES);
        }
        self.word(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    fn anonymous(size: u64) -> Region {
        let options = Options {
            write: true,
            size: Some(size),
            ..Options::default()
        };
        Region::open(&options).unwrap()
    }

    #[test]
    fn positions() {
        let region = anonymous(20);
        assert!(region.word(0).is_ok() && region.word(8).is_ok());
        for wrong in [1, 4, 7, 9, 16, 24, u64::MAX - 7, u64::MAX] {
            assert_eq!(region.word(wrong).err(), Some(Errno::INVAL), "{wrong}");
        }
    }
}
