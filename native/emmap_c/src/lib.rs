//! The C library of emmap. `include/emmap.h` declares and documents every function. This crate only does what C needs in
//! addition to the core: it converts pointers and numbers, and no panic passes the boundary.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`boundary`] | errors and panics as negative numbers, pointers as references |
//! | [`fork`] | what a forked child must not inherit |
//! | [`queue`] | queues |
//! | [`blocks`] | blocks |
//! | [`counters`] | counters |
//! | [`dynamic`] | counters whose names appear at run time |
//! | [`map`] | maps for reading |

#![allow(non_camel_case_types)] // the names of C

mod blocks;
mod boundary;
mod counters;
mod dynamic;
mod fork;
mod map;
mod queue;

use std::ffi::{c_char, c_int};

/// The version of this library and of its header.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");

#[no_mangle]
pub extern "C" fn emmap_version() -> *const c_char {
    VERSION.as_ptr().cast()
}

#[no_mangle]
pub extern "C" fn emmap_init() -> c_int {
    boundary::call(|| emmap_core::guard::install().map(|()| 0))
}
