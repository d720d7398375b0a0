//! Bytes that a caller passes to be written. They may be a live binary whose map loses them while they are read.

use crate::fault::{self, Fault, Mark};
use crate::{guard, Errno, Result};

/// What was known about faults before the bytes were read.
#[derive(Clone, Copy)]
pub enum SourceMark {
    /// No map had a fault: the number of all faults.
    Quiet(u64),
    /// The bytes do not belong to a map.
    OfNoMap,
    Map(*const Fault, Mark),
}

/// To be called before bytes are read. Returns the error of their map if they are in a map that has a fault. Takes only two
/// loads while no map has a fault.
///
/// # Safety
/// `data` must stay readable until [`is_intact`] was called.
#[inline]
pub unsafe fn mark(data: *const u8) -> Result<SourceMark> {
    let events = fault::events();
    match fault::any() {
        false => Ok(SourceMark::Quiet(events)),
        // SAFETY: the caller's promise.
        true => unsafe { mark_of_map(data) },
    }
}

/// As [`mark`], but only for the map of the bytes, regardless of faults of other maps.
///
/// # Safety
/// As [`mark`].
#[cold]
unsafe fn mark_of_map(data: *const u8) -> Result<SourceMark> {
    let Some(fault) = guard::fault_at(data as usize) else {
        return Ok(SourceMark::OfNoMap);
    };
    // SAFETY: the bytes are readable by the caller's promise, so their map is alive, and its fault.
    let mark = unsafe { (*fault).mark() };
    match Fault::seen_before(mark) {
        false => Ok(SourceMark::Map(fault, mark)),
        // SAFETY: as above.
        true => Err(unsafe { error(fault) }),
    }
}

/// To be called after bytes were read. `false`: read them again, after [`mark_of_map`]. An error: their map lost them.
///
/// # Safety
/// As [`mark`].
#[inline]
pub unsafe fn is_intact(data: *const u8, mark: SourceMark) -> Result<bool> {
    match mark {
        SourceMark::OfNoMap => Ok(true),
        SourceMark::Quiet(events) if fault::events() == events => Ok(true),
        // Some map had a fault. If it was the map of the bytes, it may have been repaired in the meantime.
        SourceMark::Quiet(_) => Ok(guard::fault_at(data as usize).is_none()),
        // SAFETY: the caller's promise.
        SourceMark::Map(fault, mark) => unsafe {
            match (*fault).since(mark) {
                true => Ok(true),
                false => Err(error(fault)),
            }
        },
    }
}

/// # Safety
/// The map of the fault must be alive.
unsafe fn error(fault: *const Fault) -> Errno {
    // SAFETY: the caller's promise.
    let first = unsafe { (*fault).first() };
    // If there is none, it was repaired in the meantime.
    first.map_or(Errno::STALE, |(_, reason)| reason.errno())
}

/// Reads the bytes at `data` with `read`, or reads them twice if a map had a fault in the meantime. Returns the error of
/// their map if it lost them.
///
/// # Safety
/// As [`mark`].
#[inline(always)]
pub unsafe fn read_intact(data: *const u8, mut read: impl FnMut()) -> Result<()> {
    // As `mark` and `is_intact` if no map has a fault: three loads, and no `SourceMark` in memory.
    let events = fault::events();
    if !fault::any() {
        read();
        if fault::events() == events {
            return Ok(());
        }
    }
    // SAFETY: the caller's promise.
    unsafe { read_near_fault(data, read) }
}

/// As [`read_intact`], if a map has a fault, or had one in the meantime.
///
/// # Safety
/// As [`mark`].
#[cold]
#[inline(never)]
unsafe fn read_near_fault(data: *const u8, mut read: impl FnMut()) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let first = mark(data)?;
        read();
        if is_intact(data, first)? {
            return Ok(());
        }
        let again = mark_of_map(data)?;
        read();
        is_intact(data, again).map(drop)
    }
}

/// Copies bytes to memory that is not mapped: as they are in the file, or returns the error of their map.
///
/// # Safety
/// As [`mark`], for `count` bytes; `to` must have room for as many, outside of any map.
pub unsafe fn copy_intact(from: *const u8, to: *mut u8, count: usize) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { read_intact(from, || std::ptr::copy_nonoverlapping(from, to, count)) }
}
