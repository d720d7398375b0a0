//! The NIFs of streams: lines and pieces of a map, many in one call.
//!
//! What is live is a part of one *root* binary, a view from position 0 on that the caller made at the
//! start of its stream: so a million lines hold one reference to the map. The root keeps its
//! memory mapped, and it is the root's own bytes that are searched.

use std::mem::MaybeUninit;

use emmap_core::buffer::Buffer;
use emmap_core::fault::Mark;
use emmap_core::lines::{Ending, Line, Lines};
use emmap_core::Region;
use rustler::sys::ErlNifTerm;
use rustler::types::atom;
use rustler::{Encoder, Env, Term};

use crate::hot::{hot_nif, raw_nif, Call, INLINE_BYTES};
use crate::io::{either, open_region, Early};
use crate::resource::{HandleRef, UNMAP_INLINE};
use crate::terms::{answer, ArgumentError};

hot_nif!("lines" / 5 = lines);
hot_nif!("pieces" / 6 = pieces);

/// Lines or pieces in one answer: more make a call no faster, and its garbage larger.
const MOST: usize = 1024;

/// How many bytes a call on a normal scheduler looks at for lines: some ten microseconds' worth.
const LOOK: usize = 128 << 10;

/// What making one term takes, as so many bytes of a copy.
const COST_OF_A_TERM: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    /// On the caller's scheduler: a bounded number of bytes is looked at.
    Here,
    /// On a dirty CPU scheduler.
    Long,
}

/// Which bytes of a line, and whether as a copy.
#[derive(Clone, Copy)]
struct Form {
    copy: bool,
    trim: bool,
}

/// The root binary of a stream: its term, and its bytes, which are mapped as long as it lives.
struct Root {
    term: ErlNifTerm,
    at: *const u8,
    /// Where to stop: the stream's end, or the map's if that is nearer.
    stop: usize,
}

impl Root {
    /// Arguments 1 (the root binary) and `stop` (the end of the stream).
    fn of(call: &Call, region: &Region, stop: usize) -> Result<Root, Early> {
        const WRONG: ArgumentError = ArgumentError("the root must be a binary");
        let (at, size) = call.bytes(1).ok_or_else(|| call.raise(&WRONG))?;
        let stop = call.count(stop)?.min(size).min(region.len());
        let term = call.argument(1);
        Ok(Root { term, at, stop })
    }

    fn part(&self, call: &Call, start: usize, count: usize) -> ErlNifTerm {
        debug_assert!(start + count <= self.stop);
        call.sub_binary(self.term, start, count)
    }

    /// A copy of `count` bytes, the last of them replaced by `last`.
    fn copy(
        &self,
        call: &Call,
        start: usize,
        count: usize,
        last: Option<u8>,
    ) -> Result<ErlNifTerm, Early> {
        let fill = |to: *mut u8| {
            // SAFETY: the range lies inside the root, and `to` is new memory of `count` bytes.
            unsafe {
                std::ptr::copy_nonoverlapping(self.at.add(start), to, count);
                if let Some(last) = last {
                    to.add(count - 1).write(last);
                }
            }
        };
        if count > UNMAP_INLINE {
            let mut buffer = Buffer::new(count).map_err(|error| call.error(error))?;
            fill(buffer.as_mut_ptr());
            return Ok(call.buffer_binary(buffer, count));
        }
        let (to, term) = call.new_binary(count);
        fill(to);
        Ok(term)
    }
}

/// The terms of one answer.
struct Batch {
    terms: [MaybeUninit<ErlNifTerm>; MOST],
    count: usize,
    /// From before the first line was looked for.
    mark: Mark,
}

impl Batch {
    fn new(region: &Region) -> Batch {
        Batch {
            terms: [MaybeUninit::uninit(); MOST],
            count: 0,
            mark: region.mark(),
        }
    }

    fn push(&mut self, term: ErlNifTerm) {
        self.terms[self.count].write(term);
        self.count += 1;
    }

    fn is_full(&self) -> bool {
        self.count == MOST
    }

    /// `{next, terms}`, unless a page was lost.
    fn answer(&self, call: &Call, region: &Region, next: usize) -> Result<ErlNifTerm, Early> {
        let all_there = region.check_since(self.mark);
        all_there.map_err(|error| call.error(error))?;
        // SAFETY: the first `count` were written.
        let terms = unsafe { std::slice::from_raw_parts(self.terms.as_ptr().cast(), self.count) };
        Ok(call.pair(call.uint64(next as u64), call.list(terms)))
    }
}

// lines(handle, root, position, stop, form): `{next, lines}`; no lines at the end.
// `form`: 1 copies, 2 leaves the newlines out.

fn lines(call: &Call) -> ErlNifTerm {
    either(lines_with(call, Where::Here))
}

fn lines_long(call: &Call) -> ErlNifTerm {
    either(lines_with(call, Where::Long))
}

