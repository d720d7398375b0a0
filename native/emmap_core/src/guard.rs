//! The SIGBUS guard: a page that is lost (the file was cut, the disk is full under a hole, the
//! device failed) reads as zeros and marks its map, instead of killing the process.
//!
//! A signal handler may allocate nothing, lock nothing and wait for nothing. So the ranges we
//! answer for stand in a table of slots that is only ever added to ([`table`]); a generation number
//! tells the handler that it read a slot in one piece ([`slot`]). A slot is emptied before its range
//! is unmapped, and nobody can fault in a range that nobody holds.
//!
//! | module | its one job |
//! | --- | --- |
//! | [`slot`] | one guarded range |
//! | [`table`] | all of them |
//! | [`patch`] | zero pages in the place of lost ones |
//! | [`signal`] | the handler, and the one that was there before |

mod patch;
mod signal;
pub mod slot;
mod table;

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::fault::Fault;
use slot::{Guarded, Slot};

pub use signal::{install, status, Status};

/// Held by those who fill and empty slots; never by the handler.
static FILLING: Mutex<()> = Mutex::new(());

/// A place in the table for as long as this value lives.
pub struct Watch {
    slot: &'static Slot,
}

/// What the guard must know to patch a range.
pub struct GuardedRange<'a> {
    pub start: *mut u8,
    /// Bytes of addresses, whole pages.
    pub len: usize,
    /// Bytes mapped from the file, whole pages.
    pub mapped: usize,
    /// `None` for anonymous memory.
    pub fd: Option<BorrowedFd<'a>>,
    /// The place in the file of `start`.
    pub file_offset: u64,
    /// Bytes from `start` to position 0 of the map.
    pub delta: usize,
    pub page: usize,
    pub writable: bool,
    /// What is written to the pages is stored nowhere else.
    pub only_copy: bool,
}

impl Watch {
    /// Guards `range` and notes its faults in `fault`.
    ///
    /// # Safety
    /// The range, its descriptor and `fault` must outlive the value returned.
    pub unsafe fn new(range: &GuardedRange, fault: *const Fault) -> Watch {
        let _filling = FILLING.lock().unwrap_or_else(PoisonError::into_inner);
        patch::keep_spares();
        let slot = table::free_slot();
        let start = range.start as usize;
        LOWEST.fetch_min(start, Ordering::AcqRel);
        HIGHEST.fetch_max(start + range.len, Ordering::AcqRel);
        slot.fill(&Guarded {
            start,
            limit: start + range.len,
            end: start + range.mapped,
            fd: range.fd.map_or(slot::ANONYMOUS, |fd| fd.as_raw_fd()),
            file_offset: range.file_offset,
            delta: range.delta,
            page: range.page,
            writable: range.writable,
            only_copy: range.only_copy,
            fault,
        });
        Watch { slot }
    }

    /// Tells the guard how much of the range is mapped now.
    pub fn set_mapped(&self, mapped: usize) {
        self.slot.set_mapped(mapped);
    }

    /// The descriptor is about to be closed: see [`Slot::forget_fd`].
    pub fn forget_fd(&self) {
        self.slot.forget_fd();
    }

    /// What was replaced by zero pages is mapped as one again.
    pub fn is_whole(&self) {
        patch::forget_pieces(self.slot);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _filling = FILLING.lock().unwrap_or_else(PoisonError::into_inner);
        patch::forget_pieces(self.slot);
        self.slot.empty();
    }
}

/// The fault of the map that `address` lies in; it lives as long as the map does.
pub fn fault_at(address: usize) -> Option<*const Fault> {
    if !may_be_guarded(address) {
        return None;
    }
    let guarded = table::slots().find_map(|slot| slot.read(address))?;
    Some(guarded.fault)
}

/// Where the lowest range begins and the highest ends, of all that there ever were.
static LOWEST: AtomicUsize = AtomicUsize::new(usize::MAX);
static HIGHEST: AtomicUsize = AtomicUsize::new(0);

/// Whether `address` lies between the lowest and the highest range there ever was: two loads. `false`: in none.
#[inline(always)]
pub fn may_be_guarded(address: usize) -> bool {
    LOWEST.load(Ordering::Acquire) <= address && address < HIGHEST.load(Ordering::Acquire)
}

/// Whether `address` lies in a range of ours: its bytes may be a file's, and be mapped elsewhere
/// too.
pub fn is_guarded(address: usize) -> bool {
    may_be_guarded(address) && table::slots().any(|slot| slot.covers(address))
}
