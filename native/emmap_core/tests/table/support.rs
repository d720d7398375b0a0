//! Builds tables in memory.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use emmap_core::store::Medium;
use emmap_core::table::build::files::Files;
use emmap_core::table::build::{Added, Builder, Built, Duplicates, Error, Options, Phase};
use emmap_core::table::check::{Place, Progress};
use emmap_core::table::layout::LONGEST_PROBE;
use emmap_core::table::lookup::Found;
use emmap_core::table::walk::Step;
use emmap_core::table::{Flags, Layout, Memory};
use emmap_core::{Errno, Result};

/// A file in memory. The number of bytes that can be written to all files is limited.
#[derive(Clone, Default)]
pub struct InMemory {
    pub bytes: Rc<RefCell<Vec<u8>>>,
    room: Rc<RefCell<Option<usize>>>,
    pub published: Rc<RefCell<bool>>,
}

impl Medium for InMemory {
    fn len(&self) -> Result<u64> {
        Ok(self.bytes.borrow().len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let from = offset as usize;
        let bytes = self.bytes.borrow();
        out.copy_from_slice(bytes.get(from..from + out.len()).ok_or(Errno::IO)?);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        if let Some(room) = self.room.borrow_mut().as_mut() {
            *room = room.checked_sub(data.len()).ok_or(Errno::NOSPC)?;
        }
        let end = offset as usize + data.len();
        let mut bytes = self.bytes.borrow_mut();
        let len = bytes.len().max(end);
        bytes.resize(len, 0);
        bytes[offset as usize..end].copy_from_slice(data);
        Ok(())
    }

    fn extend(&mut self, _to: u64, _allocated: u64) -> Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        *self.published.borrow_mut() = true;
        Ok(())
    }
}

#[derive(Clone, Default)]
pub struct InMemoryFiles {
    pub target: InMemory,
    pub spills: Rc<RefCell<usize>>,
}

impl InMemoryFiles {
    pub fn with_room(room: usize) -> InMemoryFiles {
        let files = InMemoryFiles::default();
        *files.target.room.borrow_mut() = Some(room);
        files
    }
}

impl Files for InMemoryFiles {
    type Target = InMemory;
    type Spill = InMemory;

    fn target(&mut self) -> &mut InMemory {
        &mut self.target
    }

    fn spill(&mut self) -> Result<InMemory> {
        *self.spills.borrow_mut() += 1;
        Ok(InMemory {
            room: self.target.room.clone(),
            ..InMemory::default()
        })
    }
}

pub fn options(sorted: bool, memory: usize) -> Options {
    Options {
        flags: Flags {
            sorted,
            ..Flags::default()
        },
        seed: 7,
        duplicates: Duplicates::Last,
        memory,
    }
}

pub type Pair = (Vec<u8>, Vec<u8>);

/// Builds a table of these records, in many short steps.
pub fn build<F: Files>(
    options: Options,
    files: F,
    records: &[Pair],
) -> std::result::Result<Built, Error> {
    let mut builder = Builder::new(options, files);
    for (key, value) in records {
        let (key, value) = ((key.as_ptr(), key.len()), (value.as_ptr(), value.len()));
        // SAFETY: both are slices that outlive the call.
        while unsafe { builder.add(key, value)? } == Added::Full {
            while builder.advance(Instant::now())?.phase != Phase::Adding {}
        }
    }
    builder.finish();
    while builder.advance(Instant::now())?.phase != Phase::Done {}
    Ok(builder.built().expect("it is done"))
}

pub fn built(options: Options, records: &[Pair]) -> (Vec<u8>, Built) {
    let files = InMemoryFiles::default();
    let built = build(options, files.clone(), records).expect("it is built");
    let bytes = files.target.bytes.borrow().clone();
    (bytes, built)
}

pub fn value(file: &[u8], layout: &Layout, key: &[u8]) -> Option<Vec<u8>> {
    let memory = Memory::of_slice(file);
    match layout.find(memory, key, LONGEST_PROBE) {
        Found::Record(record) => {
            let mut value = vec![0; record.value_len];
            memory.copy(record.value, &mut value).unwrap();
            assert!(record.is_intact(key, &value));
            Some(value)
        }
        Found::Absent => None,
        other => panic!("{other:?}"),
    }
}

/// All records in the order of the file, from an offset on.
pub fn records(file: &[u8], layout: &Layout, mut at: u64) -> Vec<Pair> {
    let (memory, mut found) = (Memory::of_slice(file), Vec::new());
    loop {
        match layout.record_at(memory, at) {
            Step::Record(record) => {
                let (mut key, mut value) = (vec![0; record.key_len], vec![0; record.value_len]);
                memory.copy(record.key, &mut key).unwrap();
                memory.copy(record.value, &mut value).unwrap();
                found.push((key, value));
                at = record.end();
            }
            Step::End => return found,
            Step::Corrupt(at) => panic!("no record at {at}"),
        }
    }
}

pub fn check(file: &[u8], layout: &Layout) -> Progress {
    let mut place = Place::default();
    loop {
        let until = Instant::now() + Duration::from_millis(1);
        match layout.check(Memory::of_slice(file), place, until) {
            Progress::Paused(next) => place = next,
            ended => return ended,
        }
    }
}

pub fn layout(file: &[u8]) -> std::result::Result<Layout, emmap_core::store::Error> {
    let mut medium = InMemory::default();
    medium.write_at(0, file).unwrap();
    Layout::read(&medium)
}
