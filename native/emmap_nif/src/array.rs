//! The NIFs of arrays: sums and searches over the numbers of a column.
//!
//! A fold over many elements consists of many calls, as a search does (`search.rs`): each works for a few milliseconds on
//! a dirty CPU scheduler, and returns where to continue.

use std::mem::MaybeUninit;
use std::os::raw::c_int;
use std::time::{Duration, Instant};

use emmap_core::array::folds::{extreme, sum, Extreme, Sum};
use emmap_core::array::pack::pack;
use emmap_core::array::search::{lower_bound, Key};
use emmap_core::array::Column;
use emmap_core::buffer::Buffer;
use emmap_core::region::{Read, Wait};
use emmap_core::typed::{Kind, Number, Type, MOST};
use emmap_core::{Errno, Region};
use rustler::sys::{
    enif_get_int64, enif_get_list_cell, enif_get_tuple, enif_get_uint64, ErlNifTerm,
};
use rustler::types::atom;

use crate::hot::{hot_nif, Call, Early, Scheduler, AT_ONCE_DIRTY, INLINE_BYTES};
use crate::io::change::check_turn;
use crate::resource::UNMAP_INLINE;
use crate::terms::ArgumentError;
use crate::typed::{infinite, number};

hot_nif!("array_sum" / 4 = total, DirtyCpu);
hot_nif!("array_min" / 4 = least, DirtyCpu);
hot_nif!("array_max" / 4 = greatest, DirtyCpu);
hot_nif!("array_search" / 4 = search, DirtyIo);
hot_nif!("array_at" / 3 = at, DirtyIo);
hot_nif!("array_pick" / 3 = pick, DirtyIo);
hot_nif!("array_pack" / 4 = packed, DirtyIo);
hot_nif!("array_append" / 4 = append, DirtyIo);

/// How long a search works on a normal scheduler: each page may have to be read from the disk.
const AT_ONCE_INLINE: Duration = Duration::from_micros(300);

/// How many elements are picked at once.
const PICKED_INLINE: usize = 1000;

const WRONG_COLUMN: ArgumentError = ArgumentError("not a column", 1);
const WRONG_KEY: ArgumentError = ArgumentError("the value does not fit the type of the column", 2);
const WRONG_STATE: ArgumentError = ArgumentError("not a state", 3);
const WRONG_INDICES: ArgumentError = ArgumentError("not a list of integers", 2);

/// A column, and the type of its numbers; `None` for bytes.
type Typed = (Column, Option<Type>);

// A column is {first, stride, field, count, type}: the count is -1 for an open end, the type a code of `Emmap.Typed`, or the
// negative number of bytes.
#[inline(always)]
fn column(call: &Call) -> Result<Typed, Early> {
    let wrong = Early::Raise(&WRONG_COLUMN);
    match call.with_env(|env| decode(env.as_c_arg(), call.argument(1))) {
        Some(column) => Ok(column),
        None => Err(wrong),
    }
}

#[inline(always)]
fn decode(env: *mut rustler::sys::ErlNifEnv, term: ErlNifTerm) -> Option<Typed> {
    let (mut arity, mut terms): (c_int, *const ErlNifTerm) = (0, std::ptr::null());
    // SAFETY: the environment of this call, in which the terms of the tuple live; `terms` is set if the result is not 0.
    unsafe {
        if enif_get_tuple(env, term, &mut arity, &mut terms) == 0 || arity != 5 {
            return None;
        }
        let (mut numbers, mut signed) = ([0u64; 3], [0i64; 2]);
        for (at, number) in numbers.iter_mut().enumerate() {
            if enif_get_uint64(env, *terms.add(at), number) == 0 {
                return None;
            }
        }
        for (at, number) in signed.iter_mut().enumerate() {
            if enif_get_int64(env, *terms.add(3 + at), number) == 0 {
                return None;
            }
        }
        let [first, stride, field] = numbers;
        let [count, code] = signed;
        let (of, size) = match code {
            0.. => Type::of_code(code).map(|of| (Some(of), of.size()))?,
            _ => (None, usize::try_from(code.unsigned_abs()).ok()?),
        };
        let count = u64::try_from(count).ok();
        Column::new(first, stride, field, size, count).map(|column| (column, of))
    }
}

