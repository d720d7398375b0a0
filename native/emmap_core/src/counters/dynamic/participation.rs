//! The participation of this program in a file of dynamic counters: opening, closing, finding and adding counters.

use std::convert::Infallible;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use super::directory::{self, Found};
use super::entry::{self, Name};
use super::layout::{self, Geometry, Layout, ENTRIES};
use super::walk::walk;
use super::{Locked, Result, Stop};
use crate::patience::Deadline;
use crate::region::Wait;
use crate::store::participants::Presence;
use crate::store::shared::Mapped;
use crate::store::{self, exclusive, held, Absent, Body, Shared};
use crate::{os, Errno, Region};

pub type Error = store::Error<Infallible>;

/// The requested properties of a file.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Lines with a value for each counter of a new file.
    pub stripes: u32,
    /// The file must exist.
    pub existing: bool,
    /// Whether a call with an unknown name adds a counter.
    pub adds: bool,
    /// This program adds no counter to a file that has so many.
    pub most_names: u64,
}

/// The participation of this program in an open file.
pub struct Dynamic {
    presence: Arc<Presence>,
    geometry: Geometry,
    adds: bool,
    most_names: u64,
    given: Vec<Given>,
}

/// A name that was given when the file was opened, so that it is found without its directory.
struct Given {
    name: Box<[u8]>,
    hash: u64,
    at: u64,
}

/// Information about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    pub count: u64,
    pub most_names: u64,
    pub recoveries: u64,
    /// Entries that the last recovery dropped.
    pub dropped: u64,
}

/// Whether there is a file of dynamic counters at `path`.
pub fn is_dynamic(path: &Path) -> bool {
    store::open::start_of(path) == Some(Geometry::MAGIC)
}

/// Opens the counters at `path`, and creates the file unless it must exist. Blocks on the disk.
pub fn open(path: &Path, request: &Request) -> std::result::Result<(Region, Dynamic), Error> {
    let absent = match request.existing {
        true => Absent::Refuse,
        false => Absent::Create,
    };
    let store::Opened { region, layout } = store::open::<Layout>(path, request, absent)?;
    let dynamic = Dynamic::enter(&region, &layout, request)?;
    Ok((region, dynamic))
}

pub fn errno_of(stop: Stop) -> Errno {
    match stop {
        Stop::Posix(error) => error,
        Stop::Absent => Errno(libc::ENOENT),
        Stop::Full => Errno(libc::EDQUOT),
        Stop::Busy | Stop::Grow(_) => Errno::BUSY,
    }
}

impl Dynamic {
    fn enter(
        region: &Region,
        layout: &Layout,
        request: &Request,
    ) -> std::result::Result<Dynamic, Error> {
        let file = region.clone_file()?;
        let shared = Mapped::new(region);
        let lock = os::FileLock::wait(file.as_fd())?;
        let presence = Presence::enter(file.as_fd(), &shared, &layout::PARTICIPANTS)?;
        drop(lock);
        let dynamic = Dynamic {
            presence,
            geometry: layout.geometry,
            adds: request.adds,
            most_names: request.most_names,
            given: Vec::new(),
        };
        dynamic.make_valid(region, false)?;
        Ok(dynamic)
    }

    /// Recovers the file if it was last used before a reboot, or with `anyway`. EBUSY: another program is doing so, and takes
    /// long.
    fn make_valid(&self, region: &Region, anyway: bool) -> crate::Result<()> {
        let file = region.clone_file()?;
        let inode = os::stat(file.as_fd())?.inode;
        let others = Deadline::of_call(Errno::WAIT_SIZE);
        others.poll(|| loop {
            // Only one program at a time opens the file.
            let lock = os::FileLock::wait(file.as_fd())?;
            let shared = Mapped::new(region);
            let attempt = || {
                if !layout::BOOT.is_current(&shared, inode)? {
                    if !self.presence.is_alone() {
                        return Ok(None);
                    }
                    for word in [layout::LOCK, layout::LOG.length, layout::DIRECTORY] {
                        shared.store(word, 0)?;
                    }
                } else if anyway {
                    shared.store(layout::DIRECTORY, 0)?;
                }
                // With the lock comes the recovery.
                let attempt = self.attempt(region, Wait::Yes, &mut |_| Ok(()));
                Ok::<_, Errno>(Some(attempt))
            };
            match region.writing(attempt)? {
                None => return Ok(None),
                Some(Ok(())) => {
                    region.writing(|| layout::BOOT.set_current(&shared, inode))?;
                    return Ok(Some(()));
                }
                // Growing takes the same lock.
                Some(Err(Stop::Grow(to))) => {
                    drop(lock);
                    grow(region, to)?;
                }
                Some(Err(stop)) => return Err(errno_of(stop)),
            }
        })
    }

