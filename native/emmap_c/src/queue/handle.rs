//! The operations of a queue handle.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use emmap_core::queue::calls::AT_ONCE;
use emmap_core::queue::layout::{self, cursor};
use emmap_core::queue::record::Head;
use emmap_core::queue::waiting::Event;
use emmap_core::queue::{self, Found, Limits, Pushed, Queue, Receipt, Request, Stop, Taken};
use emmap_core::region::Wait;
use emmap_core::store::shared::Mapped;
use emmap_core::store::Shared;
use emmap_core::{Errno, Region, Result};

use crate::boundary::{refused, DAMAGED};
use crate::fork::Kept;

/// Identifies, in claims, the handle of this program that made them.
static NEXT_OWNER: AtomicU32 = AtomicU32::new(1);

pub struct emmap_queue {
    // Before the queue, which owns the descriptor: fields are dropped in this order.
    kept: Kept,
    queue: Queue,
    region: Region,
    owner: u32,
    /// How many threads wait for each event.
    waiting: Mutex<[u32; 2]>,
}

// Threads share a handle.
const _: () = {
    const fn is_sync<T: Sync>() {}
    is_sync::<emmap_queue>();
};

/// Why no item was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Posix(Errno),
    /// The item has this length, and does not fit into the buffer.
    Small(u64),
    Corrupt(u64),
}

impl From<Errno> for Refused {
    fn from(error: Errno) -> Refused {
        Refused::Posix(error)
    }
}

impl From<Stop> for Refused {
    fn from(stop: Stop) -> Refused {
        match stop {
            Stop::Corrupt(position) => Refused::Corrupt(position),
            stop => Refused::Posix(errno(stop)),
        }
    }
}

fn errno(stop: Stop) -> Errno {
    match stop {
        Stop::Posix(error) => error,
        Stop::Corrupt(_) => DAMAGED,
        Stop::Full => Errno(libc::ENOBUFS),
        Stop::Gone => Errno(libc::ENOENT),
        // Only for calls that may not wait. These may.
        Stop::Busy | Stop::Grow(_) | Stop::Checkpoint => Errno::BUSY,
    }
}

/// The caller's buffer for the bytes of an item.
#[derive(Clone, Copy)]
pub struct Buffer {
    at: *mut u8,
    capacity: u64,
}

impl Buffer {
    /// EINVAL for NULL with a capacity above 0.
    ///
    /// # Safety
    /// The pointer must have room for `capacity` bytes, outside of any map, for as long as the value is used.
    pub unsafe fn new(at: *mut u8, capacity: usize) -> Result<Buffer> {
        let at = match (at.is_null(), capacity) {
            (false, _) => at,
            (true, 0) => std::ptr::dangling_mut(),
            (true, _) => return Err(Errno::INVAL),
        };
        let capacity = capacity as u64;
        Ok(Buffer { at, capacity })
    }

    fn has_room(&self, head: &Head) -> bool {
        head.length <= self.capacity
    }
}

impl emmap_queue {
    pub fn open(path: &Path, existing: bool, segment_size: u64) -> Result<emmap_queue> {
        let request = Request {
            segment_size: Some(segment_size).filter(|size| *size > 0),
            existing,
        };
        let (region, queue) = queue::open(path, &request).map_err(refused)?;
        Ok(emmap_queue {
            kept: Kept::new(queue.presence().fd()),
            queue,
            region,
            owner: NEXT_OWNER.fetch_add(1, Ordering::Relaxed),
            waiting: Mutex::default(),
        })
    }

    /// EBADF in a forked child.
    #[inline]
    pub fn check(&self) -> Result<()> {
        self.kept.check()
    }

    pub fn close(self: Box<Self>) -> Result<()> {
        if let Err(error) = self.check() {
            // All of it belongs to the parent, and its descriptor numbers may be other files here.
            std::mem::forget(self);
            return Err(error);
        }
        let released = self
            .queue
            .release_owner(&self.region, Wait::Yes, self.owner)
            .map_err(errno);
        let left = self.queue.leave(&self.region);
        released.and(left)
    }

