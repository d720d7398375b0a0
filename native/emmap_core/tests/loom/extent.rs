//! Whoever sees a length sees a base that has room for it, and what was put there before.

use crate::extent::Extent;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::sync::Arc;
use loom::thread;

/// Two ranges of addresses, the second one larger; their addresses are never followed.
const BASES: [*mut u8; 2] = [0x1000 as *mut u8, 0x2000 as *mut u8];
const ROOMS: [usize; 2] = [2, 4];

struct Map {
    extent: Extent,
    /// How much the kernel has mapped in each range.
    mapped: [AtomicUsize; 2],
}

impl Map {
    fn new(len: usize) -> Map {
        Map {
            extent: Extent::new(BASES[0], len),
            mapped: [AtomicUsize::new(len), AtomicUsize::new(0)],
        }
    }

    /// As `resize` does: first mapped, then published.
    fn grow(&self, range: usize, len: usize) {
        for (mapped, room) in self.mapped.iter().zip(ROOMS).take(range + 1) {
            mapped.store(len.min(room), Relaxed);
        }
        self.extent.grow(BASES[range], len);
    }

    /// As every reader does.
    fn read(&self) -> usize {
        let len = self.extent.len();
        let base = self.extent.base();
        let range = BASES.iter().position(|at| *at == base).unwrap();
        assert!(
            len <= self.mapped[range].load(Relaxed),
            "past what is mapped"
        );
        len
    }
}

#[test]
fn a_length_has_room_at_its_base() {
    loom::model(|| {
        let map = Arc::new(Map::new(1));
        let grower = {
            let map = map.clone();
            thread::spawn(move || {
                map.grow(0, 2);
                map.grow(1, 4);
            })
        };
        let before = map.read();
        let after = map.read();
        assert!(before <= after);
        grower.join().unwrap();
        assert_eq!(map.read(), 4);
    });
}

/// Cut, and grown in another range: what is behind a length that was read before stays mapped, so
/// only the length may be smaller than what is there.
#[test]
fn a_cut_between_two_growths() {
    loom::model(|| {
        let map = Arc::new(Map::new(2));
        let resizer = {
            let map = map.clone();
            thread::spawn(move || {
                map.extent.set_len(1);
                map.grow(1, 4);
            })
        };
        assert!([1, 2, 4].contains(&map.read()));
        resizer.join().unwrap();
        assert_eq!(map.read(), 4);
    });
}
