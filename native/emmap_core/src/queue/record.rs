//! One record: a header, an extension, a payload, and a checksum over all of it and the salt of its segment.

use std::mem::MaybeUninit;

use super::segment::Segment;
use super::Stop;
use crate::source;
use crate::store::{checksum, Shared};
use crate::{interrupt, Errno, Result};

pub const HEADER: u64 = 24;
/// 1 GiB.
pub const MOST_PAYLOAD: u64 = 1 << 30;
/// The longest extension of this version.
const MOST_EXTENSION: u64 = 24;

/// The payload is an Erlang term in the external format.
pub const TERM: u32 = 1;
/// The extension begins with the identity of a producer.
pub const IDENTITY: u32 = 2;
/// Acknowledgements, which do not count as items.
pub const ACKS: u32 = 4;
/// The extension is that of a dead letter.
pub const DEAD_LETTER: u32 = 8;

/// The contents of a record.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    pub flags: u32,
    pub extension: Extension,
    pub payload: *const u8,
    pub length: usize,
}

/// Up to three words before the payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extension {
    bytes: [u8; MOST_EXTENSION as usize],
    length: usize,
}

impl Extension {
    pub fn new(words: &[u64]) -> Extension {
        let mut extension = Extension::default();
        for word in words {
            let at = extension.length;
            extension.bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
            extension.length += 8;
        }
        extension
    }

    /// For a push with an identity.
    pub fn identity(producer: [u8; 16], number: u64) -> Extension {
        let mut extension = Extension::new(&[0, 0, number]);
        extension.bytes[..16].copy_from_slice(&producer);
        extension
    }

    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.length as u64
    }

    pub fn word(&self, index: usize) -> u64 {
        let at = index * 8;
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().expect("eight bytes"))
    }

    pub fn producer(&self) -> [u8; 16] {
        self.bytes[..16].try_into().expect("sixteen bytes")
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// As it is in the file.
    bytes: [u8; HEADER as usize],
    pub length: u64,
    pub sequence: u64,
    pub flags: u32,
    extension: u64,
}

impl Head {
    pub fn is_item(&self) -> bool {
        self.flags & ACKS == 0
    }

    /// The size of the record.
    #[inline(always)]
    pub fn room(&self) -> u64 {
        room(self.extension, self.length)
    }
}

#[inline(always)]
fn room(extension: u64, length: u64) -> u64 {
    (HEADER + extension + length).next_multiple_of(8)
}

impl Content {
    #[inline(always)]
    pub fn room(&self) -> u64 {
        room(self.extension.length as u64, self.length as u64)
    }
}

/// How many bytes are copied at once.
const PIECE: usize = 4096;

/// How many bytes a search for a record reads between two checks whether its result is still needed.
const WATCHED: u64 = 64 << 10;

/// Writes a record at a file offset that is not read yet.
///
/// # Safety
/// The payload must have as many readable bytes as it says.
#[inline(always)]
pub unsafe fn write<S: Shared>(
    shared: &S,
    at: u64,
    salt: u64,
    sequence: u64,
    content: &Content,
) -> Result<()> {
    // In pieces through a buffer, so that the checksum matches the written bytes even if the payload is a
    // live binary that changes.
    let mut piece = MaybeUninit::<[u8; PIECE]>::uninit();
    let start = piece.as_mut_ptr().cast::<u8>();
    let extension = content.extension.length;
    let before = HEADER as usize + extension;
    let first = content.length.min(PIECE - before);
    // SAFETY: a header, an extension and `first` bytes fit in `piece`, and all of them are written here before they are
    // referred to; the payload by the caller's promise.
    let bytes = unsafe {
        let head = Head::raw(sequence, content);
        start.cast::<[u8; HEADER as usize]>().write_unaligned(head);
        let from = content.extension.bytes.as_ptr();
        std::ptr::copy_nonoverlapping(from, start.add(HEADER as usize), extension);
        source::copy_intact(content.payload, start.add(before), first)?;
        std::slice::from_raw_parts(start, before + first)
    };
    let rest = &bytes[4..];
    // SAFETY: a slice of our own.
    let mut crc = unsafe { shared.sum_in(at + 4, rest.as_ptr(), rest.len(), salt as u32)? };
    let (mut to, mut done) = (at + bytes.len() as u64, first);
    while done < content.length {
        let count = PIECE.min(content.length - done);
        // SAFETY: `piece` has room for `count` bytes, which are then its own; the payload by the caller's promise.
        crc = unsafe {
            source::copy_intact(content.payload.add(done), start, count)?;
            shared.sum_in(to, start, count, crc)?
        };
        to += count as u64;
        done += count;
    }
    shared.write(at, &crc.to_le_bytes())
}

/// Writes the header and the extension of a record whose payload was already written and has this checksum.
pub fn write_head<S: Shared>(
    shared: &S,
    at: u64,
    salt: u64,
    sequence: u64,
    content: &Content,
    payload_crc: u32,
) -> Result<()> {
    let mut head = Head::raw(sequence, content);
    let extension = &content.extension.bytes[..content.extension.length];
    let start = checksum::append(salt as u32, &head[4..]);
    let start = checksum::append(start, extension);
    let crc = crc32c::crc32c_combine(start, payload_crc, content.length);
    head[..4].copy_from_slice(&crc.to_le_bytes());
    shared.write(at + HEADER, extension)?;
    shared.write(at, &head)
}

