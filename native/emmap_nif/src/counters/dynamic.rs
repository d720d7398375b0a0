//! The NIFs of counters whose names appear at run time. The hot ones find a counter without a lock. A call that has to add one,
//! and finds the lock taken or no room in the file, continues on a dirty scheduler.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::Arc;

use emmap_core::counters::dynamic::directory::Found;
use emmap_core::counters::dynamic::participation::Error;
use emmap_core::counters::dynamic::{self, Dynamic, Name, Request, Stop, MOST_NAME};
use emmap_core::counters::{format, BadFormat};
use emmap_core::region::Wait;
use emmap_core::{Errno, Region};
use rustler::sys::ErlNifTerm;
use rustler::types::atom;
use rustler::{Binary, Encoder, Env, NewBinary, NifMap, NifResult, Term};

use super::{reasons, why};
use crate::hot::{cold_nif, hot_nif, Call, Early, Scheduler};
use crate::interrupting::interruptible;
use crate::resource::{new_structure, HandleRef, Structure};
use crate::terms::{ArgumentError, Failure};

cold_nif!(DirtyIo, "dynamic_open" / 2 = dynamic_open(path, wanted));
cold_nif!(DirtyIo, "dynamic_reattach" / 1 = dynamic_reattach(handle));
cold_nif!(
    DirtyIo,
    "dynamic_entries" / 3 = dynamic_entries(handle, from, most)
);

hot_nif!("dynamic_add" / 3 = add, DirtyIo);
hot_nif!("dynamic_next" / 3 = next, DirtyIo);
hot_nif!("dynamic_get" / 2 = get, DirtyIo);
hot_nif!("dynamic_put" / 3 = put, DirtyIo);
hot_nif!("dynamic_exchange" / 3 = exchange, DirtyIo);
hot_nif!("dynamic_compare_exchange" / 4 = compare_exchange, DirtyIo);

impl From<Stop> for Early {
    fn from(stop: Stop) -> Early {
        match stop {
            Stop::Absent => Early::Reason(reasons::no_counter()),
            Stop::Full => Early::Reason(reasons::max_names()),
            Stop::Busy | Stop::Grow(_) => Early::Again,
            Stop::Posix(Errno(libc::EILSEQ)) => Early::Raise(&NOT_A_NAME),
            Stop::Posix(error) => error.into(),
        }
    }
}

static NOT_A_NAME: ArgumentError =
    ArgumentError("a counter's name must be at most 1024 bytes of UTF-8", 1);

/// Runs `act` at the place of the counter whose name, or whose index among the names given at open, is argument 1. With `adds`,
/// it is added if it does not exist.
#[inline(always)]
fn on_counter<S: Scheduler>(
    call: &Call,
    adds: bool,
    act: impl Fn(&Region, &Dynamic, u64) -> Result<ErlNifTerm, Early>,
) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let dynamic = handle.dynamic()?;
    let region = handle.region()?;
    if let Some(index) = call.int64(1) {
        let index = usize::try_from(index).map_err(|_| Early::Raise(&NOT_A_NAME))?;
        let found = region.writing(|| match dynamic.given(region, index)? {
            Some(at) => act(region, dynamic, at).map(Some),
            None => Ok::<_, Early>(None),
        })?;
        return match found {
            Some(result) => Ok(result),
            None => {
                let name = dynamic.given_name(index).ok_or(Early::Raise(&NOT_A_NAME))?;
                by_name::<S>((dynamic, region), &name, adds, act)
            }
        };
    }
    let mut buffer = MaybeUninit::<[u8; MOST_NAME]>::uninit();
    let name = Name::new(name(call, &mut buffer)?, dynamic.geometry())?;
    by_name::<S>((dynamic, region), &name, adds, act)
}

#[inline(always)]
fn by_name<S: Scheduler>(
    (dynamic, region): (&Dynamic, &Region),
    name: &Name,
    adds: bool,
    act: impl Fn(&Region, &Dynamic, u64) -> Result<ErlNifTerm, Early>,
) -> Result<ErlNifTerm, Early> {
    let adds = adds && dynamic.adds();
    let found = region.writing(|| match dynamic.find(region, name)? {
        Found::At(at) => act(region, dynamic, at).map(Ok),
        other => Ok::<_, Early>(Err(other)),
    })?;
    match found {
        Ok(result) => Ok(result),
        Err(Found::Absent) if !adds => Err(Early::Reason(reasons::no_counter())),
        Err(_) => {
            let at = find_slowly(dynamic, region, S::WAIT, name, adds)?;
            region.writing(|| act(region, dynamic, at))
        }
    }
}

