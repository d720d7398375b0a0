//! A range of addresses that is exclusively owned, and its release.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::bounds::round_up;
use crate::{arena, os, Errno, Result};

/// Owns `len` bytes of addresses from a page-aligned `start`, and one additional page at both ends. All of
/// it is unmapped on drop, including everything that was placed inside.
///
/// All of it is readable from the first moment (as zeros, which takes no memory), including the margins:
/// from OTP 27 on, compiled matching loads whole words that begin before the bytes it needs, so
/// matching a live binary at the very start of a map reads the bytes before it.
pub struct Reservation {
    start: *mut u8,
    len: usize,
    owner: Owner,
}

// SAFETY: the pointer is an address that this value owns. It is only handed out, never dereferenced.
unsafe impl Send for Reservation {}
// SAFETY: as above; no method changes anything through a shared reference.
unsafe impl Sync for Reservation {}

impl Drop for Reservation {
    fn drop(&mut self) {
        RESERVED.fetch_sub(self.len, Ordering::Relaxed);
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many reservations exist. Each is up to two maps of the process: the file, and the range after it.
static COUNT: AtomicUsize = AtomicUsize::new(0);
const MAPS_OF_EACH: usize = 2;

/// The addresses of all reservations together.
static RESERVED: AtomicUsize = AtomicUsize::new(0);
/// Beyond this, reservations are only as large as necessary: a quarter of a 47-bit address space, or of a
/// 32-bit one.
#[cfg(target_pointer_width = "64")]
const MOST_RESERVED: usize = 1 << 45;
#[cfg(not(target_pointer_width = "64"))]
const MOST_RESERVED: usize = 1 << 30;

/// The most addresses to reserve beyond those that a growth needs.
const MOST_AHEAD: usize = 64 << 20;

/// Addresses that are owned until this value is dropped.
struct Owner {
    at: *mut u8,
    len: usize,
    /// How many bytes from `at` on the arena has allocated, and gets back: the owned bytes, and those after them into which
    /// they can grow. 0: it is not in the arena.
    room: usize,
}

impl Owner {
    /// `len` bytes at any free address, with `room` to grow into if that costs nothing.
    fn anywhere(len: usize, room: usize) -> Result<Owner> {
        /// Others may have mapped something at an address that the arena considers free.
        const TRIES: usize = 3;
        static EVER: AtomicBool = AtomicBool::new(false);
        for _ in 0..TRIES {
            let rooms = [room, room.min(len.saturating_mul(2)), len];
            let given = |room| Some((arena::allocate(room)?, room));
            let Some((hint, room)) = rooms.into_iter().find_map(given) else {
                break;
            };
            let mut owner = Owner::at(hint, len, false).inspect_err(|_| arena::free(hint, room))?;
            if owner.at as usize == hint {
                EVER.store(true, Ordering::Relaxed);
                owner.room = room;
                return Ok(owner);
            }
            // An occupied place stays allocated, so that it is not tried again.
        }
        if !EVER.load(Ordering::Relaxed) {
            arena::give_up();
        }
        Owner::at(0, len, false)
    }

    /// `len` bytes at `address`, or at another address if it is in use, unless `exactly`.
    fn at(address: usize, len: usize, exactly: bool) -> Result<Owner> {
        Ok(Owner {
            at: os::reserve_at(address, len, exactly)?,
            len,
            room: 0,
        })
    }

    /// Extends it to `len` bytes in place. EEXIST or another error: something else is there.
    fn extend(&mut self, len: usize) -> Result<()> {
        let at = self.at as usize;
        if self.room > 0 && len > self.room {
            if !arena::allocate_at(at + self.room, len - self.room) {
                return Err(Errno::EXIST);
            }
            self.room = len;
        }
        os::reserve_at(at + self.len, len - self.len, true)?;
        self.len = len;
        Ok(())
    }

    /// Shortens it to `len` bytes again.
    fn take_back(&mut self, len: usize) {
        // SAFETY: the bytes after `len` were reserved by `extend`, and nothing has used them.
        unsafe { os::unmap(self.at.add(len), self.len - len) }
        self.len = len;
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: the range was returned by `reserve_at`, in one piece, and its owner is dropped here.
        unsafe { os::unmap(self.at, self.len) }
        if self.room > 0 {
            arena::free(self.at as usize, self.room);
        }
    }
}

/// Where to place a reservation.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    Anywhere,
    Hint(usize),
    Exactly(usize),
}

/// How the start of a reservation is aligned.
///
/// The kernel maps a whole large page at once (2 MB on most machines) if the address and the offset in the file have the same
/// distance from a multiple of it, and if the page cache holds that part of the file in one piece. Reading such a file for
/// the first time then takes a sixth of the time.
#[derive(Clone, Copy, Debug)]
pub struct Alignment {
    /// The size of the pages that are mapped.
    pub page: usize,
    /// The offset in the file of the first byte.
    pub offset: u64,
}

impl Alignment {
    /// Ordinary pages, from the start of a file.
    #[cfg(test)]
    pub fn of_page(page: usize) -> Alignment {
        Alignment { page, offset: 0 }
    }

