//! The part of the address space in which maps are placed, separate from the program's own memory.
//!
//! A write has to find out for each binary whether its bytes may belong to a map. If maps were placed among the memory of the
//! VM, this would take a search through all maps, or an additional copy, and more often the more maps there ever were. So the
//! addresses that are tried first are in an arena that the system and the VM do not use. The addresses are only hints to the
//! kernel: if an address is in use, or does not exist on the system, this costs only speed.
//!
//! Ranges are packed, because adjacent ones then share one map of the process, and the number of maps of a process is limited.
//! They are packed at the upper end, right below the addresses of programs, so that the addresses below stay contiguous for a
//! map that needs most of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Below programs, libraries, stacks and the memory of most sanitizers. Not round numbers, which people tend to choose.
#[cfg(target_pointer_width = "64")]
const ARENA: (usize, usize) = (0x3480_0000_0000, 0x5480_0000_0000);
#[cfg(not(target_pointer_width = "64"))]
const ARENA: (usize, usize) = (0, 0);

static FREE: Mutex<Extents> = Mutex::new(Extents::new());

fn extents() -> MutexGuard<'static, Extents> {
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    if !free.filled {
        free.filled = true;
        free.add(ARENA.0, ARENA.1 - ARENA.0);
    }
    free
}

/// Whether `address` is in the arena. Only maps are placed there.
#[inline]
pub fn contains(address: usize) -> bool {
    ARENA.0 <= address && address < ARENA.1
}

/// Reserves a place for `len` bytes until [`free`]; `None` if the arena has no room.
pub fn allocate(len: usize) -> Option<usize> {
    extents().take(len)
}

/// As [`allocate`], for the `len` bytes at `start`. `false`: not all of them are free.
pub fn allocate_at(start: usize, len: usize) -> bool {
    extents().take_at(start, len)
}

/// Frees a range from [`allocate`], in which nothing is mapped any more.
pub fn free(start: usize, len: usize) {
    extents().add(start, len);
}

/// The arena cannot be used, because the system does not place anything there.
pub fn give_up() {
    extents().clear();
}

/// Free addresses. Adjacent ranges are joined.
struct Extents {
    filled: bool,
    len_at: BTreeMap<usize, usize>,
    by_len: BTreeSet<(usize, usize)>,
}

impl Extents {
    const fn new() -> Extents {
        Extents {
            filled: false,
            len_at: BTreeMap::new(),
            by_len: BTreeSet::new(),
        }
    }

    /// Takes the end of the smallest extent that is large enough; of several, the highest.
    fn take(&mut self, len: usize) -> Option<usize> {
        let (found, _) = *self.by_len.range((len, 0)..).next()?;
        let (_, start) = *self.by_len.range(..=(found, usize::MAX)).next_back()?;
        self.remove(start, found);
        if found > len {
            self.insert(start, found - len);
        }
        Some(start + found - len)
    }

    /// Takes the beginning of the extent that begins at `start`, if it is large enough.
    fn take_at(&mut self, start: usize, len: usize) -> bool {
        let Some(found) = self
            .len_at
            .get(&start)
            .copied()
            .filter(|found| *found >= len)
        else {
            return false;
        };
        self.remove(start, found);
        if found > len {
            self.insert(start + len, found - len);
        }
        true
    }

    fn add(&mut self, mut start: usize, mut len: usize) {
        if len == 0 {
            return;
        }
        if let Some((&before, &before_len)) = self.len_at.range(..start).next_back() {
            if before + before_len == start {
                self.remove(before, before_len);
                (start, len) = (before, before_len + len);
            }
        }
        if let Some(&after_len) = self.len_at.get(&(start + len)) {
            self.remove(start + len, after_len);
            len += after_len;
        }
        self.insert(start, len);
    }

    fn clear(&mut self) {
        self.len_at.clear();
        self.by_len.clear();
    }

    fn insert(&mut self, start: usize, len: usize) {
        self.len_at.insert(start, len);
        self.by_len.insert((len, start));
    }

    fn remove(&mut self, start: usize, len: usize) {
        self.len_at.remove(&start);
        self.by_len.remove(&(len, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(len: usize) -> Extents {
        let mut extents = Extents::new();
        extents.add(1000, len);
        extents
    }

    #[test]
    fn is_packed_and_used_again() {
        let mut free = of(100);
        assert_eq!(free.take(10), Some(1090));
        assert_eq!(free.take(20), Some(1070));
        assert_eq!(free.take(10), Some(1060));
        free.add(1070, 20);
        // The smallest that is large enough.
        assert_eq!(free.take(20), Some(1070));
        free.add(1090, 10);
        assert_eq!(free.take(5), Some(1095));
        assert_eq!(free.take(61), None);
        assert_eq!(free.take(60), Some(1000));
        assert_eq!(free.take(6), None);
        // Of equal ones, the highest.
        free.add(1000, 5);
        free.add(1010, 5);
        assert_eq!(free.take(5), Some(1090));
        assert_eq!(free.take(5), Some(1010));
    }

    #[test]
    fn a_place_is_given_if_all_of_it_is_free() {
        let mut free = of(30);
        assert_eq!(free.take(30), Some(1000));
        free.add(1010, 10);
        assert!(!free.take_at(1000, 5) && !free.take_at(1012, 2) && !free.take_at(1010, 11));
        assert!(free.take_at(1010, 4) && free.take_at(1014, 6));
        assert_eq!(free.take(1), None);
    }

    #[test]
    fn neighbours_are_joined() {
        let mut free = of(30);
        for start in [1020, 1010, 1000] {
            assert_eq!(free.take(10), Some(start));
        }
        for start in [1000, 1020, 1010] {
            free.add(start, 10);
        }
        assert_eq!(free.len_at.len(), 1);
        assert_eq!(free.by_len.len(), 1);
        assert_eq!(free.take(30), Some(1000));
        assert_eq!(free.take(1), None);
    }
}
