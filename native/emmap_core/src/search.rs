//! Patterns of bytes in a map: the first, the last, all of them, how many.
//!
//! What is found is what OTP's `binary:match` and `binary:matches` find: the leftmost match, of
//! several that begin there the longest, and the next one behind its end.
//!
//! The map changes under us, so nothing searches in it: block after block is copied to memory of
//! our own that stays in the processor's cache, as a search that reads its file does it. Each
//! block is read with the bytes behind it that a pattern which begins in it can reach.

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};
use memchr::memmem;

use crate::region::{Read, Wait};
use crate::{Errno, Region, Result};

/// Bytes copied at a time.
const BLOCK: usize = 128 << 10;

/// The bytes that the patterns of one list may have together: an automaton takes up to a hundred
/// times as much.
pub const MOST_IN_A_LIST: usize = 1 << 20;

/// The bytes of a list whose automaton may be a table, which is the fastest and takes up to a
/// kilobyte for each of them.
const MOST_IN_A_TABLE: usize = 4 << 10;
const COMPACT: AhoCorasickKind = AhoCorasickKind::ContiguousNFA;

/// What one match costs besides its bytes, as so many bytes that are searched.
const COST_OF_A_MATCH: usize = 64;

/// What is searched for, prepared once for any number of searches.
pub struct Patterns {
    kind: Kind,
    longest: usize,
}

enum Kind {
    Byte(u8),
    One(Box<One>),
    Many(AhoCorasick),
}

struct One {
    first: memmem::Finder<'static>,
    last: memmem::FinderRev<'static>,
}

/// A match in a block: where it begins and ends.
type Span = (usize, usize);

impl Patterns {
    /// EINVAL: there is none, or one is empty. ENOMEM: a list of them is too large.
    pub fn new<P: AsRef<[u8]>>(patterns: &[P]) -> Result<Patterns> {
        let lengths = || patterns.iter().map(|pattern| pattern.as_ref().len());
        let longest = lengths().max().unwrap_or(0);
        if lengths().min().unwrap_or(0) == 0 {
            return Err(Errno::INVAL);
        }
        let kind = match patterns {
            [one] => match one.as_ref() {
                [byte] => Kind::Byte(*byte),
                bytes => Kind::One(Box::new(One {
                    first: memmem::Finder::new(bytes).into_owned(),
                    last: memmem::FinderRev::new(bytes).into_owned(),
                })),
            },
            many if lengths().sum::<usize>() > MOST_IN_A_LIST || many.len() > MOST_IN_A_LIST => {
                return Err(Errno::NOMEM)
            }
            many => Kind::Many(
                AhoCorasick::builder()
                    .match_kind(MatchKind::LeftmostLongest)
                    .kind((lengths().sum::<usize>() > MOST_IN_A_TABLE).then_some(COMPACT))
                    .build(many)
                    .map_err(|_| Errno::NOMEM)?,
            ),
        };
        Ok(Patterns { kind, longest })
    }

    /// The bytes that they take, about.
    pub fn memory(&self) -> usize {
        match &self.kind {
            Kind::Byte(_) => 0,
            Kind::One(_) => 2 * self.longest,
            Kind::Many(many) => many.memory_usage(),
        }
    }

    /// The bytes of the longest pattern.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Calls `found` with each match, in order, until it says `false`.
    fn each(&self, bytes: &[u8], mut found: impl FnMut(Span) -> bool) {
        match &self.kind {
            Kind::Byte(byte) => {
                memchr::memchr_iter(*byte, bytes).all(|at| found((at, at + 1)));
            }
            Kind::One(one) => {
                let len = self.longest;
                one.first.find_iter(bytes).all(|at| found((at, at + len)));
            }
            Kind::Many(many) => {
                many.find_iter(bytes)
                    .all(|each| found((each.start(), each.end())));
            }
        }
    }

    /// The match that begins last.
    fn last(&self, bytes: &[u8]) -> Option<Span> {
        match &self.kind {
            Kind::Byte(byte) => memchr::memrchr(*byte, bytes).map(|at| (at, at + 1)),
            Kind::One(one) => {
                // Forward is several times as fast, and most blocks have none.
                one.first.find(bytes)?;
                one.last.rfind(bytes).map(|at| (at, at + self.longest))
            }
            Kind::Many(many) => {
                let mut last = many.find_iter(bytes).last()?;
                // Others may begin inside of it.
                while let Some(later) = many.find(Input::new(bytes).range(last.start() + 1..)) {
                    last = later;
                }
                Some((last.start(), last.end()))
            }
        }
    }

    /// What finding one match costs: to know the longest, bytes behind it are looked at.
    fn cost_of_a_match(&self) -> usize {
        match self.kind {
            Kind::Many(_) => COST_OF_A_MATCH + self.longest,
            _ => COST_OF_A_MATCH,
        }
    }
}

