//! The hot NIFs of queues.

use emmap_core::queue::calls::AT_ONCE;
use emmap_core::queue::record;
use emmap_core::queue::{layout, Claimed, Found, Limits, Pushed, Receipt, Room, Stop, Taken};
use emmap_core::region::Wait;
use rustler::sys::ErlNifTerm;
use rustler::types::atom;
use rustler::{Encoder, ResourceArc};

use super::owners::Owners;
use super::payload::{lend, Copied, Live, Payload};
use super::{reasons, OpenQueue};
use crate::hot::{hot_nif, Call, Early, Scheduler};
use crate::terms::ArgumentError;

hot_nif!("queue_push" / 3 = push, DirtyIo);
hot_nif!("queue_push_as" / 7 = push_as, DirtyIo);
hot_nif!("queue_pop" / 2 = pop, DirtyIo);
hot_nif!("queue_peek" / 2 = peek, DirtyIo);
hot_nif!("queue_peek_last" / 2 = peek_last, DirtyIo);
hot_nif!("queue_look" / 3 = look, DirtyIo);
hot_nif!("queue_check_out" / 3 = check_out, DirtyIo);
hot_nif!("queue_acknowledge" / 5 = acknowledge, DirtyIo);
hot_nif!("queue_release" / 5 = release, DirtyIo);
hot_nif!("queue_lengths" / 2 = lengths);
hot_nif!("queue_bytes" / 1 = bytes, DirtyIo);

/// The queue of argument 0, unless it is closed.
#[inline(always)]
pub(super) fn open(call: &Call) -> Result<&ResourceArc<OpenQueue>, Early> {
    let handle = call.handle()?;
    let queue = handle.queue()?;
    handle.region()?;
    Ok(queue)
}

#[inline(always)]
pub(super) fn cursor(call: &Call, index: usize) -> Result<usize, Early> {
    const WRONG: ArgumentError = ArgumentError("not a cursor of a queue", 0);
    match call.int64(index) {
        Some(cursor) if (0..layout::CURSORS as i64).contains(&cursor) => Ok(cursor as usize),
        _ => Err(Early::Raise(&WRONG)),
    }
}

#[inline(always)]
pub(super) fn flags(call: &Call, index: usize) -> u32 {
    match call.int64(index) {
        Some(1) => record::TERM,
        _ => 0,
    }
}

fn pushed(call: &Call, pushed: Pushed) -> ErlNifTerm {
    match pushed {
        Pushed::At(_) => call.ok(),
        Pushed::Duplicate => reasons::duplicate().as_c_arg(),
    }
}

// queue_push(handle, payload, 1 for a term) -> :ok
#[inline(always)]
fn push<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let queue = open(call)?;
    let (payload, length) = call.data(1)?;
    if S::WAIT == Wait::No && length as u64 > AT_ONCE {
        return Err(Early::Again);
    }
    let (part, item) = (&queue.part, (flags(call, 2), payload, length));
    // SAFETY: the payload is a binary argument of this call, alive until it ends.
    unsafe {
        part.queue
            .push(&part.region, S::WAIT, item, &Limits::default())?
    };
    call.consumed(length);
    Ok(call.ok())
}

// queue_push_as(handle, payload, 1 for a term, most bytes or -1, 1 to drop the oldest, producer or <<>>, number)
// -> :ok | :duplicate | {:error, :full}
fn push_as<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    const WRONG: ArgumentError = ArgumentError("not the identity of a producer", 0);
    let queue = open(call)?;
    let (payload, length) = call.data(1)?;
    if S::WAIT == Wait::No && length as u64 > AT_ONCE {
        return Err(Early::Again);
    }
    let (at, count) = call.data(5)?;
    let identity = match (count, call.int64(6)) {
        (0, _) => None,
        (16, Some(number)) if number >= 0 => {
            let mut producer = [0; 16];
            // SAFETY: a binary argument of 16 bytes, alive until the call ends.
            unsafe { std::ptr::copy_nonoverlapping(at, producer.as_mut_ptr(), 16) };
            Some((producer, number as u64))
        }
        _ => return Err(Early::Raise(&WRONG)),
    };
    let limits = Limits {
        most_bytes: call.int64(3).and_then(|most| u64::try_from(most).ok()),
        drop_oldest: call.int64(4) == Some(1),
        identity,
    };
    let (part, item) = (&queue.part, (flags(call, 2), payload, length));
    // SAFETY: as above.
    let done = unsafe { part.queue.push(&part.region, S::WAIT, item, &limits)? };
    call.consumed(length);
    Ok(pushed(call, done))
}

/// What was taken, `:empty`, or `{:error, {:corrupt, position}}`.
#[inline(always)]
fn item<'a>(
    call: &Call,
    payload: &mut impl Payload<'a>,
    taken: Result<Option<Taken>, Stop>,
) -> Result<ErlNifTerm, Early> {
    match taken {
        Ok(Some(taken)) => Ok(payload.item(&taken)),
        Ok(None) => Ok(reasons::empty().as_c_arg()),
        Err(stop) => failed(call, stop),
    }
}

