//! An entry: whole lines, which never move. The first line has the value, the description, and the start of the name.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::layout::{Geometry, LINE, MOST_BYTES};
use crate::store::{checksum, Shared};
use crate::{Errno, Result};

/// The maximum length of a name in bytes.
pub const MOST_NAME: usize = 1024;
/// How much of a name is in the first line.
const IN_FIRST_LINE: usize = LINE as usize - NAME as usize;

// In the first line.
const HASH: u64 = 8;
const DESCRIPTION: u64 = 16;
const NAME: u64 = 24;

const LINES_OF_ZEROS: [u8; LINE as usize] = [0; LINE as usize];

/// The name of a counter, which nobody changes, and its hash in a file.
pub struct Name<'a> {
    pub bytes: &'a [u8],
    pub hash: u64,
}

impl<'a> Name<'a> {
    /// EINVAL: it is too long.
    #[inline(always)]
    pub fn new(bytes: &'a [u8], geometry: &Geometry) -> Result<Name<'a>> {
        match bytes.len() <= MOST_NAME {
            true => Ok(Name {
                bytes,
                hash: hash(bytes, geometry),
            }),
            false => Err(Errno::INVAL),
        }
    }
}

/// The hash depends on the file. Otherwise, names that others choose could make a file slow.
#[inline(always)]
pub fn hash(name: &[u8], geometry: &Geometry) -> u64 {
    xxh3_64_with_seed(name, geometry.salt)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Directory,
    Gap,
}

/// The description of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub kind: Kind,
    /// The length of the name in bytes.
    pub name: usize,
    /// The hash of the name, or the slots of a directory, or the bytes of a gap.
    pub number: u64,
    crc: u32,
}

/// Length of the name, kind.
const fn described(kind: Kind, name: usize) -> u64 {
    let number: u64 = match kind {
        Kind::Counter => 1,
        Kind::Directory => 2,
        Kind::Gap => 3,
    };
    name as u64 | number << 16
}

/// The lines of a counter.
#[inline(always)]
pub fn counter_bytes(geometry: &Geometry, name: usize) -> u64 {
    let more = name.saturating_sub(IN_FIRST_LINE).div_ceil(LINE as usize);
    LINE * (u64::from(geometry.stripes) + more as u64)
}

/// The lines of a directory.
pub fn directory_bytes(slots: u64) -> u64 {
    LINE + (slots * 8).next_multiple_of(LINE)
}

/// Where the rest of the name of a counter is, if it is longer than the first line.
#[inline(always)]
fn rest_of_name(geometry: &Geometry, at: u64) -> u64 {
    at + LINE * u64::from(geometry.stripes)
}

impl Entry {
    /// The entry at an offset, if it may be one. Its checksum is not compared.
    pub fn read<S: Shared>(shared: &S, at: u64) -> Result<Option<Entry>> {
        let word = shared.load(at + DESCRIPTION)?;
        let kind = match word >> 16 & 0xffff {
            1 => Kind::Counter,
            2 => Kind::Directory,
            3 => Kind::Gap,
            _ => return Ok(None),
        };
        let name = (word & 0xffff) as usize;
        let entry = Entry {
            kind,
            name,
            number: shared.load(at + HASH)?,
            crc: (word >> 32) as u32,
        };
        let sound = match kind {
            Kind::Counter => name <= MOST_NAME,
            Kind::Directory => {
                name == 0 && entry.number.is_power_of_two() && entry.number < MOST_BYTES / 16
            }
            Kind::Gap => {
                name == 0
                    && entry.number > 0
                    && entry.number.is_multiple_of(LINE)
                    && entry.number < MOST_BYTES
            }
        };
        Ok(sound.then_some(entry))
    }

    /// The lines of the entry, in bytes.
    pub fn bytes(&self, geometry: &Geometry) -> u64 {
        match self.kind {
            Kind::Counter => counter_bytes(geometry, self.name),
            Kind::Directory => directory_bytes(self.number),
            Kind::Gap => self.number,
        }
    }

    /// Whether the entry at `at` is as it was written, and inside the file.
    pub fn is_sound<S: Shared>(&self, shared: &S, geometry: &Geometry, at: u64) -> Result<bool> {
        if self.bytes(geometry) > shared.len().saturating_sub(at) {
            return Ok(false);
        }
        let mut buffer = [0; MOST_NAME];
        let name = read_name(shared, geometry, at, self.name, &mut buffer)?;
        let sound = match self.kind {
            Kind::Counter => self.number == hash(name, geometry),
            Kind::Directory | Kind::Gap => true,
        };
        Ok(sound && self.crc == crc(geometry, at, self.kind, self.number, name))
    }
}

/// How many bytes a program has begun to write at `at`, which is inside the file and where no entry is.
pub fn begun<S: Shared>(shared: &S, geometry: &Geometry, at: u64) -> Result<u64> {
    if shared.load(at + DESCRIPTION)? == 0 {
        return Ok(0);
    }
    let bytes = Entry::read(shared, at)?.map_or(LINE, |entry| entry.bytes(geometry));
    match bytes <= shared.len() - at {
        true => Ok(bytes),
        false => Ok(LINE),
    }
}

