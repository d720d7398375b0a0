//! Bytes of a map as a live binary.

use emmap_core::Region;
use rustler::sys::ErlNifTerm;

use crate::hot::{Call, Early};
use crate::resource::Handle;
use crate::terms::Failure;

/// A live binary of `start .. start + count`. Argument `root` holds the root binary of the handle, or `nil`.
#[inline(always)]
pub fn live(
    call: &Call,
    handle: &Handle,
    region: &Region,
    root: usize,
    start: usize,
    count: usize,
) -> Result<ErlNifTerm, Early> {
    lend(handle, region)?;
    Ok(call.view(handle, region, root, start, count))
}

/// As [`live`], as a binary of its own.
#[inline(always)]
pub fn live_alone(
    call: &Call,
    handle: &Handle,
    region: &Region,
    start: usize,
    count: usize,
) -> Result<ErlNifTerm, Early> {
    lend(handle, region)?;
    Ok(call.view_alone(handle, region, start, count))
}

#[inline(always)]
fn lend(handle: &Handle, region: &Region) -> Result<(), Early> {
    match handle.lend(region) {
        true => Ok(()),
        false => Err(Failure::Closed.into()),
    }
}
