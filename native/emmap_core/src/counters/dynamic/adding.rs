//! Adds a counter, and doubles the directory.

use super::directory::{Directory, LEAST_SLOTS};
use super::entry::{self, Entry, Kind, Name};
use super::layout::{self, ENTRIES, LINE, MOST_BYTES};
use super::{Locked, Result, Stop};
use crate::store::log::Change;
use crate::store::Shared;
use crate::Errno;

/// A larger directory is not filled where a call must be short.
const FEW_SLOTS: u64 = LEAST_SLOTS;

impl<'a, S: Shared> Locked<'a, S> {
    fn change(&self) -> Change<'a, S> {
        Change::new(self.shared, &layout::LOG)
    }

    /// Where the next entry will be; EIO if the word is damaged.
    pub fn last(&self) -> Result<u64> {
        match self.shared.load(layout::LAST)? {
            last if last.is_multiple_of(LINE) && (ENTRIES..MOST_BYTES).contains(&last) => Ok(last),
            _ => Err(Errno::IO.into()),
        }
    }

    /// Where an entry of so many bytes begins. [`Stop::Grow`]: the file has no room for it.
    fn room(&self, bytes: u64) -> Result<u64> {
        loop {
            let last = self.last()?;
            // Both are below 2^48.
            let end = last + bytes;
            if end >= MOST_BYTES {
                return Err(Errno(libc::EFBIG).into());
            }
            if end > self.shared.len() {
                return Err(Stop::Grow(end));
            }
            match entry::begun(self.shared, self.geometry, last)? {
                0 => return Ok(last),
                bytes => self.skip(last, bytes)?,
            }
        }
    }

    /// Makes a gap of what a program began to write before it died. After a power failure, its lines and those of another
    /// entry in the same place could be mixed.
    #[cold]
    fn skip(&self, last: u64, bytes: u64) -> Result<()> {
        entry::write_other(self.shared, self.geometry, last, Kind::Gap, bytes)?;
        Ok(self.shared.store(layout::LAST, last + bytes)?)
    }

    /// The entry of the counter with this name, if there is one.
    pub fn find(&self, name: &Name) -> Result<Option<u64>> {
        Directory::current(self.shared)?.find(self.shared, self.geometry, name)
    }

    /// The entry of the counter with this name, which is added if there is none. [`Stop::Busy`]: this takes long, and the
    /// caller may not wait.
    pub fn find_or_add(&self, name: &Name, most: u64, may_wait: bool) -> Result<u64> {
        if let Some(at) = self.find(name)? {
            return Ok(at);
        }
        let count = self.shared.load(layout::COUNT)?;
        if count >= most {
            return Err(Stop::Full);
        }
        if std::str::from_utf8(name.bytes).is_err() {
            return Err(Errno(libc::EILSEQ).into());
        }
        let mut directory = Directory::current(self.shared)?;
        if count >= directory.slots / 2 {
            if directory.slots > FEW_SLOTS && !may_wait {
                return Err(Stop::Busy);
            }
            directory = self.double(&directory)?;
        }
        let bytes = entry::counter_bytes(self.geometry, name.bytes.len());
        let at = self.room(bytes)?;
        entry::write_counter(self.shared, self.geometry, at, name)?;
        let (slot, contents) = directory.free_slot(self.shared, name.hash, at)?;
        let mut change = self.change();
        change.set(layout::LAST, at + bytes)?;
        change.set(layout::COUNT, count + 1)?;
        change.set(slot, contents)?;
        change.commit()?;
        Ok(at)
    }

    fn double(&self, before: &Directory) -> Result<Directory> {
        let slots = before.slots * 2;
        let bytes = entry::directory_bytes(slots);
        let at = self.room(bytes)?;
        let after = self.new_directory(at, slots)?;
        before.each(self.shared, |entry| {
            let hash = self.hash_of(entry)?;
            let (slot, contents) = after.free_slot(self.shared, hash, entry)?;
            Ok(self.shared.store(slot, contents)?)
        })?;
        let mut change = self.change();
        change.set(layout::LAST, at + bytes)?;
        change.set(layout::DIRECTORY, after.word())?;
        change.commit()?;
        Ok(after)
    }

    /// The hash in an entry to which a slot refers.
    fn hash_of(&self, at: u64) -> Result<u64> {
        if at >= self.shared.len().saturating_sub(LINE - 1) {
            return Err(Errno::IO.into());
        }
        match Entry::read(self.shared, at)? {
            Some(entry) if entry.kind == Kind::Counter => Ok(entry.number),
            _ => Err(Errno::IO.into()),
        }
    }

    /// Writes an empty directory where there is room for it. Nothing refers to it yet.
    pub fn new_directory(&self, at: u64, slots: u64) -> Result<Directory> {
        let directory = Directory::of_entry(at, slots);
        directory.clear(self.shared)?;
        entry::write_other(self.shared, self.geometry, at, Kind::Directory, slots)?;
        Ok(directory)
    }
}
