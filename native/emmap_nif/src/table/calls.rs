//! The hot NIFs of tables.

use std::borrow::Cow;

use emmap_core::region::Wait;
use emmap_core::table::layout::LONGEST_PROBE;
use emmap_core::table::lookup::Found;
use emmap_core::table::walk::Step;
use emmap_core::table::{Layout, Memory, Record};
use emmap_core::{guard, interrupt, source, Errno, Region};
use rustler::sys::ErlNifTerm;
use rustler::types::atom;
use rustler::Encoder;

use super::reasons;
use crate::hot::{hot_nif, Call, Early, Scheduler, INLINE_BYTES};
use crate::io::live::live;
use crate::resource::Handle;
use crate::terms::{self, ArgumentError};

hot_nif!("table_get" / 3 = get, DirtyIo);
hot_nif!("table_has" / 2 = has, DirtyIo);
hot_nif!("table_seek" / 2 = seek);
hot_nif!("table_walk" / 6 = walk, DirtyIo);

/// Values up to this length are copied: the VM keeps a binary of so many bytes on the heap of the process.
const COPIED: usize = 64;
/// How many buckets a lookup reads on a normal scheduler. All but the lookups in a damaged file end in the first few.
const PROBES_INLINE: u64 = 64;
/// How many bytes of records a walk returns at most, not counting those of live binaries.
const WALKED: usize = INLINE_BYTES;

/// A table, unless it is closed.
struct Open<'a> {
    handle: &'a Handle,
    layout: &'a Layout,
    region: &'a Region,
    memory: Memory<'a>,
}

#[inline(always)]
fn open(call: &Call) -> Result<Open<'_>, Early> {
    let handle = call.handle()?;
    let layout = handle.table()?;
    let region = handle.region()?;
    let memory = Memory::of(region);
    Ok(Open {
        handle,
        layout,
        region,
        memory,
    })
}

/// A result, or the offset of damage.
type Sound<T> = Result<T, u64>;

/// Reads of the table with `read`. Damage that is due to lost pages is reported as those.
#[inline(always)]
fn reading(
    call: &Call,
    table: &Open,
    read: impl FnOnce() -> Result<Sound<ErlNifTerm>, Early>,
) -> Result<ErlNifTerm, Early> {
    match table.region.reading(read)? {
        Ok(term) => Ok(term),
        Err(at) => Ok(corrupt(*call, at)),
    }
}

#[cold]
#[inline(never)]
fn corrupt(call: Call, at: u64) -> ErlNifTerm {
    call.with_env(|env| {
        let reason = (reasons::corrupt(), at);
        (atom::error(), reason).encode(env).as_c_arg()
    })
}

/// The key in an argument. It is copied if it may be live, because others may change it.
#[inline(always)]
fn key<'a>(call: &'a Call, index: usize) -> Result<Cow<'a, [u8]>, Early> {
    static WRONG: [ArgumentError; 6] = terms::of_each("the key must be a binary");
    let (at, count) = call.bytes(index).ok_or(Early::Raise(&WRONG[index]))?;
    match guard::may_be_guarded(at as usize) {
        true => Ok(Cow::Owned(copied(at, count)?)),
        // SAFETY: a binary argument, which stays valid and unchanged during the call.
        false => Ok(Cow::Borrowed(unsafe {
            std::slice::from_raw_parts(at, count)
        })),
    }
}

#[cold]
#[inline(never)]
fn copied(at: *const u8, count: usize) -> Result<Vec<u8>, Early> {
    let mut key = vec![0; count];
    // SAFETY: a binary argument, valid during the call; the vector has as many bytes.
    unsafe { source::copy_intact(at, key.as_mut_ptr(), count)? };
    Ok(key)
}

#[inline(always)]
fn find<S: Scheduler>(table: &Open, key: &[u8]) -> Result<Sound<Option<Record>>, Early> {
    let most = match S::WAIT {
        Wait::No => PROBES_INLINE,
        Wait::Yes => LONGEST_PROBE,
    };
    match table.layout.find(table.memory, key, most) {
        Found::Record(record) => Ok(Ok(Some(record))),
        Found::Absent => Ok(Ok(None)),
        Found::Paused => Err(Early::Again),
        Found::Corrupt(at) => Ok(Err(at)),
    }
}

/// The value of a record: copied, or live. What is copied is compared with its checksum.
#[inline(always)]
fn value<S: Scheduler>(
    call: &Call,
    table: &Open,
    record: &Record,
    key: &[u8],
) -> Result<Sound<ErlNifTerm>, Early> {
    let count = record.value_len;
    if table.memory.at(record.value, count).is_none() {
        return Ok(Err(record.at));
    }
    if count > COPIED && !table.layout.flags.term_values {
        let start = record.value as usize;
        return live(call, table.handle, table.region, 1, start, count).map(Ok);
    }
    if S::WAIT == Wait::No && count > INLINE_BYTES {
        return Err(Early::Again);
    }
    copy(call, table, record, key)
}

