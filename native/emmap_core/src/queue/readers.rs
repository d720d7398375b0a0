//! Cursors that are created and deleted.

use std::collections::BTreeMap;

use super::layout::{self, claim, cursor, halves, CURSORS, DEAD_CURSOR, OWN};
use super::summary::MOST_NAME;
use super::{Locked, Result, Stop};
use crate::store::Shared;
use crate::Errno;

impl<S: Shared> Locked<'_, S> {
    /// The name of a cursor; `None` if it does not exist.
    pub fn name(&self, cursor: usize) -> Result<Option<Vec<u8>>> {
        let at = cursor::at(cursor);
        if !self.is_active(cursor)? {
            return Ok(None);
        }
        let length = self.load(at + cursor::NAME_LENGTH)?.min(MOST_NAME as u64);
        let mut name = vec![0; length as usize];
        self.shared.read(at + cursor::NAME, &mut name)?;
        Ok(Some(name))
    }

    /// The reader with this name.
    pub fn find_reader(&self, name: &[u8]) -> Result<Option<usize>> {
        for cursor in OWN + 1..DEAD_CURSOR {
            if self.name(cursor)?.as_deref() == Some(name) {
                return Ok(Some(cursor));
            }
        }
        Ok(None)
    }

    /// Creates a reader, which sees every item that is pushed from now on. EUSERS: the queue has the maximum number of readers.
    pub fn create_reader(&self, name: &[u8], most_lag: u64) -> Result<usize> {
        if name.is_empty() || name.len() > MOST_NAME {
            return Err(Errno::INVAL.into());
        }
        let mut free = None;
        for cursor in OWN + 1..DEAD_CURSOR {
            if !self.is_active(cursor)? {
                free = Some(cursor);
                break;
            }
        }
        let cursor = free.ok_or(Errno(libc::EUSERS))?;
        let at = cursor::at(cursor);
        // It is not in use, so these are not read.
        for word in (cursor::NEXT..cursor::END).step_by(8) {
            self.shared.store(at + word, 0)?;
        }
        self.shared.write(at + cursor::NAME, name)?;
        self.shared
            .store(at + cursor::NAME_LENGTH, name.len() as u64)?;
        self.set_most_lag(cursor, most_lag)?;
        self.enter_tail(cursor)?;
        self.shared.store(at + cursor::STATE, 1)?;
        Ok(cursor)
    }

    pub fn set_most_lag(&self, cursor: usize, most_lag: u64) -> Result<()> {
        self.shared
            .store(cursor::at(cursor) + cursor::MOST_LAG, most_lag)?;
        match most_lag {
            0 => Ok(()),
            _ => Ok(self.shared.store(layout::LAGGING, 1)?),
        }
    }

    /// Deletes a reader, and recycles what only this reader needed.
    pub fn delete_reader(&self, cursor: usize) -> Result<()> {
        if !(OWN + 1..DEAD_CURSOR).contains(&cursor) || !self.is_active(cursor)? {
            return Err(Stop::Gone);
        }
        let at = cursor::at(cursor);
        let mut change = self.change();
        let mut bitmap = BTreeMap::new();
        for word in 0..cursor::MOST_CLAIM_SEGMENTS / 2 {
            let word = at + cursor::CLAIM_SEGMENTS + word * 8;
            let (high, low) = halves(self.load(word)?);
            for number in [low, high].into_iter().filter(|number| *number != 0) {
                let number = u64::from(number) - 1;
                let (bits, bit) = (layout::BITMAP + number / 64 * 8, 1 << (number % 64));
                if number < self.segments()? {
                    let before = bitmap.get(&bits).copied();
                    let before = before.map_or_else(|| self.load(bits), Ok)?;
                    bitmap.insert(bits, before & !bit);
                }
            }
            change.set(word, 0)?;
        }
        for (at, word) in bitmap {
            change.set(at, word)?;
        }
        change.set(at + cursor::STATE, 0)?;
        Ok(change.commit()?)
    }

    /// Skips items of readers that lag more than they may, and counts them. Called after a push.
    #[inline(always)]
    pub fn enforce_lag(&self) -> Result<()> {
        match self.load(layout::LAGGING)? {
            0 => Ok(()),
            _ => self.enforce_each(),
        }
    }

    #[cold]
    fn enforce_each(&self) -> Result<()> {
        let tail = self.load(layout::stream::at(layout::ITEMS) + layout::stream::TAIL)?;
        for cursor in OWN + 1..DEAD_CURSOR {
            let at = cursor::at(cursor);
            let most = self.load(at + cursor::MOST_LAG)?;
            if most == 0 || !self.is_active(cursor)? {
                continue;
            }
            while tail - self.floor_of(cursor)?.min(tail) > most && self.drop_oldest(cursor)? {
                let lost = self.load(at + cursor::LOST)?;
                self.shared.store(at + cursor::LOST, lost + 1)?;
            }
        }
        Ok(())
    }

    /// Drops all items of a cursor.
    pub fn clear(&self, cursor: usize) -> Result<()> {
        let outstanding = cursor::at(cursor) + cursor::OUTSTANDING;
        loop {
            let (first, _) = halves(self.load(outstanding)?);
            match first {
                0 => break,
                first => self.drop_claim(cursor, first - 1)?,
            }
        }
        self.enter_tail(cursor)
    }

    /// How many items the cursor can take, and how many are checked out.
    pub fn lengths(&self, cursor: usize) -> Result<(u64, u64)> {
        let at = cursor::at(cursor);
        let stream = layout::stream::at(layout::stream_of(cursor));
        let tail = self.load(stream + layout::stream::SEQUENCE)?;
        let next = self.load(at + cursor::SEQUENCE)?;
        let (outstanding, released) = halves(self.load(at + cursor::COUNTS)?);
        let (outstanding, released) = (u64::from(outstanding), u64::from(released));
        let never_taken = tail.saturating_sub(next);
        Ok((never_taken + released, outstanding.saturating_sub(released)))
    }

    /// The floor of a cursor, and the sequence number of the item there.
    pub(super) fn floor_and_sequence(&self, cursor: usize) -> Result<(u64, u64)> {
        let at = cursor::at(cursor);
        let (first, _) = halves(self.load(at + cursor::OUTSTANDING)?);
        if first == 0 {
            return Ok((
                self.load(at + cursor::NEXT)?,
                self.load(at + cursor::SEQUENCE)?,
            ));
        }
        let claim = self.claim_at(cursor, first - 1)?;
        let position = self.load(claim + claim::POSITION)?;
        Ok((position, self.load(claim + claim::SEQUENCE)?))
    }

    /// The numbers of all cursors that exist.
    pub fn cursors(&self) -> Result<Vec<usize>> {
        let mut cursors = Vec::new();
        for cursor in 0..CURSORS {
            if self.is_active(cursor)? {
                cursors.push(cursor);
            }
        }
        Ok(cursors)
    }
}
