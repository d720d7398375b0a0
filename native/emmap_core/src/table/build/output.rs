//! Writes the new file from start to end, with a checksum of each block.

use crate::store::{checksum, Medium};
use crate::table::layout::BLOCK;
use crate::{interrupt, Result};

/// The file is written in pieces of this size, which begin at its multiples. So the page cache can have large pages of it,
/// which makes lookups faster.
const PIECE: u64 = 4 << 20;

pub struct Output {
    buffer: Vec<u8>,
    /// Where the buffer begins in the file.
    at: u64,
    /// The checksum of the block that is not complete yet, and its bytes.
    crc: u32,
    in_block: usize,
    sums: Vec<u8>,
}

impl Output {
    /// The file is written from `at` on.
    pub fn new(at: u64) -> Output {
        Output {
            buffer: Vec::new(),
            at,
            crc: 0,
            in_block: 0,
            sums: Vec::new(),
        }
    }

    pub fn position(&self) -> u64 {
        self.at + self.buffer.len() as u64
    }

    pub fn write(&mut self, medium: &mut impl Medium, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        let end = self.position() / PIECE * PIECE;
        match end > self.at {
            true => self.flush(medium, (end - self.at) as usize),
            false => Ok(()),
        }
    }

    /// Writes zeros up to a multiple of `size`.
    pub fn pad(&mut self, medium: &mut impl Medium, size: u64) -> Result<()> {
        let zeros = self.position().next_multiple_of(size) - self.position();
        self.write(medium, &[0; 64][..zeros as usize])
    }

    /// Writes the first `count` bytes of the buffer.
    fn flush(&mut self, medium: &mut impl Medium, count: usize) -> Result<()> {
        interrupt::check()?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let some = rest.len().min(BLOCK as usize - self.in_block);
            self.crc = checksum::append(self.crc, &rest[..some]);
            self.in_block += some;
            rest = &rest[some..];
            if self.in_block == BLOCK as usize {
                self.end_block();
            }
        }
        medium.write_at(self.at, &buffer[..count])?;
        self.at += count as u64;
        // Its memory is used again.
        buffer.drain(..count);
        self.buffer = buffer;
        Ok(())
    }

    fn end_block(&mut self) {
        self.sums.extend_from_slice(&self.crc.to_le_bytes());
        (self.crc, self.in_block) = (0, 0);
    }

    /// Writes the checksums, and returns how many they are.
    pub fn finish(&mut self, medium: &mut impl Medium) -> Result<u64> {
        self.flush(medium, self.buffer.len())?;
        if self.in_block > 0 {
            self.end_block();
        }
        medium.write_at(self.at, &self.sums)?;
        Ok(self.sums.len() as u64 / 4)
    }
}
