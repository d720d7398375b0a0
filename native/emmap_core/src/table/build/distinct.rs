//! One of several records with the same key. They follow each other, in the order in which they were added.

use super::items::Item;
use super::{Duplicates, Error};
use crate::table::record::key_of;

/// Keeps the record that is not written yet, because another one with its key may follow.
pub struct Distinct {
    duplicates: Duplicates,
    kept: Vec<u8>,
    kept_apart: bool,
    has_kept: bool,
    /// The record before, which can be written.
    done: Vec<u8>,
    done_apart: bool,
}

impl Distinct {
    pub fn new(duplicates: Duplicates) -> Distinct {
        Distinct {
            duplicates,
            kept: Vec::new(),
            kept_apart: false,
            has_kept: false,
            done: Vec::new(),
            done_apart: false,
        }
    }

    /// Takes the next record. `true`: the one before it has another key, and is [`Distinct::done`].
    pub fn replace(&mut self, item: Item) -> Result<bool, Error> {
        let key = |bytes| key_of(bytes).map(|(key, _)| key);
        let same = self.has_kept && key(&self.kept) == key(item.bytes);
        match (same, self.duplicates) {
            (true, Duplicates::Refused) => {
                let key = key(item.bytes).unwrap_or(&[]);
                return Err(Error::Duplicate(key.to_vec()));
            }
            (true, Duplicates::First) => return Ok(false),
            (true, Duplicates::Last) => (),
            (false, _) => {
                std::mem::swap(&mut self.kept, &mut self.done);
                self.done_apart = self.kept_apart;
            }
        }
        self.kept.clear();
        self.kept.extend_from_slice(item.bytes);
        self.kept_apart = item.apart;
        let had_kept = std::mem::replace(&mut self.has_kept, true);
        Ok(had_kept && !same)
    }

    /// The end of all records. `true`: the last one is [`Distinct::done`].
    pub fn take(&mut self) -> bool {
        std::mem::swap(&mut self.kept, &mut self.done);
        self.done_apart = self.kept_apart;
        std::mem::replace(&mut self.has_kept, false)
    }

    pub fn done(&self) -> Item<'_> {
        Item {
            bytes: &self.done,
            apart: self.done_apart,
        }
    }
}