fn lines_with(call: &Call, run: Where) -> Result<ErlNifTerm, Early> {
    let region = open_region(call, call.handle()?)?;
    let root = Root::of(call, region, 3)?;
    let start = call.count(2)?.min(root.stop);
    let form = call.count(4)?;
    let form = Form {
        copy: form & 1 != 0,
        trim: form & 2 != 0,
    };
    let all = root.stop - start;
    let look = match run {
        Where::Here => all.min(LOOK),
        Where::Long => all,
    };
    let mut batch = Batch::new(region);
    // SAFETY: `start + look` is inside the root, whose term is an argument of this call.
    let mut lines = unsafe { Lines::new(root.at.add(start), look) };
    while let Some(line) = lines.next_whole() {
        batch.push(line_term(call, &root, line, form)?);
        // One long line is enough; the next may be short.
        if batch.is_full() || run == Where::Long {
            break;
        }
    }
    if batch.count == 0 {
        if look < all {
            return Ok(call.reschedule_long(c"lines", raw_nif!(lines_long)));
        }
        if let Some(line) = lines.rest() {
            batch.push(line_term(call, &root, line, form)?);
        }
    }
    let next = start + look - lines.left();
    if run == Where::Here {
        call.consumed(look + COST_OF_A_TERM * batch.count);
    }
    batch.answer(call, region, next)
}

#[inline]
fn line_term(call: &Call, root: &Root, line: Line, form: Form) -> Result<ErlNifTerm, Early> {
    let start = line.start as usize - root.at as usize;
    match line.ending {
        ending if form.trim && form.copy => root.copy(call, start, line.len - ending.bytes(), None),
        ending if form.trim => Ok(root.part(call, start, line.len - ending.bytes())),
        // As OTP does, CRLF is answered as LF, which no live binary can be.
        Ending::CrLf => root.copy(call, start, line.len - 1, Some(b'\n')),
        _ if form.copy => root.copy(call, start, line.len, None),
        _ => Ok(root.part(call, start, line.len)),
    }
}

// pieces(handle, root, position, stop, size, copies): `{next, pieces}`, each of `size` bytes but for
// the last; none at the end. `copies`: 1 makes copies.

fn pieces(call: &Call) -> ErlNifTerm {
    either(pieces_with(call, Where::Here))
}

fn pieces_long(call: &Call) -> ErlNifTerm {
    either(pieces_with(call, Where::Long))
}

fn pieces_with(call: &Call, run: Where) -> Result<ErlNifTerm, Early> {
    let region = open_region(call, call.handle()?)?;
    let root = Root::of(call, region, 3)?;
    let start = call.count(2)?.min(root.stop);
    let size = call.count(4)?.max(1);
    let copy = call.count(5)? != 0;
    if copy && run == Where::Here && size.min(root.stop - start) > INLINE_BYTES {
        return Ok(call.reschedule_long(c"pieces", raw_nif!(pieces_long)));
    }
    let mut batch = Batch::new(region);
    let mut next = start;
    while next < root.stop && !batch.is_full() {
        let count = size.min(root.stop - next);
        if copy && batch.count > 0 && next - start + count > INLINE_BYTES {
            break;
        }
        batch.push(match copy {
            true => root.copy(call, next, count, None)?,
            false => root.part(call, next, count),
        });
        next += count;
    }
    if run == Where::Here {
        let copied = if copy { next - start } else { 0 };
        call.consumed(copied + COST_OF_A_TERM * batch.count);
    }
    batch.answer(call, region, next)
}

// Looks at as many bytes as it is given. `{:ok, how_many}`
#[rustler::nif(schedule = "DirtyCpu")]
fn count_byte<'a>(
    env: Env<'a>,
    handle: HandleRef<'a>,
    position: u64,
    count: u64,
    byte: u8,
) -> Term<'a> {
    on_bytes(env, &handle, |region| {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        region.count_byte(position, count, byte) as u64
    })
}

// Looks at as many bytes as it is given. `{:ok, position | nil}`
#[rustler::nif(schedule = "DirtyCpu")]
fn find_byte<'a>(
    env: Env<'a>,
    handle: HandleRef<'a>,
    position: u64,
    count: u64,
    byte: u8,
) -> Term<'a> {
    on_bytes(env, &handle, |region| {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        region.find_byte(position, count, byte)
    })
}

/// `{:ok, found}`, unless a page was lost.
fn on_bytes<'a, T: Encoder>(
    env: Env<'a>,
    handle: &HandleRef,
    search: impl FnOnce(&Region) -> T,
) -> Term<'a> {
    let found = handle.0.region().and_then(|region| {
        let mark = region.mark();
        let found = search(region);
        region.check_since(mark)?;
        Ok(found)
    });
    match found {
        Ok(found) => (atom::ok(), found).encode(env),
        Err(failure) => failure.encode(env),
    }
}

// Waits for the disk: brings `count` bytes at `position` into memory, and takes those at
// `behind .. position` out of this process.
#[rustler::nif(schedule = "DirtyIo")]
fn move_window<'a>(
    env: Env<'a>,
    handle: HandleRef<'a>,
    behind: u64,
    position: u64,
    count: u64,
) -> Term<'a> {
    let moved = handle.0.region().and_then(|region| {
        region.release(behind, position.saturating_sub(behind));
        Ok(region.prefetch(position, count)?)
    });
    answer(env, moved)
}
