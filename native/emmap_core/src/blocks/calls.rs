//! The calls of a program. Reads take no lock, unless the data does not match its checksum.

use super::participation::Blocks;
use super::recovery::Recovered;
use super::replacing;
use super::{layout, Locked, Result, Stop};
use crate::region::Wait;
use crate::store::shared::Mapped;
use crate::store::Shared;
use crate::{patience, Errno, Region};

use std::os::fd::AsFd;

/// How many groups a sync writes to the disk together. It keeps one page of each in memory.
const GROUPS_AT_ONCE: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    pub block_size: u64,
    pub count: u64,
    pub capacity: u64,
    /// Blocks that were replaced, and that the next sync moves to their places.
    pub replaced: u64,
    pub recoveries: u64,
    pub recovered: Recovered,
}

impl Blocks {
    /// Stores a block at the lowest free address, and returns the address.
    ///
    /// # Safety
    /// `data` must have as many readable bytes as a block has.
    #[inline(always)]
    pub unsafe fn store(&self, region: &Region, wait: Wait, data: *const u8) -> Result<u64> {
        // SAFETY: the caller's promise.
        self.with(region, wait, |locked| unsafe { locked.store(data) })
    }

    /// Stores a block at a free address; EEXIST if it is in use.
    ///
    /// # Safety
    /// As [`Blocks::store`].
    pub unsafe fn store_at(
        &self,
        region: &Region,
        wait: Wait,
        address: u64,
        data: *const u8,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        self.with(region, wait, |locked| unsafe {
            locked.store_at(address, data)
        })
    }

    /// Stores blocks, and reports the address of each. If it fails, the first blocks are stored.
    ///
    /// # Safety
    /// As [`Blocks::store`], of each.
    pub unsafe fn store_many(
        &self,
        region: &Region,
        wait: Wait,
        data: &[*const u8],
        mut stored: impl FnMut(u64),
    ) -> Result<()> {
        let mut done = 0;
        self.with(region, wait, |locked| {
            while let Some(block) = data.get(done) {
                // SAFETY: the caller's promise.
                stored(unsafe { locked.store(*block)? });
                done += 1;
            }
            Ok(())
        })
    }

    /// Replaces the bytes of a block.
    ///
    /// # Safety
    /// As [`Blocks::store`].
    pub unsafe fn write(
        &self,
        region: &Region,
        wait: Wait,
        address: u64,
        data: *const u8,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        self.with(region, wait, |locked| unsafe {
            locked.replace(address, data)
        })
    }

    pub fn free(&self, region: &Region, wait: Wait, address: u64) -> Result<()> {
        self.with(region, wait, |locked| locked.free(address))
    }

    /// Runs a call that needs no lock, on a map that covers all blocks.
    #[inline(always)]
    fn unlocked<R>(
        &self,
        region: &Region,
        wait: Wait,
        act: impl Fn(&Locked<Mapped>) -> Result<R>,
    ) -> Result<R> {
        let result = region.reading(|| {
            let capacity = Mapped::new(region).load(layout::CAPACITY)?;
            let Some(shared) = self.reach(region, capacity) else {
                return Ok::<_, Errno>(Err(Stop::Grow(capacity)));
            };
            Ok(act(&Locked {
                shared: &shared,
                geometry: &self.geometry,
            }))
        })?;
        match result {
            // The map is too short, or it was when the file grew at the same time. Under the lock, this is certain.
            Err(Stop::Grow(_) | Stop::Posix(Errno::INVAL)) if wait == Wait::Yes => {
                self.with(region, wait, act)
            }
            Err(Stop::Grow(_) | Stop::Posix(Errno::INVAL)) => Err(Stop::Busy),
            result => result,
        }
    }

    /// Copies a block to `out`.
    ///
    /// # Safety
    /// `out` must have room for a block, outside of any map.
    #[inline(always)]
    pub unsafe fn read(
        &self,
        region: &Region,
        wait: Wait,
        address: u64,
        out: *mut u8,
    ) -> Result<()> {
        let sound = self.unlocked(region, wait, |locked| match locked.is_live(address)? {
            // SAFETY: the caller's promise.
            true => Ok(unsafe { replacing::read(locked.shared, &self.geometry, address, out)? }),
            false => Err(Stop::Absent),
        })?;
        match sound {
            true => Ok(()),
            // SAFETY: the caller's promise.
            false => unsafe { self.read_locked(region, wait, address, out) },
        }
    }

    /// Reads a block that another thread changes, or that is damaged.
    ///
    /// # Safety
    /// As [`Blocks::read`].
    #[cold]
    unsafe fn read_locked(
        &self,
        region: &Region,
        wait: Wait,
        address: u64,
        out: *mut u8,
    ) -> Result<()> {
        self.with(region, wait, |locked| {
            if !locked.is_live(address)? {
                return Err(Stop::Absent);
            }
            // SAFETY: the caller's promise.
            match unsafe { replacing::read(locked.shared, &self.geometry, address, out)? } {
                true => Ok(()),
                false => Err(Stop::Corrupt(address)),
            }
        })
    }

    /// Whether a block in use matches its checksum. Needs no memory for it.
    pub fn is_sound(&self, region: &Region, address: u64) -> Result<bool> {
        let check = |locked: &Locked<Mapped>| match locked.is_live(address)? {
            true => Ok(replacing::is_sound(locked.shared, &self.geometry, address)?),
            false => Err(Stop::Absent),
        };
        match self.unlocked(region, Wait::Yes, check)? {
            true => Ok(true),
            false => self.with(region, Wait::Yes, check),
        }
    }

