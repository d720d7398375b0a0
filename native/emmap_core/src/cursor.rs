//! The file position of a handle: one atomic, shared by all users of the handle.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::bounds::{checked_end, clamped_range};
use crate::{Errno, Result};

#[derive(Default)]
pub struct Cursor(AtomicU64);

/// The origin of a new position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    Start,
    Current,
    End,
}

impl Cursor {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Moves to `offset` bytes from `whence`. The new position may be past the end, but not before
    /// the beginning.
    pub fn seek(&self, whence: Whence, offset: i64, len: usize) -> Result<u64> {
        let mut now = self.get();
        loop {
            let from = match whence {
                Whence::Start => 0,
                Whence::Current => now,
                Whence::End => len as u64,
            };
            let to = from
                .checked_add_signed(offset)
                .filter(|to| *to <= i64::MAX as u64)
                .ok_or(Errno::INVAL)?;
            match self.swap(now, to) {
                Ok(_) => return Ok(to),
                Err(other) => now = other,
            }
        }
    }

    /// Takes the next `count` bytes of a map of `len` bytes: returns where they begin and how many there
    /// are. Two callers never get the same bytes. `None` at the end.
    #[inline]
    pub fn take(&self, count: usize, len: usize) -> Option<(usize, usize)> {
        let mut now = self.get();
        loop {
            let (start, got) = clamped_range(now, count, len)?;
            match self.swap(now, now + got as u64) {
                Ok(_) => return Some((start, got)),
                Err(other) => now = other,
            }
        }
    }

    /// Moves from `from` by `count` bytes, unless another thread moved first.
    #[inline]
    pub fn advance(&self, from: u64, count: usize) -> Result<bool> {
        let to = checked_end(from, count as u64)?;
        Ok(self.swap(from, to).is_ok())
    }

    /// Moves from `from` back to `to`, because the bytes in between could not be delivered, unless another thread has moved
    /// in the meantime.
    #[cold]
    pub fn give_back(&self, from: u64, to: u64) {
        let _ = self.swap(from, to);
    }

    /// Moves to `end`, if it is past that.
    pub fn limit(&self, end: u64) {
        self.0.fetch_min(end, Ordering::AcqRel);
    }

    pub fn set(&self, position: u64) {
        self.0.store(position, Ordering::Release);
    }

    #[inline]
    fn swap(&self, from: u64, to: u64) -> std::result::Result<u64, u64> {
        self.0
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeks_as_a_file_does() {
        let cursor = Cursor::default();
        assert_eq!(cursor.seek(Whence::Start, 5, 10), Ok(5));
        assert_eq!(cursor.seek(Whence::Current, -2, 10), Ok(3));
        assert_eq!(cursor.seek(Whence::End, 7, 10), Ok(17));
        assert_eq!(cursor.seek(Whence::Start, -1, 10), Err(Errno::INVAL));
        assert_eq!(
            cursor.seek(Whence::Current, i64::MAX, 10),
            Err(Errno::INVAL)
        );
        assert_eq!(cursor.get(), 17);
        assert_eq!(cursor.take(4, 10), None);
    }

    #[test]
    fn takers_share_out_every_byte_once() {
        let cursor = Cursor::default();
        let taken: Vec<Vec<usize>> = std::thread::scope(|scope| {
            let jobs: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut mine = Vec::new();
                        while let Some((start, got)) = cursor.take(3, 10_000) {
                            mine.extend(start..start + got);
                        }
                        mine
                    })
                })
                .collect();
            jobs.into_iter().map(|job| job.join().unwrap()).collect()
        });
        let mut all: Vec<usize> = taken.concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..10_000));
    }
}
