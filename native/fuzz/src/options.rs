//! Any options on any small file: opening returns, and the rules of the file hold.
//!
//! What is refused leaves the disk as it was. What is opened has the size that was asked for, what it
//! had before, zeros behind that, and shows exactly the file. What is written through a private map
//! stays in it. Nothing is left when the map is gone.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use emmap_core::options::{HugePage, Sharing};
use emmap_core::region::{Read, Wait, Written};
use emmap_core::{guard, Errno, Options, Region};

use super::bytes::Bytes;
use super::traces::Traces;

/// What is compared of a file at both of its ends; most are shorter.
const SEEN: u64 = 64 << 10;
/// A byte that does not occur in the files.
const WRITTEN: u8 = 0xFE;

pub fn run(data: &[u8]) {
    guard::install().expect("the guard");
    let mut bytes = Bytes::new(data);
    let directory = super::directory();
    let traces = Traces::before();
    let found = Found::put(directory.path(), &mut bytes);
    let options = options(&mut bytes, found.path());
    match Region::open(&options) {
        Err(_) => found.assert_untouched(),
        Ok(region) => {
            found.assert_shaped(&options, &region);
            let file = found.target.as_deref().filter(|_| options.path.is_some());
            if may_fault(&options) {
                touch(&region);
            } else {
                write(&options, &region, file);
                resize(&mut bytes, &options, &region, file);
                assert_eq!(region.check_fault(), Ok(()));
            }
            drop(region);
            if let Some(file) = file {
                // Of a link the link is removed, and not the file that it leads to.
                let link = found.path.as_path() != file;
                let named = found.path.symlink_metadata().is_ok();
                assert_eq!(named, !options.auto_unlink);
                assert_eq!(file.exists(), link || !options.auto_unlink);
            }
        }
    }
    traces.check(directory.path());
}

/// What there is at the path before it is opened.
struct Found {
    path: PathBuf,
    /// Where a regular file is, or would be created.
    target: Option<PathBuf>,
    before: Option<Vec<u8>>,
    anonymous: bool,
}

impl Found {
    fn put(directory: &Path, bytes: &mut Bytes) -> Found {
        let (path, other) = (directory.join("data"), directory.join("other"));
        let kind = bytes.below(16);
        let size = bytes.number().min(SEEN / 2) as usize;
        let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8 + 1).collect();
        let mut found = Found {
            target: Some(path.clone()),
            path,
            before: None,
            anonymous: kind == 15,
        };
        match kind {
            0 => fs::create_dir(&found.path).expect("a directory"),
            1 => {
                let name = std::ffi::CString::new(found.path.as_os_str().as_encoded_bytes());
                let name = name.expect("a name without NUL");
                // SAFETY: `name` is NUL-terminated and outlives the call.
                assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
            }
            2 => found.path = directory.join("no\0name"),
            3 | 4 => {
                std::os::unix::fs::symlink(&other, &found.path).expect("a link");
                found.target = Some(other);
            }
            5 => found.path = directory.join("nowhere").join("data"),
            _ => (),
        }
        match kind {
            0..=2 | 5 => found.target = None,
            4 | 8.. => {
                let target = found.target.as_ref().expect("a file");
                fs::write(target, &content).expect("a file");
                found.before = Some(content);
            }
            // A link to nowhere, or no file yet.
            _ => (),
        }
        found
    }

    fn path(&self) -> Option<PathBuf> {
        (!self.anonymous).then(|| self.path.clone())
    }

    fn assert_untouched(&self) {
        if let Some(target) = &self.target {
            assert_eq!(fs::read(target).ok(), self.before, "refused, and changed");
        }
    }

    fn assert_shaped(&self, options: &Options, region: &Region) {
        assert_eq!(region.writable(), options.write);
        let length = options.length.filter(|length| *length > 0);
        if options.path.is_none() {
            self.assert_untouched();
            let wanted = options.size.or(length).expect("a size was asked for");
            let expected = length.unwrap_or(wanted).min(wanted);
            assert_eq!(region.len() as u64, expected);
            return;
        }
        let target = self.target.as_ref().expect("only regular files are mapped");
        let file = fs::File::open(target).expect("a file that is mapped");
        let size = file.metadata().expect("its size").len();
        let before = match (&self.before, options.truncate) {
            (Some(before), false) => before.as_slice(),
            _ => &[],
        };
        if self.before.is_none() {
            assert!(options.create, "created, and nobody asked");
        }
        assert!(!(options.exclusive && options.create && self.before.is_some()));
        let had = before.len() as u64;
        let end = length.map_or(0, |length| options.offset + length);
        let asked = options.size.unwrap_or(0).max(end);
        let fits = options.fit && (options.size.is_some() || length.is_some());
        let shared = options.write && options.sharing != Sharing::Private;
        match (shared, options.write || options.create) {
            (true, _) if fits => assert_eq!(size, asked),
            (true, _) => assert_eq!(size, asked.max(had)),
            (false, true) => assert!(size == had || size == asked || size == asked.max(had)),
            (false, false) => assert_eq!(size, had, "a reader changed it"),
        }
        let available = size.saturating_sub(options.offset);
        let len = length.unwrap_or(available).min(available);
        assert_eq!(region.len() as u64, len);
        // What it had, zeros behind it, and nothing else.
        for from in ends(size) {
            let shown = file_bytes(&file, from, size);
            for (byte, at) in shown.iter().zip(from..) {
                let expected = before.get(at as usize).copied().unwrap_or(0);
                assert_eq!(*byte, expected, "byte {at} of the file");
            }
        }
        for from in ends(len) {
            let shown = file_bytes(&file, options.offset + from, options.offset + len);
            assert!(map_bytes(region, from) == shown, "the map shows the file");
        }
    }
}

