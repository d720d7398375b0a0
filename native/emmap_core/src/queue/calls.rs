//! The calls of a program on its queue: each takes the lock, and wakes the threads that wait for its result.

use super::layout::{self, OWN};
use super::participation::Queue;
use super::reading::{Found, Room};
use super::waiting::Event;
use super::{Claimed, Locked, Receipt, Result, Stop, Taken};
use crate::region::Wait;
use crate::store::shared::Mapped;
use crate::store::Shared;
use crate::{patience, Errno, Region};

/// Payloads up to this size are copied in the call itself, and payloads up to [`UNDER_LOCK`] under the lock.
pub const AT_ONCE: u64 = 64 << 10;
const UNDER_LOCK: u64 = 1 << 20;

impl Queue {
    /// As [`Queue::with`], for calls that make items or space available.
    #[inline(always)]
    pub fn with_waking<R>(
        &self,
        region: &Region,
        wait: Wait,
        event: Event,
        mut act: impl FnMut(&Locked<Mapped>) -> Result<R>,
    ) -> Result<R> {
        let (result, waiters) = self.with(region, wait, |locked| {
            let result = act(locked)?;
            // Under the lock: a thread that checks after setting its bit sees what was done, or its bit is seen here.
            Ok((result, locked.shared.load(event.waiters())?))
        })?;
        if waiters != 0 {
            self.wake_living(region, event)?;
        }
        Ok(result)
    }

    /// Takes the next item: its payload is copied to what `room` returns for it. `None`: no item is available.
    ///
    /// # Safety
    /// What `room` returns must have room for the payload, outside of any map.
    #[inline(always)]
    pub unsafe fn pop<R: Into<Room>>(
        &self,
        region: &Region,
        wait: Wait,
        cursor: usize,
        mut room: impl FnMut(&Found) -> R,
    ) -> Result<Option<Taken>> {
        let mut large = false;
        let taken = self.with_waking(region, wait, Event::Space, |locked| {
            large = false;
            // SAFETY: the caller's promise.
            let taken = unsafe {
                locked.pop(cursor, |found| {
                    large = found.head.length > limit(wait);
                    (!large).then(|| room(found))
                })?
            };
            match (taken, large) {
                (None, false) if self.look_for_dead(region, locked, true)? > 0 => Err(Stop::Gone),
                (taken, _) => Ok(taken),
            }
        });
        match (taken, large, wait) {
            // Items that a dead program had checked out are available now.
            // SAFETY: the caller's promise.
            (Err(Stop::Gone), _, _) => unsafe { self.pop(region, wait, cursor, room) },
            (Ok(None), true, Wait::No) => Err(Stop::Busy),
            // SAFETY: as above.
            (Ok(None), true, Wait::Yes) => unsafe { self.pop_large(region, cursor, room) },
            (taken, _, _) => taken,
        }
    }

    /// As [`Queue::pop`], for a payload that is not copied under the lock. It is checked out in the meantime.
    ///
    /// # Safety
    /// As [`Queue::pop`].
    #[cold]
    unsafe fn pop_large<R: Into<Room>>(
        &self,
        region: &Region,
        cursor: usize,
        mut room: impl FnMut(&Found) -> R,
    ) -> Result<Option<Taken>> {
        if patience::is_brief() {
            // It takes the lock twice, and cannot be abandoned in between.
            return Err(Errno::WAIT_STORE.into());
        }
        loop {
            let mut out = None;
            // Pins are made under the lock.
            let wants = |found: &Found| {
                out = Some(room(found).into());
                true
            };
            let claimed = self.check_out_if(region, Wait::Yes, cursor, (0, None), wants)?;
            let (Some(claimed), Some(out)) = (claimed, out) else {
                return Ok(None);
            };
            // SAFETY: the caller's promise; the claim keeps the record.
            match unsafe { self.deliver_claimed(region, cursor, &claimed, out)? } {
                Some(taken) => {
                    match self.acknowledge(region, Wait::Yes, cursor, &claimed.receipt) {
                        // Dropped in the meantime to make room.
                        Err(Stop::Gone) => continue,
                        done => return done.map(|()| Some(taken)),
                    }
                }
                None => continue,
            }
        }
    }

