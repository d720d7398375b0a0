//! Sorts more than fits in memory: sorted runs are written to a file, and merged when all items are there. A large number
//! of runs is merged to one in between.

use std::time::Instant;

use super::items::{parse_prefix, prefix, Item, Order, PREFIX};
use super::merge::{Merge, Run};
use crate::store::Medium;
use crate::{Errno, Result};

/// The most runs that are merged at once. Each has a buffer.
const MOST_RUNS: usize = 256;
/// The memory of an item in addition to its bytes.
const PLACE: usize = size_of::<Place>();
const WRITTEN_AT_ONCE: usize = 256 << 10;
/// The memory of the buffers while the items in memory stay there.
const JOIN_MEMORY: usize = 4 << 20;

/// Where an item is in memory, and its rank.
#[derive(Clone, Copy)]
struct Place {
    rank: u64,
    at: u32,
}

enum State<M> {
    /// Items are added.
    Open,
    /// The items in memory are being written from this one on, to a run that begins here.
    Writing {
        next: usize,
        start: u64,
    },
    /// All runs of a level are being merged to one run of this level, which begins here.
    Joining {
        merge: Merge<M>,
        level: usize,
        start: u64,
    },
    /// The items in memory are taken, in order: nothing was written to runs.
    InMemory(usize),
    Merging(Merge<M>),
}

/// A file of runs.
pub struct Level<M> {
    pub file: M,
    pub end: u64,
    pub runs: Vec<Run>,
}

pub struct Sorter<M> {
    order: Order,
    room: usize,
    arena: Vec<u8>,
    places: Vec<Place>,
    buffer: Vec<u8>,
    /// The runs of the first level were written from memory, the others are merged from the level before, and older.
    levels: Vec<Option<Level<M>>>,
    state: State<M>,
    /// The items in memory have to be written before there is room for another.
    full: bool,
    taken: u64,
}

impl<M: Medium> Sorter<M> {
    pub fn new(order: Order, room: usize) -> Sorter<M> {
        Sorter {
            order,
            // A place is an offset of 32 bits.
            room: room.min(u32::MAX as usize),
            arena: Vec::new(),
            places: Vec::new(),
            buffer: Vec::new(),
            levels: Vec::new(),
            state: State::Open,
            full: false,
            taken: 0,
        }
    }

    /// Whether there is room for an item of this many bytes. If not, [`Sorter::advance`] makes room.
    #[inline]
    pub fn has_room(&mut self, bytes: usize) -> bool {
        let used = self.arena.len() + self.places.len() * PLACE;
        self.full |= used + PREFIX + bytes + PLACE > self.room && !self.places.is_empty();
        !self.full
    }

    /// Adds an item. There must be room for it.
    pub fn add(&mut self, item: Item) {
        if self.arena.capacity() == 0 && self.room > 1 << 20 {
            // Not moved while it grows. Pages that are not touched take no memory.
            self.arena.reserve(self.room);
        }
        let place = Place {
            rank: self.order.rank(item.bytes),
            at: self.arena.len() as u32,
        };
        append(&mut self.arena, item);
        self.places.push(place);
    }

    /// Goes on until a moment. `true`: there is room for an item, or, with `last`, [`Sorter::next`] returns the items.
    pub fn advance(
        &mut self,
        last: bool,
        until: Instant,
        mut create: impl FnMut() -> Result<M>,
    ) -> Result<bool> {
        loop {
            match &self.state {
                State::InMemory(_) | State::Merging(_) => return Ok(true),
                State::Open if !last && !self.full => return Ok(true),
                State::Open if last && self.levels.is_empty() => {
                    self.sort();
                    self.state = State::InMemory(0);
                }
                State::Open if last && self.places.is_empty() => self.begin_merge()?,
                State::Open => self.begin_run(&mut create)?,
                State::Writing { .. } => self.write_run()?,
                State::Joining { .. } => self.join()?,
            }
            if Instant::now() >= until {
                return Ok(matches!(self.state, State::InMemory(_) | State::Merging(_)));
            }
        }
    }

