//! The records in the order of the file, which is that of the keys in a sorted table.

use std::cmp::Ordering;

use super::layout::{Layout, RECORDS, STRIDE};
use super::memory::Memory;
use super::record::Record;

/// Where a walk is, and what it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Record(Record),
    End,
    /// This offset must have a record, and does not.
    Corrupt(u64),
}

impl Layout {
    /// The record at an offset, where one begins.
    #[inline]
    pub fn record_at(&self, memory: Memory, at: u64) -> Step {
        if at == self.records_end {
            return Step::End;
        }
        if !(RECORDS..self.records_end).contains(&at) {
            return Step::Corrupt(at);
        }
        match Record::read(memory, at, self.records_end) {
            // The key and the value are inside the map, which may have become shorter than the file was.
            Some(record)
                if memory.at(record.key, 0).is_some() && memory.at(record.end(), 0).is_some() =>
            {
                Step::Record(record)
            }
            _ => Step::Corrupt(at),
        }
    }

    /// The offset of the first record whose key is not before `key`, in a sorted table: `Err` with the offset of damage.
    pub fn seek(&self, memory: Memory, key: &[u8]) -> Result<u64, u64> {
        let mark = |number: u64| {
            let at = self.marks + 8 * number;
            memory.word(at).ok_or(at)
        };
        let record = |at: u64| match self.record_at(memory, at) {
            Step::Record(record) => Ok(Some(record)),
            Step::End => Ok(None),
            Step::Corrupt(at) => Err(at),
        };
        let order = |record: &Record| {
            memory
                .order(record.key, record.key_len, key)
                .ok_or(record.at)
        };
        // The number of marks whose records are before the key.
        let (mut low, mut high) = (0, self.mark_count);
        while low < high {
            let middle = low + (high - low) / 2;
            let at = mark(middle)?;
            let found = record(at)?.ok_or(at)?;
            match order(&found)? {
                Ordering::Less => low = middle + 1,
                _ => high = middle,
            }
        }
        let mut at = match low {
            0 => RECORDS,
            _ => mark(low - 1)?,
        };
        // The next mark, or the end, is behind the key: a walk stays between two marks.
        let stop = match low < self.mark_count {
            true => mark(low)?,
            false => self.records_end,
        };
        let start = at;
        while at < stop {
            if at - start >= STRIDE {
                return Err(at);
            }
            match record(at)? {
                Some(found) if order(&found)? == Ordering::Less => at = found.end(),
                _ => break,
            }
        }
        Ok(at)
    }
}
