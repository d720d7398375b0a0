//! All counters in the order in which they were added.

use super::entry::{self, Entry, Kind, MOST_NAME};
use super::layout::{self, Geometry, ENTRIES, LINE};
use crate::store::Shared;
use crate::{Errno, Result};

/// Calls `act` with the place and the name of up to `most` counters, from the entry at `from` on, and returns where the next
/// ones are; `None` after the last. EIO: the file is damaged. ERANGE: the map is too short.
///
/// `from` is [`ENTRIES`] or what was returned. No lock is needed, because entries before the end do not change.
pub fn walk<S: Shared>(
    shared: &S,
    geometry: &Geometry,
    from: u64,
    most: usize,
    mut act: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<Option<u64>> {
    let last = shared.load(layout::LAST)?;
    if last > shared.len() {
        return Err(Errno(libc::ERANGE));
    }
    if from < ENTRIES || !from.is_multiple_of(LINE) {
        return Err(Errno::INVAL);
    }
    let (mut at, mut count) = (from, 0);
    let mut buffer = [0; MOST_NAME];
    while at < last {
        if count == most {
            return Ok(Some(at));
        }
        let entry = Entry::read(shared, at)?.ok_or(Errno::IO)?;
        let bytes = entry.bytes(geometry);
        if bytes > last - at {
            return Err(Errno::IO);
        }
        if entry.kind == Kind::Counter {
            let name = entry::read_name(shared, geometry, at, entry.name, &mut buffer)?;
            act(at, name)?;
            count += 1;
        }
        at += bytes;
    }
    Ok(None)
}
