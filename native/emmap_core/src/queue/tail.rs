//! Adding records.

use super::layout::{self, pair, participant, stream};
use super::record::{self, Content, Extension, HEADER};
use super::segment::{self, Segment, RECORDS};
use super::{Locked, Result, Stop};
use crate::source;
use crate::store::log::Change;
use crate::store::Shared;
use crate::Errno;

/// Where a payload that is larger than a segment is copied, without the lock, before its record is added.
#[derive(Clone, Copy, Debug)]
pub struct Reserved {
    number: u64,
    span: u64,
    /// The file offset of the payload.
    payload: u64,
}

/// Where the next record goes.
struct Tail {
    position: u64,
    /// The file offset of the position.
    offset: u64,
    sequence: u64,
    salt: u64,
}

impl<S: Shared> Locked<'_, S> {
    /// Whether a record of this size fits in one segment.
    #[inline(always)]
    pub fn fits_in_segment(&self, room: u64) -> bool {
        room <= self.segment_size - RECORDS
    }

    /// Adds a record that fits in a segment, and returns its sequence number.
    ///
    /// # Safety
    /// The payload must have as many readable bytes as the content says.
    #[inline(always)]
    pub unsafe fn push(&self, stream: usize, content: &Content) -> Result<u64> {
        // SAFETY: the caller's promise.
        unsafe { self.push_with(stream, content, |_| Ok(())) }
    }

    /// As [`Locked::push`]; `also` adds to the same change.
    ///
    /// # Safety
    /// As [`Locked::push`].
    #[inline(always)]
    pub(super) unsafe fn push_with(
        &self,
        stream: usize,
        content: &Content,
        also: impl FnOnce(&mut Change<S>) -> Result<()>,
    ) -> Result<u64> {
        let at = stream::at(stream);
        let room = content.room();
        debug_assert!(self.fits_in_segment(room));
        let tail = self.tail(stream, room)?;
        // SAFETY: the caller's promise.
        unsafe { record::write(self.shared, tail.offset, tail.salt, tail.sequence, content)? };
        let mut change = self.change();
        change.set(at + stream::TAIL, tail.position + room)?;
        if content.flags & record::ACKS == 0 {
            change.set(at + stream::SEQUENCE, tail.sequence + 1)?;
            change.set(at + stream::LAST, tail.position)?;
        }
        also(&mut change)?;
        change.commit()?;
        Ok(tail.sequence)
    }

    /// Adds the first of these items, and the following ones that fit in the same segment, as one change. Returns how many.
    ///
    /// # Safety
    /// The payloads must have as many readable bytes as the contents say.
    pub unsafe fn push_run(&self, contents: &[Content]) -> Result<usize> {
        let at = stream::at(layout::ITEMS);
        let Some(first) = contents.first() else {
            return Ok(0);
        };
        let tail = self.tail(layout::ITEMS, first.room())?;
        let limit = self.load(at + stream::LIMIT)?;
        let (mut last, mut next, mut count) = (tail.position, tail.position, 0);
        for content in contents {
            let room = content.room();
            if room > limit.saturating_sub(next) {
                break;
            }
            let offset = tail.offset + (next - tail.position);
            let sequence = tail.sequence + count;
            // SAFETY: the caller's promise.
            unsafe { record::write(self.shared, offset, tail.salt, sequence, content)? };
            (last, next, count) = (next, next + room, count + 1);
        }
        let mut change = self.change();
        change.set(at + stream::TAIL, next)?;
        change.set(at + stream::SEQUENCE, tail.sequence + count)?;
        change.set(at + stream::LAST, last)?;
        change.commit()?;
        Ok(count as usize)
    }

    /// Where a record of this size goes.
    #[inline(always)]
    fn tail(&self, stream: usize, room: u64) -> Result<Tail> {
        let at = stream::at(stream);
        let mut position = self.load(at + stream::TAIL)?;
        if position.checked_add(room).ok_or(Errno::IO)? > self.load(at + stream::LIMIT)? {
            self.begin_segment(stream)?;
            position = self.load(at + stream::TAIL)?;
        }
        let number = self.load(at + stream::SEGMENT)?.wrapping_sub(1);
        let offset = position.wrapping_add(self.load(at + stream::DELTA)?);
        if number >= self.segments()? || offset < layout::DATA {
            return Err(Errno::IO.into());
        }
        Ok(Tail {
            position,
            offset,
            sequence: self.load(at + stream::SEQUENCE)?,
            salt: self.salt(number)?,
        })
    }

    #[inline(always)]
    pub(super) fn salt(&self, number: u64) -> crate::Result<u64> {
        let at = segment::offset_of(number, self.segment_size);
        Ok(u64::from_le(self.load(at + 24)?))
    }

    /// Continues in a new segment, the lowest free one.
    #[cold]
    pub(super) fn begin_segment(&self, stream: usize) -> Result<()> {
        self.recycle(stream)?;
        let number = self.free_segments(1)?;
        let mut change = self.change();
        self.link(stream, number, 1, &mut change)?;
        self.marks(number, 1, true, |at, word| change.set(at, word))?;
        Ok(change.commit()?)
    }

    /// Makes free segments the tail of the stream, as part of the change.
    fn link(
        &self,
        stream: usize,
        number: u64,
        span: u64,
        change: &mut Change<S>,
    ) -> Result<Segment> {
        let at = stream::at(stream);
        let start = self.load(at + stream::NEXT_START)?;
        let bytes = span * self.segment_size;
        let next_start = start.checked_add(bytes).ok_or(Errno::IO)?;
        let sequence = self.load(at + stream::SEQUENCE)?;
        // A floor that is in no header must be at an item, or here, if everything was taken.
        self.leave_ends(stream)?;
        let floor = match self.floor(stream)? {
            floor if floor == self.load(at + stream::TAIL)? => start + RECORDS,
            floor => floor,
        };
        let segment = Segment::new(
            number,
            span,
            self.segment_size,
            (start, sequence, floor),
            (stream, (self.new_salt)()),
        );
        segment::write(self.shared, &segment)?;
        let tail = self.load(at + stream::SEGMENT)?;
        if tail == 0 {
            change.set(at + stream::FIRST_SEGMENT, number + 1)?;
        } else {
            let end = self.load(at + stream::TAIL)?;
            change.set(self.next_word(tail - 1), number + 1)?;
            change.set(self.end_word(tail - 1), end)?;
        }
        change.set(at + stream::SEGMENT, number + 1)?;
        change.set(at + stream::TAIL, start + RECORDS)?;
        change.set(at + stream::DELTA, segment.delta())?;
        change.set(at + stream::LIMIT, segment.end())?;
        change.set(at + stream::NEXT_START, next_start)?;
        Ok(segment)
    }

    /// Reserves segments for a payload that is larger than one. They are freed if this program dies.
    pub fn reserve(&self, stream: usize, content: &Content) -> Result<Reserved> {
        // Others clean up after a program only if this is set.
        self.note_claims()?;
        self.recycle(stream)?;
        let span = (content.room() + RECORDS).div_ceil(self.segment_size);
        let number = self.free_segments(span)?;
        let mut change = self.change();
        self.marks(number, span, true, |at, word| change.set(at, word))?;
        let own = participant::PLACE.of(self.slot);
        change.set(
            own + participant::RESERVATION,
            pair(number as u32, span as u32),
        )?;
        change.commit()?;
        let offset = segment::offset_of(number, self.segment_size);
        Ok(Reserved {
            number,
            span,
            payload: offset + RECORDS + HEADER + content.extension.len(),
        })
    }

    /// Frees the segments that the participant in a slot has reserved.
    pub(super) fn free_reservation(&self, slot: u32) -> Result<()> {
        let at = participant::PLACE.of(slot) + participant::RESERVATION;
        let (number, span) = layout::halves(self.load(at)?);
        if span > 0 {
            let mut change = self.change();
            self.marks(number.into(), span.into(), false, |at, word| {
                change.set(at, word)
            })?;
            change.set(at, 0)?;
            change.commit()?;
        }
        Ok(())
    }

    /// As [`Locked::free_reservation`], for this program.
    pub fn give_back(&self) -> Result<()> {
        self.free_reservation(self.slot)
    }

    /// Adds the record whose payload was copied by [`fill`], and returns its sequence number.
    pub(super) fn push_reserved_with(
        &self,
        stream: usize,
        content: &Content,
        reserved: Reserved,
        payload_crc: u32,
        also: impl FnOnce(&mut Change<S>) -> Result<()>,
    ) -> Result<u64> {
        let at = stream::at(stream);
        let own = participant::PLACE.of(self.slot) + participant::RESERVATION;
        let mut change = self.change();
        let segment = self.link(stream, reserved.number, reserved.span, &mut change)?;
        let sequence = segment.first_sequence;
        let tail = segment.start + RECORDS;
        let offset = segment.offset_of(tail).ok_or(Errno::IO)?;
        record::write_head(
            self.shared,
            offset,
            segment.salt,
            sequence,
            content,
            payload_crc,
        )?;
        change.set(at + stream::TAIL, tail + content.room())?;
        change.set(at + stream::SEQUENCE, sequence + 1)?;
        change.set(at + stream::LAST, tail)?;
        change.set(own, 0)?;
        also(&mut change)?;
        change.commit()?;
        Ok(sequence)
    }
}

