//! The region against a model: a vector of bytes in addition to a map and its file, and the same random
//! operations on both.

use std::path::Path;

use emmap_core::options::Sharing;
use emmap_core::region::{Read, Source, Wait, Written};
use emmap_core::{Errno, Options, Region};
use proptest::prelude::*;

fn options(path: &Path) -> Options {
    Options {
        path: Some(path.to_owned()),
        write: true,
        create: true,
        ..Options::default()
    }
}

fn pread(region: &Region, position: u64, count: usize) -> Vec<u8> {
    let Some((start, count)) = region.locate(position, count) else {
        return Vec::new();
    };
    let mut out = vec![0; count];
    // SAFETY: `out` has room for `count` bytes.
    match unsafe { region.copy_out(start, count, out.as_mut_ptr(), Wait::Yes) } {
        Read::Done(got) => out.truncate(got),
        Read::Busy => unreachable!("nobody else is there"),
    }
    out
}

fn pwrite(region: &Region, position: u64, data: &[u8]) -> Result<(), Errno> {
    loop {
        // SAFETY: `data` is a slice.
        let written =
            unsafe { region.copy_in(position, data.as_ptr(), data.len(), Wait::Yes, || true) };
        match written? {
            Written::Done => return Ok(()),
            _ => {
                let source = Source::Bytes(data.as_ptr());
                // SAFETY: as above.
                if unsafe { region.write_past_end(position, source, data.len(), || true) }? {
                    return Ok(());
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Write(u64, Vec<u8>),
    Read(u64, usize),
    Resize(u64),
    Line(usize),
    Reopen,
}

/// Around the borders of pages more often than elsewhere.
fn position() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..40_000u64,
        (0..10u64, -3..4i64).prop_map(|(page, by)| (page * 4096).saturating_add_signed(by)),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (position(), prop::collection::vec(any::<u8>(), 0..9000))
            .prop_map(|(at, data)| Operation::Write(at, data)),
        4 => (position(), 0..9000usize).prop_map(|(at, count)| Operation::Read(at, count)),
        2 => position().prop_map(Operation::Resize),
        1 => (0..40_000usize).prop_map(Operation::Line),
        1 => Just(Operation::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_bytes_do(
        operations in prop::collection::vec(operation(), 1..60),
        offset in prop_oneof![Just(0u64), 1..9000u64],
        lock: bool,
        sparse: bool,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        // A map with an offset has its bytes up front, and does not grow.
        let fixed = (offset > 0).then_some(20_000u64);
        let options = Options { offset, length: fixed, lock, sparse, ..options(&path) };
        let mut region = Region::open(&options).unwrap();
        let mut model = vec![0u8; fixed.unwrap_or(0) as usize];
        for operation in operations {
            match operation {
                Operation::Write(at, data) => {
                    let end = at as usize + data.len();
                    let answer = pwrite(&region, at, &data);
                    if fixed.is_some() && end > model.len() && !data.is_empty() {
                        prop_assert_eq!(answer, Err(Errno::NOSPC));
                    } else {
                        prop_assert_eq!(answer, Ok(()));
                        if !data.is_empty() {
                            model.resize(end.max(model.len()), 0);
                            model[at as usize..end].copy_from_slice(&data);
                        }
                    }
                }
                Operation::Read(at, count) => {
                    let from = model.len().min(at as usize);
                    let to = model.len().min(from + count);
                    prop_assert_eq!(&pread(&region, at, count), &model[from..to]);
                }
                Operation::Resize(to) if fixed.is_none() => {
                    prop_assert_eq!(region.resize(to), Ok(()));
                    model.resize(to as usize, 0);
                }
                Operation::Resize(to) => {
                    let refused = match (to as usize).cmp(&model.len()) {
                        std::cmp::Ordering::Less => Err(Errno::INVAL),
                        std::cmp::Ordering::Equal => Ok(()),
                        std::cmp::Ordering::Greater => Err(Errno::NOSPC),
                    };
                    prop_assert_eq!(region.resize(to), refused);
                }
                Operation::Line(start) => {
                    let rest = model.get(start..).unwrap_or(&[]);
                    let line = rest.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
                    prop_assert_eq!(region.line_length(start, usize::MAX), line);
                }
                Operation::Reopen => {
                    prop_assert_eq!(region.sync(None, true), Ok(()));
                    region = Region::open(&options).unwrap();
                }
            }
            prop_assert_eq!(region.len(), model.len());
        }
        let file = std::fs::read(&path).unwrap();
        prop_assert_eq!(&file[offset as usize..], &model[..]);
    }
}

#[test]
fn a_view_never_moves_and_never_faults() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let region = Region::open(&Options {
        sparse: true,
        ..options(&path)
    })
    .unwrap();
    pwrite(&region, 0, b"stays").unwrap();
    let first = region.base();
    // SAFETY: the region is alive, and the pointers were inside the map when they were made.
    let read = |at: *mut u8| unsafe { at.read_volatile() };
    // Past the reserved addresses, so that a second range is made.
    region.resize(3 << 30).unwrap();
    assert!(region.info().unwrap().ranges > 1);
    assert_eq!(read(first), b's');
    pwrite(&region, 0, b"S").unwrap();
    assert_eq!(read(first), b'S', "both ranges show the same page");
    // SAFETY: the map is longer.
    let far = unsafe { region.pointer(2 << 30) };
    pwrite(&region, 2 << 30, b"far").unwrap();
    assert_eq!(read(far), b'f');
    region.resize(1).unwrap();
    assert_eq!((read(first), read(far)), (b'S', 0));
    region.resize(3 << 30).unwrap();
    pwrite(&region, 2 << 30, b"new").unwrap();
    assert_eq!(read(far), b'n');
}

#[test]
fn readers_and_writers_while_it_grows_and_shrinks() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let region = Region::open(&Options {
        size: Some(4096),
        ..options(&path)
    })
    .unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for n in 0..4u8 {
            let (region, stop) = (&region, &stop);
            scope.spawn(move || {
                let at = u64::from(n) * 1024;
                let mut round = 0u8;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    round = round.wrapping_add(1);
                    let data = [round; 1024];
                    pwrite(region, at, &data).unwrap();
                    assert_eq!(pread(region, at, 1024), data);
                    pread(region, 1 << 20, 4096)
                        .iter()
                        .for_each(|byte| assert_eq!(*byte, 0));
                }
            });
        }
        for _ in 0..50 {
            region.resize(4 << 20).unwrap();
            region.resize(4096).unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(region.check_fault(), Ok(()));
}

#[test]
fn a_file_cut_by_another_is_stale_and_kills_nobody() {
    emmap_core::guard::install().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let region = Region::open(&Options {
        size: Some(100_000),
        ..options(&path)
    })
    .unwrap();
    pwrite(&region, 50_000, b"lost").unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(10_000).unwrap();
    assert_eq!(
        region.resize(200_000),
        Err(Errno::STALE),
        "seen without a touch"
    );
    assert_eq!(pread(&region, 50_000, 4), [0; 4]);
    assert_eq!(region.check_fault(), Err(Errno::STALE));
    assert_eq!(region.sync(None, true), Err(Errno::STALE));
    let info = region.info().unwrap();
    assert_eq!(
        info.first_fault,
        Some((10_000, Errno::STALE)),
        "where it ends"
    );
    assert_eq!(emmap_core::guard::status(), emmap_core::guard::Status::Ok);
}

/// A file of three pages and some bytes, of `byte`.
fn file_of(path: &Path, byte: u8) {
    std::fs::write(path, vec![byte; 3 * 4096 + 100]).unwrap();
}

#[test]
fn reattached_it_shows_the_file_again() {
    emmap_core::guard::install().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    file_of(&path, 1);
    let follows = Region::open(&options(&path)).unwrap();
    let fixed = Region::open(&Options {
        fixed_size: true,
        ..options(&path)
    })
    .unwrap();
    let read_only = Region::open(&Options {
        write: false,
        create: false,
        ..options(&path)
    })
    .unwrap();
    let all = [&follows, &fixed, &read_only];
    // Cut, touched, and grown again: stale until it is reattached.
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(5000).unwrap();
    for region in all {
        assert_eq!(pread(region, 12_000, 1), [0]);
        assert_eq!(region.check_fault(), Err(Errno::STALE));
    }
    assert_eq!(fixed.reattach(), Err(Errno::STALE), "still too short");
    assert_eq!(fixed.check_fault(), Err(Errno::STALE));
    file_of(&path, 2);
    for region in all {
        assert_eq!(region.check_fault(), Err(Errno::STALE));
        assert_eq!(region.reattach(), Ok(()));
        assert_eq!(region.check_fault(), Ok(()));
        assert_eq!(pread(region, 0, 20_000), vec![2; 3 * 4096 + 100]);
    }
    // A map of the whole file goes with it, up and down.
    for size in [9_000, 900_000, 10] {
        std::fs::write(&path, vec![3; size]).unwrap();
        for region in [&follows, &read_only] {
            assert_eq!(region.reattach(), Ok(()));
            assert_eq!(pread(region, 0, 1_000_000), vec![3; size]);
        }
    }
    pwrite(&follows, 10, b"more").unwrap();
    assert_eq!(
        std::fs::read(&path).unwrap(),
        b"\x03\x03\x03\x03\x03\x03\x03\x03\x03\x03more"
    );
}

#[test]
fn reattached_private_pages_keep_what_was_written_before_the_cut() {
    emmap_core::guard::install().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    file_of(&path, 1);
    let region = Region::open(&Options {
        sharing: emmap_core::options::Sharing::Private,
        fixed_size: true,
        ..options(&path)
    })
    .unwrap();
    pwrite(&region, 10, b"mine").unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(4096).unwrap();
    assert_eq!(pread(&region, 8192, 1), [0]);
    write_again(&path, 2);
    assert_eq!(region.reattach(), Ok(()));
    assert_eq!(pread(&region, 10, 4), b"mine");
    assert_eq!(pread(&region, 8192, 1), [2]);
}

#[test]
fn reattached_every_range_of_addresses_shows_the_file_again() {
    emmap_core::guard::install().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    file_of(&path, 1);
    let region = Region::open(&Options {
        sparse: true,
        ..options(&path)
    })
    .unwrap();
    // What an existing live binary shows, in the range that the map then outgrows.
    // SAFETY: the map is longer, and is not made shorter.
    let now = || unsafe { region.pointer(8192) };
    let live = now();
    region.resize(3 << 30).unwrap();
    assert_ne!(now(), live);
    // SAFETY: an old range stays mapped for as long as the region lives.
    let read = |at: *mut u8| unsafe { at.read_volatile() };
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(100).unwrap();
    assert_eq!((read(live), read(now())), (0, 0));
    write_again(&path, 2);
    file.set_len(3 << 30).unwrap();
    assert_eq!(region.check_fault(), Err(Errno::STALE));
    assert_eq!(region.reattach(), Ok(()));
    assert_eq!((read(live), read(now())), (2, 2));
}

#[test]
fn a_cut_inside_a_page_is_found_by_sync() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    file_of(&path, 1);
    let region = Region::open(&options(&path)).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(3 * 4096 + 99).unwrap();
    assert_eq!(pread(&region, 3 * 4096 + 99, 1), [0], "no signal came");
    assert_eq!(region.sync(None, true), Err(Errno::STALE));
    file_of(&path, 1);
    assert_eq!(
        region.sync(None, true),
        Err(Errno::STALE),
        "until reattached"
    );
    assert_eq!(region.reattach(), Ok(()));
    assert_eq!(region.sync(None, true), Ok(()));
}

/// Truncates, accesses and repairs at the same time: no call may return `ok` for zeros.
#[test]
fn repairs_lose_no_race_with_faults() {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    emmap_core::guard::install().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    file_of(&path, 7);
    let region = Region::open(&Options {
        fixed_size: true,
        ..options(&path)
    })
    .unwrap();
    let stop = AtomicBool::new(false);
    let wrong = std::thread::scope(|scope| {
        for at in [4096, 8192, 12288] {
            let (region, stop) = (&region, &stop);
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    pread(region, at, 8);
                }
            });
        }
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let wrong = (0..2000).find_map(|_| {
            file.set_len(100).unwrap();
            write_again(&path, 7);
            // Nobody cuts now: as soon as it says ok, the bytes are there.
            while region.reattach().is_err() {}
            let seen = pread(&region, 0, 20_000);
            let answer = region.check_fault();
            (answer.is_err() || seen != vec![7; 3 * 4096 + 100]).then_some(answer)
        });
        stop.store(true, Relaxed);
        wrong
    });
    assert_eq!(wrong, None);
    assert!(region.info().unwrap().faults > 0);
}