    /// Copies the payload of a claim without the lock, or checks whether it is intact. `None`: it was dropped in the meantime.
    ///
    /// # Safety
    /// There must be room for the payload, outside of any map.
    #[inline(always)]
    pub unsafe fn deliver_claimed(
        &self,
        region: &Region,
        cursor: usize,
        claimed: &Claimed,
        room: impl Into<Room>,
    ) -> Result<Option<Taken>> {
        match room.into() {
            // SAFETY: the caller's promise.
            Room::Copy(out) => unsafe { self.copy_claimed(region, cursor, claimed, out) },
            Room::InPlace => {
                let found = &claimed.found;
                // SAFETY: nothing is copied.
                let sound = region
                    .reading(|| unsafe { found.deliver(&Mapped::new(region), Room::InPlace) })?;
                self.delivered(region, cursor, claimed, sound)
            }
        }
    }

    /// # Safety
    /// `out` must have room for the payload, outside of any map.
    unsafe fn copy_claimed(
        &self,
        region: &Region,
        cursor: usize,
        claimed: &Claimed,
        out: *mut u8,
    ) -> Result<Option<Taken>> {
        let (found, room) = (&claimed.found, Room::Copy(out));
        // SAFETY: the caller's promise.
        let copied = region.reading(|| unsafe { found.deliver(&Mapped::new(region), room) })?;
        match copied {
            Some(taken) => Ok(Some(taken)),
            None => self.delivered(region, cursor, claimed, None),
        }
    }

    /// Handles the result of reading the payload of a claim.
    fn delivered(
        &self,
        region: &Region,
        cursor: usize,
        claimed: &Claimed,
        taken: Option<Taken>,
    ) -> Result<Option<Taken>> {
        match taken {
            Some(taken) => Ok(Some(taken)),
            // The item is already claimed, so the call cannot be abandoned.
            None => match patience::begun(|| {
                self.acknowledge(region, Wait::Yes, cursor, &claimed.receipt)
            }) {
                Ok(()) => Err(Stop::Corrupt(claimed.found.position)),
                Err(Stop::Gone) => Ok(None),
                Err(stop) => Err(stop),
            },
        }
    }

    /// Checks the next item out for `owner`. First makes available what dead programs have checked out.
    #[inline(always)]
    pub fn check_out(
        &self,
        region: &Region,
        wait: Wait,
        cursor: usize,
        owner: u32,
        most_attempts: Option<u16>,
    ) -> Result<Option<Claimed>> {
        self.check_out_if(region, wait, cursor, (owner, most_attempts), |_| true)
    }

    /// As [`Queue::check_out`], if `wants` returns `true` for the item. It is called under the lock. An item that is not wanted
    /// stays where it is: if it were checked out for a moment, its successors could be delivered before it elsewhere.
    #[inline(always)]
    pub fn check_out_if(
        &self,
        region: &Region,
        wait: Wait,
        cursor: usize,
        (owner, most_attempts): (u32, Option<u16>),
        mut wants: impl FnMut(&Found) -> bool,
    ) -> Result<Option<Claimed>> {
        let mut most_attempts = most_attempts;
        loop {
            let claimed = self.with(region, wait, |locked| {
                self.look_for_dead(region, locked, false)?;
                let claimed = locked.check_out_if(cursor, owner, most_attempts, &mut wants)?;
                match claimed {
                    None if self.look_for_dead(region, locked, true)? > 0 => {
                        locked.check_out_if(cursor, owner, most_attempts, &mut wants)
                    }
                    claimed => Ok(claimed),
                }
            });
            match claimed {
                // An item cannot be set aside for lack of room. It is delivered once more, so that the items after it can be delivered.
                Err(Stop::Posix(Errno::NOSPC)) if most_attempts.is_some() => most_attempts = None,
                claimed => return claimed,
            }
        }
    }

