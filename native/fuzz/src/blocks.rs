//! Any bytes as a file of blocks, and then operations on it: each returns something, whatever the file has, and what this run
//! has stored is there, or said to be damaged.
//!
//! A file that is trusted, as after `kill -9` in the same boot, may have any bits and slots; one that is recovered, anything.
//! Of one that is trusted, the blocks that its slots name may have other bytes in them, which nobody compares.

mod calls;
mod file;

use std::fs;

use emmap_core::blocks::description::Layout;
use emmap_core::blocks::{open, Request};
use emmap_core::guard;
use emmap_core::store::Structure;

use self::calls::Calls;
use super::bytes::Bytes;
use super::traces::Traces;

pub fn run(data: &[u8]) {
    guard::install().expect("the guard");
    let mut bytes = Bytes::new(data);
    let directory = super::directory();
    let path = directory.path().join("blocks");
    let traces = Traces::before();
    fs::write(&path, file::content(&mut bytes)).expect("a file");
    let trusted = bytes.below(3);
    file::claim_boot(&path, trusted);
    let mut calls = match trusted {
        2 => Calls::doubting(file::in_slots(&path)),
        _ => Calls::default(),
    };
    for _ in 0..2 {
        let before = fs::read(&path).expect("a file");
        match open(&path, &Request::default()) {
            Err(_) => {
                let file = fs::File::open(&path).expect("a file");
                let refused = Layout::read(&file).is_err();
                let same = || fs::read(&path).expect("a file") == before;
                assert!(!refused || same(), "refused, and changed");
                assert!(calls.stored_nothing(), "stored, and refused");
            }
            Ok((region, blocks)) => {
                calls.make(&mut bytes, &region, &blocks);
                if bytes.flag() {
                    let _ = blocks.leave(&region);
                }
                let grown = region.len().saturating_sub(before.len());
                assert!(grown <= calls::MOST_GROWN, "{grown} bytes longer");
            }
        }
    }
    traces.check(directory.path());
}
