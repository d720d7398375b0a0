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

fn write(region: &Region, blocks: &Blocks, address: u64, data: &[u8]) -> Result<(), Stop> {
    // SAFETY: a slice of a block's size.
    unsafe { blocks.write(region, Wait::Yes, address, data.as_ptr()) }
}

fn check(region: &Region, blocks: &Blocks) {
    blocks
        .with(region, Wait::Yes, |locked| Ok(locked.check()))
        .unwrap()
        .unwrap();
}

#[test]
fn two_maps_of_a_file_that_grows_and_is_trimmed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("b");
    // As two programs: each has a map of its own.
    let ((one_region, one), (region, two)) = (open(&path, 4096), open(&path, 4096));
    for number in 0..1000 {
        assert_eq!(store(&one_region, &one, &block(number, 4096)), Ok(number));
    }
    assert!(one_region.len() > region.len());
    assert_eq!(two.count(&region), Ok(1000));
    let mut out = vec![0; 4096];
    // SAFETY: a vector of a block's size.
    let busy = unsafe { two.read(&region, Wait::No, 999, out.as_mut_ptr()) };
    assert_eq!(busy, Err(Stop::Busy));
    assert_eq!(two.next_used(&region, Wait::No, 0, 9), Err(Stop::Busy));
    assert_eq!(read(&region, &two, 999), Ok(block(999, 4096)));
    two.sync(&region).unwrap();
    for number in 10..1000 {
        two.free(&region, Wait::Yes, number).unwrap();
    }
    // They are held.
    two.trim(&region).unwrap();
    assert_eq!(store(&region, &two, &block(1, 4096)), Ok(1000));
    one.free(&one_region, Wait::Yes, 1000).unwrap();
    one.sync(&one_region).unwrap();
    let length = std::fs::metadata(&path).unwrap().len();
    assert!(one.trim(&one_region).unwrap() >= 990 * 4096);
    assert_eq!(one.trim(&one_region), Ok(0));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), length);
    check(&region, &two);
    for number in 10..2000 {
        assert_eq!(store(&region, &two, &block(number, 4096)), Ok(number));
    }
    for number in 0..2000 {
        assert_eq!(read(&one_region, &one, number), Ok(block(number, 4096)));
    }
    check(&one_region, &one);
}

