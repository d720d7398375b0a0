//! Bytes in and out of a region.

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::ptr;

use super::lock::{CopyLock, Stripes};
use super::read_only::SlowWrite;
use super::Region;
use crate::bounds::{checked_range, clamped_range};
use crate::byte_search::ByteSearch;
use crate::typed::MOST;
use crate::{guard, interrupt, patience, source, Errno, Result};

/// Whether the calling thread may wait for a long copy of another thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    No,
    Yes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// This many bytes were copied; fewer than requested if the map shrank in the meantime, or the caller was killed.
    Done(usize),
    /// Another copy is in the way; call again with [`Wait::Yes`], where the thread may wait: see [`crate::patience`].
    Busy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    Done,
    /// As [`Read::Busy`]. Nothing was written.
    Busy,
    /// It ends past the end of the map. The caller must grow the map and call again. Nothing was written.
    PastEnd,
    /// The claim was refused. Nothing was written.
    Refused,
}

impl Region {
    /// Where a read of `count` bytes at `position` begins, and how many it gets; `None` at the end.
    #[inline(always)]
    pub fn locate(&self, position: u64, count: usize) -> Option<(usize, usize)> {
        clamped_range(position, count, self.len())
    }

    /// The address of position 0. Every byte that was ever inside the map stays readable from there as long as the region lives.
    #[inline(always)]
    pub fn base(&self) -> *mut u8 {
        self.hot.extent.base()
    }

    /// The address of the byte at `start`; see [`Region::base`].
    ///
    /// # Safety
    /// `start` must be at most a length that the map has had, as returned by [`Region::len`] and [`Region::locate`].
    #[inline(always)]
    pub unsafe fn pointer(&self, start: usize) -> *mut u8 {
        // SAFETY: `base` has room for every length that was read before (2: Published in order).
        unsafe { self.base().add(start) }
    }

