//! Segments that are not needed any more.

use super::layout::{self, claim, cursor, halves, participant, stream};
use super::segment::Segment;
use super::{Locked, Result, Stop};
use crate::store::{participants, Shared};

impl<S: Shared> Locked<'_, S> {
    /// The position of the first item that the cursor may still need.
    pub fn floor_of(&self, cursor: usize) -> Result<u64> {
        let at = cursor::at(cursor);
        let (first, _) = halves(self.load(at + cursor::OUTSTANDING)?);
        match first {
            0 => Ok(self.load(at + cursor::NEXT)?),
            first => self.claim_position(cursor, first - 1),
        }
    }

    /// The lowest floor of all cursors of a stream.
    pub fn floor(&self, stream: usize) -> Result<u64> {
        let mut lowest = self.load(stream::at(stream) + stream::TAIL)?;
        for cursor in cursors_of(stream) {
            if self.is_active(cursor)? {
                lowest = lowest.min(self.floor_of(cursor)?);
            }
        }
        Ok(lowest)
    }

    /// Frees the first segments of the stream, up to the first that a cursor or a live binary needs.
    /// [`Stop::Checkpoint`]: the header on the disk still needs them, and the next one does not.
    pub fn recycle(&self, stream: usize) -> Result<()> {
        let at = stream::at(stream);
        loop {
            let first = self.load(at + stream::FIRST_SEGMENT)?;
            if first == 0 || first == self.load(at + stream::SEGMENT)? {
                return Ok(());
            }
            let segment = self.segment(first - 1)?;
            let end = self.load(self.end_word(segment.number))?;
            for cursor in cursors_of(stream) {
                self.leave(cursor, first, end)?;
            }
            if self.floor(stream)? < segment.end() || self.is_pinned(stream, &segment)? {
                return Ok(());
            }
            let word = 8 * stream as u64;
            let durable = self.load(layout::DURABLE_POSITION + word)?;
            let synced_floor = self.load(layout::SYNCED_FLOOR + word)?;
            if segment.start < durable && segment.end() > synced_floor {
                return Err(Stop::Checkpoint);
            }
            let Some(next) = self.next_segment(&segment)? else {
                return Ok(());
            };
            let mut change = self.change();
            self.marks(segment.number, segment.span, false, |at, word| {
                change.set(at, word)
            })?;
            change.set(at + stream::FIRST_SEGMENT, next.number + 1)?;
            change.commit()?;
        }
    }

    /// Moves all cursors that are at the end of a segment to the next one.
    pub(super) fn leave_ends(&self, stream: usize) -> Result<()> {
        for cursor in cursors_of(stream) {
            let segment = self.load(cursor::at(cursor) + cursor::SEGMENT)?;
            if self.is_active(cursor)? && segment != 0 {
                match self.load(self.end_word(segment - 1))? {
                    0 => (),
                    end => self.leave(cursor, segment, end)?,
                }
            }
        }
        Ok(())
    }

    /// Moves a cursor that has taken all items of the segment out of it.
    fn leave(&self, cursor: usize, segment: u64, end: u64) -> Result<()> {
        let at = cursor::at(cursor);
        let here = self.is_active(cursor)?
            && self.load(at + cursor::SEGMENT)? == segment
            && self.load(at + cursor::NEXT)? >= end;
        match here.then(|| self.hop(cursor)) {
            // The call that reads there reports it.
            None | Some(Ok(()) | Err(Stop::Corrupt(_))) => Ok(()),
            Some(Err(error)) => Err(error),
        }
    }

    /// Whether a live binary of some participant shows what is in the segment, or before it.
    fn is_pinned(&self, stream: usize, segment: &Segment) -> Result<bool> {
        // Dead letters are copied.
        if stream != layout::ITEMS {
            return Ok(false);
        }
        let lowest = self.lowest_pinned()?;
        Ok(lowest.is_some_and(|lowest| lowest < segment.end()))
    }

    fn claim_position(&self, cursor: usize, claim: u32) -> Result<u64> {
        Ok(self.load(self.claim_at(cursor, claim)? + claim::POSITION)?)
    }

    /// Cleans up after a dead participant: its claims become available again. Returns how many. (The pins of this
    /// program are known to its presence.)
    pub fn clean_up(&self, slot: u32) -> Result<u64> {
        let at = participant::PLACE.of(slot);
        let bit = 1u64 << slot;
        let released = match self.load(at + participant::HAS_CLAIMS)? {
            0 => 0,
            _ => self.release_all(slot, None)?,
        };
        self.free_reservation(slot)?;
        if slot != self.slot {
            self.shared.store(at + participant::PINNED, 0)?;
        }
        self.shared.update(layout::ITEMS_WAITERS, 0, bit)?;
        self.shared.update(layout::SPACE_WAITERS, 0, bit)?;
        // Last: if this participant dies before, the next one does the rest.
        self.shared.store(at + participant::HAS_CLAIMS, 0)?;
        Ok(released)
    }

    /// As [`Locked::clean_up`], for all participants that have claims or pins and for which `is_dead` returns `true`.
    pub fn clean_up_dead(&self, is_dead: impl Fn(u32) -> bool) -> Result<u64> {
        let mut released = 0;
        for slot in (0..participants::SLOTS).filter(|slot| *slot != self.slot) {
            let at = participant::PLACE.of(slot);
            let has_some = self.load(at + participant::HAS_CLAIMS)? != 0
                || self.load(at + participant::PINNED)? != 0;
            if has_some && is_dead(slot) {
                released += self.clean_up(slot)?;
            }
        }
        Ok(released)
    }

    /// Clears the bits of waiting participants for which `is_dead` returns `true`. The caller holds the lock, which a
    /// new participant takes before it waits.
    pub fn forget_dead_waiters(&self, waiters: u64, is_dead: impl Fn(u32) -> bool) -> Result<()> {
        let waiting = self.load(waiters)?;
        let dead = (0..participants::SLOTS)
            .filter(|slot| waiting >> slot & 1 == 1 && is_dead(*slot))
            .fold(0, |dead, slot| dead | 1u64 << slot);
        match dead {
            0 => Ok(()),
            _ => Ok(self.shared.update(waiters, 0, dead).map(drop)?),
        }
    }

    /// Drops the oldest item that the cursor still needs, checked out or not. Returns whether there was one.
    pub(super) fn drop_oldest(&self, cursor: usize) -> Result<bool> {
        let at = cursor::at(cursor);
        let (first, _) = halves(self.load(at + cursor::OUTSTANDING)?);
        if first != 0 {
            self.drop_claim(cursor, first - 1)?;
            return Ok(true);
        }
        match self.next(cursor) {
            Ok(Some(found)) => {
                self.pass(cursor, &found)?;
                Ok(true)
            }
            Ok(None) => Ok(false),
            // It was damaged, and is now dropped.
            Err(Stop::Corrupt(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// The cursors of a stream.
pub(super) fn cursors_of(stream: usize) -> std::ops::Range<usize> {
    match stream {
        layout::DEAD => layout::DEAD_CURSOR..layout::CURSORS,
        _ => 0..layout::DEAD_CURSOR,
    }
}
