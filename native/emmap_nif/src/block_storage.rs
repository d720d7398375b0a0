//! The NIFs of the predecessor's block storage, in a map.
//!
//! If an argument is invalid in a way that only the map can show, a call returns `:badarg`, and `:emmap` raises.

use emmap_core::block_storage::{calls, Mapped, Place, Stop, PLACES};
use emmap_core::region::Wait;
use emmap_core::{patience, Errno, Region};
use rustler::sys::ErlNifTerm;
use rustler::types::atom;
use rustler::{Encoder, Env, Term};

use crate::hot::{cold_nif, hot_nif, Call, Early, Scheduler, INLINE_BYTES};
use crate::interrupting::interruptible;
use crate::io::copy::copy;
use crate::io::live::live_alone;
use crate::resource::{Handle, HandleRef};
use crate::terms::{answer, Failure};

cold_nif!(
    DirtyIo,
    "block_storage_init" / 2 = block_storage_init(handle, block_size)
);
cold_nif!(
    DirtyIo,
    "block_storage_look" / 1 = block_storage_look(handle)
);

hot_nif!("block_storage_store" / 2 = store, DirtyIo);
hot_nif!("block_storage_read" / 2 = read, DirtyIo);
hot_nif!("block_storage_free" / 2 = free, DirtyIo);
hot_nif!("block_storage_read_from" / 4 = read_from, DirtyIo);
hot_nif!("block_storage_repair" / 3 = repair, DirtyIo);

mod reasons {
    rustler::atoms! {
        badarg,
        full,
        bad_format,
        kind,
        length,
    }
}

fn stopped<S: Scheduler>(stop: Stop) -> Result<ErlNifTerm, Early> {
    match stop {
        Stop::Posix(error) => Err(error.into()),
        Stop::Absent | Stop::WrongSize => Ok(reasons::badarg().as_c_arg()),
        Stop::Full => Err(Early::Reason(reasons::full())),
        Stop::Busy | Stop::Grow(_) => match S::WAIT {
            Wait::No => Err(Early::Again),
            Wait::Yes if patience::is_brief() => Err(Errno::WAIT_COPY.into()),
            Wait::Yes => Err(Errno::BUSY.into()),
        },
    }
}

/// The address in argument `index`. An address of more than 64 bits is handled like any other unused address.
#[inline(always)]
fn address(call: &Call, index: usize) -> Result<u64, Early> {
    Ok(call.natural(index)?.unwrap_or(u64::MAX))
}

// block_storage_store(handle, data) -> address | :badarg | {:error, reason}
fn store<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let region = call.handle()?.region()?;
    let (data, count) = call.data(1)?;
    if count > INLINE_BYTES && S::WAIT == Wait::No {
        return Err(Early::Again);
    }
    // SAFETY: a binary argument of so many bytes, alive until the call ends.
    match unsafe { calls::store(region, S::WAIT, data, count) } {
        Ok(address) => Ok(call.uint64(address)),
        Err(stop) => stopped::<S>(stop),
    }
}

// block_storage_read(handle, address) -> data | :eof | :badarg | {:error, reason}
fn read<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = handle.region()?;
    let address = address(call, 1)?;
    let found = calls::reading(region, S::WAIT, |storage| match storage.find(address)? {
        Some(at) => Ok(block::<S>(call, handle, region, storage, at)),
        None => Ok(Ok(call.eof())),
    });
    found.unwrap_or_else(stopped::<S>)
}

/// The block at `at`, which is inside the map: live on a direct handle, otherwise a copy.
fn block<S: Scheduler>(
    call: &Call,
    handle: &Handle,
    region: &Region,
    storage: &Mapped,
    at: u64,
) -> Result<ErlNifTerm, Early> {
    let (start, count) = (at as usize, storage.block_size() as usize);
    if handle.direct {
        return live_alone(call, handle, region, start, count);
    }
    if count > INLINE_BYTES && S::WAIT == Wait::No {
        return Err(Early::Again);
    }
    copy(call, region, start, count, S::WAIT)
}

