//! The files of which this process holds live binaries.
//!
//! Truncating a file removes their bytes, so an open in this process that would truncate it is refused.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::mapped_file::Identity;

/// How many maps of a file have handed out live binaries.
static LENT: Mutex<BTreeMap<Identity, usize>> = Mutex::new(BTreeMap::new());

fn lent() -> MutexGuard<'static, BTreeMap<Identity, usize>> {
    LENT.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn add(file: Identity) {
    *lent().entry(file).or_insert(0) += 1;
}

pub fn remove(file: Identity) {
    let mut lent = lent();
    if let Some(count) = lent.get_mut(&file) {
        *count -= 1;
        if *count == 0 {
            lent.remove(&file);
        }
    }
}

pub fn is_lent(file: Identity) -> bool {
    lent().contains_key(&file)
}
