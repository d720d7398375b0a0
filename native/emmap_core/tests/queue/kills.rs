//! A program that is killed after any of its stores leaves the state before its call or the one after.

use emmap_core::queue::Limits;
use emmap_core::queue::{layout, Receipt, Result};

use crate::memory::Memory;
use crate::program::{expected, is_killed, new_file, Omission, Program, Random, State};

/// One call of a program, by name.
#[derive(Clone, Copy, Debug)]
enum Call {
    Push(usize),
    PushAs(u64),
    Pop(usize),
    CheckOut(usize),
    Acknowledge(usize),
    Release(usize),
    CreateReader(u8),
    DeleteReader,
    Clear,
    ReleaseAll,
    DropOldest,
    Bury,
    Header,
}

fn run(program: &Program, call: Call, next: u64, claims: &[(usize, Receipt)]) -> Result<()> {
    let claim = |which: usize| claims.get(which % claims.len().max(1)).copied();
    match call {
        Call::Push(length) => program.push(&expected(next, length)).map(drop),
        Call::PushAs(number) => {
            let limits = Limits {
                identity: Some(([7; 16], number)),
                ..Limits::default()
            };
            program.push_as(&expected(next, 100), &limits).map(drop)
        }
        Call::Pop(cursor) => program.pop(cursor).map(drop),
        Call::CheckOut(cursor) => program
            .call(|locked| locked.check_out(cursor, 1, None))
            .map(drop),
        Call::Acknowledge(which) => match claim(which) {
            Some((cursor, receipt)) => program.call(|locked| locked.acknowledge(cursor, &receipt)),
            None => Ok(()),
        },
        Call::Release(which) => match claim(which) {
            Some((cursor, receipt)) => {
                program.call(|locked| locked.release_claim(cursor, &receipt))
            }
            None => Ok(()),
        },
        Call::CreateReader(name) => program
            .call(|locked| locked.create_reader(&[name], 0))
            .map(drop),
        Call::DeleteReader => program.call(|locked| match locked.find_reader(b"r")? {
            Some(reader) => locked.delete_reader(reader),
            None => Ok(()),
        }),
        Call::Clear => program.call(|locked| locked.clear(layout::OWN)),
        Call::ReleaseAll => program.call(|locked| locked.release_all(0, None)).map(drop),
        Call::DropOldest => program.call(|locked| locked.make_room(0, 1000)).map(drop),
        Call::Bury => program
            .call(|locked| locked.check_out(layout::OWN, 1, Some(1)))
            .map(drop),
        Call::Header => program.sync(),
    }
}

/// Whether a program that dies in the middle may leave more than two states, each of which is right: it drops one item after
/// the other.
fn has_steps(call: Call) -> bool {
    matches!(
        call,
        Call::Clear | Call::ReleaseAll | Call::DropOldest | Call::Bury
    )
}

/// A queue in some state: its bytes, how many items were pushed, and claims of slot 0.
fn some_state(random: &mut Random) -> (Vec<u8>, u64, Vec<(usize, Receipt)>) {
    let memory = Memory::new(new_file());
    let program = Program::recover(&memory).unwrap();
    let reader = program
        .call(|locked| locked.create_reader(b"r", 0))
        .unwrap();
    let (mut next, mut claims) = (0, Vec::new());
    for _ in 0..random.below(60) {
        match random.below(6) {
            0..=2 => {
                let length = [100, 3000, 40_000, 150_000][random.below(4) as usize];
                program.push(&expected(next, length)).unwrap();
                next += 1;
            }
            3 => drop(
                program
                    .pop([layout::OWN, reader][random.below(2) as usize])
                    .unwrap(),
            ),
            _ => {
                let cursor = [layout::OWN, reader][random.below(2) as usize];
                let claimed = program
                    .call(|locked| locked.check_out(cursor, 1, None))
                    .unwrap();
                claims.extend(claimed.map(|claimed| (cursor, claimed.receipt)));
            }
        }
        if random.below(8) == 0 && !claims.is_empty() {
            let which = random.below(claims.len() as u64) as usize;
            let (cursor, receipt) = claims.swap_remove(which);
            program
                .call(|locked| match receipt.sequence % 2 {
                    0 => locked.release_claim(cursor, &receipt),
                    _ => locked.acknowledge(cursor, &receipt),
                })
                .unwrap();
        }
    }
    program.check();
    (memory.bytes(), next, claims)
}

fn state_after(bytes: &[u8], dead: bool) -> State {
    let memory = Memory::new(bytes.to_vec());
    match dead {
        true => Program::take_over(&memory, 0, 1).state(),
        false => Program {
            memory: &memory,
            slot: 1,
            omission: Omission::Nothing,
        }
        .state(),
    }
}

#[test]
fn any_store_can_be_the_last() {
    let rounds = std::env::var("EMMAP_KILL_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok());
    let mut kills = 0;
    for seed in 0..rounds.unwrap_or(8) {
        let mut random = Random::of(seed);
        let (start, next, claims) = some_state(&mut random);
        let which = random.below(50) as usize;
        for call in [
            Call::Push(100),
            Call::Push(60_000),
            Call::Push(150_000),
            Call::PushAs(3),
            Call::Pop(layout::OWN),
            Call::Pop(1),
            Call::CheckOut(layout::OWN),
            Call::CheckOut(1),
            Call::Acknowledge(which),
            Call::Release(which),
            Call::CreateReader(b'x'),
            Call::DeleteReader,
            Call::Clear,
            Call::ReleaseAll,
            Call::DropOldest,
            Call::Bury,
            Call::Header,
        ] {
            // The states that a survivor may find: all claims of the dead one are released.
            let before = state_after(&start, true);
            let memory = Memory::new(start.clone());
            memory.kill_after(u64::MAX);
            let program = Program {
                memory: &memory,
                slot: 0,
                omission: Omission::Nothing,
            };
            run(&program, call, next, &claims).unwrap();
            let stores = memory.stores();
            let after = state_after(&memory.bytes(), true);
            // Of many stores (a large payload) a sample.
            let step = (stores / 200).max(1);
            for stop in (1..stores).step_by(step as usize) {
                let memory = Memory::new(start.clone());
                memory.kill_after(stop);
                let program = Program {
                    memory: &memory,
                    slot: 0,
                    omission: Omission::Nothing,
                };
                let result = run(&program, call, next, &claims);
                assert!(
                    is_killed(&result),
                    "{call:?} ended after {stop} of {stores} stores"
                );
                let survivor = Program::take_over(&memory, 0, 1);
                survivor.check();
                let state = survivor.state();
                assert!(
                    has_steps(call) || state == before || state == after,
                    "seed {seed}, {call:?}, {stop} of {stores} stores: {state:?}\n{before:?}\n{after:?}"
                );
                // It goes on.
                let sequence = survivor.push(&expected_next(&survivor)).unwrap();
                assert!(sequence >= next);
                survivor.check();
                kills += 1;
            }
        }
    }
    println!("{kills} kills");
}

fn expected_next(program: &Program) -> Vec<u8> {
    let at = layout::stream::at(layout::ITEMS) + layout::stream::SEQUENCE;
    expected(
        emmap_core::store::Shared::load(program.memory, at).unwrap(),
        50,
    )
}
