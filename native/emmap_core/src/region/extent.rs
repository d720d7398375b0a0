//! Where a map is and how long, published to readers who take no lock.

use crate::sync::atomic::{fence, AtomicPtr, AtomicUsize, Ordering};

/// Growth stores the base before the length, so whoever sees a length sees a base that has room
/// for it.
pub struct Extent {
    base: AtomicPtr<u8>,
    len: AtomicUsize,
    /// How often it became shorter.
    shrinks: AtomicUsize,
}

impl Extent {
    pub fn new(base: *mut u8, len: usize) -> Extent {
        Extent {
            base: AtomicPtr::new(base),
            len: AtomicUsize::new(len),
            shrinks: AtomicUsize::new(0),
        }
    }

    /// In bytes. Ask before [`Extent::base`].
    #[inline]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    #[inline]
    pub fn base(&self) -> *mut u8 {
        self.base.load(Ordering::Acquire)
    }

    /// What is at `base` has room for `len` bytes; one thread at a time.
    pub fn grow(&self, base: *mut u8, len: usize) {
        self.base.store(base, Ordering::Release);
        self.len.store(len, Ordering::Release);
    }

    /// Before the pages beyond are replaced.
    pub fn set_len(&self, len: usize) {
        self.shrinks.fetch_add(1, Ordering::AcqRel);
        self.len.store(len, Ordering::Release);
        // A copy that holds a zero in place of a byte is followed by another number.
        fence(Ordering::SeqCst);
    }

    /// A number that changes when the map becomes shorter: the same before and after bytes were copied without a lock,
    /// and none of them was replaced by a zero.
    #[inline]
    pub fn shrinks(&self) -> usize {
        fence(Ordering::Acquire);
        self.shrinks.load(Ordering::Acquire)
    }
}