// block_storage_free(handle, address) -> boolean | :badarg | {:error, reason}
fn free<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let region = call.handle()?.region()?;
    let address = address(call, 1)?;
    match calls::changing(region, S::WAIT, |storage| storage.free(address)) {
        Ok(true) => Ok(atom::true_().as_c_arg()),
        Ok(false) => Ok(atom::false_().as_c_arg()),
        Err(stop) => stopped::<S>(stop),
    }
}

// block_storage_read_from(handle, address, most, all) -> {[{address, data}], address | :eof} | :badarg | {:error, reason}
//
// The last block comes first, as in the predecessor's lists. `all`: 1, also blocks that the masks of root and sections do
// not report.
fn read_from<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    // A list of any length.
    if S::WAIT == Wait::No {
        return Err(Early::Again);
    }
    let handle = call.handle()?;
    let region = handle.region()?;
    let start = Place::of_address(address(call, 1)?);
    let most = call.count(2)?;
    let all = call.count(3)? == 1;
    let found = calls::reading(region, S::WAIT, |storage| {
        blocks_from::<S>(call, handle, region, storage, start, most, all)
    });
    found.unwrap_or_else(stopped::<S>)
}

fn blocks_from<S: Scheduler>(
    call: &Call,
    handle: &Handle,
    region: &Region,
    storage: &Mapped,
    mut start: Option<Place>,
    most: usize,
    all: bool,
) -> emmap_core::block_storage::Result<Result<ErlNifTerm, Early>> {
    let mut found = Vec::new();
    while let (Some(from), true) = (start, found.len() < most) {
        let next = match all {
            true => storage.next_of_groups(from)?,
            false => storage.next(from)?,
        };
        let Some((place, at)) = next else {
            start = None;
            break;
        };
        let data = match block::<S>(call, handle, region, storage, at) {
            Ok(data) => data,
            early => return Ok(early),
        };
        found.push(call.pair(call.uint64(place.address()), data));
        start = place.next();
    }
    found.reverse();
    Ok(Ok(call.pair(call.list(&found), place_or_eof(call, start))))
}

fn place_or_eof(call: &Call, place: Option<Place>) -> ErlNifTerm {
    place.map_or(call.eof(), |place| call.uint64(place.address()))
}

// block_storage_repair(handle, address, most) -> address | :eof | :badarg | {:error, reason}
fn repair<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    if S::WAIT == Wait::No {
        return Err(Early::Again);
    }
    let region = call.handle()?.region()?;
    let start = Place::of_address(address(call, 1)?);
    let most = (call.count(2)? as u64).min(PLACES);
    let repair = |storage: &Mapped| match start {
        Some(start) => storage.repair(start, most),
        None => Ok(None),
    };
    match calls::repairing(region, repair) {
        Ok(next) => Ok(place_or_eof(call, next)),
        Err(stop) => stopped::<S>(stop),
    }
}

// May make the file longer.
fn block_storage_init<'a>(env: Env<'a>, handle: HandleRef<'a>, block_size: u32) -> Term<'a> {
    let made = handle.0.region().and_then(|region| {
        calls::init(region, block_size).map_err(|stop| match stop {
            Stop::Posix(error) => error.into(),
            _ => Failure::from(Errno::BUSY),
        })
    });
    answer(env, made)
}

// `{:ok, block size}`, if the whole map can be a storage. Looks at all masks.
fn block_storage_look<'a>(env: Env<'a>, handle: HandleRef<'a>) -> Term<'a> {
    let region = match handle.0.region() {
        Ok(region) => region,
        Err(closed) => return closed.encode(env),
    };
    let bad = |why: rustler::Atom| (atom::error(), (reasons::bad_format(), why)).encode(env);
    let look = |storage: &Mapped| {
        Ok(match storage.is_plausible() {
            false => bad(reasons::kind()),
            true if !storage.is_whole()? => bad(reasons::length()),
            true => (atom::ok(), storage.block_size()).encode(env),
        })
    };
    let found = interruptible(env, || calls::reading(region, Wait::Yes, look));
    match found {
        Ok(found) => found,
        Err(Stop::Posix(error)) => Failure::from(error).encode(env),
        Err(Stop::Absent) => bad(reasons::kind()),
        Err(_) => Failure::from(Errno::BUSY).encode(env),
    }
}
