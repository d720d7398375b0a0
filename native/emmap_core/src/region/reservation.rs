//! A range of addresses that nobody else can be given, and its end.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::bounds::round_up;
use crate::{arena, os, Errno, Result};

/// Owns `len` bytes of addresses from a page-aligned `start`, and a page more at both ends. All of
/// it is unmapped on drop, whatever was placed inside meanwhile.
///
/// All of it can be read from the first moment (as zeros, which takes no memory), the margins too:
/// from OTP 27 on, compiled matching loads whole words that begin before the bytes it wants, so a
/// live binary at the very start of a map reads what lies in front of it.
pub struct Reservation {
    start: *mut u8,
    len: usize,
    owner: Owner,
}

// SAFETY: the pointer is an address that this value owns; it is only handed out, never followed.
unsafe impl Send for Reservation {}
// SAFETY: as above; no method changes anything through a shared reference.
unsafe impl Sync for Reservation {}

impl Drop for Reservation {
    fn drop(&mut self) {
        RESERVED.fetch_sub(self.len, Ordering::Relaxed);
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many reservations there are. Each is up to two maps of the process: the file, and what lies behind it.
static COUNT: AtomicUsize = AtomicUsize::new(0);
const MAPS_OF_EACH: usize = 2;

/// The addresses of all reservations together.
static RESERVED: AtomicUsize = AtomicUsize::new(0);
/// Beyond this, reservations are no larger than they must be: a quarter of a 47-bit space, or of a
/// 32-bit one.
#[cfg(target_pointer_width = "64")]
const MOST_RESERVED: usize = 1 << 45;
#[cfg(not(target_pointer_width = "64"))]
const MOST_RESERVED: usize = 1 << 30;

/// Addresses that are ours until it is dropped.
struct Owner {
    at: *mut u8,
    len: usize,
    /// Whether the arena gets them back.
    of_arena: bool,
}

impl Owner {
    /// `len` bytes, wherever there is room.
    fn anywhere(len: usize) -> Result<Owner> {
        /// Others may have mapped something where the arena has room.
        const TRIES: usize = 3;
        static EVER: AtomicBool = AtomicBool::new(false);
        for _ in 0..TRIES {
            let Some(hint) = arena::allocate(len) else {
                break;
            };
            let mut owner = Owner::at(hint, len, false).inspect_err(|_| arena::free(hint, len))?;
            if owner.at as usize == hint {
                EVER.store(true, Ordering::Relaxed);
                owner.of_arena = true;
                return Ok(owner);
            }
            // What is taken there is not tried again.
        }
        if !EVER.load(Ordering::Relaxed) {
            arena::give_up();
        }
        Owner::at(0, len, false)
    }

    /// `len` bytes at `address`, or elsewhere if it is taken, unless `exactly`.
    fn at(address: usize, len: usize, exactly: bool) -> Result<Owner> {
        Ok(Owner {
            at: os::reserve_at(address, len, exactly)?,
            len,
            of_arena: false,
        })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: the range is the one `reserve_at` gave us, and its owner goes away here.
        unsafe { os::unmap(self.at, self.len) }
        if self.of_arena {
            arena::free(self.at as usize, self.len);
        }
    }
}

/// Where a reservation shall lie.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    Anywhere,
    Hint(usize),
    Exactly(usize),
}

impl Reservation {
    /// Reserves at least `len` bytes aligned to `page`; takes no memory, only addresses.
    pub fn new(len: usize, page: usize, place: Place) -> Result<Reservation> {
        let len = round_up(len.max(1), page)?;
        let margin = os::page_size();
        // Huge pages need an aligned start, which the kernel promises for ordinary pages only.
        let slack = if page > margin { page } else { 0 };
        let wide = |slack: usize| len.checked_add(slack + 2 * margin).ok_or(Errno::NOMEM);
        let owner = match place {
            Place::Anywhere => Owner::anywhere(wide(slack)?)?,
            Place::Hint(address) | Place::Exactly(address) => {
                let exactly = matches!(place, Place::Exactly(_));
                if address % page != 0 || address <= margin {
                    return Err(Errno::INVAL);
                }
                let whole = wide(if exactly { 0 } else { slack })?;
                Owner::at(address - margin, whole, exactly)?
            }
        };
        // SAFETY: what is owned has a margin before and behind, and room to align between.
        let start = unsafe {
            let first = owner.at.add(margin);
            first.add(first.align_offset(page))
        };
        RESERVED.fetch_add(len, Ordering::Relaxed);
        COUNT.fetch_add(1, Ordering::Relaxed);
        let reservation = Reservation { start, len, owner };
        match leaves_room() {
            true => Ok(reservation),
            false => Err(Errno::NOMEM),
        }
    }

    /// Reserves `wanted` bytes if addresses are plenty, else `least`: what is set aside for growth
    /// must never be what the program itself runs out of.
    pub fn at_least(least: usize, wanted: usize, page: usize, place: Place) -> Result<Reservation> {
        let plenty = RESERVED.load(Ordering::Relaxed).saturating_add(wanted) <= MOST_RESERVED;
        if wanted > least && plenty && os::address_space_limit().is_none() {
            match Reservation::new(wanted, page, place) {
                Err(Errno::NOMEM) => (),
                answer => return answer,
            }
        }
        Reservation::new(least, page, place)
    }

    pub fn start(&self) -> *mut u8 {
        self.start
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing but maps of ours is put where it lies.
    pub fn is_apart(&self) -> bool {
        self.owner.of_arena
    }
}

/// Whether the program itself can still map memory: maps are refused before a VM finds no room for its heap.
fn leaves_room() -> bool {
    /// What the program keeps.
    const ROOM: u64 = 1 << 30;
    /// Reserved addresses from which on it is asked whether there is room; before, there is.
    const PLENTY: usize = MOST_RESERVED / 2;
    let most = os::most_maps();
    if COUNT.load(Ordering::Relaxed) >= (most - most / 8) / MAPS_OF_EACH {
        return false;
    }
    let room = match os::address_space_limit() {
        Some(limit) => ROOM.min(limit / 32),
        None if RESERVED.load(Ordering::Relaxed) < PLENTY => return true,
        None => ROOM,
    };
    usize::try_from(room).is_ok_and(os::has_room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_and_given_back() {
        let huge = 2 << 20;
        let range = Reservation::new(1, huge, Place::Anywhere).unwrap();
        assert_eq!(range.start() as usize % huge, 0);
        assert_eq!(range.len(), huge);
        let at = range.start() as usize;
        drop(range);
        // Free again, so it can be had by address; and taken, so it cannot be had twice.
        let again = Reservation::new(huge, huge, Place::Exactly(at)).unwrap();
        assert_eq!(again.start() as usize, at);
        let taken = Reservation::new(huge, huge, Place::Exactly(at));
        assert_eq!(taken.err(), Some(Errno::EXIST));
        assert_ne!(
            Reservation::new(huge, huge, Place::Hint(at))
                .unwrap()
                .start() as usize,
            at
        );
        assert_eq!(
            Reservation::new(huge, huge, Place::Exactly(at + 1)).err(),
            Some(Errno::INVAL)
        );
    }

    #[test]
    fn more_than_there_is() {
        let page = os::page_size();
        assert!(Reservation::new(usize::MAX, page, Place::Anywhere).is_err());
        let range = Reservation::at_least(page, 1 << 62, page, Place::Anywhere).unwrap();
        assert!(range.len() >= page);
    }
}
