//! Writes at a position, and at the end of a file.

use emmap_core::region::{Source, Wait, Written};
use emmap_core::Region;
use rustler::sys::ErlNifTerm;

use super::change::Change;
use crate::hot::{either, hot_nif, raw_nif, Call, Early, RawNif};

hot_nif!("pwrite" / 3 = pwrite);

// pwrite(handle, position, binary)

fn pwrite(call: &Call) -> ErlNifTerm {
    either(pwrite_with(call, Wait::No))
}

#[cold]
fn pwrite_waiting(call: &Call) -> ErlNifTerm {
    either(pwrite_with(call, Wait::Yes))
}

#[inline(always)]
fn pwrite_with(call: &Call, wait: Wait) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = call.region(handle)?;
    let position = call.position(1)?;
    let (data, count) = call.data(2)?;
    if region.appends() {
        let again = || call.reschedule(c"pwrite", raw_nif!(pwrite_waiting));
        return append(call, region, data, count, wait, again).map(|_| call.ok());
    }
    let again = (c"pwrite", raw_nif!(pwrite_waiting) as RawNif);
    let change = Change::begin(call, region, position, count, wait, again)?;
    loop {
        // SAFETY: `data` is a binary argument of this call, alive until it ends.
        let written = unsafe { region.copy_in(position, data, count, wait, || true) };
        if let Ok(Written::Done) = written {
            return change.done();
        }
        // SAFETY: as above.
        if unsafe { change.grow(written, Source::Bytes(data)) }? {
            return Ok(call.ok());
        }
    }
}

/// Appends where waiting is allowed, else calls `again`, which reschedules: `Err` is its term, too. `Ok`: the end of the
/// file.
pub fn append(
    call: &Call,
    region: &Region,
    data: *const u8,
    count: usize,
    wait: Wait,
    again: impl Fn() -> ErlNifTerm,
) -> Result<u64, Early> {
    if wait == Wait::No {
        return Err(again());
    }
    // SAFETY: `data` is a binary argument of this call, alive until it ends.
    unsafe { region.append(data, count) }.map_err(|error| call.error(error))
}
