//! Recovery after a fault.

use super::address_range::Zeros;
use super::resize::Copies;
use super::{AddressRange, Region};
use crate::patience::Deadline;
use crate::{Errno, Result};

impl Region {
    /// Checks the file again. A map of a whole file takes the current size of the file (a writable private
    /// map does not grow), and lost pages are mapped again at the same addresses. Also
    /// clears the error of a failed sync.
    ///
    /// Data that was written to lost pages is gone. ESTALE: the file is too short for a map of
    /// fixed size, or was truncated again. Blocks on the disk.
    pub fn reattach(&self) -> Result<()> {
        if self.hot.fault.has_thrown_away() {
            // Written data is gone: the map must be opened again.
            return Err(Errno::NOMEM);
        }
        let deadline = Deadline::of_call(Errno::WAIT_SIZE);
        let _turn = self.size_turn.enter(&deadline)?;
        // Before the lock of the file is taken, because this would release it.
        self.show_copy(&self.ranges())?;
        self.locked(&deadline, Copies::HeldOff, |ranges| {
            self.follow(ranges)?;
            self.restore(ranges)
        })?;
        self.failed_sync.forget();
        Ok(())
    }

    /// Maps the file of an overlay that was copied when it was first written. A private map with written
    /// pages, which are stored nowhere else, is not changed.
    fn show_copy(&self, ranges: &[AddressRange]) -> Result<()> {
        if self.shape.private && self.shape.writable {
            return Ok(());
        }
        let Some(file) = self.file()? else {
            return Ok(());
        };
        let Some(times) = file.copy_up().renew(file.fd())? else {
            return Ok(());
        };
        let exclusive = self.hold_off_copies()?;
        ranges
            .iter()
            .try_for_each(|range| range.show_again(&self.shape, &file))?;
        drop(exclusive);
        file.copy_up().is_shown(times);
        Ok(())
    }

    /// Changes the size of the map to that of its file.
    fn follow(&self, ranges: &mut Vec<AddressRange>) -> Result<()> {
        let (Some(file), true) = (self.file()?, self.shape.follows) else {
            return Ok(());
        };
        let on_disk = file.size()?.min(self.limit(ranges));
        let to = usize::try_from(on_disk).map_err(|_| Errno::NOMEM)?;
        if to > self.len() {
            if self.shape.private && self.shape.writable {
                // A larger range of addresses would show the file in place of the written pages,
                // which are stored nowhere else.
                return Ok(());
            }
            // The file is already long enough.
            return self.extend(ranges, None, on_disk);
        }
        let bytes = self.shape.bytes(to)?;
        self.hot.extent.set_len(to);
        // The file no longer has the tail, so nothing is lost if this fails, and writes to the tail are refused.
        ranges
            .iter_mut()
            .try_for_each(|range| range.shrink(&self.shape, bytes, Zeros::AnyKind))
    }

    fn restore(&self, ranges: &[AddressRange]) -> Result<()> {
        let Some(repair) = self.hot.fault.repair() else {
            return self.check_size_under(ranges).map(drop);
        };
        if !self.covered()? {
            return Err(Errno::STALE);
        }
        let file = self.file()?;
        for range in ranges {
            range.restore(&self.shape, file.as_deref(), repair.lost())?;
        }
        match repair.finish() {
            true => self.check_size_under(ranges).map(drop),
            false => self.check_fault().and(Err(Errno::STALE)),
        }
    }

    /// Whether the file covers the whole map.
    fn covered(&self) -> Result<bool> {
        let Some(file) = self.file()? else {
            return Ok(true);
        };
        let end = self.shape.offset.saturating_add(self.len() as u64);
        Ok(self.is_empty() || file.size()? >= end)
    }
}
