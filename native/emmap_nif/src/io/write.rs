//! Writes at the cursor.

use std::cell::Cell;

use emmap_core::region::{Source, Wait, Written};
use emmap_core::Errno;
use rustler::sys::ErlNifTerm;

use super::change::{past_end, wrote};
use super::pwrite::append;
use crate::hot::{either, hot_nif, raw_nif, Call, Early, INLINE_BYTES};

hot_nif!("write" / 2 = write);

// write(handle, binary): at the cursor.

fn write(call: &Call) -> ErlNifTerm {
    either(write_with(call, Wait::No))
}

#[cold]
fn write_waiting(call: &Call) -> ErlNifTerm {
    either(write_with(call, Wait::Yes))
}

#[inline(always)]
fn write_with(call: &Call, wait: Wait) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = call.region(handle)?;
    let (data, count) = call.data(1)?;
    let again = || call.reschedule(c"write", raw_nif!(write_waiting));
    if region.appends() {
        let end = append(call, region, data, count, wait, again)?;
        handle.cursor.set(end);
        return Ok(call.ok());
    }
    if count > INLINE_BYTES && wait == Wait::No {
        return Ok(again());
    }
    let mark = region.begin().map_err(|error| call.error(error))?;
    loop {
        let position = handle.cursor.get();
        let claimed = Cell::new(false);
        // Moved only by the one who writes there: a refused claim means somebody else was first.
        let claim = || {
            claimed.set(handle.cursor.advance(position, count).unwrap_or(false));
            claimed.get()
        };
        let failed = |error: Errno| {
            if claimed.get() {
                // Not done, so the next write goes there.
                handle.cursor.give_back(position + count as u64, position);
            }
            call.error(error)
        };
        // SAFETY: `data` is a binary argument of this call, alive until it ends.
        let written = unsafe { region.copy_in(position, data, count, wait, claim) };
        match written.map_err(failed)? {
            Written::Done => return wrote(call, region, mark, count),
            Written::Refused => continue,
            Written::PastEnd if !region.grows() => {
                return Err(past_end(call, region, position, count))
            }
            Written::PastEnd if wait == Wait::Yes => {
                let source = Source::Bytes(data);
                // SAFETY: as above.
                let written = unsafe { region.write_past_end(position, source, count, claim) };
                if written.map_err(failed)? {
                    return Ok(call.ok());
                }
            }
            _ => return Ok(again()),
        }
    }
}
