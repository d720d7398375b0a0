//! The participation of this program in a queue: opening, closing, the lock around each call, and the work around calls.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use super::admission::Limits;
use super::layout::{self, participant, DATA, STREAMS};
use super::pins::pinned;
use super::record::{self, Extension};
use super::summary::{Layout, Request};
use super::tail::{check_length, fill};
use super::waiting::{wake, Event};
use super::{recovery, Content, Locked, Result, Stop};
use crate::region::Wait;
use crate::store::exclusive;
use crate::store::held::{self, Held};
use crate::store::participants::{Presence, EVENTS};
use crate::store::shared::Mapped;
use crate::store::{self, Absent, Shared};
use crate::{os, patience, Errno, Region};

/// The result of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    At(u64),
    Duplicate,
}

/// The participation of this program in an open queue.
pub struct Queue {
    presence: Arc<Presence>,
    segment_size: u64,
    /// The random number of the file.
    file: u64,
    /// The tick in which dead participants were last looked for.
    looked: AtomicU64,
    /// The tick in which dead participants that had waited were last looked for.
    pub(super) woke: AtomicU64,
    /// Whether this handle waits for each event.
    pub(super) waits: [AtomicBool; EVENTS],
    /// Whether this handle was ended.
    left: AtomicBool,
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.forget_waiting();
        if !*self.left.get_mut() {
            // Not closed: the claims end with the presence, or when this program opens the queue again.
            self.presence.remove_user();
        }
    }
}

/// Checks the state of a file that this program opens, and rebuilds it after a reboot. The caller holds the lock of the file.
fn enter_as(
    presence: &Presence,
    region: &Region,
    layout: &Layout,
    shared: &Mapped,
    file: BorrowedFd,
) -> crate::Result<()> {
    let inode = os::stat(file)?.inode;
    let alone = presence.is_alone();
    if !layout::BOOT.is_current(shared, inode)? || (alone && !is_as_closed(shared)?) {
        // Live binaries that exist after a close also participate.
        if !alone || !presence.pins().is_empty() {
            return Err(Errno::BUSY);
        }
        let sync = || region.sync(None, true);
        recovery::recover(shared, layout, sync).map_err(errno_of)?;
        region.check_fault()?;
        layout::BOOT.set_current(shared, inode)?;
        // The epoch identifies the lock's owner; recovery has cleared it.
        let owner = presence.owner();
        shared.store(participant::PLACE.of(owner.slot()), owner.epoch())?;
    }
    shared.store(layout::CLEAN, 0)
}

/// Opens the queue at `path`, and creates it unless it must exist. Blocks on the disk.
pub fn open(path: &Path, request: &Request) -> std::result::Result<(Region, Queue), store::Error> {
    let absent = match request.existing {
        true => Absent::Refuse,
        false => Absent::Create,
    };
    let store::Opened { region, layout } = store::open::<Layout>(path, request, absent)?;
    let queue = Queue::enter(&region, &layout)?;
    Ok((region, queue))
}

impl Queue {
    fn enter(region: &Region, layout: &Layout) -> crate::Result<Queue> {
        let file = region.clone_file()?;
        let segment_size = layout.summary.segment_size;
        // Only one program at a time opens or closes the file.
        let lock = os::FileLock::wait(file.as_fd())?;
        let shared = Mapped::new(region);
        let presence = Presence::enter(file.as_fd(), &shared, &participant::PLACE)?;
        let first = presence.add_user();
        if let Err(error) = enter_as(&presence, region, layout, &shared, file.as_fd()) {
            presence.remove_user();
            return Err(error);
        }
        // Before the next handle can open the file. It then waits here until this one has cleaned up.
        let entering = presence.clone();
        let cleaning = first.then(|| entering.entering());
        drop(lock);
        if cleaning.is_none() {
            drop(entering.entering());
        }
        let queue = Queue {
            presence,
            segment_size,
            file: layout.summary.file,
            looked: AtomicU64::new(0),
            woke: AtomicU64::new(0),
            waits: Default::default(),
            left: AtomicBool::new(false),
        };
        let slot = queue.presence.owner().slot();
        let dead = |other: u32| !queue.presence.is_taken(other);
        queue
            .with(region, Wait::Yes, |locked| {
                // Claims that an earlier program in this slot left, if this program does not already have the slot.
                let mut released = 0;
                if first {
                    released += locked.clean_up(slot)?;
                    let pins = queue.presence.pins();
                    pins.publish(locked.shared, pinned(slot))?;
                }
                released += locked.clean_up_dead(dead)?;
                tell_of(region, released)
            })
            .map_err(errno_of)?;
        Ok(queue)
    }

