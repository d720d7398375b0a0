//! The hot NIFs: bytes and cursors.

use std::cell::Cell;
use std::ffi::CStr;

use emmap_core::bounds::{checked_end, clamped_range};
use emmap_core::buffer::Buffer;
use emmap_core::cursor::Whence;
use emmap_core::fault::Mark;
use emmap_core::region::{Read, Source, Wait, Written};
use emmap_core::{Errno, Region};
use rustler::sys::ErlNifTerm;

use crate::hot::{hot_nif, raw_nif, Call, Position, INLINE_BYTES};
use crate::resource::{Handle, RawNif, UNMAP_INLINE};
use crate::terms::{ArgumentError, Failure};

hot_nif!("pread" / 3 = pread);
hot_nif!("pread_copy" / 3 = pread_copy);
hot_nif!("view" / 4 = view);
hot_nif!("pwrite" / 3 = pwrite);
hot_nif!("read" / 3 = read);
hot_nif!("write" / 2 = write);
hot_nif!("read_line" / 2 = read_line);
hot_nif!("position" / 3 = position);
hot_nif!("size" / 1 = size);

/// A term to return now: an error or an exception, met on the way to the answer.
pub type Early = ErlNifTerm;

#[inline(always)]
pub fn open_region<'a>(call: &Call, handle: &'a Handle) -> Result<&'a Region, Early> {
    handle.region().map_err(|failure| call.error(failure))
}

