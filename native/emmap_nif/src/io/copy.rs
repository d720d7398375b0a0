//! Bytes of a map as a new binary.

use emmap_core::buffer::Buffer;
use emmap_core::region::{Read, Wait};
use emmap_core::Region;
use rustler::sys::ErlNifTerm;

use crate::hot::{Call, Early};
use crate::resource::UNMAP_INLINE;

/// A copy of `start .. start + count`; `:eof` where the map became so much shorter in the meantime.
#[inline(always)]
pub fn copy(
    call: &Call,
    region: &Region,
    start: usize,
    count: usize,
    wait: Wait,
) -> Result<ErlNifTerm, Early> {
    if count > UNMAP_INLINE {
        return copy_large(*call, region, start, count);
    }
    let (at, binary) = call.new_binary(count);
    // SAFETY: the new binary has room for `count` bytes and is not part of the map.
    match unsafe { region.copy_out(start, count, at, wait) } {
        Read::Busy => Err(Early::Again),
        Read::Done(got) if got == count => {
            if wait == Wait::No {
                call.consumed(got);
            }
            Ok(binary)
        }
        Read::Done(got) => Ok(shortened(*call, binary, got)),
    }
}

/// The map shrank in the meantime.
#[cold]
#[inline(never)]
fn shortened(call: Call, binary: ErlNifTerm, got: usize) -> ErlNifTerm {
    match got {
        0 => call.eof(),
        _ => call.sub_binary(binary, 0, got),
    }
}

/// As [`copy`], into memory of our own; only where waiting is allowed.
#[cold]
#[inline(never)]
fn copy_large(
    call: Call,
    region: &Region,
    start: usize,
    count: usize,
) -> Result<ErlNifTerm, Early> {
    let mut buffer = Buffer::new(count)?;
    // SAFETY: the buffer has room for `count` bytes and is not part of the map.
    let copy = || unsafe { region.copy_out(start, count, buffer.as_mut_ptr(), Wait::Yes) };
    match call.interruptible(copy) {
        Read::Done(got) if got > 0 => Ok(call.buffer_binary(buffer, got)),
        Read::Done(_) => Ok(call.eof()),
        Read::Busy => Err(Early::Again),
    }
}
