//! The memory of a structure: its writers stop at any store, and a power failure leaves any part of what was not synced.

use std::cell::{Cell, RefCell};

use emmap_core::store::{Medium, Shared};
use emmap_core::{Errno, Result};

use crate::random::Random;

/// What a program gets that was killed.
pub const KILLED: Errno = Errno(9999);

/// What reaches the disk as a whole.
const PIECE: usize = 64;

pub struct Memory {
    bytes: RefCell<Vec<u8>>,
    /// What a power failure leaves at least.
    durable: RefCell<Vec<u8>>,
    /// Of what was written since, any part.
    pending: RefCell<Vec<(usize, Vec<u8>)>>,
    record: bool,
    stores: Cell<u64>,
    stop: Cell<u64>,
}

impl Memory {
    pub fn new(bytes: Vec<u8>) -> Memory {
        Memory {
            durable: RefCell::new(bytes.clone()),
            bytes: RefCell::new(bytes),
            pending: RefCell::new(Vec::new()),
            record: false,
            stores: Cell::new(0),
            stop: Cell::new(u64::MAX),
        }
    }

    /// Remembers what is not synced.
    pub fn recording(bytes: Vec<u8>) -> Memory {
        Memory {
            record: true,
            ..Memory::new(bytes)
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.borrow().clone()
    }

    /// From now on, the program is killed after so many more stores.
    pub fn kill_after(&self, stores: u64) {
        self.stores.set(0);
        self.stop.set(stores);
    }

    /// Another program: it is not killed.
    pub fn revive(&self) {
        self.stop.set(u64::MAX);
    }

    pub fn stores(&self) -> u64 {
        self.stores.get()
    }

    pub fn extend(&self, to: u64) {
        for bytes in [&self.bytes, &self.durable] {
            let to = bytes.borrow().len().max(to as usize);
            bytes.borrow_mut().resize(to, 0);
        }
    }

    pub fn sync(&self) {
        *self.durable.borrow_mut() = self.bytes.borrow().clone();
        self.pending.borrow_mut().clear();
    }

    /// What a power failure may leave now.
    pub fn image(&self, random: &mut Random) -> Vec<u8> {
        let mut image = self.durable.borrow().clone();
        // With half of the writes, nearly none, or nearly all.
        let share = [1, 8, 15][random.below(3) as usize];
        let keep = random.below(4) == 0;
        for (at, data) in self.pending.borrow().iter() {
            if keep || random.below(16) < share {
                image[*at..at + data.len()].copy_from_slice(data);
            }
        }
        image
    }

    /// As [`Memory::image`], but of the writes to one piece, those are left that came before some moment: a file system writes
    /// a piece as it is in memory.
    #[allow(dead_code)] // not every structure needs it
    pub fn image_of_pieces(&self, random: &mut Random) -> Vec<u8> {
        let mut image = self.durable.borrow().clone();
        let share = [1, 8, 15][random.below(3) as usize];
        let mut is_later = std::collections::HashSet::new();
        for (at, data) in self.pending.borrow().iter() {
            // Each write may be the first that is lost, and then all later ones of its piece are.
            if is_later.contains(&(at / PIECE)) || random.below(16) >= share {
                is_later.insert(at / PIECE);
                continue;
            }
            image[*at..at + data.len()].copy_from_slice(data);
        }
        image
    }

    fn change(&self, at: u64, data: &[u8]) -> Result<()> {
        if self.stores.get() >= self.stop.get() {
            return Err(KILLED);
        }
        self.stores.set(self.stores.get() + 1);
        let at = at as usize;
        let mut bytes = self.bytes.borrow_mut();
        let place = bytes.get_mut(at..at + data.len()).ok_or(Errno::INVAL)?;
        let killed = self.stores.get() == self.stop.get() && data.len() > 8;
        // Killed in the middle of a copy.
        let data = if killed {
            &data[..data.len() / 2]
        } else {
            data
        };
        place[..data.len()].copy_from_slice(data);
        drop(bytes);
        if self.record {
            let mut pending = self.pending.borrow_mut();
            let mut from = 0;
            while from < data.len() {
                let count = (PIECE - (at + from) % PIECE).min(data.len() - from);
                pending.push((at + from, data[from..from + count].to_vec()));
                from += count;
            }
        }
        match killed {
            true => Err(KILLED),
            false => Ok(()),
        }
    }
}

impl Shared for Memory {
    fn len(&self) -> u64 {
        self.bytes.borrow().len() as u64
    }

    fn load(&self, at: u64) -> Result<u64> {
        let mut word = [0; 8];
        if !at.is_multiple_of(8) {
            return Err(Errno::INVAL);
        }
        self.read(at, &mut word)?;
        Ok(u64::from_ne_bytes(word))
    }

    fn store(&self, at: u64, value: u64) -> Result<()> {
        match at % 8 {
            0 => self.change(at, &value.to_ne_bytes()),
            _ => Err(Errno::INVAL),
        }
    }

    fn compare_exchange(&self, at: u64, current: u64, new: u64) -> Result<bool> {
        match self.load(at)? == current {
            true => self.store(at, new).map(|()| true),
            false => Ok(false),
        }
    }

    fn update(&self, at: u64, set: u64, clear: u64) -> Result<u64> {
        let before = self.load(at)?;
        self.store(at, before & !clear | set)?;
        Ok(before)
    }

    unsafe fn copy_out(&self, at: u64, out: *mut u8, count: usize) -> Result<()> {
        let bytes = self.bytes.borrow();
        let start = usize::try_from(at).map_err(|_| Errno::INVAL)?;
        let end = start.checked_add(count).ok_or(Errno::INVAL)?;
        let from = bytes.get(start..end).ok_or(Errno::INVAL)?;
        // SAFETY: `from` has `count` bytes; `out` by the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), out, count) };
        Ok(())
    }

    unsafe fn copy_in(&self, at: u64, data: *const u8, count: usize) -> Result<()> {
        // SAFETY: the caller's promise.
        self.change(at, unsafe { std::slice::from_raw_parts(data, count) })
    }
}

/// For the headers, which the store reads and writes.
impl Medium for &Memory {
    fn len(&self) -> Result<u64> {
        Ok(Shared::len(*self))
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.read(offset, out)
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.write(offset, data)
    }

    fn extend(&mut self, to: u64, _allocated: u64) -> Result<()> {
        Memory::extend(self, to);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Memory::sync(self);
        Ok(())
    }
}
