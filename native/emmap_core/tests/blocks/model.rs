//! Random operations, compared with a map.

use std::collections::{BTreeMap, BTreeSet};

use emmap_core::blocks::{layout, Stop};
use proptest::prelude::*;

use crate::memory::Memory;
use crate::program::{content, new_file, Omission, Program, Step, Syncing};

#[derive(Clone, Debug)]
enum Op {
    Store(u64),
    Read(usize),
    Replace(usize),
    /// So many blocks from a place on.
    Free(usize, usize),
    Enumerate(u64),
    Sync,
    /// A step of a sync, which begins if none is under way.
    Step(usize),
    /// The program that syncs is killed.
    Die,
    Trim,
    Reopen,
}

fn op(many: u64) -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..many.min(20)).prop_map(Op::Store),
        1 => (0..many).prop_map(Op::Store),
        2 => any::<usize>().prop_map(Op::Read),
        4 => any::<usize>().prop_map(Op::Replace),
        4 => (any::<usize>(), 1..many.min(10) as usize).prop_map(|(at, count)| Op::Free(at, count)),
        1 => (any::<usize>(), 1..many as usize).prop_map(|(at, count)| Op::Free(at, count)),
        1 => any::<u64>().prop_map(Op::Enumerate),
        1 => Just(Op::Sync),
        4 => (1usize..5).prop_map(Op::Step),
        1 => Just(Op::Die),
        1 => Just(Op::Trim),
        1 => Just(Op::Reopen),
    ]
}

struct Model {
    /// What each block has: the number of its content.
    live: BTreeMap<u64, u64>,
    /// What is not used again: what was live when the last sync began, and when one that did not end did.
    held: BTreeSet<u64>,
    /// What the sync that is under way has seen, by group.
    seen: Vec<(u64, BTreeSet<u64>)>,
    next: u64,
}

impl Model {
    fn lowest_free(&self) -> u64 {
        let mut lowest = 0;
        let (mut live, mut held) = (self.live.keys().peekable(), self.held.iter().peekable());
        loop {
            let (is_live, is_held) = (live.next_if_eq(&&lowest), held.next_if_eq(&&lowest));
            if is_live.is_none() && is_held.is_none() {
                return lowest;
            }
            lowest += 1;
        }
    }

    fn some(&self, which: usize) -> Option<u64> {
        let count = self.live.len();
        (count > 0).then(|| *self.live.keys().nth(which % count).expect("one"))
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::See(group) => {
                let addresses = group * layout::BITS..(group + 1) * layout::BITS;
                let live: BTreeSet<u64> = self.live.range(addresses).map(|(at, _)| *at).collect();
                self.held.extend(&live);
                self.seen.push((group, live));
            }
            Step::EndGroup(_, group) => {
                let addresses = group * layout::BITS..(group + 1) * layout::BITS;
                self.held.retain(|at| !addresses.contains(at));
                let seen = self.seen.iter().find(|seen| seen.0 == group);
                self.held.extend(&seen.expect("it was seen").1);
            }
            Step::End => self.seen.clear(),
            _ => (),
        }
    }
}

