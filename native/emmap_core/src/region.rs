//! The mapping itself: a file (or anonymous memory) that grows in place under its readers.
//!
//! Invariants that the `SAFETY` comments of this module lean on:
//!
//! 1. *Alive*: `base .. base + len` is mapped readable (and writable, if the region is) for as
//!    long as the `Region` lives. Only `Drop` unmaps; growth maps more, shrinking replaces pages
//!    by zero pages in one step, and a range that became too small stays mapped beside its
//!    successor.
//! 2. *Published in order*: growth stores `base` before `len`, so whoever sees a length sees a
//!    base that has room for it.
//! 3. *Raw*: no reference to mapped memory is ever made; it changes under us.

mod copy;
mod resize;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::file::{MappedFile, Opened};
use crate::guard::{self, Fault, Watch};
use crate::lock::CopyLock;
use crate::os::Advice;
use crate::range::round_up;
use crate::reservation::{Place, Reservation};
use crate::{os, Errno, Options, Result};

pub use copy::{Read, Wait, Written};

/// Addresses set aside for a map that can grow, beyond twice its size.
#[cfg(target_pointer_width = "64")]
const GROWTH_RESERVE: usize = 1 << 30;
#[cfg(not(target_pointer_width = "64"))]
const GROWTH_RESERVE: usize = 16 << 20;

/// The most addresses set aside for a map that may grow to `max_size`.
#[cfg(target_pointer_width = "64")]
const MOST_AHEAD: usize = 16 << 30;
#[cfg(not(target_pointer_width = "64"))]
const MOST_AHEAD: usize = 64 << 20;

pub struct Region {
    // Declared before what they point into: fields are dropped in this order.
    ranges: Mutex<Vec<Range>>,
    fault: Box<Fault>,
    file: Option<MappedFile>,
    base: AtomicPtr<u8>,
    len: AtomicUsize,
    lock: Option<CopyLock>,
    shape: Shape,
}

/// What does not change after a region is made.
struct Shape {
    writable: bool,
    private: bool,
    /// `resize` may change its size.
    resizable: bool,
    /// A write past the end makes it longer.
    grows: bool,
    /// Stays in its first range of addresses.
    pinned: bool,
    auto_unlink: bool,
    protection: libc::c_int,
    flags: libc::c_int,
    page: usize,
    /// Position 0 in the file, in bytes.
    offset: u64,
    /// `offset` less its page.
    delta: usize,
    max_size: u64,
    max_increment: u64,
}

/// One range of addresses that shows the file from its first page on.
struct Range {
    watch: Watch,
    reservation: Reservation,
    /// Bytes mapped from the file, whole pages; beyond them are zeros that cannot be written.
    mapped: usize,
}

/// What [`Region::info`] tells.
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
    pub locking: bool,
    pub auto_unlink: bool,
    pub max_size: Option<u64>,
    pub page_size: usize,
    pub resident_pages: usize,
    pub ranges: usize,
    pub faults: u64,
    /// The position of the first lost page's byte and what every call answers because of it.
    pub first_fault: Option<(u64, Errno)>,
}

impl Region {
    /// Opens, shapes and maps what `options` describe. Blocks on the disk.
    pub fn open(options: &Options) -> Result<Region> {
        // Before anything is opened: an option the system lacks.
        os::map_flags(options)?;
        let opened = match &options.path {
            Some(path) => Some(Opened::new(path, options)?),
            None => None,
        };
        Region::map(opened, options)
    }

    /// Maps a file that is open already. `path` is for those who ask.
    pub fn of_file(fd: OwnedFd, path: &Path, options: &Options) -> Result<Region> {
        let options = Options {
            path: Some(path.to_owned()),
            ..options.clone()
        };
        let opened = Opened::of_fd(fd, path, &options)?;
        Region::map(Some(opened), &options)
    }