/// Includes the offset and the random number of the file, so that nothing else is mistaken for an entry.
fn crc(geometry: &Geometry, at: u64, kind: Kind, number: u64, name: &[u8]) -> u32 {
    let mut head = [0; 28];
    head[..8].copy_from_slice(&geometry.salt.to_le_bytes());
    head[8..16].copy_from_slice(&at.to_le_bytes());
    head[16..24].copy_from_slice(&number.to_ne_bytes());
    head[24..].copy_from_slice(&(described(kind, name.len()) as u32).to_ne_bytes());
    checksum::append(checksum::append(0, &head), name)
}

/// The name of the counter at `at`, which is inside the file.
pub fn read_name<'a, S: Shared>(
    shared: &S,
    geometry: &Geometry,
    at: u64,
    length: usize,
    buffer: &'a mut [u8; MOST_NAME],
) -> Result<&'a [u8]> {
    let name = &mut buffer[..length.min(MOST_NAME)];
    let (first, rest) = name.split_at_mut(length.min(IN_FIRST_LINE));
    shared.read(at + NAME, first)?;
    if !rest.is_empty() {
        shared.read(rest_of_name(geometry, at), rest)?;
    }
    Ok(name)
}

/// Whether the counter at `at` has this name; ERANGE if it is not inside the map.
#[inline(always)]
pub fn has_name<S: Shared>(shared: &S, geometry: &Geometry, at: u64, name: &[u8]) -> Result<bool> {
    let word = shared.load(at + DESCRIPTION)?;
    if word & 0xffff_ffff != described(Kind::Counter, name.len()) {
        return Ok(false);
    }
    if name.len() > IN_FIRST_LINE {
        return has_long_name(shared, geometry, at, name);
    }
    // Word by word, because a call that copies a few bytes takes longer than the bytes.
    let (words, rest) = name.as_chunks::<8>();
    let mut place = at + NAME;
    for word in words {
        if shared.load(place)? != u64::from_ne_bytes(*word) {
            return Ok(false);
        }
        place += 8;
    }
    if rest.is_empty() {
        return Ok(true);
    }
    Ok(shared.load(place)?.to_ne_bytes().starts_with(rest))
}

/// Whether the entry at `at` is that of a counter with a name of this length and with this hash.
#[inline(always)]
pub fn has_hash<S: Shared>(shared: &S, at: u64, length: usize, hash: u64) -> Result<bool> {
    let word = shared.load(at + DESCRIPTION)?;
    Ok(word & 0xffff_ffff == described(Kind::Counter, length) && shared.load(at + HASH)? == hash)
}

#[cold]
#[inline(never)]
fn has_long_name<S: Shared>(shared: &S, geometry: &Geometry, at: u64, name: &[u8]) -> Result<bool> {
    let mut buffer = [0; MOST_NAME];
    Ok(read_name(shared, geometry, at, name.len(), &mut buffer)? == name)
}

/// Writes all lines of a counter with the value 0. Nothing refers to it yet.
pub fn write_counter<S: Shared>(
    shared: &S,
    geometry: &Geometry,
    at: u64,
    name: &Name,
) -> Result<()> {
    let (first, rest) = name.bytes.split_at(name.bytes.len().min(IN_FIRST_LINE));
    for stripe in 1..u64::from(geometry.stripes) {
        shared.write(at + stripe * LINE, &LINES_OF_ZEROS)?;
    }
    for (number, piece) in (0..).zip(rest.chunks(LINE as usize)) {
        let mut line = LINES_OF_ZEROS;
        line[..piece.len()].copy_from_slice(piece);
        shared.write(rest_of_name(geometry, at) + number * LINE, &line)?;
    }
    write_first(
        shared,
        geometry,
        at,
        (Kind::Counter, name.hash),
        name.bytes,
        first,
    )
}

/// Writes the first line of a directory or a gap.
pub fn write_other<S: Shared>(
    shared: &S,
    geometry: &Geometry,
    at: u64,
    kind: Kind,
    number: u64,
) -> Result<()> {
    write_first(shared, geometry, at, (kind, number), &[], &[])
}

fn write_first<S: Shared>(
    shared: &S,
    geometry: &Geometry,
    at: u64,
    (kind, number): (Kind, u64),
    name: &[u8],
    first: &[u8],
) -> Result<()> {
    let crc = crc(geometry, at, kind, number, name);
    let description = described(kind, name.len()) | u64::from(crc) << 32;
    let mut line = LINES_OF_ZEROS;
    line[HASH as usize..][..8].copy_from_slice(&number.to_ne_bytes());
    line[DESCRIPTION as usize..][..8].copy_from_slice(&description.to_ne_bytes());
    line[NAME as usize..][..first.len()].copy_from_slice(first);
    shared.write(at, &line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        let geometry = |stripes| Geometry { stripes, salt: 0 };
        for (stripes, name, bytes) in [
            (1, 0, 128),
            (1, 104, 128),
            (1, 105, 256),
            (1, 232, 256),
            (1, 233, 384),
            (4, 104, 512),
            (4, 1024, 512 + 8 * 128),
        ] {
            assert_eq!(counter_bytes(&geometry(stripes), name), bytes);
        }
        assert_eq!(directory_bytes(1024), 128 + 8192);
        // As Python's `xxhash.xxh3_64_intdigest(b"GET /users", 7)`.
        let salted = Geometry {
            stripes: 1,
            salt: 7,
        };
        assert_eq!(hash(b"GET /users", &salted), 0x44ad_9427_c86c_9e15);
    }
}
