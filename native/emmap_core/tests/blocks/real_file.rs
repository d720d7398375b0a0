//! Real files.

use std::path::Path;

use emmap_core::blocks::{self, Blocks, Request, Stop};
use emmap_core::region::Wait;
use emmap_core::Region;

fn open(path: &Path, block_size: u64) -> (Region, Blocks) {
    let request = Request {
        block_size: Some(block_size),
        existing: false,
    };
    blocks::open(path, &request).unwrap()
}

fn block(number: u64, size: u64) -> Vec<u8> {
    let mut bytes = vec![number as u8; size as usize];
    let word = number.to_le_bytes();
    let count = word.len().min(bytes.len());
    bytes[..count].copy_from_slice(&word[..count]);
    bytes
}

fn store(region: &Region, blocks: &Blocks, data: &[u8]) -> Result<u64, Stop> {
    // SAFETY: a slice of a block's size.
    unsafe { blocks.store(region, Wait::Yes, data.as_ptr()) }
}

fn read(region: &Region, blocks: &Blocks, address: u64) -> Result<Vec<u8>, Stop> {
    let mut out = vec![0; blocks.geometry().block_size as usize];
    // SAFETY: a vector of a block's size.
    unsafe { blocks.read(region, Wait::Yes, address, out.as_mut_ptr())? };
    Ok(out)
}

#[test]
fn blocks_survive_closing_and_not_closing() {
    let directory = tempfile::tempdir().unwrap();
    for size in [1, 7, 64, 1000, 4096, 300_000] {
        let path = directory.path().join(size.to_string());
        let each = if size > 10_000 { 20 } else { 3000 };
        for round in 0..4u64 {
            let (region, blocks) = open(&path, size);
            assert_eq!(blocks.count(&region), Ok(round * each));
            for number in round * each..(round + 1) * each {
                let stored = store(&region, &blocks, &block(number, size));
                assert_eq!(stored, Ok(number), "{size}");
            }
            for number in 0..(round + 1) * each {
                assert_eq!(read(&region, &blocks, number), Ok(block(number, size)));
            }
            if round % 2 == 0 {
                blocks.leave(&region).unwrap();
            }
        }
    }
}

#[test]
fn the_lowest_free_address_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("b");
    let (region, blocks) = open(&path, 64);
    const COUNT: u64 = 100_000;
    for number in 0..COUNT {
        assert_eq!(store(&region, &blocks, &block(number, 64)), Ok(number));
    }
    for number in (0..COUNT).rev().filter(|number| number % 3 == 0) {
        blocks.free(&region, Wait::Yes, number).unwrap();
        assert_eq!(blocks.free(&region, Wait::Yes, number), Err(Stop::Absent));
        assert_eq!(read(&region, &blocks, number), Err(Stop::Absent));
    }
    for number in (0..COUNT).filter(|number| number % 3 == 0) {
        assert_eq!(store(&region, &blocks, &block(number, 64)), Ok(number));
    }
    assert_eq!(store(&region, &blocks, &block(COUNT, 64)), Ok(COUNT));
    blocks.sync(&region).unwrap();
    // What a sync has covered is not used again before the next one.
    blocks.free(&region, Wait::Yes, 5).unwrap();
    assert_eq!(store(&region, &blocks, &block(1, 64)), Ok(COUNT + 1));
    blocks.sync(&region).unwrap();
    assert_eq!(store(&region, &blocks, &block(5, 64)), Ok(5));
    blocks
        .with(&region, Wait::Yes, |locked| {
            locked.check().unwrap();
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_block_that_is_replaced_stays_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("b");
    let (region, blocks) = open(&path, 4096);
    for number in 0..1000 {
        store(&region, &blocks, &block(number, 4096)).unwrap();
    }
    for round in 1..4u64 {
        if round == 2 {
            blocks.sync(&region).unwrap();
        }
        for number in 0..1000 {
            let data = block(number + round * 1000, 4096);
            // SAFETY: a slice of a block's size.
            unsafe {
                blocks
                    .write(&region, Wait::Yes, number, data.as_ptr())
                    .unwrap()
            };
            assert_eq!(read(&region, &blocks, number), Ok(data));
        }
        for number in 0..1000 {
            let data = block(number + round * 1000, 4096);
            assert_eq!(read(&region, &blocks, number), Ok(data));
        }
    }
    blocks.leave(&region).unwrap();
}

#[test]
#[ignore]
fn speed() {
    let directory = tempfile::tempdir().unwrap();
    let (region, blocks) = open(&directory.path().join("b"), 64);
    let data = block(7, 64);
    for _ in 0..60 {
        let count = 20_000u64;
        let start = std::time::Instant::now();
        for _ in 0..count {
            store(&region, &blocks, &data).unwrap();
        }
        let stored = start.elapsed();
        let mut out = vec![0; 64];
        let start = std::time::Instant::now();
        for number in 0..count {
            // SAFETY: a vector of a block's size.
            unsafe {
                blocks
                    .read(&region, Wait::No, number, out.as_mut_ptr())
                    .unwrap()
            };
        }
        let read = start.elapsed();
        let start = std::time::Instant::now();
        for number in 0..count {
            blocks.free(&region, Wait::No, number).unwrap();
        }
        println!(
            "store {:?} read {:?} free {:?}",
            stored / count as u32,
            read / count as u32,
            start.elapsed() / count as u32
        );
    }
}