    /// Copies `count` bytes at `start` to `out`.
    ///
    /// # Safety
    /// `out` must have room for `count` bytes, outside of this region.
    #[inline(always)]
    pub unsafe fn copy_out(&self, start: usize, count: usize, out: *mut u8, wait: Wait) -> Read {
        let Some(lock) = self.hot.lock.existing() else {
            // SAFETY: the caller's promise.
            return unsafe { self.copy_out_unlocked(start, count, out, wait) };
        };
        if wait == Wait::No {
            if let Some(quiet) = lock.quiet(start, count) {
                // SAFETY: the caller's promise.
                let got = unsafe { self.copy_out_once(start, count, out) };
                if quiet.still() {
                    return Read::Done(got);
                }
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.copy_out_striped(lock, start, count, out, wait) }
    }

    /// As [`Region::copy_out`], for a map that nothing was written to.
    ///
    /// # Safety
    /// As [`Region::copy_out`].
    #[inline(always)]
    unsafe fn copy_out_unlocked(
        &self,
        start: usize,
        count: usize,
        out: *mut u8,
        wait: Wait,
    ) -> Read {
        // SAFETY: the caller's promise.
        let got = unsafe { self.copy_out_once(start, count, out) };
        match self.hot.lock.written() {
            None => Read::Done(got),
            // SAFETY: the caller's promise.
            Some(lock) => unsafe { self.copy_out_striped(lock, start, count, out, wait) },
        }
    }

    /// As [`Region::copy_out`], for several stripes, or if a writer was in the way the first time.
    ///
    /// # Safety
    /// As [`Region::copy_out`].
    #[inline(never)]
    unsafe fn copy_out_striped(
        &self,
        lock: &CopyLock,
        start: usize,
        count: usize,
        out: *mut u8,
        wait: Wait,
    ) -> Read {
        // SAFETY: the caller's promise.
        let copy = || unsafe { self.copy_out_once(start, count, out) };
        if wait == Wait::No {
            if let Some(quiet) = lock.quiet_two(start, count) {
                let got = copy();
                if quiet.iter().all(|one| one.still()) {
                    return Read::Done(got);
                }
            }
        }
        let stripes = Stripes::of(start, count);
        match wait {
            Wait::No => lock
                .read_short(stripes, copy)
                .map_or(Read::Busy, Read::Done),
            Wait::Yes => lock
                .read_within(stripes, patience::of_copies(), copy)
                .map_or(Read::Busy, Read::Done),
        }
    }

    /// Without the lock. Returns how many bytes it copied.
    ///
    /// # Safety
    /// As [`Region::copy_out`].
    #[inline(always)]
    unsafe fn copy_out_once(&self, start: usize, count: usize, out: *mut u8) -> usize {
        let count = count.min(self.len().saturating_sub(start));
        if interrupt::is_long(count) {
            // SAFETY: inside the map, as checked above (1: Alive); `out` by the caller's promise.
            return interrupt::in_pieces(count, false, |at, piece| unsafe {
                ptr::copy_nonoverlapping(self.pointer(start + at), out.add(at), piece);
            });
        }
        if count > 0 {
            // SAFETY: inside the map, as checked above (1: Alive); `out` by the caller's promise.
            unsafe {
                let from = self.pointer(start);
                if !copy_number(from, out, count) {
                    ptr::copy_nonoverlapping(from, out, count);
                }
            }
        }
        count
    }

    /// Copies `count` bytes from `data` to `position`, after `claim` agreed (it moves the cursor).
    ///
    /// # Safety
    /// `data` must have `count` readable bytes; they may are in this region.
    #[inline(always)]
    pub unsafe fn copy_in(
        &self,
        position: u64,
        data: *const u8,
        count: usize,
        wait: Wait,
        claim: impl FnOnce() -> bool,
    ) -> Result<Written> {
        self.change(position, count, wait, move |start| {
            if !claim() {
                return Ok(Written::Refused);
            }
            if interrupt::is_long(count) && !guard::may_be_guarded(data as usize) {
                // SAFETY: as below. The bytes do not belong to a map, so they do not overlap with this one.
                let done = interrupt::in_pieces(count, false, |at, piece| unsafe {
                    ptr::copy_nonoverlapping(data.add(at), self.pointer(start + at), piece);
                });
                return if done == count {
                    Ok(Written::Done)
                } else {
                    Err(Errno::INTR)
                };
            }
            // SAFETY: `start + count` is inside the map (1: Alive), which is writable; `data` by
            // the caller's word.
            unsafe { self.copy_aliased(data, start, count) }?;
            Ok(Written::Done)
        })
    }

    /// The eight bytes at `position`, without waiting. `None`: another copy is in the way, or they are in two
    /// stripes, or not inside the map: then call [`Region::copy_out`].
    #[inline(always)]
    pub fn read_word(&self, position: u64) -> Option<[u8; MOST]> {
        let read = || {
            let start = checked_range(position, MOST, self.len())?;
            // SAFETY: `start + MOST` is inside the map (1: Alive).
            Some(unsafe { self.pointer(start).cast::<[u8; MOST]>().read() })
        };
        let Some(lock) = self.hot.lock.existing() else {
            let bytes = read()?;
            return self.hot.lock.written().is_none().then_some(bytes);
        };
        let quiet = lock.quiet(position as usize, MOST)?;
        let bytes = read()?;
        quiet.still().then_some(bytes)
    }

    /// Copies a number of `size` bytes, the first ones of `bytes`, to `position`.
    #[inline(always)]
    pub fn put_number(
        &self,
        position: u64,
        bytes: [u8; MOST],
        size: usize,
        wait: Wait,
    ) -> Result<Written> {
        debug_assert!(matches!(size, 1 | 2 | 4 | 8));
        self.change(position, size, wait, move |start| {
            // SAFETY: `start + size` is inside the map (1: Alive), which is writable. A number has at most MOST bytes, and
            // these do not belong to a map.
            unsafe { copy_number(bytes.as_ptr(), self.pointer(start), size) };
            Ok(Written::Done)
        })
    }

    /// Sets `count` bytes at `position` to `byte`.
    pub fn fill(&self, position: u64, count: usize, byte: u8, wait: Wait) -> Result<Written> {
        self.change(position, count, wait, |start| {
            // SAFETY: `start + count` is inside the map (1: Alive), which is writable.
            unsafe { ptr::write_bytes(self.pointer(start), byte, count) };
            Ok(Written::Done)
        })
    }

    /// Copies `count` bytes from `from` to `to` as if through a buffer. EINVAL if
    /// not all of them are inside the map.
    pub fn copy_within(&self, from: u64, to: u64, count: usize, wait: Wait) -> Result<Written> {
        if self.writable() && count > 0 {
            // Checked first, so that the map does not grow in vain.
            checked_range(from, count, self.len()).ok_or(Errno::INVAL)?;
        }
        let copy = |to: usize| {
            // Checked again, because the map may have shrunk while the lock was waited for.
            let from = checked_range(from, count, self.len()).ok_or(Errno::INVAL)?;
            // Both from one base: with the base of a growth in between, one page would have two addresses.
            let base = self.base();
            // SAFETY: both ranges are inside the map (1: Alive), which is writable; `base` was
            // read after the length, so it has room for both (2: Published in order). The order of the pieces ensures that
            // only bytes that were already copied are overwritten.
            let done = interrupt::in_pieces(count, to > from, |at, piece| unsafe {
                ptr::copy(base.add(from + at), base.add(to + at), piece);
            });
            if done == count {
                Ok(Written::Done)
            } else {
                Err(Errno::INTR)
            }
        };
        let _slow = self.check_write(wait)?;
        // The source must not change during the copy, either.
        let stripes = Stripes::of(from as usize, count).and(Stripes::of(to as usize, count));
        self.change_striped(stripes, wait, || self.at(to, count, copy))
    }

    /// Runs `write` with the address of `position`, if all of `count` bytes are inside the map and no
    /// other copy of them is running.
    #[inline(always)]
    fn change(
        &self,
        position: u64,
        count: usize,
        wait: Wait,
        write: impl FnOnce(usize) -> Result<Written>,
    ) -> Result<Written> {
        let _slow = self.check_write(wait)?;
        let _turn = match (self.lock_of_writers(), wait) {
            (None, _) => None,
            // A position past the end of all addresses is in no stripe, and is not written to.
            (Some(lock), Wait::No) => match lock.try_write_one(position as usize, count) {
                None => return self.change_otherwise(position, count, wait, write),
                turn => turn,
            },
            (Some(_), Wait::Yes) => return self.change_otherwise(position, count, wait, write),
        };
        self.at(position, count, write)
    }

    /// As [`Region::change`], for several stripes, if other copies are running, or if waiting is allowed. (It owns its
    /// arguments, because a variable that a closure refers to is in memory and not in a register.)
    #[inline(never)]
    fn change_otherwise(
        &self,
        position: u64,
        count: usize,
        wait: Wait,
        write: impl FnOnce(usize) -> Result<Written>,
    ) -> Result<Written> {
        if let (Some(lock), Wait::No) = (self.lock_of_writers(), wait) {
            if let Some(_turn) = lock.try_write_two(position as usize, count) {
                return self.at(position, count, write);
            }
        }
        let stripes = Stripes::of(position as usize, count);
        self.change_striped(stripes, wait, || self.at(position, count, write))
    }

    /// Runs `write` when no other copy is running in these stripes.
    #[inline(always)]
    fn change_striped(
        &self,
        stripes: Stripes,
        wait: Wait,
        write: impl FnOnce() -> Result<Written>,
    ) -> Result<Written> {
        let _turn = match (self.lock_of_writers(), wait) {
            (None, _) => None,
            (Some(lock), Wait::Yes) => match lock.write_within(stripes, patience::of_copies()) {
                None => return Ok(Written::Busy),
                turn => turn,
            },
            (Some(lock), Wait::No) => match lock.try_write(stripes) {
                None => return Ok(Written::Busy),
                turn => turn,
            },
        };
        write()
    }

    /// `None` for a map without a lock.
    #[inline(always)]
    pub(super) fn lock_of_writers(&self) -> Option<&CopyLock> {
        self.hot.locks.then(|| self.hot.lock.needed())
    }

    /// Runs `write` with the address of `position`, if all of `count` bytes are inside the map. The lock must be held.
    #[inline(always)]
    fn at(
        &self,
        position: u64,
        count: usize,
        write: impl FnOnce(usize) -> Result<Written>,
    ) -> Result<Written> {
        if count == 0 {
            return Ok(Written::Done);
        }
        match checked_range(position, count, self.len()) {
            Some(start) => write(start),
            None => Ok(Written::PastEnd),
        }
    }

    /// To be called before a write. The result must be kept until the end of the write.
    #[inline(always)]
    fn check_write(&self, wait: Wait) -> Result<Option<SlowWrite<'_>>> {
        match wait {
            Wait::No => self.check_writable().map(|()| None),
            Wait::Yes => self.slow_write().map(Some),
        }
    }

