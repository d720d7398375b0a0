//! Where everything is in a block storage. `docs/formats.md` has it for readers in other languages.

/// The header: the block size (32 bits), four bytes without meaning, and the offset of the last mask in use, counted from
/// the end of the header (64 bits, signed).
pub const HEADER: u64 = 16;
pub const LAST: u64 = 8;

/// The masks of the root and of a section: which parts have a free place, and which have a block in use.
pub const TWO_MASKS: u64 = 16;
/// The mask of a group: which of its places are free.
pub const MASK: u64 = 8;

/// The root has so many sections, a section so many groups, and a group so many blocks.
pub const PARTS: u64 = 64;
pub const PLACES: u64 = PARTS * PARTS * PARTS;

/// The place of a block: its number in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

impl Place {
    /// `None` where no block has this address.
    pub fn of_address(address: u64) -> Option<Place> {
        (address < PLACES).then(|| Place(reversed(address)))
    }

    /// Each number must be less than [`PARTS`].
    pub fn new(section: u64, group: u64, block: u64) -> Place {
        debug_assert!(section.max(group).max(block) < PARTS);
        Place((section * PARTS + group) * PARTS + block)
    }

    /// The address has the numbers of section, group and block in the other order: that of the section counts least.
    pub fn address(self) -> u64 {
        reversed(self.0)
    }

    pub fn section(self) -> u64 {
        self.0 / (PARTS * PARTS)
    }

    pub fn group(self) -> u64 {
        self.0 / PARTS % PARTS
    }

    pub fn block(self) -> u64 {
        self.0 % PARTS
    }

    pub fn next(self) -> Option<Place> {
        (self.0 + 1 < PLACES).then_some(Place(self.0 + 1))
    }
}

/// A number of three digits to the base 64, read backwards.
fn reversed(number: u64) -> u64 {
    let (high, middle, low) = (number >> 12, number >> 6 & 63, number & 63);
    low << 12 | middle << 6 | high
}

/// Positions in the map. The largest is less than 2^51, as a block has less than 2^32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub block_size: u64,
}

impl Geometry {
    fn group_bytes(self) -> u64 {
        MASK + PARTS * self.block_size
    }

    fn section_bytes(self) -> u64 {
        TWO_MASKS + PARTS * self.group_bytes()
    }

    pub fn root(self) -> u64 {
        HEADER
    }

    pub fn section(self, section: u64) -> u64 {
        self.root() + TWO_MASKS + section * self.section_bytes()
    }

    pub fn group(self, section: u64, group: u64) -> u64 {
        self.section(section) + TWO_MASKS + group * self.group_bytes()
    }

    pub fn block(self, place: Place) -> u64 {
        let group = self.group(place.section(), place.group());
        group + MASK + place.block() * self.block_size
    }

    /// Whether a mask begins at this position.
    pub fn is_mask(self, at: u64) -> bool {
        let part = |from: u64, bytes: u64| match at.checked_sub(from) {
            Some(into) if into / bytes < PARTS => Some((into / bytes, into % bytes)),
            _ => None,
        };
        match part(self.section(0), self.section_bytes()) {
            None => at == self.root(),
            Some((_, 0)) => true,
            Some((section, _)) => {
                matches!(
                    part(self.group(section, 0), self.group_bytes()),
                    Some((_, 0))
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let addresses: Vec<u64> = (0..PLACES).map(|at| Place(at).address()).collect();
        assert_eq!(addresses[..3], [0, 4096, 8192]);
        assert_eq!(addresses[64..66], [64, 4096 + 64]);
        assert_eq!(addresses[4096], 1);
        let places = addresses.iter().map(|at| Place::of_address(*at));
        assert!(places.eq((0..PLACES).map(|at| Some(Place(at)))));
        assert_eq!(Place::of_address(PLACES), None);
        assert_eq!(Place(PLACES - 1).next(), None);
    }

    #[test]
    fn positions() {
        for block_size in [1, 22, u64::from(u32::MAX)] {
            let geometry = Geometry { block_size };
            let mut end = HEADER + TWO_MASKS;
            let mut masks = vec![HEADER];
            for section in 0..PARTS {
                assert_eq!(geometry.section(section), end);
                masks.push(end);
                end += TWO_MASKS;
                for group in 0..PARTS {
                    assert_eq!(geometry.group(section, group), end);
                    masks.push(end);
                    assert_eq!(geometry.block(Place::new(section, group, 0)), end + MASK);
                    end += MASK + PARTS * block_size;
                    let last = geometry.block(Place::new(section, group, 63));
                    assert_eq!(last + block_size, end);
                }
            }
            assert!(end < 1 << 51);
            assert!(masks.iter().all(|at| geometry.is_mask(*at)));
            if block_size < 100 {
                let all = (0..end + 100).filter(|at| geometry.is_mask(*at));
                assert!(all.eq(masks));
            }
        }
    }
}
