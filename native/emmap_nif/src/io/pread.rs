//! Reads at a position.

use emmap_core::region::Wait;
use rustler::sys::ErlNifTerm;

use super::copy::{at_end, checked, copy};
use super::live::live;
use crate::hot::{either, hot_nif, raw_nif, Call, Early, INLINE_BYTES};

hot_nif!("pread" / 3 = pread);
hot_nif!("pread_copy" / 3 = pread_copy);
hot_nif!("view" / 4 = view);

// pread(handle, position, count): a copy, or a live binary of a direct handle.

fn pread(call: &Call) -> ErlNifTerm {
    either(pread_with(call, Wait::No, Form::OfHandle))
}

#[cold]
fn pread_waiting(call: &Call) -> ErlNifTerm {
    either(pread_with(call, Wait::Yes, Form::OfHandle))
}

// pread_copy(handle, position, count): a copy, whatever the handle.

fn pread_copy(call: &Call) -> ErlNifTerm {
    either(pread_with(call, Wait::No, Form::Copy))
}

#[cold]
fn pread_copy_waiting(call: &Call) -> ErlNifTerm {
    either(pread_with(call, Wait::Yes, Form::Copy))
}

/// What a read returns.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// A live binary of a direct handle, and a copy of any other.
    OfHandle,
    Copy,
}

#[inline(always)]
fn pread_with(call: &Call, wait: Wait, form: Form) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = call.region(handle)?;
    let position = call.position(1)?;
    let count = call.count(2)?;
    let Some((start, count)) = region.locate(position, count) else {
        return at_end(call, region);
    };
    if form == Form::OfHandle && handle.direct {
        // Its map was empty when it was opened, so there is no root to take a part of.
        let mark = region.mark();
        let term = live(call, handle, region, None, start, count)?;
        return checked(call, region, mark, term);
    }
    let again = || match form {
        Form::OfHandle => call.reschedule(c"pread", raw_nif!(pread_waiting)),
        Form::Copy => call.reschedule(c"pread_copy", raw_nif!(pread_copy_waiting)),
    };
    if count > INLINE_BYTES && wait == Wait::No {
        return Ok(again());
    }
    Ok(copy(call, region, start, count, wait)?.unwrap_or_else(again))
}

// view(handle, root, position, count): a live binary, in constant time.

fn view(call: &Call) -> ErlNifTerm {
    either(view_now(call))
}

#[inline(always)]
fn view_now(call: &Call) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = call.region(handle)?;
    let position = call.position(2)?;
    let count = call.count(3)?;
    region.check_fault().map_err(|error| call.error(error))?;
    match region.locate(position, count) {
        Some((start, count)) => live(call, handle, region, Some(1), start, count),
        None => Ok(call.eof()),
    }
}
