//! Files with flipped bits and random bytes: no call reads outside of the map, or does not end.

use emmap_core::counters::dynamic::directory;
use emmap_core::counters::dynamic::Name;
use emmap_core::store::Shared;

use crate::memory::Memory;
use crate::program::{name, new_file, Program};
use crate::random::Random;

fn file() -> Vec<u8> {
    let memory = Memory::new(new_file());
    let program = Program::new(&memory, 2);
    program.recover().unwrap();
    for number in 0..12 {
        program.add(&name(number), 3).unwrap();
    }
    memory.bytes()
}

/// Results do not matter, but each call ends.
fn use_it(bytes: Vec<u8>) {
    let memory = Memory::new(bytes);
    let program = Program::new(&memory, 2);
    let before = memory.len();
    for number in 0..14 {
        let text = name(number);
        let wanted = Name::new(text.as_bytes(), &program.geometry).unwrap();
        let _ = directory::find(&memory, &program.geometry, &wanted);
        let _ = program.locked().find_or_add(&wanted, u64::MAX, true);
    }
    let _ = program.state();
    assert_eq!(memory.len(), before, "a damaged word extended the file");
    let _ = program.recover();
    program.state().unwrap();
    program.add("new", 1).unwrap();
    assert!(program.state().unwrap().contains_key("new"));
}

#[test]
fn each_bit_of_what_is_in_use() {
    let file = file();
    let end = file.len();
    for at in (8192..8640)
        .chain(16_384..16_384 + 300)
        .chain(end - 600..end)
    {
        for bit in [0, 1, 5, 7] {
            let mut file = file.clone();
            file[at] ^= 1 << bit;
            use_it(file);
        }
    }
}

#[test]
fn random_bytes() {
    let file = file();
    for seed in 0..1500 {
        let mut random = Random::of(seed);
        let mut file = file.clone();
        for _ in 0..random.below(200) + 1 {
            let (from, to) = match random.below(3) {
                0 => (8448, 8472),
                1 => (8192, 8640),
                _ => (16_384, file.len() as u64),
            };
            let at = from + random.below(to - from);
            file[at as usize] = random.next() as u8;
        }
        use_it(file);
    }
}
