//! Waiting for items and for space, without polling: a waiting thread sets a bit, and a thread that makes items or space
//! available wakes others only if a bit is set.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::layout::{self, stream};
use super::participation::Queue;
use crate::region::Wait;
use crate::store::participants::EVENTS;
use crate::store::shared::Mapped;
use crate::store::Shared;
use crate::{os, Region, Result};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Items,
    Space,
}

impl Event {
    fn word(self) -> u64 {
        match self {
            Event::Items => layout::ITEMS_EVENT,
            Event::Space => layout::SPACE_EVENT,
        }
    }

    /// The word with a bit for each slot that waits.
    pub(super) fn waiters(self) -> u64 {
        match self {
            Event::Items => layout::ITEMS_WAITERS,
            Event::Space => layout::SPACE_WAITERS,
        }
    }
}

/// The half of a word that is used as a futex.
fn futex(region: &Region, event: Event) -> Result<&AtomicU32> {
    let low_half = if cfg!(target_endian = "little") { 0 } else { 4 };
    // The map stays where it is for as long as the region lives, and a page that was lost is mapped again.
    let word = region.word_mut(event.word())?;
    // SAFETY: a half of a word inside of the map (1: Alive in `region.rs`), aligned to four bytes.
    Ok(unsafe { &*word.as_ptr().cast::<u8>().add(low_half).cast::<AtomicU32>() })
}

impl Queue {
    /// Sets whether this handle waits, and so is notified from now on. To be followed by another check, and then
    /// [`Queue::wait`]. The handles of a program share one bit, which is set as long as one of them waits.
    pub fn set_waiting(&self, region: &Region, event: Event, waits: bool) -> Result<()> {
        let mut waiting = self.presence().waiting();
        self.count_waiting(&mut waiting, event as usize, waits);
        if !waits && waiting[event as usize] > 0 {
            return Ok(());
        }
        let bit = 1u64 << self.slot();
        let (set, clear) = if waits { (bit, 0) } else { (0, bit) };
        region.writing(|| {
            let shared = Mapped::new(region);
            shared.update(event.waiters(), set, clear).map(drop)
        })
    }

    /// This handle ends, and does not wait any more.
    pub(super) fn forget_waiting(&self) {
        let mut waiting = self.presence().waiting();
        for event in [Event::Items, Event::Space] {
            self.count_waiting(&mut waiting, event as usize, false);
        }
    }

    fn count_waiting(&self, waiting: &mut [usize; EVENTS], event: usize, waits: bool) {
        // Under the lock of the counts.
        match (self.waits[event].swap(waits, Ordering::Relaxed), waits) {
            (false, true) => waiting[event] += 1,
            (true, false) => waiting[event] -= 1,
            _ => (),
        }
    }

    /// The number of the event, to be read before checking whether to wait.
    pub fn event(&self, region: &Region, event: Event) -> Result<u32> {
        region.reading(|| Ok(futex(region, event)?.load(Ordering::SeqCst)))
    }

    /// A number that changes with each item that is pushed.
    pub fn pushed(&self, region: &Region) -> Result<u64> {
        let at = stream::at(layout::ITEMS) + stream::SEQUENCE;
        region.reading(|| Mapped::new(region).load(at))
    }

    /// Waits until the event has another number, or for `timeout`, or until it is time to check again. It may return early.
    /// Returns whether a signal interrupted it.
    pub fn wait(
        &self,
        region: &Region,
        event: Event,
        number: u32,
        timeout: Option<Duration>,
    ) -> Result<bool> {
        let longest = match event == Event::Items && self.others_have_claims(region)? {
            true => LOOK,
            false => SELDOM,
        };
        let timeout = timeout.map_or(longest, |timeout| timeout.min(longest));
        let interrupted = os::futex_wait(futex(region, event)?, number, Some(timeout));
        region.check_fault()?;
        Ok(interrupted)
    }

    /// Looks for dead programs, after a wait for items: what they had checked out is made available, and waiting threads are
    /// notified.
    pub fn look(&self, region: &Region) -> super::Result<()> {
        if !self.others_have_claims(region)? {
            return Ok(());
        }
        self.with(region, Wait::Yes, |locked| {
            self.look_for_dead(region, locked, true)?;
            locked.forget_ended_claims()
        })
    }

    /// Wakes all waiting threads, in any program.
    #[cold]
    pub fn wake(&self, region: &Region, event: Event) -> Result<()> {
        region.writing(|| wake(region, event))
    }

    /// As [`Queue::wake`]. A participant that died while it waited is not woken any more.
    #[cold]
    pub(super) fn wake_living(&self, region: &Region, event: Event) -> Result<()> {
        self.wake(region, event)?;
        let now = os::tick();
        if self.woke.swap(now, Ordering::Relaxed) != now {
            // If this is postponed, it only costs a system call.
            let _ = self.with(region, Wait::No, |locked| {
                locked.forget_dead_waiters(event.waiters(), |slot| {
                    slot != self.slot() && !self.presence().is_taken(slot)
                })
            });
        }
        Ok(())
    }
}

pub(super) fn wake(region: &Region, event: Event) -> Result<()> {
    let word = region.word_mut(event.word())?;
    word.fetch_add(1, Ordering::SeqCst);
    os::futex_wake(futex(region, event)?);
    Ok(())
}

/// How often a waiter looks for dead programs while another program has claims: its death makes items available, and wakes
/// no waiter.
const LOOK: Duration = Duration::from_millis(4);
/// How often it checks in any case: a program that made items or space available may have died before it woke others.
pub const SELDOM: Duration = Duration::from_secs(1);
