//! The cold NIFs of queues.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use emmap_core::queue::layout::{self, cursor, CURSORS};
use emmap_core::queue::waiting::Event;
use emmap_core::queue::{self, Request, Stop};
use emmap_core::region::Wait;
use emmap_core::store::{BadFormat, Error, Shared};
use emmap_core::Errno;
use rustler::types::atom;
use rustler::{Binary, Encoder, Env, NifMap, NifResult, ResourceArc, Term};

use super::{reasons, OpenQueue, Part};
use crate::counters;
use crate::hot::cold_nif;
use crate::interrupting::interruptible;
use crate::resource::{new_structure, HandleRef, Structure};
use crate::terms::{answer, Failure};
use crate::waiting::Kind;

cold_nif!(DirtyIo, "queue_open" / 2 = queue_open(path, wanted));
cold_nif!(Kind::Store, false, "queue_close" / 1 = queue_close(handle));
cold_nif!(DirtyIo, "queue_reattach" / 1 = queue_reattach(handle));
cold_nif!(Kind::Long, true, "queue_sync" / 1 = queue_sync(handle));
cold_nif!(
    Kind::Store,
    false,
    "queue_reader" / 3 = queue_reader(handle, name, most_lag)
);
cold_nif!(
    Kind::Store,
    false,
    "queue_delete_reader" / 2 = queue_delete_reader(handle, name)
);
cold_nif!(DirtyIo, "queue_clear" / 2 = queue_clear(handle, cursor));
cold_nif!(
    DirtyIo,
    "queue_after_damage" / 3 = queue_after_damage(handle, cursor, position)
);
cold_nif!(
    DirtyIo,
    "queue_record" / 3 = queue_record(handle, cursor, sequences)
);
cold_nif!(DirtyIo, "queue_info" / 1 = queue_info(handle));

/// The request of `Emmap.Queue.open/2`, which has checked it.
#[derive(NifMap)]
struct Wanted {
    segment_size: Option<u64>,
    existing: bool,
    direct: bool,
}

// `{:ok, reference}`. Reads headers, may create, recover and sync.
fn queue_open<'a>(env: Env<'a>, path: Binary<'a>, wanted: Wanted) -> Term<'a> {
    if path.as_slice().contains(&0) {
        return Failure::from(Errno::INVAL).encode(env);
    }
    let path = Path::new(OsStr::from_bytes(path.as_slice()));
    let request = Request {
        segment_size: wanted.segment_size,
        existing: wanted.existing,
    };
    match interruptible(env, || queue::open(path, &request)) {
        Ok((region, queue)) => {
            let reference = new_structure(env, region, |region| {
                Structure::Queue(ResourceArc::new(OpenQueue::new(
                    region,
                    queue,
                    wanted.direct,
                )))
            });
            (atom::ok(), reference).encode(env)
        }
        Err(Error::Posix(error)) => Failure::from(error).encode(env),
        Err(Error::BadFormat(bad)) => {
            (atom::error(), (reasons::bad_format(), why(bad))).encode(env)
        }
        Err(Error::Mismatch(never)) => match never {},
    }
}

// Waits for the lock of the file.
fn queue_close<'a>(env: Env<'a>, handle: HandleRef<'a>) -> NifResult<Term<'a>> {
    let queue = handle.0.queue()?;
    if handle.0.region().is_err() {
        return Ok(Failure::Closed.encode(env));
    }
    // If the disk is full or has failed, the next program that opens the file does what could not be recorded.
    queue.part.close();
    let _ = queue.part.queue.leave(&queue.part.region);
    Ok(answer(env, handle.0.close()))
}

fn why(bad: BadFormat) -> rustler::Atom {
    match bad {
        BadFormat::Content => reasons::content(),
        bad => counters::why(bad),
    }
}

