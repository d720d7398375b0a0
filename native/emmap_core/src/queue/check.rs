//! Checks the invariants of a queue, for tests and for checking a file.

use std::collections::BTreeSet;

use super::layout::{self, claim, cursor, halves, participant, stream, BITMAP};
use super::{Locked, Result};
use crate::store::{participants, Shared};

/// The invariant that is violated, or why it could not be checked.
pub type Checked = std::result::Result<(), String>;

fn told<T>(what: &str, result: Result<T>) -> std::result::Result<T, String> {
    result.map_err(|stop| format!("{what}: {stop:?}"))
}

fn holds(what: &str, holds: bool) -> Checked {
    match holds {
        true => Ok(()),
        false => Err(what.to_owned()),
    }
}

impl<S: Shared> Locked<'_, S> {
    /// Compares everything that is stored redundantly: the bitmap with the users of segments, and the lists of claims with
    /// their ends and counts.
    pub fn check(&self) -> Checked {
        let mut used = BTreeSet::new();
        for stream in 0..layout::STREAMS {
            self.check_stream(stream, &mut used)?;
        }
        for number in told("cursors", self.cursors())? {
            self.check_cursor(number, &mut used)?;
        }
        for slot in 0..participants::SLOTS {
            let at = participant::PLACE.of(slot) + participant::RESERVATION;
            let (number, span) = halves(told("reservation", self.word(at))?);
            let (number, span) = (u64::from(number), u64::from(span));
            let end = number + span;
            holds("a reservation", end <= layout::MOST_SEGMENTS)?;
            for number in number..end {
                holds("a segment is used twice", used.insert(number))?;
            }
        }
        self.check_pins()?;
        let segments = told("segments", self.segments().map_err(Into::into))?;
        for number in 0..segments {
            let word = told("bitmap", self.word(BITMAP + number / 64 * 8))?;
            let bit = word >> (number % 64) & 1 == 1;
            holds(
                &format!("bit of segment {number}"),
                bit == used.contains(&number),
            )?;
        }
        Ok(())
    }

    fn word(&self, at: u64) -> Result<u64> {
        Ok(self.load(at)?)
    }

    /// What a live binary shows is in a segment of the queue.
    fn check_pins(&self) -> Checked {
        let first = stream::at(layout::ITEMS) + stream::FIRST_SEGMENT;
        let first = told("first segment", self.word(first))?;
        match (first, told("pins", self.lowest_pinned())?) {
            (0, _) | (_, None) => Ok(()),
            (first, Some(lowest)) => {
                let first = told("segment", self.segment(first - 1).map_err(Into::into))?;
                holds("the segment of a live binary", first.start <= lowest)
            }
        }
    }

    fn check_stream(&self, number: usize, used: &mut BTreeSet<u64>) -> Checked {
        let at = stream::at(number);
        let first = told("first segment", self.word(at + stream::FIRST_SEGMENT))?;
        let last = told("tail segment", self.word(at + stream::SEGMENT))?;
        let tail = told("tail", self.word(at + stream::TAIL))?;
        let mut here = match first {
            0 => return holds("a tail without a first segment", last == 0),
            first => told("segment", self.segment(first - 1).map_err(Into::into))?,
        };
        loop {
            for inside in here.number..here.number + here.span {
                holds("a segment is used twice", used.insert(inside))?;
            }
            holds("the stream of a segment", here.stream == number)?;
            let next = told("next", self.next_segment(&here).map_err(Into::into))?;
            match next {
                None => break,
                Some(next) => {
                    holds("segments are in order", next.start >= here.end())?;
                    here = next;
                }
            }
        }
        holds("the chain ends at the tail", here.number + 1 == last)?;
        holds(
            "the tail is in its segment",
            (here.start..=here.end()).contains(&tail),
        )
    }

    fn check_cursor(&self, number: usize, used: &mut BTreeSet<u64>) -> Checked {
        let at = cursor::at(number);
        let word = |word| told("cursor", self.word(at + word));
        let tail = told(
            "tail",
            self.word(stream::at(layout::stream_of(number)) + stream::TAIL),
        )?;
        holds("the cursor is behind the tail", word(cursor::NEXT)? <= tail)?;
        for index in 0..cursor::MOST_CLAIM_SEGMENTS {
            let (high, low) = halves(word(cursor::CLAIM_SEGMENTS + index / 2 * 8)?);
            let segment = if index % 2 == 0 { low } else { high };
            if segment != 0 {
                let new = used.insert(u64::from(segment) - 1);
                holds("a segment of claims is used twice", new)?;
            }
        }
        let (outstanding, released) = halves(word(cursor::COUNTS)?);
        let all = self.check_list(number, cursor::OUTSTANDING, claim::OUTSTANDING)?;
        holds(
            "the count of outstanding claims",
            all.len() == outstanding as usize,
        )?;
        for claim in &all {
            let at = told("claim", self.claim_at(number, *claim).map_err(Into::into))?;
            let state = told("state", self.word(at + claim::STATE))?;
            let owner = participant::PLACE.of((state >> 8) as u32 & 0xff);
            let marked = told("mark", self.word(owner + participant::HAS_CLAIMS))? != 0;
            holds("others look for claims", state & 3 != 1 || marked)?;
        }
        let free = self.check_list(number, cursor::RELEASED, claim::RELEASED)?;
        holds(
            "the count of released claims",
            free.len() == released as usize,
        )?;
        let all: BTreeSet<u32> = all.into_iter().collect();
        holds(
            "released claims are outstanding",
            free.iter().all(|claim| all.contains(claim)),
        )
    }

    /// The claims of a list.
    fn check_list(
        &self,
        number: usize,
        ends: u64,
        neighbors: u64,
    ) -> std::result::Result<Vec<u32>, String> {
        let (first, last) = halves(told("ends", self.word(cursor::at(number) + ends))?);
        let (mut claims, mut before, mut here) = (Vec::new(), 0, first);
        let mut sequence = None;
        while here != 0 {
            let at = told("claim", self.claim_at(number, here - 1).map_err(Into::into))?;
            let (previous, next) = halves(told("neighbors", self.word(at + neighbors))?);
            holds("neighbors agree", previous == before)?;
            let own = told("sequence", self.word(at + claim::SEQUENCE))?;
            holds(
                "claims are in order",
                sequence.is_none_or(|before| before < own),
            )?;
            sequence = Some(own);
            claims.push(here - 1);
            (before, here) = (here, next);
        }
        holds("the list ends at its end", before == last)?;
        Ok(claims)
    }
}
