//! A table, of which any words may have been changed, and any bytes as a file: every lookup, range and check ends, and
//! returns what is inside the file. Of an unchanged table, they return what was built.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use emmap_core::guard;
use emmap_core::table::build::files::RealFiles;
use emmap_core::table::build::{Added, Builder, Duplicates, Options, Phase};
use emmap_core::table::check::{Place, Progress};
use emmap_core::table::layout::{HEADER, LONGEST_PROBE, RECORDS};
use emmap_core::table::lookup::Found;
use emmap_core::table::walk::Step;
use emmap_core::table::{open, Flags, Layout, Memory};

use super::bytes::Bytes;
use super::traces::Traces;

type Pair = (Vec<u8>, Vec<u8>);

pub fn run(data: &[u8]) {
    guard::install().expect("the guard");
    let mut bytes = Bytes::new(data);
    let directory = super::directory();
    let path = directory.path().join("table");
    let traces = Traces::before();
    let records = records(&mut bytes);
    let kind = bytes.below(8);
    let sorted = bytes.flag();
    match kind {
        0 => fs::write(&path, bytes.rest()).expect("a file"),
        _ => build(&path, sorted, 1 + bytes.below(4000), &records),
    }
    let changed = kind != 1;
    if kind > 1 {
        change(&path, &mut bytes, kind > 3);
    }
    let before = fs::read(&path).expect("a file");
    if let Ok((region, layout)) = open(&path) {
        let memory = Memory::of(&region);
        look(memory, &layout, &records, changed);
        if !changed {
            let sorted = records.windows(2).all(|two| two[0].0 != two[1].0);
            assert!(!sorted || layout.count <= records.len() as u64);
        }
    } else {
        assert!(changed, "refused");
    }
    assert!(fs::read(&path).expect("a file") == before, "changed");
    traces.check(directory.path());
}

/// Some records with short keys.
fn records(bytes: &mut Bytes) -> Vec<Pair> {
    (0..bytes.below(60))
        .map(|_| {
            let key = (0..bytes.below(6)).map(|_| bytes.byte() % 8).collect();
            (key, vec![bytes.byte(); bytes.below(200)])
        })
        .collect()
}

fn build(path: &Path, sorted: bool, memory: usize, records: &[Pair]) {
    let options = Options {
        flags: Flags {
            sorted,
            ..Flags::default()
        },
        seed: 0,
        duplicates: Duplicates::Last,
        memory,
    };
    let files = RealFiles::create(path, true).expect("a new file");
    let mut builder = Builder::new(options, files);
    for (key, value) in records {
        let (key, value) = ((key.as_ptr(), key.len()), (value.as_ptr(), value.len()));
        // SAFETY: both outlive the call.
        while unsafe { builder.add(key, value) }.expect("room") == Added::Full {
            builder.advance(Instant::now()).expect("room");
        }
    }
    builder.finish();
    while builder.advance(Instant::now()).expect("room").phase != Phase::Done {}
}

/// Changes words of the header, which gets its checksum again, and behind it.
fn change(path: &Path, bytes: &mut Bytes, header_too: bool) {
    let mut file = fs::read(path).expect("a file");
    for _ in 0..1 + bytes.below(12) {
        let at = match header_too && bytes.flag() {
            true => 8 + 8 * bytes.below(HEADER / 8 - 2),
            false => {
                (RECORDS as usize + bytes.below(file.len() - RECORDS as usize)).min(file.len() - 8)
            }
        };
        if let Some(place) = file[at..].first_chunk_mut::<8>() {
            *place = bytes.altered(u64::from_le_bytes(*place)).to_le_bytes();
        }
    }
    if bytes.flag() {
        let len = file.len() - bytes.below(64).min(file.len());
        file.truncate(len);
    }
    if let Some(header) = file.first_chunk_mut::<HEADER>() {
        let crc = crc32fast::hash(&header[..HEADER - 4]);
        header[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(path, file).expect("a file");
}

fn look(memory: Memory, layout: &Layout, records: &[Pair], changed: bool) {
    for (number, (key, _)) in records.iter().enumerate() {
        let is_last = records[number + 1..].iter().all(|(other, _)| other != key);
        match layout.find(memory, key, LONGEST_PROBE) {
            Found::Record(record) => {
                assert!(record.end() <= layout.records_end);
                let same = memory.equals(record.value, &records[number].1) == Some(true);
                assert!(changed || !is_last || same, "another value");
            }
            _ => assert!(changed, "not found"),
        }
        if let Ok(at) = layout.seek(memory, key) {
            assert!(changed || (RECORDS..=layout.records_end).contains(&at));
        }
    }
    let (mut at, mut count) = (RECORDS, 0);
    while let Step::Record(record) = layout.record_at(memory, at) {
        assert!(record.end() > at && record.end() <= layout.records_end);
        (at, count) = (record.end(), count + 1);
    }
    let until = Instant::now() + Duration::from_secs(60);
    let checked = layout.check(memory, Place::default(), until);
    if !changed {
        assert_eq!((checked, count), (Progress::Intact, layout.count));
    }
}
