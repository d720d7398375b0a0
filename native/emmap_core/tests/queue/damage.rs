//! Files with a flipped bit, and files of random bytes: an error or the right data, never wrong data.

use std::path::Path;

use emmap_core::queue::{self, layout, Limits, Queue, Request, Stop};
use emmap_core::region::Wait;
use emmap_core::Region;

use crate::program::{expected, Random, SEGMENT};

const ITEMS: u64 = 12;

fn request() -> Request {
    Request {
        segment_size: Some(SEGMENT),
        existing: true,
    }
}

/// A closed file with some items.
fn closed(path: &Path) -> Vec<u8> {
    let new = Request {
        existing: false,
        ..request()
    };
    let (region, queue) = queue::open(path, &new).unwrap();
    for item in 0..ITEMS {
        let payload = expected(item, 20);
        let item = (0, payload.as_ptr(), payload.len());
        // SAFETY: a slice.
        unsafe { queue.push(&region, Wait::Yes, item, &Limits::default()) }.unwrap();
    }
    queue.sync(&region).unwrap();
    queue.leave(&region).unwrap();
    std::fs::read(path).unwrap()
}

/// Pops all: the items, each of which is what was pushed, and whether a call told of damage.
fn pop_all(region: &Region, queue: &Queue) -> (Vec<u64>, bool) {
    let (mut items, mut told) = (Vec::new(), false);
    for _ in 0..10_000 {
        let mut payload = Vec::new();
        // SAFETY: the vector gets as much room as the payload needs.
        let taken = unsafe {
            queue.pop(region, Wait::Yes, layout::OWN, |found| {
                payload = vec![0; found.head.length as usize];
                payload.as_mut_ptr()
            })
        };
        match taken {
            Ok(Some(taken)) => {
                assert!(payload == expected(taken.sequence, 20), "wrong data");
                items.push(taken.sequence);
            }
            Ok(None) => return (items, told),
            Err(Stop::Corrupt(_)) => told = true,
            Err(_) => return (items, true),
        }
    }
    panic!("no end");
}

#[test]
fn every_flipped_bit_of_a_closed_file() {
    let directory = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let path = directory.path().join("q");
    let file = closed(&path);
    // Everything that has a meaning: the headers, all of the control area that is not zero, and the segment.
    let end = layout::DATA as usize + 64 + ITEMS as usize * 48 + 64;
    let every = std::env::var("EMMAP_EVERY_BIT").is_ok();
    for at in (0..end).filter(|at| every || file[*at] != 0 || at % 997 == 0) {
        for bit in 0..8 {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, &damaged).unwrap();
            let Ok((region, queue)) = queue::open(&path, &request()) else {
                continue;
            };
            let (items, told) = pop_all(&region, &queue);
            let all = items == (0..ITEMS).collect::<Vec<_>>();
            assert!(
                items.is_sorted_by(|a, b| a < b),
                "byte {at}, bit {bit}: {items:?}"
            );
            assert!(
                all || told,
                "byte {at}, bit {bit}: {items:?}, and nobody was told"
            );
        }
    }
}

#[test]
fn random_bytes_are_refused_and_not_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("q");
    for seed in 0..200 {
        let mut random = Random::of(seed);
        let length = random.below(400_000) as usize + 1;
        let mut file = expected(seed, length);
        if seed % 2 == 0 {
            let magic = file.len().min(12);
            file[..magic].copy_from_slice(&b"EMMAPQUE\x01\0\0\0"[..magic]);
        }
        std::fs::write(&path, &file).unwrap();
        assert!(queue::open(&path, &request()).is_err());
        assert!(
            std::fs::read(&path).unwrap() == file,
            "refused, and changed"
        );
    }
}
