//! The contents of the headers of a queue's file: they show after a reboot what was acknowledged, and what must exist.

use std::convert::Infallible;

use super::layout::{self, cursor, stream_of, CURSORS, DATA, DEAD_CURSOR, OWN, STREAMS};
use super::{Locked, Result};
use crate::store::header::{self, u64_at, HEADERS};
use crate::store::{Body, Error, InForce, Medium, Shared, Structure};
use crate::Errno;

/// A segment of 256 KiB.
pub const DEFAULT_SEGMENT: u64 = 256 << 10;
/// From 64 KiB to 1 GiB, in powers of two.
pub const SEGMENT_SIZES: std::ops::RangeInclusive<u64> = 64 << 10..=1 << 30;
/// The longest name of a reader, in bytes.
pub const MOST_NAME: usize = 62;

const SEGMENT_SIZE: usize = 0;
const FILE: usize = 8;
const DURABLE_POSITION: usize = 16;
const DURABLE_SEQUENCE: usize = 32;
const FIRST_CURSOR: usize = 48;
const CURSOR_BYTES: usize = 88;

/// A cursor as stored in the headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CursorSummary {
    /// Every item before this position was acknowledged.
    pub floor: u64,
    /// The sequence number of the item there.
    pub sequence: u64,
    pub most_lag: u64,
    /// `None`: the cursor does not exist.
    pub name: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub segment_size: u64,
    /// A random number of this file.
    pub file: u64,
    /// A sync has covered everything before it.
    pub durable_position: [u64; STREAMS],
    pub durable_sequence: [u64; STREAMS],
    pub cursors: Vec<CursorSummary>,
}

impl Summary {
    /// Of a new file.
    fn new(segment_size: u64, file: u64) -> Summary {
        let mut cursors = vec![CursorSummary::default(); CURSORS];
        for always in [OWN, DEAD_CURSOR] {
            cursors[always].name = Some(Vec::new());
        }
        Summary {
            segment_size,
            file,
            durable_position: [0; STREAMS],
            durable_sequence: [0; STREAMS],
            cursors,
        }
    }

    /// The lowest floor of the cursors of a stream.
    pub fn floor(&self, stream: usize) -> u64 {
        let floors = self
            .cursors
            .iter()
            .enumerate()
            .filter(|(number, cursor)| stream_of(*number) == stream && cursor.name.is_some());
        floors.map(|(_, cursor)| cursor.floor).min().unwrap_or(0)
    }
}

impl Body for Summary {
    const MAGIC: [u8; 8] = *b"EMMAPQUE";
    const VERSION: u32 = 1;
    const BYTES: usize = FIRST_CURSOR + CURSORS * CURSOR_BYTES;

    fn encode(&self, body: &mut [u8]) {
        header::put(body, SEGMENT_SIZE, self.segment_size);
        header::put(body, FILE, self.file);
        for stream in 0..STREAMS {
            header::put(
                body,
                DURABLE_POSITION + stream * 8,
                self.durable_position[stream],
            );
            header::put(
                body,
                DURABLE_SEQUENCE + stream * 8,
                self.durable_sequence[stream],
            );
        }
        for (number, cursor) in self.cursors.iter().enumerate() {
            let body = &mut body[FIRST_CURSOR + number * CURSOR_BYTES..][..CURSOR_BYTES];
            header::put(body, 0, cursor.floor);
            header::put(body, 8, cursor.sequence);
            header::put(body, 16, cursor.most_lag);
            if let Some(name) = &cursor.name {
                body[24] = 1;
                body[25] = name.len() as u8;
                body[26..26 + name.len()].copy_from_slice(name);
            }
        }
    }

