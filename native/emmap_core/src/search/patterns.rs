//! What is searched for, and how it is prepared: in steps, for it takes time in proportion to the bytes.

use std::time::{Duration, Instant};

use aho_corasick::{AhoCorasick, Input, MatchKind};
use memchr::memmem;

use super::automaton::{Automaton, Builder, Joined, ROOT};
use super::long::{Direction, Long};
use crate::{Errno, Result};

/// The bytes that one of several patterns may have, and one that is not [`Long`].
pub const MOST_OF_ONE: usize = 1 << 20;

/// The bytes that the patterns of a list may have together: an automaton takes some twenty times as much.
pub const MOST_IN_A_LIST: usize = 16 << 20;

/// How many patterns a list may have.
pub const MOST_PATTERNS: usize = 1 << 20;

/// The bytes of a list that is searched for forward, too: a table takes up to a kilobyte for each of them.
const MOST_IN_A_TABLE: usize = 4 << 10;

/// The beginning of a long pattern that is looked for first.
const BEGINNING: usize = 1 << 10;

/// What is searched for, prepared once for any number of searches.
pub struct Patterns {
    pub(super) kind: Kind,
    longest: usize,
}

pub(super) enum Kind {
    Byte(u8),
    One(Box<One>),
    Many(Box<Many>),
    Long(Box<LongPattern>),
}

pub(super) struct One {
    first: memmem::Finder<'static>,
    last: memmem::FinderRev<'static>,
}

pub(super) struct Many {
    /// Of a short list: it finds the first match faster.
    forward: Option<AhoCorasick>,
    behind: Automaton,
}

pub(super) struct LongPattern {
    pub bytes: Vec<u8>,
    pub beginning: memmem::Finder<'static>,
    pub forward: Option<Long>,
    pub backward: Option<Long>,
}

/// For which searches patterns are prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Any,
    Only(Direction),
}

/// Patterns that are being prepared.
pub struct Preparation {
    patterns: Joined,
    purpose: Purpose,
    stage: Stage,
}

enum Stage {
    Added,
    Many(Box<Builder>),
    Long(Vec<Long>, usize),
    Done,
}

impl Preparation {
    pub fn new(purpose: Purpose) -> Preparation {
        Preparation {
            patterns: Joined::default(),
            purpose,
            stage: Stage::Added,
        }
    }

    /// One pattern more. ENOMEM: memory is missing.
    pub fn add(&mut self, pattern: &[u8]) -> Result<()> {
        self.patterns.push(pattern)
    }

    /// More bytes of the only pattern, which will have `length` of them.
    pub fn append(&mut self, bytes: &[u8], length: usize) -> Result<()> {
        self.patterns.append(bytes, length)
    }

    /// Goes on until `until`, more or less. `None`: call again.
    ///
    /// EINVAL: the list or a pattern is empty. ENOMEM: the list is too large, or memory is missing.
    pub fn advance(&mut self, until: Instant) -> Result<Option<Patterns>> {
        if let Stage::Added = self.stage {
            let (longest, shortest) = self.patterns.extremes();
            if shortest == 0 {
                return Err(Errno::INVAL);
            }
            let bytes = self.patterns.bytes();
            self.stage = match self.patterns.count() {
                1 if longest > MOST_OF_ONE => Stage::Long(self.directions(longest)?, 0),
                1 => {
                    let kind = match bytes {
                        [byte] => Kind::Byte(*byte),
                        bytes => Kind::One(Box::new(One::new(bytes))),
                    };
                    return Ok(Some(Patterns { kind, longest }));
                }
                count if count > MOST_PATTERNS || bytes.len() > MOST_IN_A_LIST => {
                    return Err(Errno::NOMEM)
                }
                _ if longest > MOST_OF_ONE => return Err(Errno::NOMEM),
                _ => Stage::Many(Box::new(Builder::new(&self.patterns)?)),
            };
        }
        let is_done = match &mut self.stage {
            Stage::Many(builder) => builder.advance(&self.patterns, until),
            Stage::Long(tables, done) => {
                let bytes = self.patterns.bytes();
                while *done < tables.len() && tables[*done].advance(bytes, until) {
                    *done += 1;
                }
                *done == tables.len()
            }
            Stage::Added | Stage::Done => return Err(Errno::INVAL),
        };
        if !is_done {
            return Ok(None);
        }
        let longest = self.patterns.extremes().0;
        let kind = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Many(builder) => Kind::Many(Box::new(Many {
                forward: table(&self.patterns)?,
                behind: builder.finish(),
            })),
            Stage::Long(tables, _) => {
                let patterns = std::mem::take(&mut self.patterns);
                Kind::Long(Box::new(LongPattern::new(patterns.into_bytes(), tables)))
            }
            Stage::Added | Stage::Done => return Err(Errno::INVAL),
        };
        Ok(Some(Patterns { kind, longest }))
    }

    fn directions(&self, length: usize) -> Result<Vec<Long>> {
        let directions: &[Direction] = match &self.purpose {
            Purpose::Any => &[Direction::Forward, Direction::Backward],
            Purpose::Only(direction) => std::slice::from_ref(direction),
        };
        directions
            .iter()
            .map(|direction| Long::new(length, *direction))
            .collect()
    }
}

