//! The programs that use the file of a structure: each program that opened it has a slot, and holds the kernel's lock of one
//! byte for as long as it lives.
//!
//! Nothing here depends on process numbers, which differ between containers, or on time.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::exclusive::{Owner, Peers};
use super::pins::Pins;
use super::Shared;
use crate::mapped_file::Identity;
use crate::{os, Errno, Result};

/// How many programs can use a file at once.
pub const SLOTS: u32 = 64;
/// How many events a structure can have that programs wait for.
pub const EVENTS: usize = 2;
/// The byte of slot 0: beyond the end of any file.
const FIRST_BYTE: u64 = 1 << 62;

/// Where the slots of a structure are. The first word of each is its epoch.
#[derive(Clone, Copy)]
pub struct Place {
    pub slots: u64,
    pub bytes_of_each: u64,
}

impl Place {
    pub fn of(&self, slot: u32) -> u64 {
        self.slots + u64::from(slot) * self.bytes_of_each
    }
}

/// The participation of this program in a file, shared by all of its handles of the file. It ends with the last of them and
/// of the live binaries that they made, or with the program.
pub struct Presence {
    file: File,
    identity: Identity,
    owner: Owner,
    /// The process that took the slot.
    process: u32,
    turn: Mutex<()>,
    entering: Mutex<()>,
    /// How many handles wait for each of the events of a structure.
    waiting: Mutex<[usize; EVENTS]>,
    /// How many handles this program has open.
    users: AtomicUsize,
    pins: Pins,
}

static PRESENT: Mutex<BTreeMap<Identity, Weak<Presence>>> = Mutex::new(BTreeMap::new());

impl Presence {
    /// Takes a slot of the file, or returns the one that this program already has.
    ///
    /// EUSERS: all slots are in use. EBUSY if the system does not support locks of single bytes and another program has the file.
    pub fn enter<S: Shared>(fd: BorrowedFd, shared: &S, place: &Place) -> Result<Arc<Presence>> {
        let identity = Identity::of(&os::stat(fd)?);
        // A forked child is a separate program: its parent may die before it.
        let process = std::process::id();
        let mut present = PRESENT.lock().unwrap_or_else(PoisonError::into_inner);
        let known = present.get(&identity).and_then(Weak::upgrade);
        if let Some(presence) = known.filter(|known| known.process == process) {
            return Ok(presence);
        }
        let presence = Presence::take_slot(fd, (identity, process), shared, place)?;
        let presence = Arc::new(presence);
        present.retain(|_, presence| presence.strong_count() > 0);
        present.insert(identity, Arc::downgrade(&presence));
        Ok(presence)
    }

    /// Adds a handle of this program. Returns whether it is the only one.
    pub fn add_user(&self) -> bool {
        self.users.fetch_add(1, Ordering::AcqRel) == 0
    }

    /// Removes a handle. Returns whether it was the last.
    pub fn remove_user(&self) -> bool {
        self.users.fetch_sub(1, Ordering::AcqRel) == 1
    }

    fn take_slot<S: Shared>(
        fd: BorrowedFd,
        (identity, process): (Identity, u32),
        shared: &S,
        place: &Place,
    ) -> Result<Presence> {
        let file = os::reopen(fd)?;
        for slot in 0..SLOTS {
            if os::try_lock_byte(&file, FIRST_BYTE + u64::from(slot))? {
                // No other program changes it, because the slot belongs to this one.
                let epoch = shared.load(place.of(slot))?.wrapping_add(1) & (u64::MAX >> 8);
                shared.store(place.of(slot), epoch)?;
                let owner = Owner::new(slot, epoch);
                return Ok(Presence {
                    file,
                    identity,
                    owner,
                    process,
                    waiting: Mutex::new([0; EVENTS]),
                    turn: Mutex::new(()),
                    entering: Mutex::new(()),
                    users: AtomicUsize::new(0),
                    pins: Pins::default(),
                });
            }
            if cfg!(not(target_os = "linux")) {
                return Err(Errno::BUSY);
            }
        }
        Err(Errno(libc::EUSERS))
    }

    /// As if another program had opened the file.
    #[cfg(test)]
    pub fn of_another_program<S: Shared>(
        fd: BorrowedFd,
        shared: &S,
        place: &Place,
    ) -> Result<Presence> {
        let identity = Identity::of(&os::stat(fd)?);
        Presence::take_slot(fd, (identity, std::process::id()), shared, place)
    }

    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Identifies the file.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Held by the thread of this program that uses something that a slot has only once. For a thread that may wait.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held by the first handle while it ends what an earlier program left in the slot. The other handles of this program
    /// pass it before their first call: what they had done in between would end, too.
    pub fn entering(&self) -> MutexGuard<'_, ()> {
        self.entering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no handle is cleaning up.
    #[cfg(test)]
    pub fn is_entered(&self) -> bool {
        self.entering.try_lock().is_ok()
    }

    /// The positions that live binaries of this program show, also after its last handle was closed.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The descriptor that holds the lock of the slot. A forked child has to close it, or it keeps the lock of its parent.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// How many handles of this program wait for each event.
    pub fn waiting(&self) -> MutexGuard<'_, [usize; EVENTS]> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another program has the slot.
    pub fn is_taken(&self, slot: u32) -> bool {
        // An error does not prove a death.
        os::is_byte_locked(&self.file, FIRST_BYTE + u64::from(slot)).unwrap_or(true)
    }

    /// Whether no other program participates.
    pub fn is_alone(&self) -> bool {
        (0..SLOTS).all(|slot| slot == self.owner.slot() || !self.is_taken(slot))
    }
}

/// The participants of a file, for the lock.
pub struct Others<'a, S> {
    pub presence: &'a Presence,
    pub shared: &'a S,
    pub place: &'static Place,
}

impl<S: Shared> Peers for Others<'_, S> {
    fn is_alive(&self, owner: Owner) -> bool {
        let slot = owner.slot();
        if slot >= SLOTS {
            // Not a valid slot: a damaged word.
            return false;
        }
        // If another program now has the slot, its previous owner has left it.
        let epoch = self.shared.load(self.place.of(slot));
        epoch == Ok(owner.epoch())
            && slot != self.presence.owner.slot()
            && self.presence.is_taken(slot)
    }
}
