//! A change of bytes in a map that may grow.

use emmap_core::bounds::checked_end;
use emmap_core::region::{Wait, Written};
use emmap_core::{Errno, Region};
use rustler::sys::ErlNifTerm;

use crate::hot::{Call, Early, Scheduler, INLINE_BYTES};

/// Changes `count` bytes at `position` by `write`, inside the map. `write_past_end` changes them past the end of a map
/// that can grow; `false`: another call made it longer meanwhile, so that `write` is next again.
#[inline(always)]
pub fn change<S: Scheduler>(
    call: &Call,
    region: &Region,
    position: u64,
    count: usize,
    write: impl Fn() -> emmap_core::Result<Written>,
    write_past_end: impl Fn() -> emmap_core::Result<bool>,
) -> Result<ErlNifTerm, Early> {
    if count > INLINE_BYTES && S::WAIT == Wait::No {
        return Err(Early::Again);
    }
    region.writing(|| loop {
        let written = write();
        if let Ok(Written::Done) = written {
            if S::WAIT == Wait::No {
                call.consumed(count);
            }
            return Ok(call.ok());
        }
        not_done::<S>(written, region, position, count)?;
        if write_past_end()? {
            return Ok(call.ok());
        }
    })
}

/// The bytes were not written. `Ok`: they are to be written past the end of the map.
#[cold]
#[inline(never)]
pub fn not_done<S: Scheduler>(
    written: emmap_core::Result<Written>,
    region: &Region,
    position: u64,
    count: usize,
) -> Result<(), Early> {
    match written? {
        Written::PastEnd if !region.grows() => Err(past_end(region, position, count).into()),
        Written::PastEnd if S::WAIT == Wait::Yes => Ok(()),
        _ => Err(Early::Again),
    }
}

/// Why a map that stays as it is has no room.
fn past_end(region: &Region, position: u64, count: usize) -> Errno {
    let place = checked_end(position, count as u64);
    let why = region.check_fault().and(place);
    why.err().unwrap_or(Errno::NOSPC)
}
