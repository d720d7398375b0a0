//! Writes that make the file longer.
//!
//! The bytes are written to the file and not to the map. The file grows as they arrive in it, so a program
//! that follows the file never reads zeros in their place, and a full disk is an error of the write. Then the map
//! takes the size of the file.

use super::resize::Copies;
use super::{AddressRange, Region};
use crate::bounds::checked_range;
use crate::source::copy_intact;
use crate::{guard, os, patience, Errno, Result};

/// A longer write past the end does not keep copies out while it fills the file.
const HELD_OFF: usize = 1 << 20;

/// What to write.
#[derive(Clone, Copy)]
pub enum Source {
    Bytes(*const u8),
    /// The same byte, repeated.
    Fill(u8),
}

impl Region {
    /// Writes `count` bytes at `position`, past the end of the map, after `claim` agreed. `false`: it did not, or the
    /// map has grown in the meantime; then check again. Blocks on the disk.
    ///
    /// # Safety
    /// Bytes must be readable. They may be in this region.
    pub unsafe fn write_past_end(
        &self,
        position: u64,
        source: Source,
        count: usize,
        claim: impl FnOnce() -> bool,
    ) -> Result<bool> {
        if !self.shape.grows {
            return Err(Errno::NOSPC);
        }
        let end = crate::bounds::checked_end(position, count as u64)?;
        self.check_writable()?;
        if end <= self.len() as u64 {
            return self.check_fault().map(|()| false);
        }
        if end > self.shape.max_size {
            return Err(Errno::NOSPC);
        }
        // A long write keeps copies out only while it changes bytes that they can see.
        let copies = match count <= HELD_OFF {
            true => Copies::HeldOff,
            false => Copies::GoOn,
        };
        self.sized(copies, |ranges| {
            self.check_writable()?;
            if end <= self.len() as u64 {
                return Ok(false);
            }
            let file = self.file()?.ok_or(Errno::NOTSUP)?;
            let on_disk = self.check_size_under(ranges)?.unwrap_or(0);
            if self.shape.page != os::page_size() {
                // hugetlbfs does not support writes.
                self.extend(ranges, Some(on_disk), end.max(on_disk))?;
                return Ok(false);
            }
            let size = end.max(on_disk).min(self.shape.max_size);
            let (bytes, len) = self.whole_pages(size)?;
            // Addresses first, because they can be refused, and the file must not have changed then.
            let successor = self.successor(ranges, bytes)?;
            self.check_mappable(ranges, bytes)?;
            if !claim() {
                return Ok(false);
            }
            // Existing bytes are overwritten last, when nothing can fail any more.
            let head = on_disk.saturating_sub(position).min(count as u64) as usize;
            let mut reached = on_disk;
            // SAFETY: the caller's promise.
            let tail = unsafe {
                with_bytes(source.skip(head), count - head, |data, done, count| {
                    let position = position + head as u64 + done;
                    file.write_past_end(reached, position, data, count)?;
                    reached = reached.max(position + count as u64);
                    Ok(())
                })
            };
            let exclusive = match copies {
                Copies::HeldOff => None,
                Copies::GoOn => patience::begun(|| self.hold_off_copies())?,
            };
            // Only once the file is long enough: a live binary of a tail that was once truncated would meet lost pages.
            tail.and_then(|()| self.map_more(ranges, successor, bytes))
                .inspect_err(|_| file.take_back(reached, on_disk))?;
            self.publish(ranges, len);
            if head > 0 {
                // SAFETY: `position + head` is now inside the map, which is writable; bytes by the caller's promise.
                self.reading(|| unsafe { self.put(source, position as usize, head) })?;
            }
            drop(exclusive);
            Ok(true)
        })
    }

