//! Queues: the functions that C calls. [`handle`] implements them.

mod handle;

use std::ffi::{c_char, c_int};
use std::time::Duration;

use emmap_core::queue::waiting::Event;
use emmap_core::queue::{record, Limits, Receipt, Taken};
use emmap_core::Errno;

use crate::boundary::{self, call, return_handle, string, take_handle};
pub use handle::emmap_queue;
use handle::{Buffer, Refused};

/// The description of an item, without its bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct emmap_item {
    length: u64,
    sequence: u64,
    position: u64,
    flags: u32,
    attempts: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct emmap_receipt {
    sequence: u64,
    claim: u32,
    attempts: u16,
    reader: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct emmap_push_options {
    flags: u32,
    timeout_ms: i32,
    max_bytes: u64,
    number: u64,
    producer: [u8; 16],
}

// As in `include/emmap.h`; `tests/program.c` checks the same numbers.
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<emmap_item>() == 32 && offset_of!(emmap_item, flags) == 24);
    assert!(offset_of!(emmap_item, sequence) == 8 && offset_of!(emmap_item, position) == 16);
    assert!(offset_of!(emmap_item, length) == 0 && offset_of!(emmap_item, attempts) == 28);
    assert!(size_of::<emmap_receipt>() == 16 && offset_of!(emmap_receipt, claim) == 8);
    assert!(offset_of!(emmap_receipt, attempts) == 12 && offset_of!(emmap_receipt, reader) == 14);
    assert!(size_of::<emmap_push_options>() == 40);
    assert!(offset_of!(emmap_push_options, timeout_ms) == 4);
    assert!(offset_of!(emmap_push_options, max_bytes) == 8);
    assert!(offset_of!(emmap_push_options, number) == 16);
    assert!(offset_of!(emmap_push_options, producer) == 24);
    assert!(TERM == 1 && IDENTITY == 2 && record::DEAD_LETTER == 8);
};

const EXISTING: u32 = 1;
const TERM: u32 = record::TERM;
const IDENTITY: u32 = record::IDENTITY;
const DROP_OLDEST: u32 = 16;

/// The value of EMMAP_DUPLICATE and EMMAP_TAKEN.
const YES: c_int = 1;

impl emmap_item {
    fn of(taken: &Taken, attempts: u32) -> emmap_item {
        let dead = taken.flags & record::DEAD_LETTER != 0;
        emmap_item {
            length: taken.length,
            sequence: taken.sequence,
            position: taken.position,
            flags: taken.flags & (TERM | record::DEAD_LETTER),
            attempts: match dead {
                true => u32::try_from(taken.extension.word(1)).unwrap_or(u32::MAX),
                false => attempts,
            },
        }
    }

    fn empty() -> emmap_item {
        emmap_item {
            length: 0,
            sequence: 0,
            position: 0,
            flags: 0,
            attempts: 0,
        }
    }
}

impl emmap_receipt {
    fn of(receipt: &Receipt, reader: u32) -> emmap_receipt {
        emmap_receipt {
            sequence: receipt.sequence,
            claim: receipt.claim,
            attempts: receipt.attempts,
            reader: reader as u16,
        }
    }

    fn receipt(&self) -> Receipt {
        Receipt {
            claim: self.claim,
            attempts: self.attempts,
            sequence: self.sequence,
        }
    }
}

/// The queue of a handle, in the process that opened it.
///
/// # Safety
/// As [`boundary::handle`].
unsafe fn open<'a>(queue: *const emmap_queue) -> Result<&'a emmap_queue, Errno> {
    // SAFETY: the caller's promise.
    let queue = unsafe { boundary::handle(queue)? };
    queue.check()?;
    Ok(queue)
}

