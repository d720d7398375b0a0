//! Finds and counts one byte in raw memory.
//!
//! The memory may be a map, which can change at any time, so no slice of it is ever made. This uses the
//! raw part of the `memchr` crate, in the fastest form that the processor supports.

#[cfg(target_arch = "aarch64")]
use memchr::arch::aarch64::neon;
use memchr::arch::all;
#[cfg(target_arch = "x86_64")]
use memchr::arch::x86_64::{avx2, sse2};

/// Searches for one byte.
#[derive(Clone, Copy, Debug)]
pub struct ByteSearch(Machine);

#[derive(Clone, Copy, Debug)]
enum Machine {
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::memchr::One),
    #[cfg(target_arch = "x86_64")]
    Sse2(sse2::memchr::One),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::memchr::One),
    Any(all::memchr::One),
}

/// Makes the same call on the form that the processor supports.
macro_rules! on_machine {
    ($search:expr, $one:ident => $call:expr) => {
        match &$search.0 {
            #[cfg(target_arch = "x86_64")]
            Machine::Avx2($one) => $call,
            #[cfg(target_arch = "x86_64")]
            Machine::Sse2($one) => $call,
            #[cfg(target_arch = "aarch64")]
            Machine::Neon($one) => $call,
            Machine::Any($one) => $call,
        }
    };
}

impl ByteSearch {
    /// Constant time, because the processor's features are detected only once.
    pub fn new(byte: u8) -> ByteSearch {
        #[cfg(target_arch = "x86_64")]
        if let Some(one) = avx2::memchr::One::new(byte) {
            return ByteSearch(Machine::Avx2(one));
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(one) = sse2::memchr::One::new(byte) {
            return ByteSearch(Machine::Sse2(one));
        }
        #[cfg(target_arch = "aarch64")]
        if let Some(one) = neon::memchr::One::new(byte) {
            return ByteSearch(Machine::Neon(one));
        }
        ByteSearch(Machine::Any(all::memchr::One::new(byte)))
    }

    /// The first such byte in `start .. end`.
    ///
    /// # Safety
    /// `start .. end` must be readable bytes of one allocation or map, and `start` must not be after `end`.
    #[inline]
    pub unsafe fn find(&self, start: *const u8, end: *const u8) -> Option<*const u8> {
        debug_assert!(start <= end);
        // SAFETY: the caller's promise.
        on_machine!(self, one => unsafe { one.find_raw(start, end) })
    }

    /// How many of these bytes are in `start .. end`.
    ///
    /// # Safety
    /// As [`ByteSearch::find`].
    #[inline]
    pub unsafe fn count(&self, start: *const u8, end: *const u8) -> usize {
        debug_assert!(start <= end);
        // SAFETY: the caller's promise.
        on_machine!(self, one => unsafe { one.count_raw(start, end) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all_machines(byte: u8) -> Vec<ByteSearch> {
        let mut all = vec![
            ByteSearch::new(byte),
            ByteSearch(Machine::Any(all::memchr::One::new(byte))),
        ];
        #[cfg(target_arch = "x86_64")]
        all.extend(sse2::memchr::One::new(byte).map(|one| ByteSearch(Machine::Sse2(one))));
        all
    }

    proptest! {
        #[test]
        fn agrees_with_a_walk(
            memory in proptest::collection::vec(0u8..3, 0..400),
            from in 0usize..400,
            byte in 0u8..4,
        ) {
            let from = from.min(memory.len());
            let ends = memory.as_ptr_range();
            let walked = memory[from..].iter().position(|each| *each == byte);
            let counted = memory[from..].iter().filter(|each| **each == byte).count();
            for search in all_machines(byte) {
                // SAFETY: a part of `memory`.
                let (found, count) = unsafe {
                    let start = ends.start.add(from);
                    let found = search.find(start, ends.end);
                    (found.map(|at| at.offset_from(start) as usize), search.count(start, ends.end))
                };
                prop_assert_eq!(found, walked);
                prop_assert_eq!(count, counted);
            }
        }
    }
}
