//! The table of guarded ranges: only ever added to, so that the handler needs no lock.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::slot::Slot;

const SLOTS: usize = 256;

struct Chunk {
    slots: [Slot; SLOTS],
    next: AtomicPtr<Chunk>,
}

impl Chunk {
    const fn new() -> Chunk {
        Chunk {
            slots: [const { Slot::free() }; SLOTS],
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

static TABLE: Chunk = Chunk::new();
/// Slots beyond this were never taken.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Every chunk is in the table for good, so a reference lives as long as the program.
fn chunks() -> impl Iterator<Item = &'static Chunk> {
    std::iter::successors(Some(&TABLE), |chunk| {
        // SAFETY: `next` is null or a chunk leaked by `free_slot`, filled before it was published.
        unsafe { chunk.next.load(Ordering::Acquire).as_ref() }
    })
}

/// A slot to be filled. One caller at a time.
pub fn free_slot() -> &'static Slot {
    let mut last = &TABLE;
    let mut before = 0;
    for chunk in chunks() {
        last = chunk;
        if let Some(at) = chunk.slots.iter().position(Slot::is_free) {
            USED.fetch_max(before + at + 1, Ordering::Release);
            return &chunk.slots[at];
        }
        before += SLOTS;
    }
    let chunk: &'static Chunk = Box::leak(Box::new(Chunk::new()));
    last.next
        .store(ptr::from_ref(chunk).cast_mut(), Ordering::Release);
    USED.fetch_max(before + 1, Ordering::Release);
    &chunk.slots[0]
}

/// The slots that were ever taken.
pub fn slots() -> impl Iterator<Item = &'static Slot> {
    let used = USED.load(Ordering::Acquire);
    chunks().flat_map(|chunk| &chunk.slots).take(used)
}