#[cold]
#[inline(never)]
fn find_slowly(
    dynamic: &Dynamic,
    region: &Region,
    wait: Wait,
    name: &Name,
    adds: bool,
) -> Result<u64, Stop> {
    match adds {
        true => dynamic.find_or_add(region, wait, name),
        false => dynamic.find_under_lock(region, wait, name),
    }
}

/// A copy of the name in argument 1: it may be a live binary, which can change.
#[inline(always)]
fn name<'a>(call: &Call, buffer: &'a mut MaybeUninit<[u8; MOST_NAME]>) -> Result<&'a [u8], Early> {
    let (data, length) = call.bytes(1).ok_or(Early::Raise(&NOT_A_NAME))?;
    if length > MOST_NAME {
        return Err(Early::Raise(&NOT_A_NAME));
    }
    let copy = buffer.as_mut_ptr().cast::<u8>();
    // SAFETY: `data` has `length` bytes during the call, by the contract of `Call::bytes`, and the buffer has room for them. They
    // are initialized once they are copied.
    unsafe {
        std::ptr::copy_nonoverlapping(data, copy, length);
        Ok(std::slice::from_raw_parts(copy, length))
    }
}

fn check_exact(dynamic: &Dynamic) -> Result<(), Early> {
    match dynamic.geometry().stripes {
        1 => Ok(()),
        _ => Err(Early::Reason(reasons::write_concurrency())),
    }
}

// dynamic_add(handle, name, value) -> :ok
fn add<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let value = call.word(2)?;
    on_counter::<S>(call, true, |region, dynamic, at| {
        dynamic.add(region, at, value)?;
        Ok(call.ok())
    })
}

// dynamic_next(handle, name, value) -> the value before
fn next<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let value = call.word(2)?;
    check_exact(call.handle()?.dynamic()?)?;
    on_counter::<S>(call, true, |region, _, at| {
        Ok(call.sint64(region.word_mut(at)?.fetch_add(value, SeqCst)))
    })
}

// dynamic_get(handle, name) -> the value
fn get<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    on_counter::<S>(call, false, |region, dynamic, at| {
        Ok(call.sint64(dynamic.value(region, at)?))
    })
}

// dynamic_put(handle, name, value) -> :ok
fn put<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let value = call.signed_word(2)?;
    on_counter::<S>(call, true, |region, dynamic, at| {
        dynamic.put(region, at, value)?;
        Ok(call.ok())
    })
}

// dynamic_exchange(handle, name, value) -> the value before
fn exchange<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let value = call.signed_word(2)?;
    check_exact(call.handle()?.dynamic()?)?;
    on_counter::<S>(call, true, |region, _, at| {
        Ok(call.sint64(region.word_mut(at)?.swap(value, SeqCst)))
    })
}

// dynamic_compare_exchange(handle, name, expected, new) -> :ok | the value that it is
fn compare_exchange<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let (expected, new) = (call.signed_word(2)?, call.signed_word(3)?);
    check_exact(call.handle()?.dynamic()?)?;
    on_counter::<S>(call, true, |region, _, at| {
        let word = region.word_mut(at)?;
        Ok(match word.compare_exchange(expected, new, SeqCst, SeqCst) {
            Ok(_) => call.ok(),
            Err(actual) => call.sint64(actual),
        })
    })
}

/// The request of `Emmap.Counters.open/3`, which has checked it.
#[derive(NifMap)]
struct Wanted<'a> {
    names: Vec<Binary<'a>>,
    stripes: u32,
    existing: bool,
    adds: bool,
    max_names: u64,
}

