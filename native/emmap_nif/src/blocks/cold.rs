//! The cold NIFs of blocks.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use emmap_core::blocks::{self, Blocks, Request, Stop};
use emmap_core::region::Wait;
use emmap_core::store::{BadFormat, Error};
use emmap_core::{Errno, Region};
use rustler::types::atom;
use rustler::{Binary, Encoder, Env, NifMap, NifResult, Term};

use super::reasons;
use crate::counters;
use crate::hot::cold_nif;
use crate::interrupting::interruptible;
use crate::resource::{new_structure, HandleRef, Structure};
use crate::terms::{answer, Failure};
use crate::waiting::Kind;

cold_nif!(DirtyIo, "blocks_open" / 2 = blocks_open(path, wanted));
cold_nif!(
    Kind::Store,
    false,
    "blocks_close" / 1 = blocks_close(handle)
);
cold_nif!(DirtyIo, "blocks_reattach" / 1 = blocks_reattach(handle));
cold_nif!(Kind::Long, true, "blocks_sync" / 1 = blocks_sync(handle));
cold_nif!(Kind::Long, false, "blocks_trim" / 1 = blocks_trim(handle));
cold_nif!(DirtyCpu, "blocks_last" / 2 = blocks_last(handle, below));
cold_nif!(DirtyCpu, "blocks_check" / 2 = blocks_check(handle, from));
cold_nif!(DirtyIo, "blocks_info" / 1 = blocks_info(handle));

/// The request of `Emmap.Blocks.open/2`, which has checked it.
#[derive(NifMap)]
struct Wanted {
    block_size: Option<u64>,
    existing: bool,
}

// `{:ok, reference, block size}`. Reads headers, may create, recover and sync.
fn blocks_open<'a>(env: Env<'a>, path: Binary<'a>, wanted: Wanted) -> Term<'a> {
    if path.as_slice().contains(&0) {
        return Failure::from(Errno::INVAL).encode(env);
    }
    let path = Path::new(OsStr::from_bytes(path.as_slice()));
    let request = Request {
        block_size: wanted.block_size,
        existing: wanted.existing,
    };
    match interruptible(env, || blocks::open(path, &request)) {
        Ok((region, blocks)) => {
            let size = blocks.geometry().block_size;
            let blocks = Arc::new(blocks);
            let reference = new_structure(env, region, |_| Structure::Blocks(blocks));
            (atom::ok(), reference, size).encode(env)
        }
        Err(error) => why_not_open(env, error),
    }
}

fn why_not_open<'a, M: Into<OtherSize>>(env: Env<'a>, error: Error<M>) -> Term<'a> {
    match error {
        Error::Posix(error) => Failure::from(error).encode(env),
        Error::BadFormat(bad) => (atom::error(), (reasons::bad_format(), why(bad))).encode(env),
        Error::Mismatch(other) => {
            let OtherSize(size) = other.into();
            (atom::error(), (reasons::other_block_size(), size)).encode(env)
        }
    }
}

struct OtherSize(u64);

impl From<blocks::description::OtherSize> for OtherSize {
    fn from(other: blocks::description::OtherSize) -> OtherSize {
        OtherSize(other.0)
    }
}

impl From<std::convert::Infallible> for OtherSize {
    fn from(never: std::convert::Infallible) -> OtherSize {
        match never {}
    }
}

fn why(bad: BadFormat) -> rustler::Atom {
    match bad {
        BadFormat::Content => reasons::content(),
        bad => counters::why(bad),
    }
}

// Waits for the lock of the file, and syncs.
fn blocks_close<'a>(env: Env<'a>, handle: HandleRef<'a>) -> NifResult<Term<'a>> {
    let blocks = handle.0.blocks()?;
    let region = match handle.0.region() {
        Ok(region) => region,
        Err(closed) => return Ok(closed.encode(env)),
    };
    let left = blocks.leave(region);
    let closed = handle.0.close();
    Ok(answer(env, closed.and(left.map_err(Failure::from))))
}

