//! Damage at which a batch ended: the batch is returned, and the next call that takes items reports the damage.

use std::sync::atomic::{AtomicU64, Ordering};

use emmap_core::queue::layout::CURSORS;

/// For each cursor 0, or the position of the damage + 1.
pub struct Untold([AtomicU64; CURSORS]);

impl Default for Untold {
    fn default() -> Untold {
        Untold(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Untold {
    pub fn note(&self, cursor: usize, position: u64) {
        self.0[cursor].store(position + 1, Ordering::Relaxed);
    }

    pub fn is_noted(&self, cursor: usize) -> bool {
        self.0[cursor].load(Ordering::Relaxed) != 0
    }

    /// The position of damage that was not reported yet. It is reported once.
    #[inline(always)]
    pub fn take(&self, cursor: usize) -> Option<u64> {
        match self.0[cursor].load(Ordering::Relaxed) {
            0 => None,
            _ => self.0[cursor].swap(0, Ordering::Relaxed).checked_sub(1),
        }
    }
}
