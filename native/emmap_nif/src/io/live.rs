//! Bytes of a map as a live binary.

use emmap_core::Region;
use rustler::sys::ErlNifTerm;

use crate::hot::{Call, Early};
use crate::resource::Handle;
use crate::terms::Failure;

/// A live binary of `start .. start + count`. Argument `root` holds the root binary of the handle, or `nil`; `None`: the
/// handle has none.
#[inline(always)]
pub fn live(
    call: &Call,
    handle: &Handle,
    region: &Region,
    root: Option<usize>,
    start: usize,
    count: usize,
) -> Result<ErlNifTerm, Early> {
    if !handle.lend(region) {
        return Err(call.error(Failure::Closed));
    }
    Ok(match root {
        Some(root) => call.view(handle, region, root, start, count),
        None => call.view_alone(handle, region, start, count),
    })
}
