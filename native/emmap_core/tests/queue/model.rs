//! Random operations, compared with a model of lists.

use std::collections::BTreeMap;

use emmap_core::queue::Limits;
use emmap_core::queue::{layout, Receipt, Stop};
use proptest::prelude::*;

use crate::memory::Memory;
use crate::program::{expected, new_file, Program};

#[derive(Clone, Debug)]
enum Op {
    Push(usize),
    PushAs(u8, u64),
    Pop(usize),
    CheckOut(usize),
    Ack(usize),
    Release(usize),
    Die,
    Reader(u8),
    Delete(u8),
    Sync,
    Clear(usize),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0usize..3000).prop_map(Op::Push),
        1 => (60_000usize..200_000).prop_map(Op::Push),
        2 => (0u8..3, 0u64..20).prop_map(|(producer, number)| Op::PushAs(producer, number)),
        5 => (0usize..4).prop_map(Op::Pop),
        5 => (0usize..4).prop_map(Op::CheckOut),
        4 => any::<usize>().prop_map(Op::Ack),
        2 => any::<usize>().prop_map(Op::Release),
        1 => Just(Op::Die),
        1 => (0u8..3).prop_map(Op::Reader),
        1 => (0u8..3).prop_map(Op::Delete),
        1 => Just(Op::Sync),
        1 => (0usize..4).prop_map(Op::Clear),
        1 => Just(Op::Reopen),
    ]
}

/// A cursor as lists of sequence numbers.
#[derive(Clone, Debug, Default)]
struct Cursor {
    /// Not taken, or released, with the attempts so far; in order.
    available: BTreeMap<u64, u16>,
    claimed: BTreeMap<u64, Receipt>,
}

impl Cursor {
    fn first(&self) -> Option<u64> {
        self.available.keys().next().copied()
    }
}

#[derive(Default)]
struct Model {
    cursors: BTreeMap<usize, Cursor>,
    readers: BTreeMap<u8, usize>,
    lengths: BTreeMap<u64, usize>,
    producers: BTreeMap<u8, u64>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: std::env::var("EMMAP_MODEL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(40), ..ProptestConfig::default() })]
    #[test]
    fn is_a_list(ops in prop::collection::vec(op(), 1..300)) {
        run(&ops);
    }
}

fn run(ops: &[Op]) {
    let memory = Memory::new(new_file());
    let mut program = Program::recover(&memory).unwrap();
    let mut model = Model::default();
    model.cursors.insert(layout::OWN, Cursor::default());
    let mut next = 0;
    for op in ops {
        match op {
            Op::Push(length) => {
                assert_eq!(program.push(&expected(next, *length)), Ok(next));
                model.pushed(next, *length);
                next += 1;
            }
            Op::PushAs(producer, number) => {
                let limits = Limits {
                    identity: Some(([*producer + 1; 16], *number)),
                    ..Limits::default()
                };
                let pushed = program.push_as(&expected(next, 10), &limits).unwrap();
                let last = model.producers.entry(*producer).or_default();
                assert_eq!(pushed.is_some(), number + 1 > *last);
                if pushed.is_some() {
                    *last = number + 1;
                    model.pushed(next, 10);
                    next += 1;
                }
            }
            Op::Pop(cursor) => {
                let Some(number) = model.cursor(*cursor) else {
                    continue;
                };
                let popped = program.pop(number).unwrap();
                let cursor = model.cursors.get_mut(&number).unwrap();
                let first = cursor.first();
                assert_eq!(popped.as_ref().map(|(taken, _)| taken.sequence), first);
                if let (Some(sequence), Some((_, payload))) = (first, popped) {
                    assert_eq!(payload, expected(sequence, model.lengths[&sequence]));
                    cursor.available.remove(&sequence);
                }
            }
            Op::CheckOut(cursor) => {
                let Some(number) = model.cursor(*cursor) else {
                    continue;
                };
                let claimed = program
                    .call(|locked| locked.check_out(number, 7, None))
                    .unwrap();
                let cursor = model.cursors.get_mut(&number).unwrap();
                let first = cursor.first();
                assert_eq!(claimed.map(|claimed| claimed.receipt.sequence), first);
                if let Some(claimed) = claimed {
                    let attempts = cursor.available.remove(&first.unwrap()).unwrap();
                    assert_eq!(claimed.receipt.attempts, attempts + 1);
                    cursor.claimed.insert(first.unwrap(), claimed.receipt);
                }
            }
            Op::Ack(which) | Op::Release(which) => {
                let Some((number, receipt)) = model.claim(*which) else {
                    continue;
                };
                let release = matches!(op, Op::Release(_));
                let end = || {
                    program.call(|locked| match release {
                        true => locked.release_claim(number, &receipt),
                        false => locked.acknowledge(number, &receipt),
                    })
                };
                assert_eq!(end(), Ok(()));
                assert_eq!(end(), Err(Stop::Gone), "a receipt is of use once");
                let cursor = model.cursors.get_mut(&number).unwrap();
                cursor.claimed.remove(&receipt.sequence);
                if release {
                    cursor.available.insert(receipt.sequence, receipt.attempts);
                }
            }
            Op::Die => {
                let dead = program.slot;
                program = Program::take_over(&memory, dead, (dead + 1) % 8);
                model.release_all();
            }
            Op::Reader(name) => {
                if model.readers.contains_key(name) {
                    continue;
                }
                let number = program
                    .call(|locked| locked.create_reader(&[*name], 0))
                    .unwrap();
                assert!(model.cursors.insert(number, Cursor::default()).is_none());
                model.readers.insert(*name, number);
            }
            Op::Delete(name) => {
                if let Some(number) = model.readers.remove(name) {
                    program.call(|locked| locked.delete_reader(number)).unwrap();
                    model.cursors.remove(&number);
                }
            }
            Op::Sync => program.sync().unwrap(),
            Op::Clear(cursor) => {
                let Some(number) = model.cursor(*cursor) else {
                    continue;
                };
                program.call(|locked| locked.clear(number)).unwrap();
                *model.cursors.get_mut(&number).unwrap() = Cursor::default();
            }
            // A reboot after everything was synced: only claims end, and with them their attempts.
            Op::Reopen => {
                program.sync().unwrap();
                program = Program::recover(&memory).unwrap();
                model.forget_claims();
                model.check_as_recovered(&program);
                continue;
            }
        }
        program.check();
        model.check(&program);
    }
}

impl Model {
    fn pushed(&mut self, sequence: u64, length: usize) {
        self.lengths.insert(sequence, length);
        for cursor in self.cursors.values_mut() {
            cursor.available.insert(sequence, 0);
        }
    }

