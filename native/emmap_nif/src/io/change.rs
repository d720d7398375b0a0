//! A change of bytes in a map that may grow.

use emmap_core::bounds::checked_end;
use emmap_core::fault::Mark;
use emmap_core::region::{Wait, Written};
use emmap_core::{Errno, Region};
use rustler::sys::ErlNifTerm;

use crate::hot::{Call, Early, INLINE_BYTES};

/// Where bytes are changed, and whether the call may wait.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    pub region: &'a Region,
    pub position: u64,
    pub count: usize,
    pub wait: Wait,
}

impl Change<'_> {
    /// Changes the bytes by `write`, inside the map. `write_past_end` changes them past the end of a map that can grow;
    /// `false`: another call made it longer meanwhile, so that `write` is next again.
    #[inline(always)]
    pub fn make(
        self,
        call: &Call,
        write: impl Fn() -> emmap_core::Result<Written>,
        write_past_end: impl Fn() -> emmap_core::Result<bool>,
    ) -> Result<ErlNifTerm, Early> {
        if self.count > INLINE_BYTES && self.wait == Wait::No {
            return Err(Early::Again);
        }
        let mark = self.region.begin()?;
        loop {
            let written = write();
            if let Ok(Written::Done) = written {
                return wrote(call, self.region, mark, self.count);
            }
            self.not_done(written)?;
            if write_past_end()? {
                return Ok(call.ok());
            }
        }
    }

    /// The bytes were not written. `Ok`: they are to be written past the end of the map.
    #[cold]
    #[inline(never)]
    pub fn not_done(self, written: emmap_core::Result<Written>) -> Result<(), Early> {
        match written? {
            Written::PastEnd if !self.region.grows() => Err(self.past_end().into()),
            Written::PastEnd if self.wait == Wait::Yes => Ok(()),
            _ => Err(Early::Again),
        }
    }

    /// A write past the end of a map that stays as it is.
    fn past_end(self) -> Errno {
        let place = checked_end(self.position, self.count as u64);
        let why = self.region.check_fault().and(place);
        why.err().unwrap_or(Errno::NOSPC)
    }
}

/// `count` bytes were written: `:ok`, unless a page was lost.
#[inline(always)]
pub fn wrote(call: &Call, region: &Region, mark: Mark, count: usize) -> Result<ErlNifTerm, Early> {
    if count <= INLINE_BYTES {
        call.consumed(count);
    }
    region.check_since(mark)?;
    Ok(call.ok())
}
