//! What a program calls.

use super::layout::HEADER;
use super::masks::{Mapped, Storage};
use super::{turn, Result, Stop};
use crate::region::{Wait, Written};
use crate::store::shared;
use crate::{Errno, Region};

/// How often a call is done again while the map becomes shorter, or longer.
const TIMES: usize = 64;

/// Runs `act` on the storage in a map while no call of this program changes it.
pub fn reading<R>(region: &Region, wait: Wait, act: impl Fn(&Mapped) -> Result<R>) -> Result<R> {
    for _ in 0..TIMES {
        let shrinks = region.shrinks();
        let turn = region.storage_turn();
        let _turn = turn::to_read(turn, wait)?;
        let result = region.reading(|| Ok::<_, Errno>(on_storage(region, &act)))?;
        // Else what was read may be zeros.
        if region.shrinks() == shrinks {
            return result;
        }
    }
    Err(Errno::BUSY.into())
}

fn on_storage<R>(region: &Region, act: impl Fn(&Mapped) -> Result<R>) -> Result<R> {
    act(&Storage::of(&shared::Mapped::new(region))?)
}

/// Stores a block, and returns its address.
///
/// # Safety
/// `data` must have `count` readable bytes; they may are in this map.
pub unsafe fn store(region: &Region, wait: Wait, data: *const u8, count: usize) -> Result<u64> {
    changing(region, wait, |storage| {
        storage.store(count as u64, |at| {
            // SAFETY: the caller's promise.
            match unsafe { region.copy_in(at, data, count, wait, || true) }? {
                Written::Done => Ok(()),
                Written::PastEnd => Err(Stop::Grow(at + count as u64)),
                Written::Busy | Written::Refused => Err(Stop::Busy),
            }
        })
    })
}

/// As [`reading`], for `act` that changes the storage. It runs again after the map was made longer, as it asked for.
pub fn changing<R>(region: &Region, wait: Wait, act: impl Fn(&Mapped) -> Result<R>) -> Result<R> {
    with_room(region, wait, || on_storage(region, &act))
}

/// Makes an empty storage in a map, which becomes longer if it must. What the map had is lost.
pub fn init(region: &Region, block_size: u32) -> Result<()> {
    let init = || on_storage(region, |storage| storage.clear(block_size));
    with_room(region, Wait::Yes, || match init() {
        Err(Stop::Absent) => Err(Stop::Grow(HEADER)),
        result => result,
    })
}

/// As [`changing`], for a change that takes blocks for lost if the map ends before them: so the map must have all of its
/// file (EINVAL).
pub fn repairing<R>(region: &Region, act: impl Fn(&Mapped) -> Result<R>) -> Result<R> {
    with_room(region, Wait::Yes, || {
        check_reaches_end(region)?;
        on_storage(region, &act)
    })
}

/// EINVAL where the file goes on behind the end of the map: the storage may, too.
fn check_reaches_end(region: &Region) -> crate::Result<()> {
    let file = match region.clone_file() {
        Ok(file) => file,
        // Memory without a file.
        Err(Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error),
    };
    let end = region
        .describe(false)
        .offset
        .saturating_add(region.len() as u64);
    match file.metadata()?.len() > end {
        true => Err(Errno::INVAL),
        false => Ok(()),
    }
}

fn with_room<R>(region: &Region, wait: Wait, act: impl Fn() -> Result<R>) -> Result<R> {
    let _slow = match wait {
        Wait::No if region.writable() => None,
        Wait::No => return Err(Errno::ACCES.into()),
        Wait::Yes => Some(region.slow_write()?),
    };
    let _turn = turn::to_change(region.storage_turn(), wait)?;
    for _ in 0..TIMES {
        match region.writing(|| Ok::<_, Errno>(act()))? {
            Err(Stop::Grow(_)) if wait == Wait::No => return Err(Stop::Busy),
            Err(Stop::Grow(to)) => grow(region, to)?,
            result => return result,
        }
    }
    Err(Errno::BUSY.into())
}

/// Twice as long, if that is possible, so that a map seldom grows.
fn grow(region: &Region, to: u64) -> Result<()> {
    match region.double() {
        Ok(len) if len >= to => Ok(()),
        _ => Ok(region.resize(to)?),
    }
}
