//! Power failures: of what was not synced any part is on the disk. What the last sync has covered is there afterwards, with a
//! value that it had since then, and what is there is what was added.

use std::collections::{BTreeMap, BTreeSet};

use emmap_core::counters::dynamic::layout;
use emmap_core::store::{checksum, Shared};

use crate::environment::crash_images;
use crate::memory::Memory;
use crate::program::{is_killed, name, new_file, Program, SALT};
use crate::random::Random;

/// What a program leaves out, for tests of what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Omission {
    Nothing,
    /// Recovery believes a counter whose checksum is wrong.
    Checksum,
    /// Recovery does not clear what is after the last entry.
    Clearing,
}

/// What a power failure may leave of a counter.
#[derive(Clone, Debug, Default)]
struct Left {
    /// The last sync covered it.
    must: bool,
    /// What it may have: what it had at that sync, and since.
    values: BTreeSet<i64>,
}

type History = BTreeMap<String, Left>;

/// Few names, so that the same one is added again at the same place after a power failure.
const NAMES: u64 = 20;

/// Some lives of one file, each of which ends with a power failure. Returns what went wrong.
fn lives(seed: u64, omission: Omission, images: &mut u64) -> Result<(), String> {
    let mut random = Random::of(seed);
    let stripes = [1, 1, 2, 3][random.below(4) as usize];
    let mut history = History::new();
    let mut file = new_file();
    for _ in 0..4 {
        let memory = Memory::recording(file);
        let program = Program::new(&memory, stripes);
        recover(&program, &mut history, omission)?;
        for _ in 0..random.below(40) {
            let killed = match random.below(8) {
                0 => random.below(40),
                _ => u64::MAX,
            };
            memory.kill_after(killed);
            live(&program, &mut history, &mut random)?;
            if random.below(4) == 0 {
                *images += 1;
                let left = Memory::recording(memory.image_of_pieces(&mut random));
                let mut history = history.clone();
                recover(&Program::new(&left, stripes), &mut history, omission)?;
            }
        }
        *images += 1;
        file = memory.image_of_pieces(&mut random);
    }
    let memory = Memory::recording(file);
    recover(&Program::new(&memory, stripes), &mut history, omission)
}

/// One call. The history gets what a power failure may leave of it.
fn live(program: &Program, history: &mut History, random: &mut Random) -> Result<(), String> {
    if random.below(10) == 0 {
        program.memory.sync();
        program.take_over();
        // What a program that was killed began to add may be on the disk.
        for left in history.values_mut() {
            *left = Left {
                must: false,
                values: BTreeSet::from([0]),
            };
        }
        let state = program.state()?.into_iter();
        history.extend(state.map(|(name, value)| (name, synced(value))));
        return Ok(());
    }
    let name = name(random.below(NAMES));
    let before = program.state()?.get(&name).copied().unwrap_or(0);
    let value = random.below(1 << 40) as i64 + 1;
    let left = history.entry(name.clone()).or_default();
    left.values.extend([before, before + value]);
    let result = program.add(&name, value);
    program.take_over();
    match is_killed(&result) {
        true => Ok(()),
        false => result.map_err(|stop| format!("{stop:?}")),
    }
}

fn synced(value: i64) -> Left {
    Left {
        must: true,
        values: BTreeSet::from([value]),
    }
}

/// Opens what a power failure left, and compares it with what may be there. From then on, it is what there is.
fn recover(program: &Program, history: &mut History, omission: Omission) -> Result<(), String> {
    if omission == Omission::Checksum {
        believe(program);
    }
    let before = program.memory.bytes();
    let recovered = program.recover().map_err(|stop| format!("{stop:?}"))?;
    if omission == Omission::Clearing {
        let last = program.word(layout::LAST);
        let rest = before.get(last as usize..).unwrap_or(&[]);
        program.memory.write(last, rest).unwrap();
        program.memory.sync();
    }
    let state = program.state()?;
    if recovered.kept != state.len() as u64 {
        return Err(format!("{recovered:?}, there are {}", state.len()));
    }
    for (name, value) in &state {
        match history.get(name) {
            None => return Err(format!("{name} was never added")),
            Some(left) if !left.values.contains(value) => {
                return Err(format!("{name} has {value}, and may have {left:?}"));
            }
            Some(_) => (),
        }
    }
    for (name, left) in history.iter() {
        if left.must && !state.contains_key(name) {
            return Err(format!("{name} is gone"));
        }
    }
    *history = state
        .into_iter()
        .map(|(name, value)| (name, synced(value)))
        .collect();
    Ok(())
}

/// Gives everything that looks like a counter its checksum.
fn believe(program: &Program) {
    let memory = program.memory;
    let stripes = u64::from(program.geometry.stripes);
    for at in (layout::ENTRIES..memory.bytes().len() as u64).step_by(128) {
        let word = memory.load(at + 16).unwrap();
        let length = (word & 0xffff) as usize;
        if word >> 16 & 0xffff != 1 || length > 1024 {
            continue;
        }
        let mut text = vec![0; length];
        let (first, rest) = text.split_at_mut(length.min(104));
        let is_inside =
            memory.read(at + 24, first).is_ok() && memory.read(at + stripes * 128, rest).is_ok();
        if !is_inside {
            continue;
        }
        let hash = emmap_core::counters::dynamic::entry::hash(&text, &program.geometry);
        let head = [
            &SALT.to_le_bytes()[..],
            &at.to_le_bytes(),
            &hash.to_ne_bytes(),
            &(word as u32).to_ne_bytes(),
            &text,
        ];
        let crc = checksum::append(0, &head.concat());
        memory.store(at + 8, hash).unwrap();
        let word = word & 0xffff_ffff | u64::from(crc) << 32;
        memory.store(at + 16, word).unwrap();
    }
    memory.sync();
}

#[test]
fn what_was_synced_is_there() {
    let (mut images, mut seed) = (0, 0);
    let enough = crash_images(3_000);
    while images < enough {
        seed += 1;
        if let Err(wrong) = lives(seed, Omission::Nothing, &mut images) {
            panic!("seed {seed}: {wrong}");
        }
    }
    println!("{images} images, {seed} seeds");
}

#[test]
fn each_precaution_is_needed() {
    for omission in [Omission::Checksum, Omission::Clearing] {
        let mut images = 0;
        let wrong = (1..3000).find_map(|seed| {
            let wrong = lives(seed, omission, &mut images).err()?;
            Some((seed, wrong))
        });
        println!("{omission:?}, {images} images: {wrong:?}");
        assert!(wrong.is_some(), "nothing goes wrong without {omission:?}");
    }
}
