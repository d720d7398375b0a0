//! Reads of a line at the cursor.

use std::time::Instant;

use emmap_core::region::{Read, Scan, Wait};
use emmap_core::Region;
use rustler::sys::ErlNifTerm;

use super::read::{deliver, passed};
use crate::hot::{elsewhere, hot_nif, Call, Dirty, Early, Scheduler, AT_ONCE_DIRTY, INLINE_BYTES};
use crate::resource::Handle;

hot_nif!("read_line" / 2 = read_line, DirtyIo);

// read_line(handle, root): up to the next newline.
fn read_line<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = handle.region()?;
    loop {
        let position = handle.cursor.get();
        if S::WAIT == Wait::Yes {
            return look(call, handle, region, position, position);
        }
        // A newline that was searched for in the zeros of a lost page is meaningless.
        let Some((start, length)) = region.reading(|| short_line(region, position))? else {
            return Ok(call.eof());
        };
        if handle.cursor.advance(position, length)? {
            return deliver_line(call, handle, region, start, length, S::WAIT);
        }
    }
}

/// Where the line at `position` begins, and its length; `None` at the end of the map.
fn short_line(region: &Region, position: u64) -> Result<Option<(usize, usize)>, Early> {
    let Some((start, rest)) = region.locate(position, usize::MAX) else {
        return Ok(None);
    };
    let look = rest.min(INLINE_BYTES);
    match region.line_length(start, look) {
        None if look < rest => Err(Early::Again),
        found => Ok(Some((start, found.unwrap_or(rest)))),
    }
}

/// Searches for the end of a longer line, in steps. `position .. looked` contains none.
fn look(
    call: &Call,
    handle: &Handle,
    region: &Region,
    position: u64,
    looked: u64,
) -> Result<ErlNifTerm, Early> {
    let until = Instant::now() + AT_ONCE_DIRTY;
    let scan = region.reading(|| region.scan(position, looked, u64::MAX, b'\n', until))?;
    let end = match scan {
        Scan::Found(at) => at + 1,
        Scan::End(at) => at,
        Scan::Paused(at) => {
            let [position, at] = [position, at].map(|n| call.uint64(n));
            let arguments = [call.argument(0), call.argument(1), position, at];
            return Ok(call.go_on(elsewhere!("read_line" / 4 = look_on), arguments));
        }
    };
    if end <= position {
        return Ok(call.eof());
    }
    let (start, length) = (position as usize, (end - position) as usize);
    match handle.cursor.advance(position, length)? {
        true => deliver_line(call, handle, region, start, length, Wait::Yes),
        // Another process was first.
        false => {
            let arguments = [call.argument(0), call.argument(1)];
            let again = elsewhere!("read_line" / 2 = read_line::<Dirty>);
            Ok(call.go_on(again, arguments))
        }
    }
}

// (handle, root, position, looked): continues the search.
fn look_on(call: &Call) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = handle.region()?;
    look(call, handle, region, call.position(2)?, call.position(3)?)
}

/// As in OTP, a line that ends in CRLF is returned with LF, which a live binary cannot be.
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
        return deliver_crlf(call, handle, region, start, length, wait);
    }
    deliver(call, handle, region, start, length, wait)
}

fn deliver_crlf(
    call: &Call,
    handle: &Handle,
    region: &Region,
    start: usize,
    length: usize,
    wait: Wait,
) -> Result<ErlNifTerm, Early> {
    let line = region.reading(|| crlf_line(call, region, start, length, wait));
    let rest = elsewhere!("crlf_rest" / 3 = crlf_rest);
    passed(call, handle, line, start, length, rest)
}

// (handle, start, length) of a CRLF line that the cursor has passed.
fn crlf_rest(call: &Call) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = handle.region()?;
    let (start, length) = (call.count(1)?, call.count(2)?);
    deliver_crlf(call, handle, region, start, length, Wait::Yes)
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
    // SAFETY: the new binary has room for `length` bytes and is not part of the map.
    match unsafe { region.copy_out(start, length, at, wait) } {
        Read::Busy => Err(Early::Again),
        Read::Done(0) => Ok(call.eof()),
        // The map shrank in the meantime: the rest does not end in CRLF.
        Read::Done(got) if got < length => Ok(call.sub_binary(binary, 0, got)),
        Read::Done(_) => {
            // SAFETY: `length` is at least 2, and the binary was filled above.
            unsafe { at.add(length - 2).write(b'\n') };
            Ok(call.sub_binary(binary, 0, length - 1))
        }
    }
}
