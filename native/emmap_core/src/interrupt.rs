//! Whether the result of the running call is still needed. The caller of a long function sets how to find out, and long loops
//! check it from time to time. A call whose process has been killed ends as if its program had died at that point.

use std::cell::Cell;

use crate::{Errno, Result};

/// Returns `false` once the result is not needed any more.
pub type IsWanted = fn(usize) -> bool;

thread_local! {
    static ASK: Cell<Option<(IsWanted, usize)>> = const { Cell::new(None) };
}

/// Runs `act`, which `is_wanted(data)` may interrupt.
pub fn with<T>(is_wanted: IsWanted, data: usize, act: impl FnOnce() -> T) -> T {
    struct Restore(Option<(IsWanted, usize)>);
    impl Drop for Restore {
        fn drop(&mut self) {
            ASK.set(self.0);
        }
    }
    let _restore = Restore(ASK.replace(Some((is_wanted, data))));
    act()
}

/// Runs `act`, which must not be interrupted because others need what it has begun.
pub fn without<T>(act: impl FnOnce() -> T) -> T {
    with(|_| true, 0, act)
}

pub fn is_interrupted() -> bool {
    ASK.get().is_some_and(|(is_wanted, data)| !is_wanted(data))
}

/// EINTR: the result is not needed any more.
pub fn check() -> Result<()> {
    match is_interrupted() {
        true => Err(Errno::INTR),
        false => Ok(()),
    }
}

/// How many bytes are copied between two checks.
const PIECE: usize = 1 << 20;

/// Calls `copy` with the start and the length of each piece of `count` bytes in order, from the end if
/// `backward`. Returns how many bytes were copied: fewer if it was interrupted.
pub fn in_pieces(count: usize, backward: bool, mut copy: impl FnMut(usize, usize)) -> usize {
    let mut done = 0;
    while done < count && !is_interrupted() {
        let piece = PIECE.min(count - done);
        let start = if backward { count - done - piece } else { done };
        copy(start, piece);
        done += piece;
    }
    done
}

/// Whether this number of bytes is to be copied in pieces.
#[inline(always)]
pub fn is_long(count: usize) -> bool {
    count > PIECE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_all_until_it_is_interrupted() {
        for backward in [false, true] {
            let mut seen = vec![0u8; 3 * PIECE + 7];
            let done = in_pieces(seen.len(), backward, |start, count| {
                seen[start..start + count]
                    .iter_mut()
                    .for_each(|byte| *byte += 1);
            });
            assert_eq!(done, seen.len());
            assert!(seen.iter().all(|byte| *byte == 1));
        }
        static ASKED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let twice = |_| ASKED.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2;
        let done = with(twice, 0, || in_pieces(5 * PIECE, false, |_, _| ()));
        assert_eq!(done, 2 * PIECE);
        assert_eq!(with(|_| false, 0, check), Err(Errno::INTR));
        assert_eq!(with(|_| false, 0, || without(check)), Ok(()));
        assert_eq!(check(), Ok(()));
    }
}
