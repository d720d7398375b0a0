//! Power failures: of what was not synced any part is on the disk. Whatever a sync has covered is there afterwards, and
//! what is there is what was pushed.

use std::collections::BTreeMap;

use emmap_core::queue::{layout, Receipt, Stop};

use crate::environment::crash_images;
use crate::memory::Memory;
use crate::program::{expected, new_file, Omission, Program, Random};

/// What was pushed as an item, last: the life of the file, and the length.
type Pushed = BTreeMap<u64, (u64, usize)>;

/// What a cursor may find after a power failure.
#[derive(Clone, Default)]
struct Cursor {
    /// Items before this were acknowledged when a header was synced.
    acknowledged: u64,
    /// The items that it took or acknowledged, at any time.
    taken: std::collections::BTreeSet<u64>,
    created: u64,
}

#[derive(Clone)]
struct History {
    pushed: Pushed,
    /// Items below it are durable.
    durable: u64,
    cursors: BTreeMap<usize, Cursor>,
}

fn payload(sequence: u64, (life, length): (u64, usize)) -> Vec<u8> {
    expected(sequence | life << 40, length)
}

/// Some lives of one file, each of which ends with a power failure. Returns what went wrong.
fn lives(seed: u64, omission: Omission, images: &mut u64) -> Result<(), String> {
    let mut random = Random::of(seed);
    let mut file = new_file();
    let mut history = History {
        pushed: Pushed::new(),
        durable: 0,
        cursors: BTreeMap::from([(layout::OWN, Cursor::default())]),
    };
    for life in 1..=4 {
        let memory = Memory::recording(file.clone());
        let program = Program::recover_without(&memory, omission).map_err(|e| format!("{e:?}"))?;
        found(&program, &mut history)?;
        let steps = random.below(40);
        let failure = random.below(steps.max(1));
        let mut image = None;
        let mut claims = Vec::new();
        for step in 0..=steps {
            live(&program, &mut history, &mut claims, life, &mut random)?;
            // Images at any step are checked; the story goes on from one of them.
            let checked = history.clone();
            for _ in 0..2 {
                *images += 1;
                let left = memory.image(&mut random);
                check(&left, &checked, omission)?;
                if step == failure {
                    image = Some((left, checked.clone()));
                }
            }
        }
        // The power fails while a header is written.
        if random.below(4) == 0 {
            memory.kill_after(1 + random.below(2));
            let _ = program.sync();
            memory.revive();
            for _ in 0..8 {
                *images += 1;
                check(&memory.image(&mut random), &history, omission)?;
            }
            file = memory.image(&mut random);
            continue;
        }
        (file, history) = image.expect("a step");
    }
    Ok(())
}

/// One step of a program.
fn live(
    program: &Program,
    history: &mut History,
    claims: &mut Vec<(usize, Receipt)>,
    life: u64,
    random: &mut Random,
) -> Result<(), String> {
    let stopped = |stop: Stop| format!("a call failed: {stop:?}");
    let cursors: Vec<usize> = history.cursors.keys().copied().collect();
    let cursor = cursors[random.below(cursors.len() as u64) as usize];
    match random.below(20) {
        0..=8 => {
            let length = match random.below(12) {
                0 => 100_000 + random.below(100_000),
                1..=3 => random.below(40_000),
                _ => random.below(2_000),
            };
            let next = next(program);
            let item = (life, length as usize);
            program.push(&payload(next, item)).map_err(stopped)?;
            history.pushed.insert(next, item);
        }
        9..=12 => {
            for _ in 0..random.below(4) {
                if let Some((taken, _)) = program.pop(cursor).map_err(stopped)? {
                    history
                        .cursors
                        .get_mut(&cursor)
                        .unwrap()
                        .taken
                        .insert(taken.sequence);
                }
            }
        }
        13..=14 => {
            let claimed = program
                .call(|locked| locked.check_out(cursor, 1, None))
                .map_err(stopped)?;
            claims.extend(claimed.map(|claimed| (cursor, claimed.receipt)));
        }
        15..=16 if !claims.is_empty() => {
            let (cursor, receipt) = claims.swap_remove(random.below(claims.len() as u64) as usize);
            let ended = program.call(|locked| locked.acknowledge(cursor, &receipt));
            ended.map_err(stopped)?;
            history
                .cursors
                .get_mut(&cursor)
                .unwrap()
                .taken
                .insert(receipt.sequence);
        }
        17 if history.cursors.len() < 4 => {
            let name = [b'a' + history.cursors.len() as u8];
            let created = program
                .call(|locked| locked.create_reader(&name, 0))
                .map_err(stopped)?;
            let reader = Cursor {
                created: next(program),
                ..Cursor::default()
            };
            history.cursors.insert(created, reader);
            sync(program, history)?;
        }
        18 => sync(program, history)?,
        _ => (),
    }
    program.locked().check()
}