#[test]
fn threads_store_free_replace_and_read_at_once() {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicBool, Ordering};
    const SIZE: u64 = 4096;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("b");
    let handles = [open(&path, SIZE), open(&path, SIZE)];
    let taken = std::sync::Mutex::new(HashMap::new());
    let (end, handles) = (AtomicBool::new(false), &handles);
    // Readers check that a block has one content: eight bytes, repeated.
    let whole = |bytes: &[u8]| bytes.chunks(8).all(|word| word == &bytes[..8]);
    let filled = |number: u64| number.to_le_bytes().repeat(SIZE as usize / 8);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4u64)
            .map(|writer| {
                let (taken, filled) = (&taken, &filled);
                scope.spawn(move || {
                    let (region, blocks) = &handles[writer as usize % 2];
                    let mut own: Vec<(u64, u64)> = Vec::new();
                    for turn in 0..3000u64 {
                        let number = writer << 32 | turn;
                        let which = (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) as usize;
                        if own.len() > 10 && turn % 3 == 0 {
                            let (address, _) = own.swap_remove(which % own.len());
                            // Before: another thread may store there at once.
                            taken.lock().unwrap().remove(&address);
                            blocks.free(region, Wait::Yes, address).unwrap();
                        } else if own.len() > 5 && turn % 3 == 1 {
                            let at = which % own.len();
                            let address = own[at].0;
                            write(region, blocks, address, &filled(number)).unwrap();
                            own[at].1 = number;
                            assert_eq!(read(region, blocks, address), Ok(filled(number)));
                        } else {
                            let address = store(region, blocks, &filled(number)).unwrap();
                            let before = taken.lock().unwrap().insert(address, writer);
                            assert_eq!(before, None, "{address} was given twice");
                            own.push((address, number));
                        }
                        if turn % 500 == 499 {
                            blocks.sync(region).unwrap();
                        }
                    }
                    own
                })
            })
            .collect();
        for reader in 0..3 {
            let end = &end;
            scope.spawn(move || {
                let (region, blocks) = &handles[reader % 2];
                let mut found = 0;
                while !end.load(Ordering::Relaxed) {
                    for address in 0..60 {
                        match read(region, blocks, address) {
                            Ok(bytes) => assert!(whole(&bytes), "{address} is mixed"),
                            Err(Stop::Absent) => continue,
                            Err(stop) => panic!("{address}: {stop:?}"),
                        }
                        assert_ne!(blocks.is_sound(region, address), Ok(false));
                        found += 1;
                    }
                    let last = blocks.last_used(region, Wait::Yes, u64::MAX).unwrap();
                    blocks
                        .next_used(region, Wait::Yes, last.unwrap_or(0) / 2, u64::MAX)
                        .unwrap();
                }
                assert!(found > 0);
            });
        }
        scope.spawn(|| {
            let (region, blocks) = &handles[0];
            while !end.load(Ordering::Relaxed) {
                blocks.sync(region).unwrap();
                blocks.trim(region).unwrap();
            }
        });
        let mut all = Vec::new();
        for writer in writers {
            let own = writer.join();
            end.store(own.is_err(), Ordering::Relaxed);
            all.extend(own.unwrap());
        }
        end.store(true, Ordering::Relaxed);
        let (region, blocks) = &handles[0];
        assert_eq!(blocks.count(region), Ok(all.len() as u64));
        for (address, number) in all {
            assert_eq!(read(region, blocks, address), Ok(filled(number)));
        }
    });
    check(&handles[1].0, &handles[1].1);
}

/// A reader sees the last content of a block that was replaced, or a later one, though it moves from slot to slot.
#[test]
fn a_reader_never_sees_what_was_replaced_before() {
    use std::sync::atomic::{AtomicU64, Ordering};
    const TURNS: u64 = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let (region, blocks) = &open(&directory.path().join("b"), 64);
    let filled = |number: u64| number.to_le_bytes().repeat(8);
    store(region, blocks, &filled(0)).unwrap();
    blocks.sync(region).unwrap();
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| loop {
                let before = done.load(Ordering::SeqCst);
                let bytes = read(region, blocks, 0).unwrap();
                let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                assert!(number >= before, "{number}, after {before} was there");
                if before == TURNS {
                    break;
                }
            });
        }
        for number in 1..=TURNS {
            write(region, blocks, 0, &filled(number)).unwrap();
            done.store(number, Ordering::SeqCst);
            if number % 5000 == 0 {
                blocks.sync(region).unwrap();
            }
        }
    });
}

#[test]
fn a_file_of_another_boot_is_read_again() {
    use emmap_core::blocks::layout;
    use std::os::unix::fs::FileExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("b");
    let (region, blocks) = open(&path, 100);
    for number in 0..300 {
        store(&region, &blocks, &block(number, 100)).unwrap();
    }
    blocks.sync(&region).unwrap();
    blocks.free(&region, Wait::Yes, 7).unwrap();
    write(&region, &blocks, 8, &block(1008, 100)).unwrap();
    assert_eq!(store(&region, &blocks, &block(300, 100)), Ok(300));
    // Nobody closes it.
    drop((region, blocks));
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[77; 16], layout::BOOT.0).unwrap();
    // As a power failure may leave them.
    for word in [
        layout::LOCK,
        layout::LOG.length,
        layout::SYNC_LOCK,
        layout::COUNT,
        layout::HINT,
        layout::CAPACITY,
    ] {
        file.write_all_at(&[0x5a; 8], word).unwrap();
    }
    let (region, blocks) = open(&path, 100);
    let info = blocks.info(&region, Wait::Yes).unwrap();
    assert_eq!(
        (info.count, info.recovered.kept, info.recovered.dropped),
        (299, 299, 1)
    );
    assert_eq!(info.recoveries, 1);
    for number in 0..301 {
        let expected = match number {
            7 | 300 => Err(Stop::Absent),
            8 => Ok(block(1008, 100)),
            _ => Ok(block(number, 100)),
        };
        assert_eq!(read(&region, &blocks, number), expected);
    }
    check(&region, &blocks);
    // 7 is held until a sync has covered that it is free.
    assert_eq!(store(&region, &blocks, &block(1, 100)), Ok(300));
    blocks.sync(&region).unwrap();
    assert_eq!(store(&region, &blocks, &block(7, 100)), Ok(7));
    assert_eq!(
        open(&path, 100)
            .1
            .info(&region, Wait::Yes)
            .unwrap()
            .recoveries,
        1
    );
}

