//! Blocks.

use std::ffi::{c_char, c_int};

use emmap_core::blocks::{self, Blocks, Request, Stop};
use emmap_core::region::Wait;
use emmap_core::{Errno, Region, Result};

use crate::boundary::{call, handle, path, refused, return_handle, take_handle, DAMAGED};
use crate::fork::Kept;

pub struct emmap_blocks {
    // Before the blocks, which own the descriptor: fields are dropped in this order.
    kept: Kept,
    blocks: Blocks,
    region: Region,
}

// Threads share a handle.
const _: () = {
    const fn is_sync<T: Sync>() {}
    is_sync::<emmap_blocks>();
};

const EXISTING: u32 = 1;

fn errno(stop: Stop) -> Errno {
    match stop {
        Stop::Posix(error) => error,
        Stop::Absent => Errno(libc::ENOENT),
        Stop::Corrupt(_) => DAMAGED,
        // Only for calls that may not wait. These may.
        Stop::Busy | Stop::Grow(_) | Stop::Sync => Errno::BUSY,
    }
}

/// Runs `act` on open blocks.
///
/// # Safety
/// The pointer must be NULL or a handle that is not closed before the call ends.
unsafe fn on_blocks<R>(
    blocks: *const emmap_blocks,
    act: impl FnOnce(&emmap_blocks) -> std::result::Result<R, Stop>,
) -> Result<R> {
    // SAFETY: the caller's promise.
    let blocks = unsafe { handle(blocks)? };
    blocks.kept.check()?;
    act(blocks).map_err(errno)
}

/// A number in the form that C gets.
fn signed(number: u64) -> std::result::Result<i64, Stop> {
    i64::try_from(number).map_err(|_| Errno(libc::EOVERFLOW).into())
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_blocks_open(
    name: *const c_char,
    flags: u32,
    block_size: u64,
    out: *mut *mut emmap_blocks,
) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let path = unsafe { path(name)? };
        let open = || {
            if flags & !EXISTING != 0 {
                return Err(Errno::INVAL);
            }
            let request = Request {
                block_size: Some(block_size).filter(|size| *size > 0),
                existing: flags & EXISTING != 0,
            };
            let (region, blocks) = blocks::open(path, &request).map_err(refused)?;
            Ok(emmap_blocks {
                kept: Kept::new(blocks.presence().fd()),
                blocks,
                region,
            })
        };
        // SAFETY: the caller's promise.
        unsafe { return_handle(out, open) }
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_blocks_close(blocks: *mut emmap_blocks) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let blocks = unsafe { take_handle(blocks)? };
        blocks.kept.check()?;
        blocks.blocks.leave(&blocks.region).map(|()| 0)
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_blocks_size(blocks: *const emmap_blocks) -> i64 {
    // SAFETY: the caller's promise.
    call(|| unsafe { on_blocks(blocks, |open| signed(open.blocks.geometry().block_size)) })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_blocks_count(blocks: *const emmap_blocks) -> i64 {
    call(|| {
        // SAFETY: the caller's promise.
        unsafe { on_blocks(blocks, |open| signed(open.blocks.count(&open.region)?)) }
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_blocks_store(blocks: *const emmap_blocks, data: *const u8) -> i64 {
    call(|| {
        if data.is_null() {
            return Err(Errno::INVAL);
        }
        // SAFETY: the caller's promise, also of the data.
        unsafe {
            on_blocks(blocks, |open| {
                signed(open.blocks.store(&open.region, Wait::Yes, data)?)
            })
        }
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_blocks_read(
    blocks: *const emmap_blocks,
    address: u64,
    buffer: *mut u8,
) -> c_int {
    call(|| {
        if buffer.is_null() {
            return Err(Errno::INVAL);
        }
        // SAFETY: the caller's promise, also of the buffer.
        unsafe {
            on_blocks(blocks, |open| {
                let (region, wait) = (&open.region, Wait::Yes);
                open.blocks.read(region, wait, address, buffer).map(|()| 0)
            })
        }
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_blocks_write(
    blocks: *const emmap_blocks,
    address: u64,
    data: *const u8,
) -> c_int {
    call(|| {
        if data.is_null() {
            return Err(Errno::INVAL);
        }
        // SAFETY: the caller's promise, also of the data.
        unsafe {
            on_blocks(blocks, |open| {
                let (region, wait) = (&open.region, Wait::Yes);
                open.blocks.write(region, wait, address, data).map(|()| 0)
            })
        }
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_blocks_free(blocks: *const emmap_blocks, address: u64) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        unsafe {
            on_blocks(blocks, |open| {
                let wait = Wait::Yes;
                open.blocks.free(&open.region, wait, address).map(|()| 0)
            })
        }
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_blocks_next(blocks: *const emmap_blocks, from: u64) -> i64 {
    call(|| {
        // SAFETY: the caller's promise.
        unsafe {
            on_blocks(blocks, |open| {
                let (region, wait) = (&open.region, Wait::Yes);
                let next = open.blocks.next_used(region, wait, from, u64::MAX)?;
                signed(next.ok_or(Stop::Absent)?)
            })
        }
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_blocks_sync(blocks: *const emmap_blocks) -> c_int {
    // SAFETY: the caller's promise.
    call(|| unsafe { on_blocks(blocks, |open| open.blocks.sync(&open.region).map(|()| 0)) })
}
