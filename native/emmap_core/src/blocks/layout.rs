//! The layout of a file of blocks. `docs/formats.md` describes it for readers in other languages.

use crate::store::{boot, log, participants};

/// The end of the headers.
const CONTROL: u64 = crate::store::header::END;

pub const LOCK: u64 = CONTROL;

pub static LOG: log::Place = log::Place {
    length: CONTROL + 128,
    entries: 12_288,
    capacity: 512,
};

/// Held by the participant that syncs, for the duration of the sync.
pub const SYNC_LOCK: u64 = CONTROL + 192;
/// Held by the participant that changes the capacity, which waits for the disk.
pub const CAPACITY_LOCK: u64 = CONTROL + 200;

/// Blocks in use.
pub const COUNT: u64 = CONTROL + 256;
/// Blocks below it have room in the file.
pub const CAPACITY: u64 = CONTROL + 264;
/// No address below it is free.
pub const HINT: u64 = CONTROL + 272;
/// How many slots are in use.
pub const REPLACED: u64 = CONTROL + 280;
/// The number of the last replacement.
pub const REPLACEMENT: u64 = CONTROL + 288;
pub const SYNCS_BEGUN: u64 = CONTROL + 296;
/// The number of the last completed sync.
pub const SYNCS_DONE: u64 = CONTROL + 304;

pub const BOOT: boot::Place = boot::Place(CONTROL + 384);
pub const CLEAN: u64 = CONTROL + 408;
pub const RECOVERIES: u64 = CONTROL + 416;
/// Blocks that the last recovery kept.
pub const KEPT: u64 = CONTROL + 424;
/// Blocks that the last recovery dropped: no sync had covered them.
pub const DROPPED: u64 = CONTROL + 432;

pub static PARTICIPANTS: participants::Place = participants::Place {
    slots: 20_480,
    bytes_of_each: 64,
};

pub const MOST_SLOTS: u64 = 1024;
/// Address + 1 of the block in each slot.
pub const SLOT_ADDRESSES: u64 = 24_576;
/// The number of the replacement in each slot, and its checksum.
pub const SLOT_NUMBERS: u64 = 32_768;
pub const SLOT_NUMBER_BYTES: u64 = 16;

/// The directory of super-groups.
pub const DIRECTORY: u64 = 49_152;
/// The end of the control area.
pub const SLOTS: u64 = DIRECTORY + PAGE;

pub const PAGE: u64 = 4096;
/// The words of a page of bits. Further words mark which of them are full.
pub const WORDS: u64 = 504;
/// Blocks of a group, groups of a super-group, and super-groups.
pub const BITS: u64 = WORDS * 64;

/// The offsets in a group.
pub mod group {
    use super::{PAGE, WORDS};

    pub const LIVE: u64 = 0;
    pub const HELD: u64 = PAGE;
    /// 0: as at the last sync; [`CHANGED_SINCE`], [`CHANGE_SEEN`].
    pub const CHANGED: u64 = HELD + WORDS * 8;
    pub const DURABLE: [u64; 2] = [2 * PAGE, 3 * PAGE];
    pub const CHECKSUMS: u64 = 4 * PAGE;
    pub const BLOCKS: u64 = 36 * PAGE;

    pub const CHANGED_SINCE: u64 = 1;
    /// A sync has copied the live bits, and has not ended.
    pub const CHANGE_SEEN: u64 = 2;
}

/// Where the blocks of a file with one block size are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub block_size: u64,
    /// The random number of the file.
    pub file: u64,
    /// For replaced blocks.
    pub slots: u64,
    slot_bytes: u64,
    groups: u64,
    group_bytes: u64,
    super_bytes: u64,
    /// All addresses are lower than this.
    pub most_blocks: u64,
}

/// Where a block is.
#[derive(Clone, Copy)]
pub struct Place {
    pub group: u64,
    /// The offset of the group.
    pub start: u64,
    /// The number of the block in the group.
    pub index: u64,
}

