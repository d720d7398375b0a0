//! Searches for one byte in a range of any length, in steps that end at a given moment.

use std::time::Instant;

use super::Region;
use crate::{os, Result};

/// How many bytes are searched between two looks at the clock.
const UNWATCHED: u64 = 256 << 10;

/// How many bytes are searched before looking for holes in the file. Most ranges are shorter.
const BEFORE_HOLES: u64 = 1 << 20;

/// How a search for a byte ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    Found(u64),
    /// To be continued here.
    Paused(u64),
    /// There is none up to here, where the range or the map ends.
    End(u64),
}

impl Region {
    /// The first `byte` in `position .. stop`. The bytes of `looked .. position` were already searched.
    pub fn scan(
        &self,
        looked: u64,
        position: u64,
        stop: u64,
        byte: u8,
        until: Instant,
    ) -> Result<Scan> {
        let mut at = position;
        loop {
            at = self.without_hole(looked, at, byte)?;
            let stop = stop.min(self.len() as u64);
            if at >= stop {
                return Ok(Scan::End(stop));
            }
            let count = UNWATCHED.min(stop - at);
            if let Some(found) = self.find_byte(at, count as usize, byte) {
                return Ok(Scan::Found(found));
            }
            at += count;
            if Instant::now() >= until {
                return Ok(Scan::Paused(at));
            }
        }
    }

    /// How many times `byte` occurs in `position .. next`, and `next`: at most `stop`, which is reached unless time is
    /// up. `start` is the beginning of the whole range.
    pub fn scan_count(
        &self,
        start: u64,
        position: u64,
        stop: u64,
        byte: u8,
        until: Instant,
    ) -> Result<(u64, u64)> {
        let (mut at, mut sum) = (position, 0);
        loop {
            at = self.without_hole(start, at, byte)?;
            if at >= stop.min(self.len() as u64) {
                return Ok((sum, stop));
            }
            let count = UNWATCHED.min(stop - at);
            sum += self.count_byte(at, count as usize, byte) as u64;
            at += count;
            if Instant::now() >= until {
                return Ok((sum, at.min(stop)));
            }
        }
    }

    /// `at`, or the end of the hole that contains it: a hole consists of zeros, and reading it would fill the page cache.
    /// When others write into a hole through their maps of the file, the kernel treats it as data immediately, except on file
    /// systems in user space, whose holes are therefore read.
    fn without_hole(&self, start: u64, at: u64, byte: u8) -> Result<u64> {
        if byte == 0 || at.saturating_sub(start) < BEFORE_HOLES || self.shape.private {
            return Ok(at);
        }
        let file = match self.file() {
            Ok(Some(file)) => file,
            _ => return Ok(at),
        };
        if !os::tells_holes(file.fd()) {
            return Ok(at);
        }
        let data = os::next_data(file.fd(), self.shape.offset.saturating_add(at))?;
        match data {
            Some(data) => Ok(data - self.shape.offset),
            None => {
                // A file that was truncated has no data, either.
                self.check_size()?;
                Ok((self.len() as u64).max(at))
            }
        }
    }
}
