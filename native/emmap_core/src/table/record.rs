//! A key and its value in the file:
//!
//! ```text
//! crc           u32, CRC-32C of everything after it
//! key length    LEB128, at most 3 bytes
//! value length  LEB128, at most 7 bytes
//! key
//! value
//! ```

use super::layout::OFFSET_BITS;
use super::memory::Memory;
use crate::store::checksum;

/// The bytes of the longest key.
pub const MOST_KEY: usize = 65_535;
/// The longest value has fewer bytes than this, as a file.
pub const MOST_VALUE: u64 = 1 << OFFSET_BITS;

const CRC: usize = 4;
/// Both lengths, at most.
const LENGTHS: usize = 10;
/// The bytes before the key, at most.
pub const MOST_HEAD: usize = CRC + LENGTHS;

/// Where a record is. Its key and value are inside the memory that it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The offset of the record.
    pub at: u64,
    pub crc: u32,
    lengths: [u8; LENGTHS],
    lengths_len: u8,
    pub key: u64,
    pub key_len: usize,
    pub value: u64,
    pub value_len: usize,
}

impl Record {
    /// The record at an offset. `None`: there is none that ends at `end` or before.
    #[inline(always)]
    pub fn read(memory: Memory, at: u64, end: u64) -> Option<Record> {
        let mut head = [0; MOST_HEAD];
        match memory.copy(at, &mut head) {
            Some(()) => (),
            // The file ends in it.
            None => short_head(memory, at, &mut head)?,
        }
        Record::parse(&head, at, end)
    }

    #[inline(always)]
    fn parse(head: &[u8; MOST_HEAD], at: u64, end: u64) -> Option<Record> {
        let mut place = CRC;
        let key_len = length(head, &mut place)?;
        if key_len > MOST_KEY as u64 {
            return None;
        }
        let value_len = length(head, &mut place)?;
        if value_len >= MOST_VALUE {
            return None;
        }
        let key = at.checked_add(place as u64)?;
        let value = key.checked_add(key_len)?;
        if value.checked_add(value_len)? > end {
            return None;
        }
        let mut lengths = [0; LENGTHS];
        lengths.copy_from_slice(&head[CRC..]);
        Some(Record {
            at,
            crc: u32::from_le_bytes([head[0], head[1], head[2], head[3]]),
            lengths,
            lengths_len: (place - CRC) as u8,
            key,
            key_len: key_len as usize,
            value,
            value_len: usize::try_from(value_len).ok()?,
        })
    }

    /// The offset after it.
    #[inline(always)]
    pub fn end(&self) -> u64 {
        self.value + self.value_len as u64
    }

    /// Whether the checksum is that of this key and value, which are copies.
    #[inline(always)]
    pub fn is_intact(&self, key: &[u8], value: &[u8]) -> bool {
        checksum::append(self.crc_of_key(key), value) == self.crc
    }

    #[inline(always)]
    fn crc_of_key(&self, key: &[u8]) -> u32 {
        let lengths = self.lengths.get(..self.lengths_len as usize);
        checksum::append(checksum::append(0, lengths.unwrap_or(&[])), key)
    }

    /// As [`Record::is_intact`], for a value of any length that is read in pieces.
    pub fn is_intact_in(&self, memory: Memory, key: &[u8]) -> bool {
        let mut piece = [0; 4096];
        let (mut crc, mut done) = (self.crc_of_key(key), 0);
        while done < self.value_len {
            let some = (self.value_len - done).min(piece.len());
            if memory
                .copy(self.value + done as u64, &mut piece[..some])
                .is_none()
            {
                return false;
            }
            crc = checksum::append(crc, &piece[..some]);
            done += some;
        }
        crc == self.crc
    }
}

#[cold]
fn short_head(memory: Memory, at: u64, head: &mut [u8; MOST_HEAD]) -> Option<()> {
    // As many bytes as there are. A record has at least six.
    (6..MOST_HEAD)
        .rev()
        .find_map(|count| memory.copy(at, &mut head[..count]))
}

