//! Reads at the cursor.

use emmap_core::bounds::clamped_range;
use emmap_core::region::Wait;
use emmap_core::{patience, Region};
use rustler::sys::ErlNifTerm;

use super::copy::copy;
use super::live::live;
use crate::hot::{elsewhere, hot_nif, Call, Early, Elsewhere, Scheduler, INLINE_BYTES};
use crate::resource::Handle;

hot_nif!("read" / 3 = read, DirtyIo);

// read(handle, root, count): live on a direct handle.
#[inline(always)]
fn read<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = handle.region()?;
    let count = call.count(2)?;
    if count == 0 {
        return Ok(call.new_binary(0).1);
    }
    // Bytes are taken only if they can be delivered. The map may grow in the meantime.
    let len = region.len();
    let large = clamped_range(handle.cursor.get(), count, len)
        .is_some_and(|(_, count)| count > INLINE_BYTES);
    if large && S::WAIT == Wait::No && !handle.direct {
        return Err(Early::Again);
    }
    let most = match S::WAIT {
        Wait::No if !handle.direct => count.min(INLINE_BYTES),
        _ => count,
    };
    match handle.cursor.take(most, len) {
        Some((start, count)) => deliver(call, handle, region, start, count, S::WAIT),
        None => region.reading(|| Ok(call.eof())),
    }
}

/// Bytes that the cursor has passed, live or copied. The cursor moves back over bytes that cannot be delivered.
pub fn deliver(
    call: &Call,
    handle: &Handle,
    region: &Region,
    start: usize,
    count: usize,
    wait: Wait,
) -> Result<ErlNifTerm, Early> {
    let delivered = region.reading(|| match handle.direct {
        true => live(call, handle, region, 1, start, count),
        false => copy(call, region, start, count, wait),
    });
    let rest = elsewhere!("read_rest" / 3 = deliver_rest);
    passed(call, handle, delivered, start, count, rest)
}

// (handle, start, count) of bytes that the cursor has passed.
fn deliver_rest(call: &Call) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = handle.region()?;
    let (start, count) = (call.count(1)?, call.count(2)?);
    deliver(call, handle, region, start, count, Wait::Yes)
}

/// The result for `count` bytes at `start`, which the cursor has passed. If it may wait, it continues in `rest`, which takes
/// the handle, `start` and `count`.
#[inline(always)]
pub fn passed(
    call: &Call,
    handle: &Handle,
    delivered: Result<ErlNifTerm, Early>,
    start: usize,
    count: usize,
    rest: &Elsewhere,
) -> Result<ErlNifTerm, Early> {
    match delivered {
        Err(Early::Again) => {
            let [start, count] = [start, count].map(|n| call.uint64(n as u64));
            match patience::is_brief() {
                true => Ok(call.wait_for_copy(rest, [start, count])),
                false => Ok(call.go_on(rest, [call.argument(0), start, count])),
            }
        }
        Err(early) => {
            let start = start as u64;
            handle.cursor.give_back(start + count as u64, start);
            Err(early)
        }
        delivered => delivered,
    }
}
