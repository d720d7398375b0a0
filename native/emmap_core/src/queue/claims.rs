//! Items that were checked out and not yet acknowledged: a table for each cursor, which contains two lists, both in the order
//! of the items. A claim in the list of released claims is also in the list of outstanding claims.

use super::layout::{self, claim, cursor, halves, pair, participant};
use super::reading::{Found, Room, Taken};
use super::record::{self, Content};
use super::segment;
use super::tail::dead_letter;
use super::{Locked, Result, Stop};
use crate::store::log::Change;
use crate::store::{participants, Shared};
use crate::Errno;

const FREE: u64 = 0;
const CLAIMED: u64 = 1;
const RELEASED: u64 = 2;

/// The receipt that a consumer acknowledges. It is invalid once its claim has ended, and for any other claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub claim: u32,
    pub attempts: u16,
    pub sequence: u64,
}

/// An item that was checked out, whose payload can be copied without the lock.
#[derive(Clone, Copy, Debug)]
pub struct Claimed {
    pub found: Found,
    pub receipt: Receipt,
}

/// The first word of a claim.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    kind: u64,
    slot: u32,
    attempts: u16,
    owner: u32,
}

impl State {
    fn of(word: u64) -> State {
        State {
            kind: word & 3,
            slot: (word >> 8) as u32 & 0xff,
            attempts: (word >> 16) as u16,
            owner: (word >> 32) as u32,
        }
    }

    fn word(self) -> u64 {
        self.kind
            | u64::from(self.slot) << 8
            | u64::from(self.attempts) << 16
            | u64::from(self.owner) << 32
    }
}

/// A list of a cursor: the word with its first and last claim, and the word of each claim with its neighbors.
#[derive(Clone, Copy)]
struct List {
    ends: u64,
    neighbors: u64,
}

const OUTSTANDING: List = List {
    ends: cursor::OUTSTANDING,
    neighbors: claim::OUTSTANDING,
};
const RELEASED_LIST: List = List {
    ends: cursor::RELEASED,
    neighbors: claim::RELEASED,
};

