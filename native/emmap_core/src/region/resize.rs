//! Growing and shrinking under readers.

use super::address_range::Zeros;
use super::lock::{Stripes, WriteGuard};
use super::reservation::{Place, Size};
use super::{AddressRange, Region};
use crate::fault::Reason;
use crate::patience::{self, Deadline};
use crate::{os, Errno, Result};

/// Whether copies of bytes may be running while the size changes.
#[derive(Clone, Copy)]
pub(super) enum Copies {
    GoOn,
    HeldOff,
}

impl Region {
    /// Changes the size of the map to `to` bytes. If the map shrinks, its file is truncated to that size. If it
    /// grows, a file that others have already made longer keeps its length. Blocks on the disk.
    pub fn resize(&self, to: u64) -> Result<()> {
        self.change_size(to, false)
    }

    /// Changes the size of the map and its file to exactly `to` bytes, even if others made the file longer.
    pub fn truncate(&self, to: u64) -> Result<()> {
        self.change_size(to, true)
    }

    fn change_size(&self, to: u64, cut: bool) -> Result<()> {
        self.check_fault()?;
        self.check_resizable(to)?;
        let to_len = usize::try_from(to).map_err(|_| Errno::NOMEM)?;
        // For a part of a file, or a private map, the end of the file is not the end of the map.
        let cut = cut && self.shape.resizable;
        if to_len == self.len() && !cut {
            return self.check_size().map(drop);
        }
        let copies = match to_len < self.len() {
            true => Copies::HeldOff,
            false => Copies::GoOn,
        };
        let changed = self.sized(copies, |ranges| {
            // It may have another size now.
            self.check_resizable(to)?;
            let on_disk = self.check_size_under(ranges)?;
            if to_len < self.len() {
                return match copies {
                    Copies::HeldOff => self.shrink(ranges, to_len, on_disk).map(|()| true),
                    Copies::GoOn => Ok(false),
                };
            }
            if to_len > self.len() {
                self.extend(ranges, on_disk, to)?;
            }
            // The destructive step comes last, when nothing else can fail.
            match on_disk.is_some_and(|on_disk| cut && on_disk > to) {
                true => self.set_file_size(to).map(|()| true),
                false => Ok(true),
            }
        })?;
        match changed {
            true => self.check_fault(),
            false => self.change_size(to, cut),
        }
    }

    /// Doubles the map, but by at most `max_increment`, and up to at most `max_size`. The map is never shorter than its
    /// file is then. Returns the new size.
    pub fn double(&self) -> Result<u64> {
        self.sized(Copies::GoOn, |ranges| {
            let len = self.len() as u64;
            let step = len.clamp(1, self.shape.max_increment.max(1));
            // A size of one byte more than allowed returns an error.
            let most = self.shape.max_size.max(len.saturating_add(1));
            let to = len.saturating_add(step).min(most);
            self.check_resizable(to)?;
            let on_disk = self.check_size_under(ranges)?;
            let to = to.max(on_disk.unwrap_or(0).min(self.shape.max_size));
            self.extend(ranges, on_disk, to).map(|()| to)
        })
    }

    /// Extends the map to at least `to` bytes, for a write past its end. A file that another
    /// program has made longer in the meantime is not truncated. Blocks on the disk.
    pub fn grow(&self, to: u64) -> Result<()> {
        if !self.shape.grows {
            return Err(Errno::NOSPC);
        }
        self.check_writable()?;
        self.check_fault()?;
        if to <= self.len() as u64 {
            return Ok(());
        }
        self.sized(Copies::GoOn, |ranges| {
            self.check_writable()?;
            if to <= self.len() as u64 {
                return Ok(());
            }
            let on_disk = self.check_size_under(ranges)?;
            let to = to.max(on_disk.unwrap_or(0).min(self.shape.max_size));
            self.extend(ranges, on_disk, to)
        })
    }

    fn check_resizable(&self, to: u64) -> Result<()> {
        let len = self.len() as u64;
        match self.writable() {
            false => Err(Errno::ACCES),
            true if self.shape.resizable || to == len => Ok(()),
            true if to > len => Err(Errno::NOSPC),
            true => Err(Errno::INVAL),
        }
    }

