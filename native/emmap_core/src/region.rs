//! The mapping itself: a file (or anonymous memory) that grows in place under its readers.
//!
//! The `SAFETY` comments of this module rely on these invariants:
//!
//! 1. *Alive*: `base .. base + len` is mapped readable (and writable, as long as the region is) for as
//!    long as the `Region` lives. Only `Drop` unmaps. Growing maps more; shrinking replaces pages
//!    with zero pages in one step; and a range that became too small and could not be
//!    extended stays mapped in addition to its successor.
//! 2. *Published in order*: growing stores `base` before `len`, so whoever sees a length sees a
//!    base that has room for it.
//! 3. *Raw*: no reference to mapped memory is ever made, because the memory can change at any time.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`plan`] | what an open derives from its file and its options |
//! | [`size_turn`] | one change of the size at a time |
//! | [`shape`] | what does not change after a region is created |
//! | [`reservation`] | a range of addresses, owned and released |
//! | [`address_range`] | a range of addresses that shows the file |
//! | [`extent`] | where the map is and how long it is |
//! | [`first_write`] | the lock of a map, once something was written |
//! | [`lock`] | makes copies atomic with respect to each other |
//! | [`access`] | no access without a check for lost pages |
//! | [`copy`] | bytes in and out |
//! | [`resize`] | growing and shrinking under readers |
//! | [`past_end`] | writes that make the file longer |
//! | [`paging`] | advice, prefetch, mlock, allocation |
//! | [`durability`] | writing changes to the disk |
//! | [`read_only`] | making a writable map read-only |
//! | [`reattach`] | recovery after a fault |
//! | [`release`] | what the last close releases |
//! | [`info`] | information about a map |
//! | [`holes`] | where the file has data |

mod access;
mod address_range;
mod copy;
mod durability;
mod extent;
mod first_write;
mod holes;
mod info;
mod lock;
mod paging;
mod past_end;
mod plan;
mod read_only;
mod reattach;
mod release;
mod reservation;
mod resize;
mod scan;
mod shape;
mod size_turn;

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::block_storage::turn::{self, Turn};
use crate::closing::Lent;
use crate::fault::{Fault, Reason};
use crate::mapped_file::{MappedFile, Name};
use crate::opened_file::OpenedFile;
use crate::{os, Errno, Options, Result};
use address_range::AddressRange;
use durability::Failed;
use extent::Extent;
use first_write::LockOfFirstWrite;
use plan::plan_and_map;
use read_only::SlowWrites;
use release::FileSlot;
use shape::Shape;
use size_turn::SizeTurn;

pub use copy::{Read, Wait, Written};
use info::Known;
pub use info::{Info, Residency};
pub use past_end::Source;
pub use scan::Scan;

pub struct Region {
    // Declared before the fields that they point into: fields are dropped in this order.
    ranges: Mutex<Vec<AddressRange>>,
    /// Information about `ranges`, for callers that may not wait.
    known: Known,
    size_turn: SizeTurn,
    file: FileSlot,
    failed_sync: Failed,
    storage_turn: OnceLock<Arc<Turn>>,
    shape: Shape,
    slow_writes: SlowWrites,
    hot: Hot,
}

/// The data that each read and each write needs, in one cache line in which nothing changes often.
#[repr(C, align(64))]
struct Hot {
    extent: Extent,
    fault: Box<Fault>,
    lock: LockOfFirstWrite,
    /// Whether writes take the lock. Without writes, copies need no order.
    locks: bool,
    // As in the shape, until the map is made read-only.
    writable: AtomicBool,
    grows: bool,
    appends: AtomicBool,
    /// Whether a live binary was handed out.
    lent: Lent,
}

const _: () = assert!(size_of::<Hot>() == 64);

impl Region {
    /// Opens, shapes and maps what `options` describe. Blocks on the disk.
    pub fn open(options: &Options) -> Result<Region> {
        // Before anything is opened: the system may not support an option.
        options.map_flags().bits()?;
        let opened = match &options.path {
            Some(path) => Some(OpenedFile::open(path, options)?),
            None => None,
        };
        Region::map(opened, options)
    }

    /// Maps a file that is already open. `path` is for information only.
    pub fn of_file(fd: OwnedFd, path: &Path, options: &Options) -> Result<Region> {
        let options = Options {
            path: Some(path.to_owned()),
            ..options.clone()
        };
        let opened = OpenedFile::of_fd(fd, path, &options)?;
        Region::map(Some(opened), &options)
    }

    /// Maps a file that the caller has open. The caller may close it afterwards.
    pub fn of_descriptor(fd: BorrowedFd, options: &Options) -> Result<Region> {
        let options = Options {
            path: Some(os::path_of(fd)),
            ..options.clone()
        };
        options.map_flags().bits()?;
        let opened = OpenedFile::of_descriptor(fd, &options)?;
        Region::map(Some(opened), &options)
    }

