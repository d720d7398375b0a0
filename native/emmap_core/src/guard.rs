//! The SIGBUS guard: a lost page (the file was truncated, the disk is full under a hole, the
//! device failed) reads as zeros and marks its map, instead of killing the process.
//!
//! A signal handler must not allocate, lock or wait. So the guarded ranges
//! are in slots that are never freed, which the handler finds without a lock ([`table`]). A
//! generation number tells the handler whether it has read a slot consistently ([`slot`]). A slot is
//! emptied before its range is unmapped, and at that time nothing can access the range any more.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`slot`] | one guarded range |
//! | [`table`] | all slots, ordered by address |
//! | [`patch`] | replaces lost pages with zero pages |
//! | [`signal`] | the handler, and the previous handler |

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
/// Held while the table is changed, but never by the handler.
static CHANGES: Mutex<Changes> = Mutex::new(Changes::new());

/// A slot in the table for as long as this value lives.
pub struct Watch {
    node: &'static Node,
}

/// What the guard needs to know to patch a range.
pub struct GuardedRange<'a> {
    pub start: *mut u8,
    /// Bytes of addresses, whole pages.
    pub len: usize,
    /// Bytes mapped from the file, whole pages.
    pub mapped: usize,
    /// `None` for anonymous memory.
    pub fd: Option<BorrowedFd<'a>>,
    /// The offset of `start` in the file.
    pub file_offset: u64,
    /// Bytes from `start` to position 0 of the map.
    pub delta: usize,
    pub page: usize,
    pub writable: bool,
    /// Data that is written to the pages is stored nowhere else.
    pub only_copy: bool,
}

impl Watch {
    /// Guards `range`, and records its faults in `fault`.
    ///
    /// # Safety
    /// The range and `fault` must outlive the returned value, and its descriptor must stay open until
    /// [`Watch::forget_fd`].
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

    /// Tells the guard how much of the range is now mapped.
    pub fn set_mapped(&self, mapped: usize) {
        self.node.slot.set_mapped(mapped);
    }

    /// Tells the guard that the range was extended in place, before anything is mapped in the new part.
    pub fn set_limit(&self, len: usize) {
        let limit = self.node.slot.set_len(len);
        HIGHEST.fetch_max(limit, Ordering::AcqRel);
    }

    /// To be called before the descriptor is closed: see [`Slot::forget_fd`].
    pub fn forget_fd(&self) {
        self.node.slot.forget_fd();
    }

    /// Zero pages that replace lost ones no longer need to be writable.
    pub fn is_read_only(&self) {
        self.node.slot.is_read_only();
    }

    /// The pages that were replaced with zero pages are mapped again.
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

/// The slot of the range that contains `address`, and its contents.
fn find(address: usize) -> Option<(&'static Slot, Guarded)> {
    match may_be_guarded(address) {
        true => TABLE.find(address),
        false => None,
    }
}

/// The fault of the map that contains `address`. It lives as long as the map does.
pub fn fault_at(address: usize) -> Option<*const Fault> {
    find(address).map(|(_, guarded)| guarded.fault)
}

/// The start of the lowest and the end of the highest range, of all that ever existed.
static LOWEST: AtomicUsize = AtomicUsize::new(usize::MAX);
static HIGHEST: AtomicUsize = AtomicUsize::new(0);

/// Whether `address` is between the lowest and the highest range that ever existed, in two loads. `false`: it is in none.
#[inline(always)]
pub fn may_be_guarded(address: usize) -> bool {
    LOWEST.load(Ordering::Acquire) <= address && address < HIGHEST.load(Ordering::Acquire)
}

/// Whether `address`, where something is mapped, is in a guarded range. Its bytes may then belong to a file, and may also be
/// mapped elsewhere.
pub fn is_guarded(address: usize) -> bool {
    arena::contains(address) || find(address).is_some()
}
