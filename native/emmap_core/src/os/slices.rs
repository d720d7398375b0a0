//! Work on many pages in slices that are short in time.

use std::time::{Duration, Instant};

use crate::Result;

/// As much as is changed in the page tables at once, where there are pages.
const SLICE: usize = 16 << 20;
/// A slice of a hole may grow to this, and so may the first slice with pages behind a hole.
const LARGEST: usize = 1 << 30;
/// At most so many slices of the largest size: a range of terabytes is a hole for the most part.
const MOST_SLICES: usize = 1 << 16;

/// Less is a slice with few pages, or none.
const SHORT: Duration = Duration::from_micros(50);
const LONG: Duration = Duration::from_millis(1);

/// Calls `act` with one slice of `len` bytes after the other, as offset and length. One call for gigabytes would hold the
/// lock on the address space, and every thread that allocates, for tens of milliseconds; thousands of calls for a hole
/// would take that lock thousands of times. So slices grow while they are short in time, and shrink when they are long.
pub fn in_slices(len: usize, mut act: impl FnMut(usize, usize) -> Result<()>) -> Result<()> {
    let largest = LARGEST.max((len / MOST_SLICES).next_multiple_of(SLICE));
    let (mut from, mut slice) = (0, SLICE);
    while from < len {
        let count = slice.min(len - from);
        let begun = Instant::now();
        act(from, count)?;
        slice = next(slice, begun.elapsed(), largest);
        from += count;
    }
    Ok(())
}

/// Whether a range is more than one slice.
pub fn is_large(len: usize) -> bool {
    len > SLICE
}

fn next(slice: usize, took: Duration, largest: usize) -> usize {
    if took < SHORT {
        (slice * 4).min(largest)
    } else if took > LONG {
        (slice / 4).max(SLICE)
    } else {
        slice
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Errno;

    #[test]
    fn slices_are_whole_and_in_order_and_few_for_a_hole() {
        for len in [0, 1, SLICE - 1, SLICE, SLICE + 1, 200 << 30, 80 << 40] {
            let (mut at, mut slices) = (0, 0);
            in_slices(len, |from, count| {
                assert_eq!(from, at);
                assert!(count > 0);
                at += count;
                slices += 1;
                Ok(())
            })
            .unwrap();
            assert_eq!(at, len);
            // Of a hole; a machine that is busy may find some slices long.
            assert!(slices <= MOST_SLICES + 1000, "{slices} for {len}");
        }
    }

    #[test]
    fn slices_grow_while_they_are_short_and_shrink_when_they_are_long() {
        assert_eq!(next(SLICE, Duration::ZERO, LARGEST), 4 * SLICE);
        assert_eq!(next(LARGEST, Duration::ZERO, LARGEST), LARGEST);
        assert_eq!(next(LARGEST, 2 * LONG, LARGEST), LARGEST / 4);
        assert_eq!(next(SLICE, 2 * LONG, LARGEST), SLICE);
        assert_eq!(next(4 * SLICE, (SHORT + LONG) / 2, LARGEST), 4 * SLICE);
    }

    #[test]
    fn an_error_ends_it() {
        let mut calls = 0;
        let ended = in_slices(4 * SLICE, |_, _| {
            calls += 1;
            Err(Errno::INVAL)
        });
        assert_eq!((ended, calls), (Err(Errno::INVAL), 1));
    }
}
