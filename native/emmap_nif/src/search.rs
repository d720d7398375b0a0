//! The NIFs of searches.
//!
//! A long search consists of many calls: each searches for a few milliseconds on a dirty CPU scheduler and returns where
//! to continue. The same applies to preparing many patterns, or long ones. So other work gets its turn, and killing the
//! process or closing the handle soon ends the search.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use emmap_core::region::Wait;
use emmap_core::search::{
    Budget, Direction, Match, Patterns, Place, Preparation, Purpose, Search, Searcher,
};
use emmap_core::{Errno, Region};
use rustler::sys::ErlNifTerm;
use rustler::types::atom;
use rustler::{Binary, Encoder, Env, NifResult, NifUnitEnum, Resource, ResourceArc, Term};

use crate::hot::{hot_nif, Call, Early, Scheduler, AT_ONCE_DIRTY, INLINE_BYTES};
use crate::resource::{drop_elsewhere, new_patterns};
use crate::terms::{self, ArgumentError};

hot_nif!("search_find" / 5 = find, DirtyCpu);
hot_nif!("search_rfind" / 6 = rfind, DirtyCpu);
hot_nif!("search_all" / 6 = all, DirtyCpu);
hot_nif!("search_count" / 5 = count, DirtyCpu);

/// How many bytes a call searches. Each match counts as additional bytes.
const BUDGET_INLINE: usize = 4 * INLINE_BYTES;
const BUDGET_LONG: usize = 16 << 20;

/// How long a call on a normal scheduler searches.
const AT_ONCE_INLINE: Duration = Duration::from_micros(500);

/// Patterns above this length are not searched for on a normal scheduler.
const LONGEST_INLINE: usize = 1024;

const TOO_LARGE: ArgumentError = ArgumentError(
    "the patterns of a list are too many or too long for the memory there is",
    0,
);

// For few patterns, in microseconds. They must not be live, because they are used as slices, which must not change.
#[rustler::nif(schedule = "Normal")]
fn search_patterns_few<'a>(env: Env<'a>, patterns: Vec<Binary<'a>>) -> NifResult<Term<'a>> {
    let patterns: Vec<&[u8]> = patterns.iter().map(Binary::as_slice).collect();
    let patterns = Patterns::new(&patterns).map_err(bad_patterns)?;
    Ok(new_patterns(env, patterns))
}

fn bad_patterns(error: Errno) -> rustler::Error {
    match error {
        Errno::INVAL => (&ArgumentError("a pattern has one byte at least", 0)).into(),
        _ => (&TOO_LARGE).into(),
    }
}

/// Patterns that are being prepared; `None` after that.
struct Preparing(Mutex<Option<Preparation>>);

#[rustler::resource_impl(name = "emmap_preparing")]
impl Resource for Preparing {}

impl Preparing {
    fn lock(&self) -> MutexGuard<'_, Option<Preparation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Preparing {
    fn drop(&mut self) {
        // The process that prepared them was killed.
        if let Some(preparation) = self.lock().take() {
            drop_elsewhere(preparation, true);
        }
    }
}

/// Keeps the type for the life of the VM: see `resource::keep_types`.
pub fn keep_type() {
    std::mem::forget(ResourceArc::new(Preparing(Mutex::new(None))));
}

#[derive(NifUnitEnum)]
enum PurposeAtom {
    Any,
    Forward,
    Backward,
}

// For more than a few patterns, in steps: a list with search_add until that returns an empty list, or the parts of one long
// pattern with search_append, and then search_advance until that is done.
#[rustler::nif(schedule = "Normal")]
fn search_prepare(purpose: PurposeAtom) -> ResourceArc<Preparing> {
    let purpose = match purpose {
        PurposeAtom::Any => Purpose::Any,
        PurposeAtom::Forward => Purpose::Only(Direction::Forward),
        PurposeAtom::Backward => Purpose::Only(Direction::Backward),
    };
    ResourceArc::new(Preparing(Mutex::new(Some(Preparation::new(purpose)))))
}

// Returns the patterns that were not added yet. They must not be live, as above.
#[rustler::nif(schedule = "DirtyCpu")]
fn search_add<'a>(preparing: ResourceArc<Preparing>, patterns: Term<'a>) -> NifResult<Term<'a>> {
    const UNWATCHED: usize = 256;
    let until = Instant::now() + AT_ONCE_DIRTY;
    let mut preparing = preparing.lock();
    let preparation = preparing.as_mut().ok_or(rustler::Error::BadArg)?;
    let mut rest = patterns;
    while !rest.is_empty_list() && Instant::now() < until {
        for _ in 0..UNWATCHED {
            if rest.is_empty_list() {
                break;
            }
            let (pattern, next) = rest.list_get_cell()?;
            let pattern: Binary = pattern.decode()?;
            preparation.add(pattern.as_slice()).map_err(bad_patterns)?;
            rest = next;
        }
    }
    Ok(rest)
}

// The next bytes of the only pattern, which will have `length` bytes. They must not be live, as above.
#[rustler::nif(schedule = "DirtyCpu")]
fn search_append<'a>(
    env: Env<'a>,
    preparing: ResourceArc<Preparing>,
    bytes: Binary<'a>,
    length: usize,
) -> NifResult<Term<'a>> {
    let mut preparing = preparing.lock();
    let preparation = preparing.as_mut().ok_or(rustler::Error::BadArg)?;
    let appended = preparation.append(bytes.as_slice(), length);
    appended.map_err(bad_patterns)?;
    Ok(atom::ok().encode(env))
}