    /// As [`Region::copy_within`], if the bytes at `to` end past the end of the map.
    pub fn copy_past_end(&self, from: u64, to: u64, count: usize) -> Result<bool> {
        // Through a buffer, because the ranges may overlap.
        let start = checked_range(from, count, self.len()).ok_or(Errno::INVAL)?;
        let mut bytes = buffer(count)?;
        // SAFETY: `start + count` is inside the map (1: Alive), and the buffer has room for it.
        unsafe {
            copy_intact(self.pointer(start), bytes.as_mut_ptr(), count)?;
            self.write_past_end(to, Source::Bytes(bytes.as_ptr()), count, || true)
        }
    }

    /// Appends `count` bytes to the file, and takes its size. Returns the position after them. Blocks on the disk.
    ///
    /// # Safety
    /// `data` must have `count` readable bytes.
    pub unsafe fn append(&self, data: *const u8, count: usize) -> Result<u64> {
        if !self.appends() {
            return Err(Errno::ACCES);
        }
        self.sized(Copies::GoOn, |ranges| {
            // It may have become read-only during the wait.
            if !self.appends() {
                return Err(Errno::ACCES);
            }
            let file = self.file()?.ok_or(Errno::NOTSUP)?;
            let before = self.check_size_under(ranges)?.unwrap_or(0);
            // SAFETY: the caller's promise.
            unsafe {
                with_bytes(Source::Bytes(data), count, |data, _, count| {
                    file.append(data, count)
                })
            }?;
            // The bytes are in the file even if extending the map fails. The map then covers as much as it can.
            let size = file.size().unwrap_or(before + count as u64);
            if let Ok((bytes, len)) = self.whole_pages(size) {
                let mapped = self
                    .successor(ranges, bytes)
                    .and_then(|successor| self.map_more(ranges, successor, bytes));
                if mapped.is_ok() {
                    self.publish(ranges, len);
                }
            }
            Ok(size)
        })
    }

    /// Writes `count` bytes after the last whole record of the file, whose records of `stride` bytes begin at `first`, and
    /// takes its size. Returns the position where it wrote. Blocks on the disk.
    ///
    /// The file grows as the bytes arrive in it, in order. After a crash, its size therefore tells how many records are
    /// whole. The next call overwrites the rest of an incomplete one.
    ///
    /// # Safety
    /// `data` must have `count` readable bytes.
    pub unsafe fn append_records(
        &self,
        first: u64,
        stride: u64,
        data: *const u8,
        count: usize,
    ) -> Result<u64> {
        self.check_writable()?;
        if !self.shape.grows || stride == 0 {
            return Err(Errno::NOSPC);
        }
        self.sized(Copies::GoOn, |ranges| {
            self.check_writable()?;
            let file = self.file()?.ok_or(Errno::NOTSUP)?;
            if self.shape.page != os::page_size() {
                // hugetlbfs does not support writes, and its files have whole pages.
                return Err(Errno::NOTSUP);
            }
            let on_disk = self.check_size_under(ranges)?.unwrap_or(0);
            let whole = on_disk.saturating_sub(first) / stride * stride;
            let position = first.checked_add(whole).ok_or(Errno::INVAL)?;
            let end = crate::bounds::checked_end(position, count as u64)?;
            if end > self.shape.max_size {
                return Err(Errno::NOSPC);
            }
            // If others have appended, the map shows their records, too.
            let (bytes, len) = self.whole_pages(end.max(on_disk))?;
            // Addresses first, because they can be refused, and the file must not have changed then.
            let successor = self.successor(ranges, bytes)?;
            self.check_mappable(ranges, bytes)?;
            let mut reached = on_disk;
            // SAFETY: the caller's promise.
            let written = unsafe {
                with_bytes(Source::Bytes(data), count, |data, done, count| {
                    file.write_past_end(reached, position + done, data, count)?;
                    reached = reached.max(position + done + count as u64);
                    Ok(())
                })
            };
            written
                .and_then(|()| self.map_more(ranges, successor, bytes))
                .inspect_err(|_| file.take_back(reached, on_disk))?;
            self.publish(ranges, len);
            Ok(position)
        })
    }

