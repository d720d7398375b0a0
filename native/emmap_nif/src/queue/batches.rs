//! The hot NIFs for many items: each takes the lock once for as many items as possible.

use std::cell::RefCell;

use emmap_core::queue::calls::AT_ONCE;
use emmap_core::queue::{Claimed, Content, Extension, Found, Limits, Receipt, Stop, Taken};
use emmap_core::region::Wait;
use rustler::sys::ErlNifTerm;
use rustler::types::atom;
use rustler::{Encoder, ResourceArc, Term};

use super::calls::{cursor, failed, flags, most_attempts, open, receipt};
use super::owners::Owners;
use super::payload::{lend, Copied, Live, Payload};
use super::{reasons, OpenQueue};
use crate::hot::{hot_nif, Call, Early, Scheduler};
use crate::terms::ArgumentError;

hot_nif!("queue_push_many" / 5 = push_many, DirtyIo);
hot_nif!("queue_pop_many" / 5 = pop_many, DirtyIo);
hot_nif!("queue_check_out_many" / 6 = check_out_many, DirtyIo);
hot_nif!("queue_acknowledge_many" / 3 = acknowledge_many, DirtyIo);

/// The most that one call handles. The caller calls again for the rest.
#[derive(Clone, Copy)]
struct Most {
    items: usize,
    bytes: u64,
}

impl Most {
    fn of<S: Scheduler>() -> Most {
        match S::WAIT {
            Wait::No => Most {
                items: 500,
                bytes: AT_ONCE,
            },
            Wait::Yes => Most {
                items: 1000,
                bytes: 1 << 20,
            },
        }
    }

    /// Also limited by arguments `items` and `items + 1`.
    fn or_fewer(self, call: &Call, items: usize) -> Result<Most, Early> {
        const WRONG: ArgumentError = ArgumentError("not a number of items, or of bytes", 0);
        let number = |index| call.int64(index).and_then(|n| u64::try_from(n).ok());
        let (Some(most), Some(bytes)) = (number(items), number(items + 1)) else {
            return Err(Early::Raise(&WRONG));
        };
        Ok(Most {
            items: self
                .items
                .min(usize::try_from(most).unwrap_or(usize::MAX))
                .max(1),
            bytes: self.bytes.min(bytes),
        })
    }
}

/// The size of a batch so far.
#[derive(Default)]
struct Sum {
    items: usize,
    bytes: u64,
    /// Whether it is the rest of another one.
    is_rest: bool,
}

impl Sum {
    fn new(is_rest: bool) -> Sum {
        Sum {
            is_rest,
            ..Sum::default()
        }
    }

    /// Whether another item fits into the batch. The first always does.
    fn has_room(&self, length: u64, most: Most) -> bool {
        let fits = self.items < most.items && self.bytes.saturating_add(length) <= most.bytes;
        fits || self.is_first()
    }

    fn add(&mut self, length: u64) {
        self.items += 1;
        self.bytes += length;
    }

    fn is_first(&self) -> bool {
        self.items == 0 && !self.is_rest
    }
}

// queue_push_many(handle, payloads, 1 for terms, most bytes or -1, 1 to drop the oldest)
// -> {how many were pushed, :ok | {:error, reason}}: with :ok, call again for the rest
fn push_many<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let queue = open(call)?;
    let most = Most::of::<S>();
    let flags = flags(call, 2);
    let (mut contents, mut sum) = (Vec::with_capacity(64), Sum::default());
    call.each_binary(1, |payload, length| {
        let more = sum.has_room(length as u64, most);
        if more {
            sum.add(length as u64);
            contents.push(Content {
                flags,
                extension: Extension::default(),
                payload,
                length,
            });
        }
        more
    })?;
    if S::WAIT == Wait::No && contents.first().is_some_and(|c| c.length as u64 > AT_ONCE) {
        return Err(Early::Again);
    }
    let limits = Limits {
        most_bytes: call.int64(3).and_then(|most| u64::try_from(most).ok()),
        drop_oldest: call.int64(4) == Some(1),
        identity: None,
    };
    let part = &queue.part;
    // SAFETY: the payloads are binaries of an argument of this call, alive until it ends.
    let (pushed, result) = unsafe {
        part.queue
            .push_many(&part.region, S::WAIT, &contents, &limits)
    };
    call.consumed_items(pushed, sum.bytes as usize);
    let result = match result {
        Ok(()) => call.ok(),
        Err(Stop::Busy) if pushed > 0 => call.ok(),
        Err(Stop::Posix(error)) if pushed > 0 && error.is_wait() => call.ok(),
        Err(Stop::Busy) => return Err(Early::Again),
        Err(Stop::Posix(error)) if error.is_wait() => return Err(error.into()),
        Err(Stop::Full) => call.pair(atom::error().as_c_arg(), reasons::full().as_c_arg()),
        Err(Stop::Posix(error)) => {
            let failure = crate::terms::Failure::from(error);
            call.with_env(|env| failure.encode(env).as_c_arg())
        }
        Err(stop) => failed(call, stop)?,
    };
    Ok(call.pair(call.uint64(pushed as u64), result))
}

