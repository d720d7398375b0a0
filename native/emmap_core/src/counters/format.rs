//! The format of a counter file. Every number is checked before it is used in arithmetic.

use std::path::Path;

use super::names::{self, encoded, Claim};
use super::{Error, OtherNames, Request};
use crate::atomics::WORD;
use crate::store::header::{self, put, u32_at, u64_at};
use crate::store::medium::read_up_to;
use crate::store::{self, BadFormat, Body, Commit, InForce, Medium, Structure};
use crate::striped::CACHE_LINE;
use crate::Errno;

pub const MAGIC: [u8; 8] = *b"EMMAPCNT";
pub const NAMES_OFFSET: u64 = header::END;
/// Room for names in a new file; a hole in the file until it is used.
const NAMES_CAPACITY: u64 = 1 << 20;

// In the body of a header.
const COUNT: usize = 0;
const STRIPES: usize = 8;
const DATA_OFFSET: usize = 16;
const NAMES_AT: usize = 24;
const NAMES_ROOM: usize = 32;
const NAMES_LENGTH: usize = 40;
const NAMES_CRC: usize = 48;

/// The predecessor's file: these bytes, the count (u64, little-endian), the values.
pub const PREDECESSOR: [u8; 8] = *b"EMMAP01\n";
const PREDECESSOR_COUNT: u64 = 8;
const PREDECESSOR_DATA: u64 = 16;

pub(super) const MAX_STRIPES: u32 = 1024;
const MAX_NAME_BYTES: u64 = 1024;
const COUNTERS_PER_LINE: u64 = (CACHE_LINE / WORD) as u64;

/// Where the counters of a file are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub kind: Kind,
    pub count: u64,
    /// Cache lines for each counter; 1: without write concurrency.
    pub stripes: u32,
    pub data_offset: u64,
    /// Empty for numbered counters.
    pub names: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Predecessor,
    Current(InForce),
}

/// The contents of a header.
pub struct Head {
    count: u64,
    stripes: u32,
    data_offset: u64,
    names_length: u64,
    names_crc: u32,
}

/// Whether the file at `path` begins as a file of counters does whose names are given when it is opened.
pub fn is_fixed(path: &Path) -> bool {
    let start = store::open::start_of(path);
    start.is_some_and(|start| start == MAGIC || start == PREDECESSOR)
}

/// The position of counter `index` in its first stripe. A line has sixteen counters, and is
/// repeated once per stripe, so that adding counters moves none.
pub fn position(data_offset: u64, stripes: u32, index: u64) -> u64 {
    let (line, place) = (index / COUNTERS_PER_LINE, index % COUNTERS_PER_LINE);
    data_offset + line * CACHE_LINE as u64 * u64::from(stripes) + place * WORD as u64
}

/// The minimum size of a file with these counters.
fn file_size(data_offset: u64, stripes: u32, count: u64) -> Option<u64> {
    let data = count
        .div_ceil(COUNTERS_PER_LINE)
        .checked_mul(CACHE_LINE as u64)?
        .checked_mul(u64::from(stripes))?;
    a_file_size(data_offset.checked_add(data)?)
}

/// Sizes of files are signed.
fn a_file_size(size: u64) -> Option<u64> {
    (size <= i64::MAX as u64).then_some(size)
}

impl Body for Head {
    const MAGIC: [u8; 8] = MAGIC;
    const VERSION: u32 = 1;
    const BYTES: usize = NAMES_CRC + 4;

    fn encode(&self, body: &mut [u8]) {
        put(body, COUNT, self.count);
        body[STRIPES..STRIPES + 4].copy_from_slice(&self.stripes.to_le_bytes());
        put(body, DATA_OFFSET, self.data_offset);
        put(body, NAMES_AT, NAMES_OFFSET);
        put(body, NAMES_ROOM, self.data_offset - NAMES_OFFSET);
        put(body, NAMES_LENGTH, self.names_length);
        body[NAMES_CRC..].copy_from_slice(&self.names_crc.to_le_bytes());
    }

