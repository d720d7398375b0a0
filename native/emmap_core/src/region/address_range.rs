//! A range of addresses that shows the file from its first page.

use super::reservation::{Alignment, Place, Reservation, Size};
use super::Shape;
use crate::fault::Fault;
use crate::guard::{self, Watch};
use crate::mapped_file::MappedFile;
use crate::{os, Errno, Result};

/// Which zero pages may replace a tail.
#[derive(Clone, Copy)]
pub(super) enum Zeros {
    /// Writable ones: a call without the lock that has read the old length may still be running.
    Writable,
    /// If the system refuses those, also ones that cannot be written: with `vm.overcommit_memory` set to 2, it charges
    /// writable pages as memory.
    AnyKind,
}

pub(super) struct AddressRange {
    watch: Watch,
    pub reservation: Reservation,
    /// Bytes mapped from the file, whole pages; zeros follow.
    pub mapped: usize,
    /// As `mapped`, including the truncated part of shared memory. It stays mapped, and empty, to be used again, because the
    /// kernel releases what it has granted for such a map only with all of the map.
    kept: usize,
    /// Nothing was mapped yet, so nothing reads the range.
    fresh: bool,
}

impl AddressRange {
    /// Reserves addresses and guards them. Nothing is mapped there yet.
    pub fn new(
        shape: &Shape,
        file: Option<&MappedFile>,
        fault: &Fault,
        size: Size,
        place: Place,
    ) -> Result<AddressRange> {
        let file_offset = shape.offset - shape.delta as u64;
        let alignment = Alignment {
            page: shape.page,
            offset: file_offset,
        };
        let reservation = Reservation::of_size(size, alignment, place)?;
        let guarded = guard::GuardedRange {
            start: reservation.start(),
            len: reservation.len(),
            mapped: 0,
            fd: file.map(MappedFile::fd),
            file_offset,
            delta: shape.delta,
            page: shape.page,
            writable: shape.writable,
            only_copy: file.is_none() || (shape.private && shape.writable),
        };
        // SAFETY: the `Region` drops its ranges before its fault, and an `AddressRange` its watch before its reservation.
        // Before the `Region` closes its file, the watch forgets the descriptor (`take_file`).
        let watch = unsafe { Watch::new(&guarded, fault) };
        Ok(AddressRange {
            watch,
            reservation,
            mapped: 0,
            kept: 0,
            fresh: true,
        })
    }

    /// To be called before the descriptor is closed.
    pub fn forget_fd(&self) {
        self.watch.forget_fd();
    }

    /// Replaces the whole file with zero pages, and so releases its pages and its disk space. For a map whose calls are
    /// already refused. `false`: the system grants no zero pages, and the pages of the file stay until the range is dropped.
    pub fn clear(&self, shape: &Shape) -> bool {
        let (at, len) = self.kept();
        // SAFETY: the range is inside the reservation, and no live binary shows it. Pages are replaced in one step, so
        // a running call sees the old ones or zeros, and after zeros finds the fault of a closed map.
        unsafe {
            os::release_large(at, len);
            os::zero_over(at, len, shape.protection()).is_ok()
        }
    }

    /// Makes the pages read-only.
    pub fn protect(&mut self, shape: &Shape) -> Result<()> {
        let (at, len) = self.whole();
        self.watch.is_read_only();
        if len == 0 {
            return Ok(());
        }
        // SAFETY: the range is inside the reservation, and nothing writes to it any more.
        os::check(unsafe { libc::mprotect(at.cast(), len, shape.protection()) })
    }

    pub fn position_zero(&self, shape: &Shape) -> *mut u8 {
        // SAFETY: a reservation is at least a page long and `delta` is less than a page.
        unsafe { self.reservation.start().add(shape.delta) }
    }

    /// What is mapped.
    pub fn whole(&self) -> (*mut u8, usize) {
        (self.reservation.start(), self.mapped)
    }

    /// As [`AddressRange::whole`], including the truncated part of anonymous memory.
    pub fn kept(&self) -> (*mut u8, usize) {
        (self.reservation.start(), self.kept)
    }

    /// Extends the range to `bytes` in place, or returns an error.
    pub fn extend(&mut self, shape: &Shape, bytes: usize) -> Result<()> {
        self.reservation.extend(bytes, shape.page)?;
        self.watch.set_limit(self.reservation.len());
        Ok(())
    }

    /// Maps the file up to `bytes` (whole pages) from the start of the range.
    pub fn grow(&mut self, shape: &Shape, file: Option<&MappedFile>, bytes: usize) -> Result<()> {
        if bytes <= self.mapped {
            return Ok(());
        }
        debug_assert!(bytes <= self.reservation.len());
        let fresh = std::mem::take(&mut self.fresh);
        let from = match self.take_kept(shape, bytes) {
            true => self.kept.min(bytes),
            false => self.mapped,
        };
        if from < bytes {
            // SAFETY: `from .. bytes` is inside the reservation and past every live binary, except
            // those of a truncated tail, which get their pages back.
            unsafe { self.map(shape, file, from, bytes, fresh) }?;
        }
        self.mapped = bytes;
        self.kept = self.kept.max(bytes);
        self.watch.set_mapped(self.kept);
        Ok(())
    }