#[inline(always)]
fn numbers_of(call: &Call) -> Result<(Column, Type), Early> {
    match column(call)? {
        (column, Some(of)) => Ok((column, of)),
        _ => Err(Early::Raise(&WRONG_COLUMN)),
    }
}

/// Until when a fold over these elements may work: on a normal scheduler to the end, if they are few.
fn until<S: Scheduler>(
    region: &Region,
    column: &Column,
    from: usize,
) -> Result<Option<Instant>, Early> {
    if S::WAIT == Wait::Yes {
        return Ok(Some(Instant::now() + AT_ONCE_DIRTY));
    }
    let left = column.of(region)?.count.saturating_sub(from);
    match left.saturating_mul(column.stride as usize) <= INLINE_BYTES {
        true => Ok(None),
        false => Err(Early::Again),
    }
}

/// The state of a fold in argument 3.
fn state<const N: usize>(call: &Call) -> Result<Option<[u8; N]>, Early> {
    match call.bytes(3) {
        Some((_, 0)) => Ok(None),
        Some((at, count)) if count == N => {
            let mut state = [0; N];
            // SAFETY: a binary of `N` bytes, valid during the call.
            unsafe { std::ptr::copy_nonoverlapping(at, state.as_mut_ptr(), N) };
            Ok(Some(state))
        }
        _ => Err(Early::Raise(&WRONG_STATE)),
    }
}

fn new_state<const N: usize>(call: &Call, state: [u8; N]) -> ErlNifTerm {
    let (at, term) = call.new_binary(N);
    // SAFETY: a new binary of `N` bytes.
    unsafe { std::ptr::copy_nonoverlapping(state.as_ptr(), at, N) };
    term
}

// array_sum(handle, column, from, state): a number, or 16 bytes of an integer, or {next, state} to go on. The first state
// is empty.
fn total<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let region = call.handle()?.region()?;
    let (column, of) = numbers_of(call)?;
    let from = call.count(2)?;
    let mut so_far = match (state::<16>(call)?, Sum::new(of)) {
        (None, new) => new,
        (Some(state), Sum::Integer(_)) => Sum::Integer(i128::from_ne_bytes(state)),
        (Some(state), Sum::Float { .. }) => {
            let [sum, compensation] = halves(state).map(f64::from_ne_bytes);
            Sum::Float { sum, compensation }
        }
    };
    let until = until::<S>(region, &column, from)?;
    let (next, count) = region.reading(|| {
        let next = sum(region, &column, of, from, &mut so_far, until)?;
        Ok::<_, Errno>((next, column.of(region)?.count))
    })?;
    if next < count {
        let state = match so_far {
            Sum::Integer(sum) => sum.to_ne_bytes(),
            Sum::Float { sum, compensation } => joined([sum, compensation].map(f64::to_ne_bytes)),
        };
        return Ok(call.pair(call.uint64(next as u64), new_state(call, state)));
    }
    Ok(match so_far {
        Sum::Float { sum, compensation } => {
            number(call, Number::Float(Sum::float(sum, compensation)))
        }
        Sum::Integer(sum) => match i64::try_from(sum) {
            Ok(sum) => call.sint64(sum),
            Err(_) => new_state(call, sum.to_ne_bytes()),
        },
    })
}

fn halves(state: [u8; 16]) -> [[u8; 8]; 2] {
    let [mut one, mut other] = [[0; 8]; 2];
    one.copy_from_slice(&state[..8]);
    other.copy_from_slice(&state[8..]);
    [one, other]
}

fn joined([one, other]: [[u8; 8]; 2]) -> [u8; 16] {
    let mut state = [0; 16];
    state[..8].copy_from_slice(&one);
    state[8..].copy_from_slice(&other);
    state
}

// array_min(handle, column, from, state): a number, `nil` without elements, or {next, state} to go on. The first state is
// empty.
fn least<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    fold_extreme::<S>(call, false)
}