    /// The starts that suit `len` bytes.
    fn of(self, len: usize) -> Multiple {
        let page = os::page_size();
        // One page of the table that describes the pages.
        let large = page.saturating_mul(page / size_of::<u64>());
        // It takes up to one large page more of addresses.
        let plenty = || cfg!(target_pointer_width = "64") && os::address_space_limit().is_none();
        let worth = self.page == page && len >= large && plenty();
        match worth {
            true => Multiple {
                of: large,
                rest: (self.offset % large as u64) as usize,
            },
            // Huge pages that were requested are aligned in their file, too.
            false => Multiple {
                of: self.page,
                rest: 0,
            },
        }
    }
}

/// The addresses that are `rest` more than a multiple of `of`.
#[derive(Clone, Copy)]
struct Multiple {
    of: usize,
    rest: usize,
}

impl Multiple {
    /// How many bytes more than the length it takes to be sure that such an address is among the first.
    fn slack(self) -> usize {
        // The kernel guarantees the alignment of ordinary pages.
        if self.of > os::page_size() {
            self.of
        } else {
            0
        }
    }

    /// The distance from `address` to the next such address.
    fn distance(self, address: usize) -> usize {
        (self.of + self.rest - address % self.of) % self.of
    }
}

/// How many bytes to reserve.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub least: usize,
    /// The preferred number, if there are plenty of addresses.
    pub wanted: usize,
    /// A smaller range was outgrown. This one must be larger by more than the bytes that it was outgrown by; otherwise, there
    /// would be a new range for each growth.
    pub outgrown: bool,
}

impl Reservation {
    /// Reserves `len` bytes with this alignment, and `room` in addition if that costs nothing. It takes no memory, only
    /// addresses.
    fn new(len: usize, room: usize, alignment: Alignment, place: Place) -> Result<Reservation> {
        let page = alignment.page;
        let multiple = match place {
            Place::Anywhere => alignment.of(len.max(room)),
            // The caller chose the address.
            Place::Hint(_) | Place::Exactly(_) => alignment.of(0),
        };
        match Reservation::aligned(len, room, page, multiple, place) {
            Err(Errno::NOMEM) if multiple.of > page => {
                Reservation::aligned(len, room, page, alignment.of(0), place)
            }
            answer => answer,
        }
    }

