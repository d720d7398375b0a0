//! Writes a new table in bounded memory, with temporary files for what does not fit.
//!
//! The records are sorted, by the hashes of their keys or by the keys, as runs on the disk that are then merged. The merge
//! writes the records and collects the hash and the offset of each. These entries are sorted by hash in the
//! same way, and the index is written in their order. So every file is written from start to end, and the header
//! last.
//!
//! All long work is done in steps by [`Builder::advance`].
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`files`] | the new file and the temporary files |
//! | [`output`] | writes the new file from start to end, with checksums |
//! | [`spool`] | bytes that are written in order, and read later |
//! | [`sorter`] | sorts more than fits in memory |
//! | [`merge`] | several runs in one order |
//! | [`items`] | what is sorted, and in which order |
//! | [`distinct`] | one of several records with the same key |
//! | [`index`] | the buckets |

mod distinct;
pub mod files;
mod index;
mod items;
mod merge;
mod output;
mod sorter;
mod spool;

use std::time::Instant;

use super::layout::{Flags, Layout, HEADER, RECORDS, STRIDE};
use super::lookup::hash;
use super::record::{crc_of, encode_head, key_of, seal, MOST_KEY, MOST_VALUE};
use crate::store::{checksum, Medium};
use crate::{interrupt, source, Errno, Result};
use distinct::Distinct;
use files::Files;
use index::IndexWriter;
use items::{Entries, Item, Order};
use output::Output;
use sorter::Sorter;
use spool::Spool;

/// Which record of several with the same key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicates {
    Last,
    First,
    /// The build fails.
    Refused,
}

#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub flags: Flags,
    pub seed: u64,
    pub duplicates: Duplicates,
    /// About how many bytes of memory the build may use.
    pub memory: usize,
}

/// Why a build failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    Posix(Errno),
    /// Two records have this key.
    Duplicate(Vec<u8>),
    /// Too many keys have hashes that are close to each other.
    Collisions,
}

impl From<Errno> for Error {
    fn from(error: Errno) -> Error {
        Error::Posix(error)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    Done,
    /// Nothing was added. To be called again after [`Builder::advance`] has returned [`Phase::Adding`].
    Full,
}

/// What a build does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Records can be added.
    Adding,
    /// Records are being written to temporary files.
    Sorting,
    Merging,
    Indexing,
    /// The next step waits until the file is on the disk, and gives it its name.
    Publishing,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub phase: Phase,
    /// Of how many records this is done, and of how many it is to be done.
    pub done: u64,
    pub total: u64,
}

/// What was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Built {
    pub count: u64,
    /// How many records were dropped because another one has the same key.
    pub duplicates: u64,
    /// The bytes of the file.
    pub size: u64,
}

/// Values of more bytes are not sorted with their keys: they are written to a file of their own at once.
const APART: usize = 16 << 10;
/// The room for records in memory, of 16 parts of all memory. The rest is for buffers.
const ROOM: usize = 12;
/// The records of a step between two looks at the clock.
const UNWATCHED: usize = 64;

enum State<F: Files> {
    Adding,
    Merging,
    Indexing(IndexWriter),
    Publishing,
    Done(Built),
    /// An error has ended the build.
    Failed(std::marker::PhantomData<F>),
}

pub struct Builder<F: Files> {
    options: Options,
    files: F,
    records: Sorter<F::Spill>,
    /// The long values.
    values: Spool<F::Spill>,
    /// The records were all added.
    finished: bool,
    added: u64,
    output: Output,
    distinct: Distinct,
    /// The offsets of the records in the sparse index, and the last of them.
    marks: Spool<F::Spill>,
    last_mark: Option<u64>,
    entries: Sorter<F::Spill>,
    layout: Layout,
    state: State<F>,
    item: Vec<u8>,
}

impl<F: Files> Builder<F> {
    pub fn new(options: Options, files: F) -> Builder<F> {
        let room = options.memory / 16 * ROOM;
        let order = match options.flags.sorted {
            true => Order::Key,
            false => Order::Hash(options.seed),
        };
        Builder {
            records: Sorter::new(order, room),
            values: Spool::default(),
            finished: false,
            added: 0,
            output: Output::new(RECORDS),
            distinct: Distinct::new(options.duplicates),
            marks: Spool::default(),
            last_mark: None,
            // While records are merged, their room is used by this and by buffers, each one half.
            entries: Sorter::new(Order::Entry, room / 2),
            layout: Layout {
                flags: options.flags,
                seed: options.seed,
                ..Layout::default()
            },
            state: State::Adding,
            item: Vec::new(),
            options,
            files,
        }
    }

