//! The layout of a queue's file. `docs/formats.md` describes it for readers in other languages.

use crate::store::{boot, log, participants};

/// The end of the headers.
const CONTROL: u64 = crate::store::header::END;

pub const LOCK: u64 = CONTROL;

pub static LOG: log::Place = log::Place {
    length: CONTROL + 128,
    entries: 12_288,
    capacity: 512,
};

/// Incremented when items become available and a thread waits for them.
pub const ITEMS_EVENT: u64 = CONTROL + 256;
/// Incremented when space becomes available and a thread waits for it.
pub const SPACE_EVENT: u64 = ITEMS_EVENT + 8;
/// A bit for each slot that waits for items.
pub const ITEMS_WAITERS: u64 = ITEMS_EVENT + 16;
/// A bit for each slot that waits for space.
pub const SPACE_WAITERS: u64 = ITEMS_EVENT + 24;

const GENERAL: u64 = CONTROL + 384;
pub const BOOT: boot::Place = boot::Place(GENERAL);
pub const CLEAN: u64 = GENERAL + 24;
/// How many segments the file has.
pub const SEGMENTS: u64 = GENERAL + 32;
/// The sequence number of the last header that was written.
pub const HEADER: u64 = GENERAL + 40;
/// For each stream: the lowest floor in the last header that is known to be on the disk.
pub const SYNCED_FLOOR: u64 = GENERAL + 48;
/// For each stream: the durable position according to a header.
pub const DURABLE_POSITION: u64 = GENERAL + 64;
pub const DURABLE_SEQUENCE: u64 = GENERAL + 80;
/// Items that were dropped for space.
pub const DROPPED: u64 = GENERAL + 96;
pub const RECOVERIES: u64 = GENERAL + 104;
pub const RECOVERED_ITEMS: u64 = GENERAL + 112;
pub const TORN_BYTES: u64 = GENERAL + 120;
/// Not 0: a reader has a maximum lag.
pub const LAGGING: u64 = GENERAL + 128;
/// Which of the two headers is known to be on the disk. The next one is written in place of the other.
pub const SYNCED_HEADER: u64 = GENERAL + 136;
/// The random number of this file, as in the headers.
pub const FILE: u64 = GENERAL + 144;

pub const STREAMS: usize = 2;
/// The items.
pub const ITEMS: usize = 0;
/// The dead letters.
pub const DEAD: usize = 1;

/// The words of a stream.
pub mod stream {
    const FIRST: u64 = super::CONTROL + 640;
    const BYTES: u64 = 128;

    pub const TAIL: u64 = 0;
    pub const SEQUENCE: u64 = 8;
    /// Tail segment + 1.
    pub const SEGMENT: u64 = 16;
    /// File offset - position in the tail segment.
    pub const DELTA: u64 = 24;
    /// A record that would end past this position begins a new segment.
    pub const LIMIT: u64 = 32;
    pub const NEXT_START: u64 = 40;
    /// First segment + 1.
    pub const FIRST_SEGMENT: u64 = 48;
    /// The position of the last item.
    pub const LAST: u64 = 56;

    #[inline(always)]
    pub fn at(stream: usize) -> u64 {
        FIRST + stream as u64 * BYTES
    }
}

/// The slots of the participants, and their words.
pub mod participant {
    pub static PLACE: super::participants::Place = super::participants::Place {
        slots: 20_480,
        bytes_of_each: 64,
    };

    pub const HAS_CLAIMS: u64 = 8;
    /// First segment << 32 | span of segments that are being filled.
    pub const RESERVATION: u64 = 16;
    /// The lowest position of an item that a live binary shows, + 1.
    pub const PINNED: u64 = 24;
}

/// The queue's own cursor is 0, readers follow.
pub const CURSORS: usize = 33;
pub const OWN: usize = 0;
/// The cursor of the dead letters.
pub const DEAD_CURSOR: usize = 32;

/// The words of a cursor.
pub mod cursor {
    const FIRST: u64 = 24_576;
    const BYTES: u64 = 512;

    pub const STATE: u64 = 0;
    pub const NEXT: u64 = 8;
    pub const SEQUENCE: u64 = 16;
    /// Segment + 1.
    pub const SEGMENT: u64 = 24;
    pub const DELTA: u64 = 32;
    /// First << 32 | last claim of the list, + 1 each.
    pub const OUTSTANDING: u64 = 40;
    pub const RELEASED: u64 = 48;
    /// First free claim + 1, << 32 | claims used so far.
    pub const FREE: u64 = 56;
    /// Outstanding << 32 | released.
    pub const COUNTS: u64 = 64;
    pub const MOST_LAG: u64 = 72;
    pub const LOST: u64 = 80;
    pub const NAME_LENGTH: u64 = 88;
    pub const NAME: u64 = 96;
    /// 64 numbers of 32 bits: segments + 1 that hold claims.
    pub const CLAIM_SEGMENTS: u64 = 160;
    pub const MOST_CLAIM_SEGMENTS: u64 = 64;
    pub const END: u64 = CLAIM_SEGMENTS + MOST_CLAIM_SEGMENTS * 4;

    #[inline(always)]
    pub fn at(cursor: usize) -> u64 {
        FIRST + cursor as u64 * BYTES
    }
}

/// The words of a claim.
pub mod claim {
    pub const BYTES: u64 = 64;
    pub const STATE: u64 = 0;
    pub const SEQUENCE: u64 = 8;
    pub const POSITION: u64 = 16;
    /// Segment + 1.
    pub const SEGMENT: u64 = 24;
    /// Previous << 32 | next in the list of outstanding claims, + 1 each.
    pub const OUTSTANDING: u64 = 32;
    /// The same in the list of released ones; of a free one the next free, + 1.
    pub const RELEASED: u64 = 40;

    /// How many claims of each cursor are in the control area, so that items can be checked out while the disk is full.
    pub const FIRST_CLAIMS: u64 = 24;
    const FIRST: u64 = super::BITMAP + super::MOST_SEGMENTS / 8;
    pub const END: u64 = first_at(super::CURSORS);

    #[inline(always)]
    pub const fn first_at(cursor: usize) -> u64 {
        FIRST + cursor as u64 * FIRST_CLAIMS * BYTES
    }
}

pub const PRODUCERS: u64 = 45_056;
pub const MOST_PRODUCERS: u64 = 1024;
pub const PRODUCER_BYTES: u64 = 32;

/// A bit for each segment that is in use.
pub const BITMAP: u64 = 77_824;
pub const MOST_SEGMENTS: u64 = 1 << 20;

/// Where the segments begin, and the control area ends.
pub const DATA: u64 = 262_144;

/// The stream that a cursor reads.
#[inline(always)]
pub fn stream_of(cursor: usize) -> usize {
    match cursor {
        DEAD_CURSOR => DEAD,
        _ => ITEMS,
    }
}

/// Two numbers of 32 bits in a word.
#[inline(always)]
pub fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[inline(always)]
pub fn halves(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

const _: () = {
    assert!(GENERAL + 152 <= CONTROL + 640);
    assert!(LOG.entries + LOG.capacity * 16 <= participant::PLACE.slots);
    assert!(participant::PLACE.slots + 64 * 64 <= 24_576);
    assert!(24_576 + CURSORS as u64 * 512 <= PRODUCERS && cursor::END <= 512);
    assert!(PRODUCERS + MOST_PRODUCERS * PRODUCER_BYTES <= BITMAP);
    assert!(claim::END <= DATA);
};
