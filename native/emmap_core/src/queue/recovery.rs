//! Rebuilds the state after a reboot from the contents of the disk.
//!
//! The control area cannot be used then, because any of its pages may be older than any other. The header in force says up to
//! where everything was acknowledged, and what a sync has covered. Everything else is read from the segments.

use std::collections::{BTreeMap, BTreeSet};

use super::layout::{self, cursor, stream, stream_of, BITMAP, CURSORS, DATA, STREAMS};
use super::reading::Found;
use super::record;
use super::segment::{self, Segment, RECORDS};
use super::summary::{Layout, Summary};
use super::{Locked, Result, Stop};
use crate::store::{Shared, Structure};
use crate::{interrupt, Errno};

/// How many records or segments are read between two checks whether the recovery is still needed. An abandoned recovery leaves
/// the same state as one whose program died.
const UNWATCHED: u64 = 64;

/// What was found in a stream.
struct Chain {
    segments: Vec<Segment>,
    /// Where the records of each segment end.
    ends: Vec<u64>,
    tail: u64,
    sequence: u64,
    last: u64,
    items: u64,
    torn: u64,
    /// Less was found than the header says is durable.
    damaged: bool,
    /// For each cursor of the stream the first item at or after its floor.
    starts: Vec<Option<Start>>,
    /// Sequence numbers that were acknowledged durably, for each cursor.
    acknowledged: BTreeMap<usize, BTreeSet<u64>>,
}

#[derive(Clone, Copy)]
struct Start {
    position: u64,
    sequence: u64,
    segment: Segment,
}

/// Rebuilds the control area of a queue that no program uses. `sync` writes everything before it to the disk.
pub fn recover<S: Shared>(
    shared: &S,
    layout: &Layout,
    sync: impl Fn() -> crate::Result<()>,
) -> Result<()> {
    let summary = &layout.summary;
    let segment_size = summary.segment_size;
    let in_file = shared.len().saturating_sub(DATA) / segment_size;
    let segments = in_file.min(layout::MOST_SEGMENTS);
    let recoveries_before = shared.load(layout::RECOVERIES)?;
    clear(shared, segments)?;
    shared.store(layout::FILE, summary.file)?;
    let locked = Locked {
        shared,
        segment_size,
        slot: 0,
        may_wait: true,
        new_salt: segment::new_salt,
    };
    let sound = locked.sound_segments(segments)?;
    let recoveries = match sound.is_empty() {
        true => 0,
        false => recoveries_before.wrapping_add(1).max(1),
    };
    let mut chains = Vec::new();
    for stream in 0..STREAMS {
        chains.push(locked.find_chain(stream, summary, &sound)?);
    }
    for (stream, chain) in chains.iter().enumerate() {
        locked.rebuild_stream(stream, chain)?;
    }
    for number in 0..CURSORS {
        locked.rebuild_cursor(number, summary, &chains[stream_of(number)])?;
    }
    for (stream, chain) in chains.iter().enumerate() {
        let word = 8 * stream as u64;
        // What was found is already on the disk.
        shared.store(layout::DURABLE_POSITION + word, chain.tail)?;
        shared.store(layout::DURABLE_SEQUENCE + word, chain.sequence)?;
        shared.store(layout::SYNCED_FLOOR + word, summary.floor(stream))?;
    }
    shared.store(layout::HEADER, layout.in_force().sequence())?;
    shared.store(layout::SYNCED_HEADER, layout.in_force().place() as u64)?;
    if !sound.is_empty() {
        // The floors from the headers of segments are written to a header before a segment is erased or reused.
        locked.write_header()?;
        sync()?;
        locked.note_synced(Some(&locked.summary()?), None)?;
    }
    erase_others(&locked, &sound, &chains, &sync)?;
    for (stream, chain) in chains.iter().enumerate() {
        locked.apply_acknowledgements(chain)?;
        if chain.damaged {
            // A cursor that reads up to here meets the end of a segment, and detects that items are missing.
            locked.try_begin_segment(stream)?;
        }
    }
    shared.store(layout::RECOVERIES, recoveries)?;
    shared.store(layout::RECOVERED_ITEMS, chains[layout::ITEMS].items)?;
    shared.store(
        layout::TORN_BYTES,
        chains.iter().map(|chain| chain.torn).sum(),
    )?;
    Ok(())
}

/// A cursor that needs damaged items meets them first: it reports them, and continues after them.
fn note_damage(
    chain: &mut Chain,
    summary: &Summary,
    segment: &Segment,
    position: u64,
    expected: Option<u64>,
) {
    for (number, cursor) in summary.cursors.iter().enumerate() {
        let start = &mut chain.starts[number];
        let here = stream_of(number) == segment.stream && cursor.name.is_some();
        if here && start.is_none() && position >= cursor.floor {
            *start = Some(Start {
                position,
                sequence: expected.unwrap_or(cursor.sequence),
                segment: *segment,
            });
        }
    }
}