/// `len` bytes at `position`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    pub position: u64,
    pub len: usize,
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// All was searched, or enough was found.
    Done,
    /// Its budget was used up: to be continued here, with a new one.
    Paused(u64),
    /// Another copy is in the way; call again with [`Wait::Yes`].
    Busy,
}

/// A place to search, and how.
pub struct Searcher<'a> {
    region: &'a Region,
    patterns: &'a Patterns,
    wait: Wait,
    /// How many bytes to look at before pausing, about.
    budget: usize,
    /// In how many bytes of a block a match may begin.
    step: usize,
}

impl<'a> Searcher<'a> {
    pub fn new(
        region: &'a Region,
        patterns: &'a Patterns,
        wait: Wait,
        budget: usize,
    ) -> Searcher<'a> {
        let step = BLOCK.max(patterns.longest);
        Searcher {
            region,
            patterns,
            wait,
            budget,
            step,
        }
    }

    /// Calls `found` with each match in `from .. stop`, in order, until it says `false`.
    pub fn each(
        &self,
        from: u64,
        stop: u64,
        mut found: impl FnMut(Match) -> bool,
    ) -> Result<Search> {
        let cost = self.patterns.cost_of_a_match();
        self.forward(from, stop, |at, bytes, starts, spent| {
            let (mut behind, mut enough) = (0, false);
            self.patterns.each(bytes, |(start, end)| {
                if start >= starts {
                    return false;
                }
                behind = end;
                *spent += cost;
                enough = !found(Match {
                    position: at + start as u64,
                    len: end - start,
                });
                !enough && *spent < self.budget
            });
            match (enough, *spent < self.budget) {
                (true, _) => After::Done,
                (false, true) => After::Next(behind.max(starts)),
                (false, false) => After::Next(behind),
            }
        })
    }

    /// Adds how many matches there are in `from .. stop` to `count`.
    pub fn count(&self, from: u64, stop: u64, count: &mut u64) -> Result<Search> {
        match self.patterns.kind {
            // Found in bundles, not one by one.
            Kind::Byte(byte) => self.forward(from, stop, |_, bytes, starts, _| {
                *count += memchr::memchr_iter(byte, &bytes[..starts]).count() as u64;
                After::Next(starts)
            }),
            _ => self.each(from, stop, |_| {
                *count += 1;
                true
            }),
        }
    }

    /// The match that begins last in `from .. stop`, if it begins before `before`. Paused, it is to
    /// be continued with what it says as `before`.
    pub fn last(&self, from: u64, before: u64, stop: u64) -> Result<(Search, Option<Match>)> {
        let mut block = Vec::new();
        let stop = stop.min(self.region.len() as u64);
        let mut before = before.min(stop);
        let mut spent = 0;
        while from < before {
            if spent >= self.budget {
                return Ok((Search::Paused(before), None));
            }
            let at = before.saturating_sub(self.step as u64).max(from);
            let reach = before.saturating_add(self.patterns.longest as u64 - 1);
            let Some(bytes) = self.read(&mut block, at, reach.min(stop))? else {
                return Ok((Search::Busy, None));
            };
            if let Some((start, end)) = self.patterns.last(bytes) {
                let (position, len) = (at + start as u64, end - start);
                return Ok((Search::Done, Some(Match { position, len })));
            }
            spent += (before - at) as usize;
            before = at;
        }
        Ok((Search::Done, None))
    }

    /// The bytes of a block: those in which a match begins, and those that it can reach.
    fn whole(&self) -> usize {
        self.step + self.patterns.longest - 1
    }

    /// Calls `look` with block after block: its position, its bytes, in how many of them a match
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
            if spent >= self.budget {
                return Ok(Search::Paused(at));
            }
            let Some(bytes) = self.read(&mut block, at, stop)? else {
                return Ok(Search::Busy);
            };
            // In the last block a match may begin anywhere; in others where its end is in sight.
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

    /// The bytes of `at .. stop`, at most a whole block; `None` when another copy is in the way.
    fn read<'b>(&self, block: &'b mut Vec<u8>, at: u64, stop: u64) -> Result<Option<&'b [u8]>> {
        let count = usize::try_from(stop - at).unwrap_or(usize::MAX);
        let count = count.min(self.whole());
        block.clear();
        block.try_reserve_exact(count).map_err(|_| Errno::NOMEM)?;
        let to = block.as_mut_ptr();
        let read = self.region.reading(|| {
            let Some((start, count)) = self.region.locate(at, count) else {
                return Ok(Read::Done(0));
            };
            // SAFETY: the block has room for `count` bytes, and is ours.
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

/// What to do behind a block.
enum After {
    /// Go on so many bytes behind its beginning.
    Next(usize),
    Done,
}

#[cfg(test)]
mod tests;
