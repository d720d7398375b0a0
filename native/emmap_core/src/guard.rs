//! The SIGBUS guard: a page that is lost (the file was cut, the disk is full under a hole, the
//! device failed) reads as zeros and marks its map, instead of killing the process.
//!
//! A signal handler may allocate nothing, lock nothing and wait for nothing. So the ranges we
//! answer for stand in slots that are never freed, and that it finds without a lock ([`table`]); a
//! generation number tells the handler that it read a slot in one piece ([`slot`]). A slot is
//! emptied before its range is unmapped, and nobody can fault in a range that nobody holds.
//!
//! | module | its one job |
//! | --- | --- |
//! | [`slot`] | one guarded range |
//! | [`table`] | all of them, ordered by address |
//! | [`patch`] | zero pages in the place of lost ones |
//! | [`signal`] | the handler, and the one that was there before |

mod patch;
mod signal;
pub mod slot;
mod table;

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::arena;
use crate::fault::Fault;
use slot::{Guarded, Slot};
use table::{Changes, Node, Table};

pub use signal::{install, status, Status};

static TABLE: Table = Table::new();
/// Held by those who change the table; never by the handler.
static CHANGES: Mutex<Changes> = Mutex::new(Changes::new());

/// A place in the table for as long as this value lives.
pub struct Watch {
    node: &'static Node,
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
        let mut changes = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
        patch::keep_spares();
        let start = range.start as usize;
        LOWEST.fetch_min(start, Ordering::AcqRel);
        HIGHEST.fetch_max(start + range.len, Ordering::AcqRel);
        let guarded = Guarded {
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
        };
        Watch {
            node: TABLE.insert(&mut changes, &guarded),
        }
    }

    /// Tells the guard how much of the range is mapped now.
    pub fn set_mapped(&self, mapped: usize) {
        self.node.slot.set_mapped(mapped);
    }

    /// Tells the guard that the range has become longer where it lies, before anything is mapped there.
    pub fn set_limit(&self, len: usize) {
        let limit = self.node.slot.set_len(len);
        HIGHEST.fetch_max(limit, Ordering::AcqRel);
    }

    /// The descriptor is about to be closed: see [`Slot::forget_fd`].
    pub fn forget_fd(&self) {
        self.node.slot.forget_fd();
    }

    /// Zero pages in the place of lost ones need not be writable any more.
    pub fn is_read_only(&self) {
        self.node.slot.is_read_only();
    }

    /// What was replaced by zero pages is mapped as one again.
    pub fn is_whole(&self) {
        patch::forget_pieces(&self.node.slot);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut changes = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
        patch::forget_pieces(&self.node.slot);
        TABLE.remove(&mut changes, self.node);
    }
}

/// The slot of the range that `address` lies in, and what stands in it.
fn find(address: usize) -> Option<(&'static Slot, Guarded)> {
    match may_be_guarded(address) {
        true => TABLE.find(address),
        false => None,
    }
}

/// The fault of the map that `address` lies in; it lives as long as the map does.
pub fn fault_at(address: usize) -> Option<*const Fault> {
    find(address).map(|(_, guarded)| guarded.fault)
}

/// Where the lowest range begins and the highest ends, of all that there ever were.
static LOWEST: AtomicUsize = AtomicUsize::new(usize::MAX);
static HIGHEST: AtomicUsize = AtomicUsize::new(0);

/// Whether `address` lies between the lowest and the highest range there ever was: two loads. `false`: in none.
#[inline(always)]
pub fn may_be_guarded(address: usize) -> bool {
    LOWEST.load(Ordering::Acquire) <= address && address < HIGHEST.load(Ordering::Acquire)
}

/// Whether `address`, where something is mapped, lies in a range of ours: its bytes may be a file's, and be mapped
/// elsewhere too.
pub fn is_guarded(address: usize) -> bool {
    arena::contains(address) || find(address).is_some()
}
