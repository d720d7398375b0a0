//! The hot NIFs of blocks.

use emmap_core::blocks::{Blocks, Stop};
use emmap_core::queue::calls::AT_ONCE;
use emmap_core::region::Wait;
use emmap_core::Region;
use rustler::sys::ErlNifTerm;
use rustler::types::atom;
use rustler::Encoder;

use super::reasons;
use crate::hot::{hot_nif, Call, Early, Scheduler};
use crate::io::live::live_alone;
use crate::resource::Handle;
use crate::terms::{ArgumentError, Failure};

hot_nif!("blocks_store" / 2 = store, DirtyIo);
hot_nif!("blocks_store_at" / 3 = store_at, DirtyIo);
hot_nif!("blocks_store_many" / 2 = store_many, DirtyIo);
hot_nif!("blocks_read" / 2 = read, DirtyIo);
hot_nif!("blocks_view" / 2 = view, DirtyIo);
hot_nif!("blocks_write" / 3 = write, DirtyIo);
hot_nif!("blocks_free" / 2 = free, DirtyIo);
hot_nif!("blocks_is_used" / 2 = is_used, DirtyIo);
hot_nif!("blocks_count" / 1 = count);
hot_nif!("blocks_read_from" / 4 = read_from, DirtyIo);

/// A live binary of less than this costs more than a copy.
const LEAST_LIVE: u64 = 65;

/// Blocks of argument 0, unless they are closed.
#[inline(always)]
fn open(call: &Call) -> Result<(&Handle, &Blocks, &Region), Early> {
    let handle = call.handle()?;
    let blocks = handle.blocks()?;
    Ok((handle, blocks, handle.region()?))
}

/// What is long is copied where it may take long.
#[inline(always)]
fn check_length<S: Scheduler>(blocks: &Blocks) -> Result<(), Early> {
    match S::WAIT == Wait::No && blocks.geometry().block_size > AT_ONCE {
        true => Err(Early::Again),
        false => Ok(()),
    }
}

#[inline(always)]
fn block(call: &Call, blocks: &Blocks, index: usize) -> Result<*const u8, Early> {
    const WRONG: ArgumentError = ArgumentError("the data must be as long as a block", 0);
    match call.data(index)? {
        (data, length) if length as u64 == blocks.geometry().block_size => Ok(data),
        _ => Err(Early::Raise(&WRONG)),
    }
}

/// An address that no block has is as good as one that none has now.
#[inline(always)]
fn address(call: &Call, index: usize) -> Result<u64, Early> {
    const WRONG: ArgumentError = ArgumentError("the address must be a non-negative integer", 0);
    match call.natural(index)? {
        Some(address) => Ok(address),
        None => match call.int64(index) {
            Some(_) => Err(Early::Raise(&WRONG)),
            None => Ok(u64::MAX),
        },
    }
}

#[cold]
fn failed(call: &Call, stop: Stop) -> Result<ErlNifTerm, Early> {
    match stop {
        Stop::Corrupt(address) => Ok(call.with_env(|env| {
            let reason = (reasons::corrupt(), address);
            (atom::error(), reason).encode(env).as_c_arg()
        })),
        stop => Err(stop.into()),
    }
}

// blocks_store(handle, data) -> address
#[inline(always)]
fn store<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let (_, blocks, region) = open(call)?;
    let data = block(call, blocks, 1)?;
    check_length::<S>(blocks)?;
    // SAFETY: a binary argument of a block's size, alive until the call ends.
    let address = unsafe { blocks.store(region, S::WAIT, data)? };
    call.consumed(blocks.geometry().block_size as usize);
    Ok(call.uint64(address))
}

// blocks_store_at(handle, address, data) -> :ok | {:error, :eexist}
fn store_at<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let (_, blocks, region) = open(call)?;
    let address = address(call, 1)?;
    let data = block(call, blocks, 2)?;
    check_length::<S>(blocks)?;
    // SAFETY: a binary argument of a block's size, alive until the call ends.
    unsafe { blocks.store_at(region, S::WAIT, address, data)? };
    call.consumed(blocks.geometry().block_size as usize);
    Ok(call.ok())
}

