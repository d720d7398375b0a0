//! Any bytes as a queue file, and then operations on it: each returns something, whatever the file has.
//!
//! A file that is trusted, as after `kill -9` in the same boot, may have any control area; one that is recovered, anything.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use emmap_core::queue::layout::{self, cursor, stream};
use emmap_core::queue::segment::offset_of;
use emmap_core::queue::summary::Layout;
use emmap_core::queue::{open, Claimed, Limits, Queue, Request};
use emmap_core::region::Wait;
use emmap_core::store::Structure;
use emmap_core::{guard, Region};

use super::bytes::Bytes;
use super::traces::Traces;

const SEGMENT: u64 = 64 << 10;
/// Bytes of a header, and where its checksum is (`docs/formats.md`).
const HEADER: usize = 2980;
const MOST_SEGMENTS: u64 = 64;
const MOST_EDITS: usize = 64;
const MOST_CALLS: usize = 40;

pub fn run(data: &[u8]) {
    guard::install().expect("the guard");
    let mut bytes = Bytes::new(data);
    let directory = super::directory();
    let path = directory.path().join("queue");
    let traces = Traces::before();
    let before = content(&mut bytes);
    fs::write(&path, &before).expect("a file");
    let trusted = bytes.below(3);
    claim_boot(&path, before.len() as u64, trusted);
    for _ in 0..2 {
        let before = fs::read(&path).expect("a file");
        match open(&path, &request()) {
            Err(_) => {
                let file = fs::File::open(&path).expect("a file");
                let refused = Layout::read(&file).is_err();
                let same = || fs::read(&path).expect("a file") == before;
                assert!(!refused || same(), "refused, and changed");
            }
            Ok((region, queue)) => {
                calls(&mut bytes, &region, &queue);
                if bytes.flag() {
                    let _ = queue.leave(&region);
                }
            }
        }
    }
    traces.check(directory.path());
}

fn request() -> Request {
    Request {
        segment_size: Some(SEGMENT),
        existing: false,
    }
}

/// A file of some kind, with some of its bytes changed.
fn content(bytes: &mut Bytes) -> Vec<u8> {
    let kind = bytes.below(8);
    if kind == 0 {
        return bytes.rest().to_vec();
    }
    let mut file = base(kind.is_multiple_of(2)).to_vec();
    let mend = bytes.byte();
    for _ in 0..bytes.below(MOST_EDITS) {
        edit(bytes, &mut file);
    }
    if bytes.below(8) == 1 {
        let length = bytes.number().min(file.len() as u64 + SEGMENT);
        file.resize(length as usize, 0xA5);
    }
    mend_checksums(&mut file, mend);
    file
}

/// A queue with all there can be in it: readers, claims of two kinds, acknowledgements, producers, dead letters, a record
/// that is longer than a segment, and segments that were used before.
fn base(closed: bool) -> &'static [u8] {
    static CLOSED: OnceLock<Vec<u8>> = OnceLock::new();
    static LEFT: OnceLock<Vec<u8>> = OnceLock::new();
    let place = if closed { &CLOSED } else { &LEFT };
    place.get_or_init(|| {
        let directory = super::directory();
        let path = directory.path().join("queue");
        let (region, queue) = open(&path, &request()).expect("a new queue");
        let call = |act: &dyn Fn(&emmap_core::queue::Locked<emmap_core::store::shared::Mapped>)| {
            let done = queue.with(&region, Wait::Yes, |locked| {
                act(locked);
                Ok(())
            });
            done.expect("a call");
        };
        call(&|locked| {
            locked.create_reader(b"reader", 0).expect("a reader");
            locked.create_reader(b"lagging", 200_000).expect("a reader");
        });
        for item in 0..40u64 {
            let length = if item % 10 == 7 {
                70_000
            } else {
                [75, 3000, 9][item as usize % 3]
            };
            push(&region, &queue, item, length, &Limits::default());
            if item == 20 {
                queue.sync(&region).expect("a sync");
            }
        }
        let limits = Limits {
            identity: Some(([7; 16], 3)),
            ..Limits::default()
        };
        push(&region, &queue, 40, 100, &limits);
        for _ in 0..9 {
            pop(&region, &queue, layout::OWN);
        }
        let claimed: Vec<Claimed> = (0..6)
            .map(|owner| queue.check_out(&region, Wait::Yes, layout::OWN, owner, None))
            .map(|claimed| claimed.expect("a call").expect("an item"))
            .collect();
        queue
            .acknowledge(&region, Wait::Yes, layout::OWN, &claimed[1].receipt)
            .expect("a claim");
        queue
            .record_acknowledgements(&region, layout::OWN, &[claimed[1].receipt.sequence])
            .expect("a record");
        for claimed in &claimed[2..4] {
            queue
                .release(&region, Wait::Yes, layout::OWN, &claimed.receipt)
                .expect("a claim");
        }
        // Set aside at the second attempt.
        let _ = queue.check_out(&region, Wait::Yes, layout::OWN, 9, Some(1));
        pop(&region, &queue, 1);
        if closed {
            queue.leave(&region).expect("a file that is there");
        }
        fs::read(&path).expect("a file")
    })
}

