//! A range of addresses that shows the file from its first page on.

use super::reservation::{Place, Reservation, Size};
use super::Shape;
use crate::fault::Fault;
use crate::guard::{self, Watch};
use crate::mapped_file::MappedFile;
use crate::{os, Errno, Result};

/// Which zero pages may be put over a tail.
#[derive(Clone, Copy)]
pub(super) enum Zeros {
    /// Such as can be written: a call without the lock that has seen the old length may be at work.
    Writable,
    /// Should the system refuse those, also such as cannot be written: it charges pages that can be as memory where
    /// `vm.overcommit_memory` is 2.
    AnyKind,
}

pub(super) struct AddressRange {
    watch: Watch,
    pub reservation: Reservation,
    /// Bytes mapped from the file, whole pages; beyond them are zeros.
    pub mapped: usize,
    /// As `mapped`, with the truncated part of shared memory: it stays mapped, and empty, to be used again, for what the kernel
    /// grants for such a map ends with all of it only.
    kept: usize,
    /// Nothing was mapped yet, so nobody reads the range.
    fresh: bool,
}

impl AddressRange {
    /// Reserves addresses and has them guarded; nothing is mapped there yet.
    pub fn new(
        shape: &Shape,
        file: Option<&MappedFile>,
        fault: &Fault,
        size: Size,
        place: Place,
    ) -> Result<AddressRange> {
        let reservation = Reservation::of_size(size, shape.page, place)?;
        let guarded = guard::GuardedRange {
            start: reservation.start(),
            len: reservation.len(),
            mapped: 0,
            fd: file.map(MappedFile::fd),
            file_offset: shape.offset - shape.delta as u64,
            delta: shape.delta,
            page: shape.page,
            writable: shape.writable,
            only_copy: file.is_none() || (shape.private && shape.writable),
        };
        // SAFETY: the `Region` drops its ranges before its file and its fault, and an `AddressRange` its
        // watch before its reservation.
        let watch = unsafe { Watch::new(&guarded, fault) };
        Ok(AddressRange {
            watch,
            reservation,
            mapped: 0,
            kept: 0,
            fresh: true,
        })
    }

    /// The descriptor is about to be closed.
    pub fn forget_fd(&self) {
        self.watch.forget_fd();
    }

    /// Puts zero pages over all of the file, and so releases its pages and its disk space. For a map whose calls are
    /// refused by now. `false`: the system grants no zero pages, and the file's stay until the range is dropped.
    pub fn clear(&self, shape: &Shape) -> bool {
        let (at, len) = self.kept();
        // SAFETY: the range lies inside the reservation, and no live binary shows it; replacing pages is one step, so
        // a call at work sees the old ones or zeros, and finds the fault of a closed map after these.
        unsafe {
            os::release_large(at, len);
            os::zero_over(at, len, shape.protection()).is_ok()
        }
    }

    /// Takes the right to write away from the pages.
    pub fn protect(&mut self, shape: &Shape) -> Result<()> {
        let (at, len) = self.whole();
        self.watch.is_read_only();
        if len == 0 {
            return Ok(());
        }
        // SAFETY: the range lies inside the reservation, and nothing writes to it any more.
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

    /// As [`AddressRange::whole`], and the truncated part of anonymous memory.
    pub fn kept(&self) -> (*mut u8, usize) {
        (self.reservation.start(), self.kept)
    }

    /// Makes room for `bytes` where the range lies. An error: there is none.
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
            // SAFETY: `from .. bytes` lies inside the reservation and beyond every live binary but
            // those of a truncated tail, which get their pages back.
            unsafe { self.map(shape, file, from, bytes, fresh) }?;
        }
        self.mapped = bytes;
        self.kept = self.kept.max(bytes);
        self.watch.set_mapped(self.kept);
        Ok(())
    }

    /// Empties what was kept of a cut, up to `bytes`, to be used again: a call without the lock that had seen the old
    /// length may have written to it. `false`: it must be mapped anew.
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

    /// Releases the pages of anonymous memory, which is zeros then. `false`: not all of them can be released.
    ///
    /// # Safety
    /// `from .. to` must be inside `kept`, and what is there of no use.
    unsafe fn empty(&self, from: usize, to: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { os::remove_pages(self.reservation.start().add(from), to - from).is_ok() }
    }

    /// Puts zero pages over everything from `bytes` (whole pages) on.
    pub fn shrink(&mut self, shape: &Shape, bytes: usize, zeros: Zeros) -> Result<()> {
        if bytes >= self.mapped {
            return Ok(());
        }
        if shape.is_shared_memory() {
            self.cut_memory(shape, bytes);
            return Ok(());
        }
        // SAFETY: the range lies inside the reservation; replacing pages is one step, so a reader
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

    /// Maps all of the file again, which its descriptor may not have led to before.
    pub fn show_again(&self, shape: &Shape, file: &MappedFile) -> Result<()> {
        if self.mapped == 0 {
            return Ok(());
        }
        // SAFETY: the range shows the file; readers see the old one or the new one.
        unsafe { self.map(shape, Some(file), 0, self.mapped, false) }?;
        self.watch.is_whole();
        Ok(())
    }

    /// Gives the pages from `bytes` on back.
    fn cut_memory(&mut self, shape: &Shape, bytes: usize) {
        let (at, len) = (bytes, self.mapped - bytes);
        // SAFETY: the caller truncates the map there, so that its content is not needed; the range lies inside the
        // reservation, and replacing pages is one step.
        unsafe {
            if !self.empty(at, at + len) {
                // Some are patched, or the system cannot: what is left of them goes with the range.
                let _ = os::zero_over(self.reservation.start().add(at), len, shape.protection());
            }
        }
        self.mapped = bytes;
    }

    /// Maps what was lost of the file again.
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
        // SAFETY: what is given is mapped, whole pages, and shows zeros in the file's place;
        // readers see those or the file's bytes.
        let again = |from, to| unsafe { self.map(shape, file, from, to, false) };
        if !shape.private && file.is_some() {
            again(lost.start, to)?;
        } else if file.is_some() || shape.page != os::page_size() {
            // Between two lost pages may lie some that were written, and are stored nowhere else.
            let start = self.reservation.start() as usize;
            let parts = os::parts_without_file(start + lost.start, to - lost.start)?;
            let mut parts = parts.into_iter();
            parts.try_for_each(|part| again(part.start - start, part.end - start))?;
        }
        // Else ordinary anonymous memory: the zero pages in the place of the lost ones are as good as new ones.
        self.watch.is_whole();
        Ok(())
    }

    /// # Safety
    /// `from .. to` must be whole pages inside the reservation that nobody uses, or that may become
    /// the file's at any time. `fresh`: nobody reads them, and what fails is followed by dropping the range.
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
            // What fails may leave a hole, in which nothing else is put only where all is ours.
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
            // Where the file was moved to its place, the kernel may have let go of large pages.
            // SAFETY: what was mapped above.
            let _ = unsafe { os::populate(self.reservation.start().add(from), to - from) };
        }
        match answer {
            // Huge pages of an ordinary file.
            Err(Errno::INVAL) if shape.page != os::page_size() => Err(Errno::NOTSUP),
            answer => answer,
        }
    }
}