/// Runs `act` on the part of an open queue.
fn on_part<'a, T: Encoder>(
    env: Env<'a>,
    handle: &HandleRef<'a>,
    act: impl FnOnce(&Arc<Part>) -> Result<T, Stop>,
) -> NifResult<Term<'a>> {
    let queue = handle.0.queue()?;
    if let Err(closed) = handle.0.region() {
        return Ok(closed.encode(env));
    }
    Ok(match act(&queue.part) {
        Ok(result) => result.encode(env),
        Err(Stop::Posix(error)) => Failure::from(error).encode(env),
        Err(Stop::Full) => (atom::error(), reasons::full()).encode(env),
        Err(Stop::Gone) => (atom::error(), reasons::gone()).encode(env),
        Err(Stop::Corrupt(position)) => (atom::error(), (reasons::corrupt(), position)).encode(env),
        Err(Stop::Busy | Stop::Grow(_) | Stop::Checkpoint) => {
            Failure::from(Errno::BUSY).encode(env)
        }
    })
}

// Reads headers, and maps the file again.
fn queue_reattach<'a>(env: Env<'a>, handle: HandleRef<'a>) -> NifResult<Term<'a>> {
    let queue = handle.0.queue()?;
    if let Err(closed) = handle.0.region() {
        return Ok(closed.encode(env));
    }
    Ok(match queue.part.queue.reattach(&queue.part.region) {
        Ok(()) => atom::ok().encode(env),
        Err(Error::Posix(error)) => Failure::from(error).encode(env),
        Err(Error::BadFormat(bad)) => {
            (atom::error(), (reasons::bad_format(), why(bad))).encode(env)
        }
        Err(Error::Mismatch(never)) => match never {},
    })
}

fn queue_sync<'a>(env: Env<'a>, handle: HandleRef<'a>) -> NifResult<Term<'a>> {
    on_part(env, &handle, |part| {
        part.queue.sync(&part.region).map(|()| atom::ok())
    })
}

// `{:ok, ticket}`: a message with it has the result of a sync that begins now.
#[rustler::nif(schedule = "Normal")]
fn queue_durable<'a>(env: Env<'a>, handle: HandleRef<'a>) -> NifResult<Term<'a>> {
    let pid = env.pid();
    on_part(env, &handle, |part| Ok((atom::ok(), part.sync(pid)?)))
}

fn event(space: bool) -> Event {
    match space {
        true => Event::Space,
        false => Event::Items,
    }
}

// `{:ok, ticket}`: a message with it says to look again.
#[rustler::nif(schedule = "Normal")]
fn queue_wait<'a>(env: Env<'a>, handle: HandleRef<'a>, space: bool) -> NifResult<Term<'a>> {
    let pid = env.pid();
    on_part(env, &handle, |part| {
        Ok((atom::ok(), part.wait(event(space), pid)?))
    })
}

// `false`: the message is on the way, or was sent.
#[rustler::nif(schedule = "Normal")]
fn queue_stop_waiting<'a>(
    env: Env<'a>,
    handle: HandleRef<'a>,
    space: bool,
    ticket: u64,
) -> NifResult<Term<'a>> {
    let queue = handle.0.queue()?;
    Ok(queue.part.stop_waiting(event(space), ticket).encode(env))
}

// `{:ok, cursor}`: creates a reader unless there is one of the name, durably.
fn queue_reader<'a>(
    env: Env<'a>,
    handle: HandleRef<'a>,
    name: Binary<'a>,
    most_lag: u64,
) -> NifResult<Term<'a>> {
    on_part(env, &handle, |part| {
        let reader = part.queue.reader(&part.region, name.as_slice(), most_lag)?;
        Ok((atom::ok(), reader as u64))
    })
}

fn queue_delete_reader<'a>(
    env: Env<'a>,
    handle: HandleRef<'a>,
    name: Binary<'a>,
) -> NifResult<Term<'a>> {
    on_part(env, &handle, |part| {
        let (queue, region) = (&part.queue, &*part.region);
        queue.with_waking(region, Wait::Yes, Event::Space, |locked| {
            let reader = locked.find_reader(name.as_slice())?.ok_or(Stop::Gone)?;
            locked.delete_reader(reader)
        })?;
        queue.sync(region).map(|()| atom::ok())
    })
}