/// Changes a word or a byte, more often where something is.
fn edit(bytes: &mut Bytes, file: &mut [u8]) {
    let size = file.len();
    let near = bytes.below(64 << 10);
    let at = match bytes.below(12) {
        0 => near % HEADER,
        1 => 4096 + near % HEADER,
        2 => 8192 + near % 896 / 8 * 8,
        3 => 12_288 + near % 64 * 8,
        4 => 20_480 + near % 512 * 8,
        5 => cursor::at(near % 4) as usize + near / 4 % 64 * 8,
        6 => cursor::at(layout::DEAD_CURSOR) as usize + near % 64 * 8,
        7 => layout::BITMAP as usize + near % 16,
        // The header of a segment, or of its first record.
        8 => offset_of(near as u64 % 8, SEGMENT) as usize + near / 8 % 128,
        9 => stream::at(near % 2) as usize + near / 2 % 8 * 8,
        _ => layout::DATA as usize + near * 8,
    };
    let Some(word) = file.get_mut(at..(at + 8).min(size)) else {
        return;
    };
    if let Ok(word) = <&mut [u8; 8]>::try_from(word) {
        let before = u64::from_le_bytes(*word);
        let after = bytes.altered(before);
        *word = after.to_le_bytes();
    }
}

/// Bit 0: of the first header, bit 1: of the second; bits 2 to 4: of as many segments.
fn mend_checksums(file: &mut [u8], mend: u8) {
    for (bit, place) in [(1, 0), (2, 4096)] {
        let header = file
            .get_mut(place..place + HEADER)
            .filter(|_| mend & bit != 0);
        if let Some(header) = header {
            let crc = crc32fast::hash(&header[..HEADER - 4]);
            header[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let number = |file: &[u8], at: usize| file.get(at..at + 8).map(<[u8]>::to_vec);
    for segment in 0..u64::from(mend >> 2 & 7) {
        let at = offset_of(segment, SEGMENT) as usize;
        let of_file = number(file, 32).unwrap_or_default();
        if let Some(header) = file.get_mut(at..at + 48) {
            let crc = crc32c::crc32c(&of_file);
            let crc = crc32c::crc32c_append(crc, &segment.to_le_bytes());
            let crc = crc32c::crc32c_append(crc, &header[8..]);
            header[4..8].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

/// 0: as it is, which is a file that was copied. 1: a closed file of this boot, whose checksum is compared. 2: one of this boot
/// that was not closed, whose control area is used as it is.
fn claim_boot(path: &Path, length: u64, trusted: usize) {
    use std::os::unix::fs::FileExt;
    if trusted == 0 || length < layout::DATA {
        return;
    }
    let file = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("a file");
    let inode = file.metadata().expect("its inode").ino();
    let put = |at: u64, word: &[u8]| file.write_all_at(word, at).expect("a write");
    let boot = layout::BOOT.0;
    put(boot + 16, &inode.to_le_bytes());
    put(boot, &base(true)[boot as usize..][..16]);
    if trusted == 2 {
        put(layout::CLEAN, &[0; 8]);
    }
    // A file would be made as long as this says.
    let word = fs::read(path).expect("a file")[layout::SEGMENTS as usize..][..8].try_into();
    let segments = u64::from_le_bytes(word.expect("eight bytes"));
    put(layout::SEGMENTS, &(segments % MOST_SEGMENTS).to_le_bytes());
}

fn push(region: &Region, queue: &Queue, item: u64, length: usize, limits: &Limits) {
    let payload = vec![item as u8; length];
    // SAFETY: a slice.
    let _ = unsafe { queue.push(region, Wait::Yes, (0, payload.as_ptr(), length), limits) };
}

fn pop(region: &Region, queue: &Queue, cursor: usize) {
    let mut payload = Vec::new();
    // SAFETY: the vector gets as much room as the payload needs.
    let _ = unsafe {
        queue.pop(region, Wait::Yes, cursor, |found| {
            payload = vec![0; found.head.length as usize];
            payload.as_mut_ptr()
        })
    };
}

fn calls(bytes: &mut Bytes, region: &Region, queue: &Queue) {
    let mut claims = Vec::new();
    for _ in 0..bytes.below(MOST_CALLS) {
        let cursor = [layout::OWN, layout::OWN, 1, 2, layout::DEAD_CURSOR][bytes.below(5)];
        call(bytes, region, queue, cursor, &mut claims);
    }
    // Each call comes further: in the end all that can be read was read.
    for _ in 0..20 {
        pop(region, queue, layout::OWN);
    }
    let _ = queue.lengths(region, layout::OWN);
}

fn call(
    bytes: &mut Bytes,
    region: &Region,
    queue: &Queue,
    cursor: usize,
    claims: &mut Vec<(usize, Claimed)>,
) {
    match bytes.below(14) {
        0 => push(region, queue, 1, bytes.below(200), &Limits::default()),
        1 => push(
            region,
            queue,
            2,
            bytes.below(1 << 16) * 2,
            &Limits::default(),
        ),
        2 => {
            let limits = Limits {
                most_bytes: bytes.flag().then(|| bytes.below(1 << 16) as u64 * 8),
                drop_oldest: bytes.flag(),
                identity: bytes
                    .flag()
                    .then(|| ([bytes.byte(); 16], bytes.number() >> 1)),
            };
            push(region, queue, 3, bytes.below(5000), &limits);
        }
        3 | 4 => pop(region, queue, cursor),
        5 => {
            let most = bytes.flag().then_some(1);
            let owner = u32::from(bytes.byte());
            if let Ok(Some(claimed)) = queue.check_out(region, Wait::Yes, cursor, owner, most) {
                let mut out = vec![0; claimed.found.head.length as usize];
                // SAFETY: the vector has as much room as the payload needs.
                let _ =
                    unsafe { queue.deliver_claimed(region, cursor, &claimed, out.as_mut_ptr()) };
                claims.push((cursor, claimed));
            }
        }
        6 => {
            if let Some((cursor, claimed)) = claims.pop() {
                let _ = match bytes.flag() {
                    true => queue.acknowledge(region, Wait::Yes, cursor, &claimed.receipt),
                    false => queue.release(region, Wait::Yes, cursor, &claimed.receipt),
                };
            }
        }
        7 => walk(region, queue, cursor),
        8 => {
            let mut payload = Vec::new();
            let last = bytes.flag();
            let mut room = |length: u64| {
                payload = vec![0; length as usize];
                Some(payload.as_mut_ptr())
            };
            let _ = queue.with(region, Wait::Yes, |locked| match last {
                // SAFETY: the vector gets as much room as the payload needs.
                true => unsafe { locked.peek_last(cursor, |found| room(found.head.length)) },
                // SAFETY: as above.
                false => unsafe { locked.peek(cursor, |found| room(found.head.length)) },
            });
        }
        9 => drop((
            queue.lengths(region, cursor),
            queue.bytes(region, Wait::Yes),
        )),
        10 => drop(queue.sync(region)),
        11 => {
            let (name, lag) = ([b'a' + bytes.byte() % 3], bytes.below(1 << 16) as u64);
            let _ = queue.with(region, Wait::Yes, |locked| {
                match locked.find_reader(&name)? {
                    Some(number) => locked.delete_reader(number),
                    None => locked.create_reader(&name, lag).map(drop),
                }
            });
        }
        12 => drop(queue.with(region, Wait::Yes, |locked| locked.clear(cursor))),
        _ => drop(queue.release_owner(region, Wait::Yes, bytes.byte().into())),
    }
}

/// Everything that there is to see, which is no more than the file has room for.
fn walk(region: &Region, queue: &Queue, cursor: usize) {
    let (mut from, most) = (0, region.len() / 8);
    for step in 0.. {
        assert!(step <= most, "a walk without an end");
        let mut payload = Vec::new();
        let found = queue.with(region, Wait::Yes, |locked| {
            // SAFETY: the vector gets as much room as the payload needs.
            let found = unsafe {
                locked.look(cursor, from, |found| {
                    payload = vec![0; found.head.length as usize];
                    Some(payload.as_mut_ptr())
                })
            };
            match found {
                Err(emmap_core::queue::Stop::Corrupt(at)) => {
                    locked.after_damage(cursor, at).map(Some)
                }
                found => Ok(found?.map(|(_, next)| next)),
            }
        });
        match found {
            Ok(Some(next)) => {
                assert!(next > from, "a walk goes on");
                from = next;
            }
            _ => return,
        }
    }
}
