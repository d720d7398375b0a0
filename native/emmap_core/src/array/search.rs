//! Binary search in a sorted column.

use super::element::{of_type, Element};
use super::{Column, Elements};
use crate::typed::{Kind, Type};
use crate::{Region, Result};

/// A value to search for.
#[derive(Clone, Copy, Debug)]
pub enum Key {
    /// For a column of integers. It may be outside of the range of their type.
    Integer(i128),
    /// For a column of floats. NaN is greater than all other floats.
    Float(f64),
    /// For a column of bytes: the address of as many as an element has.
    Bytes(*const u8),
}

/// Where a value is, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Of the first element that is not less than the key, or, after equal elements, of the first that is greater.
    pub index: usize,
    /// Whether the element at the index is equal to the key.
    pub equal: bool,
}

/// The first element that is not less than `key`; with `after_equal`, the first that is greater. `go_on` is asked after every
/// few elements: each may have to be read from the disk. `None`: it refused.
///
/// # Safety
/// The bytes of a key must be readable, and must not change.
pub unsafe fn lower_bound(
    region: &Region,
    column: &Column,
    of: Option<Type>,
    key: Key,
    after_equal: bool,
    mut go_on: impl FnMut() -> bool,
) -> Result<Option<Found>> {
    let all = column.of(region)?;
    let found = match (of, key) {
        (Some(of), Key::Float(key)) if of.kind() == Kind::Float => match of.size() {
            4 => numbers::<f32, f64>(region, &all, of, key, after_equal, &mut go_on),
            _ => numbers::<f64, f64>(region, &all, of, key, after_equal, &mut go_on),
        },
        (Some(of), Key::Integer(key)) if of.kind() != Kind::Float => {
            let values = of.integers();
            if key < *values.start() {
                Some(0)
            } else if key > *values.end() {
                Some(all.count)
            } else {
                of_type!(of, T => integers::<T>(region, &all, of, key, after_equal, &mut go_on))
            }
        }
        (None, Key::Bytes(key)) => {
            let below = |index: usize| {
                // SAFETY: an element of the column, and a key of as many bytes by the caller's promise.
                let order = unsafe { compare(all.at(region, index), key, column.size) };
                order < 0 || (order == 0 && after_equal)
            };
            partition(all.count, below, |_| (), &mut go_on)
        }
        // A key of another kind is refused by the caller.
        _ => Some(0),
    };
    Ok(found.map(|index| Found {
        index,
        equal: index < all.count && is_equal(region, &all, column, of, key, index),
    }))
}

/// Integers, which are compared as such: a key within their range is one of them.
trait Integer: Element {
    fn of_key(key: i128) -> Self;
}

macro_rules! integer {
    ($($number:ty)*) => { $(
        impl Integer for $number {
            fn of_key(key: i128) -> Self {
                key as $number
            }
        }
    )* };
}

integer!(u8 i8 u16 i16 u32 i32 u64 i64);

// Never called: the caller has checked the kind of the type.
integer!(f32 f64);

fn integers<T: Integer>(
    region: &Region,
    all: &Elements,
    of: Type,
    key: i128,
    after_equal: bool,
    go_on: &mut impl FnMut() -> bool,
) -> Option<usize> {
    numbers::<T, T>(region, all, of, T::of_key(key), after_equal, go_on)
}

fn numbers<T: Element + Into<K>, K: Copy + PartialOrd>(
    region: &Region,
    all: &Elements,
    of: Type,
    key: K,
    after_equal: bool,
    go_on: &mut impl FnMut() -> bool,
) -> Option<usize> {
    let swapped = of.is_swapped();
    // One base for all: it has room for these elements, also after a growth.
    let base = region.base().cast_const();
    let read = |index: usize| -> K {
        // SAFETY: an element of the column, inside the map.
        unsafe { T::read(base.add(all.position(index)), swapped) }.into()
    };
    let prefetch = |index: usize| prefetch(base.wrapping_add(all.position(index)));
    match after_equal {
        true => partition(all.count, |index| read(index) <= key, prefetch, go_on),
        false => partition(all.count, |index| read(index) < key, prefetch, go_on),
    }
}

/// The first index below `count` that is not `below`, without a branch that the processor could predict wrongly.
#[inline(always)]
fn partition(
    count: usize,
    below: impl Fn(usize) -> bool,
    prefetch: impl Fn(usize),
    go_on: &mut impl FnMut() -> bool,
) -> Option<usize> {
    const UNWATCHED: u32 = 4;
    let (mut from, mut left, mut probes) = (0, count, 0);
    while left > 1 {
        let half = left / 2;
        // Memory is the slowest part: both elements that may be next are requested before this one arrives.
        let next = (left - half) / 2;
        if next > 0 {
            prefetch(from + next - 1);
            prefetch(from + half + next - 1);
        }
        from = if below(from + half - 1) {
            from + half
        } else {
            from
        };
        left -= half;
        probes += 1;
        if probes % UNWATCHED == 0 && !go_on() {
            return None;
        }
    }
    Some(from + usize::from(left == 1 && below(from)))
}