#[cold]
pub(super) fn failed(call: &Call, stop: Stop) -> Result<ErlNifTerm, Early> {
    match stop {
        Stop::Corrupt(position) => Ok(call.with_env(|env| {
            let reason = (reasons::corrupt(), position);
            (atom::error(), reason).encode(env).as_c_arg()
        })),
        stop => Err(stop.into()),
    }
}

// queue_pop(handle, cursor) -> payload | {payload of a term} | :empty | {:error, {:corrupt, position}}
#[inline(always)]
fn pop<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let queue = open(call)?;
    match queue.direct {
        false => pop_as::<S, Copied>(call, queue),
        true => pop_live::<S>(call, queue),
    }
}

#[cold]
#[inline(never)]
fn pop_live<S: Scheduler>(call: &Call, queue: &OpenQueue) -> Result<ErlNifTerm, Early> {
    lend(call, queue)?;
    pop_as::<S, Live>(call, queue)
}

#[inline(always)]
fn pop_as<'a, S: Scheduler, P: Payload<'a>>(
    call: &'a Call,
    queue: &'a OpenQueue,
) -> Result<ErlNifTerm, Early> {
    let (part, mut payload) = (&queue.part, P::new(call, &queue.part));
    let cursor = cursor(call, 1)?;
    if let Some(position) = queue.untold.take(cursor) {
        return failed(call, Stop::Corrupt(position));
    }
    let room = |found: &Found| payload.held_room(found);
    // SAFETY: the binary has room for the payload, and is part of no map.
    let taken = unsafe { part.queue.pop(&part.region, S::WAIT, cursor, room) };
    item(call, &mut payload, taken)
}

type Locked<'a> = emmap_core::queue::Locked<'a, emmap_core::store::shared::Mapped<'a>>;

/// Finds an item with `find`, which is given the room for it, under the lock; large ones where that may take long.
fn find<S: Scheduler>(
    call: &Call,
    find: impl Fn(&Locked, &mut dyn FnMut(&Found) -> Option<Room>) -> Result<Option<Taken>, Stop>,
) -> Result<ErlNifTerm, Early> {
    let queue = open(call)?;
    match queue.direct {
        false => find_as::<S, Copied>(call, queue, find),
        true => {
            lend(call, queue)?;
            find_as::<S, Live>(call, queue, find)
        }
    }
}

fn find_as<'a, S: Scheduler, P: Payload<'a>>(
    call: &'a Call,
    queue: &'a OpenQueue,
    find: impl Fn(&Locked, &mut dyn FnMut(&Found) -> Option<Room>) -> Result<Option<Taken>, Stop>,
) -> Result<ErlNifTerm, Early> {
    let (part, mut payload) = (&queue.part, P::new(call, &queue.part));
    let mut large = false;
    let taken = part.queue.with(&part.region, S::WAIT, |locked| {
        find(locked, &mut |found| {
            large = S::WAIT == Wait::No && found.head.length > AT_ONCE;
            (!large).then(|| payload.held_room(found))
        })
    });
    match large {
        true => Err(Early::Again),
        false => item(call, &mut payload, taken),
    }
}

// queue_peek(handle, cursor): as queue_pop, and takes nothing
fn peek<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let cursor = cursor(call, 1)?;
    // SAFETY: the binary has room for the payload, and is part of no map.
    find::<S>(call, |locked, room| unsafe { locked.peek(cursor, room) })
}

// queue_peek_last(handle, cursor)
fn peek_last<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let cursor = cursor(call, 1)?;
    // SAFETY: as above.
    find::<S>(call, |locked, room| unsafe {
        locked.peek_last(cursor, room)
    })
}

// queue_look(handle, cursor, position) -> {item, sequence, extension words…, next position} | :empty
fn look<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let queue = open(call)?;
    match queue.direct {
        false => look_as::<S, Copied>(call, queue),
        true => {
            lend(call, queue)?;
            look_as::<S, Live>(call, queue)
        }
    }
}

fn look_as<'a, S: Scheduler, P: Payload<'a>>(
    call: &'a Call,
    queue: &'a OpenQueue,
) -> Result<ErlNifTerm, Early> {
    let (part, mut payload) = (&queue.part, P::new(call, &queue.part));
    let (cursor, from) = (cursor(call, 1)?, call.position(2)?);
    let mut large = false;
    let found = part.queue.with(&part.region, S::WAIT, |locked| {
        // SAFETY: as above.
        unsafe {
            locked.look(cursor, from, |found| {
                large = S::WAIT == Wait::No && found.head.length > AT_ONCE;
                (!large).then(|| payload.held_room(found))
            })
        }
    });
    if large {
        return Err(Early::Again);
    }
    match found {
        Ok(None) => Ok(reasons::empty().as_c_arg()),
        Ok(Some((taken, next))) => {
            let dead = taken.flags & record::DEAD_LETTER != 0;
            let [sequence, attempts] = match dead {
                true => [taken.extension.word(0), taken.extension.word(1)],
                false => [taken.sequence, 0],
            };
            Ok(call.tuple(&[
                payload.item(&taken),
                call.uint64(sequence),
                call.uint64(attempts),
                call.uint64(next),
            ]))
        }
        Err(stop) => failed(call, stop),
    }
}