    fn decode(body: &[u8]) -> Option<Head> {
        let (room, length) = (u64_at(body, NAMES_ROOM), u64_at(body, NAMES_LENGTH));
        let head = Head {
            count: u64_at(body, COUNT),
            stripes: u32_at(body, STRIPES),
            data_offset: u64_at(body, DATA_OFFSET),
            names_length: length,
            names_crc: u32_at(body, NAMES_CRC),
        };
        let sound = (1..=MAX_STRIPES).contains(&head.stripes)
            && u64_at(body, NAMES_AT) == NAMES_OFFSET
            && NAMES_OFFSET.checked_add(room) == Some(head.data_offset)
            && head.data_offset.is_multiple_of(CACHE_LINE as u64)
            && length <= room
            && length <= names::MAX_BYTES
            && length <= head.count.saturating_mul(MAX_NAME_BYTES + 2);
        sound.then_some(head)
    }

    fn file_size(&self) -> Option<u64> {
        file_size(self.data_offset, self.stripes, self.count)
    }
}

impl Structure for Layout {
    type Request = Request;
    type Mismatch = OtherNames;
    type Body = Head;

    fn new(request: &Request) -> Result<Layout, Error> {
        let count = request.counters();
        Ok(Layout::with_names(count, request.stripes, &request.names)?)
    }

    fn read(medium: &impl Medium) -> Result<Layout, store::Error> {
        let mut start = [0u8; PREDECESSOR_DATA as usize];
        let got = read_up_to(medium, 0, &mut start)?;
        if start[..got].starts_with(&PREDECESSOR) {
            return Ok(Layout::read_predecessor(&start[..got], medium.len()?)?);
        }
        let (head, in_force) = header::read::<Head>(medium)?;
        let claim = Claim {
            offset: NAMES_OFFSET,
            length: head.names_length,
            crc: head.names_crc,
            count: head.count,
        };
        Ok(Layout {
            kind: Kind::Current(in_force),
            count: head.count,
            stripes: head.stripes,
            data_offset: head.data_offset,
            names: names::read(medium, claim)?,
        })
    }

    fn wanted(&self, request: &Request) -> Result<Option<Layout>, Error> {
        let common = self.names.len().min(request.names.len());
        let same_names = self.names[..common] == request.names[..common];
        let numbered = request.names.is_empty();
        if !same_names || (!numbered && self.names.is_empty()) {
            return Err(self.mismatch());
        }
        let count = request.counters();
        if count <= self.count {
            return Ok(None);
        }
        if numbered && !self.names.is_empty() {
            // If more counters are requested than there are names, the caller may mean another file.
            return Err(self.mismatch());
        }
        Ok(Some(self.grown(count, &request.names)?))
    }

    fn file_size(&self) -> Option<u64> {
        match self.kind {
            Kind::Predecessor => {
                let data = self.count.checked_mul(WORD as u64)?;
                a_file_size(self.data_offset.checked_add(data)?)
            }
            Kind::Current(_) => file_size(self.data_offset, self.stripes, self.count),
        }
    }

    fn allocated_from(&self) -> u64 {
        self.data_offset
    }

    fn fill(&self, medium: &mut impl Medium) -> Result<(), Errno> {
        medium.write_at(NAMES_OFFSET, &encoded(&self.names)?)
    }

    fn prepare(&self, before: &Layout, medium: &mut impl Medium) -> Result<(), Errno> {
        let kept = encoded(&before.names)?.len();
        // After the names in use.
        medium.write_at(NAMES_OFFSET + kept as u64, &encoded(&self.names)?[kept..])?;
        before.clear_rest_of_line(medium)
    }

    fn body(&self) -> Result<Head, Errno> {
        let table = encoded(&self.names)?;
        Ok(Head {
            count: self.count,
            stripes: self.stripes,
            data_offset: self.data_offset,
            names_length: table.len() as u64,
            names_crc: crc32fast::hash(&table),
        })
    }

    fn in_force(&self) -> InForce {
        match self.kind {
            Kind::Predecessor => InForce::NONE,
            Kind::Current(in_force) => in_force,
        }
    }

