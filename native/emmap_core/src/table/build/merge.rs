//! Several sorted runs in one order.

use std::cmp::Ordering;

use super::items::{parse_prefix, Item, Order, PREFIX};
use super::sorter::Level;
use crate::store::Medium;
use crate::Result;

/// Items in order, in a file.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub start: u64,
    pub end: u64,
}

/// Reads a run.
struct Reader {
    /// The number of its file.
    file: usize,
    /// What was not read yet.
    rest: Run,
    buffer: Vec<u8>,
    /// Where the next item begins in the buffer, and its length and rank; 0 at the end of the run.
    at: usize,
    len: usize,
    apart: bool,
    rank: u64,
}

impl Reader {
    /// Moves to the item at `at`. `false`: there is none.
    fn load<M: Medium>(&mut self, files: &[M], order: Order, piece: usize) -> Result<bool> {
        self.fill(files, PREFIX, piece)?;
        if self.at == self.buffer.len() {
            return Ok(false);
        }
        let (len, apart) = parse_prefix(&self.buffer[self.at..]);
        (self.len, self.apart) = (PREFIX + len, apart);
        self.fill(files, self.len, piece)?;
        self.rank = order.rank(self.bytes());
        Ok(true)
    }

    /// Reads more if fewer than `count` bytes are in the buffer.
    fn fill<M: Medium>(&mut self, files: &[M], count: usize, piece: usize) -> Result<()> {
        let have = self.buffer.len() - self.at;
        if have >= count || self.rest.start == self.rest.end {
            return Ok(());
        }
        self.buffer.drain(..self.at);
        self.at = 0;
        let left = self.rest.end - self.rest.start;
        let more = (piece.max(count) - have).min(usize::try_from(left).unwrap_or(usize::MAX));
        self.buffer.resize(have + more, 0);
        files[self.file].read_at(self.rest.start, &mut self.buffer[have..])?;
        self.rest.start += more as u64;
        Ok(())
    }

    fn bytes(&self) -> &[u8] {
        let end = (self.at + self.len).min(self.buffer.len());
        &self.buffer[(self.at + PREFIX).min(end)..end]
    }
}

pub struct Merge<M> {
    order: Order,
    files: Vec<M>,
    /// In the order in which their items were added.
    readers: Vec<Reader>,
    /// A heap of the numbers of the readers that have an item: the first one has the next item.
    heap: Vec<usize>,
    piece: usize,
    /// The item of the first reader was returned.
    returned: bool,
}

impl<M: Medium> Merge<M> {
    /// Merges all runs of these levels, oldest first, with buffers of about `memory` bytes in total.
    pub fn new(order: Order, levels: Vec<Level<M>>, memory: usize) -> Result<Merge<M>> {
        let (mut files, mut readers) = (Vec::new(), Vec::new());
        for level in levels {
            readers.extend(level.runs.iter().map(|run| Reader {
                file: files.len(),
                rest: *run,
                buffer: Vec::new(),
                at: 0,
                len: 0,
                apart: false,
                rank: 0,
            }));
            files.push(level.file);
        }
        let piece = (memory / readers.len().max(1)).clamp(16 << 10, 1 << 20);
        let mut merge = Merge {
            order,
            files,
            readers,
            heap: Vec::new(),
            piece,
            returned: false,
        };
        for number in 0..merge.readers.len() {
            if merge.readers[number].load(&merge.files, order, piece)? {
                merge.heap.push(number);
            }
        }
        for place in (0..merge.heap.len() / 2).rev() {
            merge.sift_down(place);
        }
        Ok(merge)
    }

    pub fn next(&mut self) -> Result<Option<Item<'_>>> {
        if self.returned {
            self.pass()?;
        }
        self.returned = true;
        let Some(first) = self.heap.first() else {
            return Ok(None);
        };
        let reader = &self.readers[*first];
        Ok(Some(Item {
            bytes: reader.bytes(),
            apart: reader.apart,
        }))
    }

    /// Moves the first reader to its next item.
    fn pass(&mut self) -> Result<()> {
        let Some(first) = self.heap.first().copied() else {
            return Ok(());
        };
        let reader = &mut self.readers[first];
        reader.at += reader.len;
        if !reader.load(&self.files, self.order, self.piece)? {
            reader.buffer = Vec::new();
            self.heap.swap_remove(0);
        }
        self.sift_down(0);
        Ok(())
    }

    fn sift_down(&mut self, mut place: usize) {
        loop {
            let mut least = place;
            for child in [2 * place + 1, 2 * place + 2] {
                if child < self.heap.len() && self.is_before(child, least) {
                    least = child;
                }
            }
            if least == place {
                return;
            }
            self.heap.swap(place, least);
            place = least;
        }
    }

    fn is_before(&self, one: usize, other: usize) -> bool {
        let (one, other) = (self.heap[one], self.heap[other]);
        let (first, second) = (&self.readers[one], &self.readers[other]);
        let by_rank = first.rank.cmp(&second.rank);
        let by_key = by_rank.then_with(|| {
            let order = self.order;
            order.key(first.bytes()).cmp(order.key(second.bytes()))
        });
        by_key.then(one.cmp(&other)) == Ordering::Less
    }
}
