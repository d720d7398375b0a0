//! The sum, the least and the greatest of a column, in steps that end at a given moment.
//!
//! The result does not depend on where steps end: elements are added in blocks of a fixed size, and a step ends after a
//! block.

use std::time::Instant;

use super::element::{of_type, Element};
use super::{Column, Elements};
use crate::typed::{Kind, Type};
use crate::{Region, Result};

/// Elements of a block. Within it, no sum of integers overflows; see [`Sum`] for floats.
const BLOCK: usize = 1024;
/// Independent sums of a block, for vector instructions.
const LANES: usize = 16;
/// Blocks between two looks at the clock: at most 256 KiB if the elements have no gaps.
const UNWATCHED: usize = 32;

/// A sum so far.
///
/// Integers are added exactly. Floats are added as 64-bit floats: in a block, sixteen sums of every sixteenth element, which are
/// then added in pairs; the sums of blocks with Neumaier's compensation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sum {
    Integer(i128),
    Float { sum: f64, compensation: f64 },
}

impl Sum {
    pub fn new(of: Type) -> Sum {
        match of.kind() {
            Kind::Float => Sum::Float {
                sum: 0.0,
                compensation: 0.0,
            },
            _ => Sum::Integer(0),
        }
    }

    fn add_float(&mut self, more: f64) {
        if let Sum::Float { sum, compensation } = self {
            let total = *sum + more;
            *compensation += match sum.abs() >= more.abs() {
                true => (*sum - total) + more,
                false => (more - total) + *sum,
            };
            *sum = total;
        }
    }

    fn add_integer(&mut self, more: i128) {
        if let Sum::Integer(sum) = self {
            // At most 2^64 numbers of 64 bits: less than 2^128.
            *sum = sum.wrapping_add(more);
        }
    }

    /// The sum of floats.
    pub fn float(sum: f64, compensation: f64) -> f64 {
        // The compensation of an infinite sum is NaN.
        match sum.is_finite() {
            true => sum + compensation,
            false => sum,
        }
    }
}

/// Adds the elements from `from` on. Returns the next one: the count of elements, unless time is up.
pub fn sum(
    region: &Region,
    column: &Column,
    of: Type,
    from: usize,
    sum: &mut Sum,
    until: Option<Instant>,
) -> Result<usize> {
    let all = column.of(region)?;
    blocks(region, &all, from, until, |at, count| {
        // SAFETY: the elements are inside the map.
        unsafe { of_type!(of, T => T::sum_of(at, all.stride, count, of.is_swapped(), sum)) };
        true
    })
}

/// The least or the greatest element, as bits of its type. NaN if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extreme(pub u64);

/// As [`sum`], for the least or the greatest element: `None` before the first one.
pub fn extreme(
    region: &Region,
    column: &Column,
    of: Type,
    greatest: bool,
    from: usize,
    found: &mut Option<Extreme>,
    until: Option<Instant>,
) -> Result<usize> {
    let all = column.of(region)?;
    let (swapped, mut is_nan) = (of.is_swapped(), false);
    let next = blocks(region, &all, from, until, |at, count| {
        // SAFETY: the elements are inside the map; `found` is a number of this type.
        is_nan = unsafe {
            of_type!(of, T => match greatest {
                true => extreme_of::<T, true>(at, all.stride, count, swapped, found),
                false => extreme_of::<T, false>(at, all.stride, count, swapped, found),
            })
        };
        !is_nan
    })?;
    // One NaN decides the result.
    Ok(if is_nan { all.count } else { next })
}

