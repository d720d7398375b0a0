//! The positions of a structure's file that live binaries of this program show. A word in the file contains the lowest
//! position, so that its space is not reused.
//!
//! A position is added by a call that holds the structure's lock, under which others recycle space, so every recycler sees
//! it. It is removed by a destructor, at any time and without that lock. If a recycler has read the word before, it sees a
//! pin that is not needed any more, which only keeps space for longer than necessary. The word is stored under the mutex that
//! protects the positions, so it is never higher than the lowest position.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Shared;
use crate::Result;

/// The pinned positions, each with the number of live binaries that show it. No thread waits while it holds the mutex.
#[derive(Default)]
pub struct Pins(Mutex<BTreeMap<u64, usize>>);

impl Pins {
    /// Pins a position once more. The caller holds the lock of the structure, and knows that the position is in use.
    pub fn add<S: Shared>(&self, position: u64, shared: &S, word: u64) -> Result<()> {
        let mut pins = self.lock();
        *pins.entry(position).or_insert(0) += 1;
        let stored = store(&pins, shared, word);
        if stored.is_err() {
            take(&mut pins, position);
        }
        stored
    }

    /// Ends one pin of a position.
    pub fn remove<S: Shared>(&self, position: u64, shared: &S, word: u64) -> Result<()> {
        let mut pins = self.lock();
        take(&mut pins, position);
        store(&pins, shared, word)
    }

    /// Stores the word again, because it may belong to another program, or be lost.
    pub fn publish<S: Shared>(&self, shared: &S, word: u64) -> Result<()> {
        store(&self.lock(), shared, word)
    }

    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take(pins: &mut BTreeMap<u64, usize>, position: u64) {
    match pins.get_mut(&position) {
        Some(1) => drop(pins.remove(&position)),
        Some(count) => *count -= 1,
        None => (),
    }
}

/// The lowest position + 1, or 0.
fn store<S: Shared>(pins: &BTreeMap<u64, usize>, shared: &S, word: u64) -> Result<()> {
    let lowest = pins.first_key_value();
    shared.store(word, lowest.map_or(0, |(position, _)| position + 1))
}
