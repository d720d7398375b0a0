//! Where the bytes of a structure are: in a file, in its map, or in tests on a medium that crashes.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use crate::region::{Wait, Written};
use crate::{os, Errno, Region, Result};

#[allow(clippy::len_without_is_empty)] // a size, not a collection
pub trait Medium {
    fn len(&self) -> Result<u64>;

    /// Fills `out`, which is inside the file.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()>;

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<()>;

    /// Extends the file to at least `to` bytes, with zeros, and allocates its blocks from
    /// `allocated` on.
    fn extend(&mut self, to: u64, allocated: u64) -> Result<()>;

    /// Returns once everything that was written before is on the disk.
    fn sync(&mut self) -> Result<()>;

    /// Gives a new file its name, durably. EEXIST: another file already has the name. A file that already has its
    /// name keeps it.
    fn publish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Reads as much of `out` as the file contains, and returns how much that is.
pub fn read_up_to(medium: &impl Medium, offset: u64, out: &mut [u8]) -> Result<usize> {
    let got = medium.len()?.saturating_sub(offset).min(out.len() as u64) as usize;
    if got > 0 {
        medium.read_at(offset, &mut out[..got])?;
    }
    Ok(got)
}

/// Writes zeros to `from .. to`.
pub fn write_zeros(medium: &mut impl Medium, from: u64, to: u64) -> Result<()> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut at = from;
    while at < to {
        let count = (to - at).min(ZEROS.len() as u64);
        medium.write_at(at, &ZEROS[..count as usize])?;
        at += count;
    }
    Ok(())
}

impl Medium for File {
    fn len(&self) -> Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        Ok(self.read_exact_at(out, offset)?)
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        os::without_sigxfsz(|| Ok(self.write_all_at(data, offset)?))
    }

    fn extend(&mut self, to: u64, allocated: u64) -> Result<()> {
        let size = Medium::len(self)?;
        if size >= to {
            return Ok(());
        }
        let answer = os::without_sigxfsz(|| {
            // The range in between stays a hole until it is written.
            let from = size.max(allocated).min(to);
            os::extend(self.as_fd(), from, to, from == to)
        });
        // The caller holds the lock of the file, or no other program has the file yet.
        if answer.is_err() {
            let _ = os::set_size(self.as_fd(), size);
        }
        answer
    }

    fn sync(&mut self) -> Result<()> {
        os::sync_all(self.as_fd())
    }
}

/// The map of a file: for an algorithm that works on the map, and on the simulated one in tests.
/// Each method fails if a page was lost.
pub struct Mapped<'a>(pub &'a Region);

impl Medium for Mapped<'_> {
    fn len(&self) -> Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.0.check_fault()?;
        self.0.reading(|| {
            let (start, count) = match self.0.locate(offset, out.len()) {
                Some(place) if place.1 == out.len() => place,
                None if out.is_empty() => return Ok(()),
                _ => return Err(Errno::INVAL),
            };
            // SAFETY: `out` has `count` bytes; a reference never is in a map (3: Raw in `region.rs`).
            unsafe { self.0.copy_out(start, count, out.as_mut_ptr(), Wait::Yes) };
            Ok(())
        })
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.0.writing(|| {
            let (at, count) = (data.as_ptr(), data.len());
            // SAFETY: `data` has `count` bytes.
            match unsafe { self.0.copy_in(offset, at, count, Wait::Yes, || true)? } {
                Written::Done => Ok(()),
                Written::PastEnd | Written::Busy | Written::Refused => Err(Errno::INVAL),
            }
        })
    }

    /// The whole new part is allocated, because accessing a hole of a mapped file faults if the disk is full.
    fn extend(&mut self, to: u64, _allocated: u64) -> Result<()> {
        self.0.grow(to)
    }

    fn sync(&mut self) -> Result<()> {
        self.0.sync(None, true)
    }
}
