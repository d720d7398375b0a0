//! Information about a region.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::address_range::AddressRange;
use super::Region;
use crate::os::{self, Stat};
use crate::{Errno, Result};

/// The number of pages in one part of a map, in the page size of the map, and how many of them are in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residency {
    pub pages: usize,
    pub resident: usize,
}

/// The result of [`Region::info`].
#[derive(Clone, Debug)]
pub struct Info {
    pub path: Option<std::path::PathBuf>,
    pub fd: Option<i32>,
    pub size: usize,
    pub offset: u64,
    pub writable: bool,
    pub private: bool,
    pub resizable: bool,
    pub grows: bool,
    pub appends: bool,
    pub locking: bool,
    pub auto_unlink: bool,
    pub tag: u64,
    pub max_size: Option<u64>,
    pub page_size: usize,
    pub resident_pages: usize,
    /// Bytes of the blocks that the whole file has on its disk; `None` for anonymous
    /// memory.
    pub allocated: Option<u64>,
    pub ranges: usize,
    pub faults: u64,
    /// The position of the first lost byte, and the error that every call returns because of it.
    pub first_fault: Option<(u64, Errno)>,
    /// The error that every sync returns since one failed.
    pub failed_sync: Option<Errno>,
}

/// How many ranges of addresses there are, and how long the last one is, readable without the lock of the ranges.
pub(super) struct Known {
    count: AtomicUsize,
    room: AtomicUsize,
}

impl Known {
    pub fn new(ranges: &[AddressRange]) -> Known {
        let known = Known {
            count: AtomicUsize::new(0),
            room: AtomicUsize::new(0),
        };
        known.note(ranges);
        known
    }

    /// To be called when `ranges` has changed.
    pub fn note(&self, ranges: &[AddressRange]) {
        let room = ranges.last().map_or(0, |last| last.reservation.room());
        self.room.store(room, Ordering::Relaxed);
        self.count.store(ranges.len(), Ordering::Relaxed);
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn room(&self) -> usize {
        self.room.load(Ordering::Relaxed)
    }
}

impl Region {
    /// The current `fstat` of the file. ENOTSUP for anonymous memory.
    pub fn stat(&self) -> Result<Stat> {
        let file = self.file()?.ok_or(Errno::NOTSUP)?;
        os::stat(file.fd())
    }

    /// The path by which the file was opened. `None`: anonymous memory.
    pub fn path(&self) -> Option<&Path> {
        self.file.name().map(|name| name.path())
    }

    /// How many faults the map has had that were the first since a repair.
    pub fn fault_number(&self) -> u64 {
        self.hot.fault.firsts()
    }

    /// Where the last of those was first met, and the error that every call returns because of it, or returned until the
    /// repair.
    pub fn latest_fault(&self) -> Option<(u64, Errno)> {
        let latest = self.hot.fault.latest();
        latest.map(|(at, reason)| (at, reason.errno()))
    }

    pub fn info(&self) -> Result<Info> {
        let mut info = self.describe(true);
        let (at, mapped) = self.whole();
        // SAFETY: the pages are inside the mapping (1: Alive).
        info.resident_pages = unsafe { self.resident(at, 0, mapped) }?;
        // All other information is returned even if this fails.
        info.allocated = self.file()?.and_then(|file| file.allocated().ok());
        Ok(info)
    }

    /// The pages of the map in at most `parts` parts of about the same size, from its start. A
    /// map of fewer pages has one part for each page.
    pub fn residency(&self, parts: usize) -> Result<Vec<Residency>> {
        let (at, mapped) = self.whole();
        let page = self.shape.page;
        let all = mapped.div_ceil(page);
        let parts = parts.min(all);
        let border = |part: usize| (part as u128 * all as u128 / parts as u128) as usize;
        (0..parts)
            .map(|part| {
                let (from, to) = (border(part), border(part + 1));
                let len = mapped.min(to * page) - from * page;
                // SAFETY: `from * page + len` is at most `mapped`, so the pages are inside the
                // mapping (1: Alive), and a page begins at `from`.
                let resident = unsafe { self.resident(at, from * page, len) }?;
                Ok(Residency {
                    pages: to - from,
                    resident,
                })
            })
            .collect()
    }

    /// As [`Region::info`], without the resident pages and the blocks: in constant time. With `look`, it checks
    /// the file and detects that it was truncated inside the last page of the map, which raises no signal.
    pub fn describe(&self, look: bool) -> Info {
        if look && !self.shape.private {
            self.look_for_cut();
        }
        let first_fault = self.hot.fault.first();
        let file = self.file().ok().flatten();
        Info {
            path: self.file.name().map(|name| name.path().to_owned()),
            fd: file.map(|file| file.fd().as_raw_fd()),
            size: self.len(),
            offset: self.shape.offset,
            writable: self.writable(),
            private: self.shape.private,
            resizable: self.shape.resizable && self.writable(),
            grows: self.shape.grows && self.writable(),
            appends: self.appends(),
            locking: self.shape.locking,
            auto_unlink: self.shape.auto_unlink,
            tag: self.shape.tag,
            max_size: Some(self.limit_of_room(self.known.room()))
                .filter(|max| *max < i64::MAX as u64),
            page_size: self.shape.page,
            resident_pages: 0,
            allocated: None,
            ranges: self.known.count(),
            faults: self.hot.fault.count(),
            first_fault: first_fault.map(|(at, reason)| (at, reason.errno())),
            failed_sync: self.failed_sync.error(),
        }
    }

    /// Records a fault if the file is too short. Does nothing while the size changes, because the sizes of
    /// the file and of the map would not be from the same moment.
    fn look_for_cut(&self) {
        if let Ok(Some(on_disk)) = self.size_on_disk() {
            if self.is_short(on_disk) {
                if let Ok(ranges) = self.ranges.try_lock() {
                    let _ = self.check_size_under(&ranges);
                }
            }
        }
    }

    /// The largest size that `resize` can set.
    pub(super) fn limit(&self, ranges: &[AddressRange]) -> u64 {
        self.limit_of_room(ranges[ranges.len() - 1].reservation.room())
    }

    fn limit_of_room(&self, room: usize) -> u64 {
        let room = room - self.shape.delta;
        match self.shape.pinned {
            true => self.shape.max_size.min(room as u64),
            false => self.shape.max_size,
        }
    }
}
