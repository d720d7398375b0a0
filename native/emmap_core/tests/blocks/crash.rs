//! Power failures: of what was not synced any part is on the disk. What the last complete sync has covered is there
//! afterwards, and what is there is what was stored.

use std::collections::{BTreeMap, BTreeSet};

use emmap_core::blocks::{layout, Stop};

use crate::environment::crash_images;
use crate::memory::Memory;
use crate::program::{content, is_killed, new_file, Omission, Program, Step, Syncing};
use crate::random::Random;

type Wrong = String;

/// A block that a power failure may leave.
#[derive(Clone, Debug, Default)]
struct Left {
    /// It was covered by the last complete sync, and was not freed since.
    must: bool,
    /// What it may have: what it had at that sync, and what it was given since.
    contents: Vec<u64>,
}

#[derive(Clone, Default)]
struct History {
    /// What each block has.
    live: BTreeMap<u64, u64>,
    /// What a power failure may leave.
    left: BTreeMap<u64, Left>,
    /// What the sync that is under way makes of it: what was live when it began.
    covered: BTreeMap<u64, Left>,
    next: u64,
}

impl History {
    fn new_content(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn may_be_replaced(&mut self, address: u64, content: u64) {
        for left in [&mut self.left, &mut self.covered] {
            if let Some(left) = left.get_mut(&address) {
                left.contents.push(content);
            }
        }
    }

    fn may_be_freed(&mut self, address: u64) {
        for left in [&mut self.left, &mut self.covered] {
            if let Some(left) = left.get_mut(&address) {
                left.must = false;
            }
        }
    }

    fn begin_sync(&mut self) {
        let left = |content: &u64| Left {
            must: true,
            contents: vec![*content],
        };
        let live = self.live.iter();
        self.covered = live.map(|(at, content)| (*at, left(content))).collect();
    }

    /// Whether the sync is complete: what it did not cover, or what was freed before it began, is not there any more.
    fn step(&mut self, step: Step) {
        match step {
            Step::See(group) => {
                let addresses = group * layout::BITS..(group + 1) * layout::BITS;
                for (address, content) in self.live.range(addresses) {
                    let new = Left {
                        must: false,
                        contents: vec![*content],
                    };
                    self.covered.entry(*address).or_insert(new.clone());
                    let left = self.left.entry(*address).or_insert(new);
                    // The address had another block, if a sync was complete but for its end.
                    left.contents.push(*content);
                }
            }
            Step::End => self.left = std::mem::take(&mut self.covered),
            _ => (),
        }
    }
}

fn told(stop: Stop) -> Wrong {
    format!("{stop:?}")
}

const SIZES: [u64; 8] = [64, 64, 7, 4096, 4096, 9000, 33_000, 100_000];

/// Some lives of one file, each of which ends with a power failure. Returns what went wrong.
fn lives(seed: u64, omission: Omission, images: &mut u64) -> Result<(), Wrong> {
    let mut random = Random::of(seed);
    let size = SIZES[random.below(SIZES.len() as u64) as usize];
    let mut file = new_file(size);
    let mut history = History::default();
    for _ in 0..3 {
        let memory = Memory::recording(file);
        let program = Program::new(&memory, size, omission);
        recover(&program, &mut history)?;
        let steps = 1 + random.below(40);
        let mut syncing = None;
        for _ in 0..steps {
            let killed = match random.below(12) {
                0 => {
                    let most = [12, 60, 1200][random.below(3) as usize];
                    Some(random.below(most))
                }
                _ => None,
            };
            memory.kill_after(killed.unwrap_or(u64::MAX));
            let lived = live(&program, &mut history, &mut syncing, &mut random);
            if random.below(3) == 0 || killed.is_some() {
                look(&program, &history, &mut random, images)?;
            }
            match lived {
                Err(Stop::Sync) => (),
                lived if is_killed(&lived) => {
                    // The program that syncs is another one, or it is this one.
                    if random.below(2) == 0 {
                        syncing = None;
                    }
                    survive(&program, &mut history)?;
                }
                lived => lived.map_err(told)?,
            }
            memory.revive();
            if omission == Omission::Nothing {
                program.locked().check()?;
            }
        }
        look(&program, &history, &mut random, images)?;
        file = memory.image(&mut random);
        *images += 1;
    }
    let memory = Memory::recording(file);
    recover(&Program::new(&memory, size, omission), &mut history)
}

/// One step of a program, or of one that syncs in the meantime. The history gets before it what a power failure may leave of it.
fn live<'a>(
    program: &Program<'a>,
    history: &mut History,
    syncing: &mut Option<Syncing<'a>>,
    random: &mut Random,
) -> Result<(), Stop> {
    let size = program.geometry.block_size;
    let most = if size > 5000 { 10 } else { 60 };
    let addresses: Vec<u64> = history.live.keys().copied().collect();
    let some = |random: &mut Random| addresses[random.below(addresses.len() as u64) as usize];
    match random.below(20) {
        0..=4 if addresses.len() < most => {
            for _ in 0..=random.below(3) {
                let number = history.new_content();
                let address = program.store(&content(number, size))?;
                if history.live.insert(address, number).is_some() {
                    panic!("{address} was given twice");
                }
            }
        }
        5..=8 if !addresses.is_empty() => {
            let address = some(random);
            let number = history.new_content();
            history.may_be_replaced(address, number);
            program.replace(address, &content(number, size))?;
            history.live.insert(address, number);
        }
        9..=11 if !addresses.is_empty() => {
            let address = some(random);
            history.may_be_freed(address);
            program.free(address)?;
            history.live.remove(&address);
        }
        12 => program.trim()?,
        _ => {
            if syncing.is_none() {
                history.begin_sync();
                *syncing = Some(Syncing::begin(program)?);
            }
            let under_way = syncing.as_mut().expect("a sync");
            let steps = [1, 1, 2, 100_000][random.below(4) as usize];
            for _ in 0..steps {
                let Some(next) = under_way.next() else {
                    *syncing = None;
                    break;
                };
                // What was seen may be on the disk before the step is complete.
                if next != Step::End {
                    history.step(next);
                }
                if let Err(stop) = under_way.step() {
                    *syncing = None;
                    return Err(stop);
                }
                if next == Step::End {
                    history.step(next);
                }
            }
        }
    }
    Ok(())
}

