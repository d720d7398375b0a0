//! Any bytes as a counter file: what is refused is left as it was, and what is opened keeps its
//! counters, shows no more than the file has, and grows without losing any.

use std::fs;
use std::path::Path;

use emmap_core::counters::{format, open, Error, Grid, Layout, Request};
use emmap_core::store::Structure;
use emmap_core::Region;

use super::bytes::Bytes;
use super::traces::Traces;

/// Bytes of a header, and where its checksums are (`docs/formats.md`).
const HEADER: usize = 80;
const NAMES_CRC: usize = 72;
const HEADER_CRC: usize = 76;
const MOST_BYTES: usize = 1 << 20;

pub fn run(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let directory = super::directory();
    let path = directory.path().join("counters");
    let traces = Traces::before();
    let request = request(&mut bytes);
    let before = content(&mut bytes);
    if let Some(before) = &before {
        fs::write(&path, before).expect("a file");
    }
    let layout = read(&path);
    match open(&path, &request) {
        Err(error) => assert_refused(&path, before.as_deref(), layout, &error),
        Ok(counters) => {
            let grid = Grid::from(&counters.layout);
            let size = fs::metadata(&path).expect("its size").len();
            assert_eq!(counters.region.len() as u64, size);
            assert!(counters
                .layout
                .file_size()
                .is_some_and(|least| least <= size));
            assert!(grid.count() >= request.count.min(1) && has_names(&counters.layout, &request));
            let values = grid.values(&counters.region).expect("all are in the map");
            let kept = before.as_deref().zip(layout.as_ref());
            let kept = kept.map_or(Vec::new(), |(before, layout)| values_of(before, layout));
            assert_eq!(values[..kept.len()], kept, "a counter moved");
            assert!(values[kept.len()..].iter().all(|value| *value == 0));
            assert_counts(&grid, &counters.region, &values);
            let shown = counters.layout.clone();
            drop(counters);
            assert_eq!(read(&path).map(|layout| layout.names), Some(shown.names));
            assert_opens_again(&path, &request, values.len());
        }
    }
    for left in fs::read_dir(&directory).expect("a directory").flatten() {
        assert_eq!(left.path(), path);
    }
    traces.check(directory.path());
}

fn read(path: &Path) -> Option<Layout> {
    let file = fs::File::open(path).ok()?;
    Layout::read(&file).ok()
}

/// All counters as the file has them, by its documented format.
fn values_of(file: &[u8], layout: &Layout) -> Vec<i64> {
    let word = |at: u64| {
        let at = at as usize;
        i64::from_ne_bytes(file[at..at + 8].try_into().expect("eight bytes"))
    };
    (0..layout.count)
        .map(|index| {
            let first = format::position(layout.data_offset, layout.stripes, index);
            let stripes = 0..u64::from(layout.stripes);
            stripes.fold(0, |sum: i64, stripe| {
                sum.wrapping_add(word(first + stripe * 128))
            })
        })
        .collect()
}

fn has_names(layout: &Layout, request: &Request) -> bool {
    let common = layout.names.len().min(request.names.len());
    layout.names[..common] == request.names[..common]
        && (layout.names.is_empty() || layout.names.len() as u64 == layout.count)
}

fn assert_refused(path: &Path, before: Option<&[u8]>, layout: Option<Layout>, error: &Error) {
    let after = fs::read(path).ok();
    match error {
        // No room to grow: it has the counters that it had, and their values.
        Error::Posix(_) if layout.is_some() => {
            let (before, after) = (before.expect("a file"), after.expect("a file"));
            let layout = layout.expect("a layout");
            assert_eq!(before.len(), after.len());
            let now = read(path).expect("it is still a counter file");
            assert_eq!((now.count, &now.names), (layout.count, &layout.names));
            assert_eq!(values_of(&after, &now), values_of(before, &layout));
        }
        _ => assert_eq!(after.as_deref(), before, "refused, and changed"),
    }
}

/// The last counter counts, and no other.
fn assert_counts(grid: &Grid, region: &Region, values: &[i64]) {
    let Some(last) = grid.count().checked_sub(1) else {
        return;
    };
    assert!(grid.add(region, last, 5).is_ok());
    let mut expected = values.to_vec();
    expected[last as usize] = expected[last as usize].wrapping_add(5);
    assert_eq!(grid.values(region), Ok(expected));
    assert!(grid.add(region, grid.count(), 1).is_err());
}

fn assert_opens_again(path: &Path, request: &Request, count: usize) {
    let again = open(path, request).map_err(|error| panic!("{error:?}"));
    let again = again.map(|counters| counters.layout.count as usize);
    assert_eq!(again, Ok::<_, ()>(count));
}

fn request(bytes: &mut Bytes) -> Request {
    let named = bytes.flag();
    let count = bytes.below(40) as u64;
    let huge = bytes.below(16) == 1;
    Request {
        // Few, or more than any disk holds.
        count: if huge {
            bytes.number().max(1 << 47)
        } else {
            count
        },
        names: match named {
            true => (0..count).map(name).collect(),
            false => Vec::new(),
        },
        stripes: bytes.below(20) as u32,
        existing: false,
    }
}