    fn aligned(
        len: usize,
        room: usize,
        page: usize,
        multiple: Multiple,
        place: Place,
    ) -> Result<Reservation> {
        let margin = os::page_size();
        let slack = multiple.slack();
        let wide = |len: usize, slack: usize| -> Result<usize> {
            let len = round_up(len.max(1), page)?;
            len.checked_add(slack + 2 * margin).ok_or(Errno::NOMEM)
        };
        let whole = wide(len, slack)?;
        let owner = match place {
            Place::Anywhere => Owner::anywhere(whole, wide(room, slack).unwrap_or(whole))?,
            Place::Hint(address) | Place::Exactly(address) => {
                let exactly = matches!(place, Place::Exactly(_));
                if address % page != 0 || address <= margin {
                    return Err(Errno::INVAL);
                }
                let whole = if exactly { wide(len, 0)? } else { whole };
                Owner::at(address - margin, whole, exactly)?
            }
        };
        // SAFETY: the owned range has a margin at both ends, and room for the alignment in between.
        let start = unsafe {
            let first = owner.at.add(margin);
            first.add(multiple.distance(first as usize))
        };
        let len = round_up(len.max(1), page)?;
        RESERVED.fetch_add(len, Ordering::Relaxed);
        COUNT.fetch_add(1, Ordering::Relaxed);
        let reservation = Reservation { start, len, owner };
        match leaves_room() {
            true => Ok(reservation),
            false => Err(Errno::NOMEM),
        }
    }

    /// Reserves the preferred size if there are plenty of addresses, otherwise the minimum: reservations for growth
    /// must never use up the addresses that the program needs.
    pub fn of_size(size: Size, alignment: Alignment, place: Place) -> Result<Reservation> {
        let Size { least, wanted, .. } = size;
        let plenty = RESERVED.load(Ordering::Relaxed).saturating_add(wanted) <= MOST_RESERVED
            && os::address_space_limit().is_none();
        if plenty && wanted > least {
            match Reservation::new(wanted, wanted, alignment, place) {
                Err(Errno::NOMEM) => (),
                answer => return answer,
            }
        }
        let smallest = Reservation::new(least, wanted, alignment, place)?;
        if !size.outgrown || smallest.room() >= wanted {
            return Ok(smallest);
        }
        // It has no room to grow. The next range must not be larger by only a few bytes.
        drop(smallest);
        let more = wanted - least;
        [more, more / 2, more / 4, more / 8, 0]
            .into_iter()
            .map(|more| Reservation::new(least + more, least + more, alignment, place))
            .find(|answer| !matches!(answer, Err(Errno::NOMEM)))
            .unwrap_or(Err(Errno::NOMEM))
    }

    /// Extends it to at least `len` bytes in place, or returns an error.
    pub fn extend(&mut self, len: usize, page: usize) -> Result<()> {
        let len = round_up(len, page)?;
        if len <= self.len {
            return Ok(());
        }
        // Slightly more than needed, for the next growths.
        let ahead = round_up(len.saturating_add((len / 16).min(MOST_AHEAD)), page)?;
        let ahead = ahead.min(self.room()).max(len);
        self.extend_to(ahead).or_else(|_| self.extend_to(len))
    }

    fn extend_to(&mut self, len: usize) -> Result<()> {
        let before = self.owner.len;
        let whole = self.in_front().checked_add(len).ok_or(Errno::NOMEM)?;
        let whole = whole.checked_add(os::page_size()).ok_or(Errno::NOMEM)?;
        if whole > before {
            self.owner.extend(whole)?;
            if !leaves_room() {
                self.owner.take_back(before);
                return Err(Errno::NOMEM);
            }
        }
        RESERVED.fetch_add(len - self.len, Ordering::Relaxed);
        self.len = len;
        Ok(())
    }

    /// How many bytes before `start` are owned.
    fn in_front(&self) -> usize {
        self.start as usize - self.owner.at as usize
    }

    /// The length to which it can be extended in place.
    pub fn room(&self) -> usize {
        let margins = self.in_front() + os::page_size();
        self.len.max(self.owner.room.saturating_sub(margins))
    }

