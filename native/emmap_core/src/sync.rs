//! Synchronization between threads: the atomics and locks of the standard library or, in a build with
//! `--cfg loom`, those of loom, which tries every order in which threads can interleave. The modules that
//! loom checks use these: [`crate::fault`], [`crate::closing`], the lock and the extent of a region, and the
//! slots of the guard. The loom build includes them, unchanged, in its test (`tests/loom.rs`).

#[cfg(not(loom))]
pub use std::{hint::spin_loop, sync::atomic, thread::yield_now};

#[cfg(loom)]
pub use loom::{hint::spin_loop, sync::atomic, thread::yield_now};

/// Between two accesses that are both `SeqCst`. Loom treats such an access as `AcqRel`, so it needs an additional fence.
/// Elsewhere, no fence is missing.
#[inline(always)]
pub fn sequenced() {
    #[cfg(loom)]
    atomic::fence(atomic::Ordering::SeqCst);
}

/// Where threads wait until something is ready, usually until they are notified.
#[derive(Default)]
pub struct Bell {
    #[cfg(not(loom))]
    looking: std::sync::Mutex<()>,
    #[cfg(not(loom))]
    rung: std::sync::Condvar,
}

#[cfg(not(loom))]
impl Bell {
    /// Wakes all waiting threads.
    #[cold]
    #[inline(never)]
    pub fn ring(&self) {
        // A thread that did not find it ready before this is waiting.
        drop(self.looking());
        self.rung.notify_all();
    }

    /// Calls `ready` after every notification, and once per millisecond. The argument tells whether more than a millisecond has
    /// passed since the first call. `false`: it was not ready, and `longest` has passed.
    pub fn wait(
        &self,
        longest: Option<std::time::Duration>,
        mut ready: impl FnMut(bool) -> bool,
    ) -> bool {
        const LONG: std::time::Duration = std::time::Duration::from_millis(1);
        let begun = std::time::Instant::now();
        let mut looking = self.looking();
        while !ready(begun.elapsed() >= LONG) {
            if longest.is_some_and(|longest| begun.elapsed() >= longest) {
                return false;
            }
            let rung = self.rung.wait_timeout(looking, LONG);
            looking = rung.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        true
    }

    fn looking(&self) -> std::sync::MutexGuard<'_, ()> {
        let looking = self.looking.lock();
        looking.unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

// Loom has no time, so a waiting thread asks repeatedly.
#[cfg(loom)]
impl Bell {
    pub fn ring(&self) {}

    pub fn wait(
        &self,
        _longest: Option<std::time::Duration>,
        mut ready: impl FnMut(bool) -> bool,
    ) -> bool {
        let mut for_long = false;
        while !ready(for_long) {
            for_long = true;
            yield_now();
        }
        true
    }
}
