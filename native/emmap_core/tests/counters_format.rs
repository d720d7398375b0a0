//! Counter files that are not what they say: each is refused for its reason, and not touched.

use emmap_core::counters::{open, BadFormat, Error, Request};
use emmap_core::Errno;

fn numbered(count: u64) -> Request {
    Request {
        count,
        stripes: 1,
        ..Request::default()
    }
}

fn named(names: &[&str]) -> Request {
    let names = names.iter().map(|name| name.to_string()).collect();
    Request {
        names,
        stripes: 1,
        ..Request::default()
    }
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("counters")
    }

    /// The reason that a file of these bytes is refused for; it stays as it is.
    fn refused(&self, bytes: &[u8], request: &Request) -> Error {
        std::fs::write(self.path(), bytes).unwrap();
        let error = open(&self.path(), request)
            .err()
            .expect("it must be refused");
        assert_eq!(std::fs::read(self.path()).unwrap(), bytes);
        error
    }

    fn bytes_of(&self, request: &Request) -> Vec<u8> {
        drop(open(&self.path(), request).map_err(|error| panic!("{error:?}")));
        std::fs::read(self.path()).unwrap()
    }
}

#[test]
fn every_bit_of_a_header_counts() {
    let place = Place::new();
    let bytes = place.bytes_of(&named(&["requests", "errors"]));
    for bit in 0..80 * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match place.refused(&flipped, &named(&["requests", "errors"])) {
            Error::BadFormat(BadFormat::Kind) => assert!(bit < 64),
            Error::BadFormat(BadFormat::Checksum) => assert!(bit >= 64),
            other => panic!("bit {bit}: {other:?}"),
        }
    }
}

#[test]
fn every_bit_of_a_name_counts() {
    let place = Place::new();
    let bytes = place.bytes_of(&named(&["requests", "errors"]));
    for bit in 0..(2 + 8 + 2 + 6) * 8 {
        let mut flipped = bytes.clone();
        flipped[8192 + bit / 8] ^= 1 << (bit % 8);
        let error = place.refused(&flipped, &named(&["requests", "errors"]));
        assert_eq!(error, Error::BadFormat(BadFormat::Names));
    }
}

