//! Encodes the result of a hot NIF.

use std::mem::MaybeUninit;
use std::os::raw::c_uint;

use emmap_core::buffer::Buffer;
use emmap_core::queue::Pin;
use emmap_core::Region;
use rustler::sys::{
    enif_make_double, enif_make_int64, enif_make_list_cell, enif_make_list_from_array,
    enif_make_new_binary, enif_make_resource_binary, enif_make_sub_binary,
    enif_make_tuple_from_array, enif_make_uint64, enif_raise_exception, ErlNifEnv, ErlNifTerm,
};
use rustler::types::atom;
use rustler::{Encoder, Env};

use super::Call;
use crate::resource::{buffer_binary, pinned_binary, Handle, KeptRegion};
use crate::terms;

/// The longest live binary that does not share the root, as in `Emmap.Handle.alone/0`. (From OTP 27 on, a sub-binary of at
/// most 64 bytes is a copy, and not live.)
const ALONE: usize = 4096;

impl Call {
    #[inline(always)]
    pub fn ok(&self) -> ErlNifTerm {
        atom::ok().as_c_arg()
    }

    #[inline(always)]
    pub fn eof(&self) -> ErlNifTerm {
        terms::eof().as_c_arg()
    }

    #[inline(always)]
    pub fn ok_with(&self, term: ErlNifTerm) -> ErlNifTerm {
        self.pair(self.ok(), term)
    }

    #[inline(always)]
    pub fn sint64(&self, value: i64) -> ErlNifTerm {
        // SAFETY: the Call invariant.
        unsafe { enif_make_int64(self.env, value) }
    }

    #[inline(always)]
    pub fn uint64(&self, value: u64) -> ErlNifTerm {
        // SAFETY: the Call invariant.
        unsafe { enif_make_uint64(self.env, value) }
    }

    /// A float, which must be finite: the VM has no others.
    #[inline]
    pub fn float(&self, value: f64) -> ErlNifTerm {
        debug_assert!(value.is_finite());
        // SAFETY: the Call invariant.
        unsafe { enif_make_double(self.env, value) }
    }

    /// A tuple.
    #[inline(always)]
    pub fn tuple(&self, terms: &[ErlNifTerm]) -> ErlNifTerm {
        // SAFETY: terms of this environment.
        unsafe { enif_make_tuple_from_array(self.env, terms.as_ptr(), terms.len() as c_uint) }
    }

    /// A tuple of two.
    #[inline(always)]
    pub fn pair(&self, one: ErlNifTerm, other: ErlNifTerm) -> ErlNifTerm {
        let pair = [one, other];
        // SAFETY: two terms of this environment.
        unsafe { enif_make_tuple_from_array(self.env, pair.as_ptr(), 2) }
    }

    pub fn triple(&self, one: ErlNifTerm, two: ErlNifTerm, three: ErlNifTerm) -> ErlNifTerm {
        let triple = [one, two, three];
        // SAFETY: three terms of this environment.
        unsafe { enif_make_tuple_from_array(self.env, triple.as_ptr(), 3) }
    }

    #[inline]
    pub fn list(&self, terms: &[ErlNifTerm]) -> ErlNifTerm {
        // SAFETY: terms of this environment; a call makes far fewer than 2^32.
        unsafe { enif_make_list_from_array(self.env, terms.as_ptr(), terms.len() as c_uint) }
    }

    /// A list that begins with `head`.
    #[inline(always)]
    pub fn cons(&self, head: ErlNifTerm, tail: ErlNifTerm) -> ErlNifTerm {
        // SAFETY: two terms of this environment, of which `tail` is a list.
        unsafe { enif_make_list_cell(self.env, head, tail) }
    }

    /// A new binary of `count` bytes, and where to write them. Up to 64 bytes it lies on the heap
    /// of the process.
    #[inline(always)]
    pub fn new_binary(&self, count: usize) -> (*mut u8, ErlNifTerm) {
        let mut term = MaybeUninit::uninit();
        // SAFETY: the Call invariant; the VM sets `term`, or ends for want of memory.
        unsafe {
            let at = enif_make_new_binary(self.env, count, term.as_mut_ptr());
            (at, term.assume_init())
        }
    }

    /// A binary over a filled buffer, of its first `count` bytes.
    pub fn buffer_binary(&self, buffer: Buffer, count: usize) -> ErlNifTerm {
        debug_assert!(count <= buffer.len());
        // SAFETY: the Call invariant, and the line above.
        unsafe { buffer_binary(self.env, buffer, count) }
    }

    /// `start .. start + count` of the map, of an item of a queue that is pinned as long as the binary lives.
    ///
    /// # Safety
    /// The range must be inside the map.
    pub unsafe fn pinned_binary(
        &self,
        pin: Pin<KeptRegion>,
        start: usize,
        count: usize,
    ) -> ErlNifTerm {
        // SAFETY: the Call invariant; the range by the caller's promise.
        unsafe { pinned_binary(self.env, pin, start, count) }
    }

    /// `start .. start + count` of a binary that this library made.
    #[inline(always)]
    pub fn sub_binary(&self, term: ErlNifTerm, start: usize, count: usize) -> ErlNifTerm {
        // SAFETY: the Call invariant; the range is inside the binary by the callers' checks.
        unsafe { enif_make_sub_binary(self.env, term, start, count) }
    }

    /// A binary that is `start .. start + count` of the map. Argument `root` holds the root binary
    /// of the handle, or `nil`.
    #[inline(always)]
    pub fn view(
        &self,
        handle: &Handle,
        region: &Region,
        root: usize,
        start: usize,
        count: usize,
    ) -> ErlNifTerm {
        if count > ALONE && handle.root != 0 {
            if let Some((at, size)) = self.bytes(root) {
                // The root may be older than the last growth; it shows the same pages.
                if at as usize == handle.root && count <= size && start <= size - count {
                    return self.sub_binary(self.argument(root), start, count);
                }
            }
        }
        self.view_alone(handle, region, start, count)
    }

    /// As [`Call::view`], as a separate binary.
    #[inline(always)]
    pub fn view_alone(
        &self,
        handle: &Handle,
        region: &Region,
        start: usize,
        count: usize,
    ) -> ErlNifTerm {
        // SAFETY: the Call invariant; the caller has `start` and `count` from `Region::locate`, and the bytes are mapped
        // for as long as the mapping lives, to which the binary is a reference.
        unsafe {
            let at = region.pointer(start).cast_const().cast();
            enif_make_resource_binary(self.env, handle.owner(), at, count)
        }
    }
}

/// # Safety
/// `env` must be the environment of the running NIF.
pub(super) unsafe fn encode(env: *mut ErlNifEnv, value: &dyn Encoder) -> ErlNifTerm {
    let lifetime = ();
    // SAFETY: the caller's promise; the term is returned to the VM before the call ends.
    let env = unsafe { Env::new(&lifetime, env) };
    value.encode(env).as_c_arg()
}

/// # Safety
/// `env` must be the environment of the running NIF, which returns what this returns.
pub(super) unsafe fn raise(env: *mut ErlNifEnv, error: &dyn Encoder) -> ErlNifTerm {
    // SAFETY: the caller's promise.
    unsafe { enif_raise_exception(env, encode(env, error)) }
}