// blocks_store_many(handle, list) -> {[address], :ok | {:error, reason}}: with :ok, call again for the rest
fn store_many<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    const WRONG: ArgumentError = ArgumentError("the data must be as long as a block", 0);
    let (_, blocks, region) = open(call)?;
    check_length::<S>(blocks)?;
    let size = blocks.geometry().block_size;
    let most = match S::WAIT {
        Wait::No => (AT_ONCE / size).clamp(1, 500),
        Wait::Yes => ((1 << 20) / size).clamp(1, 1000),
    };
    let (mut data, mut right) = (Vec::with_capacity(64), true);
    call.each_binary(1, |at, length| {
        right &= length as u64 == size;
        data.push(at);
        right && (data.len() as u64) < most
    })?;
    if !right {
        return Err(Early::Raise(&WRONG));
    }
    let mut addresses = Vec::with_capacity(data.len());
    // SAFETY: binaries of an argument of this call, alive until it ends, of a block's size.
    let stored = unsafe { blocks.store_many(region, S::WAIT, &data, |at| addresses.push(at)) };
    call.consumed_items(addresses.len(), addresses.len() * size as usize);
    let result = match stored {
        Ok(()) => call.ok(),
        Err(Stop::Busy) if !addresses.is_empty() => call.ok(),
        Err(Stop::Posix(error)) if !addresses.is_empty() && error.is_wait() => call.ok(),
        Err(Stop::Busy) => return Err(Early::Again),
        Err(Stop::Posix(error)) if error.is_wait() => return Err(error.into()),
        Err(Stop::Posix(error)) => {
            let failure = Failure::from(error);
            call.with_env(|env| failure.encode(env).as_c_arg())
        }
        Err(stop) => return Err(stop.into()),
    };
    let addresses: Vec<_> = addresses.into_iter().map(|at| call.uint64(at)).collect();
    Ok(call.pair(call.list(&addresses), result))
}

// blocks_read(handle, address) -> data | {:error, :enoent | {:corrupt, address}}
#[inline(always)]
fn read<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let (_, blocks, region) = open(call)?;
    let address = address(call, 1)?;
    check_length::<S>(blocks)?;
    copy::<S>(call, blocks, region, address)
}

#[inline(always)]
fn copy<S: Scheduler>(
    call: &Call,
    blocks: &Blocks,
    region: &Region,
    address: u64,
) -> Result<ErlNifTerm, Early> {
    let size = blocks.geometry().block_size as usize;
    let (out, term) = call.new_binary(size);
    // SAFETY: the binary has room for a block, and is part of no map.
    match unsafe { blocks.read(region, S::WAIT, address, out) } {
        Ok(()) => {
            call.consumed(size);
            Ok(term)
        }
        Err(stop) => failed(call, stop),
    }
}

// blocks_view(handle, address): as blocks_read, as a live binary whose checksum is not compared. Small blocks, and those
// that a sync is to move, are copied.
fn view<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let (handle, blocks, region) = open(call)?;
    let address = address(call, 1)?;
    let size = blocks.geometry().block_size;
    let place = match size >= LEAST_LIVE {
        true => blocks.locate(region, S::WAIT, address)?,
        false => None,
    };
    match place.and_then(|place| region.locate(place, size as usize)) {
        Some((start, count)) => live_alone(call, handle, region, start, count),
        None => {
            check_length::<S>(blocks)?;
            copy::<S>(call, blocks, region, address)
        }
    }
}

// blocks_write(handle, address, data) -> :ok | {:error, :enoent}
fn write<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let (_, blocks, region) = open(call)?;
    let address = address(call, 1)?;
    let data = block(call, blocks, 2)?;
    check_length::<S>(blocks)?;
    // SAFETY: a binary argument of a block's size, alive until the call ends.
    unsafe { blocks.write(region, S::WAIT, address, data)? };
    call.consumed(blocks.geometry().block_size as usize);
    Ok(call.ok())
}

// blocks_free(handle, address) -> :ok | {:error, :enoent}
#[inline(always)]
fn free<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let (_, blocks, region) = open(call)?;
    blocks.free(region, S::WAIT, address(call, 1)?)?;
    Ok(call.ok())
}

// blocks_is_used(handle, address) -> boolean
fn is_used<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let (_, blocks, region) = open(call)?;
    let used = blocks.is_used(region, S::WAIT, address(call, 1)?)?;
    Ok(if used { atom::true_() } else { atom::false_() }.as_c_arg())
}

// blocks_count(handle) -> count
fn count(call: &Call) -> Result<ErlNifTerm, Early> {
    let (_, blocks, region) = open(call)?;
    Ok(call.uint64(blocks.count(region)?))
}

// blocks_read_from(handle, from, end, most) -> {[{address, data | {:error, {:corrupt, address}}}], next address}
fn read_from<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let (_, blocks, region) = open(call)?;
    let (mut from, end) = (address(call, 1)?, address(call, 2)?);
    check_length::<S>(blocks)?;
    let size = blocks.geometry().block_size;
    let most = (AT_ONCE / size).clamp(1, 500).min(address(call, 3)?.max(1));
    let mut items = Vec::with_capacity(64);
    while (items.len() as u64) < most {
        let Some(at) = blocks.next_used(region, S::WAIT, from, end)? else {
            from = end;
            break;
        };
        from = at + 1;
        match copy::<S>(call, blocks, region, at) {
            Ok(item) => items.push(call.pair(call.uint64(at), item)),
            // Freed in the meantime.
            Err(Early::Reason(_)) => continue,
            Err(Early::Again) if !items.is_empty() => {
                from = at;
                break;
            }
            Err(early) => return Err(early),
        }
    }
    Ok(call.pair(call.list(&items), call.uint64(from)))
}
