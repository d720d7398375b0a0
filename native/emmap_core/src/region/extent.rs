//! Where a map is and how long it is, published to readers that take no lock.

use crate::sync::atomic::{fence, AtomicPtr, AtomicUsize, Ordering};

/// Growing stores the base before the length, so whoever sees a length sees a base that has room
/// for it.
pub struct Extent {
    base: AtomicPtr<u8>,
    len: AtomicUsize,
    /// How often it shrank.
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

    /// In bytes. To be read before [`Extent::base`].
    #[inline]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    #[inline]
    pub fn base(&self) -> *mut u8 {
        self.base.load(Ordering::Acquire)
    }

    /// The memory at `base` has room for `len` bytes. Only one thread may call this at a time.
    pub fn grow(&self, base: *mut u8, len: usize) {
        self.base.store(base, Ordering::Release);
        self.len.store(len, Ordering::Release);
    }

    /// To be called before the pages beyond are replaced.
    pub fn set_len(&self, len: usize) {
        self.shrinks.fetch_add(1, Ordering::AcqRel);
        self.len.store(len, Ordering::Release);
        // If a copy contains a zero in place of a byte, the number read after it is different.
        fence(Ordering::SeqCst);
    }

    /// A number that changes when the map shrinks. If it is the same before and after bytes were copied without a lock,
    /// none of them was replaced by a zero.
    #[inline]
    pub fn shrinks(&self) -> usize {
        fence(Ordering::Acquire);
        self.shrinks.load(Ordering::Acquire)
    }
}
