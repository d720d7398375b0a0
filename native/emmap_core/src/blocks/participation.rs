//! The participation of this program in a file of blocks: opening, closing, and the lock around each call.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::description::{Layout, OtherSize, Request};
use super::layout::{self, Geometry};
use super::{Locked, Result, Stop};
use crate::patience::Deadline;
use crate::region::Wait;
use crate::store::participants::Presence;
use crate::store::shared::Mapped;
use crate::store::{self, exclusive, held, Absent, Shared};
use crate::{os, Errno, Region};

pub type Error = store::Error<OtherSize>;

/// A sync, or growing, may take long on a slow disk.
const PATIENCE: Duration = Duration::from_secs(300);

/// The participation of this program in an open file of blocks.
pub struct Blocks {
    presence: Arc<Presence>,
    pub(super) geometry: Geometry,
    /// Only one sync of this handle runs at a time. The others wait for it without asking the kernel.
    pub(super) syncing: Mutex<()>,
    /// The map covers all blocks below this.
    reached: AtomicU64,
    /// Whether this handle was ended.
    left: AtomicBool,
}

impl Drop for Blocks {
    fn drop(&mut self) {
        if !*self.left.get_mut() {
            self.presence.remove_user();
        }
    }
}

/// Opens the blocks at `path`, and creates the file unless it must exist. Blocks on the disk.
pub fn open(path: &Path, request: &Request) -> std::result::Result<(Region, Blocks), Error> {
    let absent = match request.existing || request.block_size.is_none() {
        true => Absent::Refuse,
        false => Absent::Create,
    };
    let store::Opened { region, layout } = store::open::<Layout>(path, request, absent)?;
    let blocks = Blocks::enter(&region, &layout)?;
    Ok((region, blocks))
}

fn errno_of(stop: Stop) -> Errno {
    match stop {
        Stop::Posix(error) => error,
        Stop::Absent | Stop::Corrupt(_) => Errno::IO,
        Stop::Busy | Stop::Grow(_) | Stop::Sync => Errno::BUSY,
    }
}

impl Blocks {
    fn enter(region: &Region, layout: &Layout) -> std::result::Result<Blocks, Error> {
        let file = region.clone_file()?;
        // Only one program at a time opens or closes the file.
        let lock = os::FileLock::wait(file.as_fd())?;
        let shared = Mapped::new(region);
        let presence = Presence::enter(file.as_fd(), &shared, &layout::PARTICIPANTS)?;
        presence.add_user();
        let inode = os::stat(file.as_fd())?.inode;
        let entered = enter_as(&presence, region, layout, &shared, inode);
        drop(lock);
        if let Err(error) = entered {
            presence.remove_user();
            return Err(error);
        }
        Ok(Blocks {
            presence,
            geometry: layout.geometry,
            syncing: Mutex::new(()),
            reached: AtomicU64::new(0),
            left: AtomicBool::new(false),
        })
    }

    /// Ends this handle. The last handle of a program writes everything to the disk; the last program marks the file as closed.
    /// A program that does not get this far loses nothing as long as the machine runs.
    pub fn leave(&self, region: &Region) -> crate::Result<()> {
        if self.left.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let file = region.clone_file()?;
        let _lock = os::FileLock::wait(file.as_fd())?;
        if !self.presence.remove_user() {
            return Ok(());
        }
        self.sync(region).map_err(errno_of)?;
        if !self.presence.is_alone() {
            return Ok(());
        }
        // The mark matches the contents, because no other program uses the file.
        self.with(region, Wait::Yes, |locked| match locked.is_as_synced()? {
            true => Ok(locked.shared.store(layout::CLEAN, 1)?),
            false => Ok(()),
        })
        .map_err(errno_of)
    }

