//! Segments: their headers, and which of them are in use.

use std::hash::{BuildHasher, Hasher};

use super::layout::{BITMAP, DATA, FILE, MOST_SEGMENTS, SEGMENTS};
use super::{Locked, Stop};
use crate::store::Shared;
use crate::{Errno, Result};

/// Where the records of a segment begin.
pub const RECORDS: u64 = 64;
const MAGIC: [u8; 4] = *b"EMQS";
const CHECKED: std::ops::Range<usize> = 8..48;
/// The word with the next segment + 1.
const NEXT: u64 = 48;
/// The word with the position at which the records end, or 0.
const END: u64 = 56;

/// The contents of the header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub number: u64,
    /// The file offset of its first byte.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// The position of its first byte.
    pub start: u64,
    pub first_sequence: u64,
    pub salt: u64,
    /// The lowest floor when it was taken into use.
    pub floor: u64,
    pub span: u64,
    pub stream: usize,
}

impl Segment {
    /// The position after its last byte.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes)
    }

    pub fn contains(&self, position: u64) -> bool {
        (self.start..self.end()).contains(&position)
    }

    /// File offset - position.
    pub fn delta(&self) -> u64 {
        self.offset.wrapping_sub(self.start)
    }

    pub fn offset_of(&self, position: u64) -> Option<u64> {
        (self.start..=self.end())
            .contains(&position)
            .then(|| self.delta().wrapping_add(position))
    }

    /// The file offset of a position that is clamped to the segment.
    pub fn offset_of_end(&self, position: u64) -> u64 {
        let position = position.clamp(self.start, self.end());
        self.delta().wrapping_add(position)
    }
}

/// The file offset of a segment. For an invalid number, it is past the end of any file.
#[inline(always)]
pub fn offset_of(number: u64, segment_size: u64) -> u64 {
    DATA + number.min(MOST_SEGMENTS) * segment_size
}

/// The header at a segment, if it is intact. `segments`: how many the file has.
pub fn read<S: Shared>(
    shared: &S,
    number: u64,
    segments: u64,
    segment_size: u64,
) -> Result<Option<Segment>> {
    let file = shared.load(FILE)?;
    if number >= segments {
        return Ok(None);
    }
    let offset = offset_of(number, segment_size);
    let mut header = [0u8; 48];
    shared.read(offset, &mut header)?;
    let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four"));
    let u64_at = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight"));
    let sound = header[..4] == MAGIC && u32_at(4) == checksum(file, number, &header[CHECKED]);
    let segment = Segment {
        number,
        offset,
        bytes: u64::from(u32_at(40)).saturating_mul(segment_size),
        start: u64_at(8),
        first_sequence: u64_at(16),
        salt: u64_at(24),
        floor: u64_at(32),
        span: u64::from(u32_at(40)),
        stream: u32_at(44) as usize,
    };
    let possible = segment.span >= 1
        && segment.span <= segments - number
        && segment.stream < super::layout::STREAMS
        && segment.start.checked_add(segment.bytes).is_some();
    Ok((sound && possible).then_some(segment))
}

/// Writes the header of a segment that is not in use yet, with a new salt.
pub fn write<S: Shared>(shared: &S, segment: &Segment) -> Result<()> {
    let mut header = [0u8; 48];
    header[..4].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&segment.start.to_le_bytes());
    header[16..24].copy_from_slice(&segment.first_sequence.to_le_bytes());
    header[24..32].copy_from_slice(&segment.salt.to_le_bytes());
    header[32..40].copy_from_slice(&segment.floor.to_le_bytes());
    header[40..44].copy_from_slice(&(segment.span as u32).to_le_bytes());
    header[44..48].copy_from_slice(&(segment.stream as u32).to_le_bytes());
    let crc = checksum(shared.load(FILE)?, segment.number, &header[CHECKED]);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    shared.store(segment.offset + NEXT, 0)?;
    shared.store(segment.offset + END, 0)?;
    shared.write(segment.offset, &header)
}

/// Includes the file and the number, because a payload may be a copy of a queue's file, and begin where a segment does.
fn checksum(file: u64, number: u64, header: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&file.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &number.to_le_bytes());
    crc32c::crc32c_append(crc, header)
}

/// Ensures that a segment is not mistaken for one in use after a reboot.
pub fn erase<S: Shared>(shared: &S, number: u64, segment_size: u64) -> Result<()> {
    shared.write(offset_of(number, segment_size), &[0; RECORDS as usize])
}

/// A number that was never used before for the segment.
pub fn new_salt() -> u64 {
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}

impl<S: Shared> Locked<'_, S> {
    pub(super) fn segments(&self) -> Result<u64> {
        Ok(self.shared.load(SEGMENTS)?.min(MOST_SEGMENTS))
    }

    /// The header of a segment to which a word refers; IO if it is not valid.
    pub(super) fn segment(&self, number: u64) -> Result<Segment> {
        let segments = self.segments()?;
        read(self.shared, number, segments, self.segment_size)?.ok_or(Errno::IO)
    }

    /// The segment after this one in its stream; `None` at the last.
    pub(super) fn next_segment(&self, segment: &Segment) -> Result<Option<Segment>> {
        match self.shared.load(segment.offset + NEXT)? {
            0 => Ok(None),
            next => self.segment(next - 1).map(Some),
        }
    }

    /// The offset of the word with the next segment + 1.
    pub(super) fn next_word(&self, number: u64) -> u64 {
        offset_of(number, self.segment_size) + NEXT
    }

    /// The offset of the word with the end of the records.
    pub(super) fn end_word(&self, number: u64) -> u64 {
        offset_of(number, self.segment_size) + END
    }

    /// The lowest `span` segments in a row that are free.
    pub(super) fn free_segments(&self, span: u64) -> std::result::Result<u64, Stop> {
        let segments = self.segments()?;
        let (mut run, mut number) = (0, 0);
        while number < segments {
            let word = self.shared.load(BITMAP + number / 64 * 8)?;
            if word == u64::MAX && number % 64 == 0 {
                (run, number) = (0, number + 64);
                continue;
            }
            run = match word >> (number % 64) & 1 {
                0 => run + 1,
                _ => 0,
            };
            number += 1;
            if run == span {
                return Ok(number - span);
            }
        }
        // Free segments at the end of the file need only the rest to be added.
        let needed = segments + span - run;
        match needed <= MOST_SEGMENTS {
            true => Err(Stop::Grow(offset_of(needed, self.segment_size))),
            false => Err(Errno(libc::EFBIG).into()),
        }
    }

    /// The words of the bitmap that mark `span` segments as used or free: at most one for each 64 and two more.
    pub(super) fn marks(
        &self,
        number: u64,
        span: u64,
        used: bool,
        mut each: impl FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        let end = (number + span).min(MOST_SEGMENTS);
        let mut at = number;
        while at < end {
            let upto = (at / 64 * 64 + 64).min(end);
            let bits = (u64::MAX >> (64 - (upto - at))) << (at % 64);
            let offset = BITMAP + at / 64 * 8;
            let word = self.shared.load(offset)?;
            each(
                offset,
                match used {
                    true => word | bits,
                    false => word & !bits,
                },
            )?;
            at = upto;
        }
        Ok(())
    }
}