    fn map(opened: Option<Opened>, options: &Options) -> Result<Region> {
        match Region::map_opened(opened.as_ref(), options) {
            Ok((shape, len, range, fault)) => Ok(Region {
                base: AtomicPtr::new(range.position_zero(&shape)),
                ranges: Mutex::new(vec![range]),
                fault,
                file: opened.map(|opened| opened.file),
                len: AtomicUsize::new(len),
                lock: options.lock.then(CopyLock::default),
                shape,
            }),
            Err(error) => {
                if let Some(opened) = opened {
                    opened.undo(options);
                }
                Err(error)
            }
        }
    }

    /// Everything that can be refused is asked for before the file is changed.
    fn map_opened(
        opened: Option<&Opened>,
        options: &Options,
    ) -> Result<(Shape, usize, Range, Box<Fault>)> {
        let planned = match opened {
            Some(opened) => Some(opened.planned_size(options)?),
            None => None,
        };
        let (shape, len) = Region::plan(options, planned)?;
        let file = opened.map(|opened| &opened.file);
        let fault = Box::new(Fault::default());
        let mut range = first_range(&shape, file, &fault, len, options)?;
        if let Some(opened) = opened {
            opened.shape(options)?;
        }
        range.grow(&shape, file, shape.bytes(len)?)?;
        Ok((shape, len, range, fault))
    }

    fn plan(options: &Options, file_size: Option<u64>) -> Result<(Shape, usize)> {
        let flags = os::map_flags(options)?;
        let page = os::map_page_size(options.huge);
        let length = options.length.filter(|length| *length > 0);
        let (available, whole_file) = match file_size {
            Some(size) => (size.saturating_sub(options.offset), options.offset == 0),
            None => (options.size.or(length).ok_or(Errno::INVAL)?, true),
        };
        let len = usize::try_from(length.unwrap_or(available).min(available))
            .map_err(|_| Errno::NOMEM)?;
        let shared_file = file_size.is_some() && options.write && !options.private();
        let whole = whole_file && len as u64 == available;
        let resizable = !options.fixed_size && whole && (shared_file || file_size.is_none());
        let mut protection = libc::PROT_READ;
        if options.write {
            protection |= libc::PROT_WRITE;
        }
        let shape = Shape {
            writable: options.write,
            private: options.private(),
            resizable,
            grows: resizable && file_size.is_some() && length.is_none(),
            pinned: options.fixed || file_size.is_none(),
            auto_unlink: options.auto_unlink,
            protection,
            flags,
            page,
            offset: options.offset,
            delta: (options.offset % page as u64) as usize,
            max_size: options.max_size.unwrap_or(i64::MAX as u64),
            max_increment: options.max_increment,
        };
        Ok((shape, len))
    }