fn queue_clear<'a>(env: Env<'a>, handle: HandleRef<'a>, cursor: u64) -> NifResult<Term<'a>> {
    on_part(env, &handle, |part| {
        let cursor = usize::try_from(cursor).unwrap_or(CURSORS).min(CURSORS - 1);
        part.queue
            .with_waking(&part.region, Wait::Yes, Event::Space, |locked| {
                locked.clear(cursor)
            })
            .map(|()| atom::ok())
    })
}

// Where an iteration over all items continues after damage.
fn queue_after_damage<'a>(
    env: Env<'a>,
    handle: HandleRef<'a>,
    cursor: u64,
    position: u64,
) -> NifResult<Term<'a>> {
    on_part(env, &handle, |part| {
        let cursor = usize::try_from(cursor).unwrap_or(CURSORS).min(CURSORS - 1);
        part.queue.with(&part.region, Wait::Yes, |locked| {
            locked.after_damage(cursor, position)
        })
    })
}

// Acknowledgements that the next sync makes durable.
fn queue_record<'a>(
    env: Env<'a>,
    handle: HandleRef<'a>,
    cursor: u64,
    sequences: Vec<u64>,
) -> NifResult<Term<'a>> {
    on_part(env, &handle, |part| {
        let cursor = usize::try_from(cursor).unwrap_or(CURSORS).min(CURSORS - 1);
        // Each fits in a segment.
        for sequences in sequences.chunks(4096) {
            part.queue
                .record_acknowledgements(&part.region, cursor, sequences)?;
        }
        Ok(atom::ok())
    })
}

/// A reader, and how far it is.
#[derive(NifMap)]
struct Reader {
    name: String,
    length: u64,
    checked_out: u64,
    max_lag: u64,
    lost: u64,
}

#[derive(NifMap)]
struct Info {
    length: u64,
    checked_out: u64,
    bytes: u64,
    tail: u64,
    dead_letters: u64,
    pinned: u64,
    dropped: u64,
    segment_size: u64,
    recoveries: u64,
    recovered_items: u64,
    dropped_bytes: u64,
    readers: Vec<Reader>,
}

fn queue_info<'a>(env: Env<'a>, handle: HandleRef<'a>) -> NifResult<Term<'a>> {
    on_part(env, &handle, |part| {
        let (queue, region) = (&part.queue, &*part.region);
        let bytes = queue.bytes(region, Wait::Yes)?;
        let info = queue.with(region, Wait::Yes, |locked| {
            let word = |at: u64| Ok::<_, Stop>(locked.shared.load(at)?);
            let mut readers = Vec::new();
            for number in locked.cursors()? {
                if !(layout::OWN + 1..layout::DEAD_CURSOR).contains(&number) {
                    continue;
                }
                let (length, checked_out) = locked.lengths(number)?;
                let name = locked.name(number)?.unwrap_or_default();
                readers.push(Reader {
                    name: String::from_utf8_lossy(&name).into_owned(),
                    length,
                    checked_out,
                    max_lag: word(cursor::at(number) + cursor::MOST_LAG)?,
                    lost: word(cursor::at(number) + cursor::LOST)?,
                });
            }
            let (length, checked_out) = locked.lengths(layout::OWN)?;
            Ok(Info {
                length,
                checked_out,
                bytes,
                tail: word(layout::stream::at(layout::ITEMS) + layout::stream::TAIL)?,
                dead_letters: locked.lengths(layout::DEAD_CURSOR)?.0,
                pinned: locked.bytes_pinned()?,
                dropped: word(layout::DROPPED)?,
                segment_size: queue.segment_size(),
                recoveries: word(layout::RECOVERIES)?,
                recovered_items: word(layout::RECOVERED_ITEMS)?,
                dropped_bytes: word(layout::TORN_BYTES)?,
                readers,
            })
        })?;
        Ok((atom::ok(), info))
    })
}