    #[inline(always)]
    pub(super) fn check_writable(&self) -> Result<()> {
        match self.writable() {
            true => Ok(()),
            false => Err(Errno::ACCES),
        }
    }

    /// The length of the line at `start`, including its newline, within at most `count` bytes;
    /// `None` if they contain no newline.
    pub fn line_length(&self, start: usize, count: usize) -> Option<usize> {
        let count = count.min(self.len().saturating_sub(start));
        if count == 0 {
            return None;
        }
        // SAFETY: `start + count` is inside the map (1: Alive).
        let (from, found) = unsafe {
            let from = self.pointer(start);
            (from, libc::memchr(from.cast(), i32::from(b'\n'), count))
        };
        (!found.is_null()).then(|| found as usize - from as usize + 1)
    }

    /// How many times `byte` occurs in the part of `position .. position + count` that is inside
    /// the map.
    pub fn count_byte(&self, position: u64, count: usize, byte: u8) -> usize {
        let Some((start, count)) = self.locate(position, count) else {
            return 0;
        };
        // SAFETY: `start + count` is inside the map (1: Alive).
        unsafe {
            let at = self.pointer(start).cast_const();
            ByteSearch::new(byte).count(at, at.add(count))
        }
    }

    /// The position of the first `byte` in the part of `position .. position + count` that is
    /// inside the map.
    pub fn find_byte(&self, position: u64, count: usize, byte: u8) -> Option<u64> {
        let (start, count) = self.locate(position, count)?;
        // SAFETY: as above.
        let (at, found) = unsafe {
            let at = self.pointer(start).cast_const();
            (at, ByteSearch::new(byte).find(at, at.add(count))?)
        };
        Some(position + (found as u64 - at as u64))
    }