    /// As [`Region::reattach`], if it is still the same file. What is in it is then examined as after a reboot, because it may
    /// be a copy of the file from another time.
    pub fn reattach(&self, region: &Region) -> std::result::Result<(), Error> {
        store::reattach(region, |now: &Layout| match now.geometry == self.geometry {
            true => Ok(()),
            false => Err(store::BadFormat::Content.into()),
        })?;
        // A call that met the fault may have released the lock of a page that is gone.
        let shared = Mapped::new(region);
        exclusive::release_own(&shared, layout::LOCK, self.presence.owner())?;
        Ok(self.make_valid(region, true)?)
    }

    /// Whether a call with an unknown name adds a counter.
    #[inline(always)]
    pub fn adds(&self) -> bool {
        self.adds
    }

    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }

    /// The place of the counter with this name, if it can be found without the lock. To be called in
    /// [`Region::reading`] or [`Region::writing`].
    #[inline(always)]
    pub fn find(&self, region: &Region, name: &Name) -> crate::Result<Found> {
        directory::find(&Mapped::new(region), &self.geometry, name)
    }

    /// The place of the counter with this name, which [`Dynamic::find`] has not found; [`Stop::Absent`] if there is none.
    pub fn find_under_lock(&self, region: &Region, wait: Wait, name: &Name) -> Result<u64> {
        self.with(region, wait, |locked| {
            locked.find(name)?.ok_or(Stop::Absent)
        })
    }

    /// As [`Dynamic::find_under_lock`], but adds the counter if there is none. EILSEQ: the name is not UTF-8.
    pub fn find_or_add(&self, region: &Region, wait: Wait, name: &Name) -> Result<u64> {
        self.with(region, wait, |locked| {
            locked.find_or_add(name, self.most_names, wait == Wait::Yes)
        })
    }

    /// Adds counters that do not exist. From then on, [`Dynamic::given`] finds them by their index.
    pub fn give<'a>(
        &mut self,
        region: &Region,
        names: impl Iterator<Item = &'a [u8]>,
    ) -> Result<()> {
        for name in names {
            let name = Name::new(name, &self.geometry)?;
            let at = self.find_or_add(region, Wait::Yes, &name)?;
            self.given.push(Given {
                name: name.bytes.into(),
                hash: name.hash,
                at,
            });
        }
        Ok(())
    }

    /// The place of a name that was given; `None` if the file was replaced by one that has it elsewhere. To be called in
    /// [`Region::reading`] or [`Region::writing`].
    #[inline(always)]
    pub fn given(&self, region: &Region, index: usize) -> crate::Result<Option<u64>> {
        let Some(given) = self.given.get(index) else {
            return Ok(None);
        };
        // It is outside of the map if the file was replaced by a shorter one.
        let shared = Mapped::new(region);
        let is_there = entry::has_hash(&shared, given.at, given.name.len(), given.hash);
        let is_there = is_there.unwrap_or(false);
        Ok(is_there.then_some(given.at))
    }

    pub fn given_name(&self, index: usize) -> Option<Name<'_>> {
        self.given.get(index).map(|given| Name {
            bytes: &given.name,
            hash: given.hash,
        })
    }

    /// Adds to the counter at a place.
    #[inline(always)]
    pub fn add(&self, region: &Region, at: u64, value: i64) -> crate::Result<()> {
        use std::sync::atomic::Ordering::SeqCst;
        match self.geometry.stripes {
            1 => {
                region.word_mut(at)?.fetch_add(value, SeqCst);
                Ok(())
            }
            stripes => region.add_striped(at, stripes as usize, value),
        }
    }

    /// The value of the counter at a place.
    pub fn value(&self, region: &Region, at: u64) -> crate::Result<i64> {
        region.sum_striped(at, self.geometry.stripes as usize)
    }

    /// Sets the counter at a place.
    pub fn put(&self, region: &Region, at: u64, value: i64) -> crate::Result<()> {
        region.put_striped(at, self.geometry.stripes as usize, value)
    }

    /// Calls `act` with the names and values of up to `most` counters, from `from` on (0: from the first), and returns where the
    /// next ones are; `None` after the last.
    pub fn each(
        &self,
        region: &Region,
        wait: Wait,
        from: u64,
        most: usize,
        mut act: impl FnMut(&[u8], i64),
    ) -> Result<Option<u64>> {
        let from = from.max(ENTRIES);
        let shared = Mapped::new(region);
        let last = region.reading(|| shared.load(layout::LAST))?;
        let shared = match last > shared.len() {
            true => {
                // Another program has extended the file.
                self.with(region, wait, |_| Ok(()))?;
                Mapped::new(region)
            }
            false => shared,
        };
        let next = region.reading(|| {
            walk(&shared, &self.geometry, from, most, |at, name| {
                act(name, self.value(region, at)?);
                Ok(())
            })
        })?;
        Ok(next)
    }

    pub fn info(&self, region: &Region) -> crate::Result<Info> {
        let shared = Mapped::new(region);
        region.reading(|| {
            Ok(Info {
                count: shared.load(layout::COUNT)?,
                most_names: self.most_names,
                recoveries: shared.load(layout::RECOVERIES)?,
                dropped: shared.load(layout::DROPPED)?,
            })
        })
    }

    /// Runs `act` under the lock. If `act` requests it, the file is extended, and `act` runs again. [`Stop::Busy`]: this
    /// takes time, and the caller may not wait.
    #[cold]
    #[inline(never)]
    fn with<R>(
        &self,
        region: &Region,
        wait: Wait,
        mut act: impl FnMut(&Locked<Mapped>) -> Result<R>,
    ) -> Result<R> {
        loop {
            // A fault takes precedence over results that were read from the pages that replace the lost ones.
            let result = region.writing(|| Ok::<_, Errno>(self.attempt(region, wait, &mut act)))?;
            match result {
                Err(Stop::Grow(_)) if wait == Wait::No => return Err(Stop::Busy),
                Err(Stop::Grow(to)) => grow(region, to)?,
                result => return result,
            }
        }
    }

    fn attempt<R>(
        &self,
        region: &Region,
        wait: Wait,
        act: &mut impl FnMut(&Locked<Mapped>) -> Result<R>,
    ) -> Result<R> {
        let shared = Mapped::new(region);
        let (at, place, log) = (layout::LOCK, &layout::PARTICIPANTS, Some(&layout::LOG));
        let Some(_held) = held::take(&shared, at, &self.presence, place, log, wait)? else {
            return Err(Stop::Busy);
        };
        let locked = Locked {
            shared: &shared,
            geometry: &self.geometry,
        };
        if shared.load(layout::DIRECTORY)? == 0 {
            if wait == Wait::No {
                return Err(Stop::Busy);
            }
            locked.recover(|| region.sync(None, true))?;
        }
        // Another program may have extended the file beyond this map. A damaged word does not extend anything.
        let last = locked.last()?;
        if last > shared.len() {
            let len = region.clone_file()?.metadata().map_err(Errno::from)?.len();
            return Err(match len < last {
                true => Errno::IO.into(),
                false => Stop::Grow(last),
            });
        }
        act(&locked)
    }
}

/// Extends the map to at least `to` bytes: to what the file has, or a little more than needed, so that a file seldom grows.
fn grow(region: &Region, to: u64) -> crate::Result<()> {
    let len = region.clone_file()?.metadata().map_err(Errno::from)?.len();
    if len >= to {
        return region.grow(to);
    }
    let more = (to / 8).clamp(64 << 10, 64 << 20);
    let ample = (to + more).next_multiple_of(4096);
    match region.grow(ample) {
        // There may be room for less.
        Err(error) if error.is_wait() => Err(error),
        Err(_) => region.grow(to),
        grown => grown,
    }
}
