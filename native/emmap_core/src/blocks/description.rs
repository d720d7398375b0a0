//! The contents of the headers of a file of blocks. They never change.

use super::layout::Geometry;
use crate::store::header::{self, u64_at};
use crate::store::{Body, Error, InForce, Medium, Structure};
use crate::Errno;

/// In bytes.
pub const BLOCK_SIZES: std::ops::RangeInclusive<u64> = 1..=1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description(pub Geometry);

impl Body for Description {
    const MAGIC: [u8; 8] = *b"EMMAPBLK";
    const VERSION: u32 = 1;
    const BYTES: usize = 20;

    fn encode(&self, body: &mut [u8]) {
        header::put(body, 0, self.0.block_size);
        header::put(body, 8, self.0.file);
        body[16..20].copy_from_slice(&(self.0.slots as u32).to_le_bytes());
    }

    fn decode(body: &[u8]) -> Option<Description> {
        let block_size = u64_at(body, 0);
        if !BLOCK_SIZES.contains(&block_size) {
            return None;
        }
        let geometry = Geometry::new(block_size, u64_at(body, 8));
        let slots = u64::from(header::u32_at(body, 16));
        (slots == geometry.slots).then_some(Description(geometry))
    }

    fn file_size(&self) -> Option<u64> {
        Some(self.0.file_size(0))
    }
}

/// The requested properties of a file of blocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// In bytes. `None`: that of the file.
    pub block_size: Option<u64>,
    /// The file must exist and contain blocks.
    pub existing: bool,
}

/// The file has blocks of another size, which is given here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherSize(pub u64);

/// The layout of a file of blocks.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub geometry: Geometry,
    in_force: InForce,
}

type Answer<T> = std::result::Result<T, Error<OtherSize>>;

impl Structure for Layout {
    type Request = Request;
    type Mismatch = OtherSize;
    type Body = Description;
    const GROWS_MAPPED: bool = true;

    fn new(request: &Request) -> Answer<Layout> {
        let block_size = request.block_size.ok_or(Errno::INVAL)?;
        if !BLOCK_SIZES.contains(&block_size) {
            return Err(Errno::INVAL.into());
        }
        Ok(Layout {
            geometry: Geometry::new(block_size, crate::queue::segment::new_salt()),
            in_force: InForce::NONE,
        })
    }

    fn read(medium: &impl Medium) -> std::result::Result<Layout, Error> {
        let (Description(geometry), in_force) = header::read(medium)?;
        Ok(Layout { geometry, in_force })
    }

    fn wanted(&self, request: &Request) -> Answer<Option<Layout>> {
        match request.block_size {
            Some(size) if size != self.geometry.block_size => {
                Err(Error::Mismatch(OtherSize(self.geometry.block_size)))
            }
            _ => Ok(None),
        }
    }

    fn file_size(&self) -> Option<u64> {
        Some(self.geometry.file_size(0))
    }

    fn allocated_from(&self) -> u64 {
        // Also the rest of the header pages, because a hole in a map is lost on a full disk.
        0
    }

    fn body(&self) -> crate::Result<Description> {
        Ok(Description(self.geometry))
    }

    fn in_force(&self) -> InForce {
        self.in_force
    }
}
