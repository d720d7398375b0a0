//! Where a map is and how long, published to readers who take no lock.

use crate::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Growth stores the base before the length, so whoever sees a length sees a base that has room
/// for it.
pub struct Extent {
    base: AtomicPtr<u8>,
    len: AtomicUsize,
}

impl Extent {
    pub fn new(base: *mut u8, len: usize) -> Extent {
        Extent {
            base: AtomicPtr::new(base),
            len: AtomicUsize::new(len),
        }
    }

    /// In bytes. Ask before [`Extent::base`].
    #[inline]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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

    pub fn set_len(&self, len: usize) {
        self.len.store(len, Ordering::Release);
    }
}
