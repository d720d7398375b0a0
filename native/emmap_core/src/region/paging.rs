//! How the pages of a map are used: advice, prefetch, mlock, allocation of their blocks.

use super::{clamp, Region};
use crate::os::{self, Advice, MemoryAdvice};
use crate::{guard, Errno, Result};

impl Region {
    /// Tells the kernel how `position .. position + count` will be used; `count` 0: up to the end.
    pub fn advise(&self, position: u64, count: u64, advice: Advice) -> Result<()> {
        self.check_fault()?;
        let offset = self.shape.offset.saturating_add(position);
        let count = if count == 0 { u64::MAX } else { count };
        // Data that was written to private pages is stored nowhere else.
        let keeps_writes = advice == Advice::DontNeed && self.shape.private;
        if let Some((start, count)) = clamp(position, count, self.len()) {
            if !keeps_writes {
                let (at, len) = self.pages(start, count);
                // SAFETY: the pages are inside the mapping (1: Alive). Written data of shared pages stays
                // in the page cache, and private pages are not changed.
                unsafe { os::advise_pages(at, len, advice) }?;
            }
            if let Some(file) = self.file()? {
                os::advise_file(file.fd(), offset, count as u64, advice)?;
            }
        }
        Ok(())
    }

    /// As [`Region::advise`], with advice that only Linux has, about memory and not about the file. Advice that loses bytes
    /// applies only to pages that are entirely inside the range, and needs a map that can be written.
    pub fn advise_memory(&self, position: u64, count: u64, advice: MemoryAdvice) -> Result<()> {
        self.check_fault()?;
        if advice.writes() && !self.writable() {
            return Err(Errno::ACCES);
        }
        let count = if count == 0 { u64::MAX } else { count };
        let Some((start, count)) = clamp(position, count, self.len()) else {
            return Ok(());
        };
        let (mut at, mut len) = self.pages(start, count);
        if advice.loses_bytes() {
            let page = self.shape.page;
            let before = len - count;
            let from = before.next_multiple_of(page);
            let to = len / page * page;
            if from >= to {
                return Ok(());
            }
            // SAFETY: `from` is less than `to`, which is at most `len`.
            at = unsafe { at.add(from) };
            len = to - from;
        }
        // SAFETY: the pages are inside the mapping (1: Alive). Pages whose bytes are lost are inside the range that the
        // caller gave.
        match unsafe { os::advise_memory(at, len, advice) } {
            Err(error) if os::is_lost_page(error) => self.check_size().and(Err(error)),
            answer => answer,
        }
    }

    /// Allocates the blocks of `position .. position + count`. Past the end, the map grows, as a
    /// file does.
    pub fn allocate(&self, position: u64, count: u64) -> Result<()> {
        self.check_fault()?;
        let Some(file) = self.file()? else {
            return Err(Errno::NOTSUP);
        };
        if !self.writable() || self.shape.private {
            return Err(Errno::ACCES);
        }
        if count == 0 {
            return Err(Errno::INVAL);
        }
        let on_disk = self.check_size()?.unwrap_or(0);
        let end = crate::bounds::checked_end(position, count)?;
        let offset = crate::bounds::checked_end(self.shape.offset, position)?;
        crate::bounds::checked_end(offset, count)?;
        let grows = end > self.len() as u64;
        if grows && (!self.shape.grows || end > self.shape.max_size) {
            return Err(Errno::NOSPC);
        }
        // First the part that does not change the size of the file, because growing may fail.
        os::without_sigxfsz(|| os::allocate(file.fd(), offset, count, on_disk))?;
        match grows {
            true => self.grow(end),
            false => Ok(()),
        }
    }

    /// Reads `position .. position + count` into memory and waits for it.
    pub fn prefetch(&self, position: u64, count: u64) -> Result<()> {
        self.check_fault()?;
        if let Some((start, count)) = clamp(position, count, self.len()) {
            let (at, len) = self.pages(start, count);
            // SAFETY: the pages are inside the mapping (1: Alive).
            match unsafe { os::populate(at, len) } {
                // The kernel does not raise a signal from within a system call. An access does, and so tells
                // the guard what was lost.
                Err(error) if os::is_lost_page(error) => {
                    if guard::status() != guard::Status::Ok {
                        // An access would kill the process.
                        return self.check_size().and(Err(error));
                    }
                    self.touch(start, count);
                    self.check_fault()?;
                }
                answer => answer?,
            }
        }
        Ok(())
    }

    /// Removes pages that were read from this process, but not from the page cache. Does nothing for private maps
    /// and anonymous memory, whose contents may be stored nowhere else.
    pub fn release_pages(&self, position: u64, count: u64) {
        if self.shape.private || !self.file.is_file() {
            return;
        }
        if let Some((start, count)) = clamp(position, count, self.len()) {
            let (at, len) = self.pages(start, count);
            // SAFETY: the pages are inside the mapping (1: Alive). Written data of shared pages stays in the page
            // cache.
            unsafe { os::release_pages(at, len) };
        }
    }

    /// Reads one byte of each page.
    fn touch(&self, start: usize, count: usize) {
        let (at, len) = self.pages(start, count);
        for page in (0..len).step_by(os::page_size()) {
            // SAFETY: inside the mapping (1: Alive); the guard handles a lost page.
            unsafe { at.add(page).read_volatile() };
        }
    }

    /// Keeps pages in memory (mlock) until [`Region::unlock_memory`] or the end of the map.
    pub fn lock_memory(&self, position: u64, count: u64) -> Result<()> {
        self.check_fault()?;
        let Some((start, count)) = clamp(position, count, self.len()) else {
            return Ok(());
        };
        let (at, len) = self.pages(start, count);
        // SAFETY: the pages are inside the mapping (1: Alive).
        let answer = os::check(unsafe { libc::mlock(at.cast(), len) });
        // For a lost page, mlock only reports a lack of memory.
        answer.or_else(|error| self.check_size().and(Err(error)))
    }

    pub fn unlock_memory(&self, position: u64, count: u64) -> Result<()> {
        let Some((start, count)) = clamp(position, count, self.len()) else {
            return Ok(());
        };
        let (at, len) = self.pages(start, count);
        // SAFETY: as above.
        os::check(unsafe { libc::munlock(at.cast(), len) })
    }
}