#[inline(always)]
pub fn at_position(call: &Call, index: usize) -> Result<u64, Early> {
    match call.position(index)? {
        Position::At(position) => Ok(position),
        Position::Nowhere => Err(call.error(Errno::INVAL)),
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

/// A live binary of `start .. start + count`. Argument `root` holds the root binary of the handle, or `nil`; `None`: the
/// handle has none.
#[inline(always)]
fn live(
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

#[inline(always)]
pub fn either(answer: Result<ErlNifTerm, Early>) -> ErlNifTerm {
    answer.unwrap_or_else(|early| early)
}

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
    let region = open_region(call, handle)?;
    let position = at_position(call, 1)?;
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

/// `{:ok, copy}`, or `None` when another's copy is in the way.
#[inline(always)]
fn copy(
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

// view(handle, root, position, count): a live binary, in constant time.

fn view(call: &Call) -> ErlNifTerm {
    either(view_now(call))
}

#[inline(always)]
fn view_now(call: &Call) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = open_region(call, handle)?;
    let position = at_position(call, 2)?;
    let count = call.count(3)?;
    region.check_fault().map_err(|error| call.error(error))?;
    match region.locate(position, count) {
        Some((start, count)) => live(call, handle, region, Some(1), start, count),
        None => Ok(call.eof()),
    }
}

// pwrite(handle, position, binary)

fn pwrite(call: &Call) -> ErlNifTerm {
    either(pwrite_with(call, Wait::No))
}

#[cold]
fn pwrite_waiting(call: &Call) -> ErlNifTerm {
    either(pwrite_with(call, Wait::Yes))
}

#[inline(always)]
fn pwrite_with(call: &Call, wait: Wait) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = open_region(call, handle)?;
    let position = at_position(call, 1)?;
    let (data, count) = data(call, 2)?;
    if region.appends() {
        let again = || call.reschedule(c"pwrite", raw_nif!(pwrite_waiting));
        return append(call, region, data, count, wait, again).map(|_| call.ok());
    }
    let again = (c"pwrite", raw_nif!(pwrite_waiting) as RawNif);
    let change = Change::begin(call, region, position, count, wait, again)?;
    loop {
        // SAFETY: `data` is a binary argument of this call, alive until it ends.
        let written = unsafe { region.copy_in(position, data, count, wait, || true) };
        if let Ok(Written::Done) = written {
            return change.done();
        }
        // SAFETY: as above.
        if unsafe { change.grow(written, Source::Bytes(data)) }? {
            return Ok(call.ok());
        }
    }
}

/// Appends where waiting is allowed, else calls `again`, which reschedules: `Err` is its term, too. `Ok`: the end of the
/// file.
fn append(
    call: &Call,
    region: &Region,
    data: *const u8,
    count: usize,
    wait: Wait,
    again: impl Fn() -> ErlNifTerm,
) -> Result<u64, Early> {
    if wait == Wait::No {
        return Err(again());
    }
    // SAFETY: `data` is a binary argument of this call, alive until it ends.
    unsafe { region.append(data, count) }.map_err(|error| call.error(error))
}

/// A change of `count` bytes at `position`. What may wait or takes long goes on in the NIF `again`, under that name.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    call: Call,
    region: &'a Region,
    mark: Mark,
    position: u64,
    count: usize,
    wait: Wait,
    again: (&'static CStr, RawNif),
}

impl<'a> Change<'a> {
    /// Before it is tried.
    #[inline(always)]
    pub fn begin(
        call: &Call,
        region: &'a Region,
        position: u64,
        count: usize,
        wait: Wait,
        again: (&'static CStr, RawNif),
    ) -> Result<Change<'a>, Early> {
        if count > INLINE_BYTES && wait == Wait::No {
            return Err(call.reschedule(again.0, again.1));
        }
        let mark = region.begin().map_err(|error| call.error(error))?;
        Ok(Change {
            call: *call,
            region,
            mark,
            position,
            count,
            wait,
            again,
        })
    }

    /// The bytes were written: `:ok`, unless a page was lost.
    #[inline(always)]
    pub fn done(&self) -> Result<ErlNifTerm, Early> {
        wrote(&self.call, self.region, self.mark, self.count)
    }

    /// The bytes were not written. Returns whether they may be written past the end of a map that can grow.
    #[cold]
    #[inline(never)]
    pub fn not_done(self, written: Result<Written, Errno>) -> Result<(), Early> {
        let Change { call, region, .. } = self;
        match written.map_err(|error| call.error(error))? {
            Written::PastEnd if !region.grows() => {
                Err(past_end(&call, region, self.position, self.count))
            }
            Written::PastEnd if self.wait == Wait::Yes => Ok(()),
            _ => Err(call.reschedule(self.again.0, self.again.1)),
        }
    }

    /// The bytes were not written: writes them past the end of a map that can grow. `false`: another call made it longer
    /// meanwhile, so write them as before.
    ///
    /// # Safety
    /// As [`Region::write_past_end`].
    #[cold]
    #[inline(never)]
    pub unsafe fn grow(
        self,
        written: Result<Written, Errno>,
        source: Source,
    ) -> Result<bool, Early> {
        self.not_done(written)?;
        // SAFETY: the caller's promise.
        let grown = unsafe {
            self.region
                .write_past_end(self.position, source, self.count, || true)
        };
        grown.map_err(|error| self.call.error(error))
    }
}

#[inline(always)]
fn data(call: &Call, index: usize) -> Result<(*const u8, usize), Early> {
    const WRONG: ArgumentError = ArgumentError("the data must be a binary");
    call.bytes(index).ok_or_else(|| call.raise(&WRONG))
}

#[inline(always)]
fn wrote(call: &Call, region: &Region, mark: Mark, count: usize) -> Result<ErlNifTerm, Early> {
    if count <= INLINE_BYTES {
        call.consumed(count);
    }
    region
        .check_since(mark)
        .map(|()| call.ok())
        .map_err(|error| call.error(error))
}

/// A write past the end of a map that stays as it is.
#[cold]
#[inline(never)]
fn past_end(call: &Call, region: &Region, position: u64, count: usize) -> Early {
    let place = checked_end(position, count as u64);
    let why = region
        .check_fault()
        .and(place)
        .err()
        .unwrap_or(Errno::NOSPC);
    call.error(why)
}

// write(handle, binary): at the cursor.

fn write(call: &Call) -> ErlNifTerm {
    either(write_with(call, Wait::No))
}

#[cold]
fn write_waiting(call: &Call) -> ErlNifTerm {
    either(write_with(call, Wait::Yes))
}

#[inline(always)]
fn write_with(call: &Call, wait: Wait) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = open_region(call, handle)?;
    let (data, count) = data(call, 1)?;
    let again = || call.reschedule(c"write", raw_nif!(write_waiting));
    if region.appends() {
        let end = append(call, region, data, count, wait, again)?;
        handle.cursor.set(end);
        return Ok(call.ok());
    }
    if count > INLINE_BYTES && wait == Wait::No {
        return Ok(again());
    }
    let mark = region.begin().map_err(|error| call.error(error))?;
    loop {
        let position = handle.cursor.get();
        let claimed = Cell::new(false);
        // Moved only by the one who writes there: a refused claim means somebody else was first.
        let claim = || {
            claimed.set(handle.cursor.advance(position, count).unwrap_or(false));
            claimed.get()
        };
        let failed = |error: Errno| {
            if claimed.get() {
                // Not done, so the next write goes there.
                handle.cursor.give_back(position + count as u64, position);
            }
            call.error(error)
        };
        // SAFETY: `data` is a binary argument of this call, alive until it ends.
        let written = unsafe { region.copy_in(position, data, count, wait, claim) };
        match written.map_err(failed)? {
            Written::Done => return wrote(call, region, mark, count),
            Written::Refused => continue,
            Written::PastEnd if !region.grows() => {
                return Err(past_end(call, region, position, count))
            }
            Written::PastEnd if wait == Wait::Yes => {
                let source = Source::Bytes(data);
                // SAFETY: as above.
                let written = unsafe { region.write_past_end(position, source, count, claim) };
                if written.map_err(failed)? {
                    return Ok(call.ok());
                }
            }
            _ => return Ok(again()),
        }
    }
}

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
    let region = open_region(call, handle)?;
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
fn deliver(
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

fn give_back(handle: &Handle, start: usize, count: usize) {
    let start = start as u64;
    handle.cursor.give_back(start + count as u64, start);
}

// (handle, start, count) of bytes that the cursor has passed.
fn deliver_waiting(call: &Call) -> ErlNifTerm {
    either((|| {
        let handle = call.handle()?;
        let region = open_region(call, handle)?;
        let (start, count) = (call.count(1)?, call.count(2)?);
        deliver(call, handle, region, start, count, Wait::Yes)
    })())
}

// read_line(handle, root): from the cursor to the next newline.

fn read_line(call: &Call) -> ErlNifTerm {
    either(read_line_with(call, Wait::No))
}

fn read_line_waiting(call: &Call) -> ErlNifTerm {
    either(read_line_with(call, Wait::Yes))
}

fn read_line_with(call: &Call, wait: Wait) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = open_region(call, handle)?;
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
    let ends_in = |back: usize| (length >= back).then(|| region.byte(start + length - back));
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
        let region = open_region(call, handle)?;
        let (start, length) = (call.count(1)?, call.count(2)?);
        crlf_line(call, region, start, length, Wait::Yes)
            .inspect_err(|_| give_back(handle, start, length))
    })())
}

// position(handle, whence, offset): whence 0 the beginning, 1 the cursor, 2 the end.

fn position(call: &Call) -> ErlNifTerm {
    either(position_now(call))
}

// The size of the map, whatever its file has.
fn size(call: &Call) -> ErlNifTerm {
    let found = call.handle().and_then(|handle| {
        let region = open_region(call, handle)?;
        Ok(call.ok_with(call.uint64(region.len() as u64)))
    });
    either(found)
}

fn position_now(call: &Call) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = open_region(call, handle)?;
    region.check_fault().map_err(|error| call.error(error))?;
    let whence = match call.int64(1) {
        Some(0) => Whence::Start,
        Some(1) => Whence::Current,
        _ => Whence::End,
    };
    let moved = match call.int64(2) {
        Some(offset) => handle.cursor.seek(whence, offset, region.len()),
        None => Err(Errno::INVAL),
    };
    match moved {
        Ok(position) => Ok(call.ok_with(call.uint64(position))),
        Err(error) => Err(call.error(Failure::from(error))),
    }
}