    /// How many bytes to map for a file of `size` bytes, and the resulting length of the map.
    fn whole_pages(&self, size: u64) -> Result<(usize, usize)> {
        let len = usize::try_from(size).map_err(|_| Errno::NOMEM)?;
        Ok((self.shape.bytes(len)?, len))
    }

    /// Makes `len` bytes, which are mapped, the length of the map.
    fn publish(&self, ranges: &[AddressRange], len: usize) {
        let last = &ranges[ranges.len() - 1];
        self.hot.extent.grow(last.position_zero(&self.shape), len);
    }

    /// # Safety
    /// `start + count` must be inside the writable map. Bytes must be readable.
    unsafe fn put(&self, source: Source, start: usize, count: usize) -> Result<()> {
        match source {
            // SAFETY: the caller's promise.
            Source::Bytes(data) => unsafe { self.copy_aliased(data, start, count) },
            Source::Fill(byte) => {
                // SAFETY: the caller's promise.
                unsafe { std::ptr::write_bytes(self.pointer(start), byte, count) };
                Ok(())
            }
        }
    }
}

impl Source {
    /// The part after the first `count` bytes.
    fn skip(self, count: usize) -> Source {
        match self {
            // There are at least this many bytes.
            Source::Bytes(data) => Source::Bytes(data.wrapping_add(count)),
            fill => fill,
        }
    }
}

/// Calls `write` with the bytes of `source`: their address, how many came before, and how many there are. Bytes of a map
/// are copied first, because the map may lose them; bytes that it has lost are an error.
///
/// # Safety
/// Bytes must be readable.
unsafe fn with_bytes(
    source: Source,
    count: usize,
    mut write: impl FnMut(*const u8, u64, usize) -> Result<()>,
) -> Result<()> {
    const STEP: usize = 1 << 20;
    match source {
        Source::Bytes(data) if !guard::is_guarded(data as usize) => write(data, 0, count),
        Source::Bytes(data) => {
            let mut bytes = buffer(STEP.min(count))?;
            for done in (0..count).step_by(STEP) {
                let step = STEP.min(count - done);
                // SAFETY: the caller's promise; the buffer has room for `step` bytes.
                unsafe { copy_intact(data.add(done), bytes.as_mut_ptr(), step)? };
                write(bytes.as_ptr(), done as u64, step)?;
            }
            Ok(())
        }
        Source::Fill(byte) => {
            let mut bytes = buffer(STEP.min(count))?;
            bytes.resize(STEP.min(count), byte);
            for done in (0..count).step_by(STEP) {
                write(bytes.as_ptr(), done as u64, STEP.min(count - done))?;
            }
            Ok(())
        }
    }
}

fn buffer(count: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(count).map_err(|_| Errno::NOMEM)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    #[test]
    fn records_are_appended_after_the_last_whole_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records");
        let options = Options {
            path: Some(path.clone()),
            write: true,
            create: true,
            ..Options::default()
        };
        let open = || Region::open(&options).unwrap();
        let append = |region: &Region, bytes: &[u8]| {
            // SAFETY: the slice has that many bytes.
            unsafe { region.append_records(2, 4, bytes.as_ptr(), bytes.len()) }
        };
        let (one, two) = (open(), open());
        assert_eq!(append(&one, b"aaaa"), Ok(2));
        assert_eq!(append(&two, b"bbbbcccc"), Ok(6));
        assert_eq!((one.len(), two.len()), (6, 14));
        // What a crash in the middle of a record leaves.
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap();
        std::io::Write::write_all(&mut file, b"xxx").unwrap();
        assert_eq!(append(&one, b"dddd"), Ok(14));
        assert_eq!(std::fs::read(&path).unwrap(), b"\0\0aaaabbbbccccdddd");
        assert_eq!(one.len(), 18);
        // A file that is longer than what was written stays so.
        std::io::Write::write_all(&mut file, b"eeeef").unwrap();
        assert_eq!(append(&two, b""), Ok(22));
        assert_eq!(two.len(), 23);
    }
}
