//! What the last close releases, while calls may be running and live binaries may exist.
//!
//! A close does not wait for calls, and calls take no lock. So:
//!
//! - the descriptor is closed when the last call that holds the file has returned;
//! - if no live binary was handed out, the fault of the map becomes [`Reason::CLOSED`](crate::fault::Reason::CLOSED)
//!   *before* zero pages replace those of the file. A call that accesses a page after that finds the fault when it checks,
//!   as it does for a lost page: it returns the bytes of the file or CLOSED, never zeros;
//! - a thread that hands out a live binary marks the map *before* it checks whether its handle is closed, and a thread that
//!   closes checks the mark *after* it has closed the handle, so at least one of them sees the other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::{AddressRange, Region};
use crate::mapped_file::{MappedFile, Name};
use crate::{lent, Errno, Result};

/// The file of a map, until the last close.
pub(super) struct FileSlot {
    /// `None`: anonymous memory.
    name: Option<Name>,
    file: Mutex<Option<Arc<MappedFile>>>,
    /// The size of the file in bytes when its descriptor was released while its pages stayed mapped.
    last_size: AtomicU64,
    /// Whether its name was removed. It must be removed only once: when the file is released, a new file of the same name
    /// may have the same inode.
    unlinked: AtomicBool,
}

impl FileSlot {
    pub fn new(file: Option<MappedFile>) -> FileSlot {
        FileSlot {
            name: file.as_ref().map(|file| file.name().clone()),
            file: Mutex::new(file.map(Arc::new)),
            last_size: AtomicU64::new(0),
            unlinked: AtomicBool::new(false),
        }
    }

    /// Removes its name, once.
    pub fn unlink(&self) {
        if let Some(name) = &self.name {
            if !self.unlinked.swap(true, Ordering::AcqRel) {
                name.unlink();
            }
        }
    }

    pub fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    pub fn is_file(&self) -> bool {
        self.name.is_some()
    }

    pub fn get(&self) -> Result<Option<Arc<MappedFile>>> {
        match (&self.name, &*self.file()) {
            (None, _) => Ok(None),
            (Some(_), None) => Err(Errno::CLOSED),
            (Some(_), Some(file)) => Ok(Some(file.clone())),
        }
    }

    fn take(&self) -> Option<Arc<MappedFile>> {
        self.file().take()
    }

    /// Records the size of a file whose pages stay mapped: it determines how long unmapping them takes.
    fn keep_size(&self, file: &MappedFile) {
        let size = file.size().unwrap_or(0);
        self.last_size.fetch_max(size, Ordering::Relaxed);
    }

    fn size(&self) -> u64 {
        let last = self.last_size.load(Ordering::Relaxed);
        let now = self.file().as_ref().and_then(|file| file.size().ok());
        now.unwrap_or(last)
    }

    fn file(&self) -> MutexGuard<'_, Option<Arc<MappedFile>>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Region {
    /// To be called before a live binary is handed out, and before checking whether the handle is closed.
    #[inline]
    pub fn lend(&self) {
        if self.hot.lent.lend() {
            self.note_lent();
        }
    }

    #[cold]
    fn note_lent(&self) {
        if let Some(name) = self.file.name() {
            lent::add(name.identity());
        }
    }

    /// Whether a live binary was ever handed out.
    pub fn is_lent(&self) -> bool {
        self.hot.lent.is_lent()
    }

    /// To be called once no live binary exists any more, and the region will be dropped. Removes the name of the file if it
    /// is to be removed; from then on, an open may truncate the file.
    pub fn take_back_lent(&self) {
        if self.shape.auto_unlink {
            // First, so that no open truncates a file whose name is about to be removed.
            self.file.unlink();
        }
        if self.hot.lent.take_back() {
            if let Some(name) = self.file.name() {
                lent::remove(name.identity());
            }
        }
    }

    /// To be called once, when the last handle is closed: releases the descriptor, and the pages of the file if no
    /// live binary was handed out. Waits for a call that changes the size, and takes as long as unmapping takes.
    pub fn release(&self) {
        let keep_pages = self.is_lent();
        if !keep_pages {
            self.hot.fault.close();
            if self.shape.auto_unlink {
                // With live binaries, the name is removed with the last of them.
                self.file.unlink();
            }
        }
        self.release_under(&self.ranges(), keep_pages);
    }

    /// As [`Region::release`] for a map with live binaries, unless a call is changing its size. For a thread that may
    /// not wait.
    pub fn try_release_descriptor(&self) {
        match self.ranges.try_lock() {
            Ok(ranges) => self.release_under(&ranges, true),
            Err(TryLockError::Poisoned(ranges)) => self.release_under(&ranges.into_inner(), true),
            Err(TryLockError::WouldBlock) => (),
        }
    }

    fn release_under(&self, ranges: &[AddressRange], keep_pages: bool) {
        let file = self.take_file(ranges);
        let cleared = |range: &AddressRange| range.clear(&self.shape);
        let kept = keep_pages || ranges.iter().filter(|range| !cleared(range)).count() > 0;
        if let (Some(file), true) = (&file, kept) {
            self.file.keep_size(file);
        }
        drop(file);
    }

    /// The file, which closes its descriptor when it is dropped.
    pub(super) fn take_file(&self, ranges: &[AddressRange]) -> Option<Arc<MappedFile>> {
        ranges.iter().for_each(AddressRange::forget_fd);
        // A signal handler that had read the descriptor has finished with it.
        self.hot.fault.await_losing();
        self.file.take()
    }

    /// Whether unmapping it, or closing its file, may take long.
    pub fn is_large(&self) -> bool {
        const LARGE: u64 = 16 << 20;
        self.len() as u64 > LARGE || self.file.size() > LARGE
    }
}