    /// The cursor of a reader; ENOENT if it does not exist.
    fn cursor(&self, reader: u32) -> Result<usize> {
        let number = reader as usize;
        if number >= layout::CURSORS {
            return Err(Errno::INVAL);
        }
        let at = cursor::at(number) + cursor::STATE;
        match self.region.reading(|| Mapped::new(&self.region).load(at))? {
            1 => Ok(number),
            _ => Err(Errno(libc::ENOENT)),
        }
    }

    /// Returns whether the item had already been pushed.
    ///
    /// # Safety
    /// The payload must have as many readable bytes as it says.
    pub unsafe fn push(
        &self,
        item: (u32, *const u8, usize),
        limits: &Limits,
        timeout: Option<Duration>,
    ) -> Result<bool> {
        let push = || {
            // SAFETY: the caller's promise.
            match unsafe { self.queue.push(&self.region, Wait::Yes, item, limits) } {
                Ok(pushed) => Ok(Some(pushed == Pushed::Duplicate)),
                Err(Stop::Full) => Ok(None),
                Err(stop) => Err(errno(stop)),
            }
        };
        self.wait(Event::Space, timeout, push)?
            .ok_or(errno(Stop::Full))
    }

    /// Takes the next item.
    ///
    /// # Safety
    /// The buffer must be alive.
    pub unsafe fn pop(
        &self,
        reader: u32,
        buffer: Buffer,
    ) -> std::result::Result<Option<Taken>, Refused> {
        let cursor = self.cursor(reader)?;
        loop {
            let mut left = None;
            let mut revived = false;
            let popped =
                self.queue
                    .with_waking(&self.region, Wait::Yes, Event::Space, |locked| {
                        left = None;
                        let room = |found: &Found| {
                            let head = &found.head;
                            let fits = buffer.has_room(head) && head.length <= AT_ONCE;
                            left = (!fits).then_some(head.length);
                            fits.then_some(buffer.at)
                        };
                        // SAFETY: the caller's promise; the buffer has room if the item fits.
                        let taken = unsafe { locked.pop(cursor, room)? };
                        if taken.is_none() && left.is_none() {
                            // Items that a dead program had checked out are available now.
                            revived = self.queue.look_for_dead(&self.region, locked, true)? > 0;
                        }
                        Ok(taken)
                    })?;
            match (popped, left) {
                (Some(taken), _) => return Ok(Some(taken)),
                (None, None) if revived => continue,
                (None, None) => return Ok(None),
                (None, Some(length)) if length > buffer.capacity => {
                    return Err(Refused::Small(length));
                }
                // SAFETY: the caller's promise.
                (None, Some(_)) => return unsafe { self.pop_large(reader, buffer) },
            }
        }
    }

    /// As [`emmap_queue::pop`], for an item that is copied without the lock. It is checked out in the meantime.
    ///
    /// # Safety
    /// The buffer must be alive.
    unsafe fn pop_large(
        &self,
        reader: u32,
        buffer: Buffer,
    ) -> std::result::Result<Option<Taken>, Refused> {
        loop {
            // SAFETY: the caller's promise.
            let Some((taken, receipt)) = (unsafe { self.check_out(reader, None, buffer)? }) else {
                return Ok(None);
            };
            match self.acknowledge(reader, &receipt) {
                // Dropped in the meantime to make room.
                Err(Errno(libc::ENOENT)) => continue,
                done => return Ok(done.map(|()| Some(taken))?),
            }
        }
    }

    /// Checks out the next item. An item that does not fit stays where it was.
    ///
    /// # Safety
    /// The buffer must be alive.
    pub unsafe fn check_out(
        &self,
        reader: u32,
        most_attempts: Option<u16>,
        buffer: Buffer,
    ) -> std::result::Result<Option<(Taken, Receipt)>, Refused> {
        let cursor = self.cursor(reader)?;
        let (queue, region) = (&self.queue, &self.region);
        loop {
            let mut small = None;
            let wants = |found: &Found| {
                let head = &found.head;
                small = (!buffer.has_room(head)).then_some(head.length);
                small.is_none()
            };
            let owner = (self.owner, most_attempts);
            let claimed = queue.check_out_if(region, Wait::Yes, cursor, owner, wants)?;
            let Some(claimed) = claimed else {
                return match small {
                    Some(length) => Err(Refused::Small(length)),
                    None => Ok(None),
                };
            };
            // SAFETY: the caller's promise; it has room.
            match unsafe { queue.deliver_claimed(region, cursor, &claimed, buffer.at)? } {
                Some(taken) => return Ok(Some((taken, claimed.receipt))),
                // Dropped in the meantime to make room.
                None => continue,
            }
        }
    }

