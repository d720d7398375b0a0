//! The NIFs of counters: the hot ones work on one counter, the cold ones on a file or on all counters. [`dynamic`] has those of
//! counters whose names appear at run time.

mod dynamic;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use emmap_core::counters::dynamic::is_dynamic;
use emmap_core::counters::{self, BadFormat, Error, Grid, OtherNames, Refused, Request};
use emmap_core::{Errno, Region};
use rustler::sys::ErlNifTerm;
use rustler::types::atom;
use rustler::{Binary, Encoder, Env, NifMap, NifResult, Term};

use crate::hot::{cold_nif, hot_nif, Call, Early};
use crate::interrupting::interruptible;
use crate::resource::{new_structure, HandleRef, Structure};
use crate::terms::Failure;

cold_nif!(DirtyIo, "counters_open" / 2 = counters_open(path, wanted));
cold_nif!(
    DirtyIo,
    "counters_reattach" / 2 = counters_reattach(handle, names)
);

hot_nif!("counter_add" / 3 = add);
hot_nif!("counter_next" / 3 = next);
hot_nif!("counter_get" / 2 = get);
hot_nif!("counter_put" / 3 = put);
hot_nif!("counter_exchange" / 3 = exchange);
hot_nif!("counter_compare_exchange" / 4 = compare_exchange);

mod reasons {
    rustler::atoms! {
        bad_format,
        other_names,
        no_counter,
        write_concurrency,
        kind,
        version,
        endianness,
        length,
        checksum,
        names,
        dynamic,
        not_dynamic,
        max_names,
    }
}

/// Runs `act` on the counter of arguments 0 and 1. The result of `act` is returned unwrapped, unless a page was lost.
#[inline(always)]
fn on_counter(
    call: &Call,
    act: impl FnOnce(&Region, &Grid, u64) -> Result<ErlNifTerm, Early>,
) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let grid = handle.counters()?;
    let region = handle.region()?;
    let index = call.natural(1)?.ok_or(Refused::Index)?;
    region.writing(|| act(region, grid, index))
}

impl From<Refused> for Early {
    fn from(refused: Refused) -> Early {
        match refused {
            Refused::Index => Early::Reason(reasons::no_counter()),
            Refused::Striped => Early::Reason(reasons::write_concurrency()),
            Refused::Posix(error) => error.into(),
        }
    }
}

// counter_add(handle, index, value) -> :ok
fn add(call: &Call) -> Result<ErlNifTerm, Early> {
    on_counter(call, |region, grid, index| {
        grid.add(region, index, call.word(2)?)?;
        Ok(call.ok())
    })
}

// counter_next(handle, index, value) -> the value before
fn next(call: &Call) -> Result<ErlNifTerm, Early> {
    on_counter(call, |region, grid, index| {
        let value = call.word(2)?;
        let word = grid.exact(region, index)?;
        Ok(call.sint64(word.fetch_add(value, SeqCst)))
    })
}

// counter_get(handle, index) -> the value
fn get(call: &Call) -> Result<ErlNifTerm, Early> {
    on_counter(call, |region, grid, index| {
        Ok(call.sint64(grid.get(region, index)?))
    })
}

// counter_put(handle, index, value) -> :ok
fn put(call: &Call) -> Result<ErlNifTerm, Early> {
    on_counter(call, |region, grid, index| {
        grid.put(region, index, call.signed_word(2)?)?;
        Ok(call.ok())
    })
}

// counter_exchange(handle, index, value) -> the value before
fn exchange(call: &Call) -> Result<ErlNifTerm, Early> {
    on_counter(call, |region, grid, index| {
        let value = call.signed_word(2)?;
        let word = grid.exact(region, index)?;
        Ok(call.sint64(word.swap(value, SeqCst)))
    })
}

// counter_compare_exchange(handle, index, expected, new) -> :ok | the value that it is
fn compare_exchange(call: &Call) -> Result<ErlNifTerm, Early> {
    on_counter(call, |region, grid, index| {
        let (expected, new) = (call.signed_word(2)?, call.signed_word(3)?);
        let word = grid.exact(region, index)?;
        Ok(match word.compare_exchange(expected, new, SeqCst, SeqCst) {
            Ok(_) => call.ok(),
            Err(actual) => call.sint64(actual),
        })
    })
}

/// The reason in `{:bad_format, why}`. The header of counters describes the table of names.
pub fn why(bad: BadFormat) -> rustler::Atom {
    match bad {
        BadFormat::Kind => reasons::kind(),
        BadFormat::Version => reasons::version(),
        BadFormat::Endianness => reasons::endianness(),
        BadFormat::Length => reasons::length(),
        BadFormat::Checksum => reasons::checksum(),
        BadFormat::Content => reasons::names(),
    }
}

/// The request of `Emmap.Counters.open/3`, which has checked it.
#[derive(NifMap)]
struct Wanted {
    count: u64,
    names: Vec<String>,
    stripes: u32,
    existing: bool,
}