    /// Ends this handle. With the last handle of this program, its claims end. A file that no other program uses is marked as
    /// closed, with a checksum. A program that does not get this far loses nothing.
    pub fn leave(&self, region: &Region) -> crate::Result<()> {
        if self.left.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let file = region.clone_file()?;
        let _lock = os::FileLock::wait(file.as_fd())?;
        if !self.presence.remove_user() {
            return Ok(());
        }
        let alone = self.presence.is_alone();
        self.with(region, Wait::Yes, |locked| {
            tell_of(region, locked.clean_up(locked.slot)?)?;
            if alone {
                locked.clean_up_dead(|_| true)?;
                locked.write_header()?;
                let closed = checksum(locked.shared)?;
                locked.shared.store(layout::CLEAN, closed)?;
            }
            Ok(())
        })
        .map_err(errno_of)
    }

    /// As [`Region::reattach`], if it is still the same file.
    pub fn reattach(&self, region: &Region) -> std::result::Result<(), store::Error> {
        store::reattach(region, |now: &Layout| {
            let same =
                now.summary.segment_size == self.segment_size && now.summary.file == self.file;
            match same {
                true => Ok(()),
                false => Err(store::BadFormat::Content.into()),
            }
        })?;
        // A call that met the fault may have released the lock of a page that is gone.
        let me = self.presence.owner();
        let shared = Mapped::new(region);
        exclusive::release_own(&shared, layout::LOCK, me)?;
        self.presence.pins().publish(&shared, pinned(self.slot()))?;
        Ok(())
    }

    pub fn segment_size(&self) -> u64 {
        self.segment_size
    }

    pub fn slot(&self) -> u32 {
        self.presence.owner().slot()
    }

    /// Runs `act` under the lock. If `act` requests it, the file is extended, or a header is written to the disk, and `act` runs
    /// again. [`Stop::Busy`]: this takes time, and the caller may not wait.
    #[inline(always)]
    pub fn with<R>(
        &self,
        region: &Region,
        wait: Wait,
        mut act: impl FnMut(&Locked<Mapped>) -> Result<R>,
    ) -> Result<R> {
        loop {
            // A fault takes precedence over results that were read from the pages that replace the lost ones.
            let result = region.writing(|| Ok::<_, Errno>(self.attempt(region, wait, &mut act)))?;
            match result {
                Err(Stop::Grow(to)) if wait == Wait::Yes => self.grow(region, to)?,
                Err(Stop::Checkpoint) if wait == Wait::Yes => self.checkpoint(region)?,
                Err(Stop::Grow(_) | Stop::Checkpoint) => return Err(Stop::Busy),
                result => return result,
            }
        }
    }

    #[inline(always)]
    fn attempt<R>(
        &self,
        region: &Region,
        wait: Wait,
        act: &mut impl FnMut(&Locked<Mapped>) -> Result<R>,
    ) -> Result<R> {
        let shared = Mapped::new(region);
        let Some(_guard) = self.lock(&shared, wait)? else {
            return Err(Stop::Busy);
        };
        let locked = Locked {
            shared: &shared,
            segment_size: self.segment_size,
            slot: self.slot(),
            may_wait: wait == Wait::Yes,
            new_salt: super::segment::new_salt,
        };
        // Another program may have extended the file beyond this map. A damaged word does not extend anything.
        let needed = super::segment::offset_of(locked.segments()?, self.segment_size);
        match needed > shared.len() {
            true if wait == Wait::Yes
                && region.clone_file()?.metadata().map_err(Errno::from)?.len() < needed =>
            {
                Err(Errno::IO.into())
            }
            true => Err(Stop::Grow(needed)),
            false => act(&locked),
        }
    }

    #[inline(always)]
    fn lock<'a>(&self, shared: &'a Mapped<'a>, wait: Wait) -> Result<Option<Held<'a>>> {
        let (at, place, log) = (layout::LOCK, &participant::PLACE, Some(&layout::LOG));
        Ok(held::take(shared, at, &self.presence, place, log, wait)?)
    }

    /// Extends the file to at least `to` bytes, and notifies all participants.
    #[cold]
    fn grow(&self, region: &Region, to: u64) -> Result<()> {
        if self.unpin_dead(region)? {
            // There may be room now.
            return Ok(());
        }
        region.grow(to)?;
        region.writing(|| {
            let shared = Mapped::new(region);
            let _guard = self.lock(&shared, Wait::Yes)?;
            let segments = ((shared.len() - DATA) / self.segment_size).min(layout::MOST_SEGMENTS);
            if segments > shared.load(layout::SEGMENTS)? {
                shared.store(layout::SEGMENTS, segments)?;
            }
            Ok(())
        })
    }

