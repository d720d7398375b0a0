//! Columns of numbers or bytes in a map: the same field of records that follow each other at a fixed distance.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`element`] | one number in raw memory, in either byte order |
//! | [`folds`] | sum, least and greatest, in steps |
//! | [`search`] | binary search |
//! | [`pack`] | a copy of a column without gaps |
//!
//! None of these takes the lock of copies. As with streams, an element that is written at the same time is seen before or
//! after the change, or, if it is not aligned, as a mixture.

pub mod element;
pub mod folds;
pub mod pack;
pub mod search;

use crate::{Errno, Region, Result};

/// Where the elements of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The position of the first record.
    pub first: u64,
    /// From one record to the next, in bytes.
    pub stride: u64,
    /// From the start of a record to its element, in bytes.
    pub field: u64,
    /// The size of an element in bytes.
    pub size: usize,
    /// The number of records. `None`: all whole records up to the end of the map.
    pub count: Option<u64>,
}

/// The elements that are inside the map.
///
/// All addresses of `at(0) .. at(count)` are inside the map.
#[derive(Clone, Copy)]
pub struct Elements {
    start: usize,
    pub stride: usize,
    pub count: usize,
}

impl Column {
    /// `None` unless an element is inside its record.
    pub fn new(
        first: u64,
        stride: u64,
        field: u64,
        size: usize,
        count: Option<u64>,
    ) -> Option<Column> {
        let end = field.checked_add(size as u64)?;
        (size > 0 && end <= stride).then_some(Column {
            first,
            stride,
            field,
            size,
            count,
        })
    }

    /// The elements in a map of `len` bytes. ESTALE if the map is too short for a given number of records: the file was
    /// truncated.
    pub fn within(&self, len: usize) -> Result<Elements> {
        let whole = (len as u64).saturating_sub(self.first) / self.stride;
        let count = match self.count {
            None => whole,
            Some(count) if count <= whole => count,
            Some(_) => return Err(Errno::STALE),
        };
        if count == 0 {
            return Ok(Elements {
                start: 0,
                stride: 1,
                count: 0,
            });
        }
        // `first + count * stride` is at most `len`, and so is each number here.
        Ok(Elements {
            start: (self.first + self.field) as usize,
            stride: self.stride as usize,
            count: count as usize,
        })
    }

    /// The elements in the map now.
    pub fn of(&self, region: &Region) -> Result<Elements> {
        self.within(region.len())
    }
}

impl Elements {
    /// The position of an element.
    #[inline(always)]
    pub fn position(&self, index: usize) -> usize {
        debug_assert!(index < self.count);
        self.start + index * self.stride
    }

    /// The address of an element.
    ///
    /// # Safety
    /// The elements must be those of a length that `region` has had, and `index` below their number.
    #[inline(always)]
    pub unsafe fn at(&self, region: &Region, index: usize) -> *const u8 {
        // SAFETY: inside the map, by the caller's promise (1: Alive).
        unsafe { region.pointer(self.position(index)).cast_const() }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Options;
    use proptest::prelude::*;

    /// A map that begins with these bytes.
    pub fn map(bytes: &[u8]) -> Region {
        let options = Options {
            write: true,
            size: Some(bytes.len().max(1) as u64),
            ..Options::default()
        };
        let region = Region::open(&options).unwrap();
        // SAFETY: the map has that many bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), region.base(), bytes.len()) };
        region
    }

    proptest! {
        #[test]
        fn elements_are_inside_the_map(
            first: u64, stride: u64, field: u64, size: usize, count: Option<u64>, len in 0..=isize::MAX as usize,
            small in 0u64..200, few in 1u64..50,
        ) {
            for (first, stride, len) in [(first, stride, len), (small, few, len % 1000)] {
                let Some(column) = Column::new(first, stride, field % few, size % 60, count) else { continue };
                match column.within(len) {
                    Err(error) => {
                        prop_assert_eq!(error, Errno::STALE);
                        let end = first as u128 + count.unwrap() as u128 * stride as u128;
                        prop_assert!(end > len as u128);
                    }
                    Ok(all) if all.count == 0 => {
                        prop_assert!(count == Some(0) || first as u128 + stride as u128 > len as u128);
                    }
                    Ok(all) => {
                        let last = first as u128 + (all.count as u128 - 1) * stride as u128 + column.field as u128;
                        prop_assert_eq!(all.position(all.count - 1) as u128, last);
                        prop_assert!(last + column.size as u128 <= len as u128);
                        if count.is_none() {
                            let next = first as u128 + (all.count as u128 + 1) * stride as u128;
                            prop_assert!(next > len as u128);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn an_element_must_be_inside_its_record() {
        assert!(Column::new(0, 8, 0, 8, None).is_some());
        assert!(Column::new(0, 8, 1, 8, None).is_none());
        assert!(Column::new(0, 8, u64::MAX, 8, None).is_none());
        assert!(Column::new(0, 0, 0, 0, None).is_none());
    }
}