/// Longer again, without being cut first.
fn write_again(path: &Path, byte: u8) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[byte; 3 * 4096 + 100], 0).unwrap();
}

#[test]
fn bytes_are_counted_and_found_inside_the_map_alone() {
    let directory = tempfile::tempdir().unwrap();
    let region = Region::open(&options(&directory.path().join("data"))).unwrap();
    pwrite(&region, 0, b"one\ntwo\n").unwrap();
    for (position, count, byte, counted, found) in [
        (0, 8, b'\n', 2, Some(3)),
        (4, 8, b'\n', 1, Some(7)),
        (0, 3, b'\n', 0, None),
        (0, usize::MAX, 0, 0, None),
        (8, 1, b'\n', 0, None),
        (u64::MAX, usize::MAX, b'\n', 0, None),
    ] {
        assert_eq!(region.count_byte(position, count, byte), counted);
        assert_eq!(region.find_byte(position, count, byte), found);
    }
}

#[test]
fn release_loses_nothing_that_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    std::fs::write(&path, vec![b'f'; 10_000]).unwrap();
    for sharing in [Sharing::Shared, Sharing::Private] {
        let asked = Options {
            sharing,
            ..options(&path)
        };
        let region = Region::open(&asked).unwrap();
        pwrite(&region, 5_000, b"written").unwrap();
        region.release_pages(0, 10_000);
        region.release_pages(10_000, 1);
        region.release_pages(u64::MAX, u64::MAX);
        assert_eq!(pread(&region, 5_000, 8), b"writtenf");
    }
    let memory = Options {
        path: None,
        create: false,
        size: Some(10_000),
        ..options(&path)
    };
    let region = Region::open(&memory).unwrap();
    pwrite(&region, 5_000, b"written").unwrap();
    region.release_pages(0, 10_000);
    assert_eq!(pread(&region, 5_000, 7), b"written");
}