/// The LEB128 number at a place. `None`: it does not end, or is not in its shortest form.
#[inline(always)]
fn length(bytes: &[u8; MOST_HEAD], place: &mut usize) -> Option<u64> {
    let first = *bytes.get(*place)?;
    *place += 1;
    match first < 0x80 {
        true => Some(u64::from(first)),
        false => long_length(bytes, place, first),
    }
}

#[inline]
fn long_length(bytes: &[u8; MOST_HEAD], place: &mut usize, first: u8) -> Option<u64> {
    let mut value = u64::from(first & 0x7f);
    for shift in (7..OFFSET_BITS).step_by(7) {
        let byte = *bytes.get(*place)?;
        *place += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return (byte != 0).then_some(value);
        }
    }
    None
}

fn put_length(out: &mut [u8; MOST_HEAD], place: &mut usize, mut value: u64) {
    while value >= 0x80 {
        out[*place] = value as u8 | 0x80;
        *place += 1;
        value >>= 7;
    }
    out[*place] = value as u8;
    *place += 1;
}

/// The bytes before the key, with room for the checksum, and how many they are.
pub fn encode_head(key_len: usize, value_len: u64) -> ([u8; MOST_HEAD], usize) {
    debug_assert!(key_len <= MOST_KEY && value_len < MOST_VALUE);
    let (mut head, mut place) = ([0; MOST_HEAD], CRC);
    put_length(&mut head, &mut place, key_len as u64);
    put_length(&mut head, &mut place, value_len);
    (head, place)
}

/// Writes the checksum into a record. `rest` are bytes that follow it.
pub fn seal(record: &mut [u8], crc: u32) {
    record[..CRC].copy_from_slice(&crc.to_le_bytes());
}

/// The checksum of a part of a record, without its first field.
pub fn crc_of(record: &[u8]) -> u32 {
    checksum::append(0, &record[CRC..])
}

/// The key of an encoded record, of which at least the key is there, and the length of its value.
pub fn key_of(record: &[u8]) -> Option<(&[u8], u64)> {
    let mut head = [0; MOST_HEAD];
    let count = record.len().min(MOST_HEAD);
    head[..count].copy_from_slice(&record[..count]);
    let mut place = CRC;
    let key_len = length(&head, &mut place)?;
    let value_len = length(&head, &mut place)?;
    let end = place.checked_add(usize::try_from(key_len).ok()?)?;
    Some((record.get(place..end)?, value_len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn comes_back(key in proptest::collection::vec(any::<u8>(), 0..300),
                      value in proptest::collection::vec(any::<u8>(), 0..300), before in 0usize..20) {
            let (head, len) = encode_head(key.len(), value.len() as u64);
            let mut record = [&head[..len], &key, &value].concat();
            let crc = crc_of(&record);
            seal(&mut record, crc);
            prop_assert_eq!(key_of(&record), Some((&key[..], value.len() as u64)));
            let mut file = vec![0; before];
            file.extend(&record);
            let memory = Memory::of_slice(&file);
            let found = Record::read(memory, before as u64, file.len() as u64).unwrap();
            prop_assert_eq!(found.end(), file.len() as u64);
            prop_assert_eq!(memory.equals(found.key, &key), Some(true));
            prop_assert_eq!(memory.equals(found.value, &value), Some(true));
            prop_assert!(found.is_intact(&key, &value) && found.is_intact_in(memory, &key));
            prop_assert_eq!(Record::read(memory, before as u64, file.len() as u64 - 1), None);
        }

        #[test]
        fn lengths_come_back(value in 0..MOST_VALUE) {
            let (head, len) = encode_head(MOST_KEY, value);
            let mut place = CRC;
            prop_assert_eq!(length(&head, &mut place), Some(MOST_KEY as u64));
            prop_assert_eq!(length(&head, &mut place), Some(value));
            prop_assert_eq!(place, len);
        }

        #[test]
        fn random_bytes_are_read_inside(bytes in proptest::collection::vec(any::<u8>(), 0..60), at in 0u64..70) {
            if let Some(record) = Record::read(Memory::of_slice(&bytes), at, bytes.len() as u64) {
                prop_assert!(record.end() <= bytes.len() as u64);
            }
        }
    }
}
