//! Bytes that a caller hands in to be written: they may be a live binary, whose map may lose them while they are read.

use crate::{fault, guard, Result};

/// What was known of faults before the bytes were read.
#[derive(Clone, Copy)]
pub struct SourceMark(u64);

/// Before bytes are read; the error of their map, if they lie in one of ours that has a fault. No more than two loads
/// while no map has one.
///
/// # Safety
/// `data` must stay readable until [`is_intact`] was asked.
#[inline]
pub unsafe fn mark(data: *const u8) -> Result<SourceMark> {
    let mark = SourceMark(fault::events());
    if fault::any() {
        // SAFETY: the caller's promise.
        unsafe { check(data)? };
    }
    Ok(mark)
}

/// After bytes were read: `false`, read them again; an error, their map lost them.
///
/// # Safety
/// As [`mark`].
#[inline]
pub unsafe fn is_intact(data: *const u8, mark: SourceMark) -> Result<bool> {
    if fault::events() == mark.0 {
        return Ok(true);
    }
    // SAFETY: the caller's promise.
    unsafe { check(data)? };
    // A map had a fault. Where the bytes are its own, it may have been repaired again by now.
    Ok(!guard::is_guarded(data as usize))
}

/// The error of the map that the byte lies in.
///
/// # Safety
/// As [`mark`].
#[cold]
pub unsafe fn check(data: *const u8) -> Result<()> {
    // SAFETY: the byte is readable by the caller's promise, so its map is alive.
    match unsafe { guard::fault_at(data as usize) } {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Copies bytes to memory of our own: as they are in the file, or the error of their map.
///
/// # Safety
/// As [`mark`], for `count` bytes; `to` must have room for as many, outside of any map.
pub unsafe fn copy_intact(from: *const u8, to: *mut u8, count: usize) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        loop {
            let mark = mark(from)?;
            std::ptr::copy_nonoverlapping(from, to, count);
            if is_intact(from, mark)? {
                return Ok(());
            }
        }
    }
}
