//! Where threads meet: the atomics and locks of the standard library or, in a build with
//! `--cfg loom`, those of loom, which tries every order in which threads can meet. The modules that
//! loom checks take theirs from here: [`crate::fault`], [`crate::closing`], the lock and the extent of a region, and the
//! slots of the guard. That build includes them in its test (`tests/loom.rs`), as they are.

#[cfg(not(loom))]
pub use std::{hint::spin_loop, sync::atomic, thread::yield_now};

#[cfg(loom)]
pub use loom::{hint::spin_loop, sync::atomic, thread::yield_now};

/// Between two accesses that are both `SeqCst`. Loom takes such an access for `AcqRel`, so it is told again with a fence;
/// elsewhere nothing is missing.
#[inline(always)]
pub fn sequenced() {
    #[cfg(loom)]
    atomic::fence(atomic::Ordering::SeqCst);
}

/// Where threads wait until something is ready, as a rule until they are rung for.
#[derive(Default)]
pub struct Bell {
    #[cfg(not(loom))]
    looking: std::sync::Mutex<()>,
    #[cfg(not(loom))]
    rung: std::sync::Condvar,
}

#[cfg(not(loom))]
impl Bell {
    /// Wakes all who wait.
    #[cold]
    #[inline(never)]
    pub fn ring(&self) {
        // A thread that was not ready before this is one that waits.
        drop(self.looking());
        self.rung.notify_all();
    }

    /// Asks `ready` again after every ring, and once in a millisecond. It is told whether it was asked for the first time
    /// longer ago than that. `false`: it was not ready, and `longest` is over.
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

// Loom has no time: who waits asks again and again.
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
