//! Files with a flipped bit, files of random bytes, and damaged words: an error, the right data, or an absence that is
//! counted, never other bytes; and an end.

use std::path::Path;

use emmap_core::blocks::{self, layout, Blocks, Request, Stop};
use emmap_core::region::Wait;
use emmap_core::store::{Medium, Shared};
use emmap_core::Region;

use crate::memory::Memory;
use crate::program::{content, Omission, Program};
use crate::random::{self, Random};

const SIZE: u64 = 64;
const BLOCKS: u64 = 200;

fn request() -> Request {
    Request {
        block_size: Some(SIZE),
        existing: true,
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// A closed file with some blocks, of which one was freed.
fn closed(path: &Path) -> Vec<u8> {
    let new = Request {
        existing: false,
        ..request()
    };
    let (region, blocks) = blocks::open(path, &new).unwrap();
    for number in 0..BLOCKS {
        let data = content(number, SIZE);
        // SAFETY: as many bytes as a block has.
        let stored = unsafe { blocks.store(&region, Wait::Yes, data.as_ptr()) };
        assert_eq!(stored, Ok(number));
    }
    blocks.free(&region, Wait::Yes, 100).unwrap();
    blocks.leave(&region).unwrap();
    std::fs::read(path).unwrap()
}

/// The bytes of a file that mean something, and some others.
fn places(file: &[u8], geometry: &blocks::Geometry) -> Vec<usize> {
    let every = std::env::var("EMMAP_EVERY_BIT").is_ok();
    let end = geometry.block(BLOCKS + 2) as usize;
    let group = geometry.group(0) as usize;
    let pages = group..group + layout::group::CHECKSUMS as usize;
    let is_chosen = |at: &usize| match *at {
        _ if every => true,
        at if at < layout::SLOTS as usize || pages.contains(&at) => {
            file[at] != 0 || at % 997 == 0 || IMPORTANT.contains(&at)
        }
        at => file[at] != 0 && at % 61 == 0 || at % 997 == 0,
    };
    (0..end).filter(is_chosen).collect()
}

/// The first words of the control area.
const IMPORTANT: std::ops::Range<usize> = 8448..8512;

fn read(region: &Region, blocks: &Blocks, address: u64) -> Result<Vec<u8>, Stop> {
    let mut out = vec![0; SIZE as usize];
    // SAFETY: a vector of a block's size.
    unsafe { blocks.read(region, Wait::Yes, address, out.as_mut_ptr())? };
    Ok(out)
}

#[test]
fn every_flipped_bit_of_a_closed_file() {
    let directory = directory();
    let path = directory.path().join("b");
    let file = closed(&path);
    let geometry = geometry_of(&path);
    let (mut flips, mut refused) = (0, 0);
    for at in places(&file, &geometry) {
        for bit in 0..8 {
            flips += 1;
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            // The same inode: as if nobody had noticed.
            std::fs::write(&path, &damaged).unwrap();
            let (region, blocks) = match blocks::open(&path, &request()) {
                Ok(opened) => opened,
                Err(_) => {
                    refused += 1;
                    continue;
                }
            };
            let wrong = format!("byte {at}, bit {bit}");
            let mut absent = 0;
            for address in (0..BLOCKS).filter(|address| *address != 100) {
                match read(&region, &blocks, address) {
                    Ok(bytes) => assert!(bytes == content(address, SIZE), "{wrong}: {address}"),
                    Err(Stop::Corrupt(_)) => (),
                    Err(Stop::Absent) => absent += 1,
                    Err(error) => panic!("{wrong}: {error:?}"),
                }
            }
            let info = blocks.info(&region, Wait::Yes).unwrap();
            let used =
                (0..info.capacity).filter(|at| blocks.is_used(&region, Wait::Yes, *at).unwrap());
            assert_eq!(info.count, used.count() as u64, "{wrong}");
            assert_eq!(absent, 0, "{wrong}: closed, and not there");
            use_it(&region, &blocks).unwrap_or_else(|stop| panic!("{wrong}: {stop:?}"));
        }
    }
    println!("{flips} flips, {refused} refused");
}

/// What is done with a file that was opened is done, or refused.
fn use_it(region: &Region, blocks: &Blocks) -> Result<(), Stop> {
    let data = content(7777, SIZE);
    // SAFETY: as many bytes as a block has.
    let address = unsafe { blocks.store(region, Wait::Yes, data.as_ptr())? };
    assert_eq!(read(region, blocks, address)?, data);
    blocks
        .with(region, Wait::Yes, |locked| Ok(locked.check()))?
        .unwrap();
    Ok(())
}

fn geometry_of(path: &Path) -> blocks::Geometry {
    let (_region, blocks) = blocks::open(path, &request()).unwrap();
    *blocks.geometry()
}

/// The bytes of a file of the simulated programs: all synced, but for some replaced blocks.
fn simulated() -> Vec<u8> {
    let memory = Memory::new(crate::program::new_file(SIZE));
    let program = Program::new(&memory, SIZE, Omission::Nothing);
    program.recover(false).unwrap();
    for number in 0..BLOCKS {
        program.store(&content(number, SIZE)).unwrap();
    }
    program.sync().unwrap();
    for number in 0..20 {
        program
            .replace(number, &content(number + 1000, SIZE))
            .unwrap();
    }
    memory.bytes()
}

#[test]
fn every_flipped_bit_after_a_reboot() {
    let file = simulated();
    let memory = Memory::new(file.clone());
    let geometry = Program::new(&memory, SIZE, Omission::Nothing).geometry;
    let (mut flips, mut gone) = (0, 0);
    for at in places(&file, &geometry) {
        for bit in 0..8 {
            flips += 1;
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            let memory = Memory::new(damaged);
            let program = Program::new(&memory, SIZE, Omission::Nothing);
            let wrong = format!("byte {at}, bit {bit}");
            let Ok(recovered) = program.recover(false) else {
                continue;
            };
            program
                .locked()
                .check()
                .unwrap_or_else(|what| panic!("{wrong}: {what}"));
            let mut found = 0;
            for address in 0..program.word(layout::CAPACITY) {
                match program.read(address) {
                    Ok(bytes) => {
                        let old = bytes == content(address, SIZE);
                        let new = address < 20 && bytes == content(address + 1000, SIZE);
                        assert!(address < BLOCKS && (old || new), "{wrong}: {address}");
                        found += 1;
                    }
                    Err(Stop::Corrupt(_)) => found += 1,
                    Err(Stop::Absent) => (),
                    Err(error) => panic!("{wrong}: {error:?}"),
                }
            }
            assert_eq!(recovered.kept, found, "{wrong}");
            assert!(recovered.kept >= BLOCKS - 1, "{wrong}: {recovered:?}");
            gone += BLOCKS.saturating_sub(recovered.kept);
            program.sync().unwrap();
            program.check();
        }
    }
    println!("{flips} flips, {gone} blocks gone");
}

/// Some calls on damaged memory: each must end, and none may return bytes that were never stored.
fn use_damaged(memory: &Memory, random: &mut Random, calls: u64) {
    let program = Program::new(memory, SIZE, Omission::Nothing);
    for _ in 0..calls {
        let address = random.below(BLOCKS + 20);
        match random.below(10) {
            0..=2 => drop(program.store(&content(address + 5000, SIZE))),
            3..=4 => {
                let data = content(address + 5000, SIZE);
                if program.replace(address, &data) == Err(Stop::Sync) && program.sync().is_ok() {
                    assert_ne!(
                        program.replace(address, &data),
                        Err(Stop::Sync),
                        "without end"
                    );
                }
            }
            5..=6 => drop(program.free(address)),
            7 => drop(program.trim()),
            8 => match random.below(4) {
                0 => drop(program.sync()),
                1 => drop(program.locked().check()),
                2 => drop(program.locked().is_as_synced()),
                _ => drop(program.addresses()),
            },
            _ => {
                if let Ok(bytes) = program.read(address) {
                    let of = |numbers: std::ops::Range<u64>| {
                        numbers
                            .into_iter()
                            .any(|number| content(number, SIZE) == bytes)
                    };
                    assert!(
                        of(0..BLOCKS + 20) || of(1000..1020) || of(5000..5300),
                        "{address}"
                    );
                }
            }
        }
    }
}

fn wanted_calls() -> u64 {
    let calls = std::env::var("EMMAP_DAMAGED_CALLS").ok();
    calls.and_then(|calls| calls.parse().ok()).unwrap_or(20_000)
}

#[test]
fn damaged_words() {
    let file = simulated();
    let memory = Memory::new(file.clone());
    let geometry = Program::new(&memory, SIZE, Omission::Nothing).geometry;
    let values = [
        0,
        1,
        7,
        63,
        64,
        255,
        32_255,
        32_256,
        u64::MAX,
        u64::MAX - 1,
        u64::MAX / 2,
        1 << 62,
        1 << 45,
    ];
    let mut calls = 0;
    let mut seed = 0;
    while calls < wanted_calls() {
        seed += 1;
        let mut random = Random::of(seed);
        let memory = Memory::new(file.clone());
        for _ in 0..1 + random.below(3) {
            let at = match random.below(8) {
                0..=2 => layout::COUNT + random.below(7) * 8,
                3 => layout::SLOT_ADDRESSES + random.below(1024) * 8,
                4 => layout::SLOT_NUMBERS + random.below(2048) * 8,
                5 => layout::DIRECTORY + random.below(512) * 8,
                6 => geometry.directory(0) + random.below(512) * 8,
                _ => geometry.group(0) + random.below(2048) * 8,
            };
            let value = match random.below(3) {
                0 => random.next(),
                1 => values[random.below(values.len() as u64) as usize],
                _ => memory.load(at).unwrap() ^ 1 << random.below(64),
            };
            memory.store(at, value).unwrap();
        }
        let program = Program::new(&memory, SIZE, Omission::Nothing);
        if random.below(2) == 0 && program.recover(random.below(2) == 0).is_err() {
            continue;
        }
        use_damaged(&memory, &mut random, 100);
        calls += 100;
    }
}

#[test]
fn random_bytes_behind_a_header() {
    let directory = directory();
    let path = directory.path().join("b");
    let header = closed(&path)[..8192].to_vec();
    for seed in 0..100 {
        let mut random = Random::of(seed);
        let length = [random.below(300_000), 2_400_000][random.below(8) as usize / 7] + 1;
        let mut file = random::bytes(seed, length as usize);
        let with_header = header.len().min(file.len());
        if seed % 4 != 0 {
            file[..with_header].copy_from_slice(&header[..with_header]);
        }
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, &file).unwrap();
        let Ok((region, blocks)) = blocks::open(&path, &request()) else {
            continue;
        };
        for address in 0..1000 {
            assert!(
                read(&region, &blocks, address).is_err(),
                "{seed}: {address}"
            );
        }
        let _ = use_it(&region, &blocks);
        let _ = blocks.sync(&region);
        let _ = blocks.leave(&region);
    }
    // A file that does not contain blocks is not changed.
    let file = random::bytes(7, 300_000);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, &file).unwrap();
    assert!(blocks::open(&path, &request()).is_err());
    assert!(std::fs::read(&path).unwrap() == file);
    assert_eq!(
        Medium::len(&std::fs::File::open(&path).unwrap()),
        Ok(300_000)
    );
}
