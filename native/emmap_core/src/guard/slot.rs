//! One guarded range in the table, which a signal handler reads while others fill and empty it.

use crate::fault::Fault;
use crate::sync::atomic::{
    fence, AtomicBool, AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering,
};
use crate::sync::sequenced;

/// All fields are atomics, for the handler reads them at any time; the generation tells it that it
/// read them in one piece.
pub struct Slot {
    /// Odd while the slot is being filled or emptied.
    generation: AtomicUsize,
    /// 0: free.
    start: AtomicUsize,
    limit: AtomicUsize,
    end: AtomicUsize,
    fd: AtomicI32,
    file_offset: AtomicU64,
    delta: AtomicUsize,
    page: AtomicUsize,
    writable: AtomicBool,
    only_copy: AtomicBool,
    fault: AtomicPtr<Fault>,
    /// How often a part of the range was replaced by zero pages.
    pieces: AtomicUsize,
}

/// In place of a descriptor: the range has no file.
pub const ANONYMOUS: i32 = -1;
/// In the place of a descriptor: it was closed, and live binaries show the file still.
pub const CLOSED: i32 = -2;

/// The contents of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarded {
    pub start: usize,
    /// The end of the range of addresses; moves as the range is extended.
    pub limit: usize,
    /// The end of what is mapped from the file; moves as the map grows and shrinks.
    pub end: usize,
    /// [`ANONYMOUS`], or of the file.
    pub fd: i32,
    /// The place in the file of `start`.
    pub file_offset: u64,
    /// Bytes from `start` to position 0 of the map.
    pub delta: usize,
    pub page: usize,
    pub writable: bool,
    /// What is written to the pages is stored nowhere else, so that a page that is there must not be replaced.
    pub only_copy: bool,
    pub fault: *const Fault,
}

macro_rules! free_slot {
    () => {
        Slot {
            generation: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            limit: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            fd: AtomicI32::new(ANONYMOUS),
            file_offset: AtomicU64::new(0),
            delta: AtomicUsize::new(0),
            page: AtomicUsize::new(0),
            writable: AtomicBool::new(false),
            only_copy: AtomicBool::new(false),
            fault: AtomicPtr::new(std::ptr::null_mut()),
            pieces: AtomicUsize::new(0),
        }
    };
}

impl Slot {
    #[cfg(not(loom))]
    pub const fn free() -> Slot {
        free_slot!()
    }

    // Loom's atomics are made at run time.
    #[cfg(loom)]
    pub fn free() -> Slot {
        free_slot!()
    }

    /// Whether `address` is in the range.
    pub fn covers(&self, address: usize) -> bool {
        let start = self.start.load(Ordering::Relaxed);
        start != 0 && address >= start && address < self.limit.load(Ordering::Relaxed)
    }

    /// The contents of the slot, if they include `address` and are not being changed. A thread that holds the
    /// range, such as the thread that faulted in it, always gets them.
    pub fn read(&self, address: usize) -> Option<Guarded> {
        // Pairs with the release store at the end of `change`.
        let generation = self.generation.load(Ordering::Acquire);
        if generation & 1 == 1 || !self.covers(address) {
            return None;
        }
        let guarded = Guarded {
            start: self.start.load(Ordering::Relaxed),
            limit: self.limit.load(Ordering::Relaxed),
            end: self.end.load(Ordering::Acquire),
            fd: self.fd.load(Ordering::Relaxed),
            file_offset: self.file_offset.load(Ordering::Relaxed),
            delta: self.delta.load(Ordering::Relaxed),
            page: self.page.load(Ordering::Relaxed),
            writable: self.writable.load(Ordering::Relaxed),
            only_copy: self.only_copy.load(Ordering::Relaxed),
            fault: self.fault.load(Ordering::Relaxed),
        };
        fence(Ordering::Acquire);
        (self.generation.load(Ordering::Relaxed) == generation).then_some(guarded)
    }

    /// Fills a free slot. One at a time, which is the caller's to see to.
    pub fn fill(&self, guarded: &Guarded) {
        self.change(|| {
            self.start.store(guarded.start, Ordering::Relaxed);
            self.limit.store(guarded.limit, Ordering::Relaxed);
            self.end.store(guarded.end, Ordering::Relaxed);
            self.fd.store(guarded.fd, Ordering::Relaxed);
            self.file_offset
                .store(guarded.file_offset, Ordering::Relaxed);
            self.delta.store(guarded.delta, Ordering::Relaxed);
            self.page.store(guarded.page, Ordering::Relaxed);
            self.writable.store(guarded.writable, Ordering::Relaxed);
            self.only_copy.store(guarded.only_copy, Ordering::Relaxed);
            self.fault
                .store(guarded.fault.cast_mut(), Ordering::Relaxed);
        });
    }

    pub fn empty(&self) {
        self.change(|| {
            self.start.store(0, Ordering::Relaxed);
            self.limit.store(0, Ordering::Relaxed);
            self.end.store(0, Ordering::Relaxed);
        });
    }

    /// Tells how many bytes from the start are mapped now.
    pub fn set_mapped(&self, mapped: usize) {
        let start = self.start.load(Ordering::Relaxed);
        self.end.store(start + mapped, Ordering::Release);
    }

    /// Tells how many bytes of addresses there are now. Returns where they end.
    pub fn set_len(&self, len: usize) -> usize {
        let limit = self.start.load(Ordering::Relaxed) + len;
        self.limit.store(limit, Ordering::Release);
        limit
    }

    /// The descriptor now. Ask after [`Fault::enter`]: it stays open until the loss is dropped.
    pub fn fd(&self) -> i32 {
        self.fd.load(Ordering::SeqCst)
    }

    /// The descriptor is about to be closed: a thread that asks for it from here on gets [`CLOSED`]. Threads that have
    /// asked are waited for with [`Fault::await_losing`].
    pub fn forget_fd(&self) {
        if self.fd.load(Ordering::Relaxed) != ANONYMOUS {
            self.fd.store(CLOSED, Ordering::SeqCst);
        }
        sequenced();
    }

    /// Nothing writes to the range any more.
    pub fn is_read_only(&self) {
        self.writable.store(false, Ordering::Relaxed);
    }

    pub fn is_only_copy(&self) -> bool {
        self.only_copy.load(Ordering::Relaxed)
    }

    pub fn pieces(&self) -> usize {
        self.pieces.load(Ordering::Relaxed)
    }

    pub fn add_piece(&self) {
        self.pieces.fetch_add(1, Ordering::Relaxed);
    }

    /// All of the range is one mapping again. Returns how many pieces there were.
    pub fn take_pieces(&self) -> usize {
        self.pieces.swap(0, Ordering::Relaxed)
    }

    /// Runs `change` so that a reader sees all of it or skips the slot.
    fn change(&self, change: impl FnOnce()) {
        let generation = self.generation.load(Ordering::Relaxed);
        self.generation
            .store(generation.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        change();
        self.generation
            .store(generation.wrapping_add(2), Ordering::Release);
    }
}
