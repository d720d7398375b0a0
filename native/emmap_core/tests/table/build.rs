//! What was built is found, in any amount of memory.

use std::collections::BTreeMap;

use emmap_core::table::build::{Duplicates, Error, Options};
use emmap_core::table::check::Progress;
use emmap_core::table::layout::RECORDS;
use emmap_core::table::Memory;
use emmap_core::Errno;
use proptest::prelude::*;

use crate::support::*;

fn pair(number: u64) -> Pair {
    let key = format!("key {number}").into_bytes();
    (key, number.to_be_bytes().repeat(1 + number as usize % 5))
}

fn pairs() -> impl Strategy<Value = Vec<Pair>> {
    let bytes = |most: usize| proptest::collection::vec(any::<u8>(), 0..most);
    let key = prop_oneof![
        proptest::collection::vec(0u8..3, 0..4),
        bytes(40),
        bytes(300),
    ];
    let value = prop_oneof![
        8 => bytes(100),
        1 => (0usize..40_000).prop_map(|count| vec![count as u8; count]),
    ];
    proptest::collection::vec((key, value), 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_map(records in pairs(), sorted: bool, last: bool,
                         memory in prop_oneof![Just(64usize), Just(4096), Just(1 << 20)], absent in pairs()) {
        let duplicates = if last { Duplicates::Last } else { Duplicates::First };
        let options = Options { duplicates, ..options(sorted, memory) };
        let mut model = BTreeMap::new();
        for (key, value) in &records {
            match last {
                true => drop(model.insert(key.clone(), value.clone())),
                false => drop(model.entry(key.clone()).or_insert_with(|| value.clone())),
            }
        }
        let (file, built) = built(options, &records);
        prop_assert_eq!(built.size, file.len() as u64);
        prop_assert_eq!((built.count, built.duplicates), (model.len() as u64, (records.len() - model.len()) as u64));
        let layout = layout(&file).unwrap();
        prop_assert_eq!(check(&file, &layout), Progress::Intact);
        for (key, expected) in &model {
            prop_assert_eq!(value(&file, &layout, key), Some(expected.clone()));
        }
        for (key, _) in &absent {
            prop_assert_eq!(value(&file, &layout, key), model.get(key).cloned());
        }
        let mut found = records_of(&file, &layout);
        if sorted {
            for (from, _) in &absent {
                let at = layout.seek(Memory::of_slice(&file), from).unwrap();
                let expected: Vec<Pair> = model.range(from.clone()..).map(|(k, v)| (k.clone(), v.clone())).collect();
                prop_assert_eq!(crate::support::records(&file, &layout, at), expected);
            }
        } else {
            found.sort();
        }
        prop_assert_eq!(found, model.into_iter().collect::<Vec<_>>());
    }
}

fn records_of(file: &[u8], layout: &emmap_core::table::Layout) -> Vec<Pair> {
    records(file, layout, RECORDS)
}

/// Many more runs than are merged at once: several levels.
#[test]
fn runs_of_many_levels() {
    for sorted in [false, true] {
        let mut all: Vec<Pair> = (0..70_000).map(|n| pair(n * 7919 % 70_000)).collect();
        all.push((pair(5).0, b"the last one".to_vec()));
        all.insert(0, (pair(6).0, b"not the last one".to_vec()));
        let (file, built) = built(options(sorted, 160), &all);
        assert_eq!((built.count, built.duplicates), (70_000, 2));
        let layout = layout(&file).unwrap();
        assert_eq!(check(&file, &layout), Progress::Intact);
        assert_eq!(value(&file, &layout, &pair(5).0).unwrap(), b"the last one");
        assert_eq!(value(&file, &layout, &pair(6).0).unwrap(), pair(6).1);
    }
}

#[test]
fn the_same_records_make_the_same_file_in_any_memory() {
    let all: Vec<Pair> = (0..3000).map(pair).collect();
    for sorted in [false, true] {
        let one = built(options(sorted, 1 << 20), &all).0;
        let mut other = all.clone();
        other.reverse();
        assert!(one == built(options(sorted, 500), &other).0);
    }
}

#[test]
fn a_duplicate_is_refused_on_request() {
    let options = Options {
        duplicates: Duplicates::Refused,
        ..options(true, 300)
    };
    let mut all: Vec<Pair> = (0..300).map(pair).collect();
    all.push(pair(17));
    let failed = build(options, InMemoryFiles::default(), &all);
    assert_eq!(failed, Err(Error::Duplicate(pair(17).0)));
}

#[test]
fn a_key_that_is_too_long() {
    let all = [(vec![1; 65_536], vec![])];
    let failed = build(options(false, 4096), InMemoryFiles::default(), &all);
    assert_eq!(failed, Err(Error::Posix(Errno(libc::EFBIG))));
    let all = [(vec![1; 65_535], vec![])];
    assert_eq!(built(options(false, 4096), &all).1.count, 1);
}

/// At every size of the disk, the build fails with that error, or is complete.
#[test]
fn a_full_disk() {
    let all: Vec<Pair> = (0..300).map(pair).collect();
    let (mut failed, mut complete) = (0, 0);
    for room in (0..100_000).step_by(500) {
        let files = InMemoryFiles::with_room(room);
        match build(options(true, 1000), files.clone(), &all) {
            Err(error) => {
                assert_eq!(error, Error::Posix(Errno::NOSPC));
                assert!(!*files.target.published.borrow());
                failed += 1;
            }
            Ok(_) => {
                assert!(*files.target.published.borrow());
                complete += 1;
            }
        }
    }
    assert!(failed > 20 && complete > 20, "{failed}, {complete}");
}

#[test]
fn memory_that_suffices_needs_no_files() {
    let all: Vec<Pair> = (0..1000).map(pair).collect();
    let files = InMemoryFiles::default();
    build(options(true, 4 << 20), files.clone(), &all).unwrap();
    assert_eq!(*files.spills.borrow(), 0);
}