    /// Adds a record. Key and value may be live binaries.
    ///
    /// # Safety
    /// Both must have as many readable bytes as given, until this returns.
    pub unsafe fn add(
        &mut self,
        key: (*const u8, usize),
        value: (*const u8, usize),
    ) -> std::result::Result<Added, Error> {
        if key.1 > MOST_KEY || value.1 as u64 >= MOST_VALUE {
            return Err(Errno(libc::EFBIG).into());
        }
        if !matches!(self.state, State::Adding) || self.finished {
            return Err(Errno::INVAL.into());
        }
        let (head, head_len) = encode_head(key.1, value.1 as u64);
        let apart = value.1 > APART;
        let inline = if apart { 8 } else { value.1 };
        if !self.records.has_room(head_len + key.1 + inline) {
            return Ok(Added::Full);
        }
        let item = &mut self.item;
        item.clear();
        item.extend_from_slice(&head[..head_len]);
        // SAFETY: the caller's promise.
        unsafe { append_intact(item, key)? };
        if apart {
            let mut crc = crc_of(item);
            let at = self.values.len();
            let mut done = 0;
            while done < value.1 {
                let some = (value.1 - done).min(64 << 10);
                let mut piece = Vec::with_capacity(some);
                // SAFETY: the caller's promise; `done + some` is at most the length.
                unsafe { append_intact(&mut piece, (value.0.add(done), some))? };
                crc = checksum::append(crc, &piece);
                self.values.append(&piece, || self.files.spill())?;
                done += some;
                interrupt::check()?;
            }
            seal(item, crc);
            item.extend_from_slice(&at.to_le_bytes());
        } else {
            // SAFETY: the caller's promise.
            unsafe { append_intact(item, value)? };
            let crc = crc_of(item);
            seal(item, crc);
        }
        self.records.add(Item { bytes: item, apart });
        self.added += 1;
        Ok(Added::Done)
    }

