//! The header of a table's file: see "Table" in `docs/formats.md`.

use crate::store::header::{put, u32_at, u64_at};
use crate::store::{medium, BadFormat, Error, Medium};

const MAGIC: [u8; 8] = *b"EMMAPTBL";
const VERSION: u32 = 1;
/// The bytes of the header. The rest of its page is zeros.
pub const HEADER: usize = 120;
/// Where the records begin.
pub const RECORDS: u64 = 4096;
/// The bytes that one checksum covers; the last one covers fewer.
pub const BLOCK: u64 = 64 << 10;
/// A record has a mark if it begins at least this many bytes after the record with the mark before.
pub const STRIDE: u64 = 4096;
/// A bucket of the index is a cache line of eight slots.
pub const BUCKET: u64 = 64;
pub const SLOTS: usize = 8;
/// A lookup never reads more buckets than this.
pub const LONGEST_PROBE: u64 = 1024;
/// No offset has more bits than a slot has room for.
pub const OFFSET_BITS: u32 = 48;

const CRC: usize = HEADER - 4;

/// What a table contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The keys are terms in the external format.
    pub term_keys: bool,
    /// The same of the values.
    pub term_values: bool,
    /// The records are in the order of their keys. Otherwise, they are in the order of the hashes of the keys.
    pub sorted: bool,
}

impl Flags {
    fn bits(self) -> u32 {
        u32::from(self.term_keys) | u32::from(self.term_values) << 1 | u32::from(self.sorted) << 2
    }

    fn of_bits(bits: u32) -> Option<Flags> {
        (bits < 8).then_some(Flags {
            term_keys: bits & 1 != 0,
            term_values: bits & 2 != 0,
            sorted: bits & 4 != 0,
        })
    }
}

/// Where everything is in the file. Offsets are checked: they are in order and inside the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub flags: Flags,
    /// The number of records.
    pub count: u64,
    pub seed: u64,
    pub records_end: u64,
    /// The offsets of some records, in order: the sparse index.
    pub marks: u64,
    pub mark_count: u64,
    pub buckets: u64,
    /// The buckets in which a lookup begins.
    pub homes: u64,
    /// All buckets.
    pub bucket_count: u64,
    /// How many buckets a lookup reads at most.
    pub longest_probe: u64,
    pub checksums: u64,
    pub checksum_count: u64,
    /// The bytes of the longest value.
    pub longest_value: u64,
}

impl Layout {
    /// Reads and checks the header of a file.
    pub fn read(medium: &impl Medium) -> Result<Layout, Error> {
        let mut header = [0; HEADER];
        let got = medium::read_up_to(medium, 0, &mut header)?;
        let layout = Layout::decode(&header[..got])?;
        match medium.len()? == layout.file_size() {
            true => Ok(layout),
            false => Err(BadFormat::Length.into()),
        }
    }

    pub fn decode(header: &[u8]) -> Result<Layout, BadFormat> {
        if !header.starts_with(&MAGIC) {
            return Err(BadFormat::Kind);
        }
        if header.len() < HEADER {
            return Err(BadFormat::Length);
        }
        if crc32fast::hash(&header[..CRC]) != u32_at(header, CRC) {
            return Err(BadFormat::Checksum);
        }
        if u32_at(header, 8) != VERSION {
            return Err(BadFormat::Version);
        }
        let flags = Flags::of_bits(u32_at(header, 12)).ok_or(BadFormat::Checksum)?;
        let word = |number: usize| u64_at(header, 16 + 8 * number);
        let layout = Layout {
            flags,
            count: word(0),
            seed: word(1),
            records_end: word(2),
            marks: word(3),
            mark_count: word(4),
            buckets: word(5),
            homes: word(6),
            bucket_count: word(7),
            longest_probe: word(8),
            checksums: word(9),
            checksum_count: word(10),
            longest_value: word(11),
        };
        match layout.is_sound() {
            true => Ok(layout),
            // No build writes such numbers.
            false => Err(BadFormat::Checksum),
        }
    }