    fn decode(body: &[u8]) -> Option<Summary> {
        let segment_size = u64_at(body, SEGMENT_SIZE);
        if !SEGMENT_SIZES.contains(&segment_size) || !segment_size.is_power_of_two() {
            return None;
        }
        let word = |at: usize| u64_at(body, at);
        let mut cursors = Vec::with_capacity(CURSORS);
        for number in 0..CURSORS {
            let body = &body[FIRST_CURSOR + number * CURSOR_BYTES..][..CURSOR_BYTES];
            let length = usize::from(body[25]);
            let name = match (body[24], length <= MOST_NAME) {
                (0, _) => None,
                (1, true) => Some(body[26..26 + length].to_vec()),
                _ => return None,
            };
            cursors.push(CursorSummary {
                floor: u64_at(body, 0),
                sequence: u64_at(body, 8),
                most_lag: u64_at(body, 16),
                name,
            });
        }
        let always = [OWN, DEAD_CURSOR].map(|number| cursors[number].name.is_some());
        (always == [true; 2]).then_some(Summary {
            segment_size,
            file: word(FILE),
            durable_position: [word(DURABLE_POSITION), word(DURABLE_POSITION + 8)],
            durable_sequence: [word(DURABLE_SEQUENCE), word(DURABLE_SEQUENCE + 8)],
            cursors,
        })
    }

    fn file_size(&self) -> Option<u64> {
        DATA.checked_add(self.segment_size)
    }
}

/// The requested properties of a queue's file.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// For a new file, in bytes; an existing file keeps its own.
    pub segment_size: Option<u64>,
    /// The file must exist and contain a queue.
    pub existing: bool,
}

/// The layout of a queue's file.
#[derive(Clone, Debug)]
pub struct Layout {
    pub summary: Summary,
    in_force: InForce,
}

impl Structure for Layout {
    type Request = Request;
    type Mismatch = Infallible;
    type Body = Summary;
    const GROWS_MAPPED: bool = true;

    fn new(request: &Request) -> std::result::Result<Layout, Error> {
        let segment_size = request.segment_size.unwrap_or(DEFAULT_SEGMENT);
        if !SEGMENT_SIZES.contains(&segment_size) || !segment_size.is_power_of_two() {
            return Err(Errno::INVAL.into());
        }
        Ok(Layout {
            summary: Summary::new(segment_size, super::segment::new_salt()),
            in_force: InForce::NONE,
        })
    }

    fn read(medium: &impl Medium) -> std::result::Result<Layout, Error> {
        let (summary, in_force) = header::read(medium)?;
        Ok(Layout { summary, in_force })
    }

    fn wanted(&self, _request: &Request) -> std::result::Result<Option<Layout>, Error> {
        Ok(None)
    }

    fn file_size(&self) -> Option<u64> {
        self.summary.file_size()
    }

    fn allocated_from(&self) -> u64 {
        // Also the rest of the header pages: a header is written through the map, and if a block smaller than a
        // page were a hole there, it would be lost on a full disk.
        0
    }

    fn body(&self) -> crate::Result<Summary> {
        Ok(self.summary.clone())
    }

    fn in_force(&self) -> InForce {
        self.in_force
    }
}

impl<S: Shared> Locked<'_, S> {
    /// The current contents of a header.
    pub fn summary(&self) -> Result<Summary> {
        let mut summary = Summary::new(self.segment_size, self.load(layout::FILE)?);
        for stream in 0..STREAMS {
            let word = 8 * stream as u64;
            summary.durable_position[stream] = self.load(layout::DURABLE_POSITION + word)?;
            summary.durable_sequence[stream] = self.load(layout::DURABLE_SEQUENCE + word)?;
        }
        for number in 0..CURSORS {
            let name = self.name(number)?;
            let cursor = &mut summary.cursors[number];
            cursor.name = name;
            if cursor.name.is_some() {
                (cursor.floor, cursor.sequence) = self.floor_and_sequence(number)?;
                cursor.most_lag = self.load(cursor::at(number) + cursor::MOST_LAG)?;
            }
        }
        Ok(summary)
    }

    /// Writes the next header. Its floors are valid from now on. It is on the disk after the next sync.
    pub fn write_header(&self) -> Result<()> {
        let sequence = self.load(layout::HEADER)?.wrapping_add(1);
        let header = header::encode(&self.summary()?, sequence);
        let synced = self.load(layout::SYNCED_HEADER)?;
        // Never over the header that would be left after a power failure.
        let place = HEADERS[usize::from(synced == 0)];
        self.shared.write(place, &header)?;
        Ok(self.shared.store(layout::HEADER, sequence)?)
    }
}
