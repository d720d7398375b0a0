//! The NIFs of streams: lines and pieces of a map, many in one call.
//!
//! Copies are made of the map itself. What is live is a part of one *root* binary, a view from position 0 on that the
//! caller made at the start of its stream: so a million lines hold one reference to the map. The root keeps its
//! memory mapped, and it is the root's own bytes that are searched.

use std::mem::MaybeUninit;

use emmap_core::buffer::Buffer;
use emmap_core::lines::{Ending, Line, Lines};
use emmap_core::region::Wait;
use emmap_core::{Errno, Region};
use rustler::sys::ErlNifTerm;
use rustler::types::atom;
use rustler::{Encoder, Env, Term};

use crate::hot::{hot_nif, Call, Early, Scheduler, INLINE_BYTES};
use crate::resource::{HandleRef, UNMAP_INLINE};
use crate::terms::{answer, ArgumentError};

hot_nif!("lines" / 5 = lines, DirtyCpu);
hot_nif!("pieces" / 6 = pieces, DirtyCpu);

/// Lines or pieces in one answer: more make a call no faster, and its garbage larger.
const MOST: usize = 1024;

/// How many bytes a call on a normal scheduler looks at for lines: some ten microseconds' worth.
const LOOK: usize = 128 << 10;

/// What making one term takes, as so many bytes of a copy.
const COST_OF_A_TERM: usize = 64;

/// The forms of lines: copies, and without their newlines.
const COPIES: usize = 1;
const TRIMS: usize = 2;
/// Where the limit of a batch stands, above the forms.
const LIMIT_SHIFT: u32 = 2;

/// How much one answer may be, for a process whose heap is limited.
struct Limit {
    terms: usize,
    bytes: usize,
}

impl Limit {
    /// Of the argument `form`: terms, and as many KiB, above the forms; 0: the most that there may be.
    fn of(form: usize) -> Limit {
        let terms = match form >> LIMIT_SHIFT {
            0 => MOST,
            terms => terms.min(MOST),
        };
        Limit {
            terms,
            bytes: LOOK.min(terms << 10),
        }
    }
}

/// What a stream reads: the bytes of the map, or those of a root binary. Both are mapped for as long as the call takes,
/// of which the handle and the root are arguments.
struct Root {
    /// `None`: all that is read is copied.
    term: Option<ErlNifTerm>,
    at: *const u8,
    /// Where to stop: the stream's end, or the map's if that is nearer.
    stop: usize,
}

impl Root {
    /// Arguments 1 (the root binary; for copies it may be `nil`) and `stop` (the end of the stream).
    fn of(call: &Call, region: &Region, copies: bool, stop: usize) -> Result<Root, Early> {
        const WRONG: ArgumentError = ArgumentError("the root must be a binary");
        let stop = call.count(stop)?;
        if copies {
            // In this order: the base of a map has room for the length seen before.
            let stop = stop.min(region.len());
            let at = region.base().cast_const();
            return Ok(Root {
                term: None,
                at,
                stop,
            });
        }
        let (at, size) = call.bytes(1).ok_or(Early::Raise(&WRONG))?;
        let stop = stop.min(size).min(region.len());
        let term = Some(call.argument(1));
        Ok(Root { term, at, stop })
    }

    /// Of a root binary a part, else a copy.
    fn part(&self, call: &Call, start: usize, count: usize) -> Result<ErlNifTerm, Early> {
        debug_assert!(start + count <= self.stop);
        match self.term {
            Some(term) => Ok(call.sub_binary(term, start, count)),
            None => self.copy(call, start, count, None),
        }
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
            // SAFETY: the range lies inside the root or the map, and `to` is new memory of `count` bytes.
            unsafe {
                std::ptr::copy_nonoverlapping(self.at.add(start), to, count);
                if let Some(last) = last {
                    to.add(count - 1).write(last);
                }
            }
        };
        if count > UNMAP_INLINE {
            let mut buffer = Buffer::new(count)?;
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
    most: usize,
    /// From before the first line was looked for.
    shrinks: usize,
}

impl Batch {
    fn new(region: &Region, most: usize) -> Batch {
        Batch {
            terms: [MaybeUninit::uninit(); MOST],
            count: 0,
            most,
            shrinks: region.shrinks(),
        }
    }

    fn push(&mut self, term: ErlNifTerm) {
        self.terms[self.count].write(term);
        self.count += 1;
    }

    fn is_full(&self) -> bool {
        self.count == self.most
    }

