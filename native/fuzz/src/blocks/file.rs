//! Files of blocks, with some of their bytes changed.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::OnceLock;

use emmap_core::blocks::layout::{self, group, BITS, PAGE, WORDS};
use emmap_core::blocks::replacing::ADDRESS;
use emmap_core::blocks::{open, Blocks, Geometry, Request};
use emmap_core::region::Wait;
use emmap_core::Region;

use super::super::bytes::Bytes;
use super::calls::block;

/// Bytes of a header with its checksum (`docs/formats.md`).
const HEADER: usize = 48;
const SECOND_HEADER: usize = 4096;
const MOST_EDITS: usize = 64;

/// A size of blocks, and how many are stored: in two groups, of which one is full; in some words; in pieces.
const SIZES: [(u64, u64); 3] = [(1, BITS + 200), (64, 300), (5000, 40)];

struct Base {
    geometry: Geometry,
    bytes: Vec<u8>,
}

/// A file of some kind, with some of its bytes changed.
pub fn content(bytes: &mut Bytes) -> Vec<u8> {
    let kind = bytes.below(8);
    if kind == 0 {
        return bytes.rest().to_vec();
    }
    let base = base(kind % SIZES.len(), bytes.flag());
    let mut file = base.bytes.clone();
    if kind == 7 {
        file[layout::LOCK as usize..].fill(0);
    }
    let mend = bytes.byte();
    for _ in 0..bytes.below(MOST_EDITS) {
        edit(bytes, &mut file, &base.geometry);
    }
    if bytes.below(8) == 1 {
        let length = bytes.number().min(file.len() as u64 + (64 << 10));
        file.resize(length as usize, 0xA5);
    }
    mend_checksums(&mut file, mend, &base.geometry);
    file
}

/// Blocks with all there can be: synced, freed, stored since, and replaced, in slots that a sync has seen or not.
fn base(kind: usize, closed: bool) -> &'static Base {
    static BASES: [[OnceLock<Base>; 2]; SIZES.len()] =
        [const { [const { OnceLock::new() }; 2] }; 3];
    BASES[kind][usize::from(closed)].get_or_init(|| {
        let directory = super::super::directory();
        let path = directory.path().join("blocks");
        let (size, count) = SIZES[kind];
        let request = Request {
            block_size: Some(size),
            existing: false,
        };
        let (region, blocks) = open(&path, &request).expect("new blocks");
        for number in 0..count {
            store(&region, &blocks, number as u32);
        }
        free(&region, &blocks, 3..7);
        blocks.sync(&region).expect("a sync");
        free(&region, &blocks, count - 9..count - 4);
        free(&region, &blocks, 10..12);
        for number in 0..4 {
            store(&region, &blocks, 50_000 + number);
        }
        replace(&region, &blocks, 12..20);
        if closed {
            blocks.leave(&region).expect("a file that is there");
        } else {
            // A sync sees the blocks in slots, and does not end; some of them are replaced again.
            blocks
                .with(&region, Wait::Yes, |locked| {
                    locked.begin_sync()?;
                    locked.see_group(0)?;
                    locked.see_slots().map(drop)
                })
                .expect("a sync that begins");
            replace(&region, &blocks, 16..24);
        }
        Base {
            geometry: *blocks.geometry(),
            bytes: fs::read(&path).expect("a file"),
        }
    })
}

fn store(region: &Region, blocks: &Blocks, number: u32) {
    let data = block(number, blocks);
    // SAFETY: a vector of a block's size.
    unsafe { blocks.store(region, Wait::Yes, data.as_ptr()) }.expect("room for a block");
}

fn free(region: &Region, blocks: &Blocks, addresses: std::ops::Range<u64>) {
    for address in addresses {
        blocks.free(region, Wait::Yes, address).expect("a block");
    }
}

fn replace(region: &Region, blocks: &Blocks, addresses: std::ops::Range<u64>) {
    for address in addresses {
        let data = block(60_000 + address as u32, blocks);
        // SAFETY: a vector of a block's size.
        unsafe { blocks.write(region, Wait::Yes, address, data.as_ptr()) }.expect("a block");
    }
}

/// Changes a word, more often where something is: to one that is near, to any, or to another one that is there.
fn edit(bytes: &mut Bytes, file: &mut [u8], geometry: &Geometry) {
    let at = place(bytes, geometry);
    let after = match bytes.below(8) {
        0 => word(file, place(bytes, geometry)),
        _ => word(file, at).map(|before| bytes.altered(before)),
    };
    if let (Some(word), Some(after)) = (file.get_mut(at..at + 8), after) {
        word.copy_from_slice(&after.to_le_bytes());
    }
}

