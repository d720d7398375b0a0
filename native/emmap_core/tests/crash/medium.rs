//! A file and its map that remember what a crash at any moment may leave.

use emmap_core::store::Medium;
use emmap_core::{Errno, Result};

use crate::stories::Random;

/// What reaches the disk as a whole, of a write to the file.
const SECTOR: usize = 32;
/// The same of a store through the map: a word.
const WORD: usize = 8;
const PAGE: usize = 4096;

#[derive(Clone, Debug)]
pub enum Change {
    /// Written to the file, which gets longer if it ends before.
    Write(usize, Vec<u8>),
    /// Stored through the map: what is past the end of the file is lost.
    Store(usize, Vec<u8>),
    Extend(usize),
    Publish,
}

/// What is on the disk.
#[derive(Clone, Default)]
pub struct Image {
    pub bytes: Vec<u8>,
    pub named: bool,
}

impl Image {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write(at, data) => {
                let end = at + data.len();
                self.bytes.resize(self.bytes.len().max(end), 0);
                self.bytes[*at..end].copy_from_slice(data);
            }
            Change::Store(at, data) => {
                let end = self.bytes.len().min(at + data.len());
                if let Some(bytes) = self.bytes.get_mut(*at..end) {
                    bytes.copy_from_slice(&data[..bytes.len()]);
                }
            }
            Change::Extend(to) => self.bytes.resize(self.bytes.len().max(*to), 0),
            Change::Publish => self.named = true,
        }
    }
}

/// A moment at which a crash can come.
#[derive(Clone)]
pub struct Moment {
    durable: Image,
    /// Each of these may be on the disk or not.
    pending: Vec<Change>,
}

impl Moment {
    /// Every image that a crash may leave; of very many a sample.
    pub fn images(&self, random: &mut Random, each: &mut impl FnMut(&Image)) {
        let all = 1u64
            .checked_shl(self.pending.len() as u32)
            .filter(|all| *all <= 512);
        for subset in 0..all.unwrap_or(64) {
            // Of too many subsets some: with half of the writes, nearly none, or nearly all.
            let share = 1 + 3 * random.below(3);
            let mut image = self.durable.clone();
            for (n, change) in self.pending.iter().enumerate() {
                let there = match all {
                    Some(_) => subset >> n & 1 == 1,
                    None => random.below(8) < share,
                };
                if there {
                    image.apply(change);
                }
            }
            each(&image);
        }
    }
}

/// A file. Its map is [`Simulated::map`].
pub struct Simulated {
    now: Moment,
    /// What the program itself sees.
    seen: Image,
    /// The moment after each change, in order.
    moments: Vec<Moment>,
    /// How much of the file the map shows.
    mapped: usize,
    /// The sync that does nothing, counted from 0.
    skipped: Option<usize>,
    synced: usize,
}

impl Simulated {
    pub fn on(start: Image, skipped: Option<usize>) -> Simulated {
        Simulated {
            seen: start.clone(),
            now: Moment {
                durable: start,
                pending: Vec::new(),
            },
            moments: Vec::new(),
            mapped: 0,
            skipped,
            synced: 0,
        }
    }

    /// Maps the file as long as it is now. A growth of the file is seen after the next call.
    pub fn map(&mut self) -> Map<'_> {
        self.mapped = self.seen.bytes.len();
        Map(self)
    }

    /// The map as it was made, however long the file is by now.
    pub fn old_map(&mut self) -> Map<'_> {
        Map(self)
    }

    /// The moments since the last call.
    pub fn moments(&mut self) -> Vec<Moment> {
        std::mem::take(&mut self.moments)
    }

    pub fn now(&self) -> Moment {
        self.now.clone()
    }

    /// What the program sees, and what the disk has unless a crash comes first.
    pub fn seen(&self) -> &Image {
        &self.seen
    }

    fn change(&mut self, change: Change) {
        self.seen.apply(&change);
        self.now.pending.push(change);
        self.moments.push(self.now.clone());
    }

    /// In pieces that do not cross a multiple of `piece`.
    fn write(
        &mut self,
        offset: u64,
        mut data: &[u8],
        piece: usize,
        kind: fn(usize, Vec<u8>) -> Change,
    ) {
        let mut at = offset as usize;
        while !data.is_empty() {
            let (now, rest) = data.split_at(data.len().min(piece - at % piece));
            self.change(kind(at, now.to_vec()));
            at += now.len();
            data = rest;
        }
    }

    /// Makes durable what `covered` selects.
    fn sync_of(&mut self, covered: impl Fn(&Change) -> bool) {
        self.synced += 1;
        if self.skipped == Some(self.synced - 1) {
            return;
        }
        let pending = std::mem::take(&mut self.now.pending);
        for change in pending {
            match covered(&change) {
                true => self.now.durable.apply(&change),
                false => self.now.pending.push(change),
            }
        }
        self.moments.push(self.now.clone());
    }
}

