//! A program that uses blocks in simulated memory, as `Blocks` does on a map.

use std::collections::{BTreeMap, VecDeque};

use emmap_core::blocks::durable::Seen;
use emmap_core::blocks::layout::{self, group, BITS, WORDS};
use emmap_core::blocks::recovery::Recovered;
use emmap_core::blocks::replacing::{self, InSlot};
use emmap_core::blocks::{Geometry, Locked, Result, Stop};
use emmap_core::store::{checksum, Shared};

use crate::memory::{Memory, KILLED};
use crate::random;

/// The random number of the file.
const FILE: u64 = 0x1234_5678_9abc_def1;

/// What a program leaves out, for tests of what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omission {
    Nothing,
    /// Recovery keeps all blocks that are live, as if there were no page D.
    Bit,
    /// Recovery believes a slot whose checksum is wrong.
    SlotChecksum,
    /// D is written before the blocks are on the disk.
    DurableEarly,
    /// The first sync of the two.
    FirstSync,
    /// The second sync of the two.
    SecondSync,
    /// The second page D is written together with the first one.
    SecondPage,
    /// A block that a sync has covered is used again as soon as it is free.
    Held,
    /// A block that is held is replaced where it is.
    Slot,
    /// A slot whose block may have no other complete place is used again.
    Pins,
}

pub fn content(number: u64, size: u64) -> Vec<u8> {
    random::bytes(number, size as usize)
}

pub fn new_file(block_size: u64) -> Vec<u8> {
    let geometry = Geometry::new(block_size, FILE);
    vec![0; geometry.file_size(0) as usize]
}

#[derive(Clone, Copy)]
pub struct Program<'a> {
    pub memory: &'a Memory,
    pub geometry: Geometry,
    pub omission: Omission,
}

/// All that can be observed: the blocks with their bytes.
pub type State = BTreeMap<u64, Vec<u8>>;

impl<'a> Program<'a> {
    pub fn new(memory: &'a Memory, block_size: u64, omission: Omission) -> Program<'a> {
        Program {
            memory,
            geometry: Geometry::new(block_size, FILE),
            omission,
        }
    }

    /// As after a reboot, or after a close that was not as it should be.
    pub fn recover(&self, closed: bool) -> Result<Recovered> {
        match self.omission {
            Omission::Bit => self.forget_durable()?,
            Omission::SlotChecksum => self.believe_slots()?,
            _ => (),
        }
        self.locked().recover(closed)
    }

    /// Another program takes the lock from one that was killed.
    pub fn take_over(&self) {
        self.memory.revive();
        Locked::replay(self.memory).unwrap();
    }

    pub fn locked(&self) -> Locked<'_, Memory> {
        Locked {
            shared: self.memory,
            geometry: &self.geometry,
        }
    }

    pub fn word(&self, at: u64) -> u64 {
        self.memory.load(at).unwrap()
    }

    /// One call, as `Blocks::with`, but for [`Stop::Sync`].
    pub fn attempt<R>(&self, mut act: impl FnMut(&Locked<Memory>) -> Result<R>) -> Result<R> {
        loop {
            let capacity = self.memory.load(layout::CAPACITY)?;
            if !self.reaches(capacity) {
                return Err(emmap_core::Errno::IO.into());
            }
            match act(&self.locked()) {
                Err(Stop::Grow(capacity)) => {
                    self.memory.extend(self.geometry.file_size(capacity));
                    self.memory.store(layout::CAPACITY, capacity)?;
                }
                result => return result,
            }
        }
    }

    fn reaches(&self, capacity: u64) -> bool {
        capacity <= self.geometry.most_blocks
            && self.geometry.file_size(capacity) <= self.memory.len().next_multiple_of(4096)
    }

    pub fn call<R>(&self, mut act: impl FnMut(&Locked<Memory>) -> Result<R>) -> Result<R> {
        loop {
            match self.attempt(&mut act) {
                Err(Stop::Sync) => self.sync()?,
                result => return result,
            }
        }
    }

    fn size(&self) -> usize {
        self.geometry.block_size as usize
    }

    pub fn store(&self, data: &[u8]) -> Result<u64> {
        assert_eq!(data.len(), self.size());
        // SAFETY: as many bytes as a block has.
        self.call(|locked| unsafe { locked.store(data.as_ptr()) })
    }

    /// [`Stop::Sync`]: a sync has to come first.
    pub fn replace(&self, address: u64, data: &[u8]) -> Result<()> {
        assert_eq!(data.len(), self.size());
        if self.omission == Omission::Slot && self.locked().is_live(address)? {
            return self.replace_in_place(address, data);
        }
        // SAFETY: as many bytes as a block has.
        self.attempt(|locked| unsafe { locked.replace(address, data.as_ptr()) })
    }