/// Copies the payload to its reserved place, and returns its checksum. Takes no lock.
///
/// # Safety
/// The payload must have as many readable bytes as the content says.
pub unsafe fn fill<S: Shared>(
    shared: &S,
    content: &Content,
    reserved: &Reserved,
) -> crate::Result<u32> {
    let mut piece = vec![0u8; 64 << 10];
    let (mut done, mut crc) = (0, 0);
    while done < content.length {
        let count = piece.len().min(content.length - done);
        // SAFETY: `piece` has room for `count` bytes; the payload by the caller's promise.
        unsafe { source::copy_intact(content.payload.add(done), piece.as_mut_ptr(), count)? };
        crc = crc32c::crc32c_append(crc, &piece[..count]);
        shared.write(reserved.payload + done as u64, &piece[..count])?;
        done += count;
    }
    Ok(crc)
}

impl Segment {
    /// Free segments that become a part of a stream.
    fn new(
        number: u64,
        span: u64,
        segment_size: u64,
        (start, first_sequence, floor): (u64, u64, u64),
        (stream, salt): (usize, u64),
    ) -> Segment {
        Segment {
            number,
            offset: segment::offset_of(number, segment_size),
            bytes: span * segment_size,
            start,
            first_sequence,
            salt,
            floor,
            span,
            stream,
        }
    }
}

/// The extension of a dead letter.
pub(super) fn dead_letter(sequence: u64, attempts: u64) -> Extension {
    Extension::new(&[sequence, attempts])
}

/// A content that is in the memory of this program.
pub fn content(flags: u32, extension: Extension, payload: &[u8]) -> Content {
    Content {
        flags,
        extension,
        payload: payload.as_ptr(),
        length: payload.len(),
    }
}

/// Lengths that are refused for any size of the file.
pub fn check_length(length: u64) -> Result<()> {
    match length <= record::MOST_PAYLOAD {
        true => Ok(()),
        false => Err(Stop::Posix(Errno(libc::EMSGSIZE))),
    }
}
