//! Numbers and choices made from the bytes of a fuzzer. Any bytes are valid;
//! past their end, all are zero.

pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub fn new(data: &'a [u8]) -> Bytes<'a> {
        Bytes(data)
    }

    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// 0 .. `below`.
    pub fn below(&mut self, below: usize) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()])) % below
    }

    /// A size or a position: small, in addition to a page's border, or beyond what any disk or address space
    /// holds. What lies between would fill the disk, and take seconds to map and to unmap.
    pub fn number(&mut self) -> u64 {
        let tag = self.byte();
        let near = u64::from(self.byte());
        match tag % 6 {
            0 => near,
            1 => near << 8 | u64::from(self.byte()),
            2 => (near % 16 * 4096 + u64::from(self.byte() % 9)).saturating_sub(4),
            3 => (1u64 << (47 + near % 17)).wrapping_add(u64::from(self.byte()) % 9),
            4 => u64::MAX - near,
            _ => (i64::MAX as u64).saturating_sub(near) + u64::from(self.byte() % 4),
        }
    }

    /// Another word in place of this one, often one that is near.
    pub fn altered(&mut self, before: u64) -> u64 {
        match self.below(7) {
            0 => self.number(),
            1 => before ^ (1 << (self.byte() % 64)),
            2 => before.wrapping_add(u64::from(self.byte())),
            3 => before.wrapping_sub(u64::from(self.byte())),
            4 => u64::from(self.byte()) << 32 | u64::from(self.byte()),
            5 => before ^ u64::from(self.byte()),
            _ => 0,
        }
    }

    pub fn maybe(&mut self) -> Option<u64> {
        self.flag().then(|| self.number())
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