    pub fn free(&self, address: u64) -> Result<()> {
        self.call(|locked| locked.free(address))?;
        if self.omission == Omission::Held {
            let at = self.geometry.group(address / BITS) + group::HELD + address % BITS / 64 * 8;
            self.memory.update(at, 0, 1 << (address % 64))?;
            let hint = self.word(layout::HINT).min(address);
            self.memory.store(layout::HINT, hint)?;
        }
        Ok(())
    }

    /// As `Blocks::read`, which has the lock the second time.
    pub fn read(&self, address: u64) -> Result<Vec<u8>> {
        self.attempt(|locked| {
            if !locked.is_live(address)? {
                return Err(Stop::Absent);
            }
            let mut out = vec![0; self.size()];
            // SAFETY: a vector of a block's size.
            match unsafe {
                replacing::read(self.memory, &self.geometry, address, out.as_mut_ptr())
            }? {
                true => Ok(out),
                false => Err(Stop::Corrupt(address)),
            }
        })
    }

    /// As `Blocks::trim`.
    pub fn trim(&self) -> Result<()> {
        if let Some(from) = self.attempt(|locked| locked.trim())? {
            let zeros = vec![0; 4096];
            for at in (from..self.memory.len()).step_by(4096) {
                let count = zeros.len().min((self.memory.len() - at) as usize);
                self.memory.write(at, &zeros[..count])?;
            }
        }
        Ok(())
    }

    pub fn addresses(&self) -> Result<Vec<u64>> {
        let (mut found, mut from) = (Vec::new(), 0);
        while let Some(address) = self.attempt(|locked| locked.next_live(from, u64::MAX))? {
            found.push(address);
            from = address + 1;
        }
        Ok(found)
    }

    pub fn state(&self) -> State {
        let state: State = self
            .addresses()
            .unwrap()
            .into_iter()
            .map(|address| (address, self.read(address).unwrap()))
            .collect();
        assert_eq!(state.len() as u64, self.word(layout::COUNT));
        state
    }

    /// What must hold at all times.
    pub fn check(&self) {
        self.locked().check().unwrap();
    }

    /// Whether a sync has covered everything, and nothing is left to do.
    pub fn is_settled(&self) -> bool {
        self.locked().is_as_synced().unwrap() && self.locked().in_slots().unwrap().is_empty()
    }

    pub fn groups(&self) -> u64 {
        self.geometry.groups_of(self.word(layout::CAPACITY))
    }

    /// The bits of a page of all groups, as addresses.
    pub fn bits(&self, page: u64) -> Vec<u64> {
        let mut found = Vec::new();
        for number in 0..self.groups() {
            for word in 0..WORDS {
                let mut bits = self.word(self.geometry.group(number) + page + word * 8);
                while bits != 0 {
                    found.push(number * BITS + word * 64 + u64::from(bits.trailing_zeros()));
                    bits &= bits - 1;
                }
            }
        }
        found
    }

    pub fn sync(&self) -> Result<()> {
        let mut syncing = Syncing::begin(self)?;
        while syncing.step()?.is_some() {}
        Ok(())
    }

    fn replace_in_place(&self, address: u64, data: &[u8]) -> Result<()> {
        self.memory.write(self.geometry.block(address), data)?;
        let crc = checksum::append(self.geometry.seed(address), data);
        let number = address % BITS;
        let at = self.geometry.group(address / BITS) + group::CHECKSUMS + number / 2 * 8;
        let shift = number % 2 * 32;
        let others = self.word(at) & !(0xffff_ffff << shift);
        Ok(self.memory.store(at, others | u64::from(crc) << shift)?)
    }

    fn all_groups(&self) -> Vec<u64> {
        let fits = |number: &u64| self.geometry.group(*number) + group::BLOCKS <= self.memory.len();
        (0..).take_while(fits).collect()
    }

    fn words(&self, at: u64) -> Vec<u64> {
        (0..WORDS).map(|word| self.word(at + word * 8)).collect()
    }

    fn forget_durable(&self) -> Result<()> {
        for number in self.all_groups() {
            for page in group::DURABLE {
                let at = self.geometry.group(number) + page;
                let wrong = durable_checksum(&self.words(at)) ^ 1;
                self.memory.store(at + WORDS * 8, wrong)?;
            }
        }
        Ok(())
    }

    fn believe_slots(&self) -> Result<()> {
        for slot in 0..self.geometry.slots {
            let word = self.word(layout::SLOT_ADDRESSES + slot * 8) & replacing::ADDRESS;
            let Some(address) = word.checked_sub(1) else {
                continue;
            };
            let at = layout::SLOT_NUMBERS + slot * layout::SLOT_NUMBER_BYTES;
            let number = self.word(at);
            let mut bytes = vec![0; self.size()];
            self.memory.read(self.geometry.slot(slot), &mut bytes)?;
            let crc = checksum::append(self.geometry.seed(address), &number.to_le_bytes());
            self.memory
                .store(at + 8, checksum::append(crc, &bytes).into())?;
        }
        Ok(())
    }
}

