//! Queues and blocks of the core compared with yaque and redb, on the same data, in rounds in turn. A line for each figure:
//! `what;side;nanoseconds of each`. The first argument is how many values there are, the second the number of rounds.

use std::path::Path;
use std::time::Instant;

use emmap_core::blocks;
use emmap_core::queue::{self, Limits};
use emmap_core::region::Wait;
use futures::executor::block_on;
use redb::{Database, Durability, TableDefinition};

const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("blocks");
const ITEM: [u8; 75] = [b'x'; 75];
// The queue's own consumer is its first cursor.
const CONSUMER: usize = 0;

type Times = Vec<(&'static str, f64)>;

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

fn blocks_of_emmap(path: &Path, count: u64) -> Times {
    let request = blocks::Request {
        block_size: Some(64),
        existing: false,
    };
    let (region, blocks) = blocks::open(path, &request).unwrap();
    let store = each(count, || {
        for number in 0..count {
            // SAFETY: an array of a block's size.
            unsafe { blocks.store(&region, Wait::Yes, value(number).as_ptr()) }.unwrap();
        }
    });
    let sync = each(1, || blocks.sync(&region).unwrap());
    let read = each(count, || {
        let mut out = [0; 64];
        for number in 0..count {
            let number = number * 7919 % count;
            // SAFETY: an array of a block's size.
            unsafe { blocks.read(&region, Wait::Yes, number, out.as_mut_ptr()) }.unwrap();
            assert_eq!(out[..8], number.to_le_bytes());
        }
    });
    let free = each(count / 2, || {
        for number in (0..count).step_by(2) {
            blocks.free(&region, Wait::Yes, number).unwrap();
        }
    });
    blocks.leave(&region).unwrap();
    vec![
        ("store 64 B", store),
        ("read 64 B", read),
        ("free 64 B", free),
        ("one sync of all", sync),
    ]
}

fn blocks_of_redb(path: &Path, count: u64) -> Times {
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
    let batch = 10_000.min(count);
    let store = each(count, || {
        for first in (0..count).step_by(batch as usize) {
            change(Durability::None, &mut |table| {
                for number in first..(first + batch).min(count) {
                    table.insert(number, &value(number)[..]).unwrap();
                }
            });
        }
    });
    let sync = each(1, || change(Durability::Immediate, &mut |_| ()));
    let read = each(count, || {
        let transaction = database.begin_read().unwrap();
        let table = transaction.open_table(TABLE).unwrap();
        for number in 0..count {
            let number = number * 7919 % count;
            let found = table.get(number).unwrap().unwrap();
            assert_eq!(found.value()[..8], number.to_le_bytes());
        }
    });
    let free = each(count / 2, || {
        for first in (0..count).step_by(batch as usize) {
            change(Durability::None, &mut |table| {
                for number in (first..(first + batch).min(count)).step_by(2) {
                    table.remove(number).unwrap();
                }
            });
        }
    });
    vec![
        ("store 64 B", store),
        ("read 64 B", read),
        ("free 64 B", free),
        ("one sync of all", sync),
    ]
}

fn queue_of_emmap(path: &Path, count: u64) -> Times {
    let request = queue::Request {
        existing: false,
        segment_size: None,
    };
    let (region, queue) = match queue::open(path, &request) {
        Ok(opened) => opened,
        Err(error) => panic!("{error:?}"),
    };
    let limits = Limits::default();
    let mut out = [0u8; 75];
    let time = each(count, || {
        for _ in 0..count {
            let item = (0, ITEM.as_ptr(), ITEM.len());
            // SAFETY: an array, and its length.
            let pushed = unsafe { queue.push(&region, Wait::Yes, item, &limits) };
            assert!(pushed.is_ok());
            // SAFETY: an array of the length of all items.
            let taken = unsafe { queue.pop(&region, Wait::Yes, CONSUMER, |_| out.as_mut_ptr()) };
            assert!(matches!(taken, Ok(Some(_))));
        }
    });
    queue.leave(&region).unwrap();
    vec![("push and pop 75 B", time)]
}

fn queue_of_yaque(path: &Path, count: u64) -> Times {
    let (mut sender, mut receiver) = yaque::channel(path).unwrap();
    let count = count / 100;
    let time = each(count, || {
        block_on(async {
            for _ in 0..count {
                sender.send(ITEM).await.unwrap();
                receiver.recv().await.unwrap().commit().unwrap();
            }
        });
    });
    vec![("push and pop 75 B", time)]
}

fn main() {
    let arguments: Vec<u64> = std::env::args()
        .skip(1)
        .map(|text| text.parse().expect("a number"))
        .collect();
    let [count, rounds] = arguments[..] else {
        panic!("COUNT ROUNDS");
    };
    let directory = tempfile::tempdir().unwrap();
    type Run = fn(&Path, u64) -> Times;
    let sides: [(&str, Run); 4] = [
        ("emmap", blocks_of_emmap),
        ("redb", blocks_of_redb),
        ("emmap", queue_of_emmap),
        ("yaque", queue_of_yaque),
    ];
    for _ in 0..rounds {
        for (side, run) in sides {
            let path = directory.path().join("file");
            for (what, time) in run(&path, count) {
                println!("{what};{side};{time}");
            }
            if path.is_dir() {
                std::fs::remove_dir_all(&path).unwrap();
            } else {
                std::fs::remove_file(&path).unwrap();
            }
        }
    }
}