// `{:ok, reference, stripes}`. Reads headers, may create, recover, allocate and sync: all of it waits for a disk.
fn dynamic_open<'a>(env: Env<'a>, path: Binary<'a>, wanted: Wanted<'a>) -> Term<'a> {
    if path.as_slice().contains(&0) {
        return Failure::from(Errno::INVAL).encode(env);
    }
    let path = Path::new(OsStr::from_bytes(path.as_slice()));
    let request = Request {
        stripes: wanted.stripes,
        existing: wanted.existing,
        adds: wanted.adds,
        most_names: wanted.max_names,
    };
    let opened = interruptible(env, || {
        let (region, mut dynamic) = dynamic::open(path, &request).map_err(WhyNot::Error)?;
        // Copied by `Emmap.Counters.open/3`, so they do not change.
        dynamic.give(&region, wanted.names.iter().map(|name| name.as_slice()))?;
        Ok((region, dynamic))
    });
    match opened {
        Ok((region, dynamic)) => {
            let stripes = dynamic.geometry().stripes;
            let dynamic = Arc::new(dynamic);
            let reference = new_structure(env, region, |_| Structure::Dynamic(dynamic));
            (atom::ok(), reference, stripes).encode(env)
        }
        Err(WhyNot::Error(Error::BadFormat(BadFormat::Kind))) if format::is_fixed(path) => {
            (atom::error(), reasons::not_dynamic()).encode(env)
        }
        Err(WhyNot::Error(error)) => failed(env, error),
        Err(WhyNot::Stop(stop)) => stopped(env, stop),
    }
}

enum WhyNot {
    Error(Error),
    Stop(Stop),
}

impl From<Stop> for WhyNot {
    fn from(stop: Stop) -> WhyNot {
        WhyNot::Stop(stop)
    }
}

fn failed(env: Env, error: Error) -> Term {
    match error {
        Error::Posix(error) => Failure::from(error).encode(env),
        Error::BadFormat(bad) => (atom::error(), (reasons::bad_format(), why(bad))).encode(env),
        Error::Mismatch(never) => match never {},
    }
}

fn stopped(env: Env, stop: Stop) -> Term {
    match stop {
        Stop::Full => (atom::error(), reasons::max_names()).encode(env),
        stop => Failure::from(dynamic::participation::errno_of(stop)).encode(env),
    }
}

// Reads headers, maps the file again, and examines all entries.
fn dynamic_reattach<'a>(env: Env<'a>, handle: HandleRef<'a>) -> NifResult<Term<'a>> {
    let dynamic = handle.0.dynamic()?;
    Ok(match handle.0.region() {
        Err(closed) => closed.encode(env),
        Ok(region) => match dynamic.reattach(region) {
            Ok(()) => atom::ok().encode(env),
            Err(error) => failed(env, error),
        },
    })
}

/// The most words that `dynamic_entries` reads, except for those of a single counter: less than a millisecond.
const MANY: u64 = 4096;

// `{:ok, [{name, value}], next | nil}`, in the order in which they were added. May have to map more of the file.
fn dynamic_entries<'a>(
    env: Env<'a>,
    handle: HandleRef<'a>,
    from: u64,
    most: u64,
) -> NifResult<Term<'a>> {
    let dynamic = handle.0.dynamic()?;
    let region = match handle.0.region() {
        Ok(region) => region,
        Err(closed) => return Ok(closed.encode(env)),
    };
    let many = (MANY / u64::from(dynamic.geometry().stripes)).max(1);
    let mut entries = Vec::new();
    let most = most.min(many) as usize;
    let next = dynamic.each(region, Wait::Yes, from, most, |name, value| {
        let mut binary = NewBinary::new(env, name.len());
        binary.as_mut_slice().copy_from_slice(name);
        entries.push((Term::from(binary), value).encode(env));
    });
    Ok(match next {
        Ok(next) => (atom::ok(), entries, next).encode(env),
        Err(stop) => stopped(env, stop),
    })
}

#[derive(NifMap)]
struct Info {
    count: u64,
    max_names: u64,
    recoveries: u64,
    dropped: u64,
}

// Reads four words.
#[rustler::nif(schedule = "Normal")]
fn dynamic_info<'a>(env: Env<'a>, handle: HandleRef<'a>) -> NifResult<Term<'a>> {
    let dynamic = handle.0.dynamic()?;
    let info = handle
        .0
        .region()
        .and_then(|region| Ok(dynamic.info(region)?));
    Ok(match info {
        Ok(info) => {
            let info = Info {
                count: info.count,
                max_names: info.most_names,
                recoveries: info.recoveries,
                dropped: info.dropped,
            };
            (atom::ok(), info).encode(env)
        }
        Err(failure) => failure.encode(env),
    })
}