    /// Runs `act` while nothing else, here or in another program, changes the size of the map or of its file: when a file
    /// grows, the kernel clears the rest of its last page, and would clear what another map has already written there.
    ///
    /// First, it waits for everything that may be held for long, with one deadline: the turn of this map, the lock of the
    /// file, and the running copies. The ranges come last.
    pub(super) fn alone<R>(
        &self,
        copies: Copies,
        act: impl FnOnce(&mut Vec<AddressRange>) -> Result<R>,
    ) -> Result<R> {
        let deadline = Deadline::of_call(Errno::WAIT_SIZE);
        let _turn = self.size_turn.enter(&deadline)?;
        self.locked(&deadline, copies, act)
    }

    /// As [`Region::alone`], for a caller that has the turn.
    pub(super) fn locked<R>(
        &self,
        deadline: &Deadline,
        copies: Copies,
        act: impl FnOnce(&mut Vec<AddressRange>) -> Result<R>,
    ) -> Result<R> {
        let file = self.file()?;
        let _lock = match &file {
            Some(file) => Some(file.lock_size(deadline)?),
            None => None,
        };
        let _copies = match copies {
            Copies::HeldOff => self.hold_off_copies()?,
            Copies::GoOn => None,
        };
        act(&mut self.ranges())
    }

    /// As [`Region::alone`], unless pages were lost.
    pub(super) fn sized<R>(
        &self,
        copies: Copies,
        act: impl FnOnce(&mut Vec<AddressRange>) -> Result<R>,
    ) -> Result<R> {
        self.check_fault()?;
        self.alone(copies, |ranges| {
            self.check_fault()?;
            act(ranges)
        })
    }

