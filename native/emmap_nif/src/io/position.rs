//! The cursor, and the size of the map.

use emmap_core::cursor::Whence;
use emmap_core::Errno;
use rustler::sys::ErlNifTerm;

use crate::hot::{hot_nif, Call, Early};

hot_nif!("position" / 3 = position);
hot_nif!("size" / 1 = size);

// position(handle, whence, offset): whence 0 the beginning, 1 the cursor, 2 the end.
fn position(call: &Call) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = handle.region()?;
    region.check_fault()?;
    let whence = match call.int64(1) {
        Some(0) => Whence::Start,
        Some(1) => Whence::Current,
        _ => Whence::End,
    };
    let offset = call.int64(2).ok_or(Errno::INVAL)?;
    let position = handle.cursor.seek(whence, offset, region.len())?;
    Ok(call.ok_with(call.uint64(position)))
}

// The size of the map, whatever its file has.
fn size(call: &Call) -> Result<ErlNifTerm, Early> {
    let region = call.handle()?.region()?;
    Ok(call.ok_with(call.uint64(region.len() as u64)))
}
