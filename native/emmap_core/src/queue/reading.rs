//! What a cursor finds, and where it continues after damage.

use super::layout::{self, cursor, stream};
use super::record::{self, Extension, Head};
use super::segment::{self, Segment, RECORDS};
use super::{Locked, Result, Stop};
use crate::store::Shared;
use crate::Errno;

/// A record that a cursor found. Its checksum was not compared yet.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub position: u64,
    /// The file offset of the record.
    pub at: u64,
    pub head: Head,
    pub segment: u64,
    pub salt: u64,
}

/// Where to put the payload of an item.
#[derive(Clone, Copy, Debug)]
pub enum Room {
    /// Copied to memory that has room for it, outside of any map.
    Copy(*mut u8),
    /// It stays where it is: the caller has pinned the item, while it held the lock under which the item was found.
    InPlace,
}

impl From<*mut u8> for Room {
    #[inline(always)]
    fn from(out: *mut u8) -> Room {
        Room::Copy(out)
    }
}

/// An item that was copied, or is shown where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub sequence: u64,
    pub position: u64,
    pub flags: u32,
    pub length: u64,
    pub extension: Extension,
}

impl Found {
    fn taken(&self, extension: Extension) -> Taken {
        Taken {
            sequence: self.head.sequence,
            position: self.position,
            flags: self.head.flags,
            length: self.head.length,
            extension,
        }
    }

    /// Copies the payload, or only checks whether it is intact; `None`: the record is damaged. Needs no lock
    /// while something keeps the segment.
    ///
    /// # Safety
    /// There must be room for the payload, outside of any map.
    #[inline(always)]
    pub unsafe fn deliver<S: Shared>(
        &self,
        shared: &S,
        room: Room,
    ) -> crate::Result<Option<Taken>> {
        let extension = match room {
            // SAFETY: the caller's promise.
            Room::Copy(out) => unsafe { self.head.copy_to(shared, self.at, self.salt, out)? },
            Room::InPlace => self.head.verified(shared, self.at, self.salt)?,
        };
        Ok(extension.map(|extension| self.taken(extension)))
    }
}

