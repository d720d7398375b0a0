//! Which of many patterns begins at each position, the longest of several: an automaton of Aho and Corasick over the
//! reversed patterns, which reads the bytes from behind.
//!
//! Read forward, an automaton knows that a match is the longest only after it has looked at what follows, and has to
//! come back for the next one: with patterns of which one begins another, each byte is read again for each match.
//! Read from behind, a position is reached when everything behind it is known, so each byte is read once.
//!
//! It is built level by level. A state's children are made one after the other, so their numbers follow each other, and
//! a state needs no more than the number of the first. Building takes time in proportion to the bytes of the patterns,
//! and is done in steps.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Instant;

use crate::{Errno, Result};

/// The automaton that has read nothing.
pub const ROOT: u32 = 0;

/// Expansions between two looks at the clock.
const UNWATCHED: usize = 256;

/// Patterns that are sorted by a byte without counting.
const FEW: usize = 64;

#[derive(Clone, Copy, Default)]
struct State {
    /// Its children are those from here to the first child of the next state.
    children: u32,
    /// The state of what was read without its first byte.
    shorter: u32,
    /// The length of the longest pattern that was just read; 0: none.
    longest: u32,
}

pub struct Automaton {
    states: Vec<State>,
    /// The byte that leads to each state.
    bytes: Vec<u8>,
    /// The children of the root.
    root: Box<[u32; 256]>,
}

impl Automaton {
    /// The state after `byte`. Over a whole text it takes constant time for each byte.
    #[inline]
    pub fn next(&self, mut state: u32, byte: u8) -> u32 {
        while state != ROOT {
            if let Some(child) = self.child(state, byte) {
                return child;
            }
            state = self.states[state as usize].shorter;
        }
        self.root[usize::from(byte)]
    }

    /// The length of the longest pattern that begins where `state` was reached.
    #[inline]
    pub fn longest(&self, state: u32) -> usize {
        self.states[state as usize].longest as usize
    }

    /// The bytes that it takes, about.
    pub fn memory(&self) -> usize {
        self.states.capacity() * size_of::<State>()
            + self.bytes.capacity()
            + size_of_val(&*self.root)
    }

    #[inline]
    fn child(&self, state: u32, byte: u8) -> Option<u32> {
        const SCANNED: usize = 16;
        let state = state as usize;
        let first = self.states[state].children as usize;
        let children = &self.bytes[first..self.states[state + 1].children as usize];
        let found = match children.len() {
            0..=SCANNED => children.iter().position(|each| *each == byte),
            _ => children.binary_search(&byte).ok(),
        };
        found.map(|at| (first + at) as u32)
    }
}

/// Patterns one behind the other.
#[derive(Default)]
pub struct Joined {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Joined {
    pub fn push(&mut self, pattern: &[u8]) -> Result<()> {
        self.bytes
            .try_reserve(pattern.len())
            .map_err(|_| Errno::NOMEM)?;
        self.ends.try_reserve(1).map_err(|_| Errno::NOMEM)?;
        self.bytes.extend_from_slice(pattern);
        self.ends.push(self.bytes.len());
        Ok(())
    }