    /// The size of the map in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn writable(&self) -> bool {
        self.shape.writable
    }

    /// Whether a write past the end makes the map longer.
    pub fn grows(&self) -> bool {
        self.shape.grows
    }

    pub fn auto_unlink(&self) -> bool {
        self.shape.auto_unlink
    }

    pub fn unlink(&self) {
        if let Some(file) = &self.file {
            file.unlink();
        }
    }

    /// The fault that every call answers with, once a page was lost.
    #[inline]
    pub fn check_fault(&self) -> Result<()> {
        if self.fault.seen() {
            Err(self.fault_errno())
        } else {
            Ok(())
        }
    }

    #[cold]
    fn fault_errno(&self) -> Errno {
        match (self.fault.first(), &self.file) {
            (Some((position, true)), Some(file)) => {
                // A hole that could not be filled, or a block that could not be read.
                let at = self.shape.offset.saturating_add(position);
                let Ok(at) = os::offset_of(at) else {
                    return Errno::IO;
                };
                use std::os::fd::AsRawFd;
                // SAFETY: takes no pointers; the descriptor's own position is not used.
                let hole = unsafe { libc::lseek(file.fd().as_raw_fd(), at, libc::SEEK_HOLE) };
                if hole == at {
                    Errno::NOSPC
                } else {
                    Errno::IO
                }
            }
            (Some(_), None) => Errno::NOMEM,
            _ => Errno::STALE,
        }
    }

    /// Writes to the disk what the map changed in `position .. position + count`; with `wait` it
    /// is there when this returns. Also ends the wait for the name of a new file.
    pub fn sync(&self, range: Option<(u64, u64)>, wait: bool) -> Result<()> {
        self.with_shared_file(|file, len| {
            let (position, count) = range.unwrap_or((0, len as u64));
            let (start, count) = clamp(position, count, len).unwrap_or((0, 0));
            if !wait {
                let offset = self.shape.offset + start as u64;
                return match count {
                    0 => Ok(()),
                    _ => os::start_write_back(file.fd(), offset, count as u64),
                };
            }
            self.msync(start, count)?;
            if range.is_none() {
                os::sync_all(file.fd())?;
            }
            file.sync_name()
        })
    }

    /// As [`Region::sync`] of everything, without the file's times.
    pub fn sync_data(&self) -> Result<()> {
        self.with_shared_file(|file, len| {
            self.msync(0, len)?;
            os::sync_data(file.fd())?;
            file.sync_name()
        })
    }

    /// Nothing to sync where nothing was written to a file.
    fn with_shared_file(&self, sync: impl FnOnce(&MappedFile, usize) -> Result<()>) -> Result<()> {
        self.check_fault()?;
        let Some(file) = self.file.as_ref().filter(|_| self.shape.writable) else {
            return Ok(());
        };
        if self.shape.private {
            return Ok(());
        }
        sync(file, self.len())?;
        self.check_fault()
    }

    fn msync(&self, start: usize, count: usize) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let (at, len) = self.pages(start, count);
        // SAFETY: the pages lie inside the mapping (1: Alive).
        os::check(unsafe { libc::msync(at.cast(), len, libc::MS_SYNC) })
    }

    /// Tells the kernel how `position .. position + count` will be used; `count` 0: to the end.
    pub fn advise(&self, position: u64, count: u64, advice: Advice) -> Result<()> {
        let offset = self.shape.offset.saturating_add(position);
        let count = if count == 0 { u64::MAX } else { count };
        // What was written to private pages is nowhere else.
        let keeps_writes = advice == Advice::DontNeed && self.shape.private;
        if let Some((start, count)) = clamp(position, count, self.len()) {
            if !keeps_writes {
                let (at, len) = self.pages(start, count);
                // SAFETY: the pages lie inside the mapping (1: Alive); shared pages keep what was
                // written in the page cache, and private ones are left alone.
                unsafe { os::advise_pages(at, len, advice) }?;
            }
            if let Some(file) = &self.file {
                os::advise_file(file.fd(), offset, count as u64, advice)?;
            }
        }
        Ok(())
    }

    /// Allocates the blocks of `position .. position + count`; past the end the map grows, as a
    /// file does.
    pub fn allocate(&self, position: u64, count: u64) -> Result<()> {
        let Some(file) = &self.file else {
            return Err(Errno::NOTSUP);
        };
        if !self.shape.writable || self.shape.private {
            return Err(Errno::ACCES);
        }
        if count == 0 {
            return Err(Errno::INVAL);
        }
        let end = crate::range::checked_end(position, count)?;
        let offset = crate::range::checked_end(self.shape.offset, position)?;
        crate::range::checked_end(offset, count)?;
        if end > self.len() as u64 {
            self.grow(end)?;
        }
        os::without_sigxfsz(|| os::allocate_blocks(file.fd(), offset, count, true))
    }

    /// Brings `position .. position + count` into memory and waits for it.
    pub fn prefetch(&self, position: u64, count: u64) -> Result<()> {
        self.check_fault()?;
        if let Some((start, count)) = clamp(position, count, self.len()) {
            let (at, len) = self.pages(start, count);
            // SAFETY: the pages lie inside the mapping (1: Alive).
            match unsafe { os::populate(at, len) } {
                // The kernel does not signal from within a system call; a touch does, and tells
                // the guard what was lost.
                Err(error) if os::is_lost_page(error) => {
                    self.touch(start, count);
                    self.check_fault()?;
                }
                answer => answer?,
            }
        }
        Ok(())
    }

    /// Reads one byte of each page.
    fn touch(&self, start: usize, count: usize) {
        let (at, len) = self.pages(start, count);
        for page in (0..len).step_by(os::page_size()) {
            // SAFETY: inside the mapping (1: Alive); a lost page is the guard's.
            unsafe { at.add(page).read_volatile() };
        }
    }

    /// Keeps the pages in memory (mlock) until [`Region::unlock_memory`] or the end of the map.
    pub fn lock_memory(&self) -> Result<()> {
        let ranges = self.ranges();
        let (at, len) = ranges[ranges.len() - 1].whole();
        // SAFETY: the pages lie inside the mapping (1: Alive).
        os::check(unsafe { libc::mlock(at.cast(), len) })
    }

    pub fn unlock_memory(&self) -> Result<()> {
        let ranges = self.ranges();
        let (at, len) = ranges[ranges.len() - 1].whole();
        // SAFETY: as above.
        os::check(unsafe { libc::munlock(at.cast(), len) })
    }

    pub fn info(&self) -> Result<Info> {
        let mut info = self.describe();
        let (at, mapped) = {
            let ranges = self.ranges();
            ranges[ranges.len() - 1].whole()
        };
        // Not under the lock: it takes long, and nothing is unmapped meanwhile.
        // SAFETY: the pages lie inside the mapping (1: Alive).
        info.resident_pages = unsafe { os::resident_pages(at, mapped) }?;
        Ok(info)
    }

    /// As [`Region::info`], without the resident pages: in constant time.
    pub fn describe(&self) -> Info {
        let ranges = self.ranges();
        use std::os::fd::AsRawFd;
        Info {
            path: self.file.as_ref().map(|file| file.path().to_owned()),
            fd: self.file.as_ref().map(|file| file.fd().as_raw_fd()),
            size: self.len(),
            offset: self.shape.offset,
            writable: self.shape.writable,
            private: self.shape.private,
            resizable: self.shape.resizable,
            grows: self.shape.grows,
            locking: self.lock.is_some(),
            auto_unlink: self.shape.auto_unlink,
            max_size: Some(self.limit(&ranges)).filter(|max| *max < i64::MAX as u64),
            page_size: self.shape.page,
            resident_pages: 0,
            ranges: ranges.len(),
            faults: self.fault.count(),
            first_fault: self.fault.first().map(|(at, _)| (at, self.fault_errno())),
        }
    }

    /// The largest size that `resize` can give.
    fn limit(&self, ranges: &[Range]) -> u64 {
        let room = ranges[ranges.len() - 1].reservation.len() - self.shape.delta;
        match self.shape.pinned {
            true => self.shape.max_size.min(room as u64),
            false => self.shape.max_size,
        }
    }

    /// The whole pages around `start .. start + count`, which must lie inside the map.
    fn pages(&self, start: usize, count: usize) -> (*mut u8, usize) {
        let base = self.base.load(Ordering::Acquire);
        let from = base as usize + start;
        let into_page = from % self.shape.page;
        // SAFETY: `start` is inside the map, and the map begins `delta` bytes into its first page.
        let at = unsafe { base.add(start).sub(into_page) };
        (at, count + into_page)
    }

    fn ranges(&self) -> MutexGuard<'_, Vec<Range>> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of `position .. position + count` inside the map; `None` where there is none.
