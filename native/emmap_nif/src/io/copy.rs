//! Bytes of a map as a new binary.

use emmap_core::buffer::Buffer;
use emmap_core::fault::Mark;
use emmap_core::region::{Read, Wait};
use emmap_core::Region;
use rustler::sys::ErlNifTerm;

use crate::hot::{Call, Early};
use crate::resource::UNMAP_INLINE;

/// `{:ok, copy}`, or `None` when another's copy is in the way.
#[inline(always)]
pub fn copy(
    call: &Call,
    region: &Region,
    start: usize,
    count: usize,
    wait: Wait,
) -> Result<Option<ErlNifTerm>, Early> {
    if count > UNMAP_INLINE {
        return copy_large(*call, region, start, count).map(Some);
    }
    let (at, binary) = call.new_binary(count);
    let mark = region.mark();
    // SAFETY: the new binary has room for `count` bytes and is not part of the map.
    match unsafe { region.copy_out(start, count, at, wait) } {
        Read::Busy => Ok(None),
        Read::Done(0) => at_end(call, region).map(Some),
        Read::Done(got) if got == count => {
            if wait == Wait::No {
                call.consumed(got);
            }
            checked(call, region, mark, binary).map(Some)
        }
        Read::Done(got) => shortened(*call, region, mark, binary, got).map(Some),
    }
}

/// The map became shorter meanwhile.
#[cold]
#[inline(never)]
fn shortened(
    call: Call,
    region: &Region,
    mark: Mark,
    binary: ErlNifTerm,
    got: usize,
) -> Result<ErlNifTerm, Early> {
    checked(&call, region, mark, call.sub_binary(binary, 0, got))
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
    let mut buffer = Buffer::new(count).map_err(|error| call.error(error))?;
    let mark = region.mark();
    // SAFETY: the buffer has room for `count` bytes and is not part of the map.
    match unsafe { region.copy_out(start, count, buffer.as_mut_ptr(), Wait::Yes) } {
        Read::Done(got) if got > 0 => checked(&call, region, mark, call.buffer_binary(buffer, got)),
        _ => end_or_fault(call, region),
    }
}

/// What was read since `mark`, bare: `{:ok, _}` is built in the BEAM, where it costs less. An error if a page was lost.
#[inline(always)]
pub fn checked(
    call: &Call,
    region: &Region,
    mark: Mark,
    term: ErlNifTerm,
) -> Result<ErlNifTerm, Early> {
    match region.check_since(mark) {
        Ok(()) => Ok(term),
        Err(error) => Err(call.error(error)),
    }
}

#[cold]
#[inline(never)]
fn end_or_fault(call: Call, region: &Region) -> Result<ErlNifTerm, Early> {
    match region.check_fault() {
        Ok(()) => Ok(call.eof()),
        Err(error) => Err(call.error(error)),
    }
}

/// `:eof`, unless a page was lost.
#[inline(always)]
pub fn at_end(call: &Call, region: &Region) -> Result<ErlNifTerm, Early> {
    end_or_fault(*call, region)
}