    /// The reader with this name, with a new maximum lag. A reader that is created is on the disk when this returns.
    pub fn reader(&self, region: &Region, name: &[u8], most_lag: u64) -> Result<usize> {
        let (reader, created) = self.with(region, Wait::Yes, |locked| {
            Ok(match locked.find_reader(name)? {
                Some(reader) => {
                    locked.set_most_lag(reader, most_lag)?;
                    (reader, false)
                }
                None => (locked.create_reader(name, most_lag)?, true),
            })
        })?;
        if created {
            self.sync(region)?;
        }
        Ok(reader)
    }

    /// Acknowledges an item. [`Stop::Gone`]: the claim has already ended.
    #[inline(always)]
    pub fn acknowledge(
        &self,
        region: &Region,
        wait: Wait,
        cursor: usize,
        receipt: &Receipt,
    ) -> Result<()> {
        self.with_waking(region, wait, Event::Space, |locked| {
            locked.acknowledge(cursor, receipt)
        })
    }

    /// Writes acknowledgements to the stream, so that the next sync makes them durable.
    pub fn record_acknowledgements(
        &self,
        region: &Region,
        cursor: usize,
        sequences: &[u64],
    ) -> Result<()> {
        let words = std::iter::once(cursor as u64).chain(sequences.iter().copied());
        let payload: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        let content = super::tail::content(super::record::ACKS, Default::default(), &payload);
        self.with(region, Wait::Yes, |locked| {
            if !locked.fits_in_segment(content.room()) {
                return Err(Stop::Full);
            }
            // SAFETY: the payload is alive.
            unsafe { locked.push(layout::ITEMS, &content).map(drop) }
        })
    }

    /// Makes an item available again, at its place in the order. [`Stop::Gone`]: the claim has already ended.
    pub fn release(
        &self,
        region: &Region,
        wait: Wait,
        cursor: usize,
        receipt: &Receipt,
    ) -> Result<()> {
        self.with_waking(region, wait, Event::Items, |locked| {
            locked.release_claim(cursor, receipt)
        })
    }

    /// Makes all items available again that `owner` has checked out.
    pub fn release_owner(&self, region: &Region, wait: Wait, owner: u32) -> Result<u64> {
        self.with_waking(region, wait, Event::Items, |locked| {
            locked.release_all(locked.slot, Some(owner))
        })
    }

    /// How many items a cursor can take, and how many are checked out. Takes no lock.
    pub fn lengths(&self, region: &Region, cursor: usize) -> crate::Result<(u64, u64)> {
        region.reading(|| {
            let shared = Mapped::new(region);
            self.unlocked(&shared).lengths(cursor).map_err(posix)
        })
    }

    /// The bytes from the oldest item that the queue's own cursor needs to the tail. Takes no lock, unless another program
    /// has made the file longer than this map is.
    pub fn bytes(&self, region: &Region, wait: Wait) -> Result<u64> {
        let unlocked = region.reading(|| {
            let shared = Mapped::new(region);
            self.unlocked(&shared).bytes()
        });
        match unlocked {
            // The oldest claim may be in a segment past the end of the map.
            Err(Stop::Posix(Errno::INVAL)) => self.with(region, wait, |locked| locked.bytes()),
            bytes => bytes,
        }
    }
}

impl<S: Shared> Locked<'_, S> {
    fn bytes(&self) -> Result<u64> {
        let tail = self.load(layout::stream::at(layout::ITEMS) + layout::stream::TAIL)?;
        Ok(tail.saturating_sub(self.floor_of(OWN)?))
    }
}

fn limit(wait: Wait) -> u64 {
    match wait {
        Wait::No => AT_ONCE,
        Wait::Yes => UNDER_LOCK,
    }
}

fn posix(stop: Stop) -> crate::Errno {
    match stop {
        Stop::Posix(error) => error,
        _ => crate::Errno::IO,
    }
}
