//! Pages of bits: 504 words, and a bit for each of them that marks it as full.
//!
//! In a page of zeros, nothing is in use, so a file can grow without being written to.

use super::layout::{BITS, WORDS};
use super::Result;
use crate::store::log::Change;
use crate::store::Shared;

/// The offset of a word.
#[inline(always)]
pub fn word(page: u64, word: u64) -> u64 {
    page + word * 8
}

/// The offset of the word, and the bit in it.
#[inline(always)]
pub fn bit(page: u64, bit: u64) -> (u64, u64) {
    (word(page, bit / 64), 1 << (bit % 64))
}

/// The offset of the word that marks whether word `of` is full, and its bit there.
#[inline(always)]
pub fn full(page: u64, of: u64) -> (u64, u64) {
    bit(page + WORDS * 8, of)
}

/// The first word that is not marked as full, from `from` on.
pub fn first_word<S: Shared>(shared: &S, page: u64, from: u64) -> Result<Option<u64>> {
    let mut at = from;
    while at < WORDS {
        let (place, _) = full(page, at);
        let free = !shared.load(place)? & (u64::MAX << (at % 64));
        if free != 0 {
            let found = at / 64 * 64 + u64::from(free.trailing_zeros());
            return Ok((found < WORDS).then_some(found));
        }
        at = (at / 64 + 1) * 64;
    }
    Ok(None)
}

/// The first bit of a directory that is not set.
pub fn first_clear<S: Shared>(shared: &S, page: u64) -> Result<Option<u64>> {
    let mut from = 0;
    while let Some(found) = first_word(shared, page, from)? {
        let bits = shared.load(word(page, found))?;
        if bits != u64::MAX {
            return Ok(Some(found * 64 + u64::from(bits.trailing_ones())));
        }
        // Damaged: it is full, but not marked as full.
        from = found + 1;
    }
    Ok(None)
}

/// Marks whether word `of` is full. Returns whether all words are then full.
pub fn set_full<S: Shared>(
    shared: &S,
    page: u64,
    of: u64,
    is_full: bool,
    change: &mut Change<S>,
) -> Result<bool> {
    let (at, bit) = full(page, of);
    let before = shared.load(at)?;
    let after = if is_full { before | bit } else { before & !bit };
    if after != before {
        change.set(at, after)?;
    }
    if after != ones(of / 64) {
        return Ok(false);
    }
    for group in 0..WORDS.div_ceil(64) {
        let at = full(page, group * 64).0;
        if group != of / 64 && shared.load(at)? != ones(group) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The value of word `group` if all the words that it marks are full.
fn ones(group: u64) -> u64 {
    match WORDS - group * 64 {
        last @ 0..64 => (1 << last) - 1,
        _ => u64::MAX,
    }
}

/// Sets or clears a bit of a directory. Returns whether all bits are then set.
pub fn set<S: Shared>(
    shared: &S,
    page: u64,
    number: u64,
    is_set: bool,
    change: &mut Change<S>,
) -> Result<bool> {
    let (at, bit) = bit(page, number % BITS);
    let before = shared.load(at)?;
    let after = if is_set { before | bit } else { before & !bit };
    if after != before {
        change.set(at, after)?;
    }
    set_full(shared, page, number % BITS / 64, after == u64::MAX, change)
}