    pub fn start(&self) -> *mut u8 {
        self.start
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether only maps of this library are placed in its area.
    pub fn is_apart(&self) -> bool {
        self.owner.room > 0
    }
}

/// Whether the program itself can still map memory. Maps are refused before a VM finds no room for its heap.
fn leaves_room() -> bool {
    /// The room that is left for the program.
    const ROOM: u64 = 1 << 30;
    /// If fewer addresses than this are reserved, there is always room.
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

    fn new(len: usize, page: usize, place: Place) -> Result<Reservation> {
        Reservation::new(len, len, Alignment::of_page(page), place)
    }

    #[test]
    fn is_aligned_and_given_back() {
        let huge = 2 << 20;
        let range = new(1, huge, Place::Anywhere).unwrap();
        assert_eq!(range.start() as usize % huge, 0);
        assert_eq!(range.len(), huge);
        let at = range.start() as usize;
        drop(range);
        // Free again, so it can be reserved by address; then in use, so it cannot be reserved twice.
        let again = new(huge, huge, Place::Exactly(at)).unwrap();
        assert_eq!(again.start() as usize, at);
        let taken = new(huge, huge, Place::Exactly(at));
        assert_eq!(taken.err(), Some(Errno::EXIST));
        let elsewhere = new(huge, huge, Place::Hint(at)).unwrap();
        assert_ne!(elsewhere.start() as usize, at);
        let unaligned = new(huge, huge, Place::Exactly(at + 1));
        assert_eq!(unaligned.err(), Some(Errno::INVAL));
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn has_the_distance_from_a_large_page_that_the_file_has() {
        let page = os::page_size();
        let large = page * (page / 8);
        for (len, room) in [(large, large), (large + 1, 8 * large), (page, 8 * large)] {
            for offset in [0, page, large - page, large, 5 * large + 3 * page] {
                let alignment = Alignment {
                    page,
                    offset: offset as u64,
                };
                let range = Reservation::new(len, room, alignment, Place::Anywhere).unwrap();
                assert_eq!(range.start() as usize % large, offset % large);
                assert!(range.len() >= len && (!range.is_apart() || range.room() >= room));
            }
        }
        // Nothing is gained for a smaller one, which then takes no more addresses than it needs.
        let small = new(large - page, page, Place::Anywhere).unwrap();
        assert_eq!(small.owner.len, large + page);
    }

    #[test]
    fn more_than_there_is() {
        let page = os::page_size();
        assert!(new(usize::MAX, page, Place::Anywhere).is_err());
        let size = Size {
            least: page,
            wanted: 1 << 62,
            outgrown: false,
        };
        let range = Reservation::of_size(size, Alignment::of_page(page), Place::Anywhere).unwrap();
        assert!(range.len() >= page);
        let size = Size {
            outgrown: true,
            ..size
        };
        let range = Reservation::of_size(size, Alignment::of_page(page), Place::Anywhere).unwrap();
        assert!(range.len() >= page);
    }

    #[test]
    fn is_extended_where_it_lies_and_given_back() {
        let page = os::page_size();
        let room = 1 << 30;
        let mut range =
            Reservation::new(page, room, Alignment::of_page(page), Place::Anywhere).unwrap();
        let start = range.start();
        assert_eq!(range.len(), page);
        // At most what its alignment did not need is added.
        let large = page * (page / size_of::<u64>());
        assert!(range.is_apart() && (room..=room + large).contains(&range.room()));
        for len in [3 * page, 3 * page + 1, 1 << 20, room] {
            range.extend(len, page).unwrap();
            assert!(range.len() >= len && range.start() == start);
            // All of it is readable, including the margin after it.
            // SAFETY: the range is reserved, and so is a page after it.
            let last = unsafe { start.add(range.len()).read_volatile() };
            assert_eq!(last, 0);
        }
        let (at, len) = (range.owner.at as usize, range.owner.len);
        drop(range);
        let free = os::reserve_at(at, len, true).unwrap();
        // SAFETY: made in the line above.
        unsafe { os::unmap(free, len) };
    }

    #[test]
    fn is_not_extended_over_a_neighbour() {
        let page = os::page_size();
        let mut range = new(page, page, Place::Anywhere).unwrap();
        let end = range.owner.at as usize + range.owner.len;
        let neighbour = os::reserve_at(end, page, false).unwrap();
        if neighbour as usize == end {
            assert!(range.extend(8 * page, page).is_err());
            assert_eq!(range.len(), page);
        }
        // SAFETY: made above.
        unsafe { os::unmap(neighbour, page) };
    }
}
