//! A change of bytes in a map that may grow.

use emmap_core::bounds::checked_end;
use emmap_core::region::{Wait, Written};
use emmap_core::{patience, Errno, Region};
use rustler::sys::ErlNifTerm;

use crate::hot::{Call, Early, Scheduler, INLINE_BYTES};
use crate::resource::{mapping_of, Handle};
use crate::waiting::is_waited_for;

/// Changes `count` bytes at `position` by `write`, inside the map. `write_past_end` changes them past the end of a map
/// that can grow; `false`: another call has extended it in the meantime, so `write` is tried again.
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
    let write = || match S::WAIT {
        Wait::Yes => call.interruptible(&write),
        Wait::No => write(),
    };
    region.writing(|| loop {
        match write() {
            Ok(Written::Done) => {
                if S::WAIT == Wait::No {
                    call.consumed(count);
                }
                return Ok(call.ok());
            }
            Ok(Written::PastEnd) if S::WAIT == Wait::Yes && region.grows() => {
                check_turn(call.handle()?)?;
                if write_past_end()? {
                    return Ok(call.ok());
                }
            }
            written => return Err(not_written(written, region, position, count)),
        }
    })
}

/// Whether it may change the size of the map now. Calls that are already waiting for that come first.
pub fn check_turn(handle: &Handle) -> emmap_core::Result<()> {
    match patience::is_brief() && is_waited_for(mapping_of(handle)) {
        true => Err(Errno::WAIT_SIZE),
        false => Ok(()),
    }
}

/// How a call continues that has not written `count` bytes at `position`, and may not write them past the end of the map.
#[cold]
#[inline(never)]
pub fn not_written(
    written: emmap_core::Result<Written>,
    region: &Region,
    position: u64,
    count: usize,
) -> Early {
    match written {
        Err(error) => error.into(),
        Ok(Written::PastEnd) if !region.grows() => past_end(region, position, count).into(),
        Ok(_) => Early::Again,
    }
}

/// Why a map that cannot grow has no room.
fn past_end(region: &Region, position: u64, count: usize) -> Errno {
    let place = checked_end(position, count as u64);
    let why = region.check_fault().and(place);
    why.err().unwrap_or(Errno::NOSPC)
}