// The patterns, or `nil`: call again.
#[rustler::nif(schedule = "DirtyCpu")]
fn search_advance<'a>(env: Env<'a>, preparing: ResourceArc<Preparing>) -> NifResult<Term<'a>> {
    let mut preparing = preparing.lock();
    let preparation = preparing.as_mut().ok_or(rustler::Error::BadArg)?;
    match preparation.advance(Instant::now() + AT_ONCE_DIRTY) {
        Ok(None) => Ok(atom::nil().encode(env)),
        Ok(Some(patterns)) => {
            if let Some(preparation) = preparing.take() {
                drop_elsewhere(preparation, patterns.memory() > LARGE);
            }
            Ok(new_patterns(env, patterns))
        }
        Err(error) => Err(bad_patterns(error)),
    }
}

/// The rest of a preparation above this size is released by another thread.
const LARGE: usize = 1 << 20;

/// Runs `search` with a searcher over the range in arguments 2 and `stop`: immediately if the range is small, otherwise where
/// it may take long. Before the result is returned, the accessed pages are checked for faults.
fn searched(
    call: &Call,
    wait: Wait,
    stop: usize,
    search: impl FnOnce(&Searcher, u64, u64) -> Result<ErlNifTerm, Early>,
) -> Result<ErlNifTerm, Early> {
    let region = call.handle()?.region()?;
    let patterns = call.patterns(1)?;
    let (from, stop) = (call.position(2)?, call.position(stop)?);
    let bytes = bytes_between(region, from, stop);
    let small = bytes <= INLINE_BYTES && patterns.longest() <= LONGEST_INLINE;
    let (bytes, at_once) = match wait {
        Wait::No if !small => return Err(Early::Again),
        Wait::No => (BUDGET_INLINE, AT_ONCE_INLINE),
        Wait::Yes => (BUDGET_LONG, AT_ONCE_DIRTY),
    };
    let start = Instant::now();
    let until = Some(start + at_once);
    let searcher = Searcher::new(region, patterns, wait, Budget { bytes, until });
    let found = region.reading(|| search(&searcher, from, stop))?;
    if wait == Wait::No {
        call.consumed_time(start.elapsed());
    }
    Ok(found)
}

fn bytes_between(region: &Region, from: u64, stop: u64) -> usize {
    let stop = stop.min(region.len() as u64);
    stop.saturating_sub(from) as usize
}

fn part(call: &Call, found: Match) -> ErlNifTerm {
    call.pair(call.uint64(found.position), call.uint64(found.len as u64))
}

fn found_or(call: &Call, found: Option<Match>) -> ErlNifTerm {
    match found {
        Some(found) => call.ok_with(part(call, found)),
        None => terms::nomatch().as_c_arg(),
    }
}

/// Where a search continues or begins: a position, and argument `read`.
fn place(call: &Call, position: u64, read: usize) -> Result<Place, Early> {
    let read = call.count(read)?;
    Ok(Place { position, read })
}

// search_find(handle, patterns, from, read, stop): `{:ok, {position, length}} | :nomatch`, or `{position, read}` to
// go on from.
fn find<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    searched(call, S::WAIT, 4, |searcher, from, stop| {
        let mut first = None;
        let end = searcher.each(place(call, from, 3)?, stop, |found| {
            first = Some(found);
            false
        })?;
        one(call, end, first)
    })
}

// search_rfind(handle, patterns, from, before, read, stop): as search_find, for the last match that begins
// before `before`.
fn rfind<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let before = place(call, call.position(3)?, 4)?;
    searched(call, S::WAIT, 5, |searcher, from, stop| {
        let (end, last) = searcher.last(from, before, stop)?;
        one(call, end, last)
    })
}

// search_all(handle, patterns, from, read, stop, limit): `{:ok, parts}`, or `{next, read, parts}` to go on.
fn all<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let limit = call.count(5)?;
    searched(call, S::WAIT, 4, |searcher, from, stop| {
        let mut parts = Vec::new();
        let end = match limit {
            0 => Search::Done,
            _ => searcher.each(place(call, from, 3)?, stop, |found| {
                parts.push(part(call, found));
                parts.len() < limit
            })?,
        };
        progress(call, end, call.list(&parts))
    })
}

// search_count(handle, patterns, from, read, stop): `{:ok, count}`, or `{next, read, count}` to go on.
fn count<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    searched(call, S::WAIT, 4, |searcher, from, stop| {
        let mut count = 0;
        let end = searcher.count(place(call, from, 3)?, stop, &mut count)?;
        progress(call, end, call.uint64(count))
    })
}

/// One match, or where to go on.
fn one(call: &Call, end: Search, found: Option<Match>) -> Result<ErlNifTerm, Early> {
    match end {
        Search::Done => Ok(found_or(call, found)),
        Search::Paused(next) => {
            let read = call.uint64(next.read as u64);
            Ok(call.pair(call.uint64(next.position), read))
        }
        Search::Busy => Err(Early::Again),
    }
}

/// What was found so far, and where to go on.
fn progress(call: &Call, end: Search, so_far: ErlNifTerm) -> Result<ErlNifTerm, Early> {
    match end {
        Search::Done => Ok(call.ok_with(so_far)),
        Search::Paused(next) => {
            let (position, read) = (next.position, next.read as u64);
            Ok(call.triple(call.uint64(position), call.uint64(read), so_far))
        }
        Search::Busy => Err(Early::Again),
    }
}
