//! Makes a writable map read-only.
//!
//! A call that may not wait checks whether the map is writable, and then writes, without a lock and without being counted. So:
//!
//! 1. [`Region::refuse_writes`] makes every call that checks from then on fail;
//! 2. the caller waits for the calls that had checked before and may not wait, because only the caller knows about them;
//! 3. [`Region::protect`] waits for the calls that may wait, which are counted ([`Region::slow_write`]) or hold the ranges,
//!    and makes the pages read-only.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::Region;
use crate::{patience, Errno, Result};

/// How many writes are running that may take long.
#[derive(Default)]
pub(super) struct SlowWrites(AtomicUsize);

/// Counts a write that may take long, until it is dropped.
pub struct SlowWrite<'a>(&'a SlowWrites);

impl Drop for SlowWrite<'_> {
    fn drop(&mut self) {
        self.0 .0.fetch_sub(1, SeqCst);
    }
}

impl Region {
    /// Refuses every change that begins from now on with EACCES, permanently.
    pub fn refuse_writes(&self) {
        self.hot.appends.store(false, SeqCst);
        self.hot.writable.store(false, SeqCst);
    }

    /// Makes the pages read-only. No call that may not wait and began before [`Region::refuse_writes`] may still be running.
    /// Waits for all other calls.
    ///
    /// # Safety
    /// No such call may be running, because its write would kill the process.
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

    /// To be called by a write that may wait, before it begins. It ends when the returned value is dropped.
    pub(crate) fn slow_write(&self) -> Result<SlowWrite<'_>> {
        self.slow_writes.0.fetch_add(1, SeqCst);
        // Counted before the check: whoever refuses writes reads the count after that.
        let counted = SlowWrite(&self.slow_writes);
        match self.hot.writable.load(SeqCst) {
            true => Ok(counted),
            false => Err(Errno::ACCES),
        }
    }
}
