//! Decodes the arguments of a hot NIF. An argument of the wrong type raises; a position that no map has returns EINVAL.

use std::mem::MaybeUninit;

use emmap_core::search::Patterns;
use emmap_core::Errno;
use rustler::sys::{
    enif_compare, enif_get_double, enif_get_int64, enif_get_list_cell, enif_get_uint64,
    enif_inspect_binary, enif_is_empty_list, enif_term_type, ErlNifBinary, ErlNifTerm,
    ErlNifTermType,
};

use super::{Call, Early};
use crate::resource::{get_handle, get_patterns, Handle};
use crate::terms::{of_each, ArgumentError, NOT_A_HANDLE};

impl Call {
    /// Argument `index` as it is.
    #[inline(always)]
    pub fn argument(&self, index: usize) -> ErlNifTerm {
        debug_assert!(index < self.arity());
        // SAFETY: the Call invariant; `index` is below the arity, which each NIF knows.
        unsafe { *self.argv.add(index) }
    }

    /// The handle in argument 0.
    #[inline(always)]
    pub fn handle(&self) -> Result<&Handle, Early> {
        // SAFETY: the Call invariant; the term keeps the handle alive during the call.
        unsafe { get_handle(self.env, self.argument(0)) }.ok_or(Early::Raise(&NOT_A_HANDLE))
    }

    /// The prepared patterns in argument `index`.
    pub fn patterns(&self, index: usize) -> Result<&Patterns, Early> {
        static WRONG: [ArgumentError; 6] = of_each("not a compiled pattern of this node");
        // SAFETY: the Call invariant; the term keeps the patterns alive during the call.
        unsafe { get_patterns(self.env, self.argument(index)) }.ok_or(Early::Raise(&WRONG[index]))
    }

    /// A position in the map. Any integer is allowed, but not every integer is a position.
    #[inline(always)]
    pub fn position(&self, index: usize) -> Result<u64, Early> {
        match self.natural(index)? {
            Some(position) => Ok(position),
            None => Err(Errno::INVAL.into()),
        }
    }

    /// The position, or the number of a counter, in argument `index`. `None`: it is negative, or beyond 64 bits.
    #[inline(always)]
    pub fn natural(&self, index: usize) -> Result<Option<u64>, Early> {
        match self.int64(index) {
            Some(value) => Ok(u64::try_from(value).ok()),
            None => self.long_natural(index),
        }
    }

    /// An integer of more than 64 bits is not a position of any map.
    #[cold]
    #[inline(never)]
    fn long_natural(self, index: usize) -> Result<Option<u64>, Early> {
        static WRONG: [ArgumentError; 6] = of_each("the position must be an integer, in bytes");
        match self.is_integer(index) {
            true => Ok(None),
            false => Err(Early::Raise(&WRONG[index])),
        }
    }

    /// A number of bytes. A number that is larger than possible has the same effect as all.
    #[inline(always)]
    pub fn count(&self, index: usize) -> Result<usize, Early> {
        match self.int64(index) {
            Some(value) if value >= 0 => Ok(usize::try_from(value).unwrap_or(usize::MAX)),
            _ => self.long_count(index),
        }
    }

    /// A count beyond 64 bits is more than there is, unless it is below 0.
    #[cold]
    #[inline(never)]
    fn long_count(self, index: usize) -> Result<usize, Early> {
        static WRONG: [ArgumentError; 6] =
            of_each("the number of bytes must be an integer, 0 or more");
        let zero = self.sint64(0);
        // SAFETY: two terms of this environment.
        let positive = || unsafe { enif_compare(self.argument(index), zero) > 0 };
        match self.is_integer(index) && positive() {
            true => Ok(usize::MAX),
            false => Err(Early::Raise(&WRONG[index])),
        }
    }

    /// The bytes to write: a binary, and valid during the call.
    #[inline(always)]
    pub fn data(&self, index: usize) -> Result<(*const u8, usize), Early> {
        static WRONG: [ArgumentError; 6] = of_each("the data must be a binary");
        self.bytes(index).ok_or(Early::Raise(&WRONG[index]))
    }

