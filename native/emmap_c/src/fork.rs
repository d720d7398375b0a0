//! What a forked child must not inherit: the lock that shows that its parent is alive. Otherwise, the items that a dead parent
//! had checked out would stay unavailable for as long as the child lives.
//!
//! The child closes the descriptors of the locks. It cannot use the handles of its parent, because their slot belongs to the
//! parent.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering::SeqCst};
use std::sync::Once;

use emmap_core::{Errno, Result};

/// The number of forks between this process and the one that loaded the library.
static GENERATION: AtomicU32 = AtomicU32::new(0);
/// The head of a list of descriptors. An entry is reused, and never freed, because a fork may happen at any time.
static FIRST: AtomicPtr<Entry> = AtomicPtr::new(null_mut());

const UNUSED: i32 = -1;

struct Entry {
    descriptor: AtomicI32,
    next: AtomicPtr<Entry>,
}

/// A descriptor that a forked child closes.
pub struct Kept {
    entry: &'static Entry,
    generation: u32,
}

impl Kept {
    pub fn new(descriptor: BorrowedFd) -> Kept {
        static HANDLER: Once = Once::new();
        // SAFETY: `in_child` only loads and stores atomics, and closes descriptors.
        HANDLER.call_once(|| unsafe {
            libc::pthread_atfork(None, None, Some(in_child));
        });
        let generation = GENERATION.load(SeqCst);
        let entry = place(descriptor.as_raw_fd());
        Kept { entry, generation }
    }

    /// EBADF in a child of the process that opened the handle.
    #[inline]
    pub fn check(&self) -> Result<()> {
        match GENERATION.load(SeqCst) == self.generation {
            true => Ok(()),
            false => Err(Errno(libc::EBADF)),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // A child has marked it, and may use it for another descriptor.
        if self.check().is_ok() {
            self.entry.descriptor.store(UNUSED, SeqCst);
        }
    }
}

/// The entries, newest first.
fn entries() -> impl Iterator<Item = &'static Entry> {
    let entry = |at: *mut Entry| {
        // SAFETY: entries are never freed, and only their descriptor changes.
        unsafe { at.as_ref() }
    };
    std::iter::successors(entry(FIRST.load(SeqCst)), move |last| {
        entry(last.next.load(SeqCst))
    })
}

fn place(descriptor: i32) -> &'static Entry {
    for entry in entries() {
        let taken = entry
            .descriptor
            .compare_exchange(UNUSED, descriptor, SeqCst, SeqCst);
        if taken.is_ok() {
            return entry;
        }
    }
    let entry: &'static Entry = Box::leak(Box::new(Entry {
        descriptor: AtomicI32::new(descriptor),
        next: AtomicPtr::new(null_mut()),
    }));
    loop {
        let first = FIRST.load(SeqCst);
        entry.next.store(first, SeqCst);
        let at: *mut Entry = std::ptr::from_ref(entry).cast_mut();
        if FIRST.compare_exchange(first, at, SeqCst, SeqCst).is_ok() {
            return entry;
        }
    }
}

/// Runs in a forked child, which has one thread.
unsafe extern "C" fn in_child() {
    GENERATION.fetch_add(1, SeqCst);
    for entry in entries() {
        let descriptor = entry.descriptor.swap(UNUSED, SeqCst);
        if descriptor != UNUSED {
            // SAFETY: it is the descriptor of a handle of the parent, which the child does not use any more.
            unsafe { libc::close(descriptor) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn entries_are_used_again() {
        let file = tempfile::tempfile().unwrap();
        let many: Vec<_> = (0..10).map(|_| Kept::new(file.as_fd())).collect();
        let count = entries().count();
        drop(many);
        let again: Vec<_> = (0..10).map(|_| Kept::new(file.as_fd())).collect();
        assert_eq!(entries().count(), count);
        assert!(again.iter().all(|kept| kept.check().is_ok()));
    }
}