// array_max(handle, column, from, state)
fn greatest<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    fold_extreme::<S>(call, true)
}

fn fold_extreme<S: Scheduler>(call: &Call, greatest: bool) -> Result<ErlNifTerm, Early> {
    let region = call.handle()?.region()?;
    let (column, of) = numbers_of(call)?;
    let from = call.count(2)?;
    let state = state::<8>(call)?;
    let mut found = state.map(|state| Extreme(u64::from_ne_bytes(state)));
    let until = until::<S>(region, &column, from)?;
    let (next, count) = region.reading(|| {
        let next = extreme(region, &column, of, greatest, from, &mut found, until)?;
        Ok::<_, Errno>((next, column.of(region)?.count))
    })?;
    let Some(Extreme(bits)) = found else {
        return Ok(atom::nil().as_c_arg());
    };
    if next < count {
        let state = new_state(call, bits.to_ne_bytes());
        return Ok(call.pair(call.uint64(next as u64), state));
    }
    let found = match of.kind() {
        Kind::Unsigned => Number::Unsigned(bits),
        Kind::Signed => Number::Signed(bits as i64),
        Kind::Float => Number::Float(f64::from_bits(bits)),
    };
    Ok(number(call, found))
}

// array_search(handle, column, key, after_equal): the index of the first element that is not less than the key, or, with 1,
// that is greater; -1 - index if no element at the index is equal to the key.
#[inline(always)]
fn search<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let region = call.handle()?.region()?;
    let (column, of) = column(call)?;
    let key = key(call, &column, of)?;
    let after_equal = call.int64(3) == Some(1);
    let began = Instant::now();
    let go_on = || S::WAIT == Wait::Yes || began.elapsed() < AT_ONCE_INLINE;
    // SAFETY: a key of bytes is a binary argument of this call.
    let found = region
        .reading(|| unsafe { lower_bound(region, &column, of, key, after_equal, go_on) })?
        .ok_or(Early::Again)?;
    let index = found.index as i64;
    Ok(call.sint64(if found.equal { index } else { -1 - index }))
}

/// The key in argument 2. An integer of more than 64 bits is the next one outside of them, which is in no column.
#[inline(always)]
fn key(call: &Call, column: &Column, of: Option<Type>) -> Result<Key, Early> {
    let wrong = Early::Raise(&WRONG_KEY);
    let Some(of) = of else {
        return match call.bytes(2) {
            Some((at, count)) if count == column.size => Ok(Key::Bytes(at)),
            _ => Err(wrong),
        };
    };
    if of.kind() == Kind::Float {
        return match call.double(2).or_else(|| infinite(call.argument(2))) {
            Some(value) => Ok(Key::Float(value)),
            None => Err(wrong),
        };
    }
    match (call.int64(2), call.uint64_argument(2)) {
        (Some(value), _) => Ok(Key::Integer(value.into())),
        (_, Some(value)) => Ok(Key::Integer(value.into())),
        _ => Err(wrong),
    }
}

// array_at(handle, column, index): the number, or `nil` if there is none.
#[inline(always)]
fn at<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let region = call.handle()?.region()?;
    let (column, of) = numbers_of(call)?;
    let index = call.position(2)?;
    region.reading(|| {
        if index >= column.of(region)?.count as u64 {
            return Ok(atom::nil().as_c_arg());
        }
        let position = column.first + index * column.stride + column.field;
        one::<S>(call, region, position, of)
    })
}

// array_pick(handle, column, indices): {values, rest}: the numbers at the first indices, in reverse order, and `nil` where there is
// none; and the indices that remain.
fn pick<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let region = call.handle()?.region()?;
    let (column, of) = numbers_of(call)?;
    let mut indices = call.argument(2);
    let mut values = call.list(&[]);
    region.reading(|| {
        let count = column.of(region)?.count as u64;
        for _ in 0..PICKED_INLINE {
            let Some((index, rest)) = cell(call, indices)? else {
                break;
            };
            let value = match index {
                Some(index) if index < count => {
                    let position = column.first + index * column.stride + column.field;
                    one::<S>(call, region, position, of)?
                }
                _ => atom::nil().as_c_arg(),
            };
            values = call.cons(value, values);
            indices = rest;
        }
        Ok::<_, Early>(())
    })?;
    call.consumed_items(PICKED_INLINE, 0);
    Ok(call.pair(values, indices))
}

