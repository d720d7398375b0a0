//! The NIFs of searches.
//!
//! A long search is many calls: each looks at some megabytes on a dirty CPU scheduler and says where
//! it is to go on. So others get their turn there, and a process that was killed, or a handle that
//! was closed, ends it soon.

use emmap_core::region::Wait;
use emmap_core::search::{Match, Patterns, Search, Searcher};
use emmap_core::{Errno, Region};
use rustler::sys::ErlNifTerm;
use rustler::{Binary, Env, Error, NifResult, Term};

use crate::hot::{either, hot_nif, raw_nif, Call, Early, INLINE_BYTES};
use crate::resource::new_patterns;
use crate::terms::{self, ArgumentError};

hot_nif!("search_find" / 4 = find);
hot_nif!("search_rfind" / 5 = rfind);
hot_nif!("search_all" / 5 = all);
hot_nif!("search_count" / 4 = count);

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
        Err(Errno::INVAL) => Err(wrong("a pattern has one byte at least")),
        Err(_) => Err(wrong("the patterns of a list are too many or too long")),
    }
}

fn wrong(message: &'static str) -> Error {
    ArgumentError(message).into()
}

/// Runs `search` with a searcher over the range in arguments 2 and `stop`: here when the range is
/// small, else on `long`, a dirty scheduler. The answer comes after a look at the pages it touched.
fn searched(
    call: &Call,
    wait: Wait,
    stop: usize,
    again: impl Fn() -> ErlNifTerm,
    search: impl FnOnce(&Searcher, u64, u64) -> Result<Option<ErlNifTerm>, Errno>,
) -> Result<ErlNifTerm, Early> {
    let region = call.region(call.handle()?)?;
    let patterns = call.patterns(1)?;
    let (from, stop) = (call.position(2)?, call.position(stop)?);
    let bytes = bytes_between(region, from, stop);
    let small = bytes <= INLINE_BYTES && patterns.longest() <= LONGEST_INLINE;
    let budget = match wait {
        Wait::No if !small => return Ok(again()),
        Wait::No => BUDGET_INLINE,
        Wait::Yes => BUDGET_LONG,
    };
    let searcher = Searcher::new(region, patterns, wait, budget);
    let answer = search(&searcher, from, stop).map_err(|error| call.error(error))?;
    region.check_fault().map_err(|error| call.error(error))?;
    if wait == Wait::No {
        call.consumed(bytes);
    }
    Ok(answer.unwrap_or_else(again))
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

fn find(call: &Call) -> ErlNifTerm {
    find_with(call, Wait::No)
}

fn find_long(call: &Call) -> ErlNifTerm {
    find_with(call, Wait::Yes)
}

fn find_with(call: &Call, wait: Wait) -> ErlNifTerm {
    let again = || call.reschedule_long(c"search_find", raw_nif!(find_long));
    either(searched(call, wait, 3, again, |searcher, from, stop| {
        let mut first = None;
        let end = searcher.each(from, stop, |found| {
            first = Some(found);
            false
        })?;
        Ok(match end {
            Search::Done => Some(found_or(call, first)),
            Search::Paused(next) => Some(call.uint64(next)),
            Search::Busy => None,
        })
    }))
}

// search_rfind(handle, patterns, from, before, stop): as search_find, for the last match that begins
// before `before`.

fn rfind(call: &Call) -> ErlNifTerm {
    rfind_with(call, Wait::No)
}

fn rfind_long(call: &Call) -> ErlNifTerm {
    rfind_with(call, Wait::Yes)
}

fn rfind_with(call: &Call, wait: Wait) -> ErlNifTerm {
    let again = || call.reschedule_long(c"search_rfind", raw_nif!(rfind_long));
    let before = match call.position(3) {
        Ok(before) => before,
        Err(early) => return early,
    };
    either(searched(call, wait, 4, again, |searcher, from, stop| {
        Ok(match searcher.last(from, before, stop)? {
            (Search::Done, found) => Some(found_or(call, found)),
            (Search::Paused(next), _) => Some(call.uint64(next)),
            (Search::Busy, _) => None,
        })
    }))
}

// search_all(handle, patterns, from, stop, limit): `{:ok, parts}`, or `{next, parts}` to go on.

fn all(call: &Call) -> ErlNifTerm {
    all_with(call, Wait::No)
}

fn all_long(call: &Call) -> ErlNifTerm {
    all_with(call, Wait::Yes)
}

fn all_with(call: &Call, wait: Wait) -> ErlNifTerm {
    let again = || call.reschedule_long(c"search_all", raw_nif!(all_long));
    let limit = match call.count(4) {
        Ok(limit) => limit,
        Err(early) => return early,
    };
    either(searched(call, wait, 3, again, |searcher, from, stop| {
        let mut parts = Vec::new();
        let end = match limit {
            0 => Search::Done,
            _ => searcher.each(from, stop, |found| {
                parts.push(part(call, found));
                parts.len() < limit
            })?,
        };
        Ok(progress(call, end, call.list(&parts)))
    }))
}

// search_count(handle, patterns, from, stop): `{:ok, count}`, or `{next, count}` to go on.

fn count(call: &Call) -> ErlNifTerm {
    count_with(call, Wait::No)
}

fn count_long(call: &Call) -> ErlNifTerm {
    count_with(call, Wait::Yes)
}

fn count_with(call: &Call, wait: Wait) -> ErlNifTerm {
    let again = || call.reschedule_long(c"search_count", raw_nif!(count_long));
    either(searched(call, wait, 3, again, |searcher, from, stop| {
        let mut count = 0;
        let end = searcher.count(from, stop, &mut count)?;
        Ok(progress(call, end, call.uint64(count)))
    }))
}

/// What was found so far, and where to go on; `None` when it is to be begun again elsewhere.
fn progress(call: &Call, end: Search, so_far: ErlNifTerm) -> Option<ErlNifTerm> {
    match end {
        Search::Done => Some(call.ok_with(so_far)),
        Search::Paused(next) => Some(call.pair(call.uint64(next), so_far)),
        Search::Busy => None,
    }
}