    fn cursor(&self, which: usize) -> Option<usize> {
        self.cursors.keys().copied().nth(which)
    }

    fn claim(&self, which: usize) -> Option<(usize, Receipt)> {
        let all: Vec<_> = self
            .cursors
            .iter()
            .flat_map(|(number, cursor)| cursor.claimed.values().map(|receipt| (*number, *receipt)))
            .collect();
        (!all.is_empty()).then(|| all[which % all.len()])
    }

    fn release_all(&mut self) {
        for cursor in self.cursors.values_mut() {
            for (sequence, receipt) in std::mem::take(&mut cursor.claimed) {
                cursor.available.insert(sequence, receipt.attempts);
            }
        }
    }

    /// After a reboot everything from the floor on is there again: the acknowledgements behind it were not durable.
    fn forget_claims(&mut self) {
        let newest = self.lengths.keys().next_back().copied().unwrap_or(0);
        let lengths = self.lengths.clone();
        for cursor in self.cursors.values_mut() {
            let floor = cursor
                .claimed
                .keys()
                .chain(cursor.available.keys())
                .min()
                .copied();
            cursor.claimed.clear();
            cursor.available.clear();
            if let Some(floor) = floor {
                cursor.available = lengths
                    .range(floor..=newest)
                    .map(|(s, _)| (*s, 0))
                    .collect();
            }
        }
    }

    fn check(&self, program: &Program) {
        let state = program.state();
        let cursors: Vec<usize> = self
            .cursors
            .keys()
            .copied()
            .chain([layout::DEAD_CURSOR])
            .collect();
        assert_eq!(
            state.iter().map(|cursor| cursor.0).collect::<Vec<_>>(),
            cursors
        );
        for (number, rest, (available, claimed), _) in state {
            let Some(cursor) = self.cursors.get(&number) else {
                continue;
            };
            assert_eq!(available, cursor.available.len() as u64);
            assert_eq!(claimed, cursor.claimed.len() as u64);
            assert_eq!(rest, cursor.available.keys().copied().collect::<Vec<_>>());
        }
    }

    /// As [`Model::check`]; what is available is the same set, however it was made available.
    fn check_as_recovered(&self, program: &Program) {
        program.check();
        for (number, rest, (available, claimed), _) in program.state() {
            let Some(cursor) = self.cursors.get(&number) else {
                continue;
            };
            assert_eq!(claimed, 0);
            assert_eq!(available, cursor.available.len() as u64, "cursor {number}");
            assert_eq!(rest, cursor.available.keys().copied().collect::<Vec<_>>());
        }
    }
}
