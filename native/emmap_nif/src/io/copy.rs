//! Bytes of a map as a new binary.

use emmap_core::buffer::Buffer;
use emmap_core::fault::Mark;
use emmap_core::region::{Read, Wait};
use emmap_core::Region;
use rustler::sys::ErlNifTerm;

use crate::hot::{Call, Early};
use crate::resource::UNMAP_INLINE;

/// A copy of `start .. start + count`.
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
    let mark = region.mark();
    // SAFETY: the new binary has room for `count` bytes and is not part of the map.
    match unsafe { region.copy_out(start, count, at, wait) } {
        Read::Busy => Err(Early::Again),
        Read::Done(0) => at_end(call, region),
        Read::Done(got) if got == count => {
            if wait == Wait::No {
                call.consumed(got);
            }
            checked(region, mark, binary)
        }
        Read::Done(got) => shortened(*call, region, mark, binary, got),
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
    checked(region, mark, call.sub_binary(binary, 0, got))
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
    let mark = region.mark();
    // SAFETY: the buffer has room for `count` bytes and is not part of the map.
    match unsafe { region.copy_out(start, count, buffer.as_mut_ptr(), Wait::Yes) } {
        Read::Done(got) if got > 0 => checked(region, mark, call.buffer_binary(buffer, got)),
        _ => at_end(&call, region),
    }
}

/// What was read since `mark`, bare: `{:ok, _}` is built in the BEAM, where it costs less. An error if a page was lost.
#[inline(always)]
pub fn checked(region: &Region, mark: Mark, term: ErlNifTerm) -> Result<ErlNifTerm, Early> {
    region.check_since(mark)?;
    Ok(term)
}

/// `:eof`, unless a page was lost.
#[cold]
#[inline(never)]
fn end_or_fault(call: Call, region: &Region) -> Result<ErlNifTerm, Early> {
    region.check_fault()?;
    Ok(call.eof())
}

/// `:eof`, unless a page was lost.
#[inline(always)]
pub fn at_end(call: &Call, region: &Region) -> Result<ErlNifTerm, Early> {
    end_or_fault(*call, region)
}