    /// The next item, in order; only after [`Sorter::advance`] with `last`.
    pub fn next(&mut self) -> Result<Option<Item<'_>>> {
        self.taken += 1;
        match &mut self.state {
            State::InMemory(next) => match self.places.get(*next) {
                Some(place) => {
                    *next += 1;
                    Ok(Some(item_at(&self.arena, place.at)))
                }
                None => {
                    self.taken -= 1;
                    Ok(None)
                }
            },
            State::Merging(merge) => merge.next(),
            _ => Err(Errno::INVAL),
        }
    }

    /// How many items were taken with [`Sorter::next`].
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Releases memory and files.
    pub fn clear(&mut self) {
        let taken = self.taken;
        *self = Sorter::new(self.order, self.room);
        self.taken = taken;
    }

    fn sort(&mut self) {
        let (arena, order) = (&self.arena, self.order);
        self.places.sort_unstable_by(|one, other| {
            let key = |place: &Place| order.key(item_at(arena, place.at).bytes);
            let by_rank = one.rank.cmp(&other.rank);
            let by_key = by_rank.then_with(|| key(one).cmp(key(other)));
            by_key.then(one.at.cmp(&other.at))
        });
    }

    fn begin_run(&mut self, create: &mut impl FnMut() -> Result<M>) -> Result<()> {
        if self.runs_of(0) >= MOST_RUNS {
            return self.begin_join(create);
        }
        let start = self.level(0, create)?.end;
        self.sort();
        self.state = State::Writing { next: 0, start };
        Ok(())
    }

    fn runs_of(&self, level: usize) -> usize {
        match self.levels.get(level) {
            Some(Some(level)) => level.runs.len(),
            _ => 0,
        }
    }

    /// A level, with a new file if it has none.
    fn level(
        &mut self,
        number: usize,
        create: impl FnOnce() -> Result<M>,
    ) -> Result<&mut Level<M>> {
        if self.levels.len() <= number {
            self.levels.resize_with(number + 1, || None);
        }
        let level = &mut self.levels[number];
        if level.is_none() {
            *level = Some(Level {
                file: create()?,
                end: 0,
                runs: Vec::new(),
            });
        }
        level.as_mut().ok_or(Errno::INVAL)
    }

    /// Begins to merge the first full level whose next level has room for the result.
    fn begin_join(&mut self, create: impl FnOnce() -> Result<M>) -> Result<()> {
        let mut full = 0;
        while self.runs_of(full + 1) >= MOST_RUNS {
            full += 1;
        }
        let start = self.level(full + 1, create)?.end;
        let level = self.levels[full].take().ok_or(Errno::INVAL)?;
        self.state = State::Joining {
            merge: Merge::new(self.order, vec![level], JOIN_MEMORY)?,
            level: full + 1,
            start,
        };
        Ok(())
    }

    fn join(&mut self) -> Result<()> {
        let State::Joining {
            merge,
            level,
            start,
        } = &mut self.state
        else {
            return Ok(());
        };
        let level = self.levels[*level].as_mut().ok_or(Errno::INVAL)?;
        self.buffer.clear();
        let mut ended = false;
        while self.buffer.len() < WRITTEN_AT_ONCE && !ended {
            match merge.next()? {
                Some(item) => append(&mut self.buffer, item),
                None => ended = true,
            }
        }
        level.file.write_at(level.end, &self.buffer)?;
        level.end += self.buffer.len() as u64;
        if ended {
            level.runs.push(Run {
                start: *start,
                end: level.end,
            });
            self.state = State::Open;
        }
        Ok(())
    }

    /// Merges all runs, from the oldest to the latest.
    fn begin_merge(&mut self) -> Result<()> {
        // The memory is used for buffers from here on.
        (self.arena, self.places) = (Vec::new(), Vec::new());
        let levels = std::mem::take(&mut self.levels);
        let levels = levels.into_iter().rev().flatten().collect();
        self.state = State::Merging(Merge::new(self.order, levels, self.room / 2)?);
        Ok(())
    }

    fn write_run(&mut self) -> Result<()> {
        let State::Writing { next, start } = &mut self.state else {
            return Ok(());
        };
        let level = self.levels[0].as_mut().ok_or(Errno::INVAL)?;
        self.buffer.clear();
        while self.buffer.len() < WRITTEN_AT_ONCE && *next < self.places.len() {
            let item = item_at(&self.arena, self.places[*next].at);
            append(&mut self.buffer, item);
            *next += 1;
        }
        level.file.write_at(level.end, &self.buffer)?;
        level.end += self.buffer.len() as u64;
        if *next == self.places.len() {
            let run = Run {
                start: *start,
                end: level.end,
            };
            level.runs.push(run);
            self.arena.clear();
            self.places.clear();
            self.full = false;
            self.state = State::Open;
        }
        Ok(())
    }
}

fn append(to: &mut Vec<u8>, item: Item) {
    to.extend_from_slice(&prefix(item));
    to.extend_from_slice(item.bytes);
}

fn item_at(arena: &[u8], at: u32) -> Item<'_> {
    let rest = arena.get(at as usize..).unwrap_or(&[]);
    let (len, apart) = parse_prefix(rest);
    Item {
        bytes: rest.get(PREFIX..PREFIX + len).unwrap_or(&[]),
        apart,
    }
}