    /// The bytes of a binary argument; valid during the call.
    #[inline(always)]
    pub fn bytes(&self, index: usize) -> Option<(*const u8, usize)> {
        let mut binary = MaybeUninit::<ErlNifBinary>::uninit();
        // SAFETY: the Call invariant; `binary` is filled if the result is not 0.
        unsafe {
            match enif_inspect_binary(self.env, self.argument(index), binary.as_mut_ptr()) {
                0 => None,
                _ => {
                    let binary = binary.assume_init();
                    Some((binary.data.cast_const(), binary.size))
                }
            }
        }
    }

    /// Calls `act` with each binary of a list, until it returns `false`. They are valid during the call.
    pub fn each_binary(
        &self,
        index: usize,
        mut act: impl FnMut(*const u8, usize) -> bool,
    ) -> Result<(), Early> {
        static WRONG: [ArgumentError; 6] = of_each("not a list of binaries");
        let mut list = self.argument(index);
        let mut head = MaybeUninit::<ErlNifTerm>::uninit();
        let mut binary = MaybeUninit::<ErlNifBinary>::uninit();
        // SAFETY: the Call invariant; `head` and `list` are set if the result is not 0, and so is `binary`.
        unsafe {
            while enif_get_list_cell(self.env, list, head.as_mut_ptr(), &mut list) != 0 {
                if enif_inspect_binary(self.env, head.assume_init(), binary.as_mut_ptr()) == 0 {
                    return Err(Early::Raise(&WRONG[index]));
                }
                let binary = binary.assume_init_ref();
                if !act(binary.data.cast_const(), binary.size) {
                    return Ok(());
                }
            }
            match enif_is_empty_list(self.env, list) {
                0 => Err(Early::Raise(&WRONG[index])),
                _ => Ok(()),
            }
        }
    }

    /// A 64-bit integer, signed or unsigned with the same bits, as `:atomics` accepts.
    #[inline(always)]
    pub fn word(&self, index: usize) -> Result<i64, Early> {
        static WRONG: [ArgumentError; 6] = of_each("the value must be an integer of 64 bits");
        if let Some(value) = self.int64(index) {
            return Ok(value);
        }
        match self.uint64_argument(index) {
            None => Err(Early::Raise(&WRONG[index])),
            Some(value) => Ok(value as i64),
        }
    }

    /// An integer of 64 bits, signed.
    #[inline(always)]
    pub fn signed_word(&self, index: usize) -> Result<i64, Early> {
        static WRONG: [ArgumentError; 6] =
            of_each("the value must be a signed integer of 64 bits, -2^63 to 2^63 - 1");
        self.int64(index).ok_or(Early::Raise(&WRONG[index]))
    }

    #[inline(always)]
    pub fn int64(&self, index: usize) -> Option<i64> {
        let mut value = 0;
        // SAFETY: the Call invariant.
        match unsafe { enif_get_int64(self.env, self.argument(index), &mut value) } {
            0 => None,
            _ => Some(value),
        }
    }

    #[inline(always)]
    pub fn uint64_argument(&self, index: usize) -> Option<u64> {
        let mut value = 0;
        // SAFETY: the Call invariant.
        match unsafe { enif_get_uint64(self.env, self.argument(index), &mut value) } {
            0 => None,
            _ => Some(value),
        }
    }

    #[inline]
    pub fn double(&self, index: usize) -> Option<f64> {
        let mut value = 0.0;
        // SAFETY: the Call invariant.
        match unsafe { enif_get_double(self.env, self.argument(index), &mut value) } {
            0 => None,
            _ => Some(value),
        }
    }

    fn is_integer(&self, index: usize) -> bool {
        // SAFETY: the Call invariant.
        let kind = unsafe { enif_term_type(self.env, self.argument(index)) };
        matches!(kind, ErlNifTermType::ERL_NIF_TERM_TYPE_INTEGER)
    }
}
