//! Reads at a position.

use emmap_core::region::Wait;
use rustler::sys::ErlNifTerm;

use super::copy::copy;
use super::live::{live, live_alone};
use crate::hot::{hot_nif, Call, Early, Scheduler, INLINE_BYTES};

hot_nif!("pread" / 3 = pread, DirtyIo);
hot_nif!("pread_copy" / 3 = pread_copy, DirtyIo);
hot_nif!("view" / 4 = view);

// pread(handle, position, count): a copy, or a live binary of a direct handle.
#[inline(always)]
fn pread<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    read_as::<S, false>(call)
}

// pread_copy(handle, position, count): a copy, whatever the handle.
#[inline(always)]
fn pread_copy<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    read_as::<S, true>(call)
}

#[inline(always)]
fn read_as<S: Scheduler, const COPY: bool>(call: &Call) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = handle.region()?;
    let position = call.position(1)?;
    let count = call.count(2)?;
    region.reading(|| {
        let Some((start, count)) = region.locate(position, count) else {
            return Ok(call.eof());
        };
        if handle.direct && !COPY {
            // The map was empty when it was opened, so it has no root of which a part could be returned.
            return live_alone(call, handle, region, start, count);
        }
        if count > INLINE_BYTES && S::WAIT == Wait::No {
            return Err(Early::Again);
        }
        copy(call, region, start, count, S::WAIT)
    })
}

// view(handle, root, position, count): a live binary, in constant time.
#[inline(always)]
fn view(call: &Call) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = handle.region()?;
    let position = call.position(2)?;
    let count = call.count(3)?;
    // No byte is touched here.
    region.check_fault()?;
    match region.locate(position, count) {
        Some((start, count)) => live(call, handle, region, 1, start, count),
        None => Ok(call.eof()),
    }
}