/// After a program was killed: its call has happened completely or not at all, and the history learns which.
fn survive(program: &Program, history: &mut History) -> Result<(), Wrong> {
    program.take_over();
    program
        .locked()
        .check()
        .or_else(|wrong| match program.omission {
            Omission::Nothing => Err(wrong),
            _ => Ok(()),
        })?;
    let size = program.geometry.block_size;
    let found: BTreeSet<u64> = program.addresses().map_err(told)?.into_iter().collect();
    let lost: Vec<u64> = history
        .live
        .keys()
        .copied()
        .filter(|at| !found.contains(at))
        .collect();
    for address in lost {
        if history.left.get(&address).is_some_and(|left| left.must) {
            return Err(format!("{address} is gone, and nobody freed it"));
        }
        history.live.remove(&address);
    }
    for address in found {
        let bytes = program
            .read(address)
            .map_err(|stop| format!("killed: {stop:?}"))?;
        // The last content was given by the one that was killed, or by nobody.
        let (last, before) = (history.next, history.live.get(&address));
        let is = [Some(&last), before]
            .into_iter()
            .flatten()
            .find(|number| content(**number, size) == bytes);
        let Some(number) = is.copied() else {
            return Err(format!("killed: {address} has bytes that it was not given"));
        };
        history.live.insert(address, number);
    }
    Ok(())
}

/// What power failures may leave at this moment.
fn look(
    program: &Program,
    history: &History,
    random: &mut Random,
    images: &mut u64,
) -> Result<(), Wrong> {
    for _ in 0..2 {
        *images += 1;
        let memory = Memory::new(program.memory.image(random));
        let program = Program {
            memory: &memory,
            ..*program
        };
        let mut history = history.clone();
        recover(&program, &mut history)?;
        if random.below(8) == 0 {
            go_on(&program, &mut history)?;
        }
    }
    Ok(())
}

/// Opens what a power failure left, and compares it with what may be there. From then on, it is what there is.
fn recover(program: &Program, history: &mut History) -> Result<(), Wrong> {
    let size = program.geometry.block_size;
    let recovered = program.recover(false).map_err(told)?;
    program.locked().check()?;
    let found = program.addresses().map_err(told)?;
    let count = program.word(layout::COUNT);
    if found.len() as u64 != count || recovered.kept != count {
        return Err(format!(
            "{count} blocks are counted, {recovered:?}, there are {found:?}"
        ));
    }
    history.live.clear();
    for address in found {
        let Some(left) = history.left.get(&address) else {
            return Err(format!("{address} is there, and no sync had covered it"));
        };
        let bytes = program
            .read(address)
            .map_err(|stop| format!("{address}: {stop:?}, {left:?}"))?;
        let is = |number: &&u64| content(**number, size) == bytes;
        let Some(number) = left.contents.iter().find(is) else {
            return Err(format!(
                "{address} has bytes that it was not given: {left:?}"
            ));
        };
        history.live.insert(address, *number);
    }
    for (address, left) in &history.left {
        if left.must && !history.live.contains_key(address) {
            return Err(format!("{address} is gone: {left:?}"));
        }
    }
    // What was found is on the disk.
    history.begin_sync();
    history.left = std::mem::take(&mut history.covered);
    Ok(())
}

/// Life goes on: what is stored now is there, and what was there is.
fn go_on(program: &Program, history: &mut History) -> Result<(), Wrong> {
    let size = program.geometry.block_size;
    let addresses: Vec<u64> = history.live.keys().copied().collect();
    for address in addresses.into_iter().step_by(2) {
        let number = history.new_content();
        let replaced = program.call(|locked| {
            let data = content(number, size);
            // SAFETY: as many bytes as a block has.
            unsafe { locked.replace(address, data.as_ptr()) }
        });
        replaced.map_err(told)?;
        history.live.insert(address, number);
    }
    for _ in 0..3 {
        let number = history.new_content();
        let address = program.store(&content(number, size)).map_err(told)?;
        if history.live.insert(address, number).is_some() {
            return Err(format!("{address} was given twice"));
        }
    }
    program.sync().map_err(told)?;
    program.locked().check()?;
    if !program.is_settled() {
        return Err("a sync has left something to do".into());
    }
    for (address, number) in &history.live {
        if program.read(*address) != Ok(content(*number, size)) {
            return Err(format!("{address} has other bytes"));
        }
    }
    Ok(())
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
    for omission in [
        Omission::Bit,
        Omission::SlotChecksum,
        Omission::DurableEarly,
        Omission::FirstSync,
        Omission::SecondSync,
        Omission::SecondPage,
        Omission::Held,
        Omission::Slot,
        Omission::Pins,
    ] {
        let mut images = 0;
        let wrong = (1..3000).find_map(|seed| {
            let wrong = lives(seed, omission, &mut images).err()?;
            Some((seed, wrong))
        });
        println!("{omission:?}, {images} images: {wrong:?}");
        assert!(wrong.is_some(), "nothing goes wrong without {omission:?}");
    }
}
