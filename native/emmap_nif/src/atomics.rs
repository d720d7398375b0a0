//! The hot NIFs on integers. They take no lock and never leave their scheduler.

use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use emmap_core::{Errno, Region};
use rustler::sys::ErlNifTerm;

use crate::hot::{hot_nif, Call};

hot_nif!("atomic_add" / 3 = add);
hot_nif!("atomic_xchg" / 3 = xchg);
hot_nif!("atomic_and" / 3 = and);
hot_nif!("atomic_or" / 3 = or);
hot_nif!("atomic_xor" / 3 = xor);
hot_nif!("atomic_min" / 3 = min);
hot_nif!("atomic_max" / 3 = max);
hot_nif!("atomic_cas" / 4 = cas);
hot_nif!("atomic_read" / 2 = read);
hot_nif!("atomic_write" / 3 = write);

/// Runs `act` on the open region of argument 0 and the position of argument 1; a fault that the
/// touch met is the answer then.
#[inline(always)]
fn at_word(
    call: &Call,
    act: impl FnOnce(&Region, u64) -> Result<Result<ErlNifTerm, Errno>, ErlNifTerm>,
) -> ErlNifTerm {
    let found = || Ok((call.region(call.handle()?)?, call.position(1)?));
    let (region, position) = match found() {
        Ok(found) => found,
        Err(early) => return early,
    };
    let mark = match region.begin() {
        Ok(mark) => mark,
        Err(error) => return call.error(error),
    };
    match act(region, position) {
        Ok(done) => match done.and_then(|term| region.check_since(mark).map(|()| term)) {
            Ok(term) => term,
            Err(error) => call.error(error),
        },
        Err(early) => early,
    }
}

/// The old value, bare, where `change` gives the old value.
#[inline(always)]
fn changed(
    call: &Call,
    value: impl FnOnce(&Call) -> Result<i64, ErlNifTerm>,
    change: impl FnOnce(&AtomicI64, i64) -> i64,
) -> ErlNifTerm {
    at_word(call, |region, position| {
        let value = value(call)?;
        let old = region.word_mut(position).map(|word| change(word, value));
        Ok(old.map(|old| call.sint64(old)))
    })
}

fn operand(call: &Call) -> Result<i64, ErlNifTerm> {
    call.word(2)
}

fn number(call: &Call) -> Result<i64, ErlNifTerm> {
    call.signed_word(2)
}

fn add(call: &Call) -> ErlNifTerm {
    changed(call, operand, |word, value| word.fetch_add(value, SeqCst))
}

fn xchg(call: &Call) -> ErlNifTerm {
    changed(call, number, |word, value| word.swap(value, SeqCst))
}

fn and(call: &Call) -> ErlNifTerm {
    changed(call, operand, |word, value| word.fetch_and(value, SeqCst))
}

fn or(call: &Call) -> ErlNifTerm {
    changed(call, operand, |word, value| word.fetch_or(value, SeqCst))
}

fn xor(call: &Call) -> ErlNifTerm {
    changed(call, operand, |word, value| word.fetch_xor(value, SeqCst))
}

fn min(call: &Call) -> ErlNifTerm {
    changed(call, number, |word, value| word.fetch_min(value, SeqCst))
}

fn max(call: &Call) -> ErlNifTerm {
    changed(call, number, |word, value| word.fetch_max(value, SeqCst))
}

// atomic_cas(handle, position, expected, new): it succeeded when the old value was the expected.
fn cas(call: &Call) -> ErlNifTerm {
    at_word(call, |region, position| {
        let (expected, new) = (call.signed_word(2)?, call.signed_word(3)?);
        let old = region.word_mut(position).map(|word| {
            word.compare_exchange(expected, new, SeqCst, SeqCst)
                .unwrap_or_else(|old| old)
        });
        Ok(old.map(|old| call.sint64(old)))
    })
}

fn read(call: &Call) -> ErlNifTerm {
    at_word(call, |region, position| {
        let value = region.word(position).map(|word| word.load(SeqCst));
        Ok(value.map(|value| call.sint64(value)))
    })
}

fn write(call: &Call) -> ErlNifTerm {
    at_word(call, |region, position| {
        let value = call.signed_word(2)?;
        Ok(region.word_mut(position).map(|word| {
            word.store(value, SeqCst);
            call.ok()
        }))
    })
}