/// The header of the record at a file offset, if it can be one that ends before `end`. Its checksum is not compared.
#[inline(always)]
pub fn head<S: Shared>(shared: &S, at: u64, end: u64) -> Result<Option<Head>> {
    let room_left = end.saturating_sub(at);
    if room_left < HEADER {
        return Ok(None);
    }
    let mut bytes = [0u8; HEADER as usize];
    shared.read(at, &mut bytes)?;
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let head = Head {
        bytes,
        length: u64::from(word(4)),
        sequence: u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes")),
        flags: word(16),
        extension: u64::from(word(20)),
    };
    let possible = head.length <= MOST_PAYLOAD
        && head.extension <= MOST_EXTENSION
        && head.extension.is_multiple_of(8)
        && head.room() <= room_left;
    Ok(possible.then_some(head))
}

impl Head {
    /// Copies the payload to `out` and returns the extension, if the checksum of what was copied is right.
    ///
    /// # Safety
    /// `out` must have room for the payload, outside of any map.
    #[inline(always)]
    pub unsafe fn copy_to<S: Shared>(
        &self,
        shared: &S,
        at: u64,
        salt: u64,
        out: *mut u8,
    ) -> Result<Option<Extension>> {
        let mut crc = self.crc_of_start(salt);
        let extension = self.extension(shared, at)?;
        if extension.length > 0 {
            crc = checksum::append(crc, &extension.bytes[..extension.length]);
        }
        let length = self.length as usize;
        // SAFETY: `out` has room by the caller's promise.
        crc = unsafe { shared.sum_out(at + HEADER + self.extension, out, length, crc)? };
        Ok((crc == self.crc()).then_some(extension))
    }

    /// The extension, if the checksum matches the current contents of the file.
    pub fn verified<S: Shared>(&self, shared: &S, at: u64, salt: u64) -> Result<Option<Extension>> {
        match self.is_sound(shared, at, salt)? {
            true => self.extension(shared, at).map(Some),
            false => Ok(None),
        }
    }

    /// Whether the checksum is right. Needs no memory for the payload.
    pub fn is_sound<S: Shared>(&self, shared: &S, at: u64, salt: u64) -> Result<bool> {
        let mut crc = self.crc_of_start(salt);
        let mut piece = [0u8; 4096];
        let (mut from, mut left) = (at + HEADER, (self.extension + self.length) as usize);
        // In place, rather than through a copy.
        if let Some(words) = shared.words(from, left / 8)? {
            crc = checksum::append_words(crc, words);
            (from, left) = (from + words.len() as u64 * 8, left % 8);
        }
        while left > 0 {
            let count = left.min(piece.len());
            shared.read(from, &mut piece[..count])?;
            crc = checksum::append(crc, &piece[..count]);
            (from, left) = (from + count as u64, left - count);
        }
        Ok(crc == self.crc())
    }

    pub fn extension<S: Shared>(&self, shared: &S, at: u64) -> Result<Extension> {
        let mut extension = Extension::default();
        if self.extension > 0 {
            extension.length = self.extension as usize;
            shared.read(at + HEADER, &mut extension.bytes[..extension.length])?;
        }
        Ok(extension)
    }

    /// Where the payload is, and how long.
    pub fn payload(&self, at: u64) -> (u64, u64) {
        (at + HEADER + self.extension, self.length)
    }

    fn crc(&self) -> u32 {
        u32::from_le_bytes(self.bytes[..4].try_into().expect("four bytes"))
    }

    fn crc_of_start(&self, salt: u64) -> u32 {
        checksum::append(salt as u32, &self.bytes[4..])
    }

    /// The bytes of a header, without the checksum.
    fn raw(sequence: u64, content: &Content) -> [u8; HEADER as usize] {
        let mut bytes = [0u8; HEADER as usize];
        bytes[4..8].copy_from_slice(&(content.length as u32).to_le_bytes());
        bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
        bytes[16..20].copy_from_slice(&content.flags.to_le_bytes());
        bytes[20..24].copy_from_slice(&(content.extension.length as u32).to_le_bytes());
        bytes
    }
}

/// The next position after `position` in the same segment where a sound record begins, for a reader that met damage.
pub fn next_sound<S: Shared>(
    shared: &S,
    segment: &Segment,
    position: u64,
    end: u64,
) -> std::result::Result<Option<u64>, Stop> {
    let mut position = position + 8;
    while position + HEADER <= end {
        if position.is_multiple_of(WATCHED) {
            interrupt::check()?;
        }
        let at = segment.offset_of(position).ok_or(Errno::IO)?;
        if let Some(head) = head(shared, at, segment.offset_of_end(end))? {
            let later = head.sequence >= segment.first_sequence && head.flags < 16;
            if later && head.is_sound(shared, at, segment.salt)? {
                return Ok(Some(position));
            }
        }
        position += 8;
    }
    Ok(None)
}