fn clamp(position: u64, count: u64, len: usize) -> Option<(usize, usize)> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    crate::range::clamped_range(position, count, len)
}

/// Reserves addresses and has them guarded; nothing is mapped there yet.
fn first_range(
    shape: &Shape,
    file: Option<&MappedFile>,
    fault: &Fault,
    len: usize,
    options: &Options,
) -> Result<Range> {
    let needed = shape.bytes(len)?;
    if shape.resizable && len as u64 > shape.max_size {
        return Err(Errno::NOSPC);
    }
    let wanted = match options.max_size {
        _ if !shape.resizable => needed,
        // Room for what may never come is bounded; a map that needs more gets a larger range.
        Some(max) => shape.bytes(usize::try_from(max).unwrap_or(usize::MAX).min(MOST_AHEAD))?,
        None if options.fixed => needed,
        None => needed.saturating_mul(2).max(GROWTH_RESERVE),
    };
    let place = match options.address {
        None => Place::Anywhere,
        Some(address) if options.fixed => Place::Exactly(address),
        Some(address) => Place::Hint(address),
    };
    let range = Range::new(shape, file, fault, needed, wanted.max(needed), place)?;
    if let Some(file) = file {
        probe(shape, file, &range)?;
    }
    Ok(range)
}

/// Whether the file can be mapped as asked, before it is changed: files in /proc are empty and
/// cannot, and huge pages are not for every file.
fn probe(shape: &Shape, file: &MappedFile, range: &Range) -> Result<()> {
    let at = range.reservation.start();
    #[cfg(target_os = "linux")]
    let flags = shape.flags & !libc::MAP_POPULATE;
    #[cfg(not(target_os = "linux"))]
    let flags = shape.flags;
    // SAFETY: the reservation is at least one page long, and nothing is mapped in it yet.
    unsafe {
        let fd = Some(file.fd());
        match os::map_over(at, shape.page, shape.protection, flags, fd, 0) {
            Err(Errno::IO) => return Err(Errno::NODEV),
            Err(Errno::INVAL) if shape.page != os::page_size() => return Err(Errno::NOTSUP),
            answer => answer?,
        }
        os::zero_over(at, shape.page, libc::PROT_READ)
    }
}