    fn commits(&self) -> Result<Vec<Commit>, Errno> {
        match self.kind {
            Kind::Predecessor => Ok(vec![(PREDECESSOR_COUNT, self.count.to_le_bytes().to_vec())]),
            Kind::Current(in_force) => header::commits(&self.body()?, in_force),
        }
    }

    fn clear_leftover(&self, medium: &mut impl Medium) -> Result<(), Errno> {
        match self.kind {
            Kind::Predecessor => Ok(()),
            Kind::Current(in_force) => header::clear_leftover::<Head>(medium, in_force),
        }
    }
}

impl Request {
    /// The minimum number of counters.
    fn counters(&self) -> u64 {
        match self.names.is_empty() {
            true => self.count,
            false => self.names.len() as u64,
        }
    }
}

impl Layout {
    /// The layout of a new file; ENOSPC if there are more names than a file can have.
    fn with_names(count: u64, stripes: u32, names: &[String]) -> Result<Layout, Errno> {
        let used = encoded(names)?.len() as u64;
        let room = match names.is_empty() {
            true => 0,
            // Twice as much as needed, but not more than can be used.
            false => NAMES_CAPACITY
                .max((used * 2).next_multiple_of(4096))
                .min(names::MAX_BYTES),
        };
        Ok(Layout::with_room(count, stripes, names, room))
    }

    /// A new layout with room for this many bytes of names, a multiple of 4096.
    pub fn with_room(count: u64, stripes: u32, names: &[String], names_room: u64) -> Layout {
        debug_assert!(names_room.is_multiple_of(4096));
        Layout {
            kind: Kind::Current(InForce::NONE),
            count,
            stripes: stripes.clamp(1, MAX_STRIPES),
            data_offset: NAMES_OFFSET + names_room,
            names: names.to_vec(),
        }
    }

    fn read_predecessor(start: &[u8], len: u64) -> Result<Layout, BadFormat> {
        let count = start.get(8..16).ok_or(BadFormat::Length)?;
        let layout = Layout {
            kind: Kind::Predecessor,
            count: u64_at(count, 0),
            stripes: 1,
            data_offset: PREDECESSOR_DATA,
            names: Vec::new(),
        };
        match layout.file_size() {
            Some(size) if size <= len => Ok(layout),
            _ => Err(BadFormat::Length),
        }
    }

    fn names_room(&self) -> u64 {
        self.data_offset.saturating_sub(NAMES_OFFSET)
    }

    fn mismatch(&self) -> Error {
        Error::Mismatch(OtherNames(self.names.clone()))
    }

    /// Whether the first counters have these names; without names, whether no counter has one.
    pub fn continues(&self, names: &[String]) -> bool {
        self.names.starts_with(names) && (!names.is_empty() || self.names.is_empty())
    }

    /// Clears the words of the last line that no counter uses yet, as far as the new counters need them.
    fn clear_rest_of_line(&self, medium: &mut impl Medium) -> Result<(), Errno> {
        const ZEROS: [u8; CACHE_LINE] = [0; CACHE_LINE];
        let taken = self.count % COUNTERS_PER_LINE * WORD as u64;
        if taken == 0 || self.kind == Kind::Predecessor {
            return Ok(());
        }
        let first = position(self.data_offset, self.stripes, self.count);
        for stripe in 0..u64::from(self.stripes) {
            let at = first + stripe * CACHE_LINE as u64;
            let mut rest = ZEROS;
            let rest = &mut rest[taken as usize..];
            medium.read_at(at, rest)?;
            if *rest != ZEROS[taken as usize..] {
                medium.write_at(at, &ZEROS[taken as usize..])?;
            }
        }
        Ok(())
    }

    /// This layout with more counters; ENOSPC if the names do not fit.
    pub fn grown(&self, count: u64, names: &[String]) -> Result<Layout, Errno> {
        let current = self.kind != Kind::Predecessor;
        if current && encoded(names)?.len() as u64 > self.names_room() {
            return Err(Errno::NOSPC);
        }
        let grown = Layout {
            count,
            names: names.to_vec(),
            ..self.clone()
        };
        grown.file_size().ok_or(Errno(libc::EFBIG))?;
        Ok(grown)
    }
}