    /// Waits until no copy is running, and lets none begin.
    pub(super) fn hold_off_copies(&self) -> Result<Option<WriteGuard<'_>>> {
        match self.lock_of_writers() {
            None => Ok(None),
            Some(lock) => match lock.write_within(Stripes::ALL, patience::of_copies()) {
                None => Err(Errno::WAIT_SIZE),
                held => Ok(held),
            },
        }
    }

    fn set_file_size(&self, to: u64) -> Result<()> {
        match self.file()? {
            // On hugetlbfs, a file has whole pages.
            Some(file) if self.shape.page != os::page_size() => {
                let to = to.checked_next_multiple_of(self.shape.page as u64);
                os::set_size(file.fd(), to.ok_or(Errno(libc::EFBIG))?)
            }
            Some(file) => os::without_sigxfsz(|| os::set_size(file.fd(), to)),
            None => Ok(()),
        }
    }

    /// Extends the file (from `on_disk` bytes), maps the new part, then publishes it.
    pub(super) fn extend(
        &self,
        ranges: &mut Vec<AddressRange>,
        on_disk: Option<u64>,
        to: u64,
    ) -> Result<()> {
        if to > self.shape.max_size {
            return Err(Errno::NOSPC);
        }
        let len = usize::try_from(to).map_err(|_| Errno::NOMEM)?;
        let bytes = self.shape.bytes(len)?;
        // Addresses first, because they can be refused, and the file must not have changed then.
        let successor = self.successor(ranges, bytes)?;
        let longer = self.file()?.zip(on_disk);
        self.check_mappable(ranges, bytes)?;
        if let Some((file, size)) = &longer {
            file.extend(*size, to)?;
        }
        self.map_more(ranges, successor, bytes).inspect_err(|_| {
            if let Some((file, size)) = &longer {
                file.take_back(to, *size);
            }
        })?;
        let last = &ranges[ranges.len() - 1];
        self.hot.extent.grow(last.position_zero(&self.shape), len);
        Ok(())
    }

    /// EPERM if no more of the file may be mapped, because a file that can only grow could not be shortened again.
    pub(super) fn check_mappable(&self, ranges: &[AddressRange], bytes: usize) -> Result<()> {
        let more = self.shape.writable && bytes > ranges[ranges.len() - 1].mapped;
        match self.file()? {
            Some(file) if more && os::is_append_only(file.fd()) => Err(Errno::PERM),
            _ => Ok(()),
        }
    }

    /// Extends the last range of addresses to `bytes`, or makes another range if it is too small and something
    /// else is mapped after it.
    pub(super) fn successor(
        &self,
        ranges: &mut [AddressRange],
        bytes: usize,
    ) -> Result<Option<AddressRange>> {
        let at = ranges.len() - 1;
        let last = &mut ranges[at];
        let room = last.reservation.len();
        if room >= bytes {
            return Ok(None);
        }
        if self.shape.pinned && last.reservation.room() < bytes {
            return Err(Errno::NOSPC);
        }
        match last.extend(&self.shape, bytes) {
            Err(error) if self.shape.pinned => return Err(error),
            Err(_) => (),
            Ok(()) => return Ok(None),
        }
        let size = Size {
            least: bytes,
            wanted: room.saturating_mul(2).max(bytes),
            outgrown: true,
        };
        let (shape, file) = (&self.shape, self.file()?);
        let (file, fault) = (file.as_deref(), &self.hot.fault);
        AddressRange::new(shape, file, fault, size, Place::Anywhere).map(Some)
    }

    /// Maps the file up to `bytes` in every range: all show the same pages, so readers of an old
    /// range lose nothing.
    pub(super) fn map_more(
        &self,
        ranges: &mut Vec<AddressRange>,
        successor: Option<AddressRange>,
        bytes: usize,
    ) -> Result<()> {
        let before: Vec<usize> = ranges.iter().map(|range| range.mapped).collect();
        let count = ranges.len();
        let file = self.file()?;
        ranges.extend(successor);
        for at in 0..ranges.len() {
            let range = &mut ranges[at];
            let bytes = bytes.min(range.reservation.len());
            if let Err(error) = range.grow(&self.shape, file.as_deref(), bytes) {
                ranges.truncate(count);
                for (range, mapped) in ranges.iter_mut().zip(before) {
                    let _ = range.shrink(&self.shape, mapped, Zeros::Writable);
                }
                return Err(error);
            }
        }
        self.known.note(ranges);
        Ok(())
    }

    /// Truncates the map, then the file. Live binaries of the tail read zeros from here on.
    fn shrink(&self, ranges: &mut [AddressRange], to: usize, on_disk: Option<u64>) -> Result<()> {
        if let Some(on_disk) = on_disk {
            // Checks whether the file may be changed: the reason for refusing that may also refuse another map of it.
            self.set_file_size(on_disk)?;
        }
        let before = self.len();
        let bytes = self.shape.bytes(to)?;
        // The rest of the last page stays mapped, and its bytes must not appear again when the file grows.
        let tail = (bytes.saturating_sub(self.shape.delta)).min(before) - to.min(before);
        let mut kept = vec![0u8; tail];
        self.hot.extent.set_len(to);
        // SAFETY: `to + tail` is at most the old length, and its page stays mapped (1: Alive).
        let at = unsafe {
            let at = self.pointer(to);
            std::ptr::copy_nonoverlapping(at, kept.as_mut_ptr(), tail);
            std::ptr::write_bytes(at, 0, tail);
            at
        };
        let mut answer = Ok(());
        for range in ranges.iter_mut() {
            answer = answer.and(range.shrink(&self.shape, bytes, Zeros::Writable));
        }
        answer = answer.and_then(|()| self.set_file_size(to as u64));
        if let Err(error) = answer {
            // The file has kept its bytes: show them again, first those that were cleared.
            // SAFETY: as above; the page stayed mapped.
            unsafe { std::ptr::copy_nonoverlapping(kept.as_ptr(), at, tail) };
            let whole = self.shape.bytes(before)?;
            let file = self.file()?;
            let again = ranges.iter_mut().try_for_each(|range| {
                let whole = whole.min(range.reservation.len());
                range.grow(&self.shape, file.as_deref(), whole)
            });
            if again.is_err() {
                // They cannot be shown, and must not be mistaken for zeros.
                self.hot.fault.note(to as u64, Reason::of(error));
                return Err(error);
            }
            self.hot.extent.set_len(before);
            return Err(error);
        }
        Ok(())
    }
}
