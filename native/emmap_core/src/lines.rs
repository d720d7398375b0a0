//! The lines of a piece of memory.

use crate::byte_search::ByteSearch;

/// How a line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// At the end of the memory.
    None,
    Lf,
    CrLf,
}

impl Ending {
    /// The number of its bytes.
    pub fn bytes(self) -> usize {
        match self {
            Ending::None => 0,
            Ending::Lf => 1,
            Ending::CrLf => 2,
        }
    }
}

/// `len` bytes at `start`; the last of them are `ending`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub start: *const u8,
    pub len: usize,
    pub ending: Ending,
}

/// Finds lines one after the other.
///
/// Its `SAFETY` comments rely on one invariant, the promise to [`Lines::new`]: `at .. end` is
/// readable.
pub struct Lines {
    newline: ByteSearch,
    at: *const u8,
    end: *const u8,
}

impl Lines {
    /// The lines of `count` bytes at `start`.
    ///
    /// # Safety
    /// The bytes must be readable for as long as `Lines` is used. They may change in the meantime.
    pub unsafe fn new(start: *const u8, count: usize) -> Lines {
        Lines {
            newline: ByteSearch::new(b'\n'),
            at: start,
            // SAFETY: the caller's promise.
            end: unsafe { start.add(count) },
        }
    }

    /// The next line that ends in a newline.
    #[inline]
    pub fn next_whole(&mut self) -> Option<Line> {
        // SAFETY: the Lines invariant.
        let newline = unsafe { self.newline.find(self.at, self.end) }?;
        let start = self.at;
        let before = newline as usize - start as usize;
        // SAFETY: `newline` is in `at .. end`. If bytes precede it, so is the last of
        // them.
        let after_cr = unsafe {
            self.at = newline.add(1);
            before > 0 && newline.sub(1).read_volatile() == b'\r'
        };
        let ending = if after_cr { Ending::CrLf } else { Ending::Lf };
        let len = before + 1;
        Some(Line { start, len, ending })
    }

    /// The bytes after the last newline, if there are any. To be called only after [`Lines::next_whole`] returned `None`.
    pub fn rest(&mut self) -> Option<Line> {
        let (start, len) = (self.at, self.left());
        self.at = self.end;
        let ending = Ending::None;
        (len > 0).then_some(Line { start, len, ending })
    }

    /// How many bytes follow the last line found.
    pub fn left(&self) -> usize {
        self.end as usize - self.at as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bytes of each line, computed in the straightforward way.
    fn model(memory: &[u8]) -> Vec<(Vec<u8>, Ending)> {
        memory
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| {
                let ending = match line {
                    [.., b'\r', b'\n'] => Ending::CrLf,
                    [.., b'\n'] => Ending::Lf,
                    _ => Ending::None,
                };
                (line.to_vec(), ending)
            })
            .collect()
    }

    fn lines(memory: &[u8]) -> Vec<(Vec<u8>, Ending)> {
        // SAFETY: `memory` outlives the lines, and each is a part of it.
        unsafe {
            let mut found = Lines::new(memory.as_ptr(), memory.len());
            let whole: Vec<Line> = std::iter::from_fn(|| found.next_whole()).collect();
            let all = whole.into_iter().chain(found.rest());
            all.map(|line| {
                let bytes = std::slice::from_raw_parts(line.start, line.len);
                (bytes.to_vec(), line.ending)
            })
            .collect()
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_standard_library(
            memory in proptest::collection::vec(proptest::sample::select(b"\n\n\r\0ab".to_vec()), 0..300),
        ) {
            prop_assert_eq!(lines(&memory), model(&memory));
        }
    }

    #[test]
    fn borders() {
        assert_eq!(lines(b""), vec![]);
        assert_eq!(lines(b"\n"), vec![(b"\n".to_vec(), Ending::Lf)]);
        assert_eq!(lines(b"\r"), vec![(b"\r".to_vec(), Ending::None)]);
        assert_eq!(lines(b"\r\n"), vec![(b"\r\n".to_vec(), Ending::CrLf)]);
    }
}