/// The maximum size of a file.
const MOST_BYTES: u64 = 1 << 62;

impl Geometry {
    /// The block size must be one of [`super::BLOCK_SIZES`].
    pub fn new(block_size: u64, file: u64) -> Geometry {
        let slots = ((256 << 10) / block_size).clamp(2, MOST_SLOTS);
        let slots = 1 << slots.ilog2();
        let slot_bytes = block_size.next_multiple_of(8);
        let groups = (SLOTS + slots * slot_bytes).next_multiple_of(PAGE);
        let group_bytes = group::BLOCKS + (BITS * block_size).next_multiple_of(PAGE);
        let super_bytes = PAGE + BITS * group_bytes;
        let supers = ((MOST_BYTES - groups) / super_bytes).min(BITS);
        Geometry {
            block_size,
            file,
            slots,
            slot_bytes,
            groups,
            group_bytes,
            super_bytes,
            most_blocks: supers * BITS * BITS,
        }
    }

    /// The directory of the groups of a super-group.
    #[inline(always)]
    pub fn directory(&self, number: u64) -> u64 {
        self.groups + number * self.super_bytes
    }

    #[inline(always)]
    pub fn group(&self, number: u64) -> u64 {
        self.directory(number / BITS) + PAGE + number % BITS * self.group_bytes
    }

    #[inline(always)]
    pub fn place(&self, address: u64) -> Place {
        let group = address / BITS;
        Place {
            group,
            start: self.group(group),
            index: address - group * BITS,
        }
    }

    #[inline(always)]
    pub fn block(&self, address: u64) -> u64 {
        self.block_at(&self.place(address))
    }

    #[inline(always)]
    pub fn block_at(&self, place: &Place) -> u64 {
        place.start + group::BLOCKS + place.index * self.block_size
    }

    #[inline(always)]
    pub fn slot(&self, slot: u64) -> u64 {
        SLOTS + slot * self.slot_bytes
    }

    /// The slots that the block with this address can have.
    #[inline(always)]
    pub fn slots_of(&self, address: u64) -> std::ops::Range<u64> {
        let ways = self.slots.min(8);
        let set = u64::from(self.seed(address)) % (self.slots / ways);
        set * ways..(set + 1) * ways
    }

    /// The seed of the checksum of a block. It differs for each block and file.
    #[inline(always)]
    pub fn seed(&self, address: u64) -> u32 {
        ((self.file ^ address.wrapping_mul(0x9E37_79B9_7F4A_7C15)) >> 32) as u32
    }

    /// The size of a file with room for this many blocks.
    pub fn file_size(&self, capacity: u64) -> u64 {
        match capacity.checked_sub(1) {
            None => self.groups,
            Some(last) => (self.block(last) + self.block_size).next_multiple_of(PAGE),
        }
    }

    /// How many groups have blocks below this capacity.
    pub fn groups_of(&self, capacity: u64) -> u64 {
        capacity.div_ceil(BITS)
    }

    /// The capacity of a file that needs a block: somewhat more than that, so that a file seldom grows.
    pub fn capacity_for(&self, address: u64, capacity: u64) -> u64 {
        let of_bytes = |bytes: u64| (bytes / self.block_size).max(1);
        let more = (capacity / 8).clamp(of_bytes(64 << 10), of_bytes(64 << 20));
        let end_of_group = (address / BITS + 1) * BITS;
        (address + more).min(end_of_group).min(self.most_blocks)
    }
}

const _: () = {
    assert!(LOG.entries + LOG.capacity * 16 <= PARTICIPANTS.slots);
    assert!(PARTICIPANTS.slots + 64 * 64 <= SLOT_ADDRESSES);
    assert!(SLOT_ADDRESSES + MOST_SLOTS * 8 <= SLOT_NUMBERS);
    assert!(SLOT_NUMBERS + MOST_SLOTS * SLOT_NUMBER_BYTES <= DIRECTORY);
    assert!(group::CHECKSUMS + BITS * 4 <= group::BLOCKS);
};