    /// Where a block is in the file; `None` if it is in a slot, where it does not stay.
    pub fn locate(&self, region: &Region, wait: Wait, address: u64) -> Result<Option<u64>> {
        self.unlocked(region, wait, |locked| match locked.is_live(address)? {
            true if locked.is_replaced(address)? => Ok(None),
            true => Ok(Some(self.geometry.block(address))),
            false => Err(Stop::Absent),
        })
    }

    pub fn is_used(&self, region: &Region, wait: Wait, address: u64) -> Result<bool> {
        self.unlocked(region, wait, |locked| locked.is_live(address))
    }

    /// The first block in use from `from` on, below `end`.
    pub fn next_used(
        &self,
        region: &Region,
        wait: Wait,
        from: u64,
        end: u64,
    ) -> Result<Option<u64>> {
        self.unlocked(region, wait, |locked| locked.next_live(from, end))
    }

    /// The last block in use below `end`.
    pub fn last_used(&self, region: &Region, wait: Wait, end: u64) -> Result<Option<u64>> {
        self.unlocked(region, wait, |locked| locked.last_taken(end, false))
    }

    /// The current state. Each number is from one moment, but not all from the same.
    pub fn info(&self, region: &Region, wait: Wait) -> Result<Info> {
        self.unlocked(region, wait, |locked| {
            let word = |at| locked.shared.load(at);
            Ok(Info {
                block_size: self.geometry.block_size,
                count: word(layout::COUNT)?,
                capacity: word(layout::CAPACITY)?,
                replaced: word(layout::REPLACED)?,
                recoveries: word(layout::RECOVERIES)?,
                recovered: Recovered {
                    kept: word(layout::KEPT)?,
                    dropped: word(layout::DROPPED)?,
                },
            })
        })
    }

    /// How many blocks are in use.
    #[inline(always)]
    pub fn count(&self, region: &Region) -> crate::Result<u64> {
        region.reading(|| Mapped::new(region).load(layout::COUNT))
    }

    /// Writes everything that was done so far to the disk. One sync serves all waiting callers. Blocks on the disk.
    pub fn sync(&self, region: &Region) -> Result<()> {
        if patience::is_brief() {
            // It takes locks in several steps, and others may hold them for long.
            return Err(Errno::WAIT_LONG.into());
        }
        let done = |shared: &Mapped| shared.load(layout::SYNCS_DONE);
        let begun = region.reading(|| Mapped::new(region).load(layout::SYNCS_BEGUN))?;
        let _one = self
            .syncing
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let shared = Mapped::new(region);
        // A sync that began after this call covers it.
        let covered = || Ok(done(&shared)? > begun);
        let Some(_held) = self.lock_long(region, &shared, layout::SYNC_LOCK, covered)? else {
            return Ok(());
        };
        let number = self.with(region, Wait::Yes, |locked| locked.begin_sync())?;
        let (mut from, mut some) = (0, false);
        loop {
            let capacity = region.reading(|| Mapped::new(region).load(layout::CAPACITY))?;
            let end = self.geometry.groups_of(capacity).min(from + GROUPS_AT_ONCE);
            if from >= end && some {
                break;
            }
            self.sync_groups(region, from..end)?;
            (from, some) = (end, true);
        }
        self.with(region, Wait::Yes, |locked| locked.end_sync(number))
    }

    fn sync_groups(&self, region: &Region, groups: std::ops::Range<u64>) -> Result<()> {
        let with = |act: &mut dyn FnMut(&Locked<Mapped>) -> Result<()>| {
            self.with(region, Wait::Yes, |locked| act(locked))
        };
        let mut seen = Vec::new();
        for group in groups {
            with(&mut |locked| {
                seen.extend(locked.see_group(group)?);
                Ok(())
            })?;
        }
        let mut in_slots = Vec::new();
        with(&mut |locked| {
            in_slots = locked.see_slots()?;
            Ok(())
        })?;
        region.sync(None, true)?;
        if seen.is_empty() && in_slots.is_empty() {
            return Ok(());
        }
        for group in &seen {
            with(&mut |locked| locked.cover(group))?;
        }
        for slot in &in_slots {
            with(&mut |locked| locked.cover_slot(slot))?;
        }
        region.sync(None, true)?;
        for slot in &in_slots {
            with(&mut |locked| locked.end_slot_of_sync(slot))?;
        }
        for group in &seen {
            with(&mut |locked| locked.end_group(group))?;
        }
        Ok(())
    }

    /// Releases the disk space of the free end of the file, and returns how many bytes of the file that is.
    pub fn trim(&self, region: &Region) -> Result<u64> {
        let file = region.clone_file()?;
        let shared = Mapped::new(region);
        // No other thread makes room in the meantime.
        let _alone = self.lock_long(region, &shared, layout::CAPACITY_LOCK, || Ok(false))?;
        let Some(from) = self.with(region, Wait::Yes, |locked| locked.trim())? else {
            return Ok(0);
        };
        let end = file.metadata().map_err(Errno::from)?.len();
        let count = end.saturating_sub(from);
        crate::os::punch_hole(file.as_fd(), from, count)?;
        Ok(count)
    }
}
