//! Reads of a line at the cursor.

use emmap_core::region::{Read, Wait};
use emmap_core::Region;
use rustler::sys::ErlNifTerm;

use super::copy::{at_end, checked};
use super::read::{deliver, give_back};
use crate::hot::{either, hot_nif, raw_nif, Call, Early, INLINE_BYTES};
use crate::resource::Handle;

hot_nif!("read_line" / 2 = read_line);

// read_line(handle, root): from the cursor to the next newline.

fn read_line(call: &Call) -> ErlNifTerm {
    either(read_line_with(call, Wait::No))
}

fn read_line_waiting(call: &Call) -> ErlNifTerm {
    either(read_line_with(call, Wait::Yes))
}

fn read_line_with(call: &Call, wait: Wait) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = call.region(handle)?;
    loop {
        let (mark, position) = (region.mark(), handle.cursor.get());
        let Some((start, rest)) = region.locate(position, usize::MAX) else {
            return at_end(call, region);
        };
        let look = if wait == Wait::No {
            rest.min(INLINE_BYTES)
        } else {
            rest
        };
        let length = match region.line_length(start, look) {
            Some(length) => length,
            None if look < rest => {
                return Ok(call.reschedule(c"read_line", raw_nif!(read_line_waiting)))
            }
            None => rest,
        };
        // A newline that was looked for in zeros says nothing.
        let there = region.check_since(mark);
        there.map_err(|error| call.error(error))?;
        match handle.cursor.advance(position, length) {
            Ok(true) => return deliver_line(call, handle, region, start, length, wait),
            Ok(false) => continue,
            Err(error) => return Err(call.error(error)),
        }
    }
}

/// As OTP does, a line that ends in CRLF is answered with LF, which no live binary can be.
fn deliver_line(
    call: &Call,
    handle: &Handle,
    region: &Region,
    start: usize,
    length: usize,
    wait: Wait,
) -> Result<ErlNifTerm, Early> {
    call.consumed(length.min(INLINE_BYTES));
    // SAFETY: the line was found inside the map, so the map has been longer than that.
    let byte = |at: usize| unsafe { region.byte(at) };
    let ends_in = |back: usize| (length >= back).then(|| byte(start + length - back));
    if ends_in(1) == Some(b'\n') && ends_in(2) == Some(b'\r') {
        return crlf_line(call, region, start, length, wait)
            .inspect_err(|_| give_back(handle, start, length));
    }
    deliver(call, handle, region, start, length, wait)
}

/// The line without its CR. It is copied whole, so that nothing can change in between.
fn crlf_line(
    call: &Call,
    region: &Region,
    start: usize,
    length: usize,
    wait: Wait,
) -> Result<ErlNifTerm, Early> {
    let (at, binary) = call.new_binary(length);
    let mark = region.mark();
    // SAFETY: the new binary has room for `length` bytes and is not part of the map.
    match unsafe { region.copy_out(start, length, at, wait) } {
        Read::Busy => {
            let [start, length] = [start, length].map(|n| call.uint64(n as u64));
            let arguments = [call.argument(0), start, length];
            Ok(call.reschedule_with(c"read_line", raw_nif!(crlf_line_waiting), &arguments))
        }
        Read::Done(0) => at_end(call, region),
        // The map became shorter meanwhile: what is left is no CRLF line.
        Read::Done(got) if got < length => {
            checked(call, region, mark, call.sub_binary(binary, 0, got))
        }
        Read::Done(_) => {
            // SAFETY: `length` is at least 2, and the binary was filled above.
            unsafe { at.add(length - 2).write(b'\n') };
            checked(call, region, mark, call.sub_binary(binary, 0, length - 1))
        }
    }
}

// (handle, start, length) of a CRLF line that the cursor has passed.
fn crlf_line_waiting(call: &Call) -> ErlNifTerm {
    either((|| {
        let handle = call.handle()?;
        let region = call.region(handle)?;
        let (start, length) = (call.count(1)?, call.count(2)?);
        crlf_line(call, region, start, length, Wait::Yes)
            .inspect_err(|_| give_back(handle, start, length))
    })())
}
