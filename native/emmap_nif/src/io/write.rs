//! Writes at the cursor.

use std::cell::Cell;

use emmap_core::region::{Source, Wait, Written};
use emmap_core::Errno;
use rustler::sys::ErlNifTerm;

use super::change::{check_turn, not_written};
use super::pwrite::append;
use crate::hot::{hot_nif, Call, Early, Scheduler, INLINE_BYTES};

hot_nif!("write" / 2 = write, DirtyIo);

// write(handle, binary)
#[inline(always)]
fn write<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = handle.region()?;
    let (data, count) = call.data(1)?;
    if region.appends() {
        handle
            .cursor
            .set(append(call, region, data, count, S::WAIT)?);
        return Ok(call.ok());
    }
    if count > INLINE_BYTES && S::WAIT == Wait::No {
        return Err(Early::Again);
    }
    region.writing(|| loop {
        let position = handle.cursor.get();
        let claimed = Cell::new(false);
        // Moved only by the call that writes there. A refused claim means that another call was first.
        let claim = || {
            claimed.set(handle.cursor.advance(position, count).unwrap_or(false));
            claimed.get()
        };
        let failed = |error: Errno| {
            if claimed.get() {
                // Not done, so the next write goes there.
                handle.cursor.give_back(position + count as u64, position);
            }
            error
        };
        // SAFETY: `data` is a binary argument of this call, alive until it ends.
        let copy = || unsafe { region.copy_in(position, data, count, S::WAIT, claim) };
        let written = match S::WAIT {
            Wait::Yes => call.interruptible(copy),
            Wait::No => copy(),
        };
        match written.map_err(failed)? {
            Written::Done => {
                if S::WAIT == Wait::No {
                    call.consumed(count);
                }
                return Ok(call.ok());
            }
            Written::Refused => continue,
            Written::PastEnd if S::WAIT == Wait::Yes && region.grows() => check_turn(handle)?,
            other => return Err(not_written(Ok(other), region, position, count)),
        }
        let source = Source::Bytes(data);
        // SAFETY: as above.
        let written = unsafe { region.write_past_end(position, source, count, claim) };
        if written.map_err(failed)? {
            return Ok(call.ok());
        }
    })
}