impl Shape {
    /// The bytes of whole pages that `len` bytes of the map take.
    fn bytes(&self, len: usize) -> Result<usize> {
        if len == 0 {
            return Ok(0);
        }
        round_up(self.delta.checked_add(len).ok_or(Errno::NOMEM)?, self.page)
    }
}

impl Range {
    fn new(
        shape: &Shape,
        file: Option<&MappedFile>,
        fault: &Fault,
        needed: usize,
        wanted: usize,
        place: Place,
    ) -> Result<Range> {
        let reservation = Reservation::at_least(needed, wanted, shape.page, place)?;
        let guarded = guard::Range {
            start: reservation.start(),
            len: reservation.len(),
            mapped: 0,
            fd: file.map(MappedFile::fd),
            file_offset: shape.offset - shape.delta as u64,
            delta: shape.delta,
            page: shape.page,
            writable: shape.writable,
        };
        // SAFETY: the `Region` drops its ranges before its file and its fault, and a `Range` its
        // watch before its reservation.
        let watch = unsafe { Watch::new(&guarded, fault) };
        Ok(Range {
            watch,
            reservation,
            mapped: 0,
        })
    }

    fn position_zero(&self, shape: &Shape) -> *mut u8 {
        // SAFETY: a reservation is at least a page long and `delta` is less than a page.
        unsafe { self.reservation.start().add(shape.delta) }
    }

    fn whole(&self) -> (*mut u8, usize) {
        (self.reservation.start(), self.mapped)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.shape.auto_unlink {
            self.unlink();
        }
        for range in self.ranges().iter() {
            let (at, mapped) = range.whole();
            // SAFETY: the pages lie inside the mapping (1: Alive), which ends here.
            unsafe { os::release_pages(at, mapped) };
        }
    }
}