/// Calls `act` with the address of each block and its number of elements, until it returns `false` or time is up.
fn blocks(
    region: &Region,
    all: &Elements,
    from: usize,
    until: Option<Instant>,
    mut act: impl FnMut(*const u8, usize) -> bool,
) -> Result<usize> {
    let mut next = from;
    while next < all.count {
        for _ in 0..UNWATCHED {
            let count = BLOCK.min(all.count.saturating_sub(next));
            // SAFETY: `next` is below the number of elements.
            if count == 0 || !act(unsafe { all.at(region, next) }, count) {
                return Ok(next);
            }
            next += count;
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
    }
    Ok(next)
}

/// Calls `$kernel` with constants for the usual case, for which the compiler then makes vector instructions.
macro_rules! specialized {
    ($kernel:ident::<$($of:ty),*>($at:ident, $stride:ident, $count:ident, $swapped:ident), $size:expr) => {
        match ($stride == $size, $swapped) {
            (true, false) => $kernel::<$($of),*>($at, $size, $count, false),
            (true, true) => $kernel::<$($of),*>($at, $size, $count, true),
            (false, _) => $kernel::<$($of),*>($at, $stride, $count, $swapped),
        }
    };
}

trait Summed: Element {
    /// Adds a block.
    ///
    /// # Safety
    /// `count` elements must be readable, each `stride` bytes after the one before.
    unsafe fn sum_of(at: *const u8, stride: usize, count: usize, swapped: bool, sum: &mut Sum);
}

/// Sixteen sums of every sixteenth element.
///
/// # Safety
/// As [`Summed::sum_of`].
#[inline(always)]
unsafe fn lanes<T: Element, S: Copy + Default>(
    at: *const u8,
    stride: usize,
    count: usize,
    swapped: bool,
    add: impl Fn(S, T) -> S,
) -> [S; LANES] {
    let mut sums = [S::default(); LANES];
    let whole = count - count % LANES;
    // SAFETY: below `count`, by the caller's promise.
    let read = |index: usize| unsafe { T::read(at.add(index * stride), swapped) };
    for row in (0..whole).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum = add(*sum, read(row + lane));
        }
    }
    for index in whole..count {
        sums[index - whole] = add(sums[index - whole], read(index));
    }
    sums
}

macro_rules! summed_floats {
    ($($number:ty)*) => { $(
        impl Summed for $number {
            #[inline(never)]
            unsafe fn sum_of(at: *const u8, stride: usize, count: usize, swapped: bool, sum: &mut Sum) {
                #[inline(always)]
                unsafe fn kernel<T: Element + Into<f64>>(at: *const u8, stride: usize, count: usize, swapped: bool) -> f64 {
                    // SAFETY: the caller's promise.
                    let mut sums = unsafe { lanes(at, stride, count, swapped, |sum: f64, each: T| sum + each.into()) };
                    let mut half = LANES / 2;
                    while half > 0 {
                        for lane in 0..half {
                            sums[lane] += sums[lane + half];
                        }
                        half /= 2;
                    }
                    sums[0]
                }
                // SAFETY: the caller's promise.
                sum.add_float(unsafe { specialized!(kernel::<$number>(at, stride, count, swapped), Self::SIZE) });
            }
        }
    )* };
}

summed_floats!(f32 f64);

/// Numbers of up to 32 bits, of which a block has a sum of 64 bits.
macro_rules! summed_short {
    ($($number:ty)*) => { $(
        impl Summed for $number {
            #[inline(never)]
            unsafe fn sum_of(at: *const u8, stride: usize, count: usize, swapped: bool, sum: &mut Sum) {
                #[inline(always)]
                unsafe fn kernel<T: Element + Into<i64>>(at: *const u8, stride: usize, count: usize, swapped: bool) -> i64 {
                    // SAFETY: the caller's promise.
                    let sums = unsafe { lanes(at, stride, count, swapped, |sum: i64, each: T| sum + each.into()) };
                    sums.iter().sum()
                }
                // SAFETY: the caller's promise.
                let more = unsafe { specialized!(kernel::<$number>(at, stride, count, swapped), Self::SIZE) };
                sum.add_integer(more.into());
            }
        }
    )* };
}

summed_short!(u8 i8 u16 i16 u32 i32);

/// Both halves of numbers of 64 bits, of which a block has sums of 64 bits. `flip` makes signed numbers unsigned:
/// it moves all of them by 2^63.
#[inline(always)]
unsafe fn halves(at: *const u8, stride: usize, count: usize, swapped: bool, flip: u64) -> u128 {
    let low = |sum: (u64, u64), each: u64| {
        let each = each ^ flip;
        (sum.0 + (each & 0xFFFF_FFFF), sum.1 + (each >> 32))
    };
    // SAFETY: the caller's promise.
    let sums = unsafe { lanes(at, stride, count, swapped, low) };
    let (mut lows, mut highs) = (0, 0);
    for (low, high) in sums {
        lows += low;
        highs += high;
    }
    u128::from(lows) + (u128::from(highs) << 32)
}

macro_rules! summed_long {
    ($($number:ty, $flip:expr;)*) => { $(
        impl Summed for $number {
            #[inline(never)]
            unsafe fn sum_of(at: *const u8, stride: usize, count: usize, swapped: bool, sum: &mut Sum) {
                // SAFETY: the caller's promise.
                let moved = unsafe {
                    match (stride == Self::SIZE, swapped) {
                        (true, false) => halves(at, Self::SIZE, count, false, $flip),
                        (true, true) => halves(at, Self::SIZE, count, true, $flip),
                        (false, _) => halves(at, stride, count, swapped, $flip),
                    }
                };
                sum.add_integer(moved as i128 - count as i128 * i128::from($flip));
            }
        }
    )* };
}

