//! A program that uses a queue in simulated memory, as `Queue` does on a map.

use emmap_core::queue::layout::{self, cursor, stream};
use emmap_core::queue::summary::Layout;
use emmap_core::queue::tail::content;
use emmap_core::queue::Limits;
use emmap_core::queue::{record, recovery, Extension, Locked, Request, Result, Stop, Taken};
use emmap_core::store::{self, log, Shared, Structure};

use crate::memory::{Memory, KILLED};
pub use crate::random::Random;

/// The smallest segment.
pub const SEGMENT: u64 = 64 << 10;

/// The bytes of a new queue's file.
pub fn new_file() -> Vec<u8> {
    let memory = Memory::new(Vec::new());
    let request = Request {
        segment_size: Some(SEGMENT),
        existing: false,
    };
    let layout = Layout::new(&request).unwrap();
    memory.extend(layout.file_size().unwrap());
    store::create::write(&layout, &mut &memory).unwrap();
    memory.bytes()
}

/// What a program leaves out, for tests of what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omission {
    Nothing,
    /// All segments have the same salt.
    Salts,
    /// The sync of a header before what it promised is used again.
    Checkpoint,
    /// The sync of a recovery.
    RecoverySync,
    /// The rule of which header is written over.
    HeaderPlace,
}

impl Omission {
    fn salt(self) -> fn() -> u64 {
        match self {
            Omission::Salts => || 1,
            _ => emmap_core::queue::segment::new_salt,
        }
    }
}

pub struct Program<'a> {
    pub memory: &'a Memory,
    pub slot: u32,
    pub omission: Omission,
}

/// For each cursor: its number, the items that it has not taken, its lengths, and how many it lost.
pub type State = Vec<(usize, Vec<u64>, (u64, u64), u64)>;

impl<'a> Program<'a> {
    /// As after a reboot.
    pub fn recover(memory: &'a Memory) -> std::result::Result<Program<'a>, store::Error> {
        Program::recover_without(memory, Omission::Nothing)
    }

    pub fn recover_without(
        memory: &'a Memory,
        omission: Omission,
    ) -> std::result::Result<Program<'a>, store::Error> {
        let layout = Layout::read(&memory)?;
        recovery::recover(memory, &layout, || {
            if omission != Omission::RecoverySync {
                memory.sync();
            }
            Ok(())
        })
        .map_err(|stop| panic!("recovery: {stop:?}"))
        .unwrap_or_else(|never: Stop| panic!("{never:?}"));
        Ok(Program {
            memory,
            slot: 0,
            omission,
        })
    }

    /// Another program takes the lock from one that was killed, and its slot.
    pub fn take_over(memory: &'a Memory, dead: u32, slot: u32) -> Program<'a> {
        memory.revive();
        log::replay(memory, &layout::LOG).unwrap();
        let program = Program {
            memory,
            slot,
            omission: Omission::Nothing,
        };
        program.call(|locked| locked.clean_up(dead)).unwrap();
        program
    }

    pub fn locked(&self) -> Locked<'a, Memory> {
        Locked {
            shared: self.memory,
            segment_size: SEGMENT,
            slot: self.slot,
            may_wait: true,
            new_salt: self.omission.salt(),
        }
    }

    pub fn call<R>(&self, mut act: impl FnMut(&Locked<Memory>) -> Result<R>) -> Result<R> {
        loop {
            match act(&self.locked()) {
                Err(Stop::Grow(to)) => {
                    self.memory.extend(to);
                    let segments = (self.memory.len() - layout::DATA) / SEGMENT;
                    self.memory.store(layout::SEGMENTS, segments)?;
                }
                Err(Stop::Checkpoint) => self.synced(false)?,
                result => return result,
            }
        }
    }

    pub fn sync(&self) -> Result<()> {
        self.synced(true)
    }

