//! Where the file behind a map has data, and what `fstat` knows of it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use emmap_core::options::Sharing;
use emmap_core::region::{Scan, Wait};
use emmap_core::{Errno, Options, Region};

fn file() -> (tempfile::TempDir, PathBuf, File) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    (directory, path, file)
}

fn map(path: &std::path::Path, options: Options) -> Region {
    Region::open(&Options {
        path: Some(path.to_owned()),
        ..options
    })
    .unwrap_or_else(|error| panic!("{error:?}"))
}

#[test]
fn the_file_as_the_system_sees_it() {
    let (_directory, path, file) = file();
    file.write_all_at(b"0123456789", 0).unwrap();
    let region = map(&path, Options::default());
    let expected = file.metadata().unwrap();
    let stat = region.stat().unwrap();
    assert_eq!((stat.size, stat.links), (10, 1));
    assert_eq!(
        (stat.mode, stat.uid, stat.gid),
        (expected.mode(), expected.uid(), expected.gid())
    );
    assert_eq!((stat.device, stat.inode), (expected.dev(), expected.ino()));
    assert_eq!(
        (stat.accessed, stat.modified, stat.changed),
        (expected.atime(), expected.mtime(), expected.ctime())
    );
    assert_eq!(stat.allocated, expected.blocks() * 512);
    for (mode, access) in [
        (0o600, (true, true)),
        (0o400, (true, false)),
        (0o200, (false, true)),
        (0o077, (false, false)),
    ] {
        file.set_permissions(std::fs::Permissions::from_mode(mode))
            .unwrap();
        assert_eq!(region.stat().unwrap().access(), access, "{mode:o}");
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(region.stat().unwrap().links, 0);
    let memory = Region::open(&Options {
        size: Some(10),
        write: true,
        ..Options::default()
    });
    assert_eq!(
        memory.map(|memory| memory.stat()).ok(),
        Some(Err(Errno::NOTSUP))
    );
}

#[test]
fn holes_are_passed_over() {
    const MB: u64 = 1 << 20;
    let (_directory, path, file) = file();
    file.set_len(100 * MB).unwrap();
    file.write_all_at(&[1; MB as usize], 10 * MB).unwrap();
    file.write_all_at(&[1; MB as usize], 50 * MB).unwrap();
    let whole = map(&path, Options::default());
    if whole.next_data(0) == Ok(Some((0, 100 * MB))) {
        eprintln!("skipped: this file system has no holes");
        return;
    }
    assert_eq!(whole.next_data(0), Ok(Some((10 * MB, 11 * MB))));
    assert_eq!(
        whole.next_data(10 * MB + 5),
        Ok(Some((10 * MB + 5, 11 * MB)))
    );
    assert_eq!(whole.next_data(11 * MB), Ok(Some((50 * MB, 51 * MB))));
    assert_eq!(whole.next_data(51 * MB), Ok(None));
    assert_eq!(whole.next_data(u64::MAX), Ok(None));
    let part = map(
        &path,
        Options {
            offset: 10 * MB + 100,
            length: Some(MB / 2),
            ..Options::default()
        },
    );
    assert_eq!(part.next_data(0), Ok(Some((0, MB / 2))));
    let hole = map(
        &path,
        Options {
            offset: 20 * MB,
            length: Some(MB),
            ..Options::default()
        },
    );
    assert_eq!(hole.next_data(0), Ok(None));
    // Its own pages may be in the holes.
    let private = map(
        &path,
        Options {
            write: true,
            sharing: Sharing::Private,
            ..Options::default()
        },
    );
    assert_eq!(private.next_data(5), Ok(Some((5, 100 * MB))));
    // What is written through a map is data before it is on the disk.
    let writer = map(
        &path,
        Options {
            write: true,
            ..Options::default()
        },
    );
    assert_eq!(writer.add_striped(80 * MB, 1, 7), Ok(()));
    let (from, to) = whole.next_data(51 * MB).unwrap().unwrap();
    assert!(from <= 80 * MB && 80 * MB + 8 <= to, "{from} {to}");
    // The end of a truncated file is not a hole.
    file.set_len(60 * MB).unwrap();
    assert_eq!(whole.next_data(70 * MB), Err(Errno::STALE));
    assert!(whole.check_fault().is_err());
}

/// Every newline of a range by one step after the other, as small as they can be.
fn scanned(region: &Region, from: u64, stop: u64) -> (Vec<u64>, u64) {
    let past = Instant::now();
    let (mut found, mut start, mut looked) = (Vec::new(), from, from);
    loop {
        match region.scan(start, looked, stop, b'\n', past).unwrap() {
            Scan::Found(at) => {
                found.push(at);
                (start, looked) = (at + 1, at + 1);
            }
            Scan::Paused(at) => {
                assert!(at > looked, "a step must come forward");
                looked = at;
            }
            Scan::End(at) => {
                assert_eq!(at, stop.min(region.len() as u64));
                break;
            }
        }
    }
    let (mut count, mut at) = (0, from);
    while at < stop.min(region.len() as u64) {
        let (some, next) = region.scan_count(from, at, stop, b'\n', past).unwrap();
        assert!(next > at, "a step must come forward");
        (count, at) = (count + some, next);
    }
    (found, count)
}

#[test]
fn a_byte_is_found_among_holes() {
    let (_directory, path, file) = file();
    let newlines: [u64; 6] = [
        5,
        1 << 20,
        (3 << 20) + 1,
        50 << 20,
        (50 << 20) + 4095,
        99 << 20,
    ];
    for at in newlines {
        file.write_all_at(b"\n", at).unwrap();
    }
    file.set_len(100 << 20).unwrap();
    for (offset, sharing) in [
        (0, Sharing::Shared),
        (8192, Sharing::Shared),
        (0, Sharing::Private),
    ] {
        let options = Options {
            offset,
            sharing,
            ..Options::default()
        };
        let region = map(&path, options);
        for (from, stop) in [
            (0, u64::MAX),
            (6, 99 << 20),
            (1 << 20, (50 << 20) + 1),
            (7 << 20, 9 << 20),
        ] {
            let expected: Vec<u64> = newlines
                .iter()
                .filter_map(|at| at.checked_sub(offset))
                .filter(|at| (from..stop).contains(at))
                .collect();
            let (found, count) = scanned(&region, from, stop);
            assert_eq!(count, expected.len() as u64);
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn what_is_written_into_a_hole_through_another_map_is_found() {
    let (_directory, path, file) = file();
    file.set_len(64 << 20).unwrap();
    let writer = map(
        &path,
        Options {
            write: true,
            ..Options::default()
        },
    );
    let region = map(&path, Options::default());
    assert_eq!(scanned(&region, 0, u64::MAX), (vec![], 0));
    // SAFETY: a literal of one byte.
    let written = unsafe { writer.copy_in(40 << 20, b"\n".as_ptr(), 1, Wait::Yes, || true) };
    written.unwrap();
    assert_eq!(scanned(&region, 0, u64::MAX), (vec![40 << 20], 1));
}

#[test]
fn a_hole_of_terabytes_takes_no_time() {
    let (_directory, path, file) = file();
    // The file system may have no files of that size.
    if file.set_len(8 << 40).is_err() {
        return;
    }
    file.write_all_at(b"\n", (8 << 40) - 1).unwrap();
    let region = map(&path, Options::default());
    let begun = Instant::now();
    assert_eq!(scanned(&region, 0, u64::MAX), (vec![(8 << 40) - 1], 1));
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}
