//! Pages of bits: 504 words, and a bit for each of them that says that it is full.
//!
//! A page of zeros has nothing in use, so that a file grows without being written to.

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

/// The offset of the word that says whether word `of` is full, and its bit there.
#[inline(always)]
pub fn full(page: u64, of: u64) -> (u64, u64) {
    bit(page + WORDS * 8, of)
}

/// The first word that is not said to be full, from `from` on.
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
        // Damaged: it is full, and is not said to be.
        from = found + 1;
    }
    Ok(None)
}

/// Says whether word `of` is full. Whether all words are, then.
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

/// The word of a page all of whose words are full.
fn ones(group: u64) -> u64 {
    match WORDS - group * 64 {
        last @ 0..64 => (1 << last) - 1,
        _ => u64::MAX,
    }
}

/// Sets or clears a bit of a directory. Whether all bits are set, then.
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