/// The batch as a tuple of its items and their bytes, or what ended it if nothing was taken. If argument `more` is 1, the
/// batch is the rest of another one.
fn batch(
    call: &Call,
    queue: &OpenQueue,
    cursor: usize,
    items: &[ErlNifTerm],
    sum: &Sum,
    ended: Result<(), Stop>,
) -> Result<ErlNifTerm, Early> {
    match ended {
        Err(Stop::Corrupt(position)) if sum.is_rest || !items.is_empty() => {
            queue.untold.note(cursor, position)
        }
        // Other stops have changed nothing.
        Err(stop) if items.is_empty() => return failed(call, stop),
        _ => (),
    }
    if items.is_empty() {
        return Ok(reasons::empty().as_c_arg());
    }
    call.consumed_items(items.len(), sum.bytes as usize);
    Ok(call.pair(call.list(items), call.uint64(sum.bytes)))
}

// queue_pop_many(handle, cursor, most items, most bytes, 1 if it is the rest of a batch)
// -> {[payload | {payload of a term}], their bytes} | :empty | {:error, {:corrupt, position}}
fn pop_many<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let queue = open(call)?;
    match queue.direct {
        false => pop_many_as::<S, Copied>(call, queue),
        true => {
            lend(call, queue)?;
            pop_many_as::<S, Live>(call, queue)
        }
    }
}

fn pop_many_as<'a, S: Scheduler, P: Payload<'a>>(
    call: &'a Call,
    queue: &'a OpenQueue,
) -> Result<ErlNifTerm, Early> {
    let (part, cursor) = (&queue.part, cursor(call, 1)?);
    let most = Most::of::<S>().or_fewer(call, 2)?;
    let is_rest = call.int64(4) == Some(1);
    match is_rest {
        // The batch ends at the damage.
        true if queue.untold.is_noted(cursor) => return Ok(reasons::empty().as_c_arg()),
        true => (),
        false => {
            if let Some(position) = queue.untold.take(cursor) {
                return failed(call, Stop::Corrupt(position));
            }
        }
    }
    let (mut items, mut large) = (Vec::with_capacity(64), false);
    let state = RefCell::new((P::new(call, part), Sum::new(is_rest)));
    let room = |found: &Found| {
        let (payload, sum) = &mut *state.borrow_mut();
        let length = found.head.length;
        large = sum.is_first() && length > AT_ONCE;
        (!large && sum.has_room(length, most)).then(|| payload.held_room(found))
    };
    let took = |taken: &Taken| {
        let (payload, sum) = &mut *state.borrow_mut();
        sum.add(taken.length);
        items.push(payload.item(taken));
    };
    // SAFETY: the binary has room for the payload, and is part of no map.
    let ended = unsafe {
        part.queue
            .pop_many(&part.region, S::WAIT, cursor, room, took)
    };
    let (_, sum) = state.into_inner();
    if !large {
        return batch(call, queue, cursor, &items, &sum, ended);
    }
    // Alone, and where it may take long.
    if S::WAIT == Wait::No {
        return Err(Early::Again);
    }
    let mut payload = P::new(call, part);
    let room = |found: &Found| payload.held_room(found);
    // SAFETY: as above.
    match unsafe { part.queue.pop(&part.region, S::WAIT, cursor, room) } {
        Ok(Some(taken)) => {
            let sum = Sum {
                items: 1,
                bytes: taken.length,
                is_rest,
            };
            batch(call, queue, cursor, &[payload.item(&taken)], &sum, Ok(()))
        }
        Ok(None) => Ok(reasons::empty().as_c_arg()),
        Err(stop) => batch(call, queue, cursor, &[], &sum, Err(stop)),
    }
}

