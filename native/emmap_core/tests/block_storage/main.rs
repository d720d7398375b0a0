//! The predecessor's block storage: see `src/block_storage.rs`.

mod memory;

use std::collections::BTreeSet;

use emmap_core::block_storage::{Place, Stop, Storage};
use emmap_core::store::Shared;
use memory::{Memory, KILLED};

const BLOCK_SIZE: u32 = 1;
/// Room for two sections and a bit.
const BYTES: usize = 16 + 16 + 2 * (16 + 64 * (8 + 64)) + 16 + 8 + 64;

fn place(number: u64) -> Place {
    Place::new(number / 4096, number / 64 % 64, number % 64)
}

fn store(memory: &Memory, data: u8) -> Result<u64, Stop> {
    let storage = Storage::of(memory)?;
    storage.store(1, |at| Ok(memory.write(at, &[data])?))
}

fn free(memory: &Memory, place: Place) -> Result<bool, Stop> {
    Storage::of(memory)?.free(place.address())
}

/// All blocks as the masks of groups have them, which those of sections and of the root must not hide.
fn blocks(memory: &Memory) -> BTreeSet<u64> {
    let storage = Storage::of(memory).unwrap();
    let numbers = 0..2 * 4096 + 64;
    let found: BTreeSet<u64> = numbers
        .filter(|number| storage.find(place(*number).address()).unwrap().is_some())
        .collect();
    let mut listed = BTreeSet::new();
    let mut from = Some(place(0));
    while let Some((at, _)) = from.and_then(|from| storage.next(from).unwrap()) {
        listed.insert((at.section() * 64 + at.group()) * 64 + at.block());
        from = at.next();
    }
    assert_eq!(found, listed);
    found
}

/// Ends the program at each store of `change`, and looks whether the blocks are those before or those after it.
fn stop_everywhere(memory: &Memory, change: impl Fn(&Memory) -> Result<(), Stop>) {
    let bytes = memory.bytes();
    let before = blocks(memory);
    change(memory).unwrap();
    let after = blocks(memory);
    for stop in 0.. {
        let killed = Memory::new(bytes.clone());
        killed.kill_after(stop);
        match change(&killed) {
            Ok(()) => return assert!(stop > 0),
            Err(stop) => assert_eq!(stop, Stop::Posix(KILLED)),
        }
        killed.revive();
        let left = blocks(&killed);
        assert!(left == before || left == after, "stopped at store {stop}");
        // Others go on, and no place is lost.
        let first = (0..).find(|number| !left.contains(number)).unwrap();
        assert_eq!(store(&killed, 7), Ok(place(first).address()));
        let mut more = left.clone();
        more.insert(first);
        assert_eq!(blocks(&killed), more);
    }
}

#[test]
fn a_program_that_is_killed_leaves_nothing_to_repair() {
    let memory = Memory::new(vec![0xAA; BYTES]);
    Storage::of(&memory).unwrap().clear(BLOCK_SIZE).unwrap();
    assert!(blocks(&memory).is_empty());
    let borders = [
        0, 1, 63, 64, 65, 127, 128, 4031, 4032, 4095, 4096, 4097, 8191, 8192,
    ];
    for number in 0..8200 {
        let change = |memory: &Memory| store(memory, number as u8).map(|_| ());
        match borders.contains(&number) {
            true => stop_everywhere(&memory, change),
            false => change(&memory).unwrap(),
        }
    }
    assert_eq!(blocks(&memory), (0..8200).collect());
    // The last group, then all of a section from its end on, then one in the middle.
    for number in (8192..8200).chain((4096..8192).rev()).chain([2000]) {
        let change = |memory: &Memory| free(memory, place(number)).map(|freed| assert!(freed));
        match borders.contains(&number) || number == 2000 || number == 8199 {
            true => stop_everywhere(&memory, change),
            false => change(&memory).unwrap(),
        }
    }
    let left = (0..4096).filter(|number| *number != 2000).collect();
    assert_eq!(blocks(&memory), left);
    let bytes = memory.bytes();
    let storage = Storage::of(&memory).unwrap();
    assert_eq!(storage.repair(place(0), u64::MAX), Ok(None));
    assert!(memory.bytes() == bytes);
}

#[test]
fn masks_that_are_wrong_are_repaired_at_once_and_in_steps() {
    let memory = Memory::new(vec![0; BYTES]);
    Storage::of(&memory).unwrap().clear(BLOCK_SIZE).unwrap();
    for number in 0..5000 {
        store(&memory, number as u8).unwrap();
    }
    for number in (0..5000).filter(|number| number % 3 == 0 || (1000..2000).contains(number)) {
        assert_eq!(free(&memory, place(number)), Ok(true));
    }
    let right = memory.bytes();
    // The root, and the first two sections: they hide everything, and promise what is not there.
    for (at, mask) in [
        (16, 0),
        (24, 0),
        (32, 0),
        (40, u64::MAX),
        (4656, 0),
        (4664, u64::MAX),
    ] {
        let wrong = |memory: &Memory| memory.write(at, &u64::to_ne_bytes(mask)).unwrap();
        wrong(&memory);
        assert!(memory.bytes() != right, "{at}");
        let storage = Storage::of(&memory).unwrap();
        assert_eq!(storage.repair(place(0), u64::MAX), Ok(None));
        assert!(memory.bytes() == right, "{at}");
        for most in [1, 63, 64, 65, 1000, 5056, 5057] {
            wrong(&memory);
            let mut steps = 0;
            let mut from = Some(place(0));
            while let Some(start) = from {
                from = storage.repair(start, most).unwrap();
                steps += 1;
            }
            assert!(memory.bytes() == right, "{at}, {most}");
            // 79 groups have masks.
            assert_eq!(steps, (79 * 64) / most + 1, "{most}");
        }
    }
}
