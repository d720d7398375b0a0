//! Finds the record of a key. The index is a hash table in which a bucket is a cache line; a key is in the first
//! bucket from its home on that had room, so a lookup ends at the first bucket with an empty slot.

use xxhash_rust::xxh64::xxh64;

use super::layout::{Layout, BUCKET, OFFSET_BITS, SLOTS};
use super::memory::Memory;
use super::record::Record;

/// The result of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Record(Record),
    Absent,
    /// The given number of buckets was read, and the key may be in the next.
    Paused,
    /// The index is damaged at this offset.
    Corrupt(u64),
}

/// The hash of a key: XXH64.
#[inline(always)]
pub fn hash(seed: u64, key: &[u8]) -> u64 {
    xxh64(key, seed)
}

impl Layout {
    /// The record of a key. Reads at most `most` buckets.
    #[inline(always)]
    pub fn find(&self, memory: Memory, key: &[u8], most: u64) -> Found {
        let hash = hash(self.seed, key);
        let home = self.home(hash);
        let past = home
            .saturating_add(self.longest_probe)
            .min(self.bucket_count);
        let mut bucket = home;
        loop {
            let at = self.buckets + bucket * BUCKET;
            let Some(slots) = memory.at(at, BUCKET as usize) else {
                return Found::Corrupt(at);
            };
            for number in 0..SLOTS {
                // SAFETY: inside the bucket, which is readable (the Memory invariant).
                let slot =
                    u64::from_le(unsafe { slots.cast::<u64>().add(number).read_unaligned() });
                if slot == 0 {
                    return Found::Absent;
                }
                if slot >> OFFSET_BITS == hash & 0xffff {
                    let offset = slot & ((1 << OFFSET_BITS) - 1);
                    let Some(record) = Record::read(memory, offset, self.records_end) else {
                        return Found::Corrupt(at);
                    };
                    if record.key_len == key.len() && memory.equals(record.key, key) == Some(true) {
                        return Found::Record(record);
                    }
                }
            }
            bucket += 1;
            if bucket >= past {
                return Found::Absent;
            }
            if bucket - home >= most {
                return Found::Paused;
            }
        }
    }
}