    fn synced(&self, all: bool) -> Result<()> {
        let locked = self.locked();
        locked.write_header()?;
        let summary = locked.summary()?;
        let tails = [0, 1].map(|number| {
            let at = stream::at(number);
            let word = |word| self.memory.load(at + word).unwrap();
            (word(stream::TAIL), word(stream::SEQUENCE))
        });
        if all || self.omission != Omission::Checkpoint {
            self.memory.sync();
        }
        let before = self.memory.load(layout::SYNCED_HEADER)?;
        locked.note_synced(Some(&summary), all.then_some(&tails))?;
        if self.omission == Omission::HeaderPlace {
            self.memory.store(layout::SYNCED_HEADER, before)?;
        }
        Ok(())
    }

    pub fn push(&self, payload: &[u8]) -> Result<u64> {
        self.push_as(payload, &Limits::default())
            .map(|pushed| pushed.expect("not a duplicate"))
    }

    /// `None`: a duplicate.
    pub fn push_as(&self, payload: &[u8], limits: &Limits) -> Result<Option<u64>> {
        let extension = match limits.identity {
            Some((producer, number)) => Extension::identity(producer, number),
            None => Extension::default(),
        };
        let flags = if limits.identity.is_some() {
            record::IDENTITY
        } else {
            0
        };
        let content = content(flags, extension, payload);
        let large = !self.locked().fits_in_segment(content.room());
        self.call(|locked| {
            let Some(producer) = locked.admit(content.room(), limits)? else {
                return Ok(None);
            };
            // SAFETY: the payload is a slice.
            unsafe {
                match large {
                    false => locked.push_item(&content, producer),
                    true => {
                        let reserved = locked.reserve(layout::ITEMS, &content)?;
                        let crc = emmap_core::queue::tail::fill(self.memory, &content, &reserved)?;
                        locked.push_reserved(&content, reserved, crc, producer)
                    }
                }
            }
            .map(Some)
        })
    }

    /// Pops: the payload and what it was.
    pub fn pop(&self, cursor: usize) -> Result<Option<(Taken, Vec<u8>)>> {
        self.call(|locked| {
            let mut payload = Vec::new();
            // SAFETY: the vector gets as much room as the payload needs.
            let taken = unsafe {
                locked.pop(cursor, |found| {
                    payload = vec![0; found.head.length as usize];
                    Some(payload.as_mut_ptr())
                })?
            };
            Ok(taken.map(|taken| (taken, payload)))
        })
    }

    /// Everything that the cursor would find: items that were released, and then those that it has not taken.
    pub fn rest(&self, cursor: usize) -> Vec<u64> {
        let mut left = Vec::new();
        let mut from = 0;
        loop {
            let mut payload = Vec::new();
            // SAFETY: as above.
            let found = self.call(|locked| unsafe {
                locked.look(cursor, from, |found| {
                    payload = vec![0; found.head.length as usize];
                    Some(payload.as_mut_ptr())
                })
            });
            match found.unwrap() {
                Some((taken, next)) => {
                    let item = match taken.flags & record::DEAD_LETTER {
                        0 => taken.sequence,
                        _ => taken.extension.word(0),
                    };
                    assert!(payload == expected(item, payload.len()), "item {item}");
                    left.push(taken.sequence);
                    from = next;
                }
                None => return left,
            }
        }
    }

    /// All that can be observed, as one value.
    pub fn state(&self) -> State {
        let locked = self.locked();
        let cursors = locked.cursors().unwrap();
        cursors
            .into_iter()
            .map(|number| {
                let lengths = locked.lengths(number).unwrap();
                let lost = self.memory.load(cursor::at(number) + cursor::LOST).unwrap();
                (number, self.rest(number), lengths, lost)
            })
            .collect()
    }

    /// What must hold at all times.
    pub fn check(&self) {
        self.locked().check().unwrap();
    }
}

/// The payload of an item: nothing else has the same bytes.
pub fn expected(sequence: u64, length: usize) -> Vec<u8> {
    crate::random::bytes(sequence, length)
}

pub fn is_killed<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Stop::Posix(error)) if *error == KILLED)
}
