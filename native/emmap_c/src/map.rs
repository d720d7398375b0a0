//! Maps for reading.

use std::ffi::{c_char, c_int};
use std::time::Duration;

use emmap_core::region::{Read, Wait};
use emmap_core::{word_waits, Errno, Options, Region};

use crate::boundary::{call, handle, path, return_handle, take_handle};

pub struct emmap_map {
    region: Region,
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_map_open(name: *const c_char, out: *mut *mut emmap_map) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let path = unsafe { path(name)? };
        let options = Options {
            path: Some(path.to_owned()),
            lock: false,
            ..Options::default()
        };
        let open = || {
            let region = Region::open(&options)?;
            Ok(emmap_map { region })
        };
        // SAFETY: the caller's promise.
        unsafe { return_handle(out, open) }
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_map_close(map: *mut emmap_map) -> c_int {
    // SAFETY: the caller's promise.
    call(|| unsafe { take_handle(map).map(|_| 0) })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_map_size(map: *const emmap_map) -> i64 {
    // SAFETY: the caller's promise.
    call(|| unsafe { Ok(handle(map)?.region.len() as i64) })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_map_pread(
    map: *const emmap_map,
    position: u64,
    buffer: *mut u8,
    count: usize,
) -> i64 {
    call(|| {
        // SAFETY: the caller's promise.
        let region = &unsafe { handle(map)? }.region;
        if buffer.is_null() && count > 0 {
            return Err(Errno::INVAL);
        }
        region.reading(|| {
            let Some((start, count)) = region.locate(position, count) else {
                return Ok(0);
            };
            // SAFETY: the caller's promise; `count` is at most what it has room for.
            match unsafe { region.copy_out(start, count, buffer, Wait::Yes) } {
                Read::Done(copied) => Ok(copied as i64),
                Read::Busy => Err(Errno::BUSY),
            }
        })
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_map_wait(
    map: *const emmap_map,
    position: u64,
    expected: i64,
    timeout_ms: i32,
    value: *mut i64,
) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let region = &unsafe { handle(map)? }.region;
        // A negative time is not a time.
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        let changed = word_waits::wait(region, position, expected, timeout)?;
        let changed = changed.ok_or(Errno(libc::ETIMEDOUT))?;
        if !value.is_null() {
            // SAFETY: the caller's promise.
            unsafe { value.write(changed) };
        }
        Ok(0)
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_map_notify(map: *const emmap_map, position: u64) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let region = &unsafe { handle(map)? }.region;
        word_waits::notify(region, position).map(|()| 0)
    })
}
