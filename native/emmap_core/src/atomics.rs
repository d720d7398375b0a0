//! Atomic integers in a map: 64-bit signed, native endian, sequentially consistent.
//!
//! They take no lock and are atomic towards every thread, process and program that maps the file
//! and uses atomic instructions itself.

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst};

use crate::range::checked_range;
use crate::{Errno, Region, Result};

/// The bytes of one integer, and what its position must be a multiple of.
pub const WORD: usize = 8;
/// The bytes that no two stripes of a counter share: two cache lines, for processors fetch them in
/// pairs (crossbeam's `CachePadded` has the same figure).
pub const CACHE_LINE: usize = 128;

impl Region {
    /// The integer at `position`: EINVAL when it is misaligned or not inside the map.
    #[inline]
    pub fn word(&self, position: u64) -> Result<&AtomicI64> {
        let start = checked_range(position, WORD, self.len()).ok_or(Errno::INVAL)?;
        let at = self.pointer(start).cast::<AtomicI64>();
        // A map may begin anywhere in a file, so both must hold.
        if start % WORD != 0 || !at.is_aligned() {
            return Err(Errno::INVAL);
        }
        // SAFETY: aligned, and eight bytes inside the map, which stays mapped for as long as the
        // region lives (1: Alive). All access of ours to it as a number is atomic.
        Ok(unsafe { &*at })
    }

    /// As [`Region::word`], to be changed: EACCES on a read-only map.
    #[inline]
    pub fn word_mut(&self, position: u64) -> Result<&AtomicI64> {
        if !self.writable() {
            return Err(Errno::ACCES);
        }
        self.word(position)
    }

    /// Adds to the stripe of this thread of a striped counter: `stripes` cache lines, the first
    /// with its word at `position`.
    #[inline]
    pub fn add_striped(&self, position: u64, stripes: usize, value: i64) -> Result<()> {
        let line = (stripe() % stripes.max(1) * CACHE_LINE) as u64;
        let position = position.checked_add(line).ok_or(Errno::INVAL)?;
        self.word_mut(position)?.fetch_add(value, SeqCst);
        Ok(())
    }

    /// The sum over all stripes, wrapped. Adds that run meanwhile may be in it or not.
    pub fn sum_striped(&self, position: u64, stripes: usize) -> Result<i64> {
        (0..stripes).try_fold(0i64, |sum, stripe| {
            let line = (stripe * CACHE_LINE) as u64;
            let position = position.checked_add(line).ok_or(Errno::INVAL)?;
            Ok(sum.wrapping_add(self.word(position)?.load(SeqCst)))
        })
    }
}

/// A number of this thread's own, small and dense: schedulers come first, and there is one for
/// each core.
#[inline]
fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    const NONE: usize = usize::MAX;
    thread_local!(static STRIPE: Cell<usize> = const { Cell::new(NONE) });
    STRIPE.with(|stripe| {
        if stripe.get() == NONE {
            stripe.set(NEXT.fetch_add(1, SeqCst));
        }
        stripe.get()
    })
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

    #[test]
    fn stripes_add_up() {
        let region = anonymous(4096);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| region.add_striped(8, 3, 1).unwrap()));
            }
        });
        assert_eq!(region.sum_striped(8, 3), Ok(4000));
        assert_eq!(region.sum_striped(8, 32), Ok(4000), "all lines of the page");
        assert_eq!(region.sum_striped(8, 33), Err(Errno::INVAL));
    }
}
