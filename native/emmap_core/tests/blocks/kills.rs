//! A program that is killed after any of its stores leaves the state before its call or the one after.

use emmap_core::blocks::{layout, Result};

use crate::memory::Memory;
use crate::program::{content, is_killed, new_file, Omission, Program, State, Syncing};
use crate::random::Random;

/// One call of a program.
#[derive(Clone, Copy, Debug)]
enum Call {
    Store,
    Replace(u64),
    Free(u64),
    Sync,
    Trim,
}

const NEW: u64 = 999_999;

fn run(program: &Program, call: Call) -> Result<()> {
    let data = content(NEW, program.geometry.block_size);
    match call {
        Call::Store => program.store(&data).map(drop),
        Call::Replace(address) => program.replace(address, &data),
        Call::Free(address) => program.free(address),
        Call::Sync => program.sync(),
        Call::Trim => program.trim(),
    }
}

/// A file in some state: some blocks are held, some are in slots, some were freed since the last sync. Programs were killed
/// in it before, once in the middle of a sync.
fn some_state(block_size: u64, random: &mut Random) -> Vec<u8> {
    let memory = Memory::new(new_file(block_size));
    let program = Program::new(&memory, block_size, Omission::Nothing);
    program.recover(false).unwrap();
    let many = if block_size > 10_000 { 12 } else { 150 };
    let mut number = 0;
    for round in 0..3 {
        for _ in 0..random.below(many) + 1 {
            number += 1;
            program.store(&content(number, block_size)).unwrap();
            let addresses = program.addresses().unwrap();
            let address = addresses[random.below(addresses.len() as u64) as usize];
            number += 1;
            let data = content(number, block_size);
            match random.below(10) {
                0..=2 => program.free(address).unwrap(),
                // All slots of the block may be in use.
                3 => drop(program.replace(address, &data)),
                4 => {
                    memory.kill_after(random.below(30));
                    let _ = program.replace(address, &data);
                    program.take_over();
                }
                _ => (),
            }
        }
        if round == 0 {
            program.sync().unwrap();
        }
    }
    let mut syncing = Syncing::begin(&program).unwrap();
    for _ in 0..random.below(12) {
        syncing.step().unwrap();
    }
    memory.kill_after(random.below(700));
    let _ = syncing.step();
    program.take_over();
    program.check();
    memory.bytes()
}

/// What a survivor finds; with `replay`, it completes the change of the one that died.
fn survivor(memory: &Memory, block_size: u64, replay: bool) -> std::result::Result<State, String> {
    let program = Program::new(memory, block_size, Omission::Nothing);
    memory.revive();
    if replay {
        program.take_over();
    }
    program.locked().check()?;
    let mut state = State::new();
    for address in program.addresses().map_err(|stop| format!("{stop:?}"))? {
        let bytes = program.read(address);
        state.insert(
            address,
            bytes.map_err(|stop| format!("{address}: {stop:?}"))?,
        );
    }
    let count = program.word(layout::COUNT);
    match count == state.len() as u64 {
        true => Ok(state),
        false => Err(format!(
            "{count} blocks are counted, there are {}",
            state.len()
        )),
    }
}

/// Kills a program after each store of a call. Returns how often, and what went wrong.
fn kill(start: &[u8], size: u64, call: Call, replay: bool) -> std::result::Result<u64, String> {
    let before = survivor(&Memory::new(start.to_vec()), size, true)?;
    let memory = Memory::new(start.to_vec());
    memory.kill_after(u64::MAX);
    let completed = run(&Program::new(&memory, size, Omission::Nothing), call);
    if completed == Err(emmap_core::blocks::Stop::Sync) {
        return Ok(0);
    }
    completed.map_err(|stop| format!("{call:?}: {stop:?}"))?;
    let stores = memory.stores();
    let after = survivor(&memory, size, true)?;
    for stop in 0..stores {
        let wrong =
            |what: String| format!("{call:?}, killed after {stop} of {stores} stores: {what}");
        let memory = Memory::new(start.to_vec());
        memory.kill_after(stop);
        let result = run(&Program::new(&memory, size, Omission::Nothing), call);
        assert!(
            is_killed(&result),
            "{call:?} ended after {stop} of {stores} stores"
        );
        let found = survivor(&memory, size, replay).map_err(wrong)?;
        if found != before && found != after {
            let differ = |other: &State| -> Vec<u64> {
                let all = found.keys().chain(other.keys());
                all.filter(|at| found.get(at) != other.get(at))
                    .copied()
                    .collect()
            };
            return Err(wrong(format!(
                "{:?}, {:?}",
                differ(&before),
                differ(&after)
            )));
        }
        // A sync has many stores that are alike.
        if matches!(call, Call::Sync) && stop % 4 != 0 {
            continue;
        }
        // It goes on: no other's address is given again, and a sync ends everything that was under way.
        let program = Program::new(&memory, size, Omission::Nothing);
        let address = program.store(&content(NEW + 1, size)).unwrap();
        assert!(!found.contains_key(&address), "{address} was given twice");
        program.sync().unwrap();
        program.check();
        if !program.is_settled() {
            return Err(wrong("a sync has left something to do".into()));
        }
        let mut expected = found;
        expected.insert(address, content(NEW + 1, size));
        assert!(program.state() == expected, "{}", wrong("a sync".into()));
    }
    Ok(stores)
}

