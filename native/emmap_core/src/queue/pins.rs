//! Live payloads: items whose bytes live binaries show in the file, so that their segments must not be reused.

use std::ops::Deref;
use std::sync::Arc;

use super::layout::{self, participant, stream};
use super::participation::Queue;
use super::reading::Found;
use super::{Locked, Result};
use crate::store::participants::{self, Presence};
use crate::store::shared::Mapped;
use crate::store::Shared;
use crate::Region;

/// Keeps the segment of an item, and all later ones, from being reused until it is dropped, which does not take the lock of
/// the queue. This program participates for as long, so another program that finds the pin sees that its owner is alive.
pub struct Pin<R: Deref<Target = Region>> {
    region: R,
    presence: Arc<Presence>,
    position: u64,
}

impl Queue {
    /// Pins an item, for a call that has found it and still holds the lock.
    pub fn pin<R: Deref<Target = Region>>(
        &self,
        region: R,
        found: &Found,
    ) -> crate::Result<Pin<R>> {
        let presence = self.presence().clone();
        let (position, word) = (found.position, pinned(self.slot()));
        presence.pins().add(position, &Mapped::new(&region), word)?;
        Ok(Pin {
            region,
            presence,
            position,
        })
    }
}

impl<R: Deref<Target = Region>> Pin<R> {
    pub fn region(&self) -> &R {
        &self.region
    }
}

impl<R: Deref<Target = Region>> Drop for Pin<R> {
    fn drop(&mut self) {
        let word = pinned(self.presence.owner().slot());
        // The word is inside the map, because it was stored there.
        let _ = self
            .presence
            .pins()
            .remove(self.position, &Mapped::new(&self.region), word);
    }
}

/// Where the word of a slot is.
pub(super) fn pinned(slot: u32) -> u64 {
    participant::PLACE.of(slot) + participant::PINNED
}

impl<S: Shared> Locked<'_, S> {
    /// The lowest position of an item that a live binary of some participant shows.
    pub fn lowest_pinned(&self) -> Result<Option<u64>> {
        let mut lowest = None;
        for slot in 0..participants::SLOTS {
            let found = self.load(pinned(slot))?.checked_sub(1);
            lowest = match (lowest, found) {
                (Some(lowest), Some(found)) => Some(found.min(lowest)),
                (lowest, found) => lowest.or(found),
            };
        }
        Ok(lowest)
    }

    /// How many bytes of the file live binaries may keep: from the oldest item that one shows to the tail.
    pub fn bytes_pinned(&self) -> Result<u64> {
        let tail = self.load(stream::at(layout::ITEMS) + stream::TAIL)?;
        let lowest = self.lowest_pinned()?;
        Ok(lowest.map_or(0, |lowest| tail.saturating_sub(lowest)))
    }

    /// Ends the pins of all other participants for which `is_dead` returns `true`. Returns whether there were any.
    pub fn unpin_dead(&self, is_dead: impl Fn(u32) -> bool) -> Result<bool> {
        let mut some = false;
        for slot in (0..participants::SLOTS).filter(|slot| *slot != self.slot) {
            if self.load(pinned(slot))? != 0 && is_dead(slot) {
                self.shared.store(pinned(slot), 0)?;
                some = true;
            }
        }
        Ok(some)
    }
}