// `{:ok, reference, count, stripes, names}`; names are strings. Reads headers, may create,
// allocate and sync: all of it waits for a disk.
fn counters_open<'a>(env: Env<'a>, path: Binary<'a>, wanted: Wanted) -> Term<'a> {
    if path.as_slice().contains(&0) {
        return Failure::from(Errno::INVAL).encode(env);
    }
    let path = Path::new(OsStr::from_bytes(path.as_slice()));
    let request = Request {
        count: wanted.count,
        names: wanted.names,
        stripes: wanted.stripes,
        existing: wanted.existing,
    };
    match interruptible(env, || counters::open(path, &request)) {
        Ok(opened) => {
            let grid = Grid::from(&opened.layout);
            let reference = new_structure(env, opened.region, |_| Structure::Counters(grid));
            let names = opened.layout.names;
            (atom::ok(), reference, grid.count(), grid.stripes(), names).encode(env)
        }
        Err(Error::BadFormat(BadFormat::Kind)) if is_dynamic(path) => {
            (atom::error(), reasons::dynamic()).encode(env)
        }
        Err(error) => failed(env, error),
    }
}

fn failed(env: Env, error: Error) -> Term {
    match error {
        Error::Posix(error) => Failure::from(error).encode(env),
        Error::BadFormat(bad) => (atom::error(), (reasons::bad_format(), why(bad))).encode(env),
        Error::Mismatch(OtherNames(names)) => {
            (atom::error(), (reasons::other_names(), names)).encode(env)
        }
    }
}

// Reads headers, and maps the file again.
fn counters_reattach<'a>(
    env: Env<'a>,
    handle: HandleRef<'a>,
    names: Vec<String>,
) -> NifResult<Term<'a>> {
    let grid = handle.0.counters()?;
    Ok(match handle.0.region() {
        Err(closed) => closed.encode(env),
        Ok(region) => match counters::reattach(region, grid, &names) {
            Ok(()) => atom::ok().encode(env),
            Err(error) => failed(env, error),
        },
    })
}

/// The most words that `counters_range` reads, except for those of a single counter: a few microseconds.
const FEW: u64 = 2048;

// Only for a few counters, so that the call is short. The caller never requests more.
#[rustler::nif(schedule = "Normal")]
fn counters_range<'a>(
    env: Env<'a>,
    handle: HandleRef<'a>,
    from: u64,
    count: u64,
) -> NifResult<Term<'a>> {
    values(env, &handle, |grid, region| {
        let few = FEW / u64::from(grid.stripes().max(1));
        grid.range(region, from, count.min(few.max(1)))
    })
}

/// The most words that `counters_list` reads, except for those of a single counter: about a millisecond.
const MANY: u64 = 64 << 10;

// There may be millions, so they are read from the end, some at a time: `{:ok, {from, list}}`, with the values from `from` to
// `end` before `behind`, the list of the values after them.
#[rustler::nif(schedule = "DirtyCpu")]
fn counters_list<'a>(
    env: Env<'a>,
    handle: HandleRef<'a>,
    end: u64,
    behind: Term<'a>,
) -> NifResult<Term<'a>> {
    let grid = handle.0.counters()?;
    let many = (MANY / u64::from(grid.stripes().max(1))).max(1);
    let end = end.min(grid.count());
    let from = end.saturating_sub(many);
    let values = handle.0.region().and_then(|region| {
        Ok(region.reading(|| {
            if end == grid.count() {
                has_memory(end)?;
            }
            grid.range(region, from, end - from)
        })?)
    });
    Ok(match values {
        Ok(values) => {
            let list = prepended(&values, behind);
            (atom::ok(), (from, list)).encode(env)
        }
        Err(failure) => failure.encode(env),
    })
}

/// Without memory for a list, the VM would end.
fn has_memory(count: u64) -> emmap_core::Result<()> {
    let count = usize::try_from(count).map_err(|_| Errno::NOMEM)?;
    let mut list = Vec::<[usize; 2]>::new();
    list.try_reserve_exact(count).map_err(|_| Errno::NOMEM)?;
    // Otherwise, the compiler would remove an allocation that is not used.
    std::hint::black_box(list.as_ptr());
    Ok(())
}

fn prepended<'a>(values: &[i64], behind: Term<'a>) -> Term<'a> {
    let values = values.iter().rev();
    values.fold(behind, |list, value| list.list_prepend(value))
}

fn values<'a>(
    env: Env<'a>,
    handle: &HandleRef,
    read: impl FnOnce(&Grid, &Region) -> emmap_core::Result<Vec<i64>>,
) -> NifResult<Term<'a>> {
    let grid = handle.0.counters()?;
    let values = handle
        .0
        .region()
        .and_then(|region| Ok(region.reading(|| read(grid, region))?));
    Ok(match values {
        Ok(values) => {
            let list = prepended(&values, Term::list_new_empty(env));
            (atom::ok(), list).encode(env)
        }
        Err(failure) => failure.encode(env),
    })
}
