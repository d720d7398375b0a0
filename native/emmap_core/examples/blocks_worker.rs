//! Stores, replaces and frees blocks until it is killed. What it did is in a log, for `test/blocks_kills.exs` to judge.
//!
//! `blocks_worker FILE LOG WORKER FIRST`: WORKER and a number from FIRST on are in each block. A record of the log is three
//! words: what, the address, the number. See `Emmap.Test.BlocksWorker`, which is the same program in Elixir.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read, Write};

use emmap_core::blocks::{self, Request};
use emmap_core::region::Wait;

const STORING: u64 = 0;
const STORED: u64 = 1;
const FREEING: u64 = 2;
const FREED: u64 = 3;
const WRITING: u64 = 4;
const WRITTEN: u64 = 5;

const SIZE: usize = 64;
const MOST: usize = 300;

fn block(worker: u64, number: u64) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    for (index, word) in bytes.chunks_mut(8).enumerate() {
        let value = if index == 0 {
            worker
        } else {
            number.wrapping_mul(index as u64)
        };
        word.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize| arguments[index].parse::<u64>().expect("a number");
    let (worker, mut next) = (number(2), number(3));
    let mut log = OpenOptions::new()
        .append(true)
        .read(true)
        .open(&arguments[1])
        .expect("the log");
    let mut held = BTreeMap::new();
    let mut bytes = Vec::new();
    log.read_to_end(&mut bytes).expect("the log");
    for record in bytes.chunks_exact(24) {
        let word = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().expect("a word"));
        match word(0) {
            STORED | WRITTEN => drop(held.insert(word(8), word(16))),
            FREED => drop(held.remove(&word(8))),
            _ => (),
        }
    }
    let mut note = |what: u64, address: u64, number: u64| {
        let record = [what, address, number].map(u64::to_le_bytes).concat();
        log.write_all(&record).expect("the log");
    };
    let request = Request {
        block_size: None,
        existing: true,
    };
    let (region, blocks) =
        blocks::open(std::path::Path::new(&arguments[0]), &request).expect("the file");
    println!("works");
    let mut random = next.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    loop {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let some = held
            .keys()
            .nth((random >> 32) as usize % held.len().max(1))
            .copied();
        match (some, random % 10) {
            (Some(address), 0..=2) => {
                note(WRITING, address, next);
                // SAFETY: a slice of a block's size.
                unsafe { blocks.write(&region, Wait::Yes, address, block(worker, next).as_ptr()) }
                    .expect("write");
                note(WRITTEN, address, next);
                held.insert(address, next);
                next += 1;
            }
            (Some(address), 3..=5) if held.len() > 10 => {
                note(FREEING, address, 0);
                blocks.free(&region, Wait::Yes, address).expect("free");
                note(FREED, address, 0);
                held.remove(&address);
            }
            (Some(address), 6) => {
                let mut out = [0; SIZE];
                // SAFETY: an array of a block's size.
                unsafe { blocks.read(&region, Wait::Yes, address, out.as_mut_ptr()) }
                    .expect("read");
                assert_eq!(out, block(worker, held[&address]), "block {address}");
            }
            _ if random.is_multiple_of(997) => blocks.sync(&region).expect("sync"),
            _ if held.len() < MOST => {
                note(STORING, 0, next);
                // SAFETY: a slice of a block's size.
                let address =
                    unsafe { blocks.store(&region, Wait::Yes, block(worker, next).as_ptr()) }
                        .expect("store");
                note(STORED, address, next);
                assert_eq!(
                    held.insert(address, next),
                    None,
                    "address {address} is used already"
                );
                next += 1;
            }
            _ => (),
        }
    }
}
