//! The hot kind of NIF.
//!
//! `#[rustler::nif]` collects its arguments in a `Vec`, and a `ResourceArc` argument looks its type
//! up in a hash map and counts a reference: together 35 ns on a call whose work takes 5. A hot
//! NIF is a raw C function that decodes in place. It still catches panics, which costs nothing
//! until one happens. Only [`crate::io`], [`crate::atomics`], [`crate::counters`], [`crate::lines`],
//! [`crate::search`] and [`crate::typed`] are written this way.

use std::ffi::CStr;
use std::os::raw::{c_int, c_uint};

use emmap_core::buffer::Buffer;
use emmap_core::search::Patterns;
use emmap_core::Region;
use rustler::sys::{
    enif_compare, enif_consume_timeslice, enif_get_double, enif_get_int64, enif_get_uint64,
    enif_inspect_binary, enif_make_double, enif_make_int64, enif_make_list_from_array,
    enif_make_new_binary, enif_make_resource_binary, enif_make_sub_binary,
    enif_make_tuple_from_array, enif_make_uint64, enif_raise_exception, enif_schedule_nif,
    enif_term_type, ErlNifBinary, ErlNifEnv, ErlNifTerm, ErlNifTermType,
};
use rustler::types::atom;
use rustler::{Atom, Encoder, Env, SchedulerFlags};

use crate::resource::{buffer_binary, get_handle, get_patterns, Handle, RawNif};
use crate::terms::{self, ArgumentError, Failure, NOT_A_HANDLE};

/// Copies up to this many bytes run where they are called; a longer one would hold up its
/// scheduler, and everything that may wait does, so both go to a dirty I/O scheduler.
pub const INLINE_BYTES: usize = 64 << 10;

/// The longest live binary that is one of its own, as `Emmap.Handle.alone/0` has it. (From OTP 27 on a sub-binary of at most
/// 64 bytes is a copy, and not live.)
const ALONE: usize = 4096;

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

/// The call of a hot NIF: its arguments, and the terms it can answer.
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

/// A position argument: an integer of any size is the caller's right, but not every one is a
/// place.
pub enum Position {
    At(u64),
    /// Negative, or beyond any file.
    Nowhere,
}

impl Call {
    #[inline(always)]
    fn arg(&self, index: usize) -> ErlNifTerm {
        debug_assert!(index < self.argc as usize);
        // SAFETY: the Call invariant; `index` is below the arity, which each NIF knows.
        unsafe { *self.argv.add(index) }
    }

    /// The handle in argument 0.
    #[inline(always)]
    pub fn handle(&self) -> Result<&Handle, ErlNifTerm> {
        // SAFETY: the Call invariant; the term keeps the handle alive during the call.
        unsafe { get_handle(self.env, self.arg(0)) }.ok_or_else(|| self.raise(&NOT_A_HANDLE))
    }

    /// The prepared patterns in argument `index`.
    pub fn patterns(&self, index: usize) -> Result<&Patterns, ErlNifTerm> {
        const WRONG: ArgumentError = ArgumentError("not a compiled pattern of this node");
        // SAFETY: the Call invariant; the term keeps the patterns alive during the call.
        unsafe { get_patterns(self.env, self.arg(index)) }.ok_or_else(|| self.raise(&WRONG))
    }

    #[inline(always)]
    pub fn int64(&self, index: usize) -> Option<i64> {
        let mut value = 0;
        // SAFETY: the Call invariant.
        match unsafe { enif_get_int64(self.env, self.arg(index), &mut value) } {
            0 => None,
            _ => Some(value),
        }
    }

    #[inline(always)]
    pub fn uint64_argument(&self, index: usize) -> Option<u64> {
        let mut value = 0;
        // SAFETY: the Call invariant.
        match unsafe { enif_get_uint64(self.env, self.arg(index), &mut value) } {
            0 => None,
            _ => Some(value),
        }
    }

    #[inline]
    pub fn double(&self, index: usize) -> Option<f64> {
        let mut value = 0.0;
        // SAFETY: the Call invariant.
        match unsafe { enif_get_double(self.env, self.arg(index), &mut value) } {
            0 => None,
            _ => Some(value),
        }
    }

    /// An integer of 64 bits: signed, or unsigned for the same bits, as `:atomics` takes them.
    #[inline(always)]
    pub fn word(&self, index: usize) -> Result<i64, ErlNifTerm> {
        const WRONG: ArgumentError = ArgumentError("the value must be an integer of 64 bits");
        if let Some(value) = self.int64(index) {
            return Ok(value);
        }
        match self.uint64_argument(index) {
            None => Err(self.raise(&WRONG)),
            Some(value) => Ok(value as i64),
        }
    }

    /// An integer of 64 bits, signed.
    #[inline(always)]
    pub fn signed_word(&self, index: usize) -> Result<i64, ErlNifTerm> {
        const WRONG: ArgumentError =
            ArgumentError("the value must be a signed integer of 64 bits, -2^63 to 2^63 - 1");
        self.int64(index).ok_or_else(|| self.raise(&WRONG))
    }

    fn is_integer(&self, index: usize) -> bool {
        // SAFETY: the Call invariant.
        let kind = unsafe { enif_term_type(self.env, self.arg(index)) };
        matches!(kind, ErlNifTermType::ERL_NIF_TERM_TYPE_INTEGER)
    }

