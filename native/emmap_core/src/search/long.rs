//! One pattern that is so long that not even two of it may be looked at in one step: the algorithm of Knuth, Morris and
//! Pratt, which reads each byte once and keeps no more than how many bytes of the pattern it has just read.

use std::time::Instant;

use crate::{Errno, Result};

/// Bytes of the pattern between two looks at the clock.
const UNWATCHED: usize = 16 << 10;

/// From which end a text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Backward,
}

pub struct Long {
    direction: Direction,
    /// For each number of bytes read the longest beginning of the pattern that they end with, besides themselves.
    shorter: Vec<u32>,
}

impl Long {
    /// ENOMEM: memory is missing for a table of four bytes for each one of the pattern.
    pub fn new(length: usize, direction: Direction) -> Result<Long> {
        let mut shorter = Vec::new();
        u32::try_from(length).map_err(|_| Errno::NOMEM)?;
        shorter
            .try_reserve_exact(length)
            .map_err(|_| Errno::NOMEM)?;
        Ok(Long { direction, shorter })
    }

    /// Goes on with the table until `until`. Whether it is done.
    pub fn advance(&mut self, pattern: &[u8], until: Instant) -> bool {
        while self.shorter.len() < pattern.len() {
            for _ in 0..UNWATCHED.min(pattern.len() - self.shorter.len()) {
                let longer = match self.shorter.len() {
                    0 => 0,
                    read => {
                        let before = self.shorter[read - 1] as usize;
                        self.next(pattern, before, self.byte(pattern, read)) as u32
                    }
                };
                self.shorter.push(longer);
            }
            if Instant::now() >= until {
                return self.shorter.len() == pattern.len();
            }
        }
        true
    }

    /// How many bytes of the pattern were just read, after one more.
    #[inline]
    pub fn next(&self, pattern: &[u8], mut read: usize, byte: u8) -> usize {
        while self.byte(pattern, read) != byte {
            match read {
                0 => return 0,
                _ => read = self.shorter[read - 1] as usize,
            }
        }
        read + 1
    }

    #[inline]
    fn byte(&self, pattern: &[u8], at: usize) -> u8 {
        match self.direction {
            Direction::Forward => pattern[at],
            Direction::Backward => pattern[pattern.len() - 1 - at],
        }
    }

    pub fn direction(&self) -> Direction {
        self.direction
    }

    pub fn memory(&self) -> usize {
        self.shorter.capacity() * size_of::<u32>()
    }
}
