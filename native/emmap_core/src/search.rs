//! Patterns of bytes in a map: finds the first, the last, or all matches, or counts them.
//!
//! The matches are those of OTP's `binary:match` and `binary:matches`: the leftmost match, of
//! several that begin at the same position the longest, and the next one after its end.
//!
//! The map can change at any time, so nothing searches in the map itself. Instead, it is copied block by block to a
//! buffer that stays in the processor's cache, as in a search that reads a file. Each
//! block is read together with the bytes after it that a match which begins in the block can reach.

mod automaton;
mod long;
mod patterns;

use std::time::Instant;

pub use long::Direction;
pub use patterns::{Patterns, Preparation, Purpose, MOST_IN_A_LIST, MOST_OF_ONE, MOST_PATTERNS};

use crate::region::{Read, Wait};
use crate::{Errno, Region, Result};
use patterns::{Kind, LongPattern};

/// Bytes copied at a time.
const BLOCK: usize = 128 << 10;

/// The cost of one match in addition to its bytes, in bytes searched.
const COST_OF_A_MATCH: usize = 64;

/// `len` bytes at `position`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    pub position: u64,
    pub len: usize,
}

/// Where a search continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub position: u64,
    /// How many bytes of a long pattern were matched before it (after it, in a backward search).
    pub read: usize,
}

impl From<u64> for Place {
    fn from(position: u64) -> Place {
        Place { position, read: 0 }
    }
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// The whole range was searched, or enough was found.
    Done,
    /// Its budget was used up. It continues here, with a new budget.
    Paused(Place),
    /// Another copy is in the way; call again with [`Wait::Yes`].
    Busy,
}

/// About how much is searched before pausing: a number of bytes, or until a moment, whichever comes first.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    pub bytes: usize,
    pub until: Option<Instant>,
}

impl Budget {
    fn is_used_up(&self, spent: usize) -> bool {
        spent >= self.bytes || self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// When to leave a block with many matches before its end. To continue, the block is read again, so its matches must have
/// taken as long as reading it.
struct Pace {
    budget: Budget,
    /// When the block was begun, and when it had its first match.
    begun: Option<Instant>,
    first: Option<Instant>,
    matches: usize,
}

impl Pace {
    fn new(budget: Budget) -> Pace {
        Pace {
            budget,
            begun: budget.until.map(|_| Instant::now()),
            first: None,
            matches: 0,
        }
    }

    /// To be called after another match.
    #[inline]
    fn pauses(&mut self, spent: usize) -> bool {
        const UNWATCHED: usize = 256;
        let Some(begun) = self.begun else {
            return self.budget.is_used_up(spent);
        };
        self.matches += 1;
        match self.first {
            None => {
                self.first = Some(Instant::now());
                false
            }
            Some(first) => {
                self.matches.is_multiple_of(UNWATCHED)
                    && self.budget.is_used_up(spent)
                    && first.elapsed() >= first - begun
            }
        }
    }
}

/// The range to search, and how.
pub struct Searcher<'a> {
    region: &'a Region,
    patterns: &'a Patterns,
    wait: Wait,
    budget: Budget,
    /// How many bytes of a block are positions where a match may begin.
    step: usize,
}

impl<'a> Searcher<'a> {
    pub fn new(
        region: &'a Region,
        patterns: &'a Patterns,
        wait: Wait,
        budget: Budget,
    ) -> Searcher<'a> {
        let step = BLOCK.max(patterns.longest());
        Searcher {
            region,
            patterns,
            wait,
            budget,
            step,
        }
    }

    /// Calls `found` with each match in `from .. stop`, in order, until it returns `false`.
    pub fn each(
        &self,
        from: Place,
        stop: u64,
        mut found: impl FnMut(Match) -> bool,
    ) -> Result<Search> {
        if let Kind::Long(long) = &self.patterns.kind {
            return self.each_long(long, from, stop, found);
        }
        let mut lengths = Vec::new();
        self.forward(from.position, stop, |at, bytes, starts, spent| {
            let (mut behind, mut enough, mut pauses) = (0, false, false);
            let mut pace = Pace::new(self.budget);
            self.patterns
                .each(bytes, starts, &mut lengths, |(start, end)| {
                    behind = end;
                    *spent += COST_OF_A_MATCH;
                    enough = !found(Match {
                        position: at + start as u64,
                        len: end - start,
                    });
                    pauses = pace.pauses(*spent);
                    !enough && !pauses
                });
            match (enough, pauses) {
                (true, _) => After::Done,
                (false, true) => After::Next(behind),
                (false, false) => After::Next(behind.max(starts)),
            }
        })
    }

