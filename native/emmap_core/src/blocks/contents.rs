//! The bytes of a block and their checksum, which is stored separately so that blocks stay aligned for reading them in place.

use std::mem::MaybeUninit;

use super::layout::{group, Place};
use super::{Locked, Result};
use crate::source;
use crate::store::{checksum, Shared};

/// How many bytes are copied at once.
const PIECE: usize = 4096;

/// The offset of a checksum. A word contains those of two blocks.
#[inline(always)]
fn checksum_at(place: &Place) -> (u64, u32) {
    let word = place.start + group::CHECKSUMS + place.index / 2 * 8;
    (word, (place.index % 2 * 32) as u32)
}

/// The checksum of a block, as it is stored.
#[inline(always)]
pub fn stored_checksum<S: Shared>(shared: &S, place: &Place) -> crate::Result<u32> {
    let (at, shift) = checksum_at(place);
    Ok((shared.load(at)? >> shift) as u32)
}

/// Writes bytes to `at`, and returns their checksum, begun with `crc`.
///
/// # Safety
/// `data` must have `count` readable bytes.
#[inline(always)]
pub unsafe fn write<S: Shared>(
    shared: &S,
    at: u64,
    data: *const u8,
    count: usize,
    mut crc: u32,
) -> crate::Result<u32> {
    // Through a buffer: the bytes may be a live binary that changes, and the checksum must match the bytes that
    // are written.
    let mut piece = MaybeUninit::<[u8; PIECE]>::uninit();
    let start = piece.as_mut_ptr().cast::<u8>();
    let mut done = 0;
    while done < count {
        let some = PIECE.min(count - done);
        // SAFETY: `piece` has room for `some` bytes, which are then its own; `data` by the caller's promise.
        let bytes = unsafe {
            source::copy_intact(data.add(done), start, some)?;
            std::slice::from_raw_parts(start, some)
        };
        // SAFETY: a slice of our own.
        crc = unsafe { shared.sum_in(at + done as u64, bytes.as_ptr(), some, crc)? };
        done += some;
    }
    Ok(crc)
}

/// Copies `count` bytes to `out`, and returns their checksum, begun with `crc`.
///
/// # Safety
/// `out` must have room for `count` bytes, outside of any map.
#[inline(always)]
pub unsafe fn read<S: Shared>(
    shared: &S,
    at: u64,
    out: *mut u8,
    count: usize,
    crc: u32,
) -> crate::Result<u32> {
    // SAFETY: the caller's promise.
    unsafe { shared.sum_out(at, out, count, crc) }
}

/// The checksum of bytes in the file, begun with `crc`; `each` is called with the bytes.
pub fn walk<S: Shared>(
    shared: &S,
    at: u64,
    count: u64,
    mut crc: u32,
    mut each: impl FnMut(u64, &[u8]) -> crate::Result<()>,
) -> crate::Result<u32> {
    let mut piece = [0u8; PIECE];
    let mut done = 0;
    while done < count {
        let some = PIECE.min((count - done) as usize);
        let bytes = &mut piece[..some];
        shared.read(at + done, bytes)?;
        crc = checksum::append(crc, bytes);
        each(done, bytes)?;
        done += some as u64;
    }
    Ok(crc)
}

impl<S: Shared> Locked<'_, S> {
    #[inline(always)]
    pub(super) fn put_checksum(&self, place: &Place, crc: u32) -> crate::Result<()> {
        let (at, shift) = checksum_at(place);
        let others = self.load(at)? & !(0xffff_ffff << shift);
        self.shared.store(at, others | u64::from(crc) << shift)
    }

    /// Writes a block that is not in use yet.
    ///
    /// # Safety
    /// `data` must have as many readable bytes as a block has.
    #[inline(always)]
    pub(super) unsafe fn put(&self, address: u64, place: &Place, data: *const u8) -> Result<()> {
        let geometry = self.geometry;
        let (at, seed) = (geometry.block_at(place), geometry.seed(address));
        // SAFETY: the caller's promise.
        let crc = unsafe { write(self.shared, at, data, geometry.block_size as usize, seed)? };
        Ok(self.put_checksum(place, crc)?)
    }
}
