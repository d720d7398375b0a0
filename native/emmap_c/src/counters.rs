//! Counters.

use std::ffi::{c_char, c_int};

use emmap_core::counters::{self, Grid, Refused, Request};
use emmap_core::{Errno, Region};

use crate::boundary::{call, handle, path, refused, return_handle, string, take_handle};

pub struct emmap_counters {
    region: Region,
    grid: Grid,
    names: Vec<String>,
}

fn errno(refused: Refused) -> Errno {
    match refused {
        Refused::Index => Errno(libc::ERANGE),
        Refused::Striped => Errno::NOTSUP,
        Refused::Posix(error) => error,
    }
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_counters_open(
    name: *const c_char,
    count: u64,
    out: *mut *mut emmap_counters,
) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let path = unsafe { path(name)? };
        let request = Request {
            count,
            stripes: 1,
            existing: count == 0,
            ..Request::default()
        };
        let open = || {
            let opened = counters::open(path, &request).map_err(refused)?;
            Ok(emmap_counters {
                grid: Grid::from(&opened.layout),
                region: opened.region,
                names: opened.layout.names,
            })
        };
        // SAFETY: the caller's promise.
        unsafe { return_handle(out, open) }
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_counters_close(counters: *mut emmap_counters) -> c_int {
    // SAFETY: the caller's promise.
    call(|| unsafe { take_handle(counters).map(|_| 0) })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_counters_count(counters: *const emmap_counters) -> i64 {
    // SAFETY: the caller's promise.
    call(|| unsafe { Ok(handle(counters)?.grid.count() as i64) })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_counters_index(
    counters: *const emmap_counters,
    name: *const c_char,
) -> i64 {
    call(|| {
        // SAFETY: the caller's promise.
        let (counters, name) = unsafe { (handle(counters)?, string(name)?) };
        let index = counters.names.iter().position(|one| one.as_bytes() == name);
        Ok(index.ok_or(Errno(libc::ENOENT))? as i64)
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_counters_add(
    counters: *const emmap_counters,
    index: u64,
    value: i64,
) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let counters = unsafe { handle(counters)? };
        let region = &counters.region;
        region.writing(|| counters.grid.add(region, index, value).map_err(errno))?;
        Ok(0)
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_counters_get(
    counters: *const emmap_counters,
    index: u64,
    value: *mut i64,
) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let counters = unsafe { handle(counters)? };
        if value.is_null() {
            return Err(Errno::INVAL);
        }
        let region = &counters.region;
        let now = region.reading(|| counters.grid.get(region, index).map_err(errno))?;
        // SAFETY: the caller's promise.
        unsafe { value.write(now) };
        Ok(0)
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_counters_sync(counters: *const emmap_counters) -> c_int {
    // SAFETY: the caller's promise.
    call(|| unsafe { handle(counters)?.region.sync(None, true).map(|()| 0) })
}