#[test]
fn a_private_map_keeps_what_was_written_when_its_file_is_longer_by_then() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    std::fs::write(&path, [b'.'; 100]).unwrap();
    let region = Region::open(&Options {
        sharing: emmap_core::options::Sharing::Private,
        ..options(&path)
    })
    .unwrap();
    pwrite(&region, 10, b"mine").unwrap();
    // Longer, and never shorter in between.
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(9000).unwrap();
    assert_eq!(region.reattach(), Ok(()));
    assert_eq!(pread(&region, 10, 4), b"mine");
    assert_eq!(region.len(), 100);
}

/// Every page is in one part, and a page that was touched is in memory.
#[test]
fn residency_by_parts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let page = emmap_core::os::page_size();
    for (size, asked, expected) in [(0, 7, 0), (1, 7, 1), (7, 3, 3), (100, 7, 7), (100, 1, 1)] {
        let region = Region::open(&Options {
            size: Some((size * page) as u64),
            truncate: true,
            ..options(&path)
        })
        .unwrap();
        let parts = region.residency(asked).unwrap();
        assert_eq!(parts.len(), expected, "{size} pages in {asked} parts");
        assert_eq!(parts.iter().map(|part| part.pages).sum::<usize>(), size);
        let sizes = parts.iter().map(|part| part.pages);
        let spread = sizes.clone().max().unwrap_or(0) - sizes.min().unwrap_or(0);
        assert!(spread <= 1, "of about the same size");
        for position in (0..size * page).step_by(page) {
            pread(&region, position as u64, 1);
        }
        let parts = region.residency(asked).unwrap();
        assert!(parts.iter().all(|part| part.resident == part.pages));
        let info = region.info().unwrap();
        assert!(info.allocated >= Some((size * page) as u64), "not sparse");
    }
    let sparse = Region::open(&Options {
        size: Some(1 << 20),
        truncate: true,
        sparse: true,
        ..options(&path)
    });
    let sparse = sparse.unwrap();
    pwrite(&sparse, (40 * page) as u64, b"one page").unwrap();
    let parts = sparse.residency(256).unwrap();
    assert_eq!(parts[40].resident, 1);
    assert!(sparse.info().unwrap().allocated < Some(1 << 20));
}

