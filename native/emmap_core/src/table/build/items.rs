//! What is sorted: records, and the entries of the index.

use crate::table::lookup::hash;
use crate::table::record::key_of;

/// Bytes to sort.
///
/// A record is as it will be in the file. If its value is stored apart, the place of that follows the key instead.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    pub bytes: &'a [u8],
    pub apart: bool,
}

/// The order of items: first by rank, then by key. Items with the same key stay in the order in which they were added.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Records by the hashes of their keys, with this seed.
    Hash(u64),
    /// Records by their keys.
    Key,
    /// Entries by hash and offset.
    Entry,
}

impl Order {
    #[inline]
    pub fn rank(self, item: &[u8]) -> u64 {
        match self {
            Order::Hash(seed) => hash(seed, self.key(item)),
            Order::Key => first_bytes(self.key(item)),
            Order::Entry => Entries::decode(item).0,
        }
    }

    #[inline]
    pub fn key(self, item: &[u8]) -> &[u8] {
        match self {
            Order::Entry => &[],
            // Every item was encoded here.
            _ => key_of(item).map_or(&[], |(key, _)| key),
        }
    }
}

/// The first eight bytes of a key as a number, which has the order of the bytes.
fn first_bytes(key: &[u8]) -> u64 {
    let mut first = [0; 8];
    let count = key.len().min(8);
    first[..count].copy_from_slice(&key[..count]);
    u64::from_be_bytes(first)
}

/// An entry of the index: a hash, and the offset of the record.
pub struct Entries;

impl Entries {
    pub fn encode(hash: u64, at: u64) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&hash.to_le_bytes());
        bytes[8..].copy_from_slice(&at.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> (u64, u64) {
        let word = |start: usize| {
            let word = bytes
                .get(start..start + 8)
                .and_then(|word| word.try_into().ok());
            u64::from_le_bytes(word.unwrap_or_default())
        };
        (word(0), word(8))
    }
}

/// The bytes before an item in a run: its length and whether its value is apart, as a number.
pub const PREFIX: usize = 4;

pub fn prefix(item: Item) -> [u8; PREFIX] {
    (((item.bytes.len() as u32) << 1) | u32::from(item.apart)).to_le_bytes()
}

/// The length of the item after a prefix, and whether its value is apart.
pub fn parse_prefix(bytes: &[u8]) -> (usize, bool) {
    let prefix = bytes
        .get(..PREFIX)
        .and_then(|prefix| prefix.try_into().ok());
    let number = u32::from_le_bytes(prefix.unwrap_or_default());
    ((number >> 1) as usize, number & 1 == 1)
}
