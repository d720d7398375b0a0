//! The bytes of a structure that several programs change at once: its map or, in tests, memory whose writers stop at any
//! store.
//!
//! Words are atomic. Other bytes are copied, and are never referred to: another program may change them in the meantime.

use std::sync::atomic::{AtomicU64, Ordering};

use super::checksum;
use crate::bounds::checked_range;
use crate::{Errno, Region, Result};

/// The bytes of a word, and what its offset must be a multiple of.
const WORD: usize = 8;

#[allow(clippy::len_without_is_empty)] // a size, not a collection
pub trait Shared {
    fn len(&self) -> u64;

    /// The word at an offset; EINVAL where there is none. What was stored before it was stored is seen.
    fn load(&self, at: u64) -> Result<u64>;

    /// Stores a word after everything that was stored before.
    fn store(&self, at: u64, value: u64) -> Result<()>;

    /// Stores `new` where the word is `current`, and returns whether it was.
    fn compare_exchange(&self, at: u64, current: u64, new: u64) -> Result<bool>;

    /// Sets and clears bits, and returns the word before.
    fn update(&self, at: u64, set: u64, clear: u64) -> Result<u64>;

    /// Copies bytes out; EINVAL where not all of them are inside.
    ///
    /// # Safety
    /// `out` must have room for `count` bytes, outside of this memory.
    unsafe fn copy_out(&self, at: u64, out: *mut u8, count: usize) -> Result<()>;

    /// Copies bytes in; EINVAL where not all of them would be inside.
    ///
    /// # Safety
    /// `data` must have `count` readable bytes, outside of this memory.
    unsafe fn copy_in(&self, at: u64, data: *const u8, count: usize) -> Result<()>;

    /// As [`Shared::copy_out`], and returns the checksum of what has the checksum `crc`, followed by what was copied.
    ///
    /// # Safety
    /// As [`Shared::copy_out`].
    #[inline(always)]
    unsafe fn sum_out(&self, at: u64, out: *mut u8, count: usize, crc: u32) -> Result<u32> {
        // SAFETY: the caller's promise; the bytes are its own once they are copied.
        let bytes = unsafe {
            self.copy_out(at, out, count)?;
            std::slice::from_raw_parts(out, count)
        };
        Ok(checksum::append(crc, bytes))
    }

    /// As [`Shared::copy_in`], and returns the checksum of what has the checksum `crc`, followed by what was copied.
    ///
    /// # Safety
    /// As [`Shared::copy_in`], and nobody may change the data in the meantime.
    #[inline(always)]
    unsafe fn sum_in(&self, at: u64, data: *const u8, count: usize, crc: u32) -> Result<u32> {
        // SAFETY: the caller's promise.
        unsafe {
            self.copy_in(at, data, count)?;
            let bytes = std::slice::from_raw_parts(data, count);
            Ok(checksum::append(crc, bytes))
        }
    }

    /// The words from an offset on, where they can be referred to: in a map. Others may change them in the meantime.
    fn words(&self, _at: u64, _count: usize) -> Result<Option<&[AtomicU64]>> {
        Ok(None)
    }

    #[inline(always)]
    fn read(&self, at: u64, out: &mut [u8]) -> Result<()> {
        // SAFETY: a reference never is in shared memory.
        unsafe { self.copy_out(at, out.as_mut_ptr(), out.len()) }
    }

    #[inline(always)]
    fn write(&self, at: u64, data: &[u8]) -> Result<()> {
        // SAFETY: as above.
        unsafe { self.copy_in(at, data.as_ptr(), data.len()) }
    }
}

/// The map of a structure's file, as long as it was when this was made.
#[derive(Clone, Copy)]
pub struct Mapped<'a> {
    base: *mut u8,
    len: usize,
    region: std::marker::PhantomData<&'a Region>,
}

impl<'a> Mapped<'a> {
    #[inline(always)]
    pub fn new(region: &'a Region) -> Mapped<'a> {
        let len = region.len();
        Mapped {
            // After the length: it has room for it (2: Published in order in `region.rs`).
            base: region.base(),
            len,
            region: std::marker::PhantomData,
        }
    }

    #[inline(always)]
    fn start(&self, at: u64, count: usize) -> Result<*mut u8> {
        let start = checked_range(at, count, self.len).ok_or(Errno::INVAL)?;
        // SAFETY: inside the map by the line above (1: Alive).
        Ok(unsafe { self.base.add(start) })
    }

    #[inline(always)]
    fn word(&self, at: u64) -> Result<&AtomicU64> {
        let word = self.start(at, WORD)?.cast::<AtomicU64>();
        if !word.is_aligned() {
            return Err(Errno::INVAL);
        }
        // SAFETY: aligned, and eight bytes inside the map, which stays mapped for as long as the region lives (1: Alive).
        Ok(unsafe { &*word })
    }
}

impl Shared for Mapped<'_> {
    #[inline(always)]
    fn len(&self) -> u64 {
        self.len as u64
    }

    #[inline(always)]
    fn load(&self, at: u64) -> Result<u64> {
        Ok(self.word(at)?.load(Ordering::Acquire))
    }

    #[inline(always)]
    fn store(&self, at: u64, value: u64) -> Result<()> {
        self.word(at)?.store(value, Ordering::Release);
        Ok(())
    }

    #[inline(always)]
    fn compare_exchange(&self, at: u64, current: u64, new: u64) -> Result<bool> {
        let (success, failure) = (Ordering::SeqCst, Ordering::Acquire);
        let word = self.word(at)?;
        Ok(word
            .compare_exchange(current, new, success, failure)
            .is_ok())
    }

    fn words(&self, at: u64, count: usize) -> Result<Option<&[AtomicU64]>> {
        let bytes = count.checked_mul(WORD).ok_or(Errno::INVAL)?;
        let start = self.start(at, bytes)?.cast::<AtomicU64>();
        // SAFETY: aligned, and inside the map, which stays mapped for as long as the region lives (1: Alive).
        let words = || unsafe { std::slice::from_raw_parts(start, count) };
        Ok(start.is_aligned().then(words))
    }

    fn update(&self, at: u64, set: u64, clear: u64) -> Result<u64> {
        let word = self.word(at)?;
        let next = |bits: u64| Some(bits & !clear | set);
        let (Ok(before) | Err(before)) =
            word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
        Ok(before)
    }

    #[inline(always)]
    unsafe fn copy_out(&self, at: u64, out: *mut u8, count: usize) -> Result<()> {
        let from = self.start(at, count)?;
        // SAFETY: inside the map; `out` by the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from, out, count) };
        Ok(())
    }

    #[inline(always)]
    unsafe fn sum_out(&self, at: u64, out: *mut u8, count: usize, crc: u32) -> Result<u32> {
        let from = self.start(at, count)?;
        // SAFETY: inside the map; `out` by the caller's promise.
        Ok(unsafe { checksum::copy(crc, from, out, out, count) })
    }

    #[inline(always)]
    unsafe fn sum_in(&self, at: u64, data: *const u8, count: usize, crc: u32) -> Result<u32> {
        let to = self.start(at, count)?;
        // SAFETY: inside the map, which is writable; `data` by the caller's promise.
        Ok(unsafe { checksum::copy(crc, data, to, data, count) })
    }

    #[inline(always)]
    unsafe fn copy_in(&self, at: u64, data: *const u8, count: usize) -> Result<()> {
        let to = self.start(at, count)?;
        // SAFETY: inside the map, which is writable; `data` by the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(data, to, count) };
        Ok(())
    }
}