    pub fn encode(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&self.flags.bits().to_le_bytes());
        let words = [
            self.count,
            self.seed,
            self.records_end,
            self.marks,
            self.mark_count,
            self.buckets,
            self.homes,
            self.bucket_count,
            self.longest_probe,
            self.checksums,
            self.checksum_count,
            self.longest_value,
        ];
        for (number, word) in words.into_iter().enumerate() {
            put(&mut header, 16 + 8 * number, word);
        }
        let crc = crc32fast::hash(&header[..CRC]);
        header[CRC..].copy_from_slice(&crc.to_le_bytes());
        header
    }

    /// Whether the parts follow each other as a build writes them. Then no later sum of them overflows.
    fn is_sound(&self) -> bool {
        let end_of =
            |start: u64, count: u64, size: u64| start.checked_add(count.checked_mul(size)?);
        let parts = || {
            let marks_end = end_of(self.marks, self.mark_count, 8)?;
            let buckets_end = end_of(self.buckets, self.bucket_count, BUCKET)?;
            let checksums_end = end_of(self.checksums, self.checksum_count, 4)?;
            Some(
                RECORDS <= self.records_end
                    && self.records_end <= self.marks
                    && marks_end <= self.buckets
                    && buckets_end <= self.checksums
                    && checksums_end <= 1 << OFFSET_BITS,
            )
        };
        parts() == Some(true)
            && self.marks.is_multiple_of(8)
            && self.buckets.is_multiple_of(BUCKET)
            && self.checksums.is_multiple_of(BUCKET)
            && self.checksum_count == (self.checksums - RECORDS).div_ceil(BLOCK)
            && 0 < self.homes
            && self.homes <= self.bucket_count
            && (1..=LONGEST_PROBE).contains(&self.longest_probe)
            // A record has at least six bytes, and a slot.
            && self.count <= (self.records_end - RECORDS) / 6
            && self.count <= self.bucket_count * SLOTS as u64
            && self.longest_value <= self.records_end - RECORDS
            && (self.flags.sorted && self.count > 0) == (self.mark_count > 0)
            && !(self.flags.sorted && self.flags.term_keys)
    }

    pub fn file_size(&self) -> u64 {
        self.checksums + 4 * self.checksum_count
    }

    /// The bucket in which the lookup of a hash begins.
    #[inline(always)]
    pub fn home(&self, hash: u64) -> u64 {
        home(hash, self.homes)
    }
}

#[inline(always)]
pub fn home(hash: u64, homes: u64) -> u64 {
    ((u128::from(hash) * u128::from(homes)) >> 64) as u64
}

/// A slot of the index: the last 16 bits of a hash, and the offset of the record. 0 is an empty slot.
#[inline(always)]
pub fn slot(hash: u64, offset: u64) -> u64 {
    hash << OFFSET_BITS | offset
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sound() -> Layout {
        Layout {
            count: 1,
            records_end: RECORDS + 6,
            marks: RECORDS + 8,
            buckets: RECORDS + 64,
            homes: 1,
            bucket_count: 1,
            longest_probe: 1,
            checksums: RECORDS + 128,
            checksum_count: 1,
            ..Layout::default()
        }
    }

    #[test]
    fn comes_back_unless_any_bit_differs() {
        let header = sound().encode();
        assert_eq!(Layout::decode(&header), Ok(sound()));
        for bit in 0..8 * HEADER {
            let mut wrong = header;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(Layout::decode(&wrong).is_err(), "{bit}");
        }
    }

    proptest! {
        #[test]
        fn what_is_decoded_is_inside_the_file(words in proptest::collection::vec(
            prop_oneof![0..5u64, 4090..4300u64, any::<u64>()], 12), sorted: bool)
        {
            let layout = Layout {
                flags: Flags { sorted, ..Flags::default() },
                count: words[0], seed: words[1], records_end: words[2], marks: words[3], mark_count: words[4],
                buckets: words[5], homes: words[6], bucket_count: words[7], longest_probe: words[8],
                checksums: words[9], checksum_count: words[10], longest_value: words[11],
            };
            if let Ok(layout) = Layout::decode(&layout.encode()) {
                prop_assert!(layout.buckets + layout.bucket_count * BUCKET <= layout.checksums);
                prop_assert!(layout.file_size() <= 1 << OFFSET_BITS);
            }
        }
    }
}
