//! Writes at a position, and at the end of a file.

use emmap_core::region::{Source, Wait};
use emmap_core::Region;
use rustler::sys::ErlNifTerm;

use super::change::{change, check_turn};
use crate::hot::{hot_nif, Call, Early, Scheduler};

hot_nif!("pwrite" / 3 = pwrite, DirtyIo);

// pwrite(handle, position, binary)
#[inline(always)]
fn pwrite<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let region = call.handle()?.region()?;
    let position = call.position(1)?;
    let (data, count) = call.data(2)?;
    if region.appends() {
        append(call, region, data, count, S::WAIT)?;
        return Ok(call.ok());
    }
    // SAFETY: `data` is a binary argument of this call, alive until it ends.
    let write = move || unsafe { region.copy_in(position, data, count, S::WAIT, || true) };
    let source = Source::Bytes(data);
    // SAFETY: as above.
    let past_end = move || unsafe { region.write_past_end(position, source, count, || true) };
    change::<S>(call, region, position, count, write, past_end)
}

/// Appends the bytes of a binary argument, where waiting is allowed. Returns the end of the file.
#[cold]
#[inline(never)]
pub fn append(
    call: &Call,
    region: &Region,
    data: *const u8,
    count: usize,
    wait: Wait,
) -> Result<u64, Early> {
    if wait == Wait::No {
        return Err(Early::Again);
    }
    check_turn(call.handle()?)?;
    // SAFETY: `data` is a binary argument of this call, alive until it ends.
    Ok(unsafe { region.append(data, count) }?)
}