    #[inline(always)]
    pub fn position(&self, index: usize) -> Result<Position, ErlNifTerm> {
        match self.int64(index) {
            Some(value) => Ok(u64::try_from(value).map_or(Position::Nowhere, Position::At)),
            None => self.long_position(index),
        }
    }

    /// A position that is not an integer of 64 bits.
    #[cold]
    #[inline(never)]
    fn long_position(self, index: usize) -> Result<Position, ErlNifTerm> {
        const WRONG: ArgumentError = ArgumentError("the position must be an integer, in bytes");
        match self.is_integer(index) {
            true => Ok(Position::Nowhere),
            false => Err(self.raise(&WRONG)),
        }
    }

    /// How many bytes; more than there can be is as good as all.
    #[inline(always)]
    pub fn count(&self, index: usize) -> Result<usize, ErlNifTerm> {
        match self.int64(index) {
            Some(value) if value >= 0 => Ok(usize::try_from(value).unwrap_or(usize::MAX)),
            _ => self.long_count(index),
        }
    }

    /// A count beyond 64 bits is more than there is, unless it is below 0.
    #[cold]
    #[inline(never)]
    fn long_count(self, index: usize) -> Result<usize, ErlNifTerm> {
        const WRONG: ArgumentError =
            ArgumentError("the number of bytes must be an integer, 0 or more");
        let zero = self.sint64(0);
        // SAFETY: two terms of this environment.
        let positive = || unsafe { enif_compare(self.arg(index), zero) > 0 };
        match self.is_integer(index) && positive() {
            true => Ok(usize::MAX),
            false => Err(self.raise(&WRONG)),
        }
    }

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

    /// The bytes of a binary argument; valid during the call.
    #[inline(always)]
    pub fn bytes(&self, index: usize) -> Option<(*const u8, usize)> {
        let mut binary = std::mem::MaybeUninit::<ErlNifBinary>::uninit();
        // SAFETY: the Call invariant; `binary` is filled when the answer is not 0.
        unsafe {
            match enif_inspect_binary(self.env, self.arg(index), binary.as_mut_ptr()) {
                0 => None,
                _ => {
                    let binary = binary.assume_init();
                    Some((binary.data.cast_const(), binary.size))
                }
            }
        }
    }

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

    #[inline(always)]
    pub fn error(&self, failure: impl Into<Failure>) -> ErlNifTerm {
        self.failure(failure.into())
    }

    #[cold]
    #[inline(never)]
    fn failure(self, failure: Failure) -> ErlNifTerm {
        self.encode(&failure)
    }

    #[cold]
    #[inline(never)]
    pub fn error_atom(self, reason: Atom) -> ErlNifTerm {
        self.encode(&(atom::error(), reason))
    }

    #[cold]
    #[inline(never)]
    pub fn raise(self, error: &ArgumentError) -> ErlNifTerm {
        let term = self.encode(error);
        // SAFETY: the Call invariant.
        unsafe { enif_raise_exception(self.env, term) }
    }

    fn encode(&self, value: &dyn Encoder) -> ErlNifTerm {
        let lifetime = ();
        // SAFETY: the Call invariant; the term is returned to the VM before the call ends.
        let env = unsafe { Env::new(&lifetime, self.env) };
        value.encode(env).as_c_arg()
    }

    /// A new binary of `count` bytes, and where to write them. Up to 64 bytes it lies on the heap
    /// of the process.
    #[inline(always)]
    pub fn new_binary(&self, count: usize) -> (*mut u8, ErlNifTerm) {
        let mut term = std::mem::MaybeUninit::uninit();
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

    /// `start .. start + count` of a binary of ours.
    #[inline(always)]
    pub fn sub_binary(&self, term: ErlNifTerm, start: usize, count: usize) -> ErlNifTerm {
        // SAFETY: the Call invariant; the range lies inside the binary by the callers' checks.
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
                    return self.sub_binary(self.arg(root), start, count);
                }
            }
        }
        self.view_alone(handle, region, start, count)
    }

    /// As [`Call::view`], as a binary of its own.
    #[inline(always)]
    pub fn view_alone(
        &self,
        handle: &Handle,
        region: &Region,
        start: usize,
        count: usize,
    ) -> ErlNifTerm {
        let at = region.pointer(start).cast_const().cast();
        // SAFETY: the Call invariant; the bytes are mapped for as long as the mapping lives, to
        // which the binary is a reference.
        unsafe { enif_make_resource_binary(self.env, handle.owner(), at, count) }
    }

    /// A tuple of two.
    #[inline(always)]
    pub fn pair(&self, one: ErlNifTerm, other: ErlNifTerm) -> ErlNifTerm {
        let pair = [one, other];
        // SAFETY: two terms of this environment.
        unsafe { enif_make_tuple_from_array(self.env, pair.as_ptr(), 2) }
    }

    #[inline]
    pub fn list(&self, terms: &[ErlNifTerm]) -> ErlNifTerm {
        // SAFETY: terms of this environment; a call makes far fewer than 2^32.
        unsafe { enif_make_list_from_array(self.env, terms.as_ptr(), terms.len() as c_uint) }
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

    pub fn argument(&self, index: usize) -> ErlNifTerm {
        self.arg(index)
    }
}