    pub fn acknowledge(&self, reader: u32, receipt: &Receipt) -> Result<()> {
        let cursor = self.cursor(reader)?;
        self.queue
            .acknowledge(&self.region, Wait::Yes, cursor, receipt)
            .map_err(errno)
    }

    pub fn acknowledge_durably(&self, reader: u32, receipt: &Receipt) -> Result<()> {
        let cursor = self.cursor(reader)?;
        self.acknowledge(reader, receipt)?;
        self.queue
            .record_acknowledgements(&self.region, cursor, &[receipt.sequence])
            .map_err(errno)?;
        self.sync()
    }

    pub fn release(&self, reader: u32, receipt: &Receipt) -> Result<()> {
        let cursor = self.cursor(reader)?;
        self.queue
            .release(&self.region, Wait::Yes, cursor, receipt)
            .map_err(errno)
    }

    pub fn lengths(&self, reader: u32) -> Result<(u64, u64)> {
        let cursor = self.cursor(reader)?;
        self.queue.lengths(&self.region, cursor)
    }

    pub fn bytes(&self) -> Result<u64> {
        self.queue.bytes(&self.region, Wait::Yes).map_err(errno)
    }

    pub fn sync(&self) -> Result<()> {
        self.queue.sync(&self.region).map_err(errno)
    }

    /// The number of the reader with this name, which is created if it does not exist.
    pub fn reader(&self, name: &[u8], most_lag: u64) -> Result<u32> {
        let reader = self.queue.reader(&self.region, name, most_lag);
        reader.map(|reader| reader as u32).map_err(errno)
    }

    pub fn delete_reader(&self, name: &[u8]) -> Result<()> {
        let deleted = self
            .queue
            .with_waking(&self.region, Wait::Yes, Event::Space, |locked| {
                let reader = locked.find_reader(name)?.ok_or(Stop::Gone)?;
                locked.delete_reader(reader)
            });
        deleted.map_err(errno)?;
        self.sync()
    }

    /// Calls `attempt` until it returns something, for at most `timeout`. EINTR: a signal interrupted it.
    pub fn wait<T>(
        &self,
        event: Event,
        timeout: Option<Duration>,
        mut attempt: impl FnMut() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let found = attempt()?;
        if found.is_some() || timeout == Some(Duration::ZERO) {
            return Ok(found);
        }
        // A deadline that is too far in the future means no deadline.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let _waiter = Waiter::new(self, event)?;
        loop {
            let number = self.queue.event(&self.region, event)?;
            let found = attempt()?;
            if found.is_some() {
                return Ok(found);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
            if self.queue.wait(&self.region, event, number, left)? {
                return Err(Errno(libc::EINTR));
            }
            if event == Event::Items {
                self.queue.look(&self.region).map_err(errno)?;
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, [u32; 2]> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks a waiting thread, until it is dropped.
struct Waiter<'a> {
    queue: &'a emmap_queue,
    event: Event,
}

impl<'a> Waiter<'a> {
    fn new(queue: &'a emmap_queue, event: Event) -> Result<Waiter<'a>> {
        let mut waiting = queue.waiting();
        queue.queue.set_waiting(&queue.region, event, true)?;
        waiting[event as usize] += 1;
        Ok(Waiter { queue, event })
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting();
        let count = &mut waiting[self.event as usize];
        *count -= 1;
        if *count == 0 {
            let (queue, region) = (&self.queue.queue, &self.queue.region);
            // If the bit stays set, it only costs others a system call.
            let _ = queue.set_waiting(region, self.event, false);
        }
    }
}