    /// Ends the pins of dead participants. Returns whether there were any.
    fn unpin_dead(&self, region: &Region) -> Result<bool> {
        region.writing(|| {
            let shared = Mapped::new(region);
            let _guard = self.lock(&shared, Wait::Yes)?;
            self.unlocked(&shared)
                .unpin_dead(|slot| !self.presence.is_taken(slot))
        })
    }

    /// Writes the current floors to the disk, so that the space before them can be reused.
    #[cold]
    fn checkpoint(&self, region: &Region) -> Result<()> {
        self.synced(region, || region.sync(Some((0, DATA)), true), false)
    }

    /// Writes everything that was done so far to the disk. Blocks on the disk.
    pub fn sync(&self, region: &Region) -> Result<()> {
        self.synced(region, || region.sync(None, true), true)
    }

    /// Writes a header, syncs, and records what is then known to be on the disk: the header and, with `all`, the pushed items.
    fn synced(
        &self,
        region: &Region,
        sync: impl FnOnce() -> crate::Result<()>,
        all: bool,
    ) -> Result<()> {
        let before = self.with(region, Wait::Yes, |locked| {
            locked.write_header()?;
            let mut tails = [(0, 0); STREAMS];
            for (stream, tail) in tails.iter_mut().enumerate() {
                let at = layout::stream::at(stream);
                *tail = (
                    locked.shared.load(at + layout::stream::TAIL)?,
                    locked.shared.load(at + layout::stream::SEQUENCE)?,
                );
            }
            Ok((
                locked.shared.load(layout::HEADER)?,
                locked.summary()?,
                tails,
            ))
        })?;
        sync()?;
        let (header, summary, tails) = before;
        self.with(region, Wait::Yes, |locked| {
            // A header that was written in the meantime may be partly on the disk.
            let current = locked.shared.load(layout::HEADER)? == header;
            locked.note_synced(current.then_some(&summary), all.then_some(&tails))
        })
    }

    /// Adds an item. An item that is larger than a segment is copied without the lock; [`Stop::Busy`] if the caller may not wait
    /// for that.
    ///
    /// # Safety
    /// The payload must have as many readable bytes as it says.
    #[inline(always)]
    pub unsafe fn push(
        &self,
        region: &Region,
        wait: Wait,
        (flags, payload, length): (u32, *const u8, usize),
        limits: &Limits,
    ) -> Result<Pushed> {
        check_length(length as u64)?;
        let mut content = Content {
            flags,
            extension: Extension::default(),
            payload,
            length,
        };
        if let Some((producer, number)) = limits.identity {
            content.flags |= record::IDENTITY;
            content.extension = Extension::identity(producer, number);
        }
        let room = content.room();
        if room > self.segment_size - super::segment::RECORDS {
            // SAFETY: the caller's promise.
            return unsafe { self.push_large(region, wait, &content, limits) };
        }
        self.with_waking(region, wait, Event::Items, |locked| {
            let Some(producer) = locked.admit(room, limits)? else {
                return Ok(Pushed::Duplicate);
            };
            // SAFETY: the caller's promise.
            let sequence = unsafe { locked.push_item(&content, producer)? };
            locked.enforce_lag()?;
            Ok(Pushed::At(sequence))
        })
    }

    /// # Safety
    /// As [`Queue::push`].
    #[cold]
    unsafe fn push_large(
        &self,
        region: &Region,
        wait: Wait,
        content: &Content,
        limits: &Limits,
    ) -> Result<Pushed> {
        if wait == Wait::No {
            return Err(Stop::Busy);
        }
        if patience::is_brief() {
            // It takes the lock twice, and cannot be abandoned in between.
            return Err(Errno::WAIT_STORE.into());
        }
        // One at a time: a slot has one reservation.
        let _turn = self.presence.turn();
        let reserved = self.with(region, wait, |locked| {
            match locked.admit(content.room(), limits)? {
                None => Ok(None),
                Some(_) => locked.reserve(layout::ITEMS, content).map(Some),
            }
        })?;
        let Some(reserved) = reserved else {
            return Ok(Pushed::Duplicate);
        };
        // SAFETY: the caller's promise.
        let filled = region.writing(|| unsafe { fill(&Mapped::new(region), content, &reserved) });
        self.with_waking(region, wait, Event::Items, |locked| {
            let crc = match filled {
                Ok(crc) => crc,
                Err(error) => {
                    locked.give_back()?;
                    return Err(error.into());
                }
            };
            let Some(producer) = locked.admit_again(limits)? else {
                locked.give_back()?;
                return Ok(Pushed::Duplicate);
            };
            let pushed = locked.push_reserved(content, reserved, crc, producer);
            if pushed.is_err() {
                locked.give_back()?;
            }
            locked.enforce_lag()?;
            Ok(Pushed::At(pushed?))
        })
    }