/// The first integer of a list, `None` if no element has it, and the rest; `None` for an empty list.
#[inline(always)]
fn cell(call: &Call, list: ErlNifTerm) -> Result<Option<(Option<u64>, ErlNifTerm)>, Early> {
    let (mut head, mut rest) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: the environment of this call; `head` and `rest` are set if the result is not 0.
    call.with_env(|env| unsafe {
        let env = env.as_c_arg();
        if enif_get_list_cell(env, list, head.as_mut_ptr(), rest.as_mut_ptr()) == 0 {
            return match rustler::sys::enif_is_empty_list(env, list) {
                0 => Err(Early::Raise(&WRONG_INDICES)),
                _ => Ok(None),
            };
        }
        let mut index = 0;
        let index = match enif_get_uint64(env, head.assume_init(), &mut index) {
            0 => None,
            _ => Some(index),
        };
        Ok(Some((index, rest.assume_init())))
    })
}

#[inline(always)]
fn one<S: Scheduler>(
    call: &Call,
    region: &Region,
    position: u64,
    of: Type,
) -> Result<ErlNifTerm, Early> {
    let mut bytes = [0; MOST];
    let Some((start, count)) = region.locate(position, of.size()) else {
        return Ok(atom::nil().as_c_arg());
    };
    // SAFETY: `count` is at most the size of a number, for which there is room.
    match unsafe { region.copy_out(start, count, bytes.as_mut_ptr(), S::WAIT) } {
        Read::Busy => Err(Early::Again),
        Read::Done(got) if got < of.size() => Ok(atom::nil().as_c_arg()),
        Read::Done(_) => Ok(number(call, of.decode(bytes))),
    }
}

// array_pack(handle, column, from, count): the elements without gaps, in the byte order of the machine.
fn packed<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let region = call.handle()?.region()?;
    let (column, of) = column(call)?;
    let (from, count) = (call.count(2)?, call.count(3)?);
    let left = column.of(region)?.count.saturating_sub(from);
    let count = count.min(left);
    let bytes = count.checked_mul(column.size).ok_or(Errno::NOMEM)?;
    let spread = count.saturating_mul(column.stride as usize);
    if S::WAIT == Wait::No && spread > INLINE_BYTES {
        return Err(Early::Again);
    }
    let fill = |at: *mut u8| {
        // SAFETY: there is room for `count` elements, in a buffer or a new binary.
        let copy = || unsafe { pack(region, &column, of, from, count, at) };
        let done = region.reading(|| match S::WAIT {
            Wait::Yes => call.interruptible(copy),
            Wait::No => copy(),
        })?;
        // The map became shorter in the meantime.
        match done == count {
            true => Ok(()),
            false => Err(Errno::STALE),
        }
    };
    if bytes > UNMAP_INLINE {
        let mut buffer = Buffer::new(bytes)?;
        fill(buffer.as_mut_ptr())?;
        return Ok(call.buffer_binary(buffer, bytes));
    }
    let (at, binary) = call.new_binary(bytes);
    fill(at)?;
    Ok(binary)
}

// array_append(handle, first, stride, binary): the position of the first new record. It always blocks on the disk.
fn append<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    if S::WAIT == Wait::No {
        return Err(Early::Again);
    }
    let handle = call.handle()?;
    let region = handle.region()?;
    let (first, stride) = (call.position(1)?, call.position(2)?);
    let (data, count) = call.data(3)?;
    check_turn(handle)?;
    // SAFETY: `data` is a binary argument of this call, alive until it ends.
    let position = unsafe { region.append_records(first, stride, data, count) }?;
    Ok(call.uint64(position))
}
