//! Counter files that are not what they say: each is refused for its reason, and not touched.

use emmap_core::counters::{open, BadFormat, Error, OtherNames, Request};
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
        // In one header: the other one has it all.
        for header in [0, 4096] {
            let mut flipped = bytes.clone();
            flipped[header + bit / 8] ^= 1 << (bit % 8);
            std::fs::write(place.path(), &flipped).unwrap();
            let counters = open(&place.path(), &named(&["requests", "errors"]))
                .ok()
                .unwrap();
            assert_eq!(counters.layout.names, ["requests", "errors"]);
        }
        // In both.
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped[4096 + bit / 8] ^= 1 << (bit % 8);
        match place.refused(&flipped, &named(&["requests", "errors"])) {
            Error::BadFormat(BadFormat::Kind) => assert!(bit < 64),
            Error::BadFormat(BadFormat::Checksum) => assert!(bit >= 64),
            other => panic!("bit {bit}: {other:?}"),
        }
    }
}

#[test]
fn a_flipped_bit_loses_no_counter_that_was_grown() {
    let place = Place::new();
    place.bytes_of(&named(&["a", "b"]));
    let counters = open(&place.path(), &named(&["a", "b", "c"])).ok().unwrap();
    let position = counters.layout.data_offset + 16;
    counters.region.add_striped(position, 1, 1000).unwrap();
    drop(counters);
    let bytes = std::fs::read(place.path()).unwrap();
    for header in [0, 4096] {
        let mut flipped = bytes.clone();
        flipped[header + 24] ^= 1;
        match place.refused(&flipped, &named(&["a", "b", "x"])) {
            Error::Mismatch(OtherNames(names)) => assert_eq!(names, ["a", "b", "c"]),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn one_header_of_another_version_refuses_the_file() {
    let place = Place::new();
    let bytes = place.bytes_of(&numbered(3));
    let mut newer = bytes.clone();
    newer[4096 + 8] = 2;
    let crc = crc32fast::hash(&newer[4096..4096 + 76]);
    newer[4096 + 76..4096 + 80].copy_from_slice(&crc.to_le_bytes());
    let error = place.refused(&newer, &numbered(5));
    assert_eq!(error, Error::BadFormat(BadFormat::Version));
}

#[test]
fn new_counters_are_zero_whatever_lay_behind_the_old_ones() {
    let place = Place::new();
    let mut bytes = place.bytes_of(&numbered(16));
    bytes.extend([0x63; 5000]);
    std::fs::write(place.path(), &bytes).unwrap();
    let counters = open(&place.path(), &numbered(600)).ok().unwrap();
    let grid = emmap_core::counters::Grid::from(&counters.layout);
    assert_eq!(grid.values(&counters.region), Ok(vec![0; 600]));
    let mut old = b"EMMAP01\n".to_vec();
    old.extend(1u64.to_le_bytes());
    old.extend([9; 32]);
    std::fs::write(place.path(), &old).unwrap();
    let counters = open(&place.path(), &numbered(4)).ok().unwrap();
    let first = i64::from_ne_bytes([9; 8]);
    let grid = emmap_core::counters::Grid::from(&counters.layout);
    assert_eq!(grid.values(&counters.region), Ok(vec![first, 0, 0, 0]));
}

#[test]
fn new_counters_are_zero_in_the_line_of_the_old_ones_too() {
    let place = Place::new();
    let request = Request {
        stripes: 3,
        ..numbered(5)
    };
    let mut bytes = place.bytes_of(&request);
    bytes[8192..].fill(0x63);
    std::fs::write(place.path(), &bytes).unwrap();
    let old = i64::from_ne_bytes([0x63; 8]).wrapping_mul(3);
    let counters = open(&place.path(), &numbered(20)).ok().unwrap();
    let grid = emmap_core::counters::Grid::from(&counters.layout);
    let mut values = vec![old; 5];
    values.resize(20, 0);
    assert_eq!(grid.values(&counters.region), Ok(values));
}

#[test]
fn odd_places() {
    let place = Place::new();
    // A link to nowhere; a link to an empty file, which keeps its mode; a long name.
    let link = place.0.path().join("link");
    std::os::unix::fs::symlink(place.path(), &link).unwrap();
    assert_eq!(
        open(&link, &numbered(1)).err(),
        Some(Error::Posix(Errno(libc::ENOENT)))
    );
    std::fs::write(place.path(), b"").unwrap();
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(place.path(), mode).unwrap();
    assert!(open(&link, &numbered(1)).is_ok());
    assert!(link.is_symlink());
    let mode = std::fs::metadata(place.path())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(open(&place.0.path().join("n".repeat(250)), &numbered(1)).is_ok());
    assert_eq!(std::fs::read_dir(place.0.path()).unwrap().count(), 3);
}

#[test]
fn a_program_that_locks_the_whole_file_is_waited_for_not_for_ever() {
    let place = Place::new();
    place.bytes_of(&numbered(1));
    let file = std::fs::File::open(place.path()).unwrap();
    use std::os::fd::AsRawFd;
    let file_for_writing = std::fs::OpenOptions::new()
        .write(true)
        .open(place.path())
        .unwrap();
    let whole = libc::flock {
        l_type: libc::F_WRLCK as _,
        l_whence: libc::SEEK_SET as _,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: `whole` outlives the call.
    let locked = unsafe { libc::fcntl(file_for_writing.as_raw_fd(), libc::F_OFD_SETLK, &whole) };
    assert_eq!(locked, 0);
    assert!(
        open(&place.path(), &numbered(1)).is_ok(),
        "opening needs no lock"
    );
    let error = open(&place.path(), &numbered(100)).err();
    assert_eq!(error, Some(Error::Posix(Errno(libc::EBUSY))));
    drop((file, file_for_writing));
    assert!(open(&place.path(), &numbered(100)).is_ok());
}

#[test]
fn every_bit_of_a_name_counts() {
    let place = Place::new();
    let bytes = place.bytes_of(&named(&["requests", "errors"]));
    for bit in 0..(2 + 8 + 2 + 6) * 8 {
        let mut flipped = bytes.clone();
        flipped[8192 + bit / 8] ^= 1 << (bit % 8);
        let error = place.refused(&flipped, &named(&["requests", "errors"]));
        assert_eq!(error, Error::BadFormat(BadFormat::Content));
    }
}

/// Headers with right checksums around whatever they say.
fn signed(bytes: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    change(&mut bytes);
    let crc = crc32fast::hash(&bytes[..76]);
    bytes[76..80].copy_from_slice(&crc.to_le_bytes());
    bytes.copy_within(..80, 4096);
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
    let room = |b: &mut [u8]| {
        b[40..48].copy_from_slice(&(8192u64 + (1 << 42)).to_le_bytes());
        b[56..64].copy_from_slice(&(1u64 << 42).to_le_bytes());
        b[64..72].copy_from_slice(&(1u64 << 42).to_le_bytes());
    };
    assert_eq!(
        refused(&room),
        BadFormat::Checksum,
        "four terabytes of names"
    );
    let last = |b: &mut [u8]| b[16..24].fill(0xFF);
    assert_eq!(
        refused(&last),
        BadFormat::Checksum,
        "the last sequence number"
    );
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

/// A file of `count` counters whose names are these bytes, or a hole of so many.
fn with_table(place: &Place, count: u64, table: Table) {
    let (length, crc) = match table {
        Table::Bytes(bytes) => (bytes.len() as u64, crc32fast::hash(bytes)),
        Table::Hole(length) => {
            let mut crc = crc32fast::Hasher::new();
            let zeros = vec![0; 1 << 20];
            (0..length >> 20).for_each(|_| crc.update(&zeros));
            (length, crc.finalize())
        }
    };
    let room = length.next_multiple_of(4096);
    let mut header = vec![0; 4096 + 80];
    header[..8].copy_from_slice(b"EMMAPCNT");
    header[8] = 1;
    header[12..16].copy_from_slice(&0x0102_0304u32.to_ne_bytes());
    for (at, number) in [
        (16, 1),
        (24, count),
        (32, 1),
        (40, 8192 + room),
        (48, 8192),
        (56, room),
        (64, length),
    ] {
        header[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    header[72..76].copy_from_slice(&crc.to_le_bytes());
    let header = signed(&header, |_| ());
    std::fs::write(place.path(), &header).unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(place.path())
        .unwrap();
    if let Table::Bytes(bytes) = table {
        use std::os::unix::fs::FileExt;
        file.write_all_at(bytes, 8192).unwrap();
    }
    let lines = count.div_ceil(16) * 128;
    file.set_len(8192 + room + lines).unwrap();
}

enum Table<'a> {
    Bytes(&'a [u8]),
    Hole(u64),
}

fn table(names: &[&str]) -> Vec<u8> {
    let mut table = Vec::new();
    for name in names {
        table.extend((name.len() as u16).to_le_bytes());
        table.extend(name.as_bytes());
    }
    table
}

#[test]
fn a_hole_that_is_said_to_be_names_is_not_read_to_its_end() {
    let place = Place::new();
    // As many empty names as a table can have: the second one is refused.
    with_table(&place, 8 << 20, Table::Hole(16 << 20));
    let start = std::time::Instant::now();
    for _ in 0..100 {
        let error = open(&place.path(), &numbered(0)).err();
        assert_eq!(error, Some(Error::BadFormat(BadFormat::Content)));
    }
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    // More than a table can have is not read at all.
    with_table(&place, 1 << 29, Table::Hole(17 << 20));
    let error = open(&place.path(), &numbered(0)).err();
    assert_eq!(error, Some(Error::BadFormat(BadFormat::Checksum)));
}

#[test]
fn names_that_are_fewer_more_twice_or_no_utf8() {
    let place = Place::new();
    let error = |count: u64, bytes: &[u8]| {
        with_table(&place, count, Table::Bytes(bytes));
        open(&place.path(), &numbered(0)).err()
    };
    assert_eq!(error(3, &table(&["a", "", "c"])), None);
    let names = Some(Error::BadFormat(BadFormat::Content));
    assert_eq!(error(3, &table(&["a", "", "a"])), names);
    assert_eq!(error(3, &table(&["", "b", ""])), names);
    assert_eq!(error(4, &table(&["a", "b", "c"])), names);
    assert_eq!(error(5, &table(&["a", "b", "c"])), names);
    assert_eq!(error(2, &table(&["a", "b", "c"])), names);
    assert_eq!(error(3, &table(&["a", "b", "c"])[..8]), names);
    assert_eq!(error(3, &table(&["a", "b", "c"])[..7]), names);
    assert_eq!(error(1, &[1, 0, 0xFF]), names);
}

#[test]
fn names_that_lie_across_what_is_read_at_once() {
    let place = Place::new();
    let lengths = [1000usize, 1024, 3, 997, 0];
    let names: Vec<String> = (0..20_000)
        .map(|n| format!("{n:0>0$}", lengths[n % 5].max(5)))
        .collect();
    let request = Request {
        names: names.clone(),
        stripes: 1,
        ..Request::default()
    };
    let opened = open(&place.path(), &request).ok().unwrap();
    assert_eq!(opened.layout.names, names);
    drop(opened);
    let opened = open(&place.path(), &numbered(0)).ok().unwrap();
    assert_eq!(opened.layout.names, names);
    let room = opened.layout.data_offset - 8192;
    assert_eq!(room, 16 << 20);
    drop(opened);
    // Each bit counts, also in the last piece.
    let bytes = std::fs::read(place.path()).unwrap();
    let end = 8192 + names.iter().map(|name| name.len() + 2).sum::<usize>();
    for at in [8192 + (256 << 10), end / 2, end - 1] {
        let mut flipped = bytes.clone();
        flipped[at] ^= 4;
        let error = place.refused(&flipped, &numbered(0));
        assert_eq!(error, Error::BadFormat(BadFormat::Content));
    }
}

#[test]
fn more_names_than_a_file_can_have_are_enospc() {
    let place = Place::new();
    // 16 MiB, and 16 MiB and one byte.
    let mut names: Vec<String> = (0..16 << 10).map(|n| format!("{n:0>1022}")).collect();
    let request = |names: &[String]| Request {
        names: names.to_vec(),
        stripes: 1,
        ..Request::default()
    };
    let opened = open(&place.path(), &request(&names)).ok().unwrap();
    assert_eq!(opened.layout.data_offset, 8192 + (16 << 20));
    drop(opened);
    let before = std::fs::metadata(place.path()).unwrap().len();
    names.push(String::new());
    let error = open(&place.path(), &request(&names)).err();
    assert_eq!(error, Some(Error::Posix(Errno::NOSPC)));
    assert_eq!(std::fs::metadata(place.path()).unwrap().len(), before);
    // Of a new file, too, and there is none then.
    std::fs::remove_file(place.path()).unwrap();
    let error = open(&place.path(), &request(&names)).err();
    assert_eq!(error, Some(Error::Posix(Errno::NOSPC)));
    assert_eq!(std::fs::read_dir(place.0.path()).unwrap().count(), 0);
}

#[test]
fn more_counters_than_memory_are_enomem() {
    let place = Place::new();
    let mut bytes = b"EMMAP01\n".to_vec();
    bytes.extend((1u64 << 40).to_le_bytes());
    std::fs::write(place.path(), &bytes).unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(place.path())
        .unwrap();
    if file.set_len(16 + (8 << 40)).is_err() {
        eprintln!("skipped: no file of 8 TiB here");
        return;
    }
    let counters = open(&place.path(), &numbered(0)).ok().unwrap();
    let grid = emmap_core::counters::Grid::from(&counters.layout);
    // Whatever the kernel promises: there is room for the map, but not for as much again.
    let room = libc::rlimit {
        rlim_cur: 12 << 40,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: `room` outlives the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &room) }, 0);
    assert_eq!(grid.values(&counters.region), Err(Errno::NOMEM));
    let last = (1 << 40) - 1;
    assert!(grid.put(&counters.region, last, 7).is_ok());
    assert_eq!(grid.range(&counters.region, last - 1, 9), Ok(vec![0, 7]));
    assert_eq!(grid.range(&counters.region, u64::MAX, 9), Ok(vec![]));
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
        Err(Error::Mismatch(OtherNames(names))) => names,
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
    // Nothing is left in addition to the files.
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
