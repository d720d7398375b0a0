//! Compares a file with its checksums, and the index with the records, in steps.

use std::cmp::Ordering;
use std::time::Instant;

use super::layout::{Layout, BLOCK, LONGEST_PROBE, RECORDS};
use super::lookup::Found;
use super::memory::Memory;
use super::record::MOST_KEY;
use super::walk::Step;
use crate::store::checksum;

/// Where a check continues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The number of the next block.
    pub block: u64,
    /// Once all blocks were read: the next record, the one before it, and how many were read.
    pub record: u64,
    pub before: u64,
    pub count: u64,
    /// The number of the next mark.
    pub mark: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Paused(Place),
    Intact,
    /// The offset of the damage.
    Corrupt(u64),
}

impl Layout {
    /// Goes on with a check until a moment.
    pub fn check(&self, memory: Memory, mut place: Place, until: Instant) -> Progress {
        let mut buffer = vec![0; BLOCK.max(MOST_KEY as u64) as usize];
        while place.block < self.checksum_count {
            let start = RECORDS + place.block * BLOCK;
            if !self.block_is_intact(memory, place.block, &mut buffer) {
                return Progress::Corrupt(start);
            }
            place.block += 1;
            if Instant::now() >= until {
                return Progress::Paused(place);
            }
        }
        if place.count == 0 {
            (place.record, place.before) = (RECORDS, 0);
        }
        loop {
            let record = match self.record_at(memory, place.record) {
                Step::Record(record) => record,
                Step::End if place.count == self.count && place.mark == self.mark_count => {
                    return Progress::Intact
                }
                Step::End => return Progress::Corrupt(place.record),
                Step::Corrupt(at) => return Progress::Corrupt(at),
            };
            let key = &mut buffer[..record.key_len];
            let sound = memory.copy(record.key, key).is_some()
                && record.is_intact_in(memory, key)
                && self.find(memory, key, LONGEST_PROBE) == Found::Record(record)
                && self.is_in_order(memory, place, key);
            if !sound {
                return Progress::Corrupt(record.at);
            }
            if place.mark < self.mark_count {
                let mark = memory.word(self.marks + 8 * place.mark);
                place.mark += u64::from(mark == Some(record.at));
            }
            (place.before, place.record) = (record.at, record.end());
            place.count += 1;
            if place.count.is_multiple_of(64) && Instant::now() >= until {
                return Progress::Paused(place);
            }
        }
    }

    fn block_is_intact(&self, memory: Memory, number: u64, buffer: &mut [u8]) -> bool {
        let start = RECORDS + number * BLOCK;
        let count = (self.checksums - start).min(BLOCK) as usize;
        let mut expected = [0; 4];
        let copied = memory.copy(start, &mut buffer[..count]);
        let read = memory.copy(self.checksums + 4 * number, &mut expected);
        copied.is_some()
            && read.is_some()
            && checksum::append(0, &buffer[..count]) == u32::from_le_bytes(expected)
    }

    fn is_in_order(&self, memory: Memory, place: Place, key: &[u8]) -> bool {
        if !self.flags.sorted || place.count == 0 {
            return true;
        }
        match self.record_at(memory, place.before) {
            Step::Record(before) => {
                memory.order(before.key, before.key_len, key) == Some(Ordering::Less)
            }
            _ => false,
        }
    }
}
