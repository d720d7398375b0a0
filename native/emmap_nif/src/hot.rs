//! The hot kind of NIF.
//!
//! `#[rustler::nif]` collects its arguments in a `Vec`, and a `ResourceArc` argument looks its type
//! up in a hash map and counts a reference: together 35 ns on a call whose work takes 5. A hot
//! NIF is a raw C function that decodes in place. It still catches panics, which costs nothing
//! until one happens. Only [`crate::io`], [`crate::atomics`], [`crate::counters`], [`crate::lines`],
//! [`crate::search`] and [`crate::typed`] are written this way.

mod arguments;
mod results;

use std::ffi::CStr;
use std::os::raw::c_int;

use rustler::sys::{enif_consume_timeslice, enif_schedule_nif, ErlNifEnv, ErlNifTerm};
use rustler::SchedulerFlags;

use crate::terms::ArgumentError;

/// Copies up to this many bytes run where they are called; a longer one would hold up its
/// scheduler, and everything that may wait does, so both go to a dirty I/O scheduler.
pub const INLINE_BYTES: usize = 64 << 10;

pub type RawNif = unsafe extern "C" fn(*mut ErlNifEnv, c_int, *const ErlNifTerm) -> ErlNifTerm;

/// A term to return now: an error or an exception, met on the way to the answer.
pub type Early = ErlNifTerm;

/// Declares a hot NIF: `hot_nif!("name" / arity = body)` registers the function `body`, which takes a
/// [`Call`], as a NIF on a normal scheduler. A body that must wait hands the call on to a
/// [`raw_nif`] with [`Call::reschedule`].
macro_rules! hot_nif {
    ($name:literal / $arity:literal = $body:path) => {
        rustler::codegen_runtime::inventory::submit! {
            rustler::Nif {
                name: concat!($name, "\0").as_ptr().cast(),
                arity: $arity,
                flags: rustler::SchedulerFlags::Normal as rustler::codegen_runtime::c_uint,
                raw_func: $crate::hot::raw_nif!($body),
            }
        }
    };
}

/// A raw C function around `body`, which takes a [`Call`] and returns a term.
macro_rules! raw_nif {
    ($body:path) => {{
        unsafe extern "C" fn raw(
            env: *mut rustler::sys::ErlNifEnv,
            argc: std::os::raw::c_int,
            argv: *const rustler::sys::ErlNifTerm,
        ) -> rustler::sys::ErlNifTerm {
            // SAFETY: the VM passes the arity it registered, and terms of this environment.
            unsafe { $crate::hot::run(env, argc, argv, $body) }
        }
        raw
    }};
}

pub(crate) use {hot_nif, raw_nif};

/// # Safety
/// With the arguments that the VM gave to a NIF.
#[inline(always)]
pub unsafe fn run(
    env: *mut ErlNifEnv,
    argc: c_int,
    argv: *const ErlNifTerm,
    body: impl FnOnce(&Call) -> ErlNifTerm,
) -> ErlNifTerm {
    let call = Call { env, argc, argv };
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(&call)));
    caught.unwrap_or_else(|_| call.raise(&ArgumentError("emmap panicked: please report it")))
}

#[inline(always)]
pub fn either(answer: Result<ErlNifTerm, Early>) -> ErlNifTerm {
    answer.unwrap_or_else(|early| early)
}

/// The call of a hot NIF. Its arguments are decoded in [`arguments`], and what it returns is encoded in [`results`].
///
/// Its `SAFETY` comments lean on one invariant: a `Call` is made by [`run`] only and never outlives
/// it, so `env` is the running process's and `argv` has `argc` terms of it.
///
/// What is needed on every call is inlined, and what is not is a function that is cold. Those take the `Call` by value:
/// one whose address is passed on lies in memory, and not in registers.
#[derive(Clone, Copy)]
pub struct Call {
    env: *mut ErlNifEnv,
    argc: c_int,
    argv: *const ErlNifTerm,
}

impl Call {
    /// Tells the scheduler about a copy: a call of a NIF counts as one reduction, whatever it did.
    #[inline(always)]
    pub fn consumed(&self, bytes: usize) {
        const BYTES_OF_A_PERCENT: usize = 64 << 10;
        if bytes >= BYTES_OF_A_PERCENT {
            // A hundredth of a timeslice is about 10 microseconds, in which at least as much is copied, from memory that is
            // in no cache, too.
            // SAFETY: the Call invariant.
            unsafe { enif_consume_timeslice(self.env, (bytes / BYTES_OF_A_PERCENT) as c_int) };
        }
    }

    /// Runs `dirty` with the same arguments where it may wait.
    #[cold]
    #[inline(never)]
    pub fn reschedule(self, name: &CStr, dirty: RawNif) -> ErlNifTerm {
        self.reschedule_on(SchedulerFlags::DirtyIo, name, dirty)
    }

    /// Runs `dirty` with the same arguments where it may compute for long.
    #[cold]
    #[inline(never)]
    pub fn reschedule_long(self, name: &CStr, dirty: RawNif) -> ErlNifTerm {
        self.reschedule_on(SchedulerFlags::DirtyCpu, name, dirty)
    }

    fn reschedule_on(&self, flags: SchedulerFlags, name: &CStr, dirty: RawNif) -> ErlNifTerm {
        // SAFETY: the Call invariant; the VM copies name and arguments.
        unsafe {
            let flags = flags as c_int;
            enif_schedule_nif(self.env, name.as_ptr(), flags, dirty, self.argc, self.argv)
        }
    }

    /// Runs `dirty` with other arguments where it may wait.
    #[cold]
    #[inline(never)]
    pub fn reschedule_with(
        self,
        name: &CStr,
        dirty: RawNif,
        arguments: &[ErlNifTerm],
    ) -> ErlNifTerm {
        // SAFETY: as above.
        unsafe {
            let flags = SchedulerFlags::DirtyIo as c_int;
            let (argc, argv) = (arguments.len() as c_int, arguments.as_ptr());
            enif_schedule_nif(self.env, name.as_ptr(), flags, dirty, argc, argv)
        }
    }
}