impl<S: Shared> Locked<'_, S> {
    /// The next item of the cursor that was never taken; `None` at the tail.
    #[inline(always)]
    pub fn next(&self, cursor: usize) -> Result<Option<Found>> {
        let at = cursor::at(cursor);
        let stream = stream::at(layout::stream_of(cursor));
        loop {
            let position = self.load(at + cursor::NEXT)?;
            let tail = self.load(stream + stream::TAIL)?;
            if position >= tail {
                return Ok(None);
            }
            let number = self.load(at + cursor::SEGMENT)?.wrapping_sub(1);
            if number >= self.segments()? {
                self.enter_first(cursor)?;
                continue;
            }
            let end = self.load(self.end_word(number))?;
            if end != 0 && position >= end {
                self.hop(cursor)?;
                continue;
            }
            let bound = if end != 0 { end } else { tail };
            let delta = self.load(at + cursor::DELTA)?;
            let found = self.found_at(number, position, delta, bound)?;
            let Some(found) = found else {
                return Err(self.skip_damage(cursor, number, position)?);
            };
            if !found.head.is_item() {
                let next = position + found.head.room();
                self.shared.store(at + cursor::NEXT, next)?;
                continue;
            }
            if found.head.sequence != self.load(at + cursor::SEQUENCE)? {
                return Err(self.skip_damage(cursor, number, position)?);
            }
            return Ok(Some(found));
        }
    }

    /// The record at a position, if there can be one that ends before `bound`.
    #[inline(always)]
    pub(super) fn found_at(
        &self,
        number: u64,
        position: u64,
        delta: u64,
        bound: u64,
    ) -> crate::Result<Option<Found>> {
        let at = position.wrapping_add(delta);
        let end = bound.wrapping_add(delta);
        if at < layout::DATA || end > self.shared.len() || !at.is_multiple_of(8) {
            return Ok(None);
        }
        let Some(head) = record::head(self.shared, at, end)? else {
            return Ok(None);
        };
        Ok(Some(Found {
            position,
            at,
            head,
            segment: number,
            salt: self.salt(number)?,
        }))
    }

    /// Takes the next item, and moves the cursor past it. `room` is called with the item, and determines where its payload
    /// goes. `None`: no item is available, or `room` returned `None`.
    ///
    /// # Safety
    /// What `room` returns must have room for the payload, outside of any map.
    #[inline(always)]
    pub unsafe fn pop<R: Into<Room>>(
        &self,
        cursor: usize,
        room: impl FnOnce(&Found) -> Option<R>,
    ) -> Result<Option<Taken>> {
        let at = cursor::at(cursor);
        if self.load(at + cursor::RELEASED)? != 0 {
            // SAFETY: the caller's promise.
            return unsafe { self.pop_released(cursor, room) };
        }
        let Some(found) = self.next(cursor)? else {
            return Ok(None);
        };
        let Some(out) = room(&found) else {
            return Ok(None);
        };
        // SAFETY: the caller's promise.
        match unsafe { found.deliver(self.shared, out.into())? } {
            Some(taken) => {
                self.pass(cursor, &found)?;
                Ok(Some(taken))
            }
            None => Err(self.skip_damage(cursor, found.segment, found.position)?),
        }
    }

    /// Moves the cursor past an item.
    #[inline(always)]
    pub(super) fn pass(&self, cursor: usize, found: &Found) -> crate::Result<()> {
        let at = cursor::at(cursor);
        let mut change = self.change();
        change.set(at + cursor::NEXT, found.position + found.head.room())?;
        change.set(at + cursor::SEQUENCE, found.head.sequence + 1)?;
        change.commit()
    }

    /// Copies the item that would be taken next, and takes nothing.
    ///
    /// # Safety
    /// As [`Locked::pop`].
    pub unsafe fn peek<R: Into<Room>>(
        &self,
        cursor: usize,
        room: impl FnOnce(&Found) -> Option<R>,
    ) -> Result<Option<Taken>> {
        let found = match self.first_released(cursor)? {
            Some(claim) => Some(self.found_of(cursor, claim)?),
            None => self.next(cursor)?,
        };
        let Some(found) = found else {
            return Ok(None);
        };
        let Some(out) = room(&found) else {
            return Ok(None);
        };
        // SAFETY: the caller's promise.
        match unsafe { found.deliver(self.shared, out.into())? } {
            Some(taken) => Ok(Some(taken)),
            None => Err(Stop::Corrupt(found.position)),
        }
    }

    /// Copies the newest item of the cursor's stream that the cursor has not taken.
    ///
    /// # Safety
    /// As [`Locked::pop`].
    pub unsafe fn peek_last<R: Into<Room>>(
        &self,
        cursor: usize,
        room: impl FnOnce(&Found) -> Option<R>,
    ) -> Result<Option<Taken>> {
        let stream = stream::at(layout::stream_of(cursor));
        let last = self.load(stream + stream::LAST)?;
        let tail = self.load(stream + stream::TAIL)?;
        if self.load(cursor::at(cursor) + cursor::NEXT)? > last || last >= tail {
            // The newest remaining item was taken once, and released.
            return match self.last_released(cursor)? {
                // SAFETY: the caller's promise.
                Some(claim) => unsafe {
                    let found = self.found_of(cursor, claim)?;
                    self.copy_found(&found, room)
                },
                None => Ok(None),
            };
        }
        let number = self.load(stream + stream::SEGMENT)?.wrapping_sub(1);
        let delta = self.load(stream + stream::DELTA)?;
        match self.found_in(number, last, delta, tail)? {
            // SAFETY: the caller's promise.
            Some(found) => unsafe { self.copy_found(&found, room) },
            None => Err(Stop::Corrupt(last)),
        }
    }

    /// As [`Locked::found_at`], where the position may be in a segment before the tail's.
    fn found_in(&self, number: u64, position: u64, delta: u64, tail: u64) -> Result<Option<Found>> {
        let segment = self.segment(number)?;
        if segment.contains(position) {
            return Ok(self.found_at(number, position, delta, tail)?);
        }
        match self.segment_at(segment.stream, position)? {
            Some(segment) => {
                let end = self.load(self.end_word(segment.number))?;
                Ok(self.found_at(segment.number, position, segment.delta(), end)?)
            }
            None => Ok(None),
        }
    }

    /// # Safety
    /// As [`Locked::pop`].
    unsafe fn copy_found<R: Into<Room>>(
        &self,
        found: &Found,
        room: impl FnOnce(&Found) -> Option<R>,
    ) -> Result<Option<Taken>> {
        let Some(out) = room(found) else {
            return Ok(None);
        };
        // SAFETY: the caller's promise.
        match unsafe { found.deliver(self.shared, out.into())? } {
            Some(taken) => Ok(Some(taken)),
            None => Err(Stop::Corrupt(found.position)),
        }
    }

    /// Copies the first item at or after a position that the cursor can take, and takes nothing: for iterating over all
    /// of them. Also returns where the next begins.
    ///
    /// # Safety
    /// As [`Locked::pop`].
    pub unsafe fn look<R: Into<Room>>(
        &self,
        cursor: usize,
        from: u64,
        room: impl FnOnce(&Found) -> Option<R>,
    ) -> Result<Option<(Taken, u64)>> {
        let next = self.load(cursor::at(cursor) + cursor::NEXT)?;
        if let Some(found) = self.released_from(cursor, from)? {
            let after = found.position + found.head.room();
            // SAFETY: the caller's promise.
            let taken = unsafe { self.copy_found(&found, room)? };
            return Ok(taken.map(|taken| (taken, after)));
        }
        let stream_number = layout::stream_of(cursor);
        let stream = stream::at(stream_number);
        let mut position = from.max(next);
        let tail = self.load(stream + stream::TAIL)?;
        let mut segment = None::<Segment>;
        while position < tail {
            let here = match segment.take().filter(|segment| segment.contains(position)) {
                Some(segment) => segment,
                None => match self.segment_at(stream_number, position)? {
                    Some(segment) => segment,
                    None => return Ok(None),
                },
            };
            let end = self.load(self.end_word(here.number))?;
            let bound = if end != 0 { end } else { tail };
            position = position.max(here.start + RECORDS);
            if position >= bound {
                position = here.end() + RECORDS;
                continue;
            }
            match self.found_at(here.number, position, here.delta(), bound)? {
                Some(found) if found.head.is_item() => {
                    // SAFETY: the caller's promise.
                    let taken = unsafe { self.copy_found(&found, room)? };
                    return Ok(taken.map(|taken| (taken, position + found.head.room())));
                }
                Some(found) => position += found.head.room(),
                None => {
                    return Err(Stop::Corrupt(position));
                }
            }
            segment = Some(here);
        }
        Ok(None)
    }

    /// Where an iteration over all items continues after damage.
    pub fn after_damage(&self, cursor: usize, position: u64) -> Result<u64> {
        let stream = layout::stream_of(cursor);
        let tail = self.load(stream::at(stream) + stream::TAIL)?;
        let Some(segment) = self.segment_at(stream, position)? else {
            return Ok(tail);
        };
        let end = self.load(self.end_word(segment.number))?;
        let bound = if end != 0 { end } else { tail };
        let next = record::next_sound(self.shared, &segment, position, bound)?;
        Ok(next.unwrap_or(bound))
    }

    /// The segment of the stream that contains a position. Searches the segments from the first on.
    pub(super) fn segment_at(&self, stream: usize, position: u64) -> Result<Option<Segment>> {
        let first = self.load(stream::at(stream) + stream::FIRST_SEGMENT)?;
        let mut next = match first {
            0 => None,
            first => Some(self.segment(first - 1)?),
        };
        // At most as many steps as there are segments, because a damaged link may lead back.
        for _ in 0..=self.segments()? {
            match next {
                Some(segment) if segment.contains(position) => return Ok(Some(segment)),
                Some(segment) => next = self.next_segment(&segment)?,
                None => break,
            }
        }
        Ok(None)
    }

    /// Moves a cursor that has no segment yet to the first segment of its stream.
    #[cold]
    fn enter_first(&self, cursor: usize) -> Result<()> {
        let first = self.load(stream::at(layout::stream_of(cursor)) + stream::FIRST_SEGMENT)?;
        let segment = self.segment(first.wrapping_sub(1))?;
        let at = cursor::at(cursor);
        let position = self.load(at + cursor::NEXT)?;
        let lost = self.load(at + cursor::SEQUENCE)? != segment.first_sequence;
        self.enter(cursor, &segment, segment.first_sequence)?;
        match lost {
            true => Err(Stop::Corrupt(position)),
            false => Ok(()),
        }
    }

    /// Moves a cursor to the first record of a segment.
    fn enter(&self, cursor: usize, segment: &Segment, sequence: u64) -> Result<()> {
        let at = cursor::at(cursor);
        let mut change = self.change();
        change.set(at + cursor::NEXT, segment.start + RECORDS)?;
        change.set(at + cursor::SEQUENCE, sequence)?;
        change.set(at + cursor::SEGMENT, segment.number + 1)?;
        change.set(at + cursor::DELTA, segment.delta())?;
        Ok(change.commit()?)
    }

    /// Moves a cursor at the end of its segment to the next one.
    #[cold]
    pub(super) fn hop(&self, cursor: usize) -> Result<()> {
        let at = cursor::at(cursor);
        let number = self.load(at + cursor::SEGMENT)?.wrapping_sub(1);
        let position = self.load(at + cursor::NEXT)?;
        let next = match self.segment(number) {
            Ok(segment) => self.next_segment(&segment).unwrap_or(None),
            Err(_) => None,
        };
        let Some(next) = next.filter(|next| next.start >= position) else {
            return self.hop_over_damage(cursor, position);
        };
        let sequence = self.load(at + cursor::SEQUENCE)?;
        let lost = sequence != next.first_sequence;
        self.enter(cursor, &next, next.first_sequence)?;
        match lost {
            true => Err(Stop::Corrupt(position)),
            false => Ok(()),
        }
    }

    /// If the next segment cannot be found by its link: moves to the one with the lowest position after this one.
    fn hop_over_damage(&self, cursor: usize, position: u64) -> Result<()> {
        let stream = layout::stream_of(cursor);
        let (segments, size) = (self.segments()?, self.segment_size);
        let mut best = None::<Segment>;
        for number in 0..segments {
            if let Some(found) = segment::read(self.shared, number, segments, size)? {
                let after = found.stream == stream && found.start >= position;
                if after && best.is_none_or(|best| found.start < best.start) {
                    best = Some(found);
                }
            }
        }
        let tail = self.load(stream::at(stream) + stream::TAIL)?;
        match best.filter(|best| best.start < tail) {
            Some(best) => self.enter(cursor, &best, best.first_sequence)?,
            None => self.enter_tail(cursor)?,
        }
        Err(Stop::Corrupt(position))
    }

    /// Moves a cursor to the tail of its stream.
    pub(super) fn enter_tail(&self, cursor: usize) -> Result<()> {
        let (at, stream) = (cursor::at(cursor), stream::at(layout::stream_of(cursor)));
        let mut change = self.change();
        for (to, from) in [
            (cursor::NEXT, stream::TAIL),
            (cursor::SEQUENCE, stream::SEQUENCE),
            (cursor::SEGMENT, stream::SEGMENT),
            (cursor::DELTA, stream::DELTA),
        ] {
            change.set(at + to, self.load(stream + from)?)?;
        }
        Ok(change.commit()?)
    }

    /// Moves the cursor past a damaged record, to the next sound one, and returns the error that reports it.
    #[cold]
    #[inline(never)]
    fn skip_damage(&self, cursor: usize, number: u64, position: u64) -> Result<Stop> {
        let at = cursor::at(cursor);
        let stream = stream::at(layout::stream_of(cursor));
        let tail = self.load(stream + stream::TAIL)?;
        let end = self.load(self.end_word(number))?;
        let bound = if end != 0 { end } else { tail };
        let next = match self.segment(number) {
            Ok(segment) => record::next_sound(self.shared, &segment, position, bound)?
                .map(|next| (segment, next)),
            Err(Errno::IO) => None,
            Err(error) => return Err(error.into()),
        };
        let mut change = self.change();
        match next {
            Some((segment, next)) => {
                let found = self.found_at(number, next, segment.delta(), bound)?;
                let sequence = found.map_or(0, |found| found.head.sequence);
                change.set(at + cursor::NEXT, next)?;
                change.set(at + cursor::SEQUENCE, sequence)?;
                change.set(at + cursor::DELTA, segment.delta())?;
            }
            None => {
                change.set(at + cursor::NEXT, bound)?;
                let sequence = match self.segment(number).map(|here| self.next_segment(&here)) {
                    Ok(Ok(Some(next))) => next.first_sequence,
                    _ => self.load(stream + stream::SEQUENCE)?,
                };
                change.set(at + cursor::SEQUENCE, sequence)?;
            }
        }
        change.commit()?;
        Ok(Stop::Corrupt(position))
    }
}
