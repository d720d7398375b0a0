//! The layout of a file of dynamic counters, and the contents of its headers, which never change.

use crate::counters::format::MAX_STRIPES;
use crate::store::header::{self, u32_at, u64_at};
use crate::store::{boot, log, participants, Body, Error, InForce, Medium, Structure};
use crate::striped::CACHE_LINE;

use super::participation::Request;

/// What each entry consists of.
pub const LINE: u64 = CACHE_LINE as u64;

/// The end of the headers.
const CONTROL: u64 = header::END;

pub const LOCK: u64 = CONTROL;

pub static LOG: log::Place = log::Place {
    length: CONTROL + 128,
    entries: CONTROL + 136,
    capacity: 4,
};

/// Where the next entry will be.
pub const LAST: u64 = CONTROL + 256;
/// How many counters there are.
pub const COUNT: u64 = CONTROL + 264;
/// See [`super::directory::Directory`].
pub const DIRECTORY: u64 = CONTROL + 272;

pub const BOOT: boot::Place = boot::Place(CONTROL + 384);
pub const RECOVERIES: u64 = CONTROL + 408;
/// Entries that the last recovery dropped.
pub const DROPPED: u64 = CONTROL + 416;

pub static PARTICIPANTS: participants::Place = participants::Place {
    slots: 12_288,
    bytes_of_each: 64,
};

/// The first entry.
pub const ENTRIES: u64 = 16_384;

/// No entry is beyond this: a slot of a directory has 40 bits for the number of a line.
pub const MOST_BYTES: u64 = LINE << 40;

const _: () = {
    assert!(LOG.entries + LOG.capacity * 16 <= LAST);
    assert!(PARTICIPANTS.slots + 64 * 64 <= ENTRIES);
    assert!(ENTRIES.is_multiple_of(LINE));
};

/// What does not change in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Lines with a value for each counter; 1: without write concurrency.
    pub stripes: u32,
    /// The random number of the file: the seed of its hashes, and the start of its checksums.
    pub salt: u64,
}

impl Body for Geometry {
    const MAGIC: [u8; 8] = *b"EMMAPDYN";
    const VERSION: u32 = 1;
    const BYTES: usize = 16;

    fn encode(&self, body: &mut [u8]) {
        body[..4].copy_from_slice(&self.stripes.to_le_bytes());
        header::put(body, 8, self.salt);
    }

    fn decode(body: &[u8]) -> Option<Geometry> {
        let stripes = u32_at(body, 0);
        let salt = u64_at(body, 8);
        (1..=MAX_STRIPES)
            .contains(&stripes)
            .then_some(Geometry { stripes, salt })
    }

    fn file_size(&self) -> Option<u64> {
        Some(ENTRIES)
    }
}

/// The layout of a file.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub geometry: Geometry,
    in_force: InForce,
}

impl Structure for Layout {
    type Request = Request;
    type Mismatch = std::convert::Infallible;
    type Body = Geometry;
    const GROWS_MAPPED: bool = true;

    fn new(request: &Request) -> Result<Layout, Error> {
        Ok(Layout {
            geometry: Geometry {
                stripes: request.stripes.clamp(1, MAX_STRIPES),
                salt: crate::queue::segment::new_salt(),
            },
            in_force: InForce::NONE,
        })
    }

    fn read(medium: &impl Medium) -> Result<Layout, Error> {
        let (geometry, in_force) = header::read(medium)?;
        Ok(Layout { geometry, in_force })
    }

    fn wanted(&self, _request: &Request) -> Result<Option<Layout>, Error> {
        Ok(None)
    }

    fn file_size(&self) -> Option<u64> {
        // With room for a directory and some counters.
        Some(64 << 10)
    }

    fn allocated_from(&self) -> u64 {
        // Also the rest of the header pages, because a hole in a map is lost on a full disk.
        0
    }

    fn body(&self) -> crate::Result<Geometry> {
        Ok(self.geometry)
    }

    fn in_force(&self) -> InForce {
        self.in_force
    }
}
