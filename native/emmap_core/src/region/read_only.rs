//! A map that was writable, and is not any more.
//!
//! A call that may not wait asks whether the map is writable, and then writes, without a lock: nothing counts it. So:
//!
//! 1. [`Region::refuse_writes`] makes every call that asks from then on refuse;
//! 2. the caller waits for the calls that had asked before and may not wait, which it alone can know of;
//! 3. [`Region::protect`] waits for those that may wait, which are counted ([`Region::slow_write`]) or hold the ranges,
//!    and takes the right to write away from the pages.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::Region;
use crate::{patience, Errno, Result};

/// How many writes are at work that may take long.
#[derive(Default)]
pub(super) struct SlowWrites(AtomicUsize);

/// A write that may take long, until it is dropped.
pub struct SlowWrite<'a>(&'a SlowWrites);

impl Drop for SlowWrite<'_> {
    fn drop(&mut self) {
        self.0 .0.fetch_sub(1, SeqCst);
    }
}

impl Region {
    /// Every change that begins from now on is refused with EACCES. This is permanent.
    pub fn refuse_writes(&self) {
        self.hot.appends.store(false, SeqCst);
        self.hot.writable.store(false, SeqCst);
    }

    /// Makes the pages read-only, once no call is at work that may not wait and began before [`Region::refuse_writes`].
    /// Waits for all others.
    ///
    /// # Safety
    /// No such call may be at work: its write would kill.
    pub unsafe fn protect(&self) -> Result<()> {
        let start = Instant::now();
        while self.slow_writes.0.load(SeqCst) > 0 {
            if patience::of_copies().is_some_and(|longest| start.elapsed() > longest) {
                return Err(Errno::WAIT_COPY);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut ranges = self.ranges();
        self.shape.make_read_only();
        ranges
            .iter_mut()
            .try_for_each(|range| range.protect(&self.shape))
    }

    /// To be called by a write that may wait, before it begins: it is done when what this returns is dropped.
    pub(crate) fn slow_write(&self) -> Result<SlowWrite<'_>> {
        self.slow_writes.0.fetch_add(1, SeqCst);
        // Counted before it asks: whoever refuses writes looks at the count after that.
        let counted = SlowWrite(&self.slow_writes);
        match self.hot.writable.load(SeqCst) {
            true => Ok(counted),
            false => Err(Errno::ACCES),
        }
    }
}
