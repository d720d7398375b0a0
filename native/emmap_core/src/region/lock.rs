//! Makes a copy of any length atomic towards the others on the same map.
//!
//! Short reads write nothing that others read, so they scale: they copy, and copy again when a
//! sequence number says that a writer came between. Writers exclude each other and long reads with
//! a lock. crossbeam's `ShardedLock` was tried: it takes eight locks to write, 35 ns where this
//! takes 5 and a whole `pwrite` of eight bytes 29.

use std::sync::{PoisonError, TryLockError};

use crossbeam_utils::CachePadded;

use crate::sync::atomic::{fence, AtomicUsize, Ordering};
use crate::sync::{spin_loop, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How often a short read is copied again before it waits its turn among the writers.
const OPTIMISTIC_TRIES: usize = if cfg!(loom) { 2 } else { 16 };
/// How often a short write asks for the lock before it goes where waiting is allowed: about a
/// microsecond, less than the way to another scheduler costs.
const WRITE_TRIES: usize = if cfg!(loom) { 2 } else { 64 };

#[derive(Default)]
pub struct CopyLock {
    /// Odd while a writer is at work.
    sequence: CachePadded<AtomicUsize>,
    turn: CachePadded<RwLock<()>>,
}

/// The sequence number while no writer is at work.
#[derive(Clone, Copy)]
pub struct Quiet(usize);

pub struct WriteGuard<'a> {
    sequence: &'a AtomicUsize,
    _turn: RwLockWriteGuard<'a, ()>,
}

impl CopyLock {
    /// Runs `copy` so that no writer overlaps its last run. `None`: a writer holds the lock for
    /// long; call again through [`CopyLock::read_long`], where waiting is allowed.
    #[inline]
    pub fn read_short<R>(&self, mut copy: impl FnMut() -> R) -> Option<R> {
        for _ in 0..OPTIMISTIC_TRIES {
            if let Some(quiet) = self.quiet() {
                let result = copy();
                if self.still(quiet) {
                    return Some(result);
                }
            }
            spin_loop();
        }
        let _turn = self.turn.try_read().ok()?;
        Some(copy())
    }

    /// One try of [`CopyLock::read_short`], for code that must be inlined, which a closure may not be: before the copy.
    /// `None`: a writer is at work.
    #[inline(always)]
    pub fn quiet(&self) -> Option<Quiet> {
        // Pairs with the release store in `WriteGuard::drop`.
        let sequence = self.sequence.load(Ordering::Acquire);
        (sequence & 1 == 0).then_some(Quiet(sequence))
    }

    /// After the copy: whether no writer came between, so that the copy is whole.
    #[inline(always)]
    pub fn still(&self, quiet: Quiet) -> bool {
        fence(Ordering::Acquire);
        self.sequence.load(Ordering::Relaxed) == quiet.0
    }

    /// Waits for writers, then runs `copy` with all writers held off. For a thread that may wait.
    pub fn read_long<R>(&self, mut copy: impl FnMut() -> R) -> R {
        let _turn: RwLockReadGuard<()> = self.turn.read().unwrap_or_else(PoisonError::into_inner);
        copy()
    }

    /// The lock for writing, if it comes free within about a microsecond.
    #[inline]
    pub fn try_write(&self) -> Option<WriteGuard<'_>> {
        for _ in 0..WRITE_TRIES {
            match self.turn.try_write() {
                Ok(turn) => return Some(self.enter(turn)),
                Err(TryLockError::Poisoned(turn)) => return Some(self.enter(turn.into_inner())),
                Err(TryLockError::WouldBlock) => spin_loop(),
            }
        }
        None
    }

    /// Waits for the lock. For a thread that may wait.
    pub fn write(&self) -> WriteGuard<'_> {
        self.enter(self.turn.write().unwrap_or_else(PoisonError::into_inner))
    }

    #[inline]
    fn enter<'a>(&'a self, turn: RwLockWriteGuard<'a, ()>) -> WriteGuard<'a> {
        // Only the holder of `turn` changes the number, so a load and a store are enough.
        let number = self.sequence.load(Ordering::Relaxed);
        self.sequence
            .store(number.wrapping_add(1), Ordering::Relaxed);
        // A reader that sees a byte of the copy that follows also sees the odd number.
        fence(Ordering::Release);
        WriteGuard {
            sequence: &self.sequence,
            _turn: turn,
        }
    }
}

impl Drop for WriteGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        let number = self.sequence.load(Ordering::Relaxed);
        self.sequence
            .store(number.wrapping_add(1), Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    /// Writers fill all words with one number; a reader must never see two different ones.
    #[test]
    fn copies_are_never_torn() {
        const WORDS: usize = 64;
        let lock = CopyLock::default();
        let words: Vec<AtomicUsize> = (0..WORDS).map(|_| AtomicUsize::new(0)).collect();
        let stop = AtomicBool::new(false);
        let copy = || -> Vec<usize> { words.iter().map(|w| w.load(Ordering::Relaxed)).collect() };
        std::thread::scope(|scope| {
            for seed in 1..=2 {
                let (lock, words, stop) = (&lock, &words, &stop);
                scope.spawn(move || {
                    let mut n = seed;
                    while !stop.load(Ordering::Relaxed) {
                        if let Some(_guard) = lock.try_write() {
                            words.iter().for_each(|w| w.store(n, Ordering::Relaxed));
                        }
                        n += 2;
                    }
                });
            }
            for round in 0..20_000 {
                let seen = if round % 8 == 0 {
                    lock.read_long(copy)
                } else {
                    match lock.read_short(copy) {
                        Some(seen) => seen,
                        None => continue,
                    }
                };
                assert!(seen.iter().all(|w| *w == seen[0]), "torn: {seen:?}");
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_held_lock_is_refused_not_waited_for() {
        let lock = CopyLock::default();
        let guard = lock.write();
        assert!(lock.try_write().is_none());
        assert_eq!(lock.read_short(|| 1), None);
        drop(guard);
        assert!(lock.try_write().is_some());
        assert_eq!(lock.read_short(|| 1), Some(1));
    }
}