#[inline(always)]
fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect on the program, whatever the address is.
    unsafe {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

fn is_equal(
    region: &Region,
    all: &Elements,
    column: &Column,
    of: Option<Type>,
    key: Key,
    index: usize,
) -> bool {
    // SAFETY: an element of the column, and a key of as many bytes by the promise of `lower_bound`.
    unsafe {
        let at = all.at(region, index);
        match (of, key) {
            (None, Key::Bytes(key)) => compare(at, key, column.size) == 0,
            (Some(of), Key::Integer(key)) => of_type!(of, T => {
                of.integers().contains(&key) && T::read(at, of.is_swapped()) == T::of_key(key)
            }),
            (Some(of), Key::Float(key)) => match of.size() {
                4 => f64::from(f32::read(at, of.is_swapped())) == key,
                _ => f64::read(at, of.is_swapped()) == key,
            },
            _ => false,
        }
    }
}

/// Below 0 if the first bytes are less, above 0 if they are greater.
///
/// # Safety
/// Both must have `count` readable bytes.
unsafe fn compare(one: *const u8, other: *const u8, count: usize) -> i32 {
    // SAFETY: the caller's promise. The bytes of a map may change during the call, which the C function allows.
    unsafe { libc::memcmp(one.cast(), other.cast(), count) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::tests::map;
    use proptest::prelude::*;

    fn search(region: &Region, column: &Column, of: Option<Type>, key: Key, after: bool) -> Found {
        // SAFETY: the tests keep the bytes of a key.
        unsafe { lower_bound(region, column, of, key, after, || true) }
            .unwrap()
            .unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]
        #[test]
        fn integers_agree_with_a_partition(
            mut numbers in proptest::collection::vec(prop_oneof![any::<i64>(), -3i64..20], 0..300),
            key in prop_oneof![any::<i64>(), -5i64..25],
            code in prop_oneof![Just(7i64), Just(16 + 7), Just(32 + 7)],
            gap in 0usize..5,
        ) {
            numbers.sort_unstable();
            let of = Type::of_code(code).unwrap();
            let record = |number: &i64| {
                let mut bytes = vec![0xEE; gap];
                bytes.extend(of.encode_i64(*number).unwrap());
                bytes
            };
            let bytes: Vec<u8> = numbers.iter().flat_map(record).collect();
            let region = map(&bytes);
            let count = Some(numbers.len() as u64);
            let column = Column::new(0, 8 + gap as u64, gap as u64, 8, count).unwrap();
            let less = numbers.partition_point(|each| *each < key);
            let not_greater = numbers.partition_point(|each| *each <= key);
            let wide = Key::Integer(key.into());
            let found = search(&region, &column, Some(of), wide, false);
            prop_assert_eq!(found, Found { index: less, equal: less < not_greater });
            prop_assert_eq!(search(&region, &column, Some(of), wide, true).index, not_greater);
            let beyond = Key::Integer(i128::from(i64::MAX) + 1);
            prop_assert_eq!(search(&region, &column, Some(of), beyond, false), Found { index: numbers.len(), equal: false });
            let before = Key::Integer(i128::from(i64::MIN) - 1);
            prop_assert_eq!(search(&region, &column, Some(of), before, true).index, 0);
        }

        #[test]
        fn floats_agree_with_a_partition(
            mut numbers in proptest::collection::vec(prop_oneof![any::<f32>(), (-3i8..5).prop_map(f32::from)], 0..100),
            key in prop_oneof![any::<f64>().prop_filter("", |key| !key.is_nan()), (-4i8..6).prop_map(f64::from)],
        ) {
            numbers.sort_by(|one, other| one.is_nan().cmp(&other.is_nan()).then(one.total_cmp(other)));
            // Both zeros are the same number.
            let key = if key == 0.0 { 0.0 } else { key };
            let bytes: Vec<u8> = numbers.iter().flat_map(|each| each.to_ne_bytes()).collect();
            let column = Column::new(0, 4, 0, 4, Some(numbers.len() as u64)).unwrap();
            let of = Type::of_code(8).unwrap();
            let region = map(&bytes);
            let found = search(&region, &column, Some(of), Key::Float(key), false);
            let less = numbers.partition_point(|each| f64::from(*each) < key);
            prop_assert_eq!(found.index, less);
            prop_assert_eq!(found.equal, numbers.get(less).is_some_and(|each| f64::from(*each) == key));
            let after = search(&region, &column, Some(of), Key::Float(key), true);
            prop_assert_eq!(after.index, numbers.partition_point(|each| f64::from(*each) <= key));
        }

        #[test]
        fn bytes_agree_with_a_partition(
            mut words in proptest::collection::vec(any::<[u8; 3]>(), 0..100),
            key: [u8; 3],
            known: bool,
            at: prop::sample::Index,
        ) {
            words.sort_unstable();
            let key = if known && !words.is_empty() { words[at.index(words.len())] } else { key };
            let region = map(&words.concat());
            let column = Column::new(0, 3, 0, 3, Some(words.len() as u64)).unwrap();
            let found = search(&region, &column, None, Key::Bytes(key.as_ptr()), false);
            let less = words.partition_point(|each| *each < key);
            prop_assert_eq!(found, Found { index: less, equal: words.get(less) == Some(&key) });
            let after = search(&region, &column, None, Key::Bytes(key.as_ptr()), true);
            prop_assert_eq!(after.index, words.partition_point(|each| *each <= key));
        }
    }

    #[test]
    fn it_stops_when_it_is_refused() {
        let region = map(&[0; 1 << 12]);
        let column = Column::new(0, 1, 0, 1, None).unwrap();
        let of = Type::of_code(0);
        let mut asked = 0;
        // SAFETY: no bytes.
        let found = unsafe {
            lower_bound(&region, &column, of, Key::Integer(7), false, || {
                asked += 1;
                asked < 2
            })
        };
        assert_eq!((found, asked), (Ok(None), 2));
    }
}