    /// `{next, terms}`. `None`: the map was made shorter meanwhile, so that copies may hold zeros;
    /// to be done again.
    fn answer(
        &self,
        call: &Call,
        region: &Region,
        next: usize,
    ) -> Result<Option<ErlNifTerm>, Early> {
        if region.shrinks() != self.shrinks {
            return Ok(None);
        }
        // SAFETY: the first `count` were written.
        let terms = unsafe { std::slice::from_raw_parts(self.terms.as_ptr().cast(), self.count) };
        Ok(Some(call.pair(call.uint64(next as u64), call.list(terms))))
    }
}

/// Does `once` again while the map is made shorter meanwhile.
fn unshrunk(
    call: &Call,
    once: impl Fn(&Region) -> Result<Option<ErlNifTerm>, Early>,
) -> Result<ErlNifTerm, Early> {
    const TIMES: usize = 64;
    for _ in 0..TIMES {
        let region = call.handle()?.region()?;
        if let Some(answer) = region.reading(|| once(region))? {
            return Ok(answer);
        }
    }
    Err(Errno::BUSY.into())
}

// lines(handle, root, position, stop, form): `{next, lines}`; no lines at the end.
// `form`: 1 copies, 2 leaves the newlines out; above them, how many lines at most.
fn lines<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    unshrunk(call, |region| lines_once(call, region, S::WAIT))
}

fn lines_once(call: &Call, region: &Region, wait: Wait) -> Result<Option<ErlNifTerm>, Early> {
    let form = call.count(4)?;
    let trim = form & TRIMS != 0;
    let limit = Limit::of(form);
    let mut batch = Batch::new(region, limit.terms);
    let root = Root::of(call, region, form & COPIES != 0, 3)?;
    let start = call.count(2)?.min(root.stop);
    let all = root.stop - start;
    let look = match wait {
        Wait::No => all.min(limit.bytes),
        Wait::Yes => all,
    };
    // SAFETY: `start + look` is inside the root or the map, which are arguments of this call.
    let mut lines = unsafe { Lines::new(root.at.add(start), look) };
    while let Some(line) = lines.next_whole() {
        batch.push(line_term(call, &root, line, trim)?);
        // One long line is enough; the next may be short.
        if batch.is_full() || wait == Wait::Yes {
            break;
        }
    }
    if batch.count == 0 {
        if look < all {
            return Err(Early::Again);
        }
        if let Some(line) = lines.rest() {
            batch.push(line_term(call, &root, line, trim)?);
        }
    }
    let next = start + look - lines.left();
    if wait == Wait::No {
        call.consumed(look + COST_OF_A_TERM * batch.count);
    }
    batch.answer(call, region, next)
}

#[inline]
fn line_term(call: &Call, root: &Root, line: Line, trim: bool) -> Result<ErlNifTerm, Early> {
    let start = line.start as usize - root.at as usize;
    match line.ending {
        ending if trim => root.part(call, start, line.len - ending.bytes()),
        // As OTP does, CRLF is returned as LF, which no live binary can be.
        Ending::CrLf => root.copy(call, start, line.len - 1, Some(b'\n')),
        _ => root.part(call, start, line.len),
    }
}

// pieces(handle, root, position, stop, size, form): `{next, pieces}`, each of `size` bytes but for
// the last; none at the end. `form`: as of lines.
fn pieces<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    unshrunk(call, |region| pieces_once(call, region, S::WAIT))
}

fn pieces_once(call: &Call, region: &Region, wait: Wait) -> Result<Option<ErlNifTerm>, Early> {
    let form = call.count(5)?;
    let copy = form & COPIES != 0;
    let limit = Limit::of(form);
    let mut batch = Batch::new(region, limit.terms);
    let root = Root::of(call, region, copy, 3)?;
    let start = call.count(2)?.min(root.stop);
    let size = call.count(4)?.max(1);
    if copy && wait == Wait::No && size.min(root.stop - start) > INLINE_BYTES {
        return Err(Early::Again);
    }
    let mut next = start;
    while next < root.stop && !batch.is_full() {
        let count = size.min(root.stop - next);
        if copy && batch.count > 0 && next - start + count > INLINE_BYTES.min(limit.bytes) {
            break;
        }
        batch.push(root.part(call, next, count)?);
        next += count;
    }
    if wait == Wait::No {
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
    let found = handle
        .0
        .region()
        .and_then(|region| region.reading(|| Ok(search(region))));
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
        region.release_pages(behind, position.saturating_sub(behind));
        Ok(region.prefetch(position, count)?)
    });
    answer(env, moved)
}