fn table(patterns: &Joined) -> Result<Option<AhoCorasick>> {
    if patterns.bytes().len() > MOST_IN_A_TABLE {
        return Ok(None);
    }
    let all = (0..patterns.count()).map(|number| patterns.get(number));
    let forward = AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(all);
    Ok(Some(forward.map_err(|_| Errno::NOMEM)?))
}

/// A match in a block: where it begins and ends.
pub(super) type Span = (usize, usize);

impl Patterns {
    /// All at once. Errors are those of [`Preparation::advance`].
    pub fn new<P: AsRef<[u8]>>(patterns: &[P]) -> Result<Patterns> {
        let mut preparation = Preparation::new(Purpose::Any);
        for pattern in patterns {
            preparation.add(pattern.as_ref())?;
        }
        loop {
            let until = Instant::now() + Duration::from_secs(1);
            if let Some(patterns) = preparation.advance(until)? {
                return Ok(patterns);
            }
        }
    }

    /// As if one pattern were long, or a list.
    #[cfg(test)]
    pub(super) fn otherwise<P: AsRef<[u8]>>(patterns: &[P]) -> Result<Patterns> {
        let until = Instant::now() + Duration::from_secs(60);
        let mut joined = Joined::default();
        for pattern in patterns {
            joined.push(pattern.as_ref())?;
        }
        let longest = joined.extremes().0;
        let kind = match patterns {
            [_] => {
                let mut tables = vec![
                    Long::new(longest, Direction::Forward)?,
                    Long::new(longest, Direction::Backward)?,
                ];
                let advance = |table: &mut Long| table.advance(joined.bytes(), until);
                assert!(tables.iter_mut().all(advance));
                Kind::Long(Box::new(LongPattern::new(joined.into_bytes(), tables)))
            }
            _ => {
                let mut builder = Builder::new(&joined)?;
                assert!(builder.advance(&joined, until));
                let (forward, behind) = (None, builder.finish());
                Kind::Many(Box::new(Many { forward, behind }))
            }
        };
        Ok(Patterns { kind, longest })
    }

    /// The bytes that they take, about.
    pub fn memory(&self) -> usize {
        match &self.kind {
            Kind::Byte(_) => 0,
            Kind::One(_) => 2 * self.longest,
            Kind::Many(many) => {
                let forward = many.forward.as_ref().map_or(0, AhoCorasick::memory_usage);
                forward + many.behind.memory()
            }
            Kind::Long(long) => {
                let tables = long.forward.iter().chain(&long.backward);
                long.bytes.len() + tables.map(Long::memory).sum::<usize>()
            }
        }
    }

    /// The bytes of the longest pattern.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Calls `found` with each match that begins in the first `starts` bytes, in order, until it says `false`. Takes time
    /// in proportion to the bytes, whatever the patterns. `lengths` is memory to be used again.
    pub(super) fn each(
        &self,
        bytes: &[u8],
        starts: usize,
        lengths: &mut Vec<u32>,
        mut found: impl FnMut(Span) -> bool,
    ) {
        match &self.kind {
            Kind::Byte(byte) => {
                memchr::memchr_iter(*byte, &bytes[..starts]).all(|at| found((at, at + 1)));
            }
            Kind::One(one) => {
                let len = self.longest;
                let all = one.first.find_iter(bytes).take_while(|at| *at < starts);
                all.map(|at| (at, at + len)).all(found);
            }
            Kind::Many(many) => many.each(bytes, starts, self.longest, lengths, found),
            // Searched for in another way.
            Kind::Long(_) => (),
        }
    }

