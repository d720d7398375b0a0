//! The only check of position and length, by subtraction, before they are used for an address.

use crate::{Errno, Result};

/// The bytes of `position .. position + count`, if all of them are inside `len`.
#[inline(always)]
pub fn checked_range(position: u64, count: usize, len: usize) -> Option<usize> {
    let start = usize::try_from(position).ok()?;
    (start <= len && count <= len - start).then_some(start)
}

/// Where a read of at most `count` bytes at `position` begins and how many bytes it gets; `None` at or
/// past the end, and for a count of 0, for which a file returns end of file.
#[inline(always)]
pub fn clamped_range(position: u64, count: usize, len: usize) -> Option<(usize, usize)> {
    let start = usize::try_from(position)
        .ok()
        .filter(|start| *start < len)?;
    let got = count.min(len - start);
    (got > 0).then_some((start, got))
}

/// The end of `position .. position + count` as a length of a file, whose sizes are signed.
pub fn checked_end(position: u64, count: u64) -> Result<u64> {
    match position.checked_add(count) {
        Some(end) if end <= i64::MAX as u64 => Ok(end),
        // No file has such a position.
        _ => Err(Errno::INVAL),
    }
}

/// `n` rounded up to a multiple of `page` (a power of two).
pub fn round_up(n: usize, page: usize) -> Result<usize> {
    debug_assert!(page.is_power_of_two());
    n.checked_add(page - 1)
        .map(|sum| sum & !(page - 1))
        .filter(|rounded| *rounded <= isize::MAX as usize)
        .ok_or(Errno::NOMEM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn checked_range_agrees_with_wide_arithmetic(position: u64, count: usize, len: usize) {
            let inside = position as u128 + count as u128 <= len as u128;
            prop_assert_eq!(checked_range(position, count, len).is_some(), inside);
        }

        #[test]
        fn clamped_range_never_leaves_the_map(position: u64, count: usize, len: usize) {
            if let Some((start, got)) = clamped_range(position, count, len) {
                prop_assert!(start as u128 + got as u128 <= len as u128 && got > 0 && got <= count);
            } else {
                prop_assert!(count == 0 || position as u128 >= len as u128);
            }
        }
    }

    #[test]
    fn borders() {
        assert_eq!(checked_range(8, 0, 8), Some(8));
        assert_eq!(checked_range(9, 0, 8), None);
        assert_eq!(checked_range(u64::MAX, usize::MAX, usize::MAX), None);
        assert_eq!(clamped_range(8, 1, 8), None);
        assert_eq!(clamped_range(7, usize::MAX, 8), Some((7, 1)));
        assert_eq!(checked_end(u64::MAX, 1), Err(Errno::INVAL));
        assert_eq!(checked_end(i64::MAX as u64, 0), Ok(i64::MAX as u64));
        assert_eq!(round_up(1, 4096), Ok(4096));
        assert_eq!(round_up(usize::MAX, 4096), Err(Errno::NOMEM));
    }
}
