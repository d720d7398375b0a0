//! Which items may be pushed, and making room for them.

use super::layout::{self, cursor, stream, DEAD_CURSOR, ITEMS};
use super::tail::Reserved;
use super::{Content, Locked, Result, Stop};
use crate::store::log::Change;
use crate::store::Shared;
use crate::Errno;

/// The options of a push.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// The maximum size of the queue in bytes; `None`: limited only by the disk.
    pub most_bytes: Option<u64>,
    /// If the item does not fit, the oldest items are dropped.
    pub drop_oldest: bool,
    /// The producer, and its number of the item. An item that the producer has already pushed is not pushed again.
    pub identity: Option<([u8; 16], u64)>,
}

/// The word with the last number of a producer, and its value after the push.
#[derive(Clone, Copy, Debug)]
pub struct Producer(Option<(u64, u64)>);

impl Producer {
    #[inline(always)]
    fn note<S: Shared>(self, change: &mut Change<S>) -> Result<()> {
        match self.0 {
            Some((at, number)) => Ok(change.set(at, number)?),
            None => Ok(()),
        }
    }
}

impl<S: Shared> Locked<'_, S> {
    /// Whether a push may continue: [`Stop::Full`], or `None` for an item that its producer has already pushed. Otherwise, the
    /// word with the producer's number, and its new value.
    #[inline(always)]
    pub fn admit(&self, room: u64, limits: &Limits) -> Result<Option<Producer>> {
        let producer = self.admit_again(limits)?;
        if let (Some(most), Some(_)) = (limits.most_bytes, producer) {
            if self.used()?.saturating_add(room) > most {
                if !limits.drop_oldest || room > most {
                    return Err(Stop::Full);
                }
                self.make_room(room, most)?;
            }
        }
        Ok(producer)
    }

    #[inline(always)]
    pub fn admit_again(&self, limits: &Limits) -> Result<Option<Producer>> {
        let Some((producer, number)) = limits.identity else {
            return Ok(Some(Producer(None)));
        };
        let (at, last) = self.producer(&producer)?;
        let next = number.checked_add(1).ok_or(Errno::INVAL)?;
        Ok((next > last).then_some(Producer(Some((at, next)))))
    }

    /// Adds an admitted item that fits in a segment, and returns its sequence number.
    ///
    /// # Safety
    /// The payload must have as many readable bytes as the content says.
    #[inline(always)]
    pub unsafe fn push_item(&self, content: &Content, producer: Producer) -> Result<u64> {
        // SAFETY: the caller's promise.
        unsafe { self.push_with(ITEMS, content, |change| producer.note(change)) }
    }

    /// Adds an admitted item whose payload was copied by [`super::tail::fill`], and returns its sequence number.
    pub fn push_reserved(
        &self,
        content: &Content,
        reserved: Reserved,
        payload_crc: u32,
        producer: Producer,
    ) -> Result<u64> {
        let also = |change: &mut Change<S>| producer.note(change);
        self.push_reserved_with(ITEMS, content, reserved, payload_crc, also)
    }

    /// The bytes from the oldest item that a cursor still needs to the tail.
    pub fn used(&self) -> Result<u64> {
        let tail = self.load(stream::at(ITEMS) + stream::TAIL)?;
        Ok(tail.saturating_sub(self.floor(ITEMS)?))
    }

    /// Drops the oldest items, including those that are checked out, until `room` more bytes are within `most`. Returns how
    /// many of the queue's own were dropped.
    pub fn make_room(&self, room: u64, most: u64) -> Result<u64> {
        let mut dropped = 0;
        let tail = self.load(stream::at(ITEMS) + stream::TAIL)?;
        for cursor in 0..DEAD_CURSOR {
            while self.is_active(cursor)? {
                let floor = self.floor_of(cursor)?;
                if floor >= tail || (tail - floor).saturating_add(room) <= most {
                    break;
                }
                let lost = self.drop_oldest(cursor)?;
                if cursor == layout::OWN {
                    dropped += u64::from(lost);
                } else if lost {
                    let at = cursor::at(cursor) + cursor::LOST;
                    self.shared.store(at, self.load(at)? + 1)?;
                }
            }
        }
        if dropped > 0 {
            let before = self.load(layout::DROPPED)?;
            self.shared.store(layout::DROPPED, before + dropped)?;
        }
        Ok(dropped)
    }

    /// The last number of a producer: its offset and its value.
    pub fn producer(&self, producer: &[u8; 16]) -> Result<(u64, u64)> {
        let hash = u64::from_le_bytes(producer[..8].try_into().expect("eight bytes"));
        let mut free = None;
        for probe in 0..layout::MOST_PRODUCERS {
            let place = (hash.wrapping_add(probe)) % layout::MOST_PRODUCERS;
            let at = layout::PRODUCERS + place * layout::PRODUCER_BYTES;
            let mut identity = [0u8; 16];
            self.shared.read(at, &mut identity)?;
            if identity == *producer {
                return Ok((at + 16, self.load(at + 16)?));
            }
            if identity == [0; 16] {
                free = Some(at);
                break;
            }
        }
        // The queue has the maximum number of producers.
        let at = free.ok_or(Errno(libc::EUSERS))?;
        let word = |at: usize| u64::from_ne_bytes(producer[at..at + 8].try_into().expect("eight"));
        let mut change = self.change();
        change.set(at + 16, 0)?;
        change.set(at, word(0))?;
        change.set(at + 8, word(8))?;
        change.commit()?;
        Ok((at + 16, 0))
    }
}
