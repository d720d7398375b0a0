//! The lock of a map, which the first call that keeps others out creates: a write, or a change of the size.
//!
//! It takes 2 KiB, and most maps of a program that has thousands are only read. A read that finds no lock copies, and then checks
//! that there still is none: then no writer came in between.

use super::lock::CopyLock;
use crate::sync::atomic::{fence, AtomicPtr, Ordering};

#[derive(Default)]
pub struct LockOfFirstWrite(AtomicPtr<CopyLock>);

impl LockOfFirstWrite {
    /// To be called before a read. `None`: nothing was written. Then copy, and call [`LockOfFirstWrite::written`].
    #[inline(always)]
    pub fn existing(&self) -> Option<&CopyLock> {
        // Pairs with the release in `create`.
        let lock = self.0.load(Ordering::Acquire);
        // SAFETY: null, or the lock that `create` made, which is freed only with this.
        unsafe { lock.as_ref() }
    }

    /// To be called after a copy without the lock. `None`: no writer came in between, so the copy is consistent. Otherwise,
    /// copy again, with this lock.
    #[inline(always)]
    pub fn written(&self) -> Option<&CopyLock> {
        // A writer creates the lock before its fence in `Stripe::enter`, and writes after it.
        fence(Ordering::Acquire);
        self.existing()
    }

    /// For a write.
    #[inline(always)]
    pub fn needed(&self) -> &CopyLock {
        match self.existing() {
            Some(lock) => lock,
            None => self.create(),
        }
    }

    #[cold]
    #[inline(never)]
    fn create(&self) -> &CopyLock {
        let new = Box::into_raw(Box::<CopyLock>::default());
        let null = std::ptr::null_mut();
        let created = self
            .0
            .compare_exchange(null, new, Ordering::AcqRel, Ordering::Acquire);
        match created {
            // SAFETY: as in `existing`.
            Ok(_) => unsafe { &*new },
            Err(earlier) => {
                // SAFETY: made above, and no other thread has seen it.
                drop(unsafe { Box::from_raw(new) });
                // SAFETY: as in `existing`.
                unsafe { &*earlier }
            }
        }
    }
}

impl Drop for LockOfFirstWrite {
    fn drop(&mut self) {
        let lock = self.0.load(Ordering::Relaxed);
        if !lock.is_null() {
            // SAFETY: `create` made it from a box, and no other reference to it exists any more.
            drop(unsafe { Box::from_raw(lock) });
        }
    }
}