summed_long!(u64, 0u64; i64, 1u64 << 63;);

/// Adds a block to the least or greatest element so far. Returns whether it is NaN.
///
/// # Safety
/// `count` elements, at least one, must be readable, each `stride` bytes after the one before.
#[inline(never)]
unsafe fn extreme_of<T: Bits, const GREATEST: bool>(
    at: *const u8,
    stride: usize,
    count: usize,
    swapped: bool,
    found: &mut Option<Extreme>,
) -> bool {
    #[inline(always)]
    fn better<T: Element, const GREATEST: bool>(one: T, other: T) -> T {
        let other_is = match GREATEST {
            true => other > one,
            false => other < one,
        };
        if other_is {
            other
        } else {
            one
        }
    }
    #[inline(always)]
    unsafe fn kernel<T: Element, const GREATEST: bool>(
        at: *const u8,
        stride: usize,
        count: usize,
        swapped: bool,
    ) -> (T, bool) {
        // SAFETY: below `count`, by the caller's promise.
        let read = |index: usize| unsafe { T::read(at.add(index * stride), swapped) };
        let first = read(0);
        let (mut best, mut is_nan) = ([first; LANES], [false; LANES]);
        let whole = count - count % LANES;
        for row in (0..whole).step_by(LANES) {
            for lane in 0..LANES {
                let each = read(row + lane);
                best[lane] = better::<T, GREATEST>(best[lane], each);
                is_nan[lane] |= each.is_nan();
            }
        }
        for index in whole..count {
            let each = read(index);
            best[0] = better::<T, GREATEST>(best[0], each);
            is_nan[0] |= each.is_nan();
        }
        let all = best
            .into_iter()
            .fold(first, |one, other| better::<T, GREATEST>(one, other));
        (all, is_nan.into_iter().any(|each| each))
    }
    // SAFETY: the caller's promise.
    let (best, is_nan) = unsafe {
        match (stride == T::SIZE, swapped) {
            (true, false) => kernel::<T, GREATEST>(at, T::SIZE, count, false),
            (true, true) => kernel::<T, GREATEST>(at, T::SIZE, count, true),
            (false, _) => kernel::<T, GREATEST>(at, stride, count, swapped),
        }
    };
    *found = Some(Extreme(match *found {
        _ if is_nan => T::NAN,
        None => best.to_bits64(),
        Some(Extreme(before)) => better::<T, GREATEST>(T::of_bits64(before), best).to_bits64(),
    }));
    is_nan
}

/// A number as 64 bits.
trait Bits: Element {
    const NAN: u64;

    fn to_bits64(self) -> u64;
    fn of_bits64(bits: u64) -> Self;
}

macro_rules! integer_bits {
    ($($number:ty)*) => { $(
        impl Bits for $number {
            const NAN: u64 = 0;

            fn to_bits64(self) -> u64 {
                self as u64
            }

            fn of_bits64(bits: u64) -> Self {
                bits as $number
            }
        }
    )* };
}

integer_bits!(u8 i8 u16 i16 u32 i32 u64 i64);

macro_rules! float_bits {
    ($($number:ty)*) => { $(
        impl Bits for $number {
            const NAN: u64 = f64::NAN.to_bits();

            fn to_bits64(self) -> u64 {
                f64::from(self).to_bits()
            }

            fn of_bits64(bits: u64) -> Self {
                f64::from_bits(bits) as $number
            }
        }
    )* };
}