    fn map(opened: Option<OpenedFile>, options: &Options) -> Result<Region> {
        let fault = Box::new(Fault::default());
        let (plan, range) = plan_and_map(opened.as_ref(), options, &fault)?;
        let shape = plan.shape;
        let hot = Hot {
            extent: Extent::new(range.position_zero(&shape), plan.len),
            fault,
            lock: LockOfFirstWrite::default(),
            locks: shape.locking && (shape.writable || shape.appends),
            writable: AtomicBool::new(shape.writable),
            grows: shape.grows,
            appends: AtomicBool::new(shape.appends),
            lent: Lent::default(),
        };
        let ranges = vec![range];
        Ok(Region {
            known: Known::new(&ranges),
            ranges: Mutex::new(ranges),
            size_turn: SizeTurn::default(),
            file: FileSlot::new(opened.map(|opened| opened.file)),
            failed_sync: Failed::default(),
            storage_turn: OnceLock::new(),
            shape,
            slow_writes: SlowWrites::default(),
            hot,
        })
    }

    /// The size of the map in bytes.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.hot.extent.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A number that changes when the map shrinks: see [`Extent::shrinks`].
    #[inline]
    pub fn shrinks(&self) -> usize {
        self.hot.extent.shrinks()
    }

    #[inline]
    pub fn writable(&self) -> bool {
        self.hot.writable.load(Ordering::Relaxed)
    }

    /// Whether a write past the end makes the map longer.
    #[inline]
    pub fn grows(&self) -> bool {
        self.hot.grows
    }

    /// Whether every write goes to the end of the file.
    #[inline]
    pub fn appends(&self) -> bool {
        self.hot.appends.load(Ordering::Relaxed)
    }

    /// Held by a call that reads or changes a block storage in the file.
    pub fn storage_turn(&self) -> &Turn {
        self.storage_turn
            .get_or_init(|| turn::of(self.file.name().map(Name::identity)))
    }

    /// The file of the map, for reading it as a file.
    pub fn clone_file(&self) -> Result<File> {
        let file = self.file()?.ok_or(Errno::NOTSUP)?;
        Ok(file.fd().try_clone_to_owned()?.into())
    }

    /// The open file, `None` for anonymous memory, CLOSED after [`Region::release`]. It stays open for as long as the
    /// caller holds it.
    fn file(&self) -> Result<Option<Arc<MappedFile>>> {
        self.file.get()
    }

    /// Makes every call return ESTALE until the next [`Region::reattach`], because the contents of the file are not those
    /// that were mapped.
    pub fn distrust(&self) {
        self.hot.fault.note(0, Reason::CUT);
    }

    /// The size of the file, or ESTALE if the file was truncated below the end of the map. Inside a page, that raises
    /// no signal. From then on, every call returns ESTALE.
    fn check_size(&self) -> Result<Option<u64>> {
        match self.size_on_disk()? {
            // The map may have grown after the size was read: both are read again, while neither can change.
            Some(on_disk) if self.is_short(on_disk) => self.check_size_under(&self.ranges()),
            on_disk => Ok(on_disk),
        }
    }

    /// As [`Region::check_size`], for callers that hold the ranges. This map and its file change their
    /// size only while the ranges are held.
    fn check_size_under(&self, _held: &[AddressRange]) -> Result<Option<u64>> {
        match self.size_on_disk()? {
            Some(on_disk) if self.is_short(on_disk) => {
                let position = on_disk.saturating_sub(self.shape.offset);
                self.hot.fault.note(position, Reason::CUT);
                Err(Errno::STALE)
            }
            on_disk => Ok(on_disk),
        }
    }

    fn size_on_disk(&self) -> Result<Option<u64>> {
        self.file()?.map(|file| file.size()).transpose()
    }

    fn is_short(&self, on_disk: u64) -> bool {
        let end = self.shape.offset.saturating_add(self.len() as u64);
        on_disk < end && !self.is_empty()
    }

    /// The whole pages around `start .. start + count`, which must be inside the map.
    fn pages(&self, start: usize, count: usize) -> (*mut u8, usize) {
        let base = self.hot.extent.base();
        let from = base as usize + start;
        let into_page = from % self.shape.page;
        // SAFETY: `start` is inside the map, and the map begins `delta` bytes into its first page.
        let at = unsafe { base.add(start).sub(into_page) };
        (at, count + into_page)
    }

    /// All pages of the map.
    fn whole(&self) -> (*mut u8, usize) {
        // The length first: the base has room for it (2: Published in order).
        let mapped = self.shape.bytes(self.len()).unwrap_or(0);
        (self.pages(0, 0).0, mapped)
    }

    /// Held while the map changes. No holder waits for another program.
    fn ranges(&self) -> MutexGuard<'_, Vec<AddressRange>> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of `position .. position + count` inside the map, or `None`.
fn clamp(position: u64, count: u64, len: usize) -> Option<(usize, usize)> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    crate::bounds::clamped_range(position, count, len)
}

impl Drop for Region {
    fn drop(&mut self) {
        self.take_back_lent();
        let ranges = self.ranges();
        // First: unmapping may take long, and another open may wait for a descriptor.
        drop(self.take_file(&ranges));
        for range in ranges.iter() {
            let (at, mapped) = range.kept();
            // SAFETY: the pages are inside the mapping (1: Alive), which ends here.
            unsafe { os::release_large(at, mapped) };
        }
    }
}