fn durable_checksum(words: &[u64]) -> u64 {
    let of = |words: &[u64]| {
        let append = |crc, word: &u64| checksum::append(crc, &word.to_ne_bytes());
        words.iter().fold(0, append)
    };
    u64::from(of(words) ^ of(&[0; WORDS as usize]))
}

/// The next thing that a sync does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    See(u64),
    SeeSlots,
    Flush,
    Cover(usize),
    CoverSlot(usize),
    FlushAgain,
    EndSlot(usize),
    /// Of those that were seen, and its number.
    EndGroup(usize, u64),
    End,
}

/// A sync, step by step, as `Blocks::sync` makes it: between two steps other programs do what they do.
pub struct Syncing<'a> {
    program: Program<'a>,
    number: u64,
    steps: VecDeque<Step>,
    seen: Vec<Seen>,
    in_slots: Vec<InSlot>,
}

impl<'a> Syncing<'a> {
    pub fn begin(program: &Program<'a>) -> Result<Syncing<'a>> {
        let number = program.attempt(|locked| locked.begin_sync())?;
        let mut steps: VecDeque<Step> = (0..program.groups()).map(Step::See).collect();
        steps.push_back(Step::SeeSlots);
        Ok(Syncing {
            program: *program,
            number,
            steps,
            seen: Vec::new(),
            in_slots: Vec::new(),
        })
    }

    pub fn next(&self) -> Option<Step> {
        self.steps.front().copied()
    }

    /// What was done; `None`: it is complete.
    pub fn step(&mut self) -> Result<Option<Step>> {
        let Some(step) = self.steps.front().copied() else {
            return Ok(None);
        };
        let program = self.program;
        let omission = program.omission;
        match step {
            Step::See(group) => {
                let seen = program.attempt(|locked| locked.see_group(group))?;
                self.seen.extend(seen);
            }
            Step::SeeSlots => {
                self.in_slots = program.attempt(|locked| locked.see_slots())?;
                if omission == Omission::Pins {
                    for in_slot in &self.in_slots {
                        let at = layout::SLOT_ADDRESSES + in_slot.slot * 8;
                        program.memory.update(at, 0, replacing::FLAGS)?;
                    }
                }
                self.plan();
            }
            Step::Flush => {
                if omission != Omission::FirstSync {
                    program.memory.sync();
                }
            }
            Step::Cover(which) => {
                let seen = &self.seen[which];
                program.attempt(|locked| locked.cover(seen))?;
                if omission == Omission::SecondPage {
                    let start = program.geometry.group(seen.group);
                    for word in 0..=WORDS {
                        let bits = program.word(start + group::DURABLE[0] + word * 8);
                        program
                            .memory
                            .store(start + group::DURABLE[1] + word * 8, bits)?;
                    }
                }
            }
            Step::CoverSlot(which) => {
                program.attempt(|locked| locked.cover_slot(&self.in_slots[which]))?;
            }
            Step::FlushAgain => {
                if omission != Omission::SecondSync {
                    program.memory.sync();
                }
            }
            Step::EndSlot(which) => {
                program.attempt(|locked| locked.end_slot_of_sync(&self.in_slots[which]))?;
            }
            Step::EndGroup(which, _) => {
                program.attempt(|locked| locked.end_group(&self.seen[which]))?;
            }
            Step::End => program.attempt(|locked| locked.end_sync(self.number))?,
        }
        self.steps.pop_front();
        Ok(Some(step))
    }

    /// The steps that come after the first flush.
    fn plan(&mut self) {
        let (groups, slots) = (0..self.seen.len(), 0..self.in_slots.len());
        let early = self.program.omission == Omission::DurableEarly;
        if early {
            self.steps.extend(groups.clone().map(Step::Cover));
        }
        self.steps.push_back(Step::Flush);
        if !groups.is_empty() || !slots.is_empty() {
            if !early {
                self.steps.extend(groups.clone().map(Step::Cover));
            }
            self.steps.extend(slots.clone().map(Step::CoverSlot));
            self.steps.push_back(Step::FlushAgain);
            self.steps.extend(slots.map(Step::EndSlot));
            let end = |which: usize| Step::EndGroup(which, self.seen[which].group);
            self.steps.extend(groups.map(end));
        }
        self.steps.push_back(Step::End);
    }
}

pub fn is_killed<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Stop::Posix(error)) if *error == KILLED)
}
