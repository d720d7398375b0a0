//! Bytes that are written in order, and read later. Few of them stay in memory.

use crate::store::Medium;
use crate::Result;

const BUFFER: usize = 256 << 10;

pub struct Spool<M> {
    file: Option<M>,
    /// What is not in the file yet.
    buffer: Vec<u8>,
    written: u64,
}

impl<M> Default for Spool<M> {
    fn default() -> Spool<M> {
        Spool {
            file: None,
            buffer: Vec::new(),
            written: 0,
        }
    }
}

impl<M: Medium> Spool<M> {
    pub fn len(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// `create` makes the file when there is too much for the memory.
    pub fn append(&mut self, bytes: &[u8], create: impl FnOnce() -> Result<M>) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER {
            if self.file.is_none() {
                self.file = Some(create()?);
            }
            if let Some(file) = &mut self.file {
                file.write_at(self.written, &self.buffer)?;
                self.written += self.buffer.len() as u64;
                self.buffer.clear();
            }
        }
        Ok(())
    }

    /// Calls `write` with `count` bytes from an offset on, in pieces.
    pub fn copy_to(
        &self,
        mut from: u64,
        count: u64,
        mut write: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let end = from + count;
        let mut piece = Vec::new();
        while let Some(file) = self.file.as_ref().filter(|_| from < end.min(self.written)) {
            piece.resize(
                (end.min(self.written) - from).min(BUFFER as u64) as usize,
                0,
            );
            file.read_at(from, &mut piece)?;
            write(&piece)?;
            from += piece.len() as u64;
        }
        match from < end {
            true => {
                write(&self.buffer[(from - self.written) as usize..(end - self.written) as usize])
            }
            false => Ok(()),
        }
    }

    pub fn clear(&mut self) {
        *self = Spool::default();
    }
}
