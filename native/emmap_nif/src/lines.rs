//! The NIFs of streams: lines and chunks of a map, many in one call.
//!
//! Copies are made from the map itself. Live lines are parts of one *root* binary, a view from position 0 that the
//! caller made at the start of its stream, so a million lines hold one reference to the map. The root keeps its
//! memory mapped, and the bytes of the root itself are searched.

use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use emmap_core::buffer::Buffer;
use emmap_core::lines::{Ending, Line, Lines};
use emmap_core::region::{Scan, Wait};
use emmap_core::{Errno, Region};
use rustler::sys::ErlNifTerm;
use rustler::types::atom;
use rustler::{Encoder, Env, Resource, ResourceArc, Term};

use crate::hot::{elsewhere, hot_nif, Call, Early, Scheduler, AT_ONCE_DIRTY, INLINE_BYTES};
use crate::resource::{drop_elsewhere, HandleRef};
use crate::terms::{answer, ArgumentError};

hot_nif!("lines" / 5 = lines, DirtyCpu);
hot_nif!("pieces" / 6 = pieces, DirtyCpu);

/// The number of lines or chunks in one result. More would not make a call faster, but its garbage larger.
const MOST: usize = 1024;

/// How many bytes a call on a normal scheduler searches for lines: about ten microseconds of work.
const LOOK: usize = 128 << 10;

/// The cost of making one term, in bytes of a copy.
const COST_OF_A_TERM: usize = 64;

/// Longer ones are copied in steps.
const AT_ONCE: usize = 1 << 20;

/// The forms of lines: copies, and without their newlines.
const COPIES: usize = 1;
const TRIMS: usize = 2;
/// The bit position of the limit of a batch, above the forms.
const LIMIT_SHIFT: u32 = 2;

/// How large one result may be, for a process whose heap is limited.
struct Limit {
    terms: usize,
    bytes: usize,
}

impl Limit {
    /// From the argument `form`: terms, and as many KiB, above the forms; 0: the maximum.
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

/// What a stream reads: the bytes of the map, or those of a root binary. Both are mapped for the duration of the call,
/// because the handle and the root are arguments of it.
struct Root {
    /// `None`: everything that is read is copied.
    term: Option<ErlNifTerm>,
    at: *const u8,
    /// Where to stop: the end of the stream or of the map, whichever comes first.
    stop: usize,
}

impl Root {
    /// From arguments 1 (the root binary; for copies it may be `nil`) and `stop` (the end of the stream).
    fn of(call: &Call, region: &Region, copies: bool, stop: usize) -> Result<Root, Early> {
        const WRONG: ArgumentError = ArgumentError("the root must be a binary", 0);
        let stop = call.count(stop)?;
        if copies {
            // In this order: the base of a map has room for the length that was read before.
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

    /// A part of a root binary, otherwise a copy.
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
            // SAFETY: the range is inside the root or the map, and `to` is new memory of `count` bytes.
            unsafe {
                std::ptr::copy_nonoverlapping(self.at.add(start), to, count);
                if let Some(last) = last {
                    to.add(count - 1).write(last);
                }
            }
        };
        debug_assert!(count <= AT_ONCE);
        let (to, term) = call.new_binary(count);
        fill(to);
        Ok(term)
    }
}

/// The terms of one result.
struct Batch {
    terms: [MaybeUninit<ErlNifTerm>; MOST],
    count: usize,
    most: usize,
    /// Read before the first line was searched for.
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

