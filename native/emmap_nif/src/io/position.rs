//! The cursor, and the size of the map.

use emmap_core::cursor::Whence;
use emmap_core::Errno;
use rustler::sys::ErlNifTerm;

use crate::hot::{either, hot_nif, Call, Early};
use crate::terms::Failure;

hot_nif!("position" / 3 = position);
hot_nif!("size" / 1 = size);

// position(handle, whence, offset): whence 0 the beginning, 1 the cursor, 2 the end.

fn position(call: &Call) -> ErlNifTerm {
    either(position_now(call))
}

// The size of the map, whatever its file has.
fn size(call: &Call) -> ErlNifTerm {
    let found = call.handle().and_then(|handle| {
        let region = call.region(handle)?;
        Ok(call.ok_with(call.uint64(region.len() as u64)))
    });
    either(found)
}

fn position_now(call: &Call) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    let region = call.region(handle)?;
    region.check_fault().map_err(|error| call.error(error))?;
    let whence = match call.int64(1) {
        Some(0) => Whence::Start,
        Some(1) => Whence::Current,
        _ => Whence::End,
    };
    let moved = match call.int64(2) {
        Some(offset) => handle.cursor.seek(whence, offset, region.len()),
        None => Err(Errno::INVAL),
    };
    match moved {
        Ok(position) => Ok(call.ok_with(call.uint64(position))),
        Err(error) => Err(call.error(Failure::from(error))),
    }
}
