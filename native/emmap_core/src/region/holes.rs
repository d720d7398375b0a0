//! Where the file of a region has data, and where it has holes.

use super::Region;
use crate::{os, Result};

/// The kernel counts this many pages one by one in a fifth of a second. A small file may have a hole of many
/// more.
const COUNTED: usize = 1 << 22;

/// A range from its first position to the position after its last.
type Stretch = (u64, u64);

impl Region {
    /// The first range at or after `position` in which the map has data; `None` if only holes of its
    /// file follow, which read as zeros. A private map consists only of data, because its own pages may be in the
    /// holes, and so does anonymous memory. ESTALE if the file was truncated.
    pub fn next_data(&self, position: u64) -> Result<Option<Stretch>> {
        let (len, offset) = (self.len() as u64, self.shape.offset);
        if position >= len {
            return Ok(None);
        }
        let found = self.data_in_file(offset + position, offset + len)?;
        // A file that was truncated has no data, either.
        if !self.shape.private {
            self.check_size()?;
        }
        Ok(found.map(|(from, to)| (from - offset, to - offset)))
    }

    /// The first range of data within `from .. end` of the file.
    fn data_in_file(&self, from: u64, end: u64) -> Result<Option<Stretch>> {
        let file = match self.file()? {
            Some(file) if !self.shape.private => file,
            _ => return Ok((from < end).then_some((from, end))),
        };
        match os::next_data(file.fd(), from)? {
            Some(start) if start < end => {
                // It may have become a hole in the meantime.
                let hole = os::next_hole(file.fd(), start)?.unwrap_or(end);
                Ok(Some((start, hole.clamp(start + 1, end))))
            }
            _ => Ok(None),
        }
    }

    /// How many of the pages from byte `from` to `from + len` are in memory, where `at` is the start of a
    /// range. In a map of more than [`COUNTED`] pages, pages in holes count as not in memory.
    ///
    /// # Safety
    /// The range must be mapped from `at` to `at + from + len`, and `from` be a multiple of the page size.
    pub(super) unsafe fn resident(&self, at: *mut u8, from: usize, len: usize) -> Result<usize> {
        // SAFETY: the caller promises it.
        let ordinary = unsafe { self.ordinary_resident(at, from, len) }?;
        // A huge page is in memory together with all of the ordinary pages of the same size.
        Ok(ordinary / (self.shape.page / os::page_size()))
    }

    /// As above, in pages of [`os::page_size`] bytes, as the kernel counts.
    ///
    /// # Safety
    /// As above.
    unsafe fn ordinary_resident(&self, at: *mut u8, from: usize, len: usize) -> Result<usize> {
        let page = os::page_size();
        if self.len() / page <= COUNTED {
            // SAFETY: the caller promises it.
            return unsafe { os::resident_pages(at.add(from), len) };
        }
        let first = self.shape.offset - self.shape.delta as u64;
        let (mut resident, mut done, end) = (0, from, from + len);
        while let Some((start, stop)) =
            self.data_in_file(first + done as u64, first + end as u64)?
        {
            // Both are at most `end` from `first`, and `done` is the start of a page.
            let start = (start - first) as usize / page * page;
            let stop = ((stop - first) as usize).next_multiple_of(page).min(end);
            // SAFETY: `start .. stop` lies within `from .. from + len`, which the caller promises is
            // mapped, and starts with a page.
            resident += unsafe { os::resident_pages(at.add(start), stop - start) }?;
            done = stop;
        }
        Ok(resident)
    }
}
