//! Writes the buckets of the index, from the entries in the order of their hashes, which is the order of the buckets.

use super::output::Output;
use super::Error;
use crate::store::Medium;
use crate::table::layout::{home, slot, BUCKET, LONGEST_PROBE, SLOTS};

/// On average, 16 of 24 slots are used.
const BUCKETS_FOR: u64 = 16;
const BUCKETS: u64 = 3;

pub struct IndexWriter {
    homes: u64,
    /// The bucket that is being filled, and its slots.
    bucket: u64,
    slots: [u64; SLOTS],
    used: usize,
    longest_probe: u64,
}

pub struct Index {
    pub homes: u64,
    pub buckets: u64,
    pub longest_probe: u64,
}

impl IndexWriter {
    pub fn new(count: u64) -> IndexWriter {
        IndexWriter {
            homes: (count / BUCKETS_FOR * BUCKETS
                + (count % BUCKETS_FOR * BUCKETS).div_ceil(BUCKETS_FOR))
            .max(1),
            bucket: 0,
            slots: [0; SLOTS],
            used: 0,
            longest_probe: 1,
        }
    }

    /// Adds an entry. No earlier one has a higher hash.
    pub fn add(
        &mut self,
        hash: u64,
        at: u64,
        output: &mut Output,
        medium: &mut impl Medium,
    ) -> Result<(), Error> {
        let home = home(hash, self.homes);
        while self.bucket < home || self.used == SLOTS {
            self.write(output, medium)?;
        }
        self.slots[self.used] = slot(hash, at);
        self.used += 1;
        self.longest_probe = self.longest_probe.max(self.bucket - home + 1);
        match self.longest_probe <= LONGEST_PROBE {
            true => Ok(()),
            false => Err(Error::Collisions),
        }
    }

    /// Writes the bucket that is being filled, and begins the next.
    fn write(&mut self, output: &mut Output, medium: &mut impl Medium) -> Result<(), Error> {
        let mut bytes = [0; BUCKET as usize];
        for (bytes, slot) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.slots) {
            *bytes = slot.to_le_bytes();
        }
        output.write(medium, &bytes)?;
        self.bucket += 1;
        (self.slots, self.used) = ([0; SLOTS], 0);
        Ok(())
    }

    pub fn finish(
        &mut self,
        output: &mut Output,
        medium: &mut impl Medium,
    ) -> Result<Index, Error> {
        while self.bucket < self.homes || self.used > 0 {
            self.write(output, medium)?;
        }
        Ok(Index {
            homes: self.homes,
            buckets: self.bucket,
            longest_probe: self.longest_probe,
        })
    }
}