/// `None`: indefinitely.
fn timeout(milliseconds: i32) -> Option<Duration> {
    u64::try_from(milliseconds).ok().map(Duration::from_millis)
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_queue_open(
    path: *const c_char,
    flags: u32,
    segment_size: u64,
    out: *mut *mut emmap_queue,
) -> c_int {
    call(|| {
        if flags & !EXISTING != 0 {
            return Err(Errno::INVAL);
        }
        // SAFETY: the caller's promise.
        unsafe {
            let path = boundary::path(path)?;
            let existing = flags & EXISTING != 0;
            return_handle(out, || emmap_queue::open(path, existing, segment_size))
        }
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_queue_close(queue: *mut emmap_queue) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let queue = unsafe { take_handle(queue)? };
        queue.close().map(|()| 0)
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_queue_push(
    queue: *const emmap_queue,
    payload: *const u8,
    length: usize,
    options: *const emmap_push_options,
) -> c_int {
    call(|| {
        // SAFETY: the caller's promise: NULL, or valid options.
        let (queue, options) = unsafe { (open(queue)?, options.as_ref()) };
        let mut limits = Limits::default();
        let (mut flags, mut wait) = (0, Some(Duration::ZERO));
        if let Some(options) = options {
            if options.flags & !(TERM | IDENTITY | DROP_OLDEST) != 0 {
                return Err(Errno::INVAL);
            }
            flags = options.flags & TERM;
            wait = timeout(options.timeout_ms);
            limits.most_bytes = Some(options.max_bytes).filter(|most| *most > 0);
            limits.drop_oldest = options.flags & DROP_OLDEST != 0;
            if options.flags & IDENTITY != 0 {
                limits.identity = Some((options.producer, options.number));
            }
        }
        let payload = match (payload.is_null(), length) {
            (false, _) => payload,
            (true, 0) => std::ptr::dangling(),
            (true, _) => return Err(Errno::INVAL),
        };
        // SAFETY: the caller's promise.
        let duplicate = unsafe { queue.push((flags, payload, length), &limits, wait)? };
        Ok(if duplicate { YES } else { 0 })
    })
}

/// The result of a call that takes an item.
///
/// # Safety
/// `item` must have room for one.
unsafe fn taken(
    item: *mut emmap_item,
    taken: Result<Option<emmap_item>, Refused>,
) -> Result<c_int, Errno> {
    let (found, result) = match taken {
        Ok(Some(found)) => (found, Ok(YES)),
        Ok(None) => (emmap_item::empty(), Ok(0)),
        Err(Refused::Small(length)) => {
            let found = emmap_item {
                length,
                ..emmap_item::empty()
            };
            (found, Err(Errno(libc::EMSGSIZE)))
        }
        Err(Refused::Corrupt(position)) => {
            let found = emmap_item {
                position,
                ..emmap_item::empty()
            };
            (found, Err(boundary::DAMAGED))
        }
        Err(Refused::Posix(error)) => (emmap_item::empty(), Err(error)),
    };
    // SAFETY: the caller's promise.
    unsafe { item.write(found) };
    result
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_queue_pop(
    queue: *const emmap_queue,
    reader: u32,
    buffer: *mut u8,
    capacity: usize,
    item: *mut emmap_item,
) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        unsafe {
            let queue = open(queue)?;
            let buffer = Buffer::new(buffer, capacity)?;
            if item.is_null() {
                return Err(Errno::INVAL);
            }
            let popped = queue.pop(reader, buffer);
            taken(
                item,
                popped.map(|popped| popped.map(|popped| emmap_item::of(&popped, 0))),
            )
        }
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_queue_checkout(
    queue: *const emmap_queue,
    reader: u32,
    max_attempts: u32,
    buffer: *mut u8,
    capacity: usize,
    item: *mut emmap_item,
    receipt: *mut emmap_receipt,
) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        unsafe {
            let queue = open(queue)?;
            let buffer = Buffer::new(buffer, capacity)?;
            if item.is_null() || receipt.is_null() {
                return Err(Errno::INVAL);
            }
            let most = (max_attempts > 0).then(|| u16::try_from(max_attempts).unwrap_or(u16::MAX));
            let found = queue.check_out(reader, most, buffer).map(|found| {
                found.map(|(found, claimed)| {
                    receipt.write(emmap_receipt::of(&claimed, reader));
                    emmap_item::of(&found, claimed.attempts.into())
                })
            });
            taken(item, found)
        }
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_queue_ack(
    queue: *const emmap_queue,
    receipt: *const emmap_receipt,
) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let (queue, receipt) = unsafe { (open(queue)?, boundary::handle(receipt)?) };
        queue.acknowledge(receipt.reader.into(), &receipt.receipt())?;
        Ok(0)
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_queue_ack_durable(
    queue: *const emmap_queue,
    receipt: *const emmap_receipt,
) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let (queue, receipt) = unsafe { (open(queue)?, boundary::handle(receipt)?) };
        queue.acknowledge_durably(receipt.reader.into(), &receipt.receipt())?;
        Ok(0)
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_queue_nack(
    queue: *const emmap_queue,
    receipt: *const emmap_receipt,
) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let (queue, receipt) = unsafe { (open(queue)?, boundary::handle(receipt)?) };
        queue.release(receipt.reader.into(), &receipt.receipt())?;
        Ok(0)
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_queue_length(queue: *const emmap_queue, reader: u32) -> i64 {
    // SAFETY: the caller's promise.
    call(|| unsafe { Ok(open(queue)?.lengths(reader)?.0 as i64) })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_queue_checked_out(queue: *const emmap_queue, reader: u32) -> i64 {
    // SAFETY: the caller's promise.
    call(|| unsafe { Ok(open(queue)?.lengths(reader)?.1 as i64) })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_queue_bytes(queue: *const emmap_queue) -> i64 {
    // SAFETY: the caller's promise.
    call(|| unsafe { Ok(open(queue)?.bytes()? as i64) })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_queue_sync(queue: *const emmap_queue) -> c_int {
    // SAFETY: the caller's promise.
    call(|| unsafe { open(queue)?.sync().map(|()| 0) })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_queue_wait(
    queue: *const emmap_queue,
    reader: u32,
    timeout_ms: i32,
) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let queue = unsafe { open(queue)? };
        let some = || Ok((queue.lengths(reader)?.0 > 0).then_some(()));
        let found = queue.wait(Event::Items, timeout(timeout_ms), some)?;
        Ok(if found.is_some() { YES } else { 0 })
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_queue_reader(
    queue: *const emmap_queue,
    name: *const c_char,
    max_lag: u64,
    reader: *mut u32,
) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let (queue, name) = unsafe { (open(queue)?, string(name)?) };
        if reader.is_null() {
            return Err(Errno::INVAL);
        }
        let number = queue.reader(name, max_lag)?;
        // SAFETY: the caller's promise.
        unsafe { reader.write(number) };
        Ok(0)
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn emmap_queue_delete_reader(
    queue: *const emmap_queue,
    name: *const c_char,
) -> c_int {
    call(|| {
        // SAFETY: the caller's promise.
        let (queue, name) = unsafe { (open(queue)?, string(name)?) };
        queue.delete_reader(name)?;
        Ok(0)
    })
}
