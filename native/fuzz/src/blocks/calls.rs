//! Calls on an open file of blocks, and what this run has stored there.

use std::collections::BTreeMap;

use emmap_core::blocks::durable::Seen;
use emmap_core::blocks::replacing::InSlot;
use emmap_core::blocks::{layout, Blocks, Result, Stop};
use emmap_core::region::Wait;
use emmap_core::store::Shared;
use emmap_core::Region;

use super::super::bytes::Bytes;

const MOST_CALLS: usize = 64;
const MOST_STEPS: usize = 400;
/// By all calls; one that stores at a given address makes room below it.
pub const MOST_GROWN: usize = 64 << 20;
const MOST_BYTES_BELOW: u64 = 4 << 20;

/// The bytes of a block with this number.
pub fn block(number: u32, blocks: &Blocks) -> Vec<u8> {
    let bytes = number.to_le_bytes();
    let size = blocks.geometry().block_size as usize;
    bytes.into_iter().cycle().take(size).collect()
}

/// A sync of another participant, which has done some of its steps.
struct Sync {
    number: u64,
    group: Option<Seen>,
    slots: Vec<InSlot>,
    /// How many steps are done after what it has seen.
    step: usize,
}

#[derive(Default)]
pub struct Calls {
    /// Blocks that are not compared.
    doubtful: Vec<u64>,
    /// The number of what is in each block that this run has stored.
    stored: BTreeMap<u64, u32>,
    last: u32,
    sync: Option<Sync>,
}

impl Calls {
    pub fn doubting(doubtful: Vec<u64>) -> Calls {
        Calls {
            doubtful,
            ..Calls::default()
        }
    }

    pub fn stored_nothing(&self) -> bool {
        self.stored.is_empty()
    }

    pub fn make(&mut self, bytes: &mut Bytes, region: &Region, blocks: &Blocks) {
        self.check(region, blocks);
        for _ in 0..bytes.below(MOST_CALLS) {
            self.call(bytes, region, blocks);
        }
        self.check(region, blocks);
        // Another one that syncs has died.
        self.sync = None;
    }

    /// Some block: one of this run, one of the file, or any.
    fn address(&self, bytes: &mut Bytes) -> u64 {
        let which = bytes.below(1 << 16);
        match bytes.below(4) {
            0 | 1 if !self.stored.is_empty() => {
                let mut addresses = self.stored.keys();
                *addresses.nth(which % self.stored.len()).expect("one")
            }
            2 => which as u64,
            3 => bytes.number(),
            _ => which as u64 % 32,
        }
    }

    /// Another participant may be syncing, and a call that waits for a sync would wait for its end; or that one dies.
    fn attempt<R>(&mut self, act: impl Fn(Wait) -> Result<R>) -> Result<R> {
        if self.sync.is_some() {
            match act(Wait::No) {
                Err(Stop::Busy) => self.sync = None,
                result => return result,
            }
        }
        act(Wait::Yes)
    }

    fn call(&mut self, bytes: &mut Bytes, region: &Region, blocks: &Blocks) {
        match bytes.below(14) {
            0 | 1 => self.store(region, blocks),
            2 => self.store_at(self.address(bytes), region, blocks),
            3 => self.store_many(bytes.below(100), region, blocks),
            4 | 5 => self.replace(self.address(bytes), region, blocks),
            6 | 7 => self.free(self.address(bytes), region, blocks),
            8 => self.look_at(self.address(bytes), region, blocks),
            9 => self.walk(bytes, region, blocks),
            10 => {
                self.sync = None;
                let _ = match bytes.below(4) {
                    0 => blocks.trim(region).map(drop),
                    1 => blocks.reattach(region).map_err(|_| Stop::Busy),
                    _ => blocks.sync(region),
                };
            }
            11 => drop((
                blocks.info(region, Wait::Yes),
                blocks.with(region, Wait::Yes, |locked| Ok(locked.check())),
                blocks.with(region, Wait::Yes, |locked| locked.is_as_synced()),
            )),
            _ => self.step(bytes.below(2) as u64, region, blocks),
        }
    }

    fn next(&mut self, blocks: &Blocks) -> Vec<u8> {
        self.last += 1;
        block(self.last, blocks)
    }

    fn store(&mut self, region: &Region, blocks: &Blocks) {
        let data = self.next(blocks);
        // SAFETY: a vector of a block's size.
        let store = |wait| unsafe { blocks.store(region, wait, data.as_ptr()) };
        if let Ok(address) = self.attempt(store) {
            self.note(address, self.last);
        }
    }

    /// A block was stored where none was.
    fn note(&mut self, address: u64, number: u32) {
        let before = self.put(address, number);
        assert_eq!(before, None, "{address}: handed out twice");
    }

    fn put(&mut self, address: u64, number: u32) -> Option<u32> {
        match self.doubtful.contains(&address) {
            true => None,
            false => self.stored.insert(address, number),
        }
    }

    fn store_at(&mut self, address: u64, region: &Region, blocks: &Blocks) {
        let address = match address >= blocks.geometry().most_blocks {
            true => address,
            false => address % (MOST_BYTES_BELOW / blocks.geometry().block_size + 1),
        };
        let data = self.next(blocks);
        // SAFETY: a vector of a block's size.
        let stored =
            self.attempt(|wait| unsafe { blocks.store_at(region, wait, address, data.as_ptr()) });
        if stored.is_ok() {
            self.note(address, self.last);
        }
    }