/// Runs `act` on open blocks.
fn on_blocks<'a, T: Encoder>(
    env: Env<'a>,
    handle: &HandleRef<'a>,
    act: impl FnOnce(&Blocks, &Region) -> Result<T, Stop>,
) -> NifResult<Term<'a>> {
    let blocks = handle.0.blocks()?;
    let region = match handle.0.region() {
        Ok(region) => region,
        Err(closed) => return Ok(closed.encode(env)),
    };
    Ok(match act(blocks, region) {
        Ok(result) => result.encode(env),
        Err(Stop::Posix(error)) => Failure::from(error).encode(env),
        Err(Stop::Absent) => (atom::error(), reasons::enoent()).encode(env),
        Err(Stop::Corrupt(address)) => (atom::error(), (reasons::corrupt(), address)).encode(env),
        Err(Stop::Busy | Stop::Grow(_) | Stop::Sync) => Failure::from(Errno::BUSY).encode(env),
    })
}

// Reads headers, and maps the file again.
fn blocks_reattach<'a>(env: Env<'a>, handle: HandleRef<'a>) -> NifResult<Term<'a>> {
    let blocks = handle.0.blocks()?;
    let region = match handle.0.region() {
        Ok(region) => region,
        Err(closed) => return Ok(closed.encode(env)),
    };
    Ok(match blocks.reattach(region) {
        Ok(()) => atom::ok().encode(env),
        Err(error) => why_not_open(env, error),
    })
}

fn blocks_sync<'a>(env: Env<'a>, handle: HandleRef<'a>) -> NifResult<Term<'a>> {
    on_blocks(env, &handle, |blocks, region| {
        blocks.sync(region).map(|()| atom::ok())
    })
}

// `{:ok, bytes of the file that take no room any more}`
fn blocks_trim<'a>(env: Env<'a>, handle: HandleRef<'a>) -> NifResult<Term<'a>> {
    on_blocks(env, &handle, |blocks, region| {
        Ok((atom::ok(), blocks.trim(region)?))
    })
}

// `{:ok, address | nil}`: the last block in use below `below`.
fn blocks_last<'a>(env: Env<'a>, handle: HandleRef<'a>, below: u64) -> NifResult<Term<'a>> {
    on_blocks(env, &handle, |blocks, region| {
        let last = blocks.last_used(region, Wait::Yes, below)?;
        Ok((atom::ok(), last))
    })
}

/// About a millisecond of checksums.
const CHECKED_AT_ONCE: u64 = 4 << 20;

// `{:ok, how many blocks, [damaged addresses], next address | nil}`
fn blocks_check<'a>(env: Env<'a>, handle: HandleRef<'a>, from: u64) -> NifResult<Term<'a>> {
    on_blocks(env, &handle, |blocks, region| {
        let most = (CHECKED_AT_ONCE / blocks.geometry().block_size).max(1);
        let (mut from, mut count, mut damaged) = (from, 0u64, Vec::new());
        while count < most {
            let Some(at) = blocks.next_used(region, Wait::Yes, from, u64::MAX)? else {
                return Ok((atom::ok(), count, damaged, None));
            };
            from = at + 1;
            match blocks.is_sound(region, at) {
                Ok(true) => count += 1,
                Ok(false) => {
                    count += 1;
                    damaged.push(at);
                }
                // Freed in the meantime.
                Err(Stop::Absent) => (),
                Err(stop) => return Err(stop),
            }
        }
        Ok((atom::ok(), count, damaged, Some(from)))
    })
}

#[derive(NifMap)]
struct Info {
    block_size: u64,
    count: u64,
    capacity: u64,
    replaced: u64,
    recoveries: u64,
    kept: u64,
    dropped: u64,
}

fn blocks_info<'a>(env: Env<'a>, handle: HandleRef<'a>) -> NifResult<Term<'a>> {
    on_blocks(env, &handle, |blocks, region| {
        let info = blocks.info(region, Wait::Yes)?;
        let info = Info {
            block_size: info.block_size,
            count: info.count,
            capacity: info.capacity,
            replaced: info.replaced,
            recoveries: info.recoveries,
            kept: info.recovered.kept,
            dropped: info.recovered.dropped,
        };
        Ok((atom::ok(), info))
    })
}
