//! Counters whose names appear at run time.

use std::ffi::{c_char, c_int};

use emmap_core::counters::dynamic::directory::Found;
use emmap_core::counters::dynamic::participation::errno_of;
use emmap_core::counters::dynamic::{self, Dynamic, Name, Request, Stop, MOST_NAME};
use emmap_core::region::Wait;
use emmap_core::{Errno, Region, Result};

use crate::boundary::{call, handle, path, refused, return_handle, string, take_handle, DAMAGED};
use crate::fork::Kept;

pub struct emmap_dynamic {
    kept: Kept,
    dynamic: Dynamic,
    region: Region,
}

const EXISTING: u32 = 1;
/// As `Emmap.Counters.open/3`.
const MAX_NAMES: u64 = 100_000;

fn errno(stop: Stop) -> Errno {
    match stop {
        Stop::Posix(Errno::IO) => DAMAGED,
        stop => errno_of(stop),
    }
}

/// # Safety
/// The pointer must be NULL or a handle that is not closed before the call ends.
unsafe fn open_handle<'a>(dynamic: *const emmap_dynamic) -> Result<&'a emmap_dynamic> {
    // SAFETY: the caller's promise.
    let dynamic = unsafe { handle(dynamic)? };
    dynamic.kept.check()?;
    Ok(dynamic)
}

impl emmap_dynamic {
    /// The place of a counter, which is added if it does not exist, with `adds`.
    fn place(&self, bytes: &[u8], adds: bool) -> Result<u64> {
        let emmap_dynamic {
            dynamic, region, ..
        } = self;
        let name = Name::new(bytes, dynamic.geometry())?;
        let under_lock = match region.reading(|| dynamic.find(region, &name))? {
            Found::At(at) => return Ok(at),
            Found::Absent if !adds => Err(Stop::Absent),
            _ if adds => dynamic.find_or_add(region, Wait::Yes, &name),
            _ => dynamic.find_under_lock(region, Wait::Yes, &name),
        };
        under_lock.map_err(errno)
    }
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_dynamic_open(
    name: *const c_char,
    flags: u32,
    max_names: u64,
    out: *mut *mut emmap_dynamic,
) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let path = unsafe { path(name)? };
        let open = || {
            if flags & !EXISTING != 0 {
                return Err(Errno::INVAL);
            }
            let request = Request {
                stripes: 1,
                existing: flags & EXISTING != 0,
                adds: true,
                most_names: if max_names == 0 { MAX_NAMES } else { max_names },
            };
            let (region, dynamic) = dynamic::open(path, &request).map_err(refused)?;
            Ok(emmap_dynamic {
                kept: Kept::new(dynamic.presence().fd()),
                dynamic,
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
pub unsafe extern "C" fn emmap_dynamic_close(dynamic: *mut emmap_dynamic) -> c_int {
    // SAFETY: the caller's promise.
    call(|| unsafe { take_handle(dynamic).map(|_| 0) })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_dynamic_count(dynamic: *const emmap_dynamic) -> i64 {
    call(|| {
        // SAFETY: the caller's promise.
        let handle = unsafe { open_handle(dynamic)? };
        Ok(handle.dynamic.info(&handle.region)?.count as i64)
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_dynamic_add(
    dynamic: *const emmap_dynamic,
    name: *const c_char,
    value: i64,
) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let (handle, name) = unsafe { (open_handle(dynamic)?, string(name)?) };
        let at = handle.place(name, true)?;
        let region = &handle.region;
        region.writing(|| handle.dynamic.add(region, at, value))?;
        Ok(0)
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_dynamic_get(
    dynamic: *const emmap_dynamic,
    name: *const c_char,
    value: *mut i64,
) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let (handle, name) = unsafe { (open_handle(dynamic)?, string(name)?) };
        if value.is_null() {
            return Err(Errno::INVAL);
        }
        let at = handle.place(name, false)?;
        let region = &handle.region;
        let now = region.reading(|| handle.dynamic.value(region, at))?;
        // SAFETY: the caller's promise.
        unsafe { value.write(now) };
        Ok(0)
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_dynamic_next(
    dynamic: *const emmap_dynamic,
    place: *mut u64,
    name: *mut c_char,
    value: *mut i64,
) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let handle = unsafe { open_handle(dynamic)? };
        if place.is_null() || name.is_null() || value.is_null() {
            return Err(Errno::INVAL);
        }
        // SAFETY: the caller's promise.
        let from = unsafe { place.read() };
        if from == u64::MAX {
            return Ok(0);
        }
        let mut found = None;
        let next = handle
            .dynamic
            .each(&handle.region, Wait::Yes, from, 1, |bytes, value| {
                found = Some((bytes.to_vec(), value));
            })
            .map_err(errno)?;
        let Some((bytes, now)) = found else {
            return Ok(0);
        };
        debug_assert!(bytes.len() <= MOST_NAME);
        // SAFETY: the caller's promise: there is room for a name and NUL.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), name.cast(), bytes.len());
            name.add(bytes.len()).write(0);
            value.write(now);
            place.write(next.unwrap_or(u64::MAX));
        }
        Ok(1)
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_dynamic_sync(dynamic: *const emmap_dynamic) -> c_int {
    // SAFETY: the caller's promise.
    call(|| unsafe { open_handle(dynamic)?.region.sync(None, true).map(|()| 0) })
}
