//! Checked reads of a table's map, which other programs may change or truncate at any time. (The caller checks for lost pages
//! with [`Region::reading`].)

use std::cmp::Ordering;
use std::marker::PhantomData;

use crate::bounds::checked_range;
use crate::Region;

/// The bytes of a table's file.
///
/// Its `SAFETY` comments rely on one invariant: `base .. base + len` stays readable for `'a`.
#[derive(Clone, Copy)]
pub struct Memory<'a> {
    base: *const u8,
    len: usize,
    owner: PhantomData<&'a u8>,
}

impl<'a> Memory<'a> {
    #[inline(always)]
    pub fn of(region: &'a Region) -> Memory<'a> {
        // The length first: the base has room for it (2: Published in order in `region.rs`).
        let len = region.len();
        Memory {
            base: region.base(),
            len,
            owner: PhantomData,
        }
    }

    /// For tests, in which the file is in ordinary memory.
    pub fn of_slice(bytes: &'a [u8]) -> Memory<'a> {
        Memory {
            base: bytes.as_ptr(),
            len: bytes.len(),
            owner: PhantomData,
        }
    }

    /// The address of `count` bytes, if all of them are inside.
    #[inline(always)]
    pub fn at(&self, offset: u64, count: usize) -> Option<*const u8> {
        let start = checked_range(offset, count, self.len)?;
        // SAFETY: inside, by the line above.
        Some(unsafe { self.base.add(start) })
    }

    #[inline(always)]
    pub fn word(&self, offset: u64) -> Option<u64> {
        // SAFETY: eight readable bytes (the Memory invariant).
        self.at(offset, 8)
            .map(|at| u64::from_le(unsafe { at.cast::<u64>().read_unaligned() }))
    }

    /// Copies bytes out.
    #[inline(always)]
    pub fn copy(&self, offset: u64, out: &mut [u8]) -> Option<()> {
        let from = self.at(offset, out.len())?;
        // SAFETY: `from` has as many readable bytes as `out`, which is a reference and so is not in a map.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) };
        Some(())
    }

    /// Whether the bytes at an offset are these.
    #[inline(always)]
    pub fn equals(&self, offset: u64, bytes: &[u8]) -> Option<bool> {
        let at = self.at(offset, bytes.len())?;
        let count = bytes.len();
        // SAFETY: every word below is inside `count` readable bytes.
        let word = |start: usize| unsafe { at.add(start).cast::<u64>().read_unaligned() };
        // SAFETY: as above.
        let own =
            |start: usize| unsafe { bytes.as_ptr().add(start).cast::<u64>().read_unaligned() };
        if count < 8 {
            // SAFETY: as above.
            let same = |n: usize| unsafe { at.add(n).read() } == bytes[n];
            return Some((0..count).all(same));
        }
        let mut start = 0;
        while start + 8 <= count {
            if word(start) != own(start) {
                return Some(false);
            }
            start += 8;
        }
        // The last word may overlap with the one before.
        Some(word(count - 8) == own(count - 8))
    }

    /// The order of `count` bytes at an offset, compared with these.
    pub fn order(&self, offset: u64, count: usize, bytes: &[u8]) -> Option<Ordering> {
        let mut piece = [0; 256];
        let both = count.min(bytes.len());
        let mut done = 0;
        while done < both {
            let some = (both - done).min(piece.len());
            self.copy(offset.checked_add(done as u64)?, &mut piece[..some])?;
            match piece[..some].cmp(&bytes[done..done + some]) {
                Ordering::Equal => done += some,
                other => return Some(other),
            }
        }
        Some(count.cmp(&bytes.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_slices(
            memory in proptest::collection::vec(0u8..2, 0..700),
            bytes in proptest::collection::vec(0u8..2, 0..600),
            from in 0usize..40, count in 0usize..600, same: bool,
        ) {
            let bytes = match memory.get(from..from + bytes.len()) {
                Some(part) if same => part.to_vec(),
                _ => bytes,
            };
            let inside = |count: usize| memory.get(from..from + count);
            let memory = Memory::of_slice(&memory);
            let expected = inside(bytes.len()).map(|part| part == bytes);
            prop_assert_eq!(memory.equals(from as u64, &bytes), expected);
            if let Some(part) = inside(count) {
                prop_assert_eq!(memory.order(from as u64, count, &bytes), Some(part.cmp(&bytes[..])));
            }
        }
    }
}