#[inline(always)]
fn copy(
    call: &Call,
    table: &Open,
    record: &Record,
    key: &[u8],
) -> Result<Sound<ErlNifTerm>, Early> {
    let count = record.value_len;
    let Some(from) = table.memory.at(record.value, count) else {
        return Ok(Err(record.at));
    };
    let (out, term) = call.new_binary(count);
    // SAFETY: `from` has `count` readable bytes, and the new binary room for as many.
    let copy = |start: usize, count: usize| unsafe {
        std::ptr::copy_nonoverlapping(from.add(start), out.add(start), count);
    };
    let copied = match interrupt::is_long(count) {
        false => {
            copy(0, count);
            count
        }
        true => call.interruptible(|| interrupt::in_pieces(count, false, copy)),
    };
    if copied < count {
        return Err(Errno::INTR.into());
    }
    call.consumed(count);
    // SAFETY: all of the new binary was written, and nobody else has it.
    let out = unsafe { std::slice::from_raw_parts(out, count) };
    match record.is_intact(key, out) {
        true => Ok(Ok(term)),
        false => Ok(Err(record.at)),
    }
}

// table_get(handle, root, key) -> value | nil | {:error, reason}
#[inline(always)]
fn get<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let table = open(call)?;
    let key = key(call, 2)?;
    reading(call, &table, || match find::<S>(&table, &key)? {
        Ok(Some(record)) => value::<S>(call, &table, &record, &key),
        Ok(None) => Ok(Ok(terms::nil().as_c_arg())),
        Err(at) => Ok(Err(at)),
    })
}

// table_has(handle, key) -> boolean | {:error, reason}
#[inline(always)]
fn has<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let table = open(call)?;
    let key = key(call, 1)?;
    reading(call, &table, || {
        let found = find::<S>(&table, &key)?;
        Ok(found.map(|found| match found {
            Some(_) => atom::true_().as_c_arg(),
            None => atom::false_().as_c_arg(),
        }))
    })
}

// table_seek(handle, key) -> position of the first record whose key is not before `key`
fn seek(call: &Call) -> Result<ErlNifTerm, Early> {
    let table = open(call)?;
    let key = key(call, 1)?;
    reading(call, &table, || {
        let at = table.layout.seek(table.memory, &key);
        Ok(at.map(|at| call.uint64(at)))
    })
}

/// Where a walk ends before the end of the table.
#[derive(Clone, Copy)]
enum Bound {
    None,
    /// After the last key that is not behind this one.
    Last,
    /// After the last key that begins with this one.
    Prefix,
}

// table_walk(handle, root, position, most, what, bound) -> {records, next position | nil}. `what` is 0 for `{key, value}`
// and 1 for keys; plus 2, `bound` is the last key, plus 4, it is the prefix of all keys.
fn walk<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    const WRONG: ArgumentError = ArgumentError("the kind of a walk is a number below 6", 4);
    let table = open(call)?;
    let (mut at, most) = (call.position(2)?, call.count(3)?.clamp(1, 1000));
    let what = call.int64(4).filter(|what| (0..6).contains(what));
    let what = what.ok_or(Early::Raise(&WRONG))?;
    let bound_key = key(call, 5)?;
    let bound = match what >> 1 {
        0 => Bound::None,
        1 => Bound::Last,
        _ => Bound::Prefix,
    };
    reading(call, &table, || {
        let (mut items, mut bytes) = (Vec::with_capacity(most.min(64)), 0);
        let mut key = Vec::new();
        let mut next = call.nil();
        loop {
            let record = match table.layout.record_at(table.memory, at) {
                Step::Record(record) => record,
                Step::End => break,
                Step::Corrupt(at) => return Ok(Err(at)),
            };
            if items.len() == most || bytes >= WALKED {
                next = call.uint64(at);
                break;
            }
            key.resize(record.key_len, 0);
            if table.memory.copy(record.key, &mut key).is_none() {
                return Ok(Err(at));
            }
            let inside = match bound {
                Bound::None => true,
                Bound::Last => key[..] <= bound_key[..],
                Bound::Prefix => key.starts_with(&bound_key),
            };
            if !inside {
                break;
            }
            let key_term = call.binary(&key);
            let item = match what & 1 {
                0 => match value::<S>(call, &table, &record, &key) {
                    Ok(Ok(value)) => call.pair(key_term, value),
                    Ok(Err(at)) => return Ok(Err(at)),
                    // The next call begins with it, and continues where it may take long.
                    Err(Early::Again) if !items.is_empty() => {
                        next = call.uint64(at);
                        break;
                    }
                    Err(early) => return Err(early),
                },
                _ => key_term,
            };
            bytes += record.key_len
                + if table.layout.flags.term_values {
                    record.value_len
                } else {
                    COPIED
                };
            items.push(item);
            at = record.end();
        }
        call.consumed_items(items.len(), bytes);
        Ok(Ok(call.pair(call.list(&items), next)))
    })
}

impl Call {
    fn nil(&self) -> ErlNifTerm {
        terms::nil().as_c_arg()
    }

    /// A binary with a copy of these bytes.
    fn binary(&self, bytes: &[u8]) -> ErlNifTerm {
        let (out, term) = self.new_binary(bytes.len());
        // SAFETY: the new binary has as many bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), out, bytes.len()) };
        term
    }
}
