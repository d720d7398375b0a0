//! A program that is killed after any of its stores leaves the state before its call or the one after.

use crate::memory::Memory;
use crate::program::{is_killed, name, new_file, Program, State};

const STRIPES: [u32; 2] = [1, 3];

fn filled(stripes: u32, count: u64) -> Vec<u8> {
    let memory = Memory::new(new_file());
    let program = Program::new(&memory, stripes);
    program.recover().unwrap();
    for number in 0..count {
        program.add(&name(number), number as i64 + 1).unwrap();
    }
    memory.bytes()
}

/// What a survivor finds; with `replay`, it completes the change of the one that died.
fn survivor(program: &Program, replay: bool) -> Result<State, String> {
    program.memory.revive();
    if replay {
        program.take_over();
    }
    program.state()
}

/// Kills a program after each store of a call. Returns how often.
fn kill(
    start: &[u8],
    stripes: u32,
    replay: bool,
    act: impl Fn(&Program) -> emmap_core::counters::dynamic::Result<()>,
) -> Result<u64, String> {
    let run = |stop: u64| {
        let memory = Memory::new(start.to_vec());
        memory.kill_after(stop);
        let result = act(&Program::new(&memory, stripes));
        (memory, result)
    };
    let before = survivor(&Program::new(&Memory::new(start.to_vec()), stripes), true)?;
    let (memory, result) = run(u64::MAX);
    result.map_err(|stop| format!("{stop:?}"))?;
    let stores = memory.stores();
    let after = survivor(&Program::new(&memory, stripes), true)?;
    for stop in 0..stores {
        let (memory, result) = run(stop);
        assert!(is_killed(&result), "{stop} of {stores}: {result:?}");
        let program = Program::new(&memory, stripes);
        memory.revive();
        // Before anybody takes the lock, all that was there is found.
        for name in before.keys() {
            if !program.finds(name) {
                return Err(format!(
                    "killed after {stop} of {stores}: {name} is not found"
                ));
            }
        }
        let wrong = |what: String| format!("killed after {stop} of {stores} stores: {what}");
        let found = survivor(&program, replay).map_err(wrong)?;
        let is_between = found.iter().all(|(name, value)| {
            before.get(name) == Some(value) || after.get(name) == Some(value) || *value == 0
        });
        if !is_between || found.len() < before.len() || found.len() > after.len() {
            return Err(wrong(format!("{found:?}")));
        }
        // It goes on.
        act(&program).map_err(|stop| wrong(format!("{stop:?}")))?;
        program.add("another", 1).unwrap();
        let end = survivor(&program, true).map_err(wrong)?;
        assert_eq!(end.len(), after.len() + 1);
    }
    Ok(stores)
}

#[test]
fn any_store_can_be_the_last() {
    let mut kills = 0;
    for stripes in STRIPES {
        // At 512 counters, the first directory is doubled.
        for (count, more) in [(0, 7), (20, 7), (511, 1), (512, 1)] {
            let start = filled(stripes, count);
            for new in count..count + more {
                let result = kill(&start, stripes, true, |program| program.add(&name(new), 7));
                kills += result.unwrap_or_else(|wrong| panic!("{count} counters: {wrong}"));
            }
        }
    }
    println!("{kills} kills");
}

/// The directory is rebuilt where it is, while others look for names.
#[test]
fn a_recovery_that_is_interrupted_is_repeated() {
    for stripes in STRIPES {
        let start = filled(stripes, 30);
        let all = survivor(&Program::new(&Memory::new(start.clone()), stripes), true).unwrap();
        let memory = Memory::new(start.clone());
        memory.kill_after(u64::MAX);
        Program::new(&memory, stripes).recover().unwrap();
        for stop in 0..memory.stores() {
            let memory = Memory::new(start.clone());
            memory.kill_after(stop);
            let program = Program::new(&memory, stripes);
            assert!(is_killed(&program.recover()));
            program.take_over();
            program.add(&name(3), 0).unwrap();
            assert_eq!(program.state().unwrap(), all);
        }
    }
}

#[test]
fn the_log_is_needed() {
    let start = filled(1, 20);
    let wrong = kill(&start, 1, false, |program| program.add(&name(21), 7));
    println!("{wrong:?}");
    assert!(wrong.is_err(), "nothing goes wrong without it");
}