impl<S: Shared> Locked<'_, S> {
    fn claims_of_segment(&self) -> u64 {
        self.segment_size / claim::BYTES
    }

    /// The offset of a claim.
    #[inline(always)]
    pub(super) fn claim_at(&self, cursor: usize, claim: u32) -> crate::Result<u64> {
        let Some(claim) = u64::from(claim).checked_sub(claim::FIRST_CLAIMS) else {
            return Ok(claim::first_at(cursor) + u64::from(claim) * claim::BYTES);
        };
        // A power of two, like the segment size, because a division would take as long as the rest of this function.
        let shift = self.claims_of_segment().trailing_zeros();
        let index = claim >> shift;
        if index >= cursor::MOST_CLAIM_SEGMENTS {
            return Err(Errno::INVAL);
        }
        let number = self.claim_segment(cursor, index)?;
        if number == 0 || u64::from(number) > self.segments()? {
            return Err(Errno::INVAL);
        }
        let offset = segment::offset_of(u64::from(number) - 1, self.segment_size);
        let place = claim - (index << shift);
        Ok(offset + place * claim::BYTES)
    }

    /// The segment + 1 that holds claims, or 0.
    fn claim_segment(&self, cursor: usize, index: u64) -> crate::Result<u32> {
        let word = self.load(cursor::at(cursor) + cursor::CLAIM_SEGMENTS + index / 2 * 8)?;
        let (high, low) = halves(word);
        Ok(if index.is_multiple_of(2) { low } else { high })
    }

    fn state(&self, cursor: usize, claim: u32) -> crate::Result<State> {
        Ok(State::of(
            self.load(self.claim_at(cursor, claim)? + claim::STATE)?,
        ))
    }

    /// Adds a claim at the end of a list.
    fn append(&self, cursor: usize, list: List, claim: u32, change: &mut Change<S>) -> Result<()> {
        let ends = cursor::at(cursor) + list.ends;
        let (first, last) = halves(self.load(ends)?);
        let at = self.claim_at(cursor, claim)? + list.neighbors;
        change.set(at, pair(last, 0))?;
        if last == 0 {
            change.set(ends, pair(claim + 1, claim + 1))?;
        } else {
            let before = self.claim_at(cursor, last - 1)? + list.neighbors;
            let (previous, _) = halves(self.load(before)?);
            change.set(before, pair(previous, claim + 1))?;
            change.set(ends, pair(first, claim + 1))?;
        }
        Ok(())
    }

    /// Adds a claim after all claims of a list that have a lower sequence number.
    fn insert(&self, cursor: usize, list: List, claim: u32, change: &mut Change<S>) -> Result<()> {
        let sequence = self.load(self.claim_at(cursor, claim)? + claim::SEQUENCE)?;
        let ends = cursor::at(cursor) + list.ends;
        let (first, last) = halves(self.load(ends)?);
        // From the end, because items are usually released in order.
        let (mut before, mut after) = (last, 0);
        let mut left = self.most_claims();
        while before != 0 {
            let at = self.claim_at(cursor, before - 1)?;
            if self.load(at + claim::SEQUENCE)? <= sequence {
                break;
            }
            after = before;
            before = halves(self.load(at + list.neighbors)?).0;
            left = left.checked_sub(1).ok_or(Errno::IO)?;
        }
        let at = self.claim_at(cursor, claim)? + list.neighbors;
        change.set(at, pair(before, after))?;
        if before != 0 {
            let word = self.claim_at(cursor, before - 1)? + list.neighbors;
            change.set(word, pair(halves(self.load(word)?).0, claim + 1))?;
        }
        if after != 0 {
            let word = self.claim_at(cursor, after - 1)? + list.neighbors;
            change.set(word, pair(claim + 1, halves(self.load(word)?).1))?;
        }
        let first = if before == 0 { claim + 1 } else { first };
        let last = if after == 0 { claim + 1 } else { last };
        Ok(change.set(ends, pair(first, last))?)
    }

    /// Removes a claim from a list.
    fn remove(&self, cursor: usize, list: List, claim: u32, change: &mut Change<S>) -> Result<()> {
        let ends = cursor::at(cursor) + list.ends;
        let (first, last) = halves(self.load(ends)?);
        let at = self.claim_at(cursor, claim)? + list.neighbors;
        let (before, after) = halves(self.load(at)?);
        if before != 0 {
            let word = self.claim_at(cursor, before - 1)? + list.neighbors;
            change.set(word, pair(halves(self.load(word)?).0, after))?;
        }
        if after != 0 {
            let word = self.claim_at(cursor, after - 1)? + list.neighbors;
            change.set(word, pair(before, halves(self.load(word)?).1))?;
        }
        let first = if before == 0 { after } else { first };
        let last = if after == 0 { before } else { last };
        Ok(change.set(ends, pair(first, last))?)
    }

    fn most_claims(&self) -> u64 {
        claim::FIRST_CLAIMS + self.claims_of_segment() * cursor::MOST_CLAIM_SEGMENTS
    }

    /// Changes the number of claims.
    fn count(
        &self,
        cursor: usize,
        outstanding: i32,
        released: i32,
        change: &mut Change<S>,
    ) -> Result<()> {
        let at = cursor::at(cursor) + cursor::COUNTS;
        let (all, free) = halves(self.load(at)?);
        let counts = pair(
            all.wrapping_add_signed(outstanding),
            free.wrapping_add_signed(released),
        );
        Ok(change.set(at, counts)?)
    }

    /// Takes a free claim, as part of the change.
    fn take_free(&self, cursor: usize, change: &mut Change<S>) -> Result<u32> {
        let at = cursor::at(cursor) + cursor::FREE;
        let (free, used) = halves(self.load(at)?);
        if free != 0 {
            let next = self.load(self.claim_at(cursor, free - 1)? + claim::RELEASED)?;
            change.set(at, pair(next as u32, used))?;
            return Ok(free - 1);
        }
        if u64::from(used) >= self.most_claims() {
            return Err(Errno::NOSPC.into());
        }
        if let Some(more) = u64::from(used).checked_sub(claim::FIRST_CLAIMS) {
            if more % self.claims_of_segment() == 0 {
                self.add_claim_segment(cursor, more / self.claims_of_segment())?;
            }
        }
        change.set(at, pair(0, used + 1))?;
        Ok(used)
    }

    /// Takes a segment for claims into use.
    fn add_claim_segment(&self, cursor: usize, index: u64) -> Result<()> {
        if self.claim_segment(cursor, index)? != 0 {
            return Ok(());
        }
        self.recycle(layout::stream_of(cursor))?;
        let number = self.free_segments(1)?;
        segment::erase(self.shared, number, self.segment_size)?;
        let mut change = self.change();
        self.marks(number, 1, true, |at, word| change.set(at, word))?;
        let at = cursor::at(cursor) + cursor::CLAIM_SEGMENTS + index / 2 * 8;
        let (high, low) = halves(self.load(at)?);
        let number = number as u32 + 1;
        let word = match index % 2 {
            0 => pair(high, number),
            _ => pair(number, low),
        };
        change.set(at, word)?;
        Ok(change.commit()?)
    }

    /// Checks the next item out for `owner`, a number that this program has chosen. Released items come first. `None`: no item
    /// is available. An item whose attempts are used up is moved to the dead letters instead.
    pub fn check_out(
        &self,
        cursor: usize,
        owner: u32,
        most_attempts: Option<u16>,
    ) -> Result<Option<Claimed>> {
        self.check_out_if(cursor, owner, most_attempts, |_| true)
    }

    /// As [`Locked::check_out`], if `wants` returns `true` for the item.
    #[inline(always)]
    pub fn check_out_if(
        &self,
        cursor: usize,
        owner: u32,
        most_attempts: Option<u16>,
        wants: impl FnOnce(&Found) -> bool,
    ) -> Result<Option<Claimed>> {
        while let Some(claim) = self.first_released(cursor)? {
            let state = self.state(cursor, claim)?;
            if most_attempts.is_some_and(|most| state.attempts >= most) {
                self.bury(cursor, claim)?;
                continue;
            }
            let found = self.found_of(cursor, claim)?;
            return match wants(&found) {
                true => self
                    .claim_again(cursor, (claim, found), state, owner)
                    .map(Some),
                false => Ok(None),
            };
        }
        match self.next(cursor)? {
            Some(found) if wants(&found) => self.claim_new(cursor, found, owner).map(Some),
            _ => Ok(None),
        }
    }

    fn claim_again(
        &self,
        cursor: usize,
        (claim, found): (u32, Found),
        state: State,
        owner: u32,
    ) -> Result<Claimed> {
        let attempts = state.attempts.saturating_add(1);
        let claimed = State {
            kind: CLAIMED,
            slot: self.slot,
            attempts,
            owner,
        };
        self.note_claims()?;
        let mut change = self.change();
        let at = self.claim_at(cursor, claim)?;
        self.remove(cursor, RELEASED_LIST, claim, &mut change)?;
        self.count(cursor, 0, -1, &mut change)?;
        change.set(at + claim::STATE, claimed.word())?;
        change.commit()?;
        Ok(Claimed {
            found,
            receipt: Receipt {
                claim,
                attempts,
                sequence: found.head.sequence,
            },
        })
    }

    fn claim_new(&self, cursor: usize, found: Found, owner: u32) -> Result<Claimed> {
        self.note_claims()?;
        let mut change = self.change();
        let claim = self.take_free(cursor, &mut change)?;
        let at = self.claim_at(cursor, claim)?;
        let state = State {
            kind: CLAIMED,
            slot: self.slot,
            attempts: 1,
            owner,
        };
        // These are not read while the claim is free.
        self.shared
            .store(at + claim::SEQUENCE, found.head.sequence)?;
        self.shared.store(at + claim::POSITION, found.position)?;
        self.shared.store(at + claim::SEGMENT, found.segment + 1)?;
        self.append(cursor, OUTSTANDING, claim, &mut change)?;
        self.count(cursor, 1, 0, &mut change)?;
        change.set(at + claim::STATE, state.word())?;
        let own = cursor::at(cursor);
        change.set(own + cursor::NEXT, found.position + found.head.room())?;
        change.set(own + cursor::SEQUENCE, found.head.sequence + 1)?;
        change.commit()?;
        Ok(Claimed {
            found,
            receipt: Receipt {
                claim,
                attempts: 1,
                sequence: found.head.sequence,
            },
        })
    }

    /// Marks that others have to look for claims of this program after it has died.
    #[inline(always)]
    pub(super) fn note_claims(&self) -> Result<()> {
        let at = participant::PLACE.of(self.slot) + participant::HAS_CLAIMS;
        if self.load(at)? == 0 {
            self.shared.store(at, 1)?;
        }
        Ok(())
    }

    /// Removes this mark from participants that have no claims any more, unless there are too many claims to check.
    pub fn forget_ended_claims(&self) -> Result<()> {
        let Some(have) = self.slots_with_claims()? else {
            return Ok(());
        };
        for slot in (0..participants::SLOTS).filter(|slot| have >> slot & 1 == 0) {
            let at = participant::PLACE.of(slot);
            // A reservation must be found as well.
            if self.load(at + participant::HAS_CLAIMS)? != 0
                && self.load(at + participant::RESERVATION)? == 0
            {
                self.shared.store(at + participant::HAS_CLAIMS, 0)?;
            }
        }
        Ok(())
    }

    /// A bit for each slot that has claims; `None` if there are too many claims to check under the lock.
    fn slots_with_claims(&self) -> Result<Option<u64>> {
        const MOST: u32 = 1_000;
        let (mut have, mut left) = (0, MOST);
        for cursor in 0..layout::CURSORS {
            if !self.is_active(cursor)? {
                continue;
            }
            let (mut next, _) = halves(self.load(cursor::at(cursor) + cursor::OUTSTANDING)?);
            while next != 0 {
                let at = self.claim_at(cursor, next - 1)?;
                let state = State::of(self.load(at + claim::STATE)?);
                if state.kind == CLAIMED {
                    have |= 1u64.checked_shl(state.slot).unwrap_or(0);
                }
                next = halves(self.load(at + claim::OUTSTANDING)?).1;
                match left.checked_sub(1) {
                    Some(less) => left = less,
                    None => return Ok(None),
                }
            }
        }
        Ok(Some(have))
    }

    /// Whether the receipt belongs to a claim that this program still has.
    fn check_receipt(&self, cursor: usize, receipt: &Receipt) -> Result<u64> {
        let at = match self.claim_at(cursor, receipt.claim) {
            Ok(at) => at,
            Err(Errno::INVAL) => return Err(Stop::Gone),
            Err(error) => return Err(error.into()),
        };
        let state = State::of(self.load(at + claim::STATE)?);
        let current = state.kind == CLAIMED
            && state.slot == self.slot
            && state.attempts == receipt.attempts
            && self.load(at + claim::SEQUENCE)? == receipt.sequence;
        match current {
            true => Ok(at),
            false => Err(Stop::Gone),
        }
    }

    /// Acknowledges an item. [`Stop::Gone`]: this claim has already ended.
    pub fn acknowledge(&self, cursor: usize, receipt: &Receipt) -> Result<()> {
        self.check_receipt(cursor, receipt)?;
        self.end_claim(cursor, receipt.claim, false)
    }

    /// Ends a claim. `released`: it is also in the list of released claims.
    fn end_claim(&self, cursor: usize, claim: u32, released: bool) -> Result<()> {
        let mut change = self.change();
        self.end_claim_with(cursor, claim, released, &mut change)?;
        Ok(change.commit()?)
    }

    fn end_claim_with(
        &self,
        cursor: usize,
        claim: u32,
        released: bool,
        change: &mut Change<S>,
    ) -> Result<()> {
        let at = self.claim_at(cursor, claim)?;
        let free_at = cursor::at(cursor) + cursor::FREE;
        let (free, used) = halves(self.load(free_at)?);
        if released {
            self.remove(cursor, RELEASED_LIST, claim, change)?;
        }
        self.remove(cursor, OUTSTANDING, claim, change)?;
        self.count(cursor, -1, -i32::from(released), change)?;
        change.set(at + claim::STATE, FREE)?;
        change.set(at + claim::RELEASED, u64::from(free))?;
        change.set(free_at, pair(claim + 1, used))?;
        Ok(())
    }

    /// Makes an item available again, at its place in the order. [`Stop::Gone`]: this claim has already ended.
    pub fn release_claim(&self, cursor: usize, receipt: &Receipt) -> Result<()> {
        self.check_receipt(cursor, receipt)?;
        self.release_now(cursor, receipt.claim)
    }

    fn release_now(&self, cursor: usize, claim: u32) -> Result<()> {
        let at = self.claim_at(cursor, claim)?;
        let state = State::of(self.load(at + claim::STATE)?);
        let released = State {
            kind: RELEASED,
            slot: 0,
            owner: 0,
            ..state
        };
        let mut change = self.change();
        self.insert(cursor, RELEASED_LIST, claim, &mut change)?;
        self.count(cursor, 0, 1, &mut change)?;
        change.set(at + claim::STATE, released.word())?;
        Ok(change.commit()?)
    }

    /// Makes all items available again that a participant has checked out; with `owner`, only those of that owner. Returns how
    /// many.
    pub fn release_all(&self, slot: u32, owner: Option<u32>) -> Result<u64> {
        let mut released = 0;
        for cursor in 0..layout::CURSORS {
            if !self.is_active(cursor)? {
                continue;
            }
            let (mut next, _) = halves(self.load(cursor::at(cursor) + cursor::OUTSTANDING)?);
            let mut left = self.most_claims();
            while next != 0 {
                let claim = next - 1;
                let at = self.claim_at(cursor, claim)?;
                next = halves(self.load(at + claim::OUTSTANDING)?).1;
                let state = State::of(self.load(at + claim::STATE)?);
                let wanted = owner.is_none_or(|owner| owner == state.owner);
                if state.kind == CLAIMED && state.slot == slot && wanted {
                    self.release_now(cursor, claim)?;
                    released += 1;
                }
                left = left.checked_sub(1).ok_or(Errno::IO)?;
            }
        }
        Ok(released)
    }

    /// The first claim of the list of released ones.
    #[inline(always)]
    pub(super) fn first_released(&self, cursor: usize) -> Result<Option<u32>> {
        let (first, _) = halves(self.load(cursor::at(cursor) + cursor::RELEASED)?);
        Ok(first.checked_sub(1))
    }

    pub(super) fn last_released(&self, cursor: usize) -> Result<Option<u32>> {
        let (_, last) = halves(self.load(cursor::at(cursor) + cursor::RELEASED)?);
        Ok(last.checked_sub(1))
    }

    /// The first released item at or after a position. The call that takes a damaged item reports it.
    pub(super) fn released_from(&self, cursor: usize, from: u64) -> Result<Option<Found>> {
        let mut next = self.first_released(cursor)?.map_or(0, |claim| claim + 1);
        let mut left = self.most_claims();
        while next != 0 {
            let at = self.claim_at(cursor, next - 1)?;
            if self.load(at + claim::POSITION)? >= from {
                if let Some(found) = self.find_record(at)? {
                    return Ok(Some(found));
                }
            }
            next = halves(self.load(at + claim::RELEASED)?).1;
            left = left.checked_sub(1).ok_or(Errno::IO)?;
        }
        Ok(None)
    }

    /// The record of a claim. If it is damaged, the claim ends.
    pub(super) fn found_of(&self, cursor: usize, claim: u32) -> Result<Found> {
        let at = self.claim_at(cursor, claim)?;
        match self.find_record(at)? {
            Some(found) => Ok(found),
            None => {
                let position = self.load(at + claim::POSITION)?;
                self.drop_claim(cursor, claim)?;
                Err(Stop::Corrupt(position))
            }
        }
    }

    /// The record of the claim at an offset, if it can be that one.
    fn find_record(&self, at: u64) -> Result<Option<Found>> {
        let position = self.load(at + claim::POSITION)?;
        let number = self.load(at + claim::SEGMENT)?.wrapping_sub(1);
        match self.segment(number) {
            Ok(segment) if segment.contains(position) => {
                let end = segment.end();
                let bound = self.load(self.end_word(number))?;
                let bound = if bound == 0 { end } else { bound.min(end) };
                let sequence = self.load(at + claim::SEQUENCE)?;
                let found = self.found_at(number, position, segment.delta(), bound)?;
                Ok(found.filter(|found| found.head.sequence == sequence))
            }
            Ok(_) | Err(Errno::IO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the first released item, which ends its claim.
    ///
    /// # Safety
    /// As [`Locked::pop`].
    #[cold]
    pub(super) unsafe fn pop_released<R: Into<Room>>(
        &self,
        cursor: usize,
        room: impl FnOnce(&Found) -> Option<R>,
    ) -> Result<Option<Taken>> {
        let claim = self.first_released(cursor)?.ok_or(Errno::IO)?;
        let found = self.found_of(cursor, claim)?;
        let Some(out) = room(&found) else {
            return Ok(None);
        };
        // SAFETY: the caller's promise.
        let taken = unsafe { found.deliver(self.shared, out.into())? };
        self.end_claim(cursor, claim, true)?;
        match taken {
            Some(taken) => Ok(Some(taken)),
            None => Err(Stop::Corrupt(found.position)),
        }
    }

    /// Ends a claim whose record turned out to be damaged.
    pub fn end_damaged(&self, cursor: usize, receipt: &Receipt) -> Result<()> {
        self.check_receipt(cursor, receipt)?;
        self.end_claim(cursor, receipt.claim, false)
    }

    /// Ends a claim of any participant.
    pub(super) fn drop_claim(&self, cursor: usize, claim: u32) -> Result<()> {
        let released = self.state(cursor, claim)?.kind == RELEASED;
        self.end_claim(cursor, claim, released)
    }

    /// Moves a released item to the dead letters.
    fn bury(&self, cursor: usize, claim: u32) -> Result<()> {
        let found = self.found_of(cursor, claim)?;
        let attempts = self.state(cursor, claim)?.attempts;
        let length = usize::try_from(found.head.length).map_err(|_| Errno::NOMEM)?;
        let mut payload = Vec::<u8>::new();
        payload
            .try_reserve_exact(length)
            .map_err(|_| Errno::NOMEM)?;
        let out = payload.as_mut_ptr();
        // SAFETY: there is room for the payload; all of it is written where the checksum is right.
        let taken = unsafe {
            let taken = found.deliver(self.shared, out.into())?;
            payload.set_len(length);
            taken
        };
        if taken.is_none() {
            self.end_claim(cursor, claim, true)?;
            return Err(Stop::Corrupt(found.position));
        }
        let content = Content {
            flags: found.head.flags & record::TERM | record::DEAD_LETTER,
            extension: dead_letter(found.head.sequence, attempts.into()),
            payload: payload.as_ptr(),
            length,
        };
        let end = |change: &mut Change<S>| self.end_claim_with(cursor, claim, true, change);
        if self.fits_in_segment(content.room()) {
            // SAFETY: the payload is alive.
            unsafe { self.push_with(layout::DEAD, &content, end)? };
            return Ok(());
        }
        if !self.may_wait {
            return Err(Stop::Busy);
        }
        let reserved = self.reserve(layout::DEAD, &content)?;
        // SAFETY: as above.
        let crc = unsafe { super::tail::fill(self.shared, &content, &reserved)? };
        self.push_reserved_with(layout::DEAD, &content, reserved, crc, end)?;
        Ok(())
    }
}
