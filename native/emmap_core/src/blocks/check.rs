//! Checks the invariants, for tests and for checking a file.

use super::layout::{self, group, BITS, WORDS};
use super::{page, Locked, Stop};
use crate::interrupt;
use crate::store::Shared;

use std::collections::HashSet;

type Checked = Result<(), String>;

fn holds(what: &str, is: bool) -> Checked {
    match is {
        true => Ok(()),
        false => Err(what.to_string()),
    }
}

impl<S: Shared> Locked<'_, S> {
    /// Compares all derived data with its source. Blocks are not read.
    pub fn check(&self) -> Checked {
        let told = |what: &str, error: &dyn std::fmt::Debug| format!("{what}: {error:?}");
        let word = |at: u64| self.load(at).map_err(|error| told("a word", &error));
        let words = |number, page| {
            self.words(number, page)
                .map_err(|error| told("a page", &error))
        };
        let capacity = word(layout::CAPACITY)?;
        let (mut count, mut lowest, mut end) = (0, None, 0);
        let mut full = Vec::new();
        for number in 0..self.geometry.groups_of(capacity) {
            interrupt::check().map_err(|error| told("interrupted", &error))?;
            let live = words(number, group::LIVE)?;
            let held = words(number, group::HELD)?;
            let taken: Vec<u64> = live
                .iter()
                .zip(&held)
                .map(|(live, held)| live | held)
                .collect();
            count += live
                .iter()
                .map(|word| u64::from(word.count_ones()))
                .sum::<u64>();
            let start = self.geometry.group(number) + group::LIVE;
            self.check_full("a group", start, &taken)?;
            full.push(taken.iter().all(|word| *word == u64::MAX));
            if let (None, Some(at)) = (lowest, taken.iter().position(|word| *word != u64::MAX)) {
                let bit = u64::from(taken[at].trailing_ones());
                lowest = Some(number * BITS + at as u64 * 64 + bit);
            }
            if let Some(at) = taken.iter().rposition(|word| *word != 0) {
                let bit = u64::from(64 - taken[at].leading_zeros());
                end = number * BITS + at as u64 * 64 + bit;
            }
        }
        holds("a block behind the capacity", end <= capacity)?;
        holds("the count", count == word(layout::COUNT)?)?;
        let hint = word(layout::HINT)?;
        holds(
            "the hint is too high",
            hint <= lowest.unwrap_or(u64::MAX).min(capacity),
        )?;
        let mut supers = Vec::new();
        for (number, groups) in full.chunks(BITS as usize).enumerate() {
            let at = self.geometry.directory(number as u64);
            supers.push(self.check_directory("a directory", at, groups)?);
        }
        self.check_directory("the directory", layout::DIRECTORY, &supers)?;
        let syncs = word(layout::SYNCS_DONE)? <= word(layout::SYNCS_BEGUN)?;
        holds("a sync is complete that did not begin", syncs)?;
        self.check_slots()
    }

    fn check_full(&self, what: &str, at: u64, words: &[u64]) -> Checked {
        for (number, bits) in (0..WORDS).zip(words) {
            let (at, bit) = page::full(at, number);
            let said = self.load(at).map_err(|error| format!("{error:?}"))? & bit != 0;
            let what = format!("{what}: word {number} is full or not");
            holds(&what, said == (*bits == u64::MAX))?;
        }
        Ok(())
    }

    fn check_directory(&self, what: &str, at: u64, bits: &[bool]) -> Result<bool, String> {
        let mut words = [0u64; WORDS as usize];
        for (number, bit) in bits.iter().enumerate() {
            words[number / 64] |= u64::from(*bit) << (number % 64);
        }
        for (number, bits) in (0..WORDS).zip(words) {
            let said = self.load(page::word(at, number));
            holds(&format!("{what}: word {number}"), said == Ok(bits))?;
        }
        self.check_full(what, at, &words)?;
        Ok(words.iter().all(|word| *word == u64::MAX))
    }

    fn check_slots(&self) -> Checked {
        let slots = self.in_slots().map_err(|error| format!("{error:?}"))?;
        let replaced = self
            .load(layout::REPLACED)
            .map_err(|error| format!("{error:?}"))?;
        holds("the count of slots", slots.len() as u64 == replaced)?;
        let told = |error: Stop| format!("{error:?}");
        let mut replaced = HashSet::new();
        for slot in &slots {
            let possible = self.is_possible(slot).map_err(told)?;
            holds(
                "a slot of a block that is not there, or not its own",
                possible,
            )?;
            holds(
                "a block is in two slots",
                slot.is_superseded() || replaced.insert(slot.address()),
            )?;
        }
        Ok(())
    }
}