    /// As [`Region::reattach`], if it is still the same file.
    pub fn reattach(&self, region: &Region) -> std::result::Result<(), store::Error> {
        store::reattach(region, |now: &Layout| match now.geometry == self.geometry {
            true => Ok(()),
            false => Err(store::BadFormat::Content.into()),
        })?;
        // A call that met the fault may have released the lock of a page that is gone.
        let (shared, me) = (Mapped::new(region), self.presence.owner());
        for lock in [layout::LOCK, layout::SYNC_LOCK, layout::CAPACITY_LOCK] {
            exclusive::release_own(&shared, lock, me)?;
        }
        Ok(())
    }

    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }

    /// Runs `act` under the lock. If `act` requests it, the file is extended, or a sync is done, and `act` runs again.
    /// [`Stop::Busy`]: this takes time, and the caller may not wait.
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
                Err(Stop::Sync) if wait == Wait::Yes => self.sync(region)?,
                Err(Stop::Grow(_) | Stop::Sync) => return Err(Stop::Busy),
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
        let Some(_held) = self.lock(&shared, wait)? else {
            return Err(Stop::Busy);
        };
        let capacity = shared.load(layout::CAPACITY)?;
        match self.reach(region, capacity) {
            Some(shared) => act(&Locked {
                shared: &shared,
                geometry: &self.geometry,
            }),
            None => self.follow(region, wait, capacity),
        }
    }

    /// The map, if it covers all blocks below this capacity.
    #[inline(always)]
    pub(super) fn reach<'a>(&self, region: &'a Region, capacity: u64) -> Option<Mapped<'a>> {
        // The map after the word: it is at least as long as when the word was stored, because it never shrinks.
        let reached = self.reached.load(Ordering::Acquire);
        let shared = Mapped::new(region);
        (capacity <= reached || self.reaches_now(&shared, capacity)).then_some(shared)
    }

    #[cold]
    fn reaches_now(&self, shared: &Mapped, capacity: u64) -> bool {
        let reaches = capacity <= self.geometry.most_blocks
            && self.geometry.file_size(capacity) <= shared.len();
        if reaches {
            self.reached.fetch_max(capacity, Ordering::Release);
        }
        reaches
    }

    /// Another program has extended the file beyond this map. A damaged word does not extend anything.
    #[cold]
    fn follow<R>(&self, region: &Region, wait: Wait, capacity: u64) -> Result<R> {
        if wait == Wait::No {
            return Err(Stop::Busy);
        }
        let len = region.clone_file()?.metadata().map_err(Errno::from)?.len();
        if capacity > self.geometry.most_blocks || self.geometry.file_size(capacity) > len {
            return Err(Errno::IO.into());
        }
        Err(Stop::Grow(capacity))
    }

    #[inline(always)]
    pub(super) fn lock<'a>(
        &self,
        shared: &'a Mapped<'a>,
        wait: Wait,
    ) -> Result<Option<held::Held<'a>>> {
        let (at, place, log) = (layout::LOCK, &layout::PARTICIPANTS, Some(&layout::LOG));
        Ok(held::take(shared, at, &self.presence, place, log, wait)?)
    }

    /// Takes a lock whose owner may wait for the disk, unless `done`. EBUSY: it has been held for minutes.
    pub(super) fn lock_long<'a>(
        &self,
        region: &Region,
        shared: &'a Mapped<'a>,
        at: u64,
        done: impl Fn() -> crate::Result<bool>,
    ) -> Result<Option<held::Held<'a>>> {
        let deadline = Deadline::within(PATIENCE, Errno::WAIT_LONG);
        let (presence, place) = (self.presence(), &layout::PARTICIPANTS);
        let held = deadline.poll(|| {
            if region.reading(&done)? {
                return Ok(Some(None));
            }
            let held = region.reading(|| held::attempt(shared, at, presence, place))?;
            Ok(held.map(Some))
        })?;
        Ok(held)
    }

    /// Makes room for this many blocks. In the meantime, only calls that also need more room wait for the disk.
    #[cold]
    fn grow(&self, region: &Region, capacity: u64) -> Result<()> {
        let shared = Mapped::new(region);
        let before = || shared.load(layout::CAPACITY);
        let to = self.geometry.file_size(capacity);
        let enough = || Ok(before()? >= capacity);
        let _alone = match self.lock_long(region, &shared, layout::CAPACITY_LOCK, enough)? {
            Some(held) if region.reading(before)? < capacity => held,
            // Another thread has made room, which this map may not cover yet.
            _ => return Ok(region.grow(to)?),
        };
        let from = self.geometry.file_size(region.reading(before)?).min(to);
        region.grow(to)?;
        if from < to {
            // The end of the file may have been trimmed.
            region.allocate(from, to - from)?;
        }
        region.writing(|| {
            let shared = Mapped::new(region);
            let _held = self.lock(&shared, Wait::Yes)?;
            Ok(shared.store(layout::CAPACITY, capacity)?)
        })
    }
}

/// Checks the state of a file that this program opens, and rebuilds it after a reboot. The caller holds the lock of the file.
fn enter_as(
    presence: &Presence,
    region: &Region,
    layout: &Layout,
    shared: &Mapped,
    inode: u64,
) -> std::result::Result<(), Error> {
    let locked = Locked {
        shared,
        geometry: &layout.geometry,
    };
    let current = layout::BOOT.is_current(shared, inode)?;
    let alone = presence.is_alone();
    let closed = current && shared.load(layout::CLEAN)? == 1;
    if !current || (alone && closed && !locked.is_as_synced().map_err(errno_of)?) {
        if !alone {
            return Err(Errno::BUSY.into());
        }
        match locked.recover(closed) {
            Err(Stop::Posix(Errno::IO)) => {
                region.check_fault()?;
                return Err(store::BadFormat::Length.into());
            }
            recovered => recovered.map_err(errno_of)?,
        };
        region.check_fault()?;
        layout::BOOT.set_current(shared, inode)?;
    }
    Ok(shared.store(layout::CLEAN, 0)?)
}