fn read(bytes: &[u8], offset: u64, out: &mut [u8]) -> Result<()> {
    let from = offset as usize;
    let bytes = bytes.get(from..from + out.len());
    out.copy_from_slice(bytes.ok_or(Errno::IO)?);
    Ok(())
}

impl Medium for Simulated {
    fn len(&self) -> Result<u64> {
        Ok(self.seen.bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        read(&self.seen.bytes, offset, out)
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.write(offset, data, SECTOR, Change::Write);
        Ok(())
    }

    fn extend(&mut self, to: u64, _allocated: u64) -> Result<()> {
        self.change(Change::Extend(to as usize));
        Ok(())
    }

    /// fsync: all of the file, also what was stored through the map.
    fn sync(&mut self) -> Result<()> {
        self.sync_of(|_| true);
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        self.change(Change::Publish);
        self.sync()
    }
}

/// The map of a [`Simulated`] file. It shows the file as long as it was when it was mapped.
pub struct Map<'a>(&'a mut Simulated);

impl Medium for Map<'_> {
    fn len(&self) -> Result<u64> {
        Ok(self.0.mapped as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        read(&self.0.seen.bytes[..self.0.mapped], offset, out)
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        if offset as usize + data.len() > self.0.mapped {
            return Err(Errno::INVAL);
        }
        self.0.write(offset, data, WORD, Change::Store);
        Ok(())
    }

    /// Lengthens the file, and maps it.
    fn extend(&mut self, to: u64, allocated: u64) -> Result<()> {
        self.0.extend(to, allocated)?;
        self.0.mapped = self.0.seen.bytes.len();
        Ok(())
    }

    /// msync: the mapped pages, and as much of the size of the file as they need.
    fn sync(&mut self) -> Result<()> {
        let end = self.0.mapped.next_multiple_of(PAGE);
        self.0.sync_of(|change| match change {
            Change::Write(at, _) | Change::Store(at, _) => *at < end,
            Change::Extend(to) => *to <= end,
            Change::Publish => false,
        });
        Ok(())
    }
}

#[test]
fn a_map_is_as_long_as_the_file_was() {
    let mut file = Simulated::on(Image::default(), None);
    file.extend(16, 0).unwrap();
    assert_eq!(file.map().write_at(8, &[1; 8]), Ok(()));
    file.extend(PAGE as u64 + 8, 0).unwrap();
    assert_eq!(file.old_map().write_at(16, &[2; 8]), Err(Errno::INVAL));
    file.write_at(PAGE as u64, &[3; 8]).unwrap();
    // The page of the map, and not the one that it does not show.
    file.old_map().sync().unwrap();
    let mut durable = vec![0; 8];
    durable.extend([1; 8]);
    assert_eq!(file.now().durable.bytes, durable);
    assert_eq!(file.now().pending.len(), 2);
    file.map().sync().unwrap();
    assert_eq!(file.now().pending.len(), 0);
    assert_eq!(file.now().durable.bytes, file.seen().bytes);
}

#[test]
fn a_store_reaches_no_further_than_the_file_on_the_disk() {
    let mut file = Simulated::on(Image::default(), None);
    file.extend(8, 0).unwrap();
    file.map().write_at(0, &[1; 8]).unwrap();
    let mut lengths = Vec::new();
    let mut random = Random::of(1);
    file.now()
        .images(&mut random, &mut |image| lengths.push(image.bytes.len()));
    // Without both, with the length, with the store alone, with both.
    assert_eq!(lengths, [0, 8, 0, 8]);
}