    fn store_many(&mut self, count: usize, region: &Region, blocks: &Blocks) {
        self.sync = None;
        let first = self.last + 1;
        let data: Vec<Vec<u8>> = (0..count).map(|_| self.next(blocks)).collect();
        let starts: Vec<*const u8> = data.iter().map(|block| block.as_ptr()).collect();
        let mut addresses = Vec::new();
        let each = |address| addresses.push(address);
        // SAFETY: vectors of a block's size.
        let _ = unsafe { blocks.store_many(region, Wait::Yes, &starts, each) };
        for (number, address) in (first..).zip(addresses) {
            self.note(address, number);
        }
    }

    fn replace(&mut self, address: u64, region: &Region, blocks: &Blocks) {
        let data = self.next(blocks);
        // SAFETY: a vector of a block's size.
        let replaced =
            self.attempt(|wait| unsafe { blocks.write(region, wait, address, data.as_ptr()) });
        match replaced {
            Ok(()) => {
                self.put(address, self.last);
            }
            Err(Stop::Absent) => assert!(!self.stored.contains_key(&address), "{address}: absent"),
            Err(_) => (),
        }
    }

    fn free(&mut self, address: u64, region: &Region, blocks: &Blocks) {
        match self.attempt(|wait| blocks.free(region, wait, address)) {
            Ok(()) => drop(self.stored.remove(&address)),
            Err(Stop::Absent) => assert!(!self.stored.contains_key(&address), "{address}: absent"),
            Err(_) => (),
        }
    }

    fn look_at(&self, address: u64, region: &Region, blocks: &Blocks) {
        self.read(address, region, blocks);
        let _ = (
            blocks.locate(region, Wait::Yes, address),
            blocks.is_sound(region, address),
            blocks.is_used(region, Wait::Yes, address),
        );
    }

    /// What this run has stored is there, or is reported as damaged.
    fn read(&self, address: u64, region: &Region, blocks: &Blocks) {
        let mut out = vec![0; blocks.geometry().block_size as usize];
        // SAFETY: a vector of a block's size.
        let read = unsafe { blocks.read(region, Wait::Yes, address, out.as_mut_ptr()) };
        let expected = self
            .stored
            .get(&address)
            .map(|number| block(*number, blocks));
        match (read, expected) {
            (Ok(()), Some(expected)) => assert!(out == expected, "{address}: other bytes"),
            (Err(Stop::Absent), Some(_)) => panic!("{address}: absent"),
            _ => (),
        }
    }

    fn check(&self, region: &Region, blocks: &Blocks) {
        for address in self.stored.keys() {
            self.read(*address, region, blocks);
        }
    }

    /// Blocks in use from a place on: all of this run are among them.
    fn walk(&self, bytes: &mut Bytes, region: &Region, blocks: &Blocks) {
        let start = self.address(bytes);
        let mut from = start;
        for step in 0..MOST_STEPS {
            let next = match blocks.next_used(region, Wait::Yes, from, u64::MAX) {
                Ok(next) => next,
                Err(_) => return,
            };
            let end = next.unwrap_or(u64::MAX);
            assert!(end >= from, "a walk goes on");
            let missed = self.stored.range(from..end).next();
            assert_eq!(missed, None, "not found from {from} on");
            if next.is_none() {
                let last = blocks.last_used(region, Wait::Yes, u64::MAX);
                let expected = (step > 0).then(|| from - 1);
                assert!(last == Ok(expected) || start > 0 && step == 0, "{last:?}");
                return;
            }
            self.read(end, region, blocks);
            from = end + 1;
        }
    }

    /// A step of a sync, without the disk. An error ends it, as the death of its participant does.
    fn step(&mut self, group: u64, region: &Region, blocks: &Blocks) {
        self.sync = match self.sync.take() {
            None => begin(group, region, blocks).ok(),
            Some(sync) if sync.is_complete() => None,
            Some(mut sync) => sync.go_on(region, blocks).ok().map(|()| sync),
        };
    }
}

fn begin(group: u64, region: &Region, blocks: &Blocks) -> Result<Sync> {
    blocks.with(region, Wait::Yes, |locked| {
        let capacity = locked.shared.load(layout::CAPACITY)?;
        let group = group.min(blocks.geometry().groups_of(capacity).saturating_sub(1));
        Ok(Sync {
            number: locked.begin_sync()?,
            group: match capacity {
                0 => None,
                _ => locked.see_group(group)?,
            },
            slots: locked.see_slots()?,
            step: 0,
        })
    })
}

impl Sync {
    fn is_complete(&self) -> bool {
        self.step == 5
    }

    fn go_on(&mut self, region: &Region, blocks: &Blocks) -> Result<()> {
        self.step += 1;
        blocks.with(region, Wait::Yes, |locked| match self.step {
            1 => self.group.iter().try_for_each(|seen| locked.cover(seen)),
            2 => self
                .slots
                .iter()
                .try_for_each(|slot| locked.cover_slot(slot)),
            3 => self
                .slots
                .iter()
                .try_for_each(|slot| locked.end_slot_of_sync(slot)),
            4 => self
                .group
                .iter()
                .try_for_each(|seen| locked.end_group(seen)),
            _ => locked.end_sync(self.number),
        })
    }
}