#[test]
fn a_closed_file_that_was_changed_is_as_the_sync_left_it() {
    use emmap_core::blocks::layout;
    use std::os::unix::fs::FileExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("b");
    let (region, blocks) = open(&path, 100);
    for number in 0..300 {
        store(&region, &blocks, &block(number, 100)).unwrap();
    }
    let live = blocks.geometry().group(0) + layout::group::LIVE;
    blocks.leave(&region).unwrap();
    drop((region, blocks));
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    for at in [
        layout::COUNT,
        layout::CAPACITY,
        layout::HINT,
        layout::REPLACED,
        layout::SYNCS_DONE,
        live,
    ] {
        file.write_all_at(&[0x77; 3], at).unwrap();
        let (region, blocks) = open(&path, 100);
        assert_eq!(blocks.count(&region), Ok(300));
        assert_eq!(read(&region, &blocks, 299), Ok(block(299, 100)));
        check(&region, &blocks);
        blocks.leave(&region).unwrap();
    }
}

#[test]
fn a_file_that_was_truncated_is_refused() {
    use emmap_core::blocks::layout;
    use std::os::unix::fs::FileExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("b");
    let (region, blocks) = open(&path, 4096);
    for number in 0..300 {
        store(&region, &blocks, &block(number, 4096)).unwrap();
    }
    let (middle, group) = (
        blocks.geometry().block(100),
        blocks.geometry().group(0) + 50_000,
    );
    blocks.leave(&region).unwrap();
    drop((region, blocks));
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let request = Request {
        block_size: None,
        existing: true,
    };
    for length in [middle, group] {
        file.set_len(length).unwrap();
        for boot in [false, true] {
            if boot {
                file.write_all_at(&[length as u8; 16], layout::BOOT.0)
                    .unwrap();
            }
            assert!(blocks::open(&path, &request).is_err(), "{length}, {boot}");
        }
    }
}

#[test]
fn a_page_has_room_for_more_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let (region, blocks) = open(&directory.path().join("b"), 1);
    let last = emmap_core::blocks::layout::BITS - 10;
    for number in 0..last {
        assert_eq!(store(&region, &blocks, &[7]), Ok(number));
    }
    // From here on to the end of the group, the file has all pages.
    blocks.trim(&region).unwrap();
    for number in last..last + 20 {
        assert_eq!(store(&region, &blocks, &[7]), Ok(number));
    }
}

#[test]
fn a_handle_is_reattached() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("b");
    let ((one_region, one), (region, two)) = (open(&path, 64), open(&path, 64));
    for number in 0..5000 {
        store(&one_region, &one, &block(number, 64)).unwrap();
    }
    two.reattach(&region).unwrap();
    assert_eq!(read(&region, &two, 4999), Ok(block(4999, 64)));
    // Another file by now.
    std::fs::write(&path, [0; 10_000]).unwrap();
    assert!(two.reattach(&region).is_err());
}
