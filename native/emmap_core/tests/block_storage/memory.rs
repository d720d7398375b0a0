//! Memory whose writer stops at any store.

use std::cell::{Cell, RefCell};

use emmap_core::store::Shared;
use emmap_core::{Errno, Result};

/// What a program gets that was killed.
pub const KILLED: Errno = Errno(9999);

pub struct Memory {
    bytes: RefCell<Vec<u8>>,
    left: Cell<u64>,
}

impl Memory {
    pub fn new(bytes: Vec<u8>) -> Memory {
        Memory {
            bytes: RefCell::new(bytes),
            left: Cell::new(u64::MAX),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.borrow().clone()
    }

    /// From now on, the program is killed after so many more stores.
    pub fn kill_after(&self, stores: u64) {
        self.left.set(stores);
    }

    /// Another program: it is not killed.
    pub fn revive(&self) {
        self.left.set(u64::MAX);
    }
}

impl Shared for Memory {
    fn len(&self) -> u64 {
        self.bytes.borrow().len() as u64
    }

    fn load(&self, _at: u64) -> Result<u64> {
        unreachable!("words of a block storage are not aligned")
    }

    fn store(&self, _at: u64, _value: u64) -> Result<()> {
        unreachable!("words of a block storage are not aligned")
    }

    fn compare_exchange(&self, _at: u64, _current: u64, _new: u64) -> Result<bool> {
        unreachable!("words of a block storage are not aligned")
    }

    fn update(&self, _at: u64, _set: u64, _clear: u64) -> Result<u64> {
        unreachable!("words of a block storage are not aligned")
    }

    unsafe fn copy_out(&self, at: u64, out: *mut u8, count: usize) -> Result<()> {
        let bytes = self.bytes.borrow();
        let from = bytes
            .get(at as usize..at as usize + count)
            .ok_or(Errno::INVAL)?;
        // SAFETY: `from` has `count` bytes; `out` by the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), out, count) };
        Ok(())
    }

    unsafe fn copy_in(&self, at: u64, data: *const u8, count: usize) -> Result<()> {
        self.left.set(self.left.get().checked_sub(1).ok_or(KILLED)?);
        let mut bytes = self.bytes.borrow_mut();
        let to = bytes
            .get_mut(at as usize..at as usize + count)
            .ok_or(Errno::INVAL)?;
        // SAFETY: the caller's promise.
        to.copy_from_slice(unsafe { std::slice::from_raw_parts(data, count) });
        Ok(())
    }
}
