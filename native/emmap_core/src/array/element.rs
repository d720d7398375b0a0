//! One number in raw memory.

/// A type of number. Its reads never create a reference to memory that may change.
pub trait Element: Copy + PartialOrd + 'static {
    const SIZE: usize;

    /// # Safety
    /// `at` must have `SIZE` readable bytes. They need not be aligned.
    unsafe fn read(at: *const u8, swapped: bool) -> Self;
    /// Its bytes in the order of this machine.
    ///
    /// # Safety
    /// `at` must have room for `SIZE` bytes.
    unsafe fn write(self, at: *mut u8);
    /// Whether it is NaN.
    fn is_nan(self) -> bool;
}

macro_rules! integers {
    ($($number:ty)*) => { $(
        impl Element for $number {
            const SIZE: usize = size_of::<$number>();

            #[inline(always)]
            unsafe fn read(at: *const u8, swapped: bool) -> Self {
                // SAFETY: the caller's promise.
                let number = unsafe { at.cast::<$number>().read_unaligned() };
                if swapped { number.swap_bytes() } else { number }
            }

            #[inline(always)]
            unsafe fn write(self, at: *mut u8) {
                // SAFETY: the caller's promise.
                unsafe { at.cast::<$number>().write_unaligned(self) }
            }

            #[inline(always)]
            fn is_nan(self) -> bool {
                false
            }
        }
    )* };
}

integers!(u8 i8 u16 i16 u32 i32 u64 i64);

macro_rules! floats {
    ($($number:ty, $bits:ty;)*) => { $(
        impl Element for $number {
            const SIZE: usize = size_of::<$number>();

            #[inline(always)]
            unsafe fn read(at: *const u8, swapped: bool) -> Self {
                // SAFETY: the caller's promise.
                <$number>::from_bits(unsafe { <$bits>::read(at, swapped) })
            }

            #[inline(always)]
            unsafe fn write(self, at: *mut u8) {
                // SAFETY: the caller's promise.
                unsafe { self.to_bits().write(at) }
            }

            #[inline(always)]
            fn is_nan(self) -> bool {
                <$number>::is_nan(self)
            }
        }
    )* };
}

floats!(f32, u32; f64, u64;);

/// Calls `$call` with `$element` as the type of a number of `$of`.
macro_rules! of_type {
    ($of:expr, $element:ident => $call:expr) => {{
        use $crate::typed::Kind;
        match ($of.kind(), $of.size()) {
            (Kind::Unsigned, 1) => {
                type $element = u8;
                $call
            }
            (Kind::Unsigned, 2) => {
                type $element = u16;
                $call
            }
            (Kind::Unsigned, 4) => {
                type $element = u32;
                $call
            }
            (Kind::Unsigned, _) => {
                type $element = u64;
                $call
            }
            (Kind::Signed, 1) => {
                type $element = i8;
                $call
            }
            (Kind::Signed, 2) => {
                type $element = i16;
                $call
            }
            (Kind::Signed, 4) => {
                type $element = i32;
                $call
            }
            (Kind::Signed, _) => {
                type $element = i64;
                $call
            }
            (Kind::Float, 4) => {
                type $element = f32;
                $call
            }
            (Kind::Float, _) => {
                type $element = f64;
                $call
            }
        }
    }};
}

pub(super) use of_type;