fn word(file: &[u8], at: usize) -> Option<u64> {
    let bytes = file.get(at..at + 8)?;
    Some(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

fn place(bytes: &mut Bytes, geometry: &Geometry) -> usize {
    let near = bytes.below(64 << 10) as u64;
    let group = geometry.group(near % 2);
    let in_page = |page: u64| page + near / 2 % 8 * 8;
    let at = match bytes.below(16) {
        0 => near % HEADER as u64,
        1 => SECOND_HEADER as u64 + near % HEADER as u64,
        2 => layout::COUNT + near % 24 * 8,
        3 => layout::LOCK + near % 56 * 8,
        4 => layout::LOG.entries + near % 64 * 8,
        5 => layout::PARTICIPANTS.slots + near % 512 * 8,
        // Of the slots that the blocks replaced in the base can have.
        6 | 7 => layout::SLOT_ADDRESSES + slot(near, geometry) * 8,
        8 => layout::SLOT_NUMBERS + slot(near, geometry) * 16 + near / 512 % 2 * 8,
        9 => geometry.slot(slot(near, geometry)),
        // Bits, and which of their words are full.
        10 => in_page([layout::DIRECTORY, geometry.directory(0)][near as usize / 16 % 2]),
        11 => {
            let page = [layout::DIRECTORY, geometry.directory(0), group][near as usize / 16 % 3];
            in_page(page + WORDS * 8)
        }
        12 => in_page(group + near / 16 % 4 * PAGE),
        13 => in_page(group + group::CHANGED),
        14 => group + group::CHECKSUMS + near / 2 % 64 * 8,
        _ => group + group::BLOCKS + near / 2 * 8,
    };
    at as usize
}

fn slot(near: u64, geometry: &Geometry) -> u64 {
    let slots = geometry.slots_of(10 + near % 16);
    slots.start + near / 16 % (slots.end - slots.start)
}

/// Bit 0: of the first header, bit 1: of the second; bits 2 to 5: of pages D.
fn mend_checksums(file: &mut [u8], mend: u8, geometry: &Geometry) {
    for (bit, place) in [(1, 0), (2, SECOND_HEADER)] {
        let header = file
            .get_mut(place..place + HEADER)
            .filter(|_| mend & bit != 0);
        if let Some(header) = header {
            let crc = crc32fast::hash(&header[..HEADER - 4]);
            header[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let of_words = (WORDS * 8) as usize;
    let of_zeros = crc32c::crc32c(&vec![0; of_words]);
    for number in (0..4).filter(|number| mend >> (2 + number) & 1 == 1) {
        let at = (geometry.group(number / 2) + group::DURABLE[number as usize % 2]) as usize;
        if let Some(page) = file.get_mut(at..at + PAGE as usize) {
            let crc = u64::from(crc32c::crc32c(&page[..of_words]) ^ of_zeros);
            page[of_words..of_words + 8].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

/// 0: as it is, which is a file that was copied. 1: a closed file of this boot, whose bits are compared. 2: one of this boot
/// that was not closed, whose state is used as it is.
pub fn claim_boot(path: &Path, trusted: usize) {
    let file = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("a file");
    let inode = file.metadata().expect("its inode");
    if trusted == 0 || inode.len() < layout::SLOTS {
        return;
    }
    let put = |at: u64, word: &[u8]| file.write_all_at(word, at).expect("a write");
    let boot = layout::BOOT.0;
    put(boot, &base(0, true).bytes[boot as usize..][..16]);
    put(boot + 16, &inode.ino().to_le_bytes());
    put(layout::CLEAN, &u64::from(trusted == 1).to_le_bytes());
    // A reader does not look into the slots of a file that says that it has none.
    put(
        layout::REPLACED,
        &(in_slots(path).len() as u64).to_le_bytes(),
    );
}

/// The addresses that slots have, one for each.
pub fn in_slots(path: &Path) -> Vec<u64> {
    let file = fs::read(path).expect("a file");
    let words = (0..layout::MOST_SLOTS).map(|slot| layout::SLOT_ADDRESSES + slot * 8);
    words
        .filter_map(|at| word(&file, at as usize))
        .filter(|word| *word != 0)
        .map(|word| (word & ADDRESS).wrapping_sub(1))
        .collect()
}
