//! Many items in one call, while the lock is held once, unless the file must be extended in between.

use super::participation::Queue;
use super::reading::{Found, Room};
use super::segment::RECORDS;
use super::waiting::Event;
use super::{Claimed, Content, Limits, Receipt, Result, Stop, Taken};
use crate::region::Wait;
use crate::{Errno, Region};

impl Queue {
    /// Adds items in order. Returns how many were added, and why not all of them were. The identity of a producer belongs to a
    /// single item, and is ignored.
    ///
    /// # Safety
    /// The payloads must have as many readable bytes as the contents say.
    pub unsafe fn push_many(
        &self,
        region: &Region,
        wait: Wait,
        contents: &[Content],
        limits: &Limits,
    ) -> (usize, Result<()>) {
        let limits = Limits {
            identity: None,
            ..*limits
        };
        let mut done = 0;
        while let Some(first) = contents.get(done) {
            let pushed = match self.is_large(first) {
                true => {
                    let item = (first.flags, first.payload, first.length);
                    // SAFETY: the caller's promise.
                    let pushed = unsafe { self.push(region, wait, item, &limits) };
                    pushed.map(|_| done += 1)
                }
                // SAFETY: as above.
                false => unsafe { self.push_small(region, wait, contents, &limits, &mut done) },
            };
            if let Err(stop) = pushed {
                return (done, Err(stop));
            }
        }
        (done, Ok(()))
    }

    /// Whether a record needs more than a segment of one.
    fn is_large(&self, content: &Content) -> bool {
        content.room() > self.segment_size() - RECORDS
    }

    /// Adds the items from the one with the number `done` on, up to a large one, and counts them in `done`.
    ///
    /// # Safety
    /// As [`Queue::push_many`].
    unsafe fn push_small(
        &self,
        region: &Region,
        wait: Wait,
        contents: &[Content],
        limits: &Limits,
        done: &mut usize,
    ) -> Result<()> {
        let small = |content: &Content| !self.is_large(content);
        let count = contents[*done..]
            .iter()
            .take_while(|content| small(content));
        let end = *done + count.count();
        self.with_waking(region, wait, Event::Items, |locked| {
            while *done < end {
                let rest = &contents[*done..end];
                let pushed = match limits.most_bytes {
                    // SAFETY: the caller's promise.
                    None => unsafe { locked.push_run(rest) },
                    // SAFETY: as above.
                    Some(_) => locked.admit(rest[0].room(), limits).and_then(|producer| {
                        let Some(producer) = producer else {
                            return Ok(1);
                        };
                        // SAFETY: as above.
                        unsafe { locked.push_item(&rest[0], producer).map(|_| 1) }
                    }),
                };
                match pushed {
                    Ok(count) => *done += count,
                    // Do what is required, then the rest.
                    Err(stop @ (Stop::Grow(_) | Stop::Checkpoint)) if wait == Wait::Yes => {
                        return Err(stop)
                    }
                    Err(Stop::Grow(_) | Stop::Checkpoint) => return Ok(Err(Stop::Busy)),
                    // An `Ok`, so that waiting threads are notified of the items that were pushed before.
                    Err(stop) => return Ok(Err(stop)),
                }
            }
            locked.enforce_lag()?;
            Ok(Ok(()))
        })?
    }

    /// Takes items, each as [`Queue::pop`] does, until there is none or `room` returns `None`, and passes each to `took`. A
    /// damaged item ends the batch, after the items that were taken before.
    ///
    /// # Safety
    /// What `room` returns must have room for the payload, outside of any map.
    pub unsafe fn pop_many<R: Into<Room>>(
        &self,
        region: &Region,
        wait: Wait,
        cursor: usize,
        mut room: impl FnMut(&Found) -> Option<R>,
        mut took: impl FnMut(&Taken),
    ) -> Result<()> {
        let mut some = false;
        self.with_waking(region, wait, Event::Space, |locked| loop {
            // SAFETY: the caller's promise.
            match unsafe { locked.pop(cursor, &mut room) } {
                Ok(Some(taken)) => {
                    some = true;
                    took(&taken);
                }
                // Items that a dead program had checked out are available now.
                Ok(None) if !some && self.look_for_dead(region, locked, true)? > 0 => (),
                Ok(None) => return Ok(Ok(())),
                Err(stop @ Stop::Corrupt(_)) => return Ok(Err(stop)),
                Err(stop) => return Err(stop),
            }
        })?
    }

    /// Checks items out for `owner`, each as [`Queue::check_out`] does, until there is none or `wants` returns `false` for
    /// the next, and passes each to `took`.
    pub fn check_out_many(
        &self,
        region: &Region,
        wait: Wait,
        cursor: usize,
        (owner, most_attempts): (u32, Option<u16>),
        mut wants: impl FnMut(&Found) -> bool,
        mut took: impl FnMut(Claimed),
    ) -> Result<()> {
        let mut some = false;
        let taken = self.with_waking(region, wait, Event::Space, |locked| {
            self.look_for_dead(region, locked, false)?;
            loop {
                match locked.check_out_if(cursor, owner, most_attempts, &mut wants) {
                    Ok(Some(claimed)) => {
                        some = true;
                        took(claimed);
                    }
                    Ok(None) if !some && self.look_for_dead(region, locked, true)? > 0 => (),
                    Ok(None) => return Ok(Ok(())),
                    Err(stop @ Stop::Corrupt(_)) => return Ok(Err(stop)),
                    // Not all claims fit at once: return those that were made.
                    Err(Stop::Grow(_) | Stop::Checkpoint) if some && wait == Wait::No => {
                        return Ok(Ok(()))
                    }
                    Err(stop) => return Err(stop),
                }
            }
        });
        match taken {
            // As in `check_out_if`.
            Err(Stop::Posix(Errno::NOSPC)) if most_attempts.is_some() => {
                self.check_out_many(region, wait, cursor, (owner, None), wants, took)
            }
            taken => taken?,
        }
    }

    /// Acknowledges items, all that are valid. [`Stop::Gone`]: the claim of at least one has ended.
    pub fn acknowledge_many(
        &self,
        region: &Region,
        wait: Wait,
        cursor: usize,
        receipts: &[Receipt],
    ) -> Result<()> {
        self.with_waking(region, wait, Event::Space, |locked| {
            let mut result = Ok(());
            for receipt in receipts {
                match locked.acknowledge(cursor, receipt) {
                    Ok(()) => (),
                    Err(Stop::Gone) => result = Err(Stop::Gone),
                    Err(stop) => return Err(stop),
                }
            }
            Ok(result)
        })?
    }
}
