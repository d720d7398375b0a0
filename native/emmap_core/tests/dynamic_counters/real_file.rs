//! Real files: several threads and handles, growth, limits, a full disk, reopening.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Barrier;

use emmap_core::counters::dynamic::directory::Found;
use emmap_core::counters::dynamic::{is_dynamic, open, Dynamic, Name, Request, Stop};
use emmap_core::region::Wait;
use emmap_core::Region;

fn request(most_names: u64) -> Request {
    Request {
        stripes: 1,
        existing: false,
        adds: true,
        most_names,
    }
}

struct Counters(Region, Dynamic);

impl Counters {
    fn open(path: &Path, request: &Request) -> Counters {
        let (region, dynamic) = open(path, request).unwrap();
        Counters(region, dynamic)
    }

    fn at(&self, name: &str) -> Result<u64, Stop> {
        let Counters(region, dynamic) = self;
        let name = Name::new(name.as_bytes(), dynamic.geometry())?;
        match region.reading(|| dynamic.find(region, &name))? {
            Found::At(at) => Ok(at),
            Found::Absent | Found::Unknown => dynamic.find_or_add(region, Wait::Yes, &name),
        }
    }

    fn add(&self, name: &str, value: i64) -> Result<(), Stop> {
        let at = self.at(name)?;
        Ok(self.1.add(&self.0, at, value)?)
    }

    fn all(&self) -> BTreeMap<String, i64> {
        let mut all = BTreeMap::new();
        let mut from = 0;
        loop {
            let next = self.1.each(&self.0, Wait::Yes, from, 100, |name, value| {
                let name = String::from_utf8(name.to_vec()).unwrap();
                assert_eq!(all.insert(name, value), None, "it exists twice");
            });
            match next.unwrap() {
                Some(next) => from = next,
                None => return all,
            }
        }
    }
}

#[test]
fn threads_and_maps_add_the_same_names_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("counters");
    const NAMES: u64 = 20_000;
    const THREADS: u64 = 6;
    let together = Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (path, together) = (&path, &together);
            scope.spawn(move || {
                let counters = Counters::open(path, &request(u64::MAX));
                for number in 0..NAMES {
                    // All add the same new names at the same time, in different orders.
                    if number.is_multiple_of(10) {
                        together.wait();
                    }
                    let number = number / 10 * 10 + (number + thread / 2 * 5) % 10;
                    counters.add(&format!("GET /users/{number}"), 1).unwrap();
                }
            });
        }
    });
    assert!(is_dynamic(&path));
    let counters = Counters::open(&path, &request(u64::MAX));
    let all = counters.all();
    assert_eq!(all.len() as u64, NAMES);
    assert!(all.values().all(|value| *value == 6), "{all:?}");
    assert_eq!(counters.1.info(&counters.0).unwrap().count, NAMES);
}

#[test]
fn a_map_follows_the_file_that_another_one_extended() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("counters");
    let one = Counters::open(&path, &request(u64::MAX));
    let other = Counters::open(&path, &request(u64::MAX));
    let before = other.0.len();
    for number in 0..5000 {
        one.add(&format!("{number}"), number).unwrap();
    }
    assert!(one.0.len() > before);
    other.add("4999", 1).unwrap();
    assert_eq!(other.all().len(), 5000);
    assert_eq!(one.all()["4999"], 5000);
}

#[test]
fn no_more_names_than_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("counters");
    let counters = Counters::open(&path, &request(10));
    for number in 0..10 {
        counters.add(&format!("{number}"), 1).unwrap();
    }
    let size = std::fs::metadata(&path).unwrap().len();
    for number in 10..2000 {
        assert_eq!(counters.add(&format!("{number}"), 1), Err(Stop::Full));
    }
    counters.add("9", 1).unwrap();
    assert_eq!(counters.all().len(), 10);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), size);
}

#[test]
fn bad_names() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("counters");
    let Counters(region, dynamic) = &Counters::open(&path, &request(10));
    let add = |bytes: &[u8]| {
        let name = Name::new(bytes, dynamic.geometry())?;
        dynamic.find_or_add(region, Wait::Yes, &name)
    };
    assert_eq!(
        add(&[b'x'; 1025]).err(),
        Some(Stop::Posix(emmap_core::Errno::INVAL))
    );
    assert_eq!(
        add(b"\xff").err(),
        Some(Stop::Posix(emmap_core::Errno(libc::EILSEQ)))
    );
    assert_eq!(dynamic.info(region).unwrap().count, 0);
    assert!(add(&[b'x'; 1024]).is_ok() && add(b"").is_ok());
}

/// A copy is recovered, as after a reboot, and stays as long.
#[test]
fn a_copy_has_the_same_counters_and_does_not_grow() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("counters");
    let counters = Counters::open(&path, &request(u64::MAX));
    for number in 0..3000 {
        counters.add(&format!("{number}"), number).unwrap();
    }
    let mut from = path.clone();
    for copy in 0..3 {
        let to = directory.path().join(format!("copy {copy}"));
        std::fs::copy(&from, &to).unwrap();
        let copied = Counters::open(&to, &request(u64::MAX));
        assert_eq!(copied.all(), counters.all());
        let info = copied.1.info(&copied.0).unwrap();
        assert_eq!((info.count, info.dropped), (3000, 0));
        assert_eq!(info.recoveries, copy + 2);
        copied.add("5", 0).unwrap();
        from = to;
    }
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    assert_eq!(size(&from), size(&path));
}

#[test]
fn opening_again_recovers_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("counters");
    for round in 1..4 {
        let counters = Counters::open(&path, &request(u64::MAX));
        counters.add("a", 1).unwrap();
        assert_eq!(counters.all()["a"], round);
        assert_eq!(counters.1.info(&counters.0).unwrap().recoveries, 1);
    }
}