fn calls(start: &[u8], size: u64, random: &mut Random) -> Vec<Call> {
    let memory = Memory::new(start.to_vec());
    let program = Program::new(&memory, size, Omission::Nothing);
    let live = program.addresses().unwrap();
    let held = program.bits(layout::group::HELD);
    let slots = program.locked().in_slots().unwrap();
    let mut calls = vec![Call::Store, Call::Sync, Call::Trim];
    let mut some = |from: Vec<u64>| -> Vec<u64> {
        (0..2.min(from.len()))
            .map(|_| from[random.below(from.len() as u64) as usize])
            .collect()
    };
    let in_slots = slots.iter().map(|in_slot| in_slot.address());
    let in_slots = some(in_slots.filter(|address| live.contains(address)).collect());
    let is_held = |address: &u64| held.contains(address);
    let held = some(live.iter().copied().filter(is_held).collect());
    let other = some(
        live.iter()
            .copied()
            .filter(|address| !is_held(address))
            .collect(),
    );
    for address in in_slots.into_iter().chain(held).chain(other) {
        calls.extend([Call::Replace(address), Call::Free(address)]);
    }
    calls
}

#[test]
fn any_store_can_be_the_last() {
    let rounds = std::env::var("EMMAP_KILL_ROUNDS").ok();
    let rounds = rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    let mut kills = 0;
    for seed in 0..rounds {
        for size in [64, 7, 4096, 33_000, 100_000] {
            let mut random = Random::of(seed * 5 + size);
            let start = some_state(size, &mut random);
            for call in calls(&start, size, &mut random) {
                match kill(&start, size, call, true) {
                    Ok(more) => kills += more,
                    Err(wrong) => panic!("seed {seed}, {size} bytes: {wrong}"),
                }
            }
        }
    }
    println!("{kills} kills");
}

#[test]
fn the_log_is_needed() {
    let mut random = Random::of(1);
    let start = some_state(64, &mut random);
    let wrong: Vec<_> = calls(&start, 64, &mut random)
        .into_iter()
        .filter_map(|call| kill(&start, 64, call, false).err())
        .collect();
    println!("{wrong:#?}");
    assert!(!wrong.is_empty(), "nothing goes wrong without it");
}

/// Groups and directories fill and empty.
#[test]
fn at_the_end_of_a_group() {
    use layout::BITS;
    const SIZE: u64 = 1;
    let memory = Memory::new(new_file(SIZE));
    let program = Program::new(&memory, SIZE, Omission::Nothing);
    program.recover(false).unwrap();
    for number in 0..BITS - 1 {
        assert_eq!(program.store(&content(number, SIZE)), Ok(number));
    }
    let almost = memory.bytes();
    program.store(&[7]).unwrap();
    let full = memory.bytes();
    for (start, call) in [
        (almost, Call::Store),
        (full.clone(), Call::Store),
        (full, Call::Free(5)),
    ] {
        let memory = Memory::new(start.clone());
        memory.kill_after(u64::MAX);
        run(&Program::new(&memory, SIZE, Omission::Nothing), call).unwrap();
        for stop in 0..memory.stores() {
            let memory = Memory::new(start.clone());
            memory.kill_after(stop);
            let program = Program::new(&memory, SIZE, Omission::Nothing);
            assert!(is_killed(&run(&program, call)));
            program.take_over();
            program.check();
        }
    }
}