fn next(program: &Program) -> u64 {
    let at = layout::stream::at(layout::ITEMS) + layout::stream::SEQUENCE;
    emmap_core::store::Shared::load(program.memory, at).unwrap()
}

fn sync(program: &Program, history: &mut History) -> Result<(), String> {
    let floors = program
        .locked()
        .summary()
        .map_err(|stop| format!("{stop:?}"))?;
    program.sync().map_err(|stop| format!("sync: {stop:?}"))?;
    history.durable = next(program);
    for (number, cursor) in &mut history.cursors {
        cursor.acknowledged = floors.cursors[*number].sequence;
    }
    Ok(())
}

/// Opens what a power failure left, and compares it with what may be there.
fn check(image: &[u8], history: &History, omission: Omission) -> Result<(), String> {
    let memory = Memory::new(image.to_vec());
    let program = Program::recover_without(&memory, omission).map_err(|e| format!("{e:?}"))?;
    program.locked().check()?;
    let mut history = history.clone();
    found(&program, &mut history)?;
    // It goes on: what is pushed now is found, and nothing else.
    let first = next(&program);
    let new = (99, 3000);
    for item in first..first + 30 {
        program
            .push(&payload(item, new))
            .map_err(|stop| format!("push: {stop:?}"))?;
        history.pushed.insert(item, new);
    }
    found(&program, &mut history)
}

/// Compares what each cursor would find with the history, which loses what is not there.
fn found(program: &Program, history: &mut History) -> Result<(), String> {
    let end = next(program);
    history.pushed.retain(|sequence, _| *sequence < end);
    let History {
        pushed,
        durable,
        cursors,
    } = history;
    for (number, cursor) in cursors {
        let there = drain(program, *number, pushed)?;
        let first = there.first().copied().unwrap_or(end);
        if there.iter().copied().ne(first..end) {
            return Err(format!("cursor {number}: a gap in {there:?}"));
        }
        if first < cursor.acknowledged.max(cursor.created).min(end) {
            return Err(format!("cursor {number}: {first} was acknowledged durably"));
        }
        // Nothing that is durable is missing, unless it was taken.
        let mut gone =
            (cursor.created..first.min(*durable)).chain(end.max(cursor.created)..*durable);
        if let Some(missing) = gone.find(|item| !cursor.taken.contains(item)) {
            return Err(format!(
                "cursor {number}: {missing} is missing, there is {first} to {end}"
            ));
        }
        // What is gone was not durable; its numbers are given again.
        cursor.taken.extend(cursor.created..first);
        cursor.taken.retain(|sequence| *sequence < end);
        cursor.acknowledged = cursor.acknowledged.min(end);
        cursor.created = cursor.created.min(end);
    }
    *durable = end.min(*durable);
    Ok(())
}

/// What a cursor finds from its next item on, compared with what was pushed.
fn drain(program: &Program, cursor: usize, pushed: &Pushed) -> Result<Vec<u64>, String> {
    let (mut there, mut from) = (Vec::new(), 0);
    loop {
        let mut bytes = Vec::new();
        // SAFETY: the vector gets as much room as the payload needs.
        let found = program.call(|locked| unsafe {
            locked.look(cursor, from, |found| {
                bytes = vec![0; found.head.length as usize];
                Some(bytes.as_mut_ptr())
            })
        });
        let Some((taken, next)) = found.map_err(|stop| format!("cursor {cursor}: {stop:?}"))?
        else {
            return Ok(there);
        };
        let item = pushed.get(&taken.sequence);
        if item.is_none_or(|item| payload(taken.sequence, *item) != bytes) {
            return Err(format!("item {} is not what was pushed", taken.sequence));
        }
        there.push(taken.sequence);
        from = next;
    }
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
}

#[test]
fn each_precaution_is_needed() {
    for omission in [
        Omission::Salts,
        Omission::Checkpoint,
        Omission::RecoverySync,
        Omission::HeaderPlace,
    ] {
        let wrong = (1..3000).find_map(|seed| {
            let wrong = lives(seed, omission, &mut 0).err()?;
            Some((seed, wrong))
        });
        println!("{omission:?}: {wrong:?}");
        assert!(wrong.is_some(), "nothing goes wrong without {omission:?}");
    }
}
