//! Notifies a thread that a map of this process has met a fault.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
#[cfg(not(target_os = "linux"))]
use std::time::Duration;

/// Changes with every fault that is the first of its map since the last repair.
static NUMBER: AtomicU32 = AtomicU32::new(0);
static LISTENED: AtomicBool = AtomicBool::new(false);

/// To be called once the fault is visible. For a signal handler: no lock, no allocation, no wait. It changes errno.
pub fn tell() {
    NUMBER.fetch_add(1, Ordering::SeqCst);
    if LISTENED.load(Ordering::SeqCst) {
        crate::os::futex_wake(&NUMBER);
    }
}

/// To be called before the maps are checked.
pub fn number() -> u32 {
    LISTENED.store(true, Ordering::SeqCst);
    NUMBER.load(Ordering::SeqCst)
}

/// Waits until the number differs from `seen`. It may return early.
#[cfg(target_os = "linux")]
pub fn wait(seen: u32) {
    crate::os::futex_wait(&NUMBER, seen, None);
}

#[cfg(not(target_os = "linux"))]
pub fn wait(seen: u32) {
    const PAUSE: Duration = Duration::from_millis(50);
    if NUMBER.load(Ordering::SeqCst) == seen {
        std::thread::sleep(PAUSE);
    }
}
