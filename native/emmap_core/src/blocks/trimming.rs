//! The free end of the file: its room goes back to the disk. The file keeps its length, for other programs have maps of it.

use super::layout;
use super::{Locked, Result};
use crate::store::Shared;

impl<S: Shared> Locked<'_, S> {
    /// From now on the capacity ends with the last block that is taken. Where the unused room begins in the
    /// file, if there is any; it must become zeros before the lock is released.
    pub fn trim(&self) -> Result<Option<u64>> {
        let capacity = self.load(layout::CAPACITY)?;
        let needed = self.last_taken(capacity, true)?.map_or(0, |last| last + 1);
        if needed == capacity {
            return Ok(None);
        }
        self.shared.store(layout::CAPACITY, needed)?;
        Ok(Some(self.geometry.file_size(needed)))
    }
}