/// Where to look at `size` bytes: at the start and at the end.
fn ends(size: u64) -> [u64; 2] {
    [0, size.saturating_sub(SEEN)]
}

fn file_bytes(file: &fs::File, from: u64, to: u64) -> Vec<u8> {
    let mut out = vec![0; to.saturating_sub(from).min(SEEN) as usize];
    file.read_exact_at(&mut out, from).expect("bytes of a file");
    out
}

fn map_bytes(region: &Region, from: u64) -> Vec<u8> {
    let Some((start, count)) = region.locate(from, SEEN as usize) else {
        return Vec::new();
    };
    let mut out = vec![0; count];
    // SAFETY: `out` has room for `count` bytes.
    let read = unsafe { region.copy_out(start, count, out.as_mut_ptr(), Wait::Yes) };
    assert_eq!(read, Read::Done(count));
    out
}

/// Huge pages that are not reserved, so they may not be available.
fn may_fault(options: &Options) -> bool {
    options.huge.is_some() && options.no_reserve
}

/// A page that is not available reads as zeros and records a fault.
fn touch(region: &Region) {
    let shown = map_bytes(region, 0);
    assert!(shown.iter().all(|byte| *byte == 0));
    assert!([Ok(()), Err(Errno::NOMEM)].contains(&region.check_fault()));
}

/// One byte at each end, if the map can be written.
fn write(options: &Options, region: &Region, file: Option<&Path>) {
    let len = region.len() as u64;
    for at in [0, len.saturating_sub(1)] {
        // SAFETY: the data is one byte.
        let answer = unsafe { region.copy_in(at, &WRITTEN, 1, Wait::Yes, || true) };
        match (options.write, at < len) {
            (false, _) => assert_eq!(answer, Err(Errno::ACCES)),
            (true, false) => assert_eq!(answer, Ok(Written::PastEnd)),
            (true, true) => {
                assert_eq!(answer, Ok(Written::Done));
                assert_eq!(map_bytes(region, at)[0], WRITTEN);
                if let Some(file) = file {
                    let file = fs::File::open(file).expect("a file that is mapped");
                    let at = options.offset + at;
                    let shared = options.sharing != Sharing::Private;
                    assert_eq!(file_bytes(&file, at, at + 1)[0] == WRITTEN, shared);
                }
            }
        }
    }
}

/// Another size, by each of the ways to it.
fn resize(bytes: &mut Bytes, options: &Options, region: &Region, file: Option<&Path>) {
    let to = bytes.number() % (SEEN * 4);
    let before = region.len() as u64;
    let answer = match bytes.below(3) {
        0 => region.resize(to),
        1 => region.grow(to),
        _ => region.double().map(drop),
    };
    let now = region.len() as u64;
    let most = options.max_size.unwrap_or(u64::MAX);
    assert!(now <= most.max(before), "beyond its largest size");
    if answer.is_err() {
        assert_eq!(now, before);
    }
    if now != before {
        assert!(options.write && !options.fixed_size);
        if let Some(file) = file {
            assert_eq!(options.offset, 0);
            assert_eq!(fs::metadata(file).expect("its size").len(), now);
        }
    }
}

fn options(bytes: &mut Bytes, path: Option<PathBuf>) -> Options {
    let populate = bytes.below(8) == 1;
    let options = Options {
        path,
        write: bytes.flag(),
        create: bytes.flag(),
        exclusive: bytes.below(4) == 1,
        truncate: bytes.below(4) == 1,
        append: false,
        sharing: match bytes.below(6) {
            0 => Sharing::Private,
            1 => Sharing::SharedValidate,
            _ => Sharing::Shared,
        },
        offset: bytes.maybe().unwrap_or(0),
        length: bytes.maybe(),
        size: bytes.maybe(),
        fit: bytes.flag(),
        fixed_size: bytes.below(4) == 1,
        keep_size: false,
        max_size: bytes.maybe(),
        max_increment: bytes.number(),
        sparse: bytes.flag(),
        lock: bytes.flag(),
        auto_unlink: bytes.flag(),
        tag: 0,
        mode: bytes.flag().then(|| bytes.below(0o10000) as u32),
        address: bytes.maybe().map(|address| address as usize),
        fixed: bytes.below(4) == 1,
        no_reserve: bytes.flag(),
        populate,
        nonblock: bytes.flag(),
        huge: match bytes.below(32) {
            1 => Some(HugePage::Default),
            2 => Some(HugePage::TwoMegabytes),
            3 => Some(HugePage::OneGigabyte),
            _ => None,
        },
        map_sync: bytes.below(16) == 1,
        no_cache: bytes.below(32) == 1,
    };
    if !populate {
        return options;
    }
    // All of it would be brought into memory.
    let small = |size: Option<u64>| size.map(|size| size % SEEN);
    Options {
        offset: options.offset % SEEN,
        length: small(options.length),
        size: small(options.size),
        ..options
    }
}