float_bits!(f32 f64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::tests::map;
    use proptest::prelude::*;
    use std::time::Duration;

    fn types() -> impl Strategy<Value = Type> {
        (0i64..10, 0i64..3).prop_map(|(place, order)| Type::of_code(place + 16 * order).unwrap())
    }

    /// All elements, one by one.
    fn walk(bytes: &[u8], of: Type, first: usize, stride: usize) -> Vec<crate::typed::Number> {
        let records = bytes.get(first..).unwrap_or(&[]).chunks_exact(stride);
        let decode = |record: &[u8]| {
            let mut number = [0; 8];
            number[..of.size()].copy_from_slice(&record[..of.size()]);
            of.decode(number)
        };
        records.map(decode).collect()
    }

    fn in_steps(region: &Region, column: &Column, of: Type, until: Option<Instant>) -> Sum {
        let (mut total, mut next) = (Sum::new(of), 0);
        let count = column.of(region).unwrap().count;
        while next < count {
            next = sum(region, column, of, next, &mut total, until).unwrap();
        }
        total
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn folds_agree_with_a_walk(
            of in types(),
            seed in proptest::collection::vec(any::<u8>(), 1..400),
            times in prop_oneof![Just(1usize), 60usize..100],
            first in 0usize..9,
            gap in prop_oneof![Just(0usize), 1usize..9],
        ) {
            use crate::typed::Number;
            let bytes = seed.repeat(times);
            let region = map(&bytes);
            let stride = of.size() + gap;
            let column = Column::new(first as u64, stride as u64, 0, of.size(), None).unwrap();
            let numbers = walk(&bytes, of, first, stride);
            prop_assert_eq!(column.of(&region).unwrap().count, numbers.len());
            let total = in_steps(&region, &column, of, None);
            let past = Instant::now().checked_sub(Duration::from_secs(1));
            // The same bits, wherever the steps end.
            prop_assert_eq!(format!("{total:?}"), format!("{:?}", in_steps(&region, &column, of, past)));
            let integers = numbers.iter().map(|number| match number {
                Number::Unsigned(value) => i128::from(*value),
                Number::Signed(value) => i128::from(*value),
                Number::Float(_) => 0,
            });
            let floats: Vec<f64> = numbers.iter().filter_map(|number| match number {
                Number::Float(value) => Some(*value),
                _ => None,
            }).collect();
            match total {
                Sum::Integer(total) => prop_assert_eq!(total, integers.clone().sum::<i128>()),
                Sum::Float { sum, compensation } => {
                    let got = Sum::float(sum, compensation);
                    let plain: f64 = floats.iter().sum();
                    let size: f64 = floats.iter().map(|value| value.abs()).sum();
                    if size.is_finite() {
                        prop_assert!((got - plain).abs() <= size * 1e-12, "{} {}", got, plain);
                    } else {
                        prop_assert!(!got.is_finite() || !plain.is_finite() || (got - plain).abs() <= f64::MAX);
                    }
                }
            }
            for greatest in [false, true] {
                let (mut found, mut next) = (None, 0);
                while next < numbers.len() {
                    next = extreme(&region, &column, of, greatest, next, &mut found, past).unwrap();
                }
                let Some(Extreme(bits)) = found else {
                    prop_assert!(numbers.is_empty());
                    continue;
                };
                match of.kind() {
                    Kind::Float if floats.iter().any(|value| value.is_nan()) => {
                        prop_assert!(f64::from_bits(bits).is_nan());
                    }
                    Kind::Float => {
                        let least = floats.iter().copied().fold(f64::INFINITY, f64::min);
                        let most = floats.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                        prop_assert_eq!(f64::from_bits(bits), if greatest { most } else { least });
                    }
                    Kind::Signed => {
                        let wanted = if greatest { integers.clone().max() } else { integers.clone().min() };
                        prop_assert_eq!(i128::from(bits as i64), wanted.unwrap());
                    }
                    Kind::Unsigned => {
                        let wanted = if greatest { integers.clone().max() } else { integers.clone().min() };
                        prop_assert_eq!(i128::from(bits), wanted.unwrap());
                    }
                }
            }
        }
    }

    #[test]
    fn sums_beyond_64_bits_are_exact() {
        for (code, value) in [(6, u64::MAX.to_ne_bytes()), (7, i64::MIN.to_ne_bytes())] {
            let of = Type::of_code(code).unwrap();
            let region = map(&value.repeat(5000));
            let column = Column::new(0, 8, 0, 8, None).unwrap();
            let wanted = match code {
                6 => 5000 * i128::from(u64::MAX),
                _ => 5000 * i128::from(i64::MIN),
            };
            assert_eq!(in_steps(&region, &column, of, None), Sum::Integer(wanted));
        }
    }

    #[test]
    fn floats_that_a_plain_sum_loses() {
        let of = Type::F64;
        let mut numbers = vec![0.0f64; 5000];
        (numbers[0], numbers[1100], numbers[4000]) = (1e100, 1.0, -1e100);
        let bytes: Vec<u8> = numbers.iter().flat_map(|each| each.to_ne_bytes()).collect();
        let column = Column::new(0, 8, 0, 8, None).unwrap();
        let Sum::Float { sum, compensation } = in_steps(&map(&bytes), &column, of, None) else {
            panic!("not a float")
        };
        assert_eq!(Sum::float(sum, compensation), 1.0);
    }
}