// queue_check_out_many(handle, cursor, most attempts or 0, most items, most bytes, 1 if it is the rest of a batch)
// -> {[{item, sequence, attempts, claim}], their bytes} | :empty | {:error, {:corrupt, position}}
fn check_out_many<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let queue = open(call)?;
    match queue.direct {
        false => check_out_many_as::<S, Copied>(call, queue),
        true => {
            lend(call, queue)?;
            check_out_many_as::<S, Live>(call, queue)
        }
    }
}

fn check_out_many_as<'a, S: Scheduler, P: Payload<'a>>(
    call: &'a Call,
    queue: &'a ResourceArc<OpenQueue>,
) -> Result<ErlNifTerm, Early> {
    let (part, cursor) = (&queue.part, cursor(call, 1)?);
    let most = Most::of::<S>().or_fewer(call, 3)?;
    let is_rest = call.int64(5) == Some(1);
    match is_rest {
        // The batch ends at the damage.
        true if queue.untold.is_noted(cursor) => return Ok(reasons::empty().as_c_arg()),
        true => (),
        false => {
            if let Some(position) = queue.untold.take(cursor) {
                return failed(call, Stop::Corrupt(position));
            }
        }
    }
    let owner = Owners::owner(call, queue);
    let state = RefCell::new((P::new(call, part), Vec::new(), Sum::new(is_rest)));
    let mut large = false;
    let wants = |found: &Found| {
        let (payload, _, sum) = &mut *state.borrow_mut();
        let length = found.head.length;
        large = S::WAIT == Wait::No && sum.is_first() && length > AT_ONCE;
        let wanted = !large && sum.has_room(length, most);
        if wanted {
            payload.hold(found);
        }
        wanted
    };
    let took = |claimed: Claimed| {
        let (payload, claims, sum) = &mut *state.borrow_mut();
        sum.add(claimed.found.head.length);
        let payload = std::mem::replace(payload, P::new(call, part));
        claims.push((claimed, payload));
    };
    let mut ended = part.queue.check_out_many(
        &part.region,
        S::WAIT,
        cursor,
        (owner, most_attempts(call, 2)),
        wants,
        took,
    );
    let (_, claims, sum) = state.into_inner();
    if large {
        return Err(Early::Again);
    }
    let mut items = Vec::with_capacity(claims.len());
    for (claimed, mut payload) in claims {
        let room = payload.room(&claimed.found.head);
        let (queue, region) = (&part.queue, &part.region);
        // SAFETY: the binary has room for the payload, and is part of no map.
        match unsafe { queue.deliver_claimed(region, cursor, &claimed, room) } {
            Ok(Some(taken)) => items.push(receipt(call, &claimed, payload.item(&taken))),
            // Dropped in the meantime to make room.
            Ok(None) => (),
            Err(stop @ Stop::Corrupt(_)) => ended = Err(stop),
            Err(stop) => return failed(call, stop),
        }
    }
    batch(call, queue, cursor, &items, &sum, ended)
}

// queue_acknowledge_many(handle, cursor, [{sequence, attempts, claim}]) -> :ok | {:error, :gone}
fn acknowledge_many<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    const WRONG: ArgumentError = ArgumentError("not receipts of a queue", 0);
    let queue = open(call)?;
    let (part, cursor) = (&queue.part, cursor(call, 1)?);
    let decoded = call.with_env(|env| {
        // SAFETY: a term of this environment.
        let term = unsafe { Term::new(env, call.argument(2)) };
        term.decode::<Vec<(u64, u16, u32)>>()
    });
    let receipts: Vec<Receipt> = decoded
        .map_err(|_| Early::Raise(&WRONG))?
        .into_iter()
        .map(|(sequence, attempts, claim)| Receipt {
            claim,
            attempts,
            sequence,
        })
        .collect();
    part.queue
        .acknowledge_many(&part.region, S::WAIT, cursor, &receipts)?;
    call.consumed_items(receipts.len(), 0);
    Ok(call.ok())
}