/// The copy lock, the lock of the size and the lock of the file are all held while a claim is asked.
#[test]
fn a_panic_within_a_call_leaves_nothing_locked() {
    use std::panic::{catch_unwind, AssertUnwindSafe};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let region = Region::open(&options(&path)).unwrap();
    pwrite(&region, 0, b"before").unwrap();
    let past_end = catch_unwind(AssertUnwindSafe(|| {
        let source = Source::Fill(1);
        // SAFETY: no bytes are read.
        unsafe { region.write_past_end(6, source, 100, || panic!("claim")) }
    }));
    assert!(past_end.is_err());
    let inside = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the bytes are a constant's.
        unsafe { region.copy_in(0, b"x".as_ptr(), 1, Wait::Yes, || panic!("claim")) }
    }));
    assert!(inside.is_err());
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 6);
    // Another open of the file, whose size takes its lock; it would wait, and fail with EBUSY.
    let other = Region::open(&options(&path)).unwrap();
    other.resize(8).unwrap();
    // SAFETY: the bytes are a constant's.
    let written = unsafe { region.copy_in(0, b"B".as_ptr(), 1, Wait::No, || true) };
    assert_eq!(written, Ok(Written::Done));
    pwrite(&region, 6, b" and after").unwrap();
    assert_eq!(pread(&region, 0, 100), b"Before and after");
}