/// Clears the control area, except for the producers, where each word is as it was written at some time.
fn clear<S: Shared>(shared: &S, segments: u64) -> Result<()> {
    let words = |from: u64, to: u64| (from..to).step_by(8);
    for at in words(layout::LOCK, layout::PRODUCERS).chain(words(BITMAP, DATA)) {
        if shared.load(at)? != 0 {
            shared.store(at, 0)?;
        }
    }
    Ok(shared.store(layout::SEGMENTS, segments)?)
}

/// Erases the headers of all segments that are in no chain, so that no later recovery takes them for a part of one.
fn erase_others<S: Shared>(
    locked: &Locked<S>,
    sound: &[Segment],
    chains: &[Chain],
    sync: &impl Fn() -> crate::Result<()>,
) -> Result<()> {
    let kept: BTreeSet<u64> = chains
        .iter()
        .flat_map(|chain| chain.segments.iter().map(|segment| segment.number))
        .collect();
    let mut erased = false;
    for segment in sound.iter().filter(|found| !kept.contains(&found.number)) {
        segment::erase(locked.shared, segment.number, locked.segment_size)?;
        erased = true;
    }
    match erased {
        true => Ok(sync()?),
        false => Ok(()),
    }
}

impl<S: Shared> Locked<'_, S> {
    /// All segments with intact headers that are not inside a longer one.
    fn sound_segments(&self, segments: u64) -> Result<Vec<Segment>> {
        let mut sound = BTreeMap::new();
        for number in 0..segments {
            if number.is_multiple_of(UNWATCHED) {
                interrupt::check()?;
            }
            if let Some(found) = segment::read(self.shared, number, segments, self.segment_size)? {
                sound.insert(number, found);
            }
        }
        let long: Vec<Segment> = sound.values().copied().filter(|s| s.span > 1).collect();
        for segment in long {
            // It was free again, and then in use as shorter segments, unless its record still exists.
            match self.sound_at(&segment, segment.start + RECORDS, None)? {
                Some(_) => (1..segment.span).for_each(|inside| {
                    sound.remove(&(segment.number + inside));
                }),
                None => drop(sound.remove(&segment.number)),
            }
        }
        Ok(sound.into_values().collect())
    }

    /// Reads a stream from the highest floor that is known.
    fn find_chain(&self, stream: usize, summary: &Summary, sound: &[Segment]) -> Result<Chain> {
        let by_start: BTreeMap<u64, Segment> = sound
            .iter()
            .filter(|segment| segment.stream == stream)
            .map(|segment| (segment.start, *segment))
            .collect();
        let durable = summary.durable_position[stream];
        let told = summary.floor(stream);
        let seen = by_start.values().map(|segment| segment.floor).max();
        let floor = told.max(seen.unwrap_or(0));
        let mut chain = Chain {
            segments: Vec::new(),
            ends: Vec::new(),
            tail: floor,
            sequence: 0,
            last: 0,
            items: 0,
            torn: 0,
            damaged: false,
            starts: vec![None; CURSORS],
            acknowledged: BTreeMap::new(),
        };
        // The sequence number at the floor, if a header contains it.
        let at_floor = summary.cursors.iter().enumerate().find(|(number, cursor)| {
            stream_of(*number) == stream && cursor.name.is_some() && cursor.floor == floor
        });
        let mut expected = at_floor.map(|(_, cursor)| cursor.sequence);
        let around = by_start.range(..=floor).next_back();
        let around = around.filter(|(_, segment)| segment.contains(floor));
        // If the segment of the floor does not exist, it was reused after the floor left it, or never reached the disk.
        let after = by_start
            .range(floor..)
            .next()
            .filter(|(_, next)| expected == Some(next.first_sequence) || floor < durable);
        let first = around.or(after);
        let Some((_, first)) = first else {
            // No needed items are left. Damage at the end of the stream that was already reported is not reported again.
            let cursors = summary.cursors.iter().enumerate();
            let told = cursors.filter(|(number, _)| stream_of(*number) == stream);
            for (_, cursor) in told {
                chain.tail = chain.tail.max(cursor.floor);
                chain.sequence = chain.sequence.max(cursor.sequence);
            }
            chain.tail = chain.tail.max(durable);
            chain.sequence = chain.sequence.max(summary.durable_sequence[stream]);
            chain.damaged = floor < durable;
            return Ok(chain);
        };
        let mut here = *first;
        let mut position = floor.max(here.start + RECORDS);
        chain.segments.push(here);
        let mut records = 0u64;
        loop {
            records += 1;
            if records.is_multiple_of(UNWATCHED) {
                interrupt::check()?;
            }
            if let Some(found) = self.sound_at(&here, position, expected)? {
                self.take_note(&mut chain, summary, &here, &found)?;
                position += found.head.room();
                let item = u64::from(found.head.is_item());
                expected = Some(found.head.sequence + item);
                continue;
            }
            let next = by_start
                .range(here.start + 1..)
                .next()
                .map(|(_, next)| *next);
            let follows = next.filter(|next| expected == Some(next.first_sequence));
            if let Some(next) = follows {
                (here, position) = self.step(&mut chain, position, next);
                expected = Some(here.first_sequence);
                continue;
            }
            if position < durable {
                // Damage before a position that a sync has covered: the items after it stay readable.
                note_damage(&mut chain, summary, &here, position, expected);
                let bound = here.end();
                if let Some(at) = record::next_sound(self.shared, &here, position, bound)? {
                    (position, expected) = (at, None);
                    continue;
                }
                if let Some(next) = next {
                    (here, position) = self.step(&mut chain, position, next);
                    expected = Some(here.first_sequence);
                    continue;
                }
                if durable <= here.end() {
                    // A cursor that reads up to here reports the damage.
                    (position, expected) = (durable, Some(summary.durable_sequence[stream]));
                } else {
                    chain.damaged = true;
                }
            }
            break;
        }
        chain.tail = position;
        chain.ends.push(position);
        // If the number of the item at the floor is unknown, no number of any segment is used again.
        let highest = by_start.values().map(|segment| segment.first_sequence);
        chain.sequence = expected
            .or(highest.max())
            .unwrap_or(here.first_sequence)
            .max(summary.durable_sequence[stream]);
        let later = by_start.range(here.start + 1..);
        chain.torn = later.map(|(_, segment)| segment.bytes).sum::<u64>()
            + self.written_behind(&here, position)?;
        Ok(chain)
    }

    /// The record at a position of a segment, if it is sound and the next one.
    fn sound_at(
        &self,
        segment: &Segment,
        position: u64,
        expected: Option<u64>,
    ) -> Result<Option<Found>> {
        let found = self.found_at(segment.number, position, segment.delta(), segment.end())?;
        let Some(found) = found else {
            return Ok(None);
        };
        let next = expected.is_none_or(|expected| expected == found.head.sequence);
        let sound = next && found.head.is_sound(self.shared, found.at, segment.salt)?;
        Ok(sound.then_some(found))
    }

    /// Continues in the next segment.
    fn step(&self, chain: &mut Chain, end: u64, next: Segment) -> (Segment, u64) {
        chain.ends.push(end);
        chain.segments.push(next);
        (next, next.start + RECORDS)
    }

    /// The number of bytes up to the last that is not zero.
    fn written_behind(&self, segment: &Segment, position: u64) -> Result<u64> {
        let mut piece = [0u8; 4096];
        let mut end = segment.end();
        while end > position {
            interrupt::check()?;
            let count = (end - position).min(piece.len() as u64);
            let at = segment.offset_of(end - count).ok_or(Errno::IO)?;
            let bytes = &mut piece[..count as usize];
            self.shared.read(at, bytes)?;
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                return Ok(end - count + last as u64 + 1 - position);
            }
            end -= count;
        }
        Ok(0)
    }

    /// Collects the information of one intact record.
    fn take_note(
        &self,
        chain: &mut Chain,
        summary: &Summary,
        segment: &Segment,
        found: &Found,
    ) -> Result<()> {
        let flags = found.head.flags;
        if !found.head.is_item() {
            return self.note_acknowledgements(chain, found);
        }
        chain.items += 1;
        chain.last = found.position;
        for (number, cursor) in summary.cursors.iter().enumerate() {
            let start = &mut chain.starts[number];
            let here = stream_of(number) == segment.stream && cursor.name.is_some();
            if here && start.is_none() && found.position >= cursor.floor {
                *start = Some(Start {
                    position: found.position,
                    sequence: found.head.sequence,
                    segment: *segment,
                });
            }
        }
        if flags & record::IDENTITY != 0 {
            let extension = found.head.extension(self.shared, found.at)?;
            let (at, last) = self.producer(&extension.producer())?;
            let number = extension.word(2).saturating_add(1);
            if number > last {
                self.shared.store(at, number)?;
            }
        }
        Ok(())
    }

    fn note_acknowledgements(&self, chain: &mut Chain, found: &Found) -> Result<()> {
        let (at, length) = found.head.payload(found.at);
        let word = |index: u64| -> Result<u64> {
            let mut bytes = [0u8; 8];
            self.shared.read(at + index * 8, &mut bytes)?;
            Ok(u64::from_le_bytes(bytes))
        };
        if length < 8 {
            return Ok(());
        }
        let cursor = word(0)? as usize;
        let sequences = chain.acknowledged.entry(cursor).or_default();
        for index in 1..length / 8 {
            sequences.insert(word(index)?);
        }
        Ok(())
    }

    fn rebuild_stream(&self, stream: usize, chain: &Chain) -> Result<()> {
        let at = stream::at(stream);
        let shared = self.shared;
        shared.store(at + stream::TAIL, chain.tail)?;
        shared.store(at + stream::SEQUENCE, chain.sequence)?;
        // The next push begins a segment with another salt, so that dropped records never look valid.
        shared.store(at + stream::LIMIT, chain.tail)?;
        shared.store(at + stream::LAST, chain.last)?;
        let (Some(first), Some(last)) = (chain.segments.first(), chain.segments.last()) else {
            let size = self.segment_size;
            let start = chain.tail.checked_next_multiple_of(size).ok_or(Errno::IO)?;
            return Ok(shared.store(at + stream::NEXT_START, start)?);
        };
        shared.store(at + stream::NEXT_START, last.end())?;
        shared.store(at + stream::SEGMENT, last.number + 1)?;
        shared.store(at + stream::DELTA, last.delta())?;
        shared.store(at + stream::FIRST_SEGMENT, first.number + 1)?;
        let nexts = chain.segments.iter().skip(1).map(|next| next.number + 1);
        let ends = chain.ends.iter().copied();
        let links = nexts.zip(ends).chain([(0, 0)]);
        for (segment, (next, end)) in chain.segments.iter().zip(links) {
            shared.store(self.next_word(segment.number), next)?;
            shared.store(self.end_word(segment.number), end)?;
            let mut marks = Vec::new();
            self.marks(segment.number, segment.span, true, |at, word| {
                marks.push((at, word));
                Ok(())
            })?;
            marks
                .into_iter()
                .try_for_each(|(at, word)| shared.store(at, word))?;
        }
        Ok(())
    }

    fn rebuild_cursor(&self, number: usize, summary: &Summary, chain: &Chain) -> Result<()> {
        let Some(name) = &summary.cursors[number].name else {
            return Ok(());
        };
        let at = cursor::at(number);
        let shared = self.shared;
        shared.write(at + cursor::NAME, name)?;
        shared.store(at + cursor::NAME_LENGTH, name.len() as u64)?;
        self.set_most_lag(number, summary.cursors[number].most_lag)?;
        match chain.starts[number] {
            Some(start) => {
                shared.store(at + cursor::NEXT, start.position)?;
                shared.store(at + cursor::SEQUENCE, start.sequence)?;
                shared.store(at + cursor::SEGMENT, start.segment.number + 1)?;
                shared.store(at + cursor::DELTA, start.segment.delta())?;
            }
            None => self.enter_tail(number)?,
        }
        let told = &summary.cursors[number];
        if chain.damaged && chain.starts[number].is_none() && told.sequence < chain.sequence {
            // It expects an item that does not exist.
            shared.store(at + cursor::SEQUENCE, told.sequence)?;
        }
        Ok(shared.store(at + cursor::STATE, 1)?)
    }

    /// Items that were durably acknowledged out of order are not delivered again.
    fn apply_acknowledgements(&self, chain: &Chain) -> Result<()> {
        for (cursor, sequences) in &chain.acknowledged {
            let Some(last) = sequences.last().filter(|_| *cursor < layout::DEAD_CURSOR) else {
                continue;
            };
            let mut others = Vec::new();
            while self.is_active(*cursor)?
                && self.load(cursor::at(*cursor) + cursor::SEQUENCE)? <= *last
            {
                match self.check_out(*cursor, 0, None) {
                    Ok(None) => break,
                    Ok(Some(claimed)) if sequences.contains(&claimed.receipt.sequence) => {
                        self.acknowledge(*cursor, &claimed.receipt)?;
                    }
                    Ok(Some(claimed)) => others.push(claimed.receipt),
                    // A later read meets the damage again. Without room for claims, all items are delivered again.
                    Err(Stop::Corrupt(_)) => continue,
                    Err(Stop::Grow(_) | Stop::Checkpoint | Stop::Posix(Errno::NOSPC)) => break,
                    Err(error) => return Err(error),
                }
            }
            for receipt in others {
                self.release_claim(*cursor, &receipt)?;
            }
        }
        Ok(())
    }

    /// Begins a segment if there is a free one.
    fn try_begin_segment(&self, stream: usize) -> Result<()> {
        match self.begin_segment(stream) {
            Err(Stop::Grow(_) | Stop::Checkpoint) => Ok(()),
            begun => begun,
        }
    }
}