    /// The byte at `start`.
    ///
    /// # Safety
    /// `start` must be less than a length that the map has had.
    pub unsafe fn byte(&self, start: usize) -> u8 {
        // SAFETY: inside the map, by the caller's promise (1: Alive).
        unsafe { self.pointer(start).read_volatile() }
    }

    /// Copies bytes that may be identical with the bytes they are copied to. A live binary shows pages that
    /// an older range of addresses, or another map of the same file, shows at other addresses, so
    /// addresses do not tell whether the two overlap. Bytes that another map has lost are not copied.
    ///
    /// # Safety
    /// `from` must have `count` readable bytes; `start + count` must be inside the writable map.
    #[inline(always)]
    pub(super) unsafe fn copy_aliased(
        &self,
        from: *const u8,
        start: usize,
        count: usize,
    ) -> Result<()> {
        // SAFETY: inside the map, by the caller's promise.
        let to = unsafe { self.pointer(start) };
        if !guard::may_be_guarded(from as usize) {
            // These bytes do not belong to any map, so they cannot be bytes of this one, at any address.
            // SAFETY: the caller's promise; the two do not overlap, as the line above shows.
            unsafe {
                if !copy_number(from, to, count) {
                    ptr::copy_nonoverlapping(from, to, count);
                }
            }
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { self.copy_perhaps_aliased(from, to, count) }
    }

    /// # Safety
    /// As [`Region::copy_aliased`]; `to` is the address of `start`.
    #[inline(never)]
    unsafe fn copy_perhaps_aliased(
        &self,
        from: *const u8,
        to: *mut u8,
        count: usize,
    ) -> Result<()> {
        // An additional copy on the stack costs less than finding out whether it is needed.
        const SMALL: usize = 1024;
        // SAFETY: the caller's promise, for as many bytes as the type has.
        unsafe {
            match count {
                8 => copy_number_intact::<u64>(from, to),
                4 => copy_number_intact::<u32>(from, to),
                2 => copy_number_intact::<u16>(from, to),
                1 => copy_number_intact::<u8>(from, to),
                _ if count <= SMALL => copy_by_way_of::<SMALL>(from, to, count),
                _ => self.copy_many_aliased(from, to, count),
            }
        }
    }

    /// # Safety
    /// As [`Region::copy_aliased`]; `to` is the address of `start`.
    #[inline(never)]
    unsafe fn copy_many_aliased(&self, from: *const u8, to: *mut u8, count: usize) -> Result<()> {
        // Allocating memory costs more than using the stack.
        const ON_STACK: usize = 16 << 10;
        let base = self.base() as usize;
        let inside = |at: usize| at.wrapping_sub(base) < self.len();
        let same_range = inside(from as usize) && inside(to as usize);
        if same_range || !guard::is_guarded(from as usize) {
            // If this map loses pages, the caller finds out when it checks the fault.
            // SAFETY: the caller's promise.
            unsafe { ptr::copy(from, to, count) };
            return Ok(());
        }
        if count <= ON_STACK {
            // SAFETY: the caller's promise.
            return unsafe { copy_by_way_of::<ON_STACK>(from, to, count) };
        }
        let mut between: Vec<u8> = Vec::new();
        between.try_reserve_exact(count).map_err(|_| Errno::NOMEM)?;
        // SAFETY: by the caller's promise; the buffer in between has room for `count` bytes, and is not shared.
        unsafe {
            source::copy_intact(from, between.as_mut_ptr(), count)?;
            let between = black_box(between.as_ptr());
            ptr::copy_nonoverlapping(between, to, count);
        }
        Ok(())
    }
}

/// Copies bytes that may be a live binary, and may be identical with the bytes they are copied to: all are read before any
/// is written.
///
/// # Safety
/// `from` must have `count` readable bytes and `to` as many writable ones; `count` must be at most `SIZE`.
#[inline(always)]
unsafe fn copy_by_way_of<const SIZE: usize>(
    from: *const u8,
    to: *mut u8,
    count: usize,
) -> Result<()> {
    debug_assert!(count <= SIZE);
    let mut between = MaybeUninit::<[u8; SIZE]>::uninit();
    // SAFETY: by the caller's promise; `between` has room for `count` bytes.
    unsafe {
        source::read_intact(from, || {
            let between = between.as_mut_ptr().cast();
            ptr::copy_nonoverlapping(from, between, count);
        })?;
        // Without this, the compiler would merge the two copies into one, because it does not expect aliases.
        let between = black_box(between.as_ptr()).cast();
        ptr::copy_nonoverlapping(between, to, count);
    }
    Ok(())
}

/// As [`copy_by_way_of`], for a number.
///
/// # Safety
/// `from` must have as many readable bytes as `T` has, and `to` as many writable ones.
#[inline(always)]
unsafe fn copy_number_intact<T: Copy>(from: *const u8, to: *mut u8) -> Result<()> {
    let mut number = MaybeUninit::<T>::uninit();
    // SAFETY: the caller's promise; `number` is written if no error is returned.
    unsafe {
        source::read_intact(from, || {
            number.write(from.cast::<T>().read_unaligned());
        })?;
        to.cast::<T>().write_unaligned(number.assume_init());
    }
    Ok(())
}

/// Copies the bytes of a number in one move, whether or not source and destination are the same bytes;
/// `false` for a count that is not the size of a number.
///
/// # Safety
/// `from` must have `count` readable bytes and `to` as many writable ones.
#[inline(always)]
unsafe fn copy_number(from: *const u8, to: *mut u8, count: usize) -> bool {
    unsafe fn one<T>(from: *const u8, to: *mut u8) -> bool {
        // SAFETY: the caller's promise, for the size of `T`.
        unsafe {
            to.cast::<T>()
                .write_unaligned(from.cast::<T>().read_unaligned())
        }
        true
    }
    // SAFETY: the caller's promise.
    unsafe {
        match count {
            8 => one::<u64>(from, to),
            4 => one::<u32>(from, to),
            2 => one::<u16>(from, to),
            1 => one::<u8>(from, to),
            _ => false,
        }
    }
}