#[test]
fn no_access_misses_a_lost_page() {
    let directory = tempfile::tempdir().unwrap();
    let region = Region::open(&Options {
        size: Some(4096),
        ..options(&directory.path().join("data"))
    })
    .unwrap();
    let lose = || {
        region.distrust();
        Ok::<_, Errno>("done")
    };
    let lose_and_repair = || {
        region.distrust();
        region.reattach().map(|()| "done")
    };
    assert_eq!(region.reading(|| Ok::<_, Errno>(1)), Ok(1));
    assert_eq!(region.writing(|| Ok::<_, Errno>(1)), Ok(1));
    assert_eq!(
        region.reading(|| Err::<(), _>(Errno::INVAL)),
        Err(Errno::INVAL)
    );
    assert_eq!(region.reading(lose_and_repair), Err(Errno::STALE));
    assert_eq!(region.writing(lose_and_repair), Err(Errno::STALE));
    assert_eq!(region.writing(lose), Err(Errno::STALE));
    assert_eq!(region.reading(|| Ok::<_, Errno>(1)), Err(Errno::STALE));
    let begun = std::cell::Cell::new(false);
    let write = || {
        begun.set(true);
        Ok::<_, Errno>(())
    };
    assert_eq!(region.writing(write), Err(Errno::STALE));
    assert!(!begun.get(), "a change of a lost map is not even begun");
    region.reattach().unwrap();
    assert_eq!(region.reading(lose), Err(Errno::STALE));
}