    /// `{next, terms}`. `None`: the map shrank in the meantime, so copies may contain zeros;
    /// the call has to be repeated.
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

/// Repeats `once` while the map shrinks during it.
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

// lines(handle, root, position, stop, form): `{next, lines}`; no lines at the end. `:again`: the map shrank
// while a long line was copied.
// `form`: 1 copies, 2 removes the newlines; above them, the maximum number of lines.
fn lines<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    match S::WAIT {
        Wait::No => unshrunk(call, |region| lines_once(call, region)),
        Wait::Yes => long_line(call, call.count(2)?),
    }
}

fn lines_once(call: &Call, region: &Region) -> Result<Option<ErlNifTerm>, Early> {
    let form = call.count(4)?;
    let trim = form & TRIMS != 0;
    let limit = Limit::of(form);
    let mut batch = Batch::new(region, limit.terms);
    let root = Root::of(call, region, form & COPIES != 0, 3)?;
    let start = call.count(2)?.min(root.stop);
    let all = root.stop - start;
    let look = all.min(limit.bytes);
    // SAFETY: `start + look` is inside the root or the map, which are arguments of this call.
    let mut lines = unsafe { Lines::new(root.at.add(start), look) };
    while let Some(line) = lines.next_whole() {
        batch.push(line_term(call, &root, line, trim)?);
        if batch.is_full() {
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
    call.consumed(look + COST_OF_A_TERM * batch.count);
    batch.answer(call, region, next)
}

// As lines, with the position before which no newline was found: continues the search.
fn long_line_on(call: &Call) -> Result<ErlNifTerm, Early> {
    long_line(call, call.count(5)?)
}

/// Searches for the end of one line, in steps. Returns only this line; the next may be short.
fn long_line(call: &Call, looked: usize) -> Result<ErlNifTerm, Early> {
    let until = Instant::now() + AT_ONCE_DIRTY;
    let region = call.handle()?.region()?;
    let shrinks = region.shrinks();
    let form = call.count(4)?;
    let root = Root::of(call, region, form & COPIES != 0, 3)?;
    let start = call.count(2)?.min(root.stop);
    let (from, stop) = (start as u64, root.stop as u64);
    let scan = region.reading(|| region.scan(from, looked as u64, stop, b'\n', until))?;
    let (next, newline) = match scan {
        Scan::Found(at) => (at as usize + 1, true),
        Scan::End(at) => ((at as usize).min(root.stop), false),
        Scan::Paused(at) => {
            let [handle, root, position, stop, form] = [0, 1, 2, 3, 4].map(|n| call.argument(n));
            let arguments = [handle, root, position, stop, form, call.uint64(at)];
            let on = elsewhere!("lines" / 6 = long_line_on, DirtyCpu);
            return Ok(call.go_on(on, arguments));
        }
    };
    if next <= start {
        return Ok(call.pair(call.uint64(start as u64), call.list(&[])));
    }
    // SAFETY: the byte before a newline that is not the first byte of the line is inside the root or the map.
    let after_cr =
        newline && next - start > 1 && unsafe { root.at.add(next - 2).read_volatile() } == b'\r';
    let ending = match (newline, after_cr) {
        (false, _) => Ending::None,
        (true, false) => Ending::Lf,
        (true, true) => Ending::CrLf,
    };
    let (len, last) = match ending {
        ending if form & TRIMS != 0 => (next - start - ending.bytes(), None),
        Ending::CrLf => (next - start - 1, Some(b'\n')),
        _ => (next - start, None),
    };
    if let (Some(term), None) = (root.term, last) {
        let line = call.sub_binary(term, start, len);
        return Ok(call.pair(call.uint64(next as u64), call.list(&[line])));
    }
    if len > AT_ONCE {
        let copying = Copying {
            start,
            len,
            last,
            next,
            shrinks,
            done: 0,
        };
        return copying.begin(call);
    }
    let line = region.reading(|| root.copy(call, start, len, last))?;
    match region.shrinks() == shrinks {
        true => Ok(call.pair(call.uint64(next as u64), call.list(&[line]))),
        false => Ok(reasons::again().as_c_arg()),
    }
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

/// One long line or chunk that is being copied, in steps: `len` bytes at `start` of the root or the map, the last of which
/// is replaced by `last`.
struct Copying {
    start: usize,
    len: usize,
    last: Option<u8>,
    /// The position after it.
    next: usize,
    /// Read before it was found.
    shrinks: usize,
    done: usize,
}

/// `None` after it was copied.
struct LongCopy(Mutex<Option<(Copying, Buffer)>>);

#[rustler::resource_impl(name = "emmap_long_copy")]
impl Resource for LongCopy {}

impl Drop for LongCopy {
    fn drop(&mut self) {
        // The caller was killed, or its map was closed.
        let left = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(left) = left.take() {
            drop_elsewhere(left, true);
        }
    }
}

/// Keeps the type for the life of the VM: see `resource::keep_types`.
pub fn keep_type() {
    std::mem::forget(ResourceArc::new(LongCopy(Mutex::new(None))));
}

impl Copying {
    fn begin(self, call: &Call) -> Result<ErlNifTerm, Early> {
        let buffer = Buffer::new(self.len)?;
        let long = ResourceArc::new(LongCopy(Mutex::new(Some((self, buffer)))));
        let long = call.with_env(|env| long.encode(env).as_c_arg());
        let arguments = [call.argument(0), call.argument(1), long];
        let on = elsewhere!("long_copy" / 3 = copy_on, DirtyCpu);
        Ok(call.go_on(on, arguments))
    }
}

// (handle, root, copying): continues the copy. `{next, [copy]}`, or `:again`.
fn copy_on(call: &Call) -> Result<ErlNifTerm, Early> {
    const WRONG: ArgumentError = ArgumentError("not a copy that was begun", 0);
    let until = Instant::now() + AT_ONCE_DIRTY;
    let region = call.handle()?.region()?;
    let long = call.with_env(|env| {
        // SAFETY: an argument of this call.
        unsafe { Term::new(env, call.argument(2)) }.decode::<ResourceArc<LongCopy>>()
    });
    let long = long.map_err(|_| Early::Raise(&WRONG))?;
    let mut long = long.0.lock().unwrap_or_else(PoisonError::into_inner);
    let (copying, buffer) = long.as_mut().ok_or(Early::Raise(&WRONG))?;
    // Bytes that were found inside the map stay readable, from the map's base or in the root.
    let from = call
        .bytes(1)
        .map_or(region.base().cast_const(), |(at, _)| at);
    region.reading(|| {
        while copying.done < copying.len && Instant::now() < until {
            let count = (copying.len - copying.done).min(AT_ONCE);
            // SAFETY: the range is inside the root or the map, and the buffer has `len` bytes.
            unsafe {
                let from = from.add(copying.start + copying.done);
                let to = buffer.as_mut_ptr().add(copying.done);
                std::ptr::copy_nonoverlapping(from, to, count);
            }
            copying.done += count;
        }
        Ok::<_, Early>(())
    })?;
    if copying.done < copying.len {
        let arguments = [0, 1, 2].map(|n| call.argument(n));
        return Ok(call.go_on(elsewhere!("long_copy" / 3 = copy_on, DirtyCpu), arguments));
    }
    if region.shrinks() != copying.shrinks {
        return Ok(reasons::again().as_c_arg());
    }
    let Some((copying, mut buffer)) = long.take() else {
        return Err(Early::Raise(&WRONG));
    };
    if let (Some(last), true) = (copying.last, copying.len > 0) {
        // SAFETY: the buffer has `len` bytes.
        unsafe { buffer.as_mut_ptr().add(copying.len - 1).write(last) };
    }
    let copy = call.buffer_binary(buffer, copying.len);
    Ok(call.pair(call.uint64(copying.next as u64), call.list(&[copy])))
}

// pieces(handle, root, position, stop, size, form): `{next, pieces}`, each of `size` bytes except for
// the last; none at the end. `form` and `:again` are as for lines.
fn pieces<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    if S::WAIT == Wait::Yes {
        if let Some(copying) = long_piece(call)? {
            return copying.begin(call);
        }
    }
    unshrunk(call, |region| pieces_once(call, region, S::WAIT))
}

/// A chunk that is copied in steps.
fn long_piece(call: &Call) -> Result<Option<Copying>, Early> {
    let region = call.handle()?.region()?;
    let shrinks = region.shrinks();
    let copy = call.count(5)? & COPIES != 0;
    let root = Root::of(call, region, copy, 3)?;
    let start = call.count(2)?.min(root.stop);
    let len = call.count(4)?.min(root.stop - start);
    let next = start + len;
    let piece = Copying {
        start,
        len,
        last: None,
        next,
        shrinks,
        done: 0,
    };
    Ok((copy && len > AT_ONCE).then_some(piece))
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

// Counts in `position .. stop`, the rest of a range that begins at `start`, for a few milliseconds. `{:ok, {how_many, next}}`
#[rustler::nif(schedule = "DirtyCpu")]
fn count_byte<'a>(
    env: Env<'a>,
    handle: HandleRef<'a>,
    start: u64,
    position: u64,
    stop: u64,
    byte: u8,
) -> Term<'a> {
    on_bytes(env, &handle, |region| {
        let until = Instant::now() + AT_ONCE_DIRTY;
        region.scan_count(start, position, stop, byte, until)
    })
}

// Searches for a byte, as count_byte. `{:ok, {:found, position} | {:next, position} | nil}`
#[rustler::nif(schedule = "DirtyCpu")]
fn find_byte<'a>(
    env: Env<'a>,
    handle: HandleRef<'a>,
    start: u64,
    position: u64,
    stop: u64,
    byte: u8,
) -> Term<'a> {
    on_bytes(env, &handle, |region| {
        let until = Instant::now() + AT_ONCE_DIRTY;
        Ok(match region.scan(start, position, stop, byte, until)? {
            Scan::Found(at) => Some((reasons::found(), at)),
            Scan::Paused(at) => Some((reasons::next(), at)),
            Scan::End(_) => None,
        })
    })
}

mod reasons {
    rustler::atoms! {
        again,
        found,
        next,
    }
}

/// `{:ok, found}`, unless a page was lost.
fn on_bytes<'a, T: Encoder>(
    env: Env<'a>,
    handle: &HandleRef,
    search: impl FnOnce(&Region) -> emmap_core::Result<T>,
) -> Term<'a> {
    let found = handle
        .0
        .region()
        .and_then(|region| Ok(region.reading(|| search(region))?));
    match found {
        Ok(found) => (atom::ok(), found).encode(env),
        Err(failure) => failure.encode(env),
    }
}

// Waits for the disk: loads `count` bytes at `position` into memory, and removes those at
// `behind .. position` from this process.
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