fn run(size: u64, first: u64, ops: &[Op]) {
    let memory = Memory::new(new_file(size));
    let program = Program::new(&memory, size, Omission::Nothing);
    program.recover(false).unwrap();
    let mut model = Model {
        live: BTreeMap::new(),
        held: BTreeSet::new(),
        seen: Vec::new(),
        next: 0,
    };
    let mut syncing = None;
    let first = [Op::Store(first)];
    for op in first.iter().chain(ops) {
        match op {
            Op::Store(count) => {
                let mut at = model.lowest_free();
                for _ in 0..*count {
                    while model.live.contains_key(&at) || model.held.contains(&at) {
                        at += 1;
                    }
                    let data = content(model.next, size);
                    assert_eq!(program.store(&data), Ok(at), "the lowest free address");
                    model.live.insert(at, model.next);
                    model.next += 1;
                }
            }
            Op::Read(which) => {
                let address = *which as u64;
                if !model.live.contains_key(&address) {
                    assert_eq!(program.read(address), Err(Stop::Absent));
                }
                if let Some(address) = model.some(*which) {
                    let expected = content(model.live[&address], size);
                    assert_eq!(program.read(address), Ok(expected));
                }
            }
            Op::Replace(which) => {
                let Some(address) = model.some(*which) else {
                    assert_eq!(program.replace(0, &content(0, size)), Err(Stop::Absent));
                    continue;
                };
                model.next += 1;
                let data = content(model.next, size);
                match program.replace(address, &data) {
                    // All slots are in use. Another program would wait for its end.
                    Err(Stop::Sync) => complete(&program, &mut syncing, &mut model),
                    result => {
                        assert_eq!(result, Ok(()));
                        model.live.insert(address, model.next);
                        assert_eq!(program.read(address), Ok(data));
                    }
                }
            }
            Op::Free(which, count) => {
                let from = model.some(*which).unwrap_or(0);
                let freed: Vec<u64> = model.live.range(from..).map(|(at, _)| *at).collect();
                for address in freed.into_iter().take(*count) {
                    assert_eq!(program.free(address), Ok(()));
                    assert_eq!(program.free(address), Err(Stop::Absent));
                    model.live.remove(&address);
                }
            }
            Op::Enumerate(at) => {
                let from = at % (model.live.len() as u64 * 2 + 1);
                let until = from + at / 7 % 1000;
                let locked = program.locked();
                let expected =
                    |range: std::ops::Range<u64>| model.live.range(range).map(|(at, _)| *at).next();
                assert_eq!(locked.next_live(from, until), Ok(expected(from..until)));
                let last = model.live.range(..from).map(|(at, _)| *at).next_back();
                assert_eq!(locked.last_taken(from, false), Ok(last));
                let taken = last.max(model.held.range(..from).copied().next_back());
                assert_eq!(locked.last_taken(from, true), Ok(taken));
            }
            Op::Sync => complete(&program, &mut syncing, &mut model),
            Op::Step(count) => {
                let syncing = syncing.get_or_insert_with(|| Syncing::begin(&program).unwrap());
                for _ in 0..*count {
                    if let Some(step) = syncing.step().unwrap() {
                        model.step(step);
                    }
                }
            }
            Op::Die => {
                syncing = None;
                model.seen.clear();
            }
            Op::Trim => {
                program.trim().unwrap();
                let taken = model
                    .live
                    .keys()
                    .next_back()
                    .max(model.held.iter().next_back());
                let capacity = taken.map_or(0, |last| last + 1);
                assert_eq!(program.word(layout::CAPACITY), capacity);
            }
            // A clean close, after which the words of this boot are gone.
            Op::Reopen => {
                complete(&program, &mut syncing, &mut model);
                complete(&program, &mut syncing, &mut model);
                let recovered = program.recover(model.next.is_multiple_of(2)).unwrap();
                assert_eq!(recovered.kept, model.live.len() as u64);
                assert_eq!(recovered.dropped, 0);
            }
        }
        if syncing
            .as_ref()
            .is_some_and(|syncing| syncing.next().is_none())
        {
            syncing = None;
        }
        program.check();
        assert_eq!(program.word(layout::COUNT), model.live.len() as u64);
        assert!(program
            .bits(layout::group::LIVE)
            .iter()
            .eq(model.live.keys()));
    }
    let locked = program.locked();
    for (address, number) in &model.live {
        assert!(
            program.read(*address) == Ok(content(*number, size)),
            "{address}"
        );
        assert_eq!(locked.is_live(*address), Ok(true));
    }
    program.sync().unwrap();
    program.sync().unwrap();
    assert!(program.is_settled());
}

/// A whole sync, after the one that is under way.
fn complete<'a>(program: &Program<'a>, syncing: &mut Option<Syncing<'a>>, model: &mut Model) {
    let under_way = syncing.take();
    for mut syncing in under_way
        .into_iter()
        .chain([Syncing::begin(program).unwrap()])
    {
        while let Some(step) = syncing.step().unwrap() {
            model.step(step);
        }
    }
}

fn cases(count: u32) -> ProptestConfig {
    let cases = std::env::var("EMMAP_MODEL_CASES").ok();
    ProptestConfig {
        cases: cases.and_then(|cases| cases.parse().ok()).unwrap_or(count),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(40))]
    #[test]
    fn is_a_map(
        (size, ops) in prop_oneof![
            Just((1, 300)), Just((7, 300)), Just((64, 300)), Just((4096, 40)), Just((33_000, 12)), Just((100_000, 8))
        ].prop_flat_map(|(size, many)| (Just(size), prop::collection::vec(op(many), 1..100)))
    ) {
        run(size, 0, &ops);
    }
}

proptest! {
    #![proptest_config(cases(3))]
    #[test]
    fn is_a_map_of_several_groups(ops in prop::collection::vec(op(70_000), 1..12)) {
        run(1, 100_000, &ops);
    }
}
