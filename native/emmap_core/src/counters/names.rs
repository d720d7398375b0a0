//! The table of names: each name as its length (u16, little-endian) and its UTF-8 bytes.
//!
//! A header can claim a table of any size, and a hole in the file costs nothing to create. So the table is
//! read in pieces, and reading stops at the first invalid name: the memory that is allocated is in
//! proportion to the names that the file actually has.

use std::collections::hash_map::{Entry, HashMap, RandomState};
use std::hash::BuildHasher;

use crate::store::{BadFormat, Error, Medium};
use crate::{interrupt, Errno};

/// The longest table. A longer one is neither written nor read.
pub const MAX_BYTES: u64 = 16 << 20;
/// Bytes read at once. A name is shorter.
const PIECE: u64 = 256 << 10;

/// What a header claims about its table.
#[derive(Clone, Copy)]
pub struct Claim {
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    pub crc: u32,
    /// The number of counters: each has a name.
    pub count: u64,
}

/// The bytes of a table. ENAMETOOLONG for a name that is too long for its length field, ENOSPC for a table above
/// [`MAX_BYTES`].
pub fn encoded(names: &[String]) -> Result<Vec<u8>, Errno> {
    let mut table = Vec::new();
    for name in names {
        let length = u16::try_from(name.len()).map_err(|_| Errno(libc::ENAMETOOLONG))?;
        table.extend_from_slice(&length.to_le_bytes());
        table.extend_from_slice(name.as_bytes());
        if table.len() as u64 > MAX_BYTES {
            return Err(Errno::NOSPC);
        }
    }
    Ok(table)
}

/// Reads and checks a table, which must be inside the file.
pub fn read(medium: &impl Medium, claim: Claim) -> Result<Vec<String>, Error> {
    // The shortest name is two bytes long.
    if claim.length > 0 && claim.length / 2 < claim.count {
        return Err(BadFormat::Content.into());
    }
    let mut names = Names::<RandomState>::default();
    let mut crc = crc32fast::Hasher::new();
    // Bytes that are not decoded yet: a name may extend over two pieces.
    let mut piece = Vec::new();
    let (mut at, mut left) = (claim.offset, claim.length);
    while left > 0 {
        interrupt::check()?;
        let (kept, step) = (piece.len(), left.min(PIECE));
        piece.try_reserve(step as usize).map_err(|_| Errno::NOMEM)?;
        piece.resize(kept + step as usize, 0);
        medium.read_at(at, &mut piece[kept..])?;
        crc.update(&piece[kept..]);
        let decoded = names.decode(&piece, claim.count)?;
        piece.drain(..decoded);
        at += step;
        left -= step;
    }
    let counted = claim.length == 0 || names.all.len() as u64 == claim.count;
    if !counted || !piece.is_empty() || crc.finalize() != claim.crc {
        return Err(BadFormat::Content.into());
    }
    Ok(names.all)
}

/// Names that are all different.
#[derive(Default)]
struct Names<H = RandomState> {
    all: Vec<String>,
    /// The index in `all` of the name with a hash. If the hash is already used by another name, the next hash is used.
    places: HashMap<u64, usize>,
    hasher: H,
}

impl<H: BuildHasher> Names<H> {
    /// Adds the whole names at the start of `table`, and returns how many bytes they take.
    fn decode(&mut self, table: &[u8], most: u64) -> Result<usize, Error> {
        let mut rest = table;
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_le_bytes(*length));
            let Some(name) = after.get(..length) else {
                break;
            };
            let name = std::str::from_utf8(name).map_err(|_| BadFormat::Content)?;
            if self.all.len() as u64 == most || !self.add(name)? {
                return Err(BadFormat::Content.into());
            }
            rest = &after[length..];
        }
        Ok(table.len() - rest.len())
    }

    /// `false` if the name already exists.
    fn add(&mut self, name: &str) -> Result<bool, Errno> {
        self.places.try_reserve(1).map_err(|_| Errno::NOMEM)?;
        let mut hash = self.hasher.hash_one(name);
        loop {
            match self.places.entry(hash) {
                Entry::Vacant(place) => {
                    place.insert(self.all.len());
                    break;
                }
                Entry::Occupied(place) if self.all[*place.get()] == name => return Ok(false),
                Entry::Occupied(_) => hash = hash.wrapping_add(1),
            }
        }
        let mut owned = String::new();
        owned
            .try_reserve_exact(name.len())
            .map_err(|_| Errno::NOMEM)?;
        owned.push_str(name);
        self.all.try_reserve(1).map_err(|_| Errno::NOMEM)?;
        self.all.push(owned);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{BuildHasherDefault, Hasher};

    /// All names have the same hash.
    #[derive(Default)]
    struct Same;

    impl Hasher for Same {
        fn write(&mut self, _bytes: &[u8]) {}

        fn finish(&self) -> u64 {
            u64::MAX
        }
    }

    #[test]
    fn names_of_the_same_hash_are_told_apart() {
        let mut names = Names::<BuildHasherDefault<Same>>::default();
        for number in 0..100 {
            assert_eq!(names.add(&number.to_string()), Ok(true));
        }
        for number in 0..100 {
            assert_eq!(names.add(&number.to_string()), Ok(false));
        }
        assert_eq!(names.all.len(), 100);
    }
}
