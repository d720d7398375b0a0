//! A million values of 64 bytes by their number: stored, read, half of them removed, and brought to the disk. Minima of some
//! rounds, in nanoseconds each.

use std::path::Path;
use std::time::Instant;

use emmap_core::blocks::{self, Request};
use emmap_core::region::Wait;
use redb::{Database, Durability, TableDefinition};

const COUNT: u64 = 1_000_000;
const ROUNDS: usize = 5;
const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("blocks");

type Times = [f64; 4];

fn value(number: u64) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (index, word) in bytes.chunks_mut(8).enumerate() {
        word.copy_from_slice(&number.wrapping_mul(index as u64 + 1).to_le_bytes());
    }
    bytes
}

fn each(count: u64, act: impl FnOnce()) -> f64 {
    let start = Instant::now();
    act();
    start.elapsed().as_nanos() as f64 / count as f64
}

fn emmap(path: &Path) -> Times {
    let request = Request {
        block_size: Some(64),
        existing: false,
    };
    let (region, blocks) = blocks::open(path, &request).unwrap();
    let store = each(COUNT, || {
        for number in 0..COUNT {
            // SAFETY: an array of a block's size.
            unsafe { blocks.store(&region, Wait::Yes, value(number).as_ptr()) }.unwrap();
        }
    });
    let sync = each(1, || blocks.sync(&region).unwrap());
    let read = each(COUNT, || {
        let mut out = [0; 64];
        for number in 0..COUNT {
            let number = number * 7919 % COUNT;
            // SAFETY: an array of a block's size.
            unsafe { blocks.read(&region, Wait::Yes, number, out.as_mut_ptr()) }.unwrap();
            assert_eq!(out[..8], number.to_le_bytes());
        }
    });
    let free = each(COUNT / 2, || {
        for number in (0..COUNT).step_by(2) {
            blocks.free(&region, Wait::Yes, number).unwrap();
        }
    });
    blocks.leave(&region).unwrap();
    [store, read, free, sync]
}

fn redb(path: &Path) -> Times {
    let database = Database::create(path).unwrap();
    let change = |durability, act: &mut dyn FnMut(&mut redb::Table<u64, &[u8]>)| {
        let mut transaction = database.begin_write().unwrap();
        transaction.set_durability(durability);
        {
            let mut table = transaction.open_table(TABLE).unwrap();
            act(&mut table);
        }
        transaction.commit().unwrap();
    };
    // As good as it gets: many in a transaction, and no sync.
    let store = each(COUNT, || {
        for first in (0..COUNT).step_by(10_000) {
            change(Durability::None, &mut |table| {
                for number in first..first + 10_000 {
                    table.insert(number, &value(number)[..]).unwrap();
                }
            });
        }
    });
    let sync = each(1, || change(Durability::Immediate, &mut |_| ()));
    let read = each(COUNT, || {
        let transaction = database.begin_read().unwrap();
        let table = transaction.open_table(TABLE).unwrap();
        for number in 0..COUNT {
            let number = number * 7919 % COUNT;
            let found = table.get(number).unwrap().unwrap();
            assert_eq!(found.value()[..8], number.to_le_bytes());
        }
    });
    let free = each(COUNT / 2, || {
        for first in (0..COUNT).step_by(10_000) {
            change(Durability::None, &mut |table| {
                for number in (first..first + 10_000).step_by(2) {
                    table.remove(number).unwrap();
                }
            });
        }
    });
    [store, read, free, sync]
}

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let mut best = [[f64::MAX; 4]; 2];
    let mut sizes = [0; 2];
    for _ in 0..ROUNDS {
        for (side, run) in [emmap as fn(&Path) -> Times, redb].into_iter().enumerate() {
            let path = directory.path().join("file");
            for (best, time) in best[side].iter_mut().zip(run(&path)) {
                *best = best.min(time);
            }
            sizes[side] = std::fs::metadata(&path).unwrap().len();
            std::fs::remove_file(&path).unwrap();
        }
    }
    println!(
        "{:28}{:>12}{:>12}{:>8}",
        "ns each, of 1,000,000", "emmap", "redb", "ratio"
    );
    for (index, name) in ["store", "read", "free half of them", "the sync"]
        .iter()
        .enumerate()
    {
        let [ours, theirs] = [best[0][index], best[1][index]];
        println!("{name:28}{ours:12.0}{theirs:12.0}{:8.3}", ours / theirs);
    }
    println!("{:28}{:12}{:12}", "bytes of the file", sizes[0], sizes[1]);
}
