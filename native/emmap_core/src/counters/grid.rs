//! Where counters are in a map, and the operations on one of them.

use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use super::format::{self, Layout};
use crate::{Errno, Region, Result};

/// Sixteen counters per line, each line once per stripe.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    data_offset: u64,
    count: u64,
    stripes: u32,
}

/// Why an operation on a counter was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No counter has this index.
    Index,
    /// With write concurrency, a counter has several values, so none can be exchanged.
    Striped,
    Posix(Errno),
}

impl From<Errno> for Refused {
    fn from(error: Errno) -> Refused {
        Refused::Posix(error)
    }
}

impl From<&Layout> for Grid {
    fn from(layout: &Layout) -> Grid {
        Grid {
            data_offset: layout.data_offset,
            count: layout.count,
            stripes: layout.stripes,
        }
    }
}

impl Grid {
    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn stripes(&self) -> u32 {
        self.stripes
    }

    /// Whether all counters of `before` are at the same positions here.
    pub fn extends(&self, before: &Grid) -> bool {
        let place = |grid: &Grid| (grid.data_offset, grid.stripes);
        place(self) == place(before) && self.count >= before.count
    }

    #[inline]
    fn position(&self, index: u64) -> std::result::Result<u64, Refused> {
        if index >= self.count {
            return Err(Refused::Index);
        }
        Ok(format::position(self.data_offset, self.stripes, index))
    }

    /// Adds, wrapping, to the only word or to the word of this thread.
    #[inline]
    pub fn add(&self, region: &Region, index: u64, value: i64) -> std::result::Result<(), Refused> {
        let position = self.position(index)?;
        if self.stripes == 1 {
            region.word_mut(position)?.fetch_add(value, SeqCst);
        } else {
            region.add_striped(position, self.stripes as usize, value)?;
        }
        Ok(())
    }

    /// The only word of a counter, for operations that need its previous value.
    #[inline]
    pub fn exact<'a>(
        &self,
        region: &'a Region,
        index: u64,
    ) -> std::result::Result<&'a AtomicI64, Refused> {
        let position = self.position(index)?;
        if self.stripes != 1 {
            return Err(Refused::Striped);
        }
        Ok(region.word_mut(position)?)
    }

    #[inline]
    pub fn get(&self, region: &Region, index: u64) -> std::result::Result<i64, Refused> {
        let position = self.position(index)?;
        if self.stripes == 1 {
            return Ok(region.word(position)?.load(SeqCst));
        }
        Ok(region.sum_striped(position, self.stripes as usize)?)
    }

    /// Sets the first stripe and clears the others, one after the other.
    pub fn put(&self, region: &Region, index: u64, value: i64) -> std::result::Result<(), Refused> {
        let position = self.position(index)?;
        Ok(region.put_striped(position, self.stripes as usize, value)?)
    }

    /// All values in order. ENOMEM if there is not enough memory.
    pub fn values(&self, region: &Region) -> Result<Vec<i64>> {
        self.range(region, 0, self.count)
    }

    /// The values of up to `count` counters from `from` on.
    pub fn range(&self, region: &Region, from: u64, count: u64) -> Result<Vec<i64>> {
        let end = from.saturating_add(count).min(self.count);
        let wanted = usize::try_from(end.saturating_sub(from)).map_err(|_| Errno::NOMEM)?;
        let mut values = Vec::new();
        // The number comes from the file, so it may be too large.
        values.try_reserve_exact(wanted).map_err(|_| Errno::NOMEM)?;
        for index in from..end {
            let position = format::position(self.data_offset, self.stripes, index);
            values.push(region.sum_striped(position, self.stripes as usize)?);
        }
        Ok(values)
    }
}