    /// Adds the number of matches in `from .. stop` to `count`.
    pub fn count(&self, from: Place, stop: u64, count: &mut u64) -> Result<Search> {
        match self.patterns.kind {
            // Found in bulk, not one by one.
            Kind::Byte(byte) => self.forward(from.position, stop, |_, bytes, starts, _| {
                *count += memchr::memchr_iter(byte, &bytes[..starts]).count() as u64;
                After::Next(starts)
            }),
            _ => self.each(from, stop, |_| {
                *count += 1;
                true
            }),
        }
    }

    /// The match that begins last in `from .. stop`, if it begins before `before`. If it is paused, it
    /// continues with the returned place as `before`.
    pub fn last(&self, from: u64, before: Place, stop: u64) -> Result<(Search, Option<Match>)> {
        let stop = stop.min(self.region.len() as u64);
        if let Kind::Long(long) = &self.patterns.kind {
            return self.last_long(long, from, before, stop);
        }
        let mut block = Vec::new();
        let mut before = before.position.min(stop);
        let mut spent = 0;
        while from < before {
            if spent > 0 && self.budget.is_used_up(spent) {
                return Ok((Search::Paused(before.into()), None));
            }
            let at = before.saturating_sub(self.step as u64).max(from);
            let reach = before.saturating_add(self.patterns.longest() as u64 - 1);
            let Some(bytes) = self.read(&mut block, at, reach.min(stop))? else {
                return Ok((Search::Busy, None));
            };
            let starts = bytes.len().min((before - at) as usize);
            if let Some((start, end)) = self.patterns.last(bytes, starts) {
                let (position, len) = (at + start as u64, end - start);
                return Ok((Search::Done, Some(Match { position, len })));
            }
            spent += (before - at) as usize;
            before = at;
        }
        Ok((Search::Done, None))
    }

    /// As [`Searcher::each`], for a long pattern.
    fn each_long(
        &self,
        long: &LongPattern,
        from: Place,
        stop: u64,
        mut found: impl FnMut(Match) -> bool,
    ) -> Result<Search> {
        let table = long.forward.as_ref().ok_or(Errno::INVAL)?;
        let (pattern, mut block) = (&long.bytes[..], Vec::new());
        let (mut at, mut spent, mut read) = (from.position, 0, from.read.min(pattern.len() - 1));
        loop {
            let stop = stop.min(self.region.len() as u64);
            if at >= stop {
                return Ok(Search::Done);
            }
            if spent > 0 && self.budget.is_used_up(spent) {
                let position = at;
                return Ok(Search::Paused(Place { position, read }));
            }
            let Some(bytes) = self.read(&mut block, at, stop)? else {
                return Ok(Search::Busy);
            };
            let (mut next, needle) = (0, long.beginning.needle().len());
            while next < bytes.len() {
                if read == 0 && bytes.len() - next >= needle {
                    // The last bytes may be the first bytes of a match.
                    let rest = bytes.len() - needle + 1;
                    next = match long.beginning.find(&bytes[next..]) {
                        Some(at) => next + at,
                        None => rest,
                    };
                }
                let Some(byte) = bytes.get(next) else {
                    break;
                };
                read = table.next(pattern, read, *byte);
                next += 1;
                if read == pattern.len() {
                    read = 0;
                    let len = pattern.len();
                    let position = at + next as u64 - len as u64;
                    if !found(Match { position, len }) {
                        return Ok(Search::Done);
                    }
                }
            }
            spent += bytes.len();
            at += bytes.len() as u64;
            if bytes.is_empty() {
                return Ok(Search::Done);
            }
        }
    }