    /// More bytes of the only pattern, which will have `length` of them.
    pub fn append(&mut self, bytes: &[u8], length: usize) -> Result<()> {
        let rest = length.max(bytes.len()) - self.bytes.len().min(length);
        self.bytes
            .try_reserve_exact(rest)
            .map_err(|_| Errno::NOMEM)?;
        self.bytes.extend_from_slice(bytes);
        self.ends.clear();
        self.ends.push(self.bytes.len());
        Ok(())
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The lengths of the longest and of the shortest one; of none, 0.
    pub fn extremes(&self) -> (usize, usize) {
        let mut start = 0;
        let lengths = self
            .ends
            .iter()
            .map(|end| end - std::mem::replace(&mut start, *end));
        let extremes = lengths.fold((0, usize::MAX), |(most, least), length| {
            (most.max(length), least.min(length))
        });
        if self.ends.is_empty() {
            (0, 0)
        } else {
            extremes
        }
    }

    pub fn count(&self) -> usize {
        self.ends.len()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn range(&self, pattern: u32) -> Range<usize> {
        let pattern = pattern as usize;
        let start = if pattern == 0 {
            0
        } else {
            self.ends[pattern - 1]
        };
        start..self.ends[pattern]
    }

    pub fn get(&self, pattern: usize) -> &[u8] {
        &self.bytes[self.range(pattern as u32)]
    }

    /// The byte before the last `depth` ones of a pattern; `None`: it has no more.
    #[inline]
    fn byte_from_behind(&self, pattern: u32, depth: usize) -> Option<u8> {
        let range = self.range(pattern);
        (depth < range.len()).then(|| self.bytes[range.end - 1 - depth])
    }
}

/// An automaton that is being built.
pub struct Builder {
    built: Automaton,
    /// The patterns, those with the same end next to each other as far as the levels go that were built.
    order: Vec<u32>,
    /// The patterns of each state that has no children yet, from state `states.len()` on.
    waiting: VecDeque<(u32, u32)>,
    /// What the waiting states lead on from when their last byte is left out.
    shorter: VecDeque<u32>,
    depth: usize,
    /// The first state of the next level.
    next_level: usize,
    sorted: Vec<u32>,
}

impl Builder {
    /// ENOMEM: memory is missing for the states of these patterns.
    pub fn new(patterns: &Joined) -> Result<Builder> {
        let most = patterns.bytes().len() + 2;
        let count = u32::try_from(patterns.count()).map_err(|_| Errno::NOMEM)?;
        let mut builder = Builder {
            built: Automaton {
                states: Vec::new(),
                bytes: Vec::new(),
                root: Box::new([ROOT; 256]),
            },
            order: Vec::new(),
            waiting: VecDeque::from([(0, count)]),
            shorter: VecDeque::from([ROOT]),
            depth: 0,
            next_level: 1,
            sorted: Vec::new(),
        };
        let states = builder.built.states.try_reserve_exact(most);
        let bytes = builder.built.bytes.try_reserve_exact(most);
        let order = builder.order.try_reserve_exact(count as usize);
        states.and(bytes).and(order).map_err(|_| Errno::NOMEM)?;
        builder.order.extend(0..count);
        builder.built.bytes.push(0);
        Ok(builder)
    }

    /// Goes on until `until`. Whether it is done.
    pub fn advance(&mut self, patterns: &Joined, until: Instant) -> bool {
        loop {
            for _ in 0..UNWATCHED {
                let Some((first, end)) = self.waiting.pop_front() else {
                    return true;
                };
                self.expand(patterns, first as usize..end as usize);
            }
            if Instant::now() >= until {
                return false;
            }
        }
    }

    pub fn finish(mut self) -> Automaton {
        let children = self.built.bytes.len() as u32;
        let end = State {
            children,
            ..State::default()
        };
        self.built.states.push(end);
        self.built
    }

    /// Makes the next state, of these patterns, and numbers its children.
    fn expand(&mut self, patterns: &Joined, mut range: Range<usize>) {
        let state = self.built.states.len();
        if state == self.next_level {
            self.depth += 1;
            self.next_level = self.built.bytes.len();
        }
        let shorter = self.shorter.pop_front().unwrap_or(ROOT);
        let children = self.built.bytes.len() as u32;
        let depth = self.depth;
        // Those that are no longer than this come first.
        let mut ended = range.start;
        for at in range.clone() {
            if patterns.byte_from_behind(self.order[at], depth).is_none() {
                self.order.swap(at, ended);
                ended += 1;
            }
        }
        let longest = match ended > range.start {
            true => depth as u32,
            false if state == 0 => 0,
            false => self.built.states[shorter as usize].longest,
        };
        self.built.states.push(State {
            children,
            shorter,
            longest,
        });
        range.start = ended;
        self.sort(patterns, range.clone());
        let mut first = range.start;
        while first < range.end {
            let byte = patterns
                .byte_from_behind(self.order[first], depth)
                .unwrap_or(0);
            let mut end = first + 1;
            while end < range.end && patterns.byte_from_behind(self.order[end], depth) == Some(byte)
            {
                end += 1;
            }
            self.child(state as u32, shorter, byte, first..end);
            first = end;
        }
    }

    fn child(&mut self, parent: u32, shorter: u32, byte: u8, range: Range<usize>) {
        let child = self.built.bytes.len() as u32;
        let shorter = match parent {
            ROOT => ROOT,
            _ => self.shorter_child(shorter, byte),
        };
        if parent == ROOT {
            self.built.root[usize::from(byte)] = child;
        }
        self.built.bytes.push(byte);
        self.waiting
            .push_back((range.start as u32, range.end as u32));
        self.shorter.push_back(shorter);
    }

    /// As [`Automaton::next`], of a state of an earlier level: the one behind it is made, so its children are known.
    fn shorter_child(&self, state: u32, byte: u8) -> u32 {
        debug_assert!((state as usize) + 1 < self.built.states.len() || state == ROOT);
        self.built.next(state, byte)
    }

    /// Sorts a state's patterns by their next byte from behind. All of them have one.
    fn sort(&mut self, patterns: &Joined, range: Range<usize>) {
        let depth = self.depth;
        let byte = |pattern: &u32| patterns.byte_from_behind(*pattern, depth).unwrap_or(0);
        let order = &mut self.order[range];
        match order.len() {
            0 | 1 => (),
            2..=FEW => order.sort_unstable_by_key(byte),
            _ => {
                let mut starts = [0usize; 257];
                for pattern in order.iter() {
                    starts[usize::from(byte(pattern)) + 1] += 1;
                }
                for at in 1..257 {
                    starts[at] += starts[at - 1];
                }
                self.sorted.clear();
                self.sorted.extend_from_slice(order);
                for pattern in &self.sorted {
                    let start = &mut starts[usize::from(byte(pattern))];
                    order[*start] = *pattern;
                    *start += 1;
                }
            }
        }
    }
}