    /// All records were added.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    pub fn built(&self) -> Option<Built> {
        match self.state {
            State::Done(built) => Some(built),
            _ => None,
        }
    }

    /// Goes on until a moment, or until records can be added or the table is complete. After an error, every call fails.
    pub fn advance(&mut self, until: Instant) -> std::result::Result<Progress, Error> {
        let result = self.steps(until);
        if result.is_err() {
            self.state = State::Failed(std::marker::PhantomData);
        }
        result
    }

    fn steps(&mut self, until: Instant) -> std::result::Result<Progress, Error> {
        loop {
            let progress = self.step(until)?;
            let waits = matches!(
                progress.phase,
                Phase::Adding | Phase::Publishing | Phase::Done
            );
            if waits || Instant::now() >= until {
                return Ok(progress);
            }
            interrupt::check()?;
        }
    }

    fn step(&mut self, until: Instant) -> std::result::Result<Progress, Error> {
        let progress = |phase, done, total| Progress { phase, done, total };
        match &mut self.state {
            State::Adding => {
                let files = &mut self.files;
                let ready = self
                    .records
                    .advance(self.finished, until, || files.spill())?;
                if ready && self.finished {
                    self.state = State::Merging;
                }
                Ok(match self.finished || !ready {
                    true => progress(Phase::Sorting, self.added, self.added),
                    false => progress(Phase::Adding, self.added, self.added),
                })
            }
            State::Merging => {
                let merged = self.merge(until)?;
                if merged {
                    self.end_of_records()?;
                }
                Ok(progress(Phase::Merging, self.records.taken(), self.added))
            }
            State::Indexing(_) => {
                if self.index(until)? {
                    self.end_of_index()?;
                    self.state = State::Publishing;
                    return Ok(progress(
                        Phase::Publishing,
                        self.layout.count,
                        self.layout.count,
                    ));
                }
                Ok(progress(
                    Phase::Indexing,
                    self.entries.taken(),
                    self.layout.count,
                ))
            }
            State::Publishing => {
                let target = self.files.target();
                target.sync()?;
                target.publish()?;
                self.state = State::Done(Built {
                    count: self.layout.count,
                    duplicates: self.added - self.layout.count,
                    size: self.layout.file_size(),
                });
                Ok(progress(Phase::Done, self.layout.count, self.layout.count))
            }
            State::Done(_) => Ok(progress(Phase::Done, self.layout.count, self.layout.count)),
            State::Failed(_) => Err(Errno::INVAL.into()),
        }
    }

    /// Writes records; `true`: all of them.
    fn merge(&mut self, until: Instant) -> std::result::Result<bool, Error> {
        loop {
            for _ in 0..UNWATCHED {
                // The entries of a large table are sorted in between.
                if !self.entries.has_room(16) {
                    let files = &mut self.files;
                    if !self.entries.advance(false, until, || files.spill())? {
                        return Ok(false);
                    }
                }
                match self.records.next()? {
                    Some(item) => {
                        if !self.distinct.replace(item)? {
                            continue;
                        }
                        self.write_record()?;
                    }
                    None => {
                        if self.distinct.take() {
                            self.write_record()?;
                        }
                        return Ok(true);
                    }
                }
            }
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }

    /// Writes the record that the next one, which has another key, has replaced.
    fn write_record(&mut self) -> Result<()> {
        let target = self.files.target();
        let item = self.distinct.done();
        let at = self.output.position();
        let (key, value_len) = key_of(item.bytes).ok_or(Errno::IO)?;
        let hash = hash(self.options.seed, key);
        if item.apart {
            let (head, place) = item.bytes.split_last_chunk::<8>().ok_or(Errno::IO)?;
            self.output.write(target, head)?;
            self.values
                .copy_to(u64::from_le_bytes(*place), value_len, |piece| {
                    interrupt::check()?;
                    self.output.write(target, piece)
                })?;
        } else {
            self.output.write(target, item.bytes)?;
        }
        self.layout.count += 1;
        self.layout.longest_value = self.layout.longest_value.max(value_len);
        if self.options.flags.sorted && self.last_mark.is_none_or(|last| at - last >= STRIDE) {
            self.last_mark = Some(at);
            self.marks
                .append(&at.to_le_bytes(), || self.files.spill())?;
        }
        self.entries.add(Item {
            bytes: &Entries::encode(hash, at),
            apart: false,
        });
        Ok(())
    }

    fn end_of_records(&mut self) -> Result<()> {
        self.records.clear();
        self.values.clear();
        let target = self.files.target();
        self.layout.records_end = self.output.position();
        self.output.pad(target, 8)?;
        self.layout.marks = self.output.position();
        self.layout.mark_count = self.marks.len() / 8;
        self.marks.copy_to(0, self.marks.len(), |piece| {
            self.output.write(target, piece)
        })?;
        self.marks.clear();
        self.output.pad(target, super::layout::BUCKET)?;
        self.layout.buckets = self.output.position();
        self.state = State::Indexing(IndexWriter::new(self.layout.count));
        Ok(())
    }

    /// Writes buckets; `true`: all of them.
    fn index(&mut self, until: Instant) -> std::result::Result<bool, Error> {
        let files = &mut self.files;
        if !self.entries.advance(true, until, || files.spill())? {
            return Ok(false);
        }
        let State::Indexing(writer) = &mut self.state else {
            return Err(Errno::INVAL.into());
        };
        let target = self.files.target();
        loop {
            for _ in 0..UNWATCHED {
                match self.entries.next()? {
                    Some(entry) => {
                        let (hash, at) = Entries::decode(entry.bytes);
                        writer.add(hash, at, &mut self.output, target)?;
                    }
                    None => {
                        let index = writer.finish(&mut self.output, target)?;
                        self.layout.homes = index.homes;
                        self.layout.bucket_count = index.buckets;
                        self.layout.longest_probe = index.longest_probe;
                        return Ok(true);
                    }
                }
            }
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }

    fn end_of_index(&mut self) -> Result<()> {
        self.entries.clear();
        self.layout.checksums = self.output.position();
        let target = self.files.target();
        self.layout.checksum_count = self.output.finish(target)?;
        // All offsets of the index fit.
        if self.layout.file_size() > MOST_VALUE {
            return Err(Errno(libc::EFBIG));
        }
        let mut page = [0; RECORDS as usize];
        page[..HEADER].copy_from_slice(&self.layout.encode());
        target.write_at(0, &page)
    }
}

/// # Safety
/// The bytes must be readable.
unsafe fn append_intact(to: &mut Vec<u8>, (from, count): (*const u8, usize)) -> Result<()> {
    to.reserve(count);
    let before = to.len();
    // SAFETY: there is room for `count` more bytes, which are then written.
    unsafe {
        source::copy_intact(from, to.as_mut_ptr().add(before), count)?;
        to.set_len(before + count);
    }
    Ok(())
}
