//! Which handles of a mapping are open: each is closed once, and one close is the last. Also whether the last close may
//! release the pages.

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::sequenced;

/// How many handles of a mapping are open.
#[derive(Default)]
pub struct OpenHandles(AtomicUsize);

/// Whether a handle was closed.
#[derive(Default)]
pub struct Closing(AtomicBool);

/// Whether live binaries were handed out.
#[derive(Default)]
pub struct Lent(AtomicBool);

impl Lent {
    /// A live binary is about to be handed out; to be called before checking whether the handle is closed. Returns whether
    /// it is the first.
    #[inline]
    pub fn lend(&self) -> bool {
        let first = !self.0.load(Ordering::SeqCst) && !self.0.swap(true, Ordering::SeqCst);
        sequenced();
        first
    }

    /// For the owner of a map that nothing else refers to. Returns whether a live binary was handed out.
    pub fn take_back(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }

    /// To be called after the last handle was closed: see `region::release`.
    pub fn is_lent(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl OpenHandles {
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// Adds another handle, as long as one is open. `false`: the last was closed in the meantime, and remains the
    /// last.
    pub fn add_beside(&self) -> bool {
        let more = |open: usize| (open > 0).then_some(open + 1);
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .is_ok()
    }
}

impl Closing {
    #[inline]
    pub fn is_closed(&self) -> bool {
        // Sequentially consistent: see `region::release`. On most processors, it costs no more than an acquiring load.
        self.0.load(Ordering::SeqCst)
    }

    /// `None`: it was already closed. Otherwise, whether it was the last open handle.
    pub fn close(&self, open: &OpenHandles) -> Option<bool> {
        if self.0.swap(true, Ordering::SeqCst) {
            return None;
        }
        sequenced();
        Some(open.0.fetch_sub(1, Ordering::AcqRel) == 1)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_once_and_one_last() {
        let open = OpenHandles::default();
        let handles = [Closing::default(), Closing::default()];
        handles.iter().for_each(|_| open.add());
        assert_eq!(handles[1].close(&open), Some(false));
        assert_eq!(handles[1].close(&open), None);
        assert!(handles[1].is_closed() && !handles[0].is_closed());
        assert!(open.add_beside());
        assert_eq!(Closing::default().close(&open), Some(false));
        assert_eq!(handles[0].close(&open), Some(true));
        assert!(!open.add_beside(), "none beside the last");
    }
}