/// Of some length, so that a table of them does not always have room.
fn name(index: u64) -> String {
    format!("n{index}").repeat(1 + index as usize % 5)
}

/// `None`: no file yet.
fn content(bytes: &mut Bytes) -> Option<Vec<u8>> {
    match bytes.below(8) {
        0 => None,
        1 => Some(bytes.rest().to_vec()),
        2 => Some(predecessor(bytes)),
        3 | 4 => Some(edited(bytes)),
        _ => Some(assembled(bytes)),
    }
}

fn predecessor(bytes: &mut Bytes) -> Vec<u8> {
    let mut file = format::PREDECESSOR.to_vec();
    file.extend(bytes.number().to_le_bytes());
    let more = bytes.below(4000);
    file.extend((0..more).map(|at| at as u8));
    let keep = bytes.below(8);
    if keep > 0 {
        file.truncate(keep * 3);
    }
    file
}

/// A valid file, with some of its bytes changed, removed or added.
fn edited(bytes: &mut Bytes) -> Vec<u8> {
    let directory = super::directory();
    let path = directory.path().join("counters");
    // Small enough to be written often, so with names only where it has little else.
    let count = 1 + bytes.below(20) as u64;
    let request = Request {
        count,
        names: match bytes.below(8) {
            0 => (0..count).map(name).collect(),
            _ => Vec::new(),
        },
        stripes: bytes.below(4) as u32,
        existing: false,
    };
    drop(open(&path, &request).map_err(|error| panic!("{error:?}")));
    let mut file = fs::read(&path).expect("a file");
    let length = bytes.below(16 << 10);
    if bytes.flag() {
        file.resize(length.max(1), 0xA5);
    }
    let mend = bytes.byte();
    loop {
        let (at, value) = (bytes.below(16 << 10), bytes.byte());
        if value == 0 {
            break;
        }
        if let Some(byte) = file.get_mut(at) {
            *byte ^= value;
        }
    }
    mend_checksums(&mut file, mend);
    file
}

/// Two headers of any numbers, whose checksums match depending on the bytes.
fn assembled(bytes: &mut Bytes) -> Vec<u8> {
    let mend = bytes.byte();
    let length = bytes.below(64 << 10) + usize::from(bytes.below(16) == 1) * (MOST_BYTES >> 1);
    let mut file = vec![0; length];
    for place in [0, 4096] {
        let mut header = [0u8; HEADER];
        header[..8].copy_from_slice(&format::MAGIC);
        header[8..12].copy_from_slice(&(u32::from(bytes.byte() == 1) + 1).to_le_bytes());
        header[12..16].copy_from_slice(&0x0102_0304u32.to_ne_bytes());
        let room = (bytes.below(4) as u64) << 12;
        let fields = [
            (16, bytes.number()),
            (24, bytes.number()),
            (32, bytes.below(2000) as u64),
            (40, 8192 + room),
            (48, 8192),
            (56, room),
            (64, bytes.number()),
        ];
        for (at, value) in fields {
            let value = match bytes.below(8) {
                1 => bytes.number(),
                _ => value,
            };
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        if let Some(to) = file.get_mut(place..place + HEADER) {
            to.copy_from_slice(&header);
        }
    }
    let table: Vec<u8> = match bytes.flag() {
        true => bytes.rest().to_vec(),
        false => (0..bytes.below(20) as u64)
            .flat_map(|index| {
                let name = name(index);
                let length = (name.len() as u16).to_le_bytes();
                [&length, name.as_bytes()].concat()
            })
            .collect(),
    };
    if mend & 4 != 0 {
        // Its length is as long as it is.
        for place in [0, 4096] {
            if let Some(to) = file.get_mut(place + 64..place + 72) {
                to.copy_from_slice(&(table.len() as u64).to_le_bytes());
            }
        }
    }
    let end = file.len().min(8192 + table.len());
    if let Some(to) = file.get_mut(8192..end) {
        to.copy_from_slice(&table[..end - 8192]);
    }
    mend_checksums(&mut file, mend);
    file
}

/// Bit 0: of the first header, bit 1: of the second.
fn mend_checksums(file: &mut [u8], mend: u8) {
    for (bit, place) in [(1, 0), (2, 4096)] {
        if mend & bit == 0 || file.len() < place + HEADER {
            continue;
        }
        let length = file[place + 64..place + 72]
            .try_into()
            .expect("eight bytes");
        let length = u64::from_le_bytes(length).min(MOST_BYTES as u64) as usize;
        let table = file.get(8192..8192 + length).map(crc32fast::hash);
        if let Some(crc) = table {
            file[place + NAMES_CRC..place + HEADER_CRC].copy_from_slice(&crc.to_le_bytes());
        }
        let crc = crc32fast::hash(&file[place..place + HEADER_CRC]);
        file[place + HEADER_CRC..place + HEADER].copy_from_slice(&crc.to_le_bytes());
    }
}
