//! What a counter file is written to: a real file, or in tests one that crashes.

use crate::Result;

#[allow(clippy::len_without_is_empty)] // a size, not a collection
pub trait Medium {
    fn len(&self) -> Result<u64>;

    /// Fills `out`, which lies inside the file.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()>;

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<()>;

    /// Makes the file at least `to` bytes long, with zeros, and allocates its blocks from
    /// `allocated` on.
    fn extend(&mut self, to: u64, allocated: u64) -> Result<()>;

    /// What was written before is on the disk when this returns.
    fn sync(&mut self) -> Result<()>;

    /// Gives a new file its name, durably. EEXIST: somebody was first.
    fn publish(&mut self) -> Result<()>;
}
