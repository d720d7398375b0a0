//! Any bytes in a file of dynamic counters: no call reads outside of the map, extends the file without bound, or does not end.
//! After a recovery, each name exists once and is found.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use emmap_core::counters::dynamic::directory::Found;
use emmap_core::counters::dynamic::{layout, open, Dynamic, Name, Request, Stop};
use emmap_core::region::Wait;
use emmap_core::Region;

use super::bytes::Bytes;
use super::traces::Traces;

const MOST_NAMES: u64 = 2000;

pub fn run(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let directory = super::directory();
    let path = directory.path().join("counters");
    let traces = Traces::before();
    let request = Request {
        stripes: [1, 1, 1, 3][bytes.below(4)],
        existing: false,
        adds: true,
        most_names: MOST_NAMES,
    };
    match bytes.below(8) {
        0 => fs::write(&path, bytes.rest()).expect("a file"),
        kind => {
            fill(&path, &request, bytes.below(12) as u64);
            edit(&path, &mut bytes);
            if kind < 4 {
                copy(&path);
            }
        }
    }
    let size = fs::metadata(&path).map_or(0, |file| file.len());
    if let Ok((region, dynamic)) = open(&path, &request) {
        use_it(&region, &dynamic, &mut bytes);
        drop((region, dynamic));
        let now = fs::metadata(&path).expect("its size").len();
        assert!(now <= 3 * size + (4 << 20), "{size} bytes became {now}");
        copy(&path);
        // What is damaged is repaired.
        if let Ok((region, dynamic)) = open(&path, &request) {
            assert_sound(&region, &dynamic);
        }
    }
    traces.check(directory.path());
}

/// Another file with these bytes, which is recovered.
fn copy(path: &Path) {
    let to: PathBuf = path.with_extension("copy");
    fs::copy(path, &to).expect("a copy");
    fs::rename(&to, path).expect("a name");
}

fn name(number: u64) -> String {
    match number % 4 {
        3 => format!("{number}").repeat(200),
        _ => format!("GET /{number}"),
    }
}

fn add(region: &Region, dynamic: &Dynamic, name: &str) -> Result<u64, Stop> {
    let name = Name::new(name.as_bytes(), dynamic.geometry())?;
    match region.reading(|| dynamic.find(region, &name))? {
        Found::At(at) => Ok(at),
        Found::Absent | Found::Unknown => dynamic.find_or_add(region, Wait::Yes, &name),
    }
}

fn fill(path: &Path, request: &Request, count: u64) {
    let (region, dynamic) = open(path, request).map_err(|_| ()).expect("a new file");
    for number in 0..count {
        let at = add(&region, &dynamic, &name(number)).expect("room");
        dynamic.add(&region, at, 7).expect("a counter");
    }
}

/// Changes words, most of them where they matter.
fn edit(path: &Path, bytes: &mut Bytes) {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.expect("a file");
    let size = file.metadata().expect("its size").len();
    for _ in 0..bytes.below(24) {
        let at = match bytes.below(6) {
            0 => 8 * bytes.below(8) as u64,
            1 => layout::LOG.length + 8 * bytes.below(9) as u64,
            2 => layout::LAST + 8 * bytes.below(3) as u64,
            // The first directory.
            3 => layout::ENTRIES + 8 * bytes.below(1040) as u64,
            // The first words of entries.
            4 => layout::ENTRIES + 128 * bytes.below(120) as u64 + 8 * bytes.below(4) as u64,
            _ => 8 * bytes.below(8000) as u64,
        };
        let mut word = [0; 8];
        if at + 8 <= size && file.read_exact_at(&mut word, at).is_ok() {
            let word = bytes.altered(u64::from_ne_bytes(word));
            file.write_all_at(&word.to_ne_bytes(), at).expect("a write");
        }
    }
    match bytes.below(8) {
        0 => file.set_len(bytes.below(60_000) as u64).expect("a size"),
        1 => file
            .set_len(size + bytes.number() % (1 << 20))
            .expect("a size"),
        _ => (),
    }
}

/// Any result is possible, but each call ends.
fn use_it(region: &Region, dynamic: &Dynamic, bytes: &mut Bytes) {
    for _ in 0..bytes.below(20) {
        let name = name(bytes.below(30) as u64);
        if let Ok(at) = add(region, dynamic, &name) {
            let _ = dynamic.add(region, at, 1);
            let _ = dynamic.value(region, at);
        }
    }
    let mut from = 0;
    for _ in 0..10_000 {
        match dynamic.each(region, Wait::Yes, from, 50, |_, _| ()) {
            Ok(Some(next)) => {
                assert!(next > from, "it does not go on");
                from = next;
            }
            _ => return,
        }
    }
    panic!("it does not end");
}

/// After a recovery.
fn assert_sound(region: &Region, dynamic: &Dynamic) {
    let mut names = BTreeSet::new();
    let mut from = 0;
    loop {
        let next = dynamic.each(region, Wait::Yes, from, 100, |name, _| {
            let key = Name::new(name, dynamic.geometry()).expect("a name");
            assert!(matches!(
                dynamic.find(region, &key),
                Ok(Found::At(_) | Found::Unknown)
            ));
            assert!(names.insert(name.to_vec()), "it exists twice");
        });
        match next.expect("all are found") {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(
        dynamic.info(region).map(|info| info.count),
        Ok(names.len() as u64)
    );
    if names.len() < MOST_NAMES as usize {
        add(region, dynamic, "another").expect("it is added");
    }
}
