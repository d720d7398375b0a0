//! Integers that many threads add to without waiting for each other: each integer has a word in
//! several cache lines (its stripes), and its value is the sum of them.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::{Errno, Region, Result};

/// The number of bytes that no two stripes of an integer share: two cache lines, because processors fetch them in
/// pairs (crossbeam's `CachePadded` uses the same size).
pub const CACHE_LINE: usize = 128;

impl Region {
    /// Adds to the stripe of this thread. The striped integer has `stripes` cache lines, and its word in the first
    /// is at `position`.
    #[inline]
    pub fn add_striped(&self, position: u64, stripes: usize, value: i64) -> Result<()> {
        let position = of_stripe(position, stripe() % stripes.max(1))?;
        self.word_mut(position)?.fetch_add(value, SeqCst);
        Ok(())
    }

    /// The sum over all stripes, wrapped. It may or may not include adds that run at the same time.
    pub fn sum_striped(&self, position: u64, stripes: usize) -> Result<i64> {
        (0..stripes).try_fold(0i64, |sum, stripe| {
            let word = self.word(of_stripe(position, stripe)?)?;
            Ok(sum.wrapping_add(word.load(SeqCst)))
        })
    }

    /// Sets the first stripe and clears the others, one after the other.
    pub fn put_striped(&self, position: u64, stripes: usize, value: i64) -> Result<()> {
        self.word_mut(position)?.store(value, SeqCst);
        (1..stripes).try_for_each(|stripe| {
            self.word_mut(of_stripe(position, stripe)?)?
                .store(0, SeqCst);
            Ok(())
        })
    }
}

/// The position of the word in the given stripe.
#[inline]
fn of_stripe(position: u64, stripe: usize) -> Result<u64> {
    let line = (stripe * CACHE_LINE) as u64;
    position.checked_add(line).ok_or(Errno::INVAL)
}

/// A number that is unique to this thread, small and dense: schedulers come first, and there is one for
/// each core.
#[inline]
pub(crate) fn stripe() -> usize {
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

    #[test]
    fn stripes_add_up() {
        let options = Options {
            write: true,
            size: Some(4096),
            ..Options::default()
        };
        let region = Region::open(&options).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| region.add_striped(8, 3, 1).unwrap()));
            }
        });
        assert_eq!(region.sum_striped(8, 3), Ok(4000));
        assert_eq!(region.sum_striped(8, 32), Ok(4000), "all lines of the page");
        assert_eq!(region.sum_striped(8, 33), Err(Errno::INVAL));
        assert_eq!(region.put_striped(8, 3, -7), Ok(()));
        assert_eq!(region.sum_striped(8, 3), Ok(-7));
        assert_eq!(region.put_striped(8, 33, 0), Err(Errno::INVAL));
    }
}
