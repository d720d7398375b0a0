//! A slot of the guard: whoever reads it gets one filling, whole; whoever holds the range gets it.

use std::ptr;

use crate::slot::{Guarded, Slot};
use loom::sync::Arc;
use loom::thread;

/// Both cover address 0x3000, and all their fields differ.
fn filling(n: usize) -> Guarded {
    Guarded {
        start: 0x1000 * n,
        limit: 0x8000 + n,
        end: 0x1000 * n + 0x10,
        fd: n as i32,
        file_offset: n as u64,
        delta: n,
        page: n,
        writable: n == 1,
        only_copy: n == 2,
        fault: ptr::without_provenance(n),
    }
}

const ADDRESS: usize = 0x3000;

#[test]
fn never_a_mix_of_two_fillings() {
    loom::model(|| {
        let slot = Arc::new(Slot::free());
        let filler = {
            let slot = slot.clone();
            thread::spawn(move || {
                slot.fill(&filling(1));
                slot.empty();
                slot.fill(&filling(2));
            })
        };
        if let Some(seen) = slot.read(ADDRESS) {
            assert!(seen == filling(1) || seen == filling(2), "a mix: {seen:?}");
        }
        filler.join().unwrap();
        assert_eq!(slot.read(ADDRESS), Some(filling(2)));
    });
}

/// The end moves without a new generation: whoever faults in the range finds it in the meantime.
#[test]
fn the_holder_always_finds_it() {
    loom::model(|| {
        let slot = Arc::new(Slot::free());
        slot.fill(&filling(1));
        let holder = {
            let slot = slot.clone();
            thread::spawn(move || {
                let seen = slot.read(ADDRESS).expect("the holder's own range");
                assert!([0x1010, 0x1020, 0x1030].contains(&seen.end));
                let whole = Guarded {
                    end: 0x1010,
                    ..seen
                };
                assert_eq!(whole, filling(1));
            })
        };
        slot.set_mapped(0x20);
        slot.set_mapped(0x30);
        holder.join().unwrap();
        slot.empty();
        assert_eq!(slot.read(ADDRESS), None);
    });
}

/// The end is as far as the map is: who was told of a growth finds it.
#[test]
fn a_growth_is_seen_by_those_who_use_it() {
    use loom::sync::atomic::{AtomicUsize, Ordering};
    loom::model(|| {
        let slot = Arc::new(Slot::free());
        slot.fill(&filling(1));
        let len = Arc::new(AtomicUsize::new(0x10));
        let grower = {
            let (slot, len) = (slot.clone(), len.clone());
            thread::spawn(move || {
                slot.set_mapped(0x20);
                len.store(0x20, Ordering::Release);
            })
        };
        let len = len.load(Ordering::Acquire);
        let seen = slot.read(ADDRESS).expect("the holder's own range");
        assert!(seen.end >= 0x1000 + len);
        grower.join().unwrap();
    });
}
