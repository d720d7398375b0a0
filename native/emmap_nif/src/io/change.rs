//! A change of bytes in a map that may grow.

use std::ffi::CStr;

use emmap_core::bounds::checked_end;
use emmap_core::fault::Mark;
use emmap_core::region::{Source, Wait, Written};
use emmap_core::{Errno, Region};
use rustler::sys::ErlNifTerm;

use crate::hot::{Call, Early, RawNif, INLINE_BYTES};

/// A change of `count` bytes at `position`. What may wait or takes long goes on in the NIF `again`, under that name.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    call: Call,
    region: &'a Region,
    mark: Mark,
    position: u64,
    count: usize,
    wait: Wait,
    again: (&'static CStr, RawNif),
}

impl<'a> Change<'a> {
    /// Before it is tried.
    #[inline(always)]
    pub fn begin(
        call: &Call,
        region: &'a Region,
        position: u64,
        count: usize,
        wait: Wait,
        again: (&'static CStr, RawNif),
    ) -> Result<Change<'a>, Early> {
        if count > INLINE_BYTES && wait == Wait::No {
            return Err(call.reschedule(again.0, again.1));
        }
        let mark = region.begin().map_err(|error| call.error(error))?;
        Ok(Change {
            call: *call,
            region,
            mark,
            position,
            count,
            wait,
            again,
        })
    }

    /// The bytes were written: `:ok`, unless a page was lost.
    #[inline(always)]
    pub fn done(&self) -> Result<ErlNifTerm, Early> {
        wrote(&self.call, self.region, self.mark, self.count)
    }

    /// The bytes were not written. Returns whether they may be written past the end of a map that can grow.
    #[cold]
    #[inline(never)]
    pub fn not_done(self, written: Result<Written, Errno>) -> Result<(), Early> {
        let Change { call, region, .. } = self;
        match written.map_err(|error| call.error(error))? {
            Written::PastEnd if !region.grows() => {
                Err(past_end(&call, region, self.position, self.count))
            }
            Written::PastEnd if self.wait == Wait::Yes => Ok(()),
            _ => Err(call.reschedule(self.again.0, self.again.1)),
        }
    }

    /// The bytes were not written: writes them past the end of a map that can grow. `false`: another call made it longer
    /// meanwhile, so write them as before.
    ///
    /// # Safety
    /// As [`Region::write_past_end`].
    #[cold]
    #[inline(never)]
    pub unsafe fn grow(
        self,
        written: Result<Written, Errno>,
        source: Source,
    ) -> Result<bool, Early> {
        self.not_done(written)?;
        // SAFETY: the caller's promise.
        let grown = unsafe {
            self.region
                .write_past_end(self.position, source, self.count, || true)
        };
        grown.map_err(|error| self.call.error(error))
    }
}

#[inline(always)]
pub fn wrote(call: &Call, region: &Region, mark: Mark, count: usize) -> Result<ErlNifTerm, Early> {
    if count <= INLINE_BYTES {
        call.consumed(count);
    }
    region
        .check_since(mark)
        .map(|()| call.ok())
        .map_err(|error| call.error(error))
}

/// A write past the end of a map that stays as it is.
#[cold]
#[inline(never)]
pub fn past_end(call: &Call, region: &Region, position: u64, count: usize) -> Early {
    let place = checked_end(position, count as u64);
    let why = region
        .check_fault()
        .and(place)
        .err()
        .unwrap_or(Errno::NOSPC);
    call.error(why)
}
