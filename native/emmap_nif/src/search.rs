//! The NIFs of searches.
//!
//! A long search is many calls: each looks at some megabytes on a dirty CPU scheduler and says where
//! it is to go on. So others get their turn there, and a process that was killed, or a handle that
//! was closed, ends it soon.

use emmap_core::region::Wait;
use emmap_core::search::{Match, Patterns, Search, Searcher};
use emmap_core::{Errno, Region};
use rustler::sys::ErlNifTerm;
use rustler::{Binary, Env, NifResult, Term};

use crate::hot::{hot_nif, Call, Early, Scheduler, INLINE_BYTES};
use crate::resource::new_patterns;
use crate::terms::{self, ArgumentError};

hot_nif!("search_find" / 4 = find, DirtyCpu);
hot_nif!("search_rfind" / 5 = rfind, DirtyCpu);
hot_nif!("search_all" / 5 = all, DirtyCpu);
hot_nif!("search_count" / 4 = count, DirtyCpu);

/// How many bytes a call looks at, a match counting as some more.
const BUDGET_INLINE: usize = 4 * INLINE_BYTES;
const BUDGET_LONG: usize = 16 << 20;

/// Patterns above this length are not searched for on a normal scheduler.
const LONGEST_INLINE: usize = 1024;

// Preparing many or long patterns takes a while. They must not be live: that they do not change is
// what lets them be slices.
#[rustler::nif(schedule = "DirtyCpu")]
fn search_patterns<'a>(env: Env<'a>, patterns: Vec<Binary<'a>>) -> NifResult<Term<'a>> {
    prepared(env, &patterns)
}

// As search_patterns, for so few that it takes microseconds.
#[rustler::nif(schedule = "Normal")]
fn search_patterns_few<'a>(env: Env<'a>, patterns: Vec<Binary<'a>>) -> NifResult<Term<'a>> {
    prepared(env, &patterns)
}

fn prepared<'a>(env: Env<'a>, patterns: &[Binary<'a>]) -> NifResult<Term<'a>> {
    let patterns: Vec<&[u8]> = patterns.iter().map(Binary::as_slice).collect();
    match Patterns::new(&patterns) {
        Ok(patterns) => Ok(new_patterns(env, patterns)),
        Err(Errno::INVAL) => Err((&ArgumentError("a pattern has one byte at least")).into()),
        Err(_) => Err((&ArgumentError("the patterns of a list are too many or too long")).into()),
    }
}

/// Runs `search` with a searcher over the range in arguments 2 and `stop`: at once when the range is small, else where
/// it may take long. The result comes after a look at the pages it touched.
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
    let budget = match wait {
        Wait::No if !small => return Err(Early::Again),
        Wait::No => BUDGET_INLINE,
        Wait::Yes => BUDGET_LONG,
    };
    let searcher = Searcher::new(region, patterns, wait, budget);
    let found = region.reading(|| search(&searcher, from, stop))?;
    if wait == Wait::No {
        call.consumed(bytes);
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

// search_find(handle, patterns, from, stop): `{:ok, {position, length}} | :nomatch`, or a position to
// go on from.
fn find<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    searched(call, S::WAIT, 3, |searcher, from, stop| {
        let mut first = None;
        let end = searcher.each(from, stop, |found| {
            first = Some(found);
            false
        })?;
        one(call, end, first)
    })
}

// search_rfind(handle, patterns, from, before, stop): as search_find, for the last match that begins
// before `before`.
fn rfind<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let before = call.position(3)?;
    searched(call, S::WAIT, 4, |searcher, from, stop| {
        let (end, last) = searcher.last(from, before, stop)?;
        one(call, end, last)
    })
}

// search_all(handle, patterns, from, stop, limit): `{:ok, parts}`, or `{next, parts}` to go on.
fn all<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let limit = call.count(4)?;
    searched(call, S::WAIT, 3, |searcher, from, stop| {
        let mut parts = Vec::new();
        let end = match limit {
            0 => Search::Done,
            _ => searcher.each(from, stop, |found| {
                parts.push(part(call, found));
                parts.len() < limit
            })?,
        };
        progress(call, end, call.list(&parts))
    })
}

// search_count(handle, patterns, from, stop): `{:ok, count}`, or `{next, count}` to go on.
fn count<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    searched(call, S::WAIT, 3, |searcher, from, stop| {
        let mut count = 0;
        let end = searcher.count(from, stop, &mut count)?;
        progress(call, end, call.uint64(count))
    })
}

/// One match, or where to go on.
fn one(call: &Call, end: Search, found: Option<Match>) -> Result<ErlNifTerm, Early> {
    match end {
        Search::Done => Ok(found_or(call, found)),
        Search::Paused(next) => Ok(call.uint64(next)),
        Search::Busy => Err(Early::Again),
    }
}

/// What was found so far, and where to go on.
fn progress(call: &Call, end: Search, so_far: ErlNifTerm) -> Result<ErlNifTerm, Early> {
    match end {
        Search::Done => Ok(call.ok_with(so_far)),
        Search::Paused(next) => Ok(call.pair(call.uint64(next), so_far)),
        Search::Busy => Err(Early::Again),
    }
}
