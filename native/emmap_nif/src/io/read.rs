//! Reads at the cursor.

use emmap_core::bounds::clamped_range;
use emmap_core::region::Wait;
use emmap_core::Region;
use rustler::sys::ErlNifTerm;

use super::copy::{at_end, checked, copy};
use super::live::live;
use crate::hot::{either, hot_nif, raw_nif, Call, Early, INLINE_BYTES};
use crate::resource::Handle;

hot_nif!("read" / 3 = read);

// read(handle, root, count): from the cursor; live on a direct handle.

fn read(call: &Call) -> ErlNifTerm {
    either(read_with(call, Wait::No))
}

#[cold]
fn read_waiting(call: &Call) -> ErlNifTerm {
    either(read_with(call, Wait::Yes))
}

#[inline(always)]
fn read_with(call: &Call, wait: Wait) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = call.region(handle)?;
    let count = call.count(2)?;
    if count == 0 {
        return Ok(call.new_binary(0).1);
    }
    // Bytes are taken only where they can be delivered; the map may grow meanwhile.
    let len = region.len();
    let large = clamped_range(handle.cursor.get(), count, len)
        .is_some_and(|(_, count)| count > INLINE_BYTES);
    if large && wait == Wait::No && !handle.direct {
        return Ok(call.reschedule(c"read", raw_nif!(read_waiting)));
    }
    let most = match wait {
        Wait::No if !handle.direct => count.min(INLINE_BYTES),
        _ => count,
    };
    let Some((start, count)) = handle.cursor.take(most, len) else {
        return at_end(call, region);
    };
    deliver(call, handle, region, start, count, wait)
}

/// Bytes that the cursor has passed, live or copied. The cursor moves back over what cannot be delivered.
pub fn deliver(
    call: &Call,
    handle: &Handle,
    region: &Region,
    start: usize,
    count: usize,
    wait: Wait,
) -> Result<ErlNifTerm, Early> {
    let delivered = || {
        if handle.direct {
            let mark = region.mark();
            let term = live(call, handle, region, Some(1), start, count)?;
            return checked(call, region, mark, term);
        }
        if let Some(answer) = copy(call, region, start, count, wait)? {
            return Ok(answer);
        }
        let [start, count] = [start, count].map(|n| call.uint64(n as u64));
        let arguments = [call.argument(0), start, count];
        Ok(call.reschedule_with(c"read", raw_nif!(deliver_waiting), &arguments))
    };
    delivered().inspect_err(|_| give_back(handle, start, count))
}

pub fn give_back(handle: &Handle, start: usize, count: usize) {
    let start = start as u64;
    handle.cursor.give_back(start + count as u64, start);
}

// (handle, start, count) of bytes that the cursor has passed.
fn deliver_waiting(call: &Call) -> ErlNifTerm {
    either((|| {
        let handle = call.handle()?;
        let region = call.region(handle)?;
        let (start, count) = (call.count(1)?, call.count(2)?);
        deliver(call, handle, region, start, count, Wait::Yes)
    })())
}