/// A header with a right checksum around whatever it says.
fn signed(bytes: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    change(&mut bytes);
    let crc = crc32fast::hash(&bytes[..76]);
    bytes[76..80].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn headers_that_lie() {
    let place = Place::new();
    let bytes = place.bytes_of(&numbered(3));
    let refused =
        |change: &dyn Fn(&mut [u8])| match place.refused(&signed(&bytes, change), &numbered(3)) {
            Error::BadFormat(why) => why,
            other => panic!("{other:?}"),
        };
    assert_eq!(refused(&|b| b[8] = 2), BadFormat::Version);
    assert_eq!(refused(&|b| b[12..16].reverse()), BadFormat::Endianness);
    for lie in [17u64, 1 << 32, 1 << 60, 1 << 61, u64::MAX, u64::MAX / 8] {
        let count = move |b: &mut [u8]| b[24..32].copy_from_slice(&lie.to_le_bytes());
        assert_eq!(refused(&count), BadFormat::Length, "count {lie}");
    }
    for lie in [0u32, 1025, u32::MAX] {
        let stripes = move |b: &mut [u8]| b[32..36].copy_from_slice(&lie.to_le_bytes());
        assert_eq!(refused(&stripes), BadFormat::Checksum, "stripes {lie}");
    }
    for at in [40, 48, 56, 64] {
        for lie in [1u64, 4096, 1 << 63, u64::MAX] {
            let number = move |b: &mut [u8]| b[at..at + 8].copy_from_slice(&lie.to_le_bytes());
            assert_eq!(refused(&number), BadFormat::Checksum, "{lie} at {at}");
        }
    }
    for length in [1, 15, 79, 80, 4096, 8192, bytes.len() - 1] {
        match place.refused(&bytes[..length], &numbered(3)) {
            Error::BadFormat(BadFormat::Length | BadFormat::Kind) => (),
            other => panic!("{length} bytes: {other:?}"),
        }
    }
}

#[test]
fn files_of_another_kind() {
    let place = Place::new();
    for bytes in [&b"x"[..], b"EMMAP", b"EMMAP02\n", &[0; 100], &[0xFF; 9000]] {
        let error = place.refused(bytes, &numbered(1));
        assert_eq!(error, Error::BadFormat(BadFormat::Kind));
    }
    assert_eq!(
        open(place.0.path(), &numbered(1)).err(),
        Some(Error::Posix(Errno::ISDIR))
    );
    assert_eq!(
        open(std::path::Path::new("/dev/null"), &numbered(1)).err(),
        Some(Error::Posix(Errno::NODEV))
    );
}

#[test]
fn the_predecessors_files() {
    let place = Place::new();
    let file = |count: u64, values: &[i64]| {
        let mut bytes = b"EMMAP01\n".to_vec();
        bytes.extend(count.to_le_bytes());
        values
            .iter()
            .for_each(|value| bytes.extend(value.to_ne_bytes()));
        bytes
    };
    std::fs::write(place.path(), file(2, &[5, -7])).unwrap();
    let counters = open(&place.path(), &numbered(2)).ok().unwrap();
    assert_eq!(
        (counters.layout.count, counters.layout.data_offset),
        (2, 16)
    );
    assert_eq!(counters.region.sum_striped(24, 1), Ok(-7));
    // Grown in place, still the predecessor's.
    let counters = open(&place.path(), &numbered(4)).ok().unwrap();
    assert_eq!(counters.layout.count, 4);
    assert_eq!(
        std::fs::read(place.path()).unwrap(),
        file(4, &[5, -7, 0, 0])
    );
    for lie in [
        file(3, &[1, 2]),
        file(u64::MAX, &[1]),
        file(1 << 61, &[]),
        b"EMMAP01\n\x01".to_vec(),
    ] {
        let error = place.refused(&lie, &numbered(1));
        assert_eq!(error, Error::BadFormat(BadFormat::Length));
    }
}

#[test]
fn names_stay_and_grow() {
    let place = Place::new();
    drop(open(&place.path(), &named(&["a", "b"])).ok().unwrap());
    let names = |request: &Request| open(&place.path(), request).map(|c| c.layout.names);
    let refused = |request: &Request| match names(request) {
        Err(Error::OtherNames(names)) => names,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&named(&["b", "a"])), ["a", "b"]);
    assert_eq!(refused(&named(&["a", "c", "d"])), ["a", "b"]);
    assert_eq!(refused(&numbered(3)), ["a", "b"]);
    assert_eq!(
        names(&named(&["a", "b", "c"])).ok().unwrap(),
        ["a", "b", "c"]
    );
    assert_eq!(names(&named(&["a", "b"])).ok().unwrap(), ["a", "b", "c"]);
    assert_eq!(names(&numbered(2)).ok().unwrap(), ["a", "b", "c"]);
    let many: Vec<String> = (0..100_000).map(|n| format!("name{n}")).collect();
    let other = place.0.path().join("many");
    let request = Request {
        names: many.clone(),
        stripes: 1,
        ..Request::default()
    };
    assert_eq!(open(&other, &request).ok().unwrap().layout.names, many);
    // Nothing is left beside the files.
    assert_eq!(std::fs::read_dir(place.0.path()).unwrap().count(), 2);
}

#[test]
fn many_openers_of_a_file_that_is_not_there() {
    for empty in [false, true] {
        let place = Place::new();
        if empty {
            std::fs::write(place.path(), b"").unwrap();
        }
        std::thread::scope(|scope| {
            for n in 1..=8u64 {
                let path = place.path();
                scope.spawn(move || {
                    let counters = open(&path, &numbered(n)).ok().unwrap();
                    let position = counters.layout.data_offset;
                    counters.region.add_striped(position, 1, 1).unwrap();
                });
            }
        });
        let counters = open(&place.path(), &numbered(8)).ok().unwrap();
        assert_eq!(
            counters.region.sum_striped(counters.layout.data_offset, 1),
            Ok(8)
        );
    }
}

/// Opened by every later version: a file as version 1 wrote it.
#[test]
fn golden_files() {
    let fixtures =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/fixtures/formats");
    for (name, count, names) in [
        ("counters-v1-named.bin", 2, 2),
        ("counters-v0-predecessor.bin", 3, 0),
    ] {
        let place = Place::new();
        std::fs::copy(fixtures.join(name), place.path()).unwrap();
        let counters = open(&place.path(), &numbered(0)).ok().unwrap();
        assert_eq!(
            (counters.layout.count, counters.layout.names.len()),
            (count, names)
        );
        let sum: i64 = (0..count)
            .map(|n| {
                counters
                    .region
                    .sum_striped(counters.layout.data_offset + n * 8, 1)
                    .unwrap()
            })
            .sum();
        assert_eq!(sum, 42);
    }
}