    /// The match that begins last, of those that begin in the first `starts` bytes.
    pub(super) fn last(&self, bytes: &[u8], starts: usize) -> Option<Span> {
        match &self.kind {
            Kind::Byte(byte) => memchr::memrchr(*byte, &bytes[..starts]).map(|at| (at, at + 1)),
            Kind::One(one) => {
                // Forward is several times as fast, and most blocks have none.
                let bytes = &bytes[..bytes.len().min(starts + self.longest - 1)];
                one.first.find(bytes)?;
                one.last.rfind(bytes).map(|at| (at, at + self.longest))
            }
            Kind::Many(many) => many.last(bytes, starts),
            Kind::Long(_) => None,
        }
    }
}

impl One {
    fn new(bytes: &[u8]) -> One {
        One {
            first: memmem::Finder::new(bytes).into_owned(),
            last: memmem::FinderRev::new(bytes).into_owned(),
        }
    }
}

impl Many {
    fn each(
        &self,
        bytes: &[u8],
        starts: usize,
        longest: usize,
        lengths: &mut Vec<u32>,
        mut found: impl FnMut(Span) -> bool,
    ) {
        let mut at = 0;
        if let Some(forward) = &self.forward {
            // To find a match, up to `longest` bytes behind it are read, and read again for the next one: so many
            // together as there are in the block, and no more.
            let mut again = bytes.len();
            while again >= longest {
                match forward.find(Input::new(bytes).range(at..)) {
                    Some(each) if each.start() < starts => {
                        at = each.end();
                        again -= longest;
                        if !found((each.start(), at)) {
                            return;
                        }
                    }
                    _ => return,
                }
            }
        }
        if at >= starts {
            return;
        }
        let (bytes, starts, before) = (&bytes[at..], starts - at, at);
        self.behind_each(bytes, starts, lengths);
        let mut at = 0;
        while at < starts {
            match lengths[at] as usize {
                0 => at += 1,
                length => {
                    let start = before + at;
                    if !found((start, start + length)) {
                        return;
                    }
                    at += length;
                }
            }
        }
    }

    /// The length of the longest pattern that begins at each of the first `starts` bytes, or 0.
    fn behind_each(&self, bytes: &[u8], starts: usize, lengths: &mut Vec<u32>) {
        lengths.clear();
        lengths.resize(starts, 0);
        let mut state = ROOT;
        for byte in bytes[starts..].iter().rev() {
            state = self.behind.next(state, *byte);
        }
        for (byte, length) in bytes[..starts].iter().zip(lengths).rev() {
            state = self.behind.next(state, *byte);
            if state != ROOT {
                *length = self.behind.longest(state) as u32;
            }
        }
    }

    fn last(&self, bytes: &[u8], starts: usize) -> Option<Span> {
        if let Some(forward) = &self.forward {
            forward.find(bytes)?;
        }
        let mut state = ROOT;
        for byte in bytes[starts..].iter().rev() {
            state = self.behind.next(state, *byte);
        }
        for (at, byte) in bytes[..starts].iter().enumerate().rev() {
            state = self.behind.next(state, *byte);
            let length = self.behind.longest(state);
            if length > 0 {
                return Some((at, at + length));
            }
        }
        None
    }
}

impl LongPattern {
    fn new(bytes: Vec<u8>, tables: Vec<Long>) -> LongPattern {
        let beginning = memmem::Finder::new(&bytes[..BEGINNING.min(bytes.len())]).into_owned();
        let (mut forward, mut backward) = (None, None);
        for table in tables {
            match table.direction() {
                Direction::Forward => forward = Some(table),
                Direction::Backward => backward = Some(table),
            }
        }
        LongPattern {
            bytes,
            beginning,
            forward,
            backward,
        }
    }
}
