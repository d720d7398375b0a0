//! A copy of a column without gaps, in the byte order of this machine.

use std::ptr;

use super::element::{of_type, Element};
use super::{Column, Elements};
use crate::typed::Type;
use crate::{interrupt, Region, Result};

/// Elements that are copied between two checks whether the result is still needed.
const UNWATCHED: usize = 64 << 10;

/// Copies the elements from `from` on to `out`: at most `count`. `of` is `None` for bytes. Returns how many it copied.
///
/// # Safety
/// `out` must have room for `count` elements, outside of the map.
pub unsafe fn pack(
    region: &Region,
    column: &Column,
    of: Option<Type>,
    from: usize,
    count: usize,
    out: *mut u8,
) -> Result<usize> {
    let all = column.of(region)?;
    let count = count.min(all.count.saturating_sub(from));
    let mut done = 0;
    while done < count {
        interrupt::check()?;
        let some = UNWATCHED.min(count - done);
        // SAFETY: elements of the column; room by the caller's promise.
        unsafe {
            let out = out.add(done * column.size);
            match of {
                Some(of) => {
                    of_type!(of, T => numbers::<T>(region, &all, of, from + done, some, out))
                }
                None => bytes(region, &all, column.size, from + done, some, out),
            }
        }
        done += some;
    }
    Ok(count)
}

/// # Safety
/// `from + count` must be at most the number of elements, and `out` must have room for `count`.
unsafe fn numbers<T: Element>(
    region: &Region,
    all: &Elements,
    of: Type,
    from: usize,
    count: usize,
    out: *mut u8,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let at = all.at(region, from);
        match (all.stride == T::SIZE, of.is_swapped()) {
            (true, false) => ptr::copy_nonoverlapping(at, out, count * T::SIZE),
            (_, swapped) => {
                for index in 0..count {
                    T::read(at.add(index * all.stride), swapped).write(out.add(index * T::SIZE));
                }
            }
        }
    }
}

/// # Safety
/// As [`numbers`].
unsafe fn bytes(
    region: &Region,
    all: &Elements,
    size: usize,
    from: usize,
    count: usize,
    out: *mut u8,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let at = all.at(region, from);
        for index in 0..count {
            ptr::copy_nonoverlapping(at.add(index * all.stride), out.add(index * size), size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::tests::map;

    #[test]
    fn gaps_and_the_byte_order_are_removed() {
        let region = map(&[9, 0, 1, 9, 9, 2, 3, 9, 9, 4, 5, 9, 9]);
        let column = Column::new(0, 4, 1, 2, None).unwrap();
        let mut out = [0; 6];
        let big = Type::of_code(32 + 2);
        // SAFETY: room for three elements.
        let done = unsafe { pack(&region, &column, big, 0, 9, out.as_mut_ptr()) };
        let wanted: Vec<u8> = [0x0001u16, 0x0203, 0x0405]
            .iter()
            .flat_map(|each| each.to_ne_bytes())
            .collect();
        assert_eq!((done, &out[..]), (Ok(3), &wanted[..]));
        // SAFETY: as above.
        let done = unsafe { pack(&region, &column, None, 1, 1, out.as_mut_ptr()) };
        assert_eq!((done, &out[..2]), (Ok(1), &[2, 3][..]));
    }
}