    /// As [`Searcher::last`], for a long pattern. `before` is the end of the part that was not read yet.
    fn last_long(
        &self,
        long: &LongPattern,
        from: u64,
        before: Place,
        stop: u64,
    ) -> Result<(Search, Option<Match>)> {
        let table = long.backward.as_ref().ok_or(Errno::INVAL)?;
        let (pattern, mut block) = (&long.bytes[..], Vec::new());
        let (mut end, mut spent, mut read) = (
            before.position.min(stop),
            0,
            before.read.min(pattern.len() - 1),
        );
        while from < end {
            if spent > 0 && self.budget.is_used_up(spent) {
                let position = end;
                return Ok((Search::Paused(Place { position, read }), None));
            }
            let at = end.saturating_sub(self.block() as u64).max(from);
            let Some(bytes) = self.read(&mut block, at, end)? else {
                return Ok((Search::Busy, None));
            };
            // The map was shrunk in the meantime.
            if (bytes.len() as u64) < end - at {
                read = 0;
            }
            for (start, byte) in bytes.iter().enumerate().rev() {
                read = table.next(pattern, read, *byte);
                if read == pattern.len() {
                    let (position, len) = (at + start as u64, pattern.len());
                    return Ok((Search::Done, Some(Match { position, len })));
                }
            }
            spent += (end - at) as usize;
            end = at;
        }
        Ok((Search::Done, None))
    }

    /// The bytes of a block that is searched for a long pattern.
    fn block(&self) -> usize {
        match self.patterns.kind {
            Kind::Long(_) => BLOCK.min(self.step),
            _ => self.whole(),
        }
    }

    /// The bytes of a block: the positions where a match may begin, and the bytes that it can reach.
    fn whole(&self) -> usize {
        self.step + self.patterns.longest() - 1
    }

    /// Calls `look` with each block: its position, its bytes, in how many of them a match
    /// may begin, and what was spent so far.
    fn forward(
        &self,
        from: u64,
        stop: u64,
        mut look: impl FnMut(u64, &[u8], usize, &mut usize) -> After,
    ) -> Result<Search> {
        let mut block = Vec::new();
        let (mut at, mut spent) = (from, 0);
        loop {
            // It may have grown or shrunk.
            let stop = stop.min(self.region.len() as u64);
            if at >= stop {
                return Ok(Search::Done);
            }
            if spent > 0 && self.budget.is_used_up(spent) {
                return Ok(Search::Paused(at.into()));
            }
            let Some(bytes) = self.read(&mut block, at, stop)? else {
                return Ok(Search::Busy);
            };
            // In the last block, a match may begin anywhere; in others, only where its end is in the block.
            let starts = if bytes.len() < self.whole() {
                bytes.len()
            } else {
                self.step
            };
            if starts == 0 {
                return Ok(Search::Done);
            }
            match look(at, bytes, starts, &mut spent) {
                After::Done => return Ok(Search::Done),
                After::Next(next) => {
                    spent += next;
                    at += next as u64;
                }
            }
        }
    }

    /// The bytes of `at .. stop`, at most a whole block; `None` if another copy is in the way.
    fn read<'b>(&self, block: &'b mut Vec<u8>, at: u64, stop: u64) -> Result<Option<&'b [u8]>> {
        let count = usize::try_from(stop - at).unwrap_or(usize::MAX);
        let count = count.min(self.block());
        block.clear();
        block.try_reserve_exact(count).map_err(|_| Errno::NOMEM)?;
        let to = block.as_mut_ptr();
        let read = self.region.reading(|| {
            let Some((start, count)) = self.region.locate(at, count) else {
                return Ok(Read::Done(0));
            };
            // SAFETY: the block has room for `count` bytes, and is not shared.
            Ok::<_, Errno>(unsafe { self.region.copy_out(start, count, to, self.wait) })
        })?;
        match read {
            Read::Busy => Ok(None),
            Read::Done(got) => {
                // SAFETY: that many bytes were just written.
                unsafe { block.set_len(got) };
                Ok(Some(block))
            }
        }
    }
}

/// What to do after a block.
enum After {
    /// Continue this many bytes after its beginning.
    Next(usize),
    Done,
}

#[cfg(test)]
mod tests;