    /// Empties the kept truncated part, up to `bytes`, so that it can be used again: a call without the lock that had read
    /// the old length may have written to it. `false`: it must be mapped again.
    fn take_kept(&self, shape: &Shape, bytes: usize) -> bool {
        let (from, to) = (self.mapped, bytes.min(self.kept));
        if from == to {
            return true;
        }
        // The kernel granted huge pages when they were mapped, and took them back when they were released.
        let populate = shape.populates() || shape.page != os::page_size();
        // SAFETY: memory of this range, beyond the length of the map.
        unsafe {
            self.empty(from, to)
                && (!populate || os::populate_write(self.reservation.start().add(from), to - from))
        }
    }

    /// Releases the pages of anonymous memory, which then reads as zeros. `false`: not all of them can be released.
    ///
    /// # Safety
    /// `from .. to` must be inside `kept`, and its contents must not be needed any more.
    unsafe fn empty(&self, from: usize, to: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { os::remove_pages(self.reservation.start().add(from), to - from).is_ok() }
    }

    /// Replaces everything from `bytes` (whole pages) on with zero pages.
    pub fn shrink(&mut self, shape: &Shape, bytes: usize, zeros: Zeros) -> Result<()> {
        if bytes >= self.mapped {
            return Ok(());
        }
        if shape.is_shared_memory() {
            self.cut_memory(shape, bytes);
            return Ok(());
        }
        // SAFETY: the range is inside the reservation. Pages are replaced in one step, so a reader
        // sees the old ones or zeros.
        unsafe {
            let at = self.reservation.start().add(bytes);
            if !shape.private {
                os::release_pages(at, self.mapped - bytes);
            }
            let len = self.mapped - bytes;
            let answer = os::zero_over(at, len, shape.protection());
            match zeros {
                Zeros::Writable => answer?,
                Zeros::AnyKind => answer.or_else(|_| os::zero_over(at, len, libc::PROT_READ))?,
            }
        }
        self.mapped = bytes;
        self.kept = bytes;
        self.watch.set_mapped(bytes);
        Ok(())
    }

    /// Maps the whole file again, after its descriptor has been changed to lead to another file.
    pub fn show_again(&self, shape: &Shape, file: &MappedFile) -> Result<()> {
        if self.mapped == 0 {
            return Ok(());
        }
        // SAFETY: the range shows the file. Readers see the old one or the new one.
        unsafe { self.map(shape, Some(file), 0, self.mapped, false) }?;
        self.watch.is_whole();
        Ok(())
    }

    /// Releases the pages from `bytes` on.
    fn cut_memory(&mut self, shape: &Shape, bytes: usize) {
        let (at, len) = (bytes, self.mapped - bytes);
        // SAFETY: the caller truncates the map there, so the contents are not needed. The range is inside the
        // reservation, and pages are replaced in one step.
        unsafe {
            if !self.empty(at, at + len) {
                // Some are patched, or the system cannot do it: the rest is released with the range.
                let _ = os::zero_over(self.reservation.start().add(at), len, shape.protection());
            }
        }
        self.mapped = bytes;
    }

    /// Maps the lost pages of the file again.
    pub fn restore(
        &self,
        shape: &Shape,
        file: Option<&MappedFile>,
        lost: std::ops::Range<usize>,
    ) -> Result<()> {
        let to = lost.end.min(self.mapped);
        if lost.start >= to {
            return Ok(());
        }
        // SAFETY: the range is mapped, consists of whole pages, and shows zeros in place of the file;
        // readers see those or the bytes of the file.
        let again = |from, to| unsafe { self.map(shape, file, from, to, false) };
        if !shape.private && file.is_some() {
            again(lost.start, to)?;
        } else if file.is_some() || shape.page != os::page_size() {
            // Between two lost pages, there may be pages that were written, and are stored nowhere else.
            let start = self.reservation.start() as usize;
            let parts = os::parts_without_file(start + lost.start, to - lost.start)?;
            let mut parts = parts.into_iter();
            parts.try_for_each(|part| again(part.start - start, part.end - start))?;
        }
        // Otherwise, it is ordinary anonymous memory: the zero pages in place of the lost ones are as good as new ones.
        self.watch.is_whole();
        Ok(())
    }

    /// # Safety
    /// `from .. to` must be whole pages inside the reservation that are not used, or that may be replaced by the
    /// file's pages at any time. `fresh`: nothing reads them, and the range is dropped after an error.
    unsafe fn map(
        &self,
        shape: &Shape,
        file: Option<&MappedFile>,
        from: usize,
        to: usize,
        fresh: bool,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        let answer = unsafe {
            let at = self.reservation.start().add(from);
            let (len, protection) = (to - from, shape.protection());
            let offset = match file {
                Some(_) => shape.offset - shape.delta as u64 + from as u64,
                None => 0,
            };
            let fd = file.map(MappedFile::fd);
            // An error may leave a hole. Other memory can be placed in it unless the whole area belongs to this library.
            let map = |flags| match fresh && self.reservation.is_apart() {
                true => os::map_over(at, len, protection, flags, fd, offset),
                false => os::replace(at, len, protection, flags, fd, offset),
            };
            match fd {
                Some(fd) => shape.with_flags_of(fd, map),
                None => map(shape.flags),
            }
        };
        #[cfg(target_os = "linux")]
        if answer.is_ok() && shape.populates() {
            // If the file was moved to its place, the kernel may have released large pages.
            // SAFETY: what was mapped above.
            let _ = unsafe { os::populate(self.reservation.start().add(from), to - from) };
        }
        match answer {
            // Huge pages were requested for an ordinary file.
            Err(Errno::INVAL) if shape.page != os::page_size() => Err(Errno::NOTSUP),
            answer => answer,
        }
    }
}
