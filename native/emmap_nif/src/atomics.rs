//! The hot NIFs on integers. They take no lock and never leave their scheduler.

use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use emmap_core::Region;
use rustler::sys::ErlNifTerm;

use crate::hot::{hot_nif, Call, Early};

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

/// Runs `act` on the open region of argument 0 and the position of argument 1. The result of `act` is returned, unless a
/// page was lost.
#[inline(always)]
fn at_word(
    call: &Call,
    act: impl FnOnce(&Region, u64) -> Result<ErlNifTerm, Early>,
) -> Result<ErlNifTerm, Early> {
    let region = call.handle()?.region()?;
    let position = call.position(1)?;
    region.writing(|| act(region, position))
}

/// Returns the old value, unwrapped, where `change` returns the old value.
#[inline(always)]
fn changed(
    call: &Call,
    value: impl FnOnce(&Call) -> Result<i64, Early>,
    change: impl FnOnce(&AtomicI64, i64) -> i64,
) -> Result<ErlNifTerm, Early> {
    at_word(call, |region, position| {
        let value = value(call)?;
        Ok(call.sint64(change(region.word_mut(position)?, value)))
    })
}

fn operand(call: &Call) -> Result<i64, Early> {
    call.word(2)
}

fn number(call: &Call) -> Result<i64, Early> {
    call.signed_word(2)
}

fn add(call: &Call) -> Result<ErlNifTerm, Early> {
    changed(call, operand, |word, value| word.fetch_add(value, SeqCst))
}

fn xchg(call: &Call) -> Result<ErlNifTerm, Early> {
    changed(call, number, |word, value| word.swap(value, SeqCst))
}

fn and(call: &Call) -> Result<ErlNifTerm, Early> {
    changed(call, operand, |word, value| word.fetch_and(value, SeqCst))
}

fn or(call: &Call) -> Result<ErlNifTerm, Early> {
    changed(call, operand, |word, value| word.fetch_or(value, SeqCst))
}

fn xor(call: &Call) -> Result<ErlNifTerm, Early> {
    changed(call, operand, |word, value| word.fetch_xor(value, SeqCst))
}

fn min(call: &Call) -> Result<ErlNifTerm, Early> {
    changed(call, number, |word, value| word.fetch_min(value, SeqCst))
}

fn max(call: &Call) -> Result<ErlNifTerm, Early> {
    changed(call, number, |word, value| word.fetch_max(value, SeqCst))
}

// atomic_cas(handle, position, expected, new): it succeeded if the old value equals `expected`.
fn cas(call: &Call) -> Result<ErlNifTerm, Early> {
    at_word(call, |region, position| {
        let (expected, new) = (call.signed_word(2)?, call.signed_word(3)?);
        let word = region.word_mut(position)?;
        let old = word.compare_exchange(expected, new, SeqCst, SeqCst);
        Ok(call.sint64(old.unwrap_or_else(|old| old)))
    })
}

fn read(call: &Call) -> Result<ErlNifTerm, Early> {
    at_word(call, |region, position| {
        Ok(call.sint64(region.word(position)?.load(SeqCst)))
    })
}

fn write(call: &Call) -> Result<ErlNifTerm, Early> {
    at_word(call, |region, position| {
        let value = call.signed_word(2)?;
        region.word_mut(position)?.store(value, SeqCst);
        Ok(call.ok())
    })
}