    /// Makes available what dead participants have checked out: always, or once per tick of the system's clock
    /// (1 to 10 milliseconds), because it asks the kernel about each participant that has claims. Waiting threads are notified.
    /// Returns how many items became available.
    #[inline(always)]
    pub fn look_for_dead<S: Shared>(
        &self,
        region: &Region,
        locked: &Locked<S>,
        always: bool,
    ) -> Result<u64> {
        let now = os::tick();
        let due = self.looked.load(Ordering::Relaxed) != now;
        if !always && !due {
            return Ok(0);
        }
        self.looked.store(now, Ordering::Relaxed);
        let released = locked.clean_up_dead(|slot| !self.presence.is_taken(slot))?;
        // The caller may take only one of them.
        tell_of(region, released)?;
        Ok(released)
    }

    /// Whether another program has claims. A thread that waits for items then has to check whether the program lives.
    pub fn others_have_claims(&self, region: &Region) -> crate::Result<bool> {
        let shared = Mapped::new(region);
        for slot in (0..store::participants::SLOTS).filter(|slot| *slot != self.slot()) {
            let at = participant::PLACE.of(slot) + participant::HAS_CLAIMS;
            if shared.load(at)? != 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The state without the lock, for what reads single words.
    pub(super) fn unlocked<'a, S: Shared>(&self, shared: &'a S) -> Locked<'a, S> {
        Locked {
            shared,
            segment_size: self.segment_size,
            slot: self.slot(),
            may_wait: true,
            new_salt: super::segment::new_salt,
        }
    }

    pub fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }
}

/// Wakes waiting threads, if items became available again because their participant ended.
fn tell_of(region: &Region, released: u64) -> Result<()> {
    match released {
        0 => Ok(()),
        _ => Ok(wake(region, Event::Items)?),
    }
}

impl<S: Shared> Locked<'_, S> {
    /// Records what is known to be on the disk.
    pub fn note_synced(
        &self,
        header: Option<&super::summary::Summary>,
        tails: Option<&[(u64, u64); STREAMS]>,
    ) -> Result<()> {
        let mut change = self.change();
        for stream in 0..STREAMS {
            let word = 8 * stream as u64;
            if let Some(tails) = tails {
                let (position, sequence) = tails[stream];
                if position > self.load(layout::DURABLE_POSITION + word)? {
                    change.set(layout::DURABLE_POSITION + word, position)?;
                    change.set(layout::DURABLE_SEQUENCE + word, sequence)?;
                }
            }
            if let Some(summary) = header {
                change.set(layout::SYNCED_FLOOR + word, summary.floor(stream))?;
            }
        }
        if header.is_some() {
            let synced = self.load(layout::SYNCED_HEADER)?;
            change.set(layout::SYNCED_HEADER, u64::from(synced == 0))?;
        }
        Ok(change.commit()?)
    }
}

/// Whether the control area is unchanged since the last participant closed it.
fn is_as_closed<S: Shared>(shared: &S) -> crate::Result<bool> {
    let clean = shared.load(layout::CLEAN)?;
    Ok(clean == 0 || clean == checksum(shared)?)
}

/// The mark of a closed file.
fn checksum<S: Shared>(shared: &S) -> crate::Result<u64> {
    let mut control = vec![0; (DATA - layout::LOCK) as usize];
    shared.read(layout::LOCK, &mut control)?;
    // Without the words that change between the mark and the next open.
    let mut clear = |at: u64, bytes: u64| {
        let at = (at - layout::LOCK) as usize;
        control[at..at + bytes as usize].fill(0);
    };
    clear(layout::LOCK, 8);
    clear(layout::CLEAN, 8);
    // The events, and the bits of waiting slots.
    clear(layout::ITEMS_EVENT, 32);
    for slot in 0..store::participants::SLOTS {
        clear(participant::PLACE.of(slot), 8);
        // Live binaries are collected after the close.
        clear(pinned(slot), 8);
    }
    Ok(1 << 32 | u64::from(crc32c::crc32c(&control)))
}

fn errno_of(stop: Stop) -> Errno {
    match stop {
        Stop::Posix(error) => error,
        Stop::Full => Errno::NOSPC,
        Stop::Busy | Stop::Grow(_) | Stop::Checkpoint => Errno::BUSY,
        Stop::Corrupt(_) | Stop::Gone => Errno::IO,
    }
}

#[cfg(test)]
mod tests;