/// How many deliveries an item may have; 0 is any number.
pub(super) fn most_attempts(call: &Call, index: usize) -> Option<u16> {
    match call.int64(index) {
        Some(most @ 1..) => Some(u16::try_from(most).unwrap_or(u16::MAX)),
        _ => None,
    }
}

// queue_check_out(handle, cursor, most attempts or 0) -> {item, sequence, attempts, claim} | :empty
#[inline(always)]
fn check_out<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let queue = open(call)?;
    match queue.direct {
        false => check_out_as::<S, Copied>(call, queue),
        true => check_out_live::<S>(call, queue),
    }
}

#[cold]
#[inline(never)]
fn check_out_live<S: Scheduler>(
    call: &Call,
    queue: &ResourceArc<OpenQueue>,
) -> Result<ErlNifTerm, Early> {
    lend(call, queue)?;
    check_out_as::<S, Live>(call, queue)
}

#[inline(always)]
fn check_out_as<'a, S: Scheduler, P: Payload<'a>>(
    call: &'a Call,
    queue: &'a ResourceArc<OpenQueue>,
) -> Result<ErlNifTerm, Early> {
    let part = &queue.part;
    let cursor = cursor(call, 1)?;
    if let Some(position) = queue.untold.take(cursor) {
        return failed(call, Stop::Corrupt(position));
    }
    let most = most_attempts(call, 2);
    let owner = Owners::owner(call, queue);
    loop {
        let (mut large, mut payload) = (false, P::new(call, part));
        let wants = |found: &Found| {
            large = S::WAIT == Wait::No && found.head.length > AT_ONCE;
            if !large {
                payload.hold(found);
            }
            !large
        };
        let claimed = part
            .queue
            .check_out_if(&part.region, S::WAIT, cursor, (owner, most), wants);
        let claimed = match claimed {
            Ok(Some(claimed)) => claimed,
            Ok(None) if large => return Err(Early::Again),
            Ok(None) => return Ok(reasons::empty().as_c_arg()),
            Err(stop) => return failed(call, stop),
        };
        let room = payload.room(&claimed.found.head);
        let (queue, region) = (&part.queue, &part.region);
        // SAFETY: the binary has room for the payload, and is part of no map.
        match unsafe { queue.deliver_claimed(region, cursor, &claimed, room) } {
            Ok(Some(taken)) => return Ok(receipt(call, &claimed, payload.item(&taken))),
            // Dropped in the meantime to make room.
            Ok(None) => continue,
            Err(stop) => return failed(call, stop),
        }
    }
}

#[inline(always)]
pub(super) fn receipt(call: &Call, claimed: &Claimed, item: ErlNifTerm) -> ErlNifTerm {
    let receipt = &claimed.receipt;
    call.tuple(&[
        item,
        call.uint64(receipt.sequence),
        call.uint64(receipt.attempts.into()),
        call.uint64(receipt.claim.into()),
    ])
}

/// The receipt of arguments 2 to 4: sequence, attempts, claim.
#[inline(always)]
fn receipt_argument(call: &Call) -> Result<Receipt, Early> {
    const WRONG: ArgumentError = ArgumentError("not a receipt of a queue", 0);
    let number = |index| call.int64(index).and_then(|n| u64::try_from(n).ok());
    let parts = (number(2), number(3), number(4));
    let (Some(sequence), Some(attempts), Some(claim)) = parts else {
        return Err(Early::Raise(&WRONG));
    };
    match (u16::try_from(attempts), u32::try_from(claim)) {
        (Ok(attempts), Ok(claim)) => Ok(Receipt {
            claim,
            attempts,
            sequence,
        }),
        _ => Err(Early::Raise(&WRONG)),
    }
}

// queue_acknowledge(handle, cursor, sequence, attempts, claim) -> :ok | {:error, :gone}
#[inline(always)]
fn acknowledge<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let queue = open(call)?;
    let (part, receipt) = (&queue.part, receipt_argument(call)?);
    let cursor = cursor(call, 1)?;
    part.queue
        .acknowledge(&part.region, S::WAIT, cursor, &receipt)?;
    Ok(call.ok())
}

// queue_release(handle, cursor, sequence, attempts, claim) -> :ok | {:error, :gone}
fn release<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let queue = open(call)?;
    let (part, receipt) = (&queue.part, receipt_argument(call)?);
    let cursor = cursor(call, 1)?;
    part.queue
        .release(&part.region, S::WAIT, cursor, &receipt)?;
    Ok(call.ok())
}

// queue_lengths(handle, cursor) -> {available, checked out}
fn lengths(call: &Call) -> Result<ErlNifTerm, Early> {
    let queue = open(call)?;
    let part = &queue.part;
    let (available, claimed) = part.queue.lengths(&part.region, cursor(call, 1)?)?;
    Ok(call.pair(call.uint64(available), call.uint64(claimed)))
}

// queue_bytes(handle) -> bytes
fn bytes<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let queue = open(call)?;
    let part = &queue.part;
    Ok(call.uint64(part.queue.bytes(&part.region, S::WAIT)?))
}
