//! Two headers that describe the contents of a file. Each is in a separate page, so that a torn write of one
//! leaves the other intact.
//!
//! ```text
//! 0         magic        8 bytes
//! 8         version      u32
//! 12        endian mark  u32, in the byte order of the machine
//! 16        sequence     u64, from 1
//! 24        body         the fields of the structure
//! 24 + body CRC-32       u32, of all bytes before it
//! ```
//!
//! The headers are equal, except while a growth writes them and after a crash interrupted one.
//! Then the intact header with the higher sequence number is in force, and the next growth first
//! clears the other one. Numbers are little-endian, except for the endian mark.

use super::medium::{read_up_to, Medium};
use super::{BadFormat, Commit, Error};
use crate::{Errno, Result};

/// The offsets of the two headers.
pub const HEADERS: [u64; 2] = [0, 4096];
/// The end of their pages.
pub const END: u64 = 8192;

/// Written in the byte order of the machine, like the words that a structure stores in its map.
const ENDIAN_MARK: u32 = 0x0102_0304;

const VERSION: usize = 8;
const MARK: usize = 12;
const SEQUENCE: usize = 16;
const BODY: usize = 24;
const CRC_BYTES: usize = 4;

/// The part of a header that belongs to the structure.
pub trait Body: Sized {
    const MAGIC: [u8; 8];
    const VERSION: u32;
    /// The length of the body; a header fits in a page.
    const BYTES: usize;

    fn encode(&self, body: &mut [u8]);

    /// Checks every number; `None` if one cannot have been written by this version.
    fn decode(body: &[u8]) -> Option<Self>;

    /// The minimum size of the file; `None` if it exceeds the size of any file.
    fn file_size(&self) -> Option<u64>;
}

/// The header in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    sequence: u64,
    /// Which of [`HEADERS`] it is.
    place: usize,
}

impl InForce {
    /// For a file that has no header yet.
    pub const NONE: InForce = InForce {
        sequence: 0,
        place: 0,
    };

    pub fn sequence(self) -> u64 {
        self.sequence
    }

    /// Which of [`HEADERS`] it is.
    pub fn place(self) -> usize {
        self.place
    }
}

const fn header_bytes<B: Body>() -> usize {
    let bytes = BODY + B::BYTES + CRC_BYTES;
    assert!(bytes <= HEADERS[1] as usize, "a header fits in its page");
    bytes
}

/// The checked body of the header in force, for a file that is long enough for it.
pub fn read<B: Body>(medium: &impl Medium) -> std::result::Result<(B, InForce), Error> {
    let mut best: Option<(B, InForce)> = None;
    let mut worst = BadFormat::Kind;
    for (place, header) in both::<B>(medium)?.into_iter().enumerate() {
        match parse::<B>(&header, place) {
            Ok(found) => {
                let sequence = found.1.sequence;
                if best
                    .as_ref()
                    .is_none_or(|(_, best)| best.sequence < sequence)
                {
                    best = Some(found);
                }
            }
            // The header is intact, but not for this machine or version, so the whole file is not.
            Err(why @ (BadFormat::Version | BadFormat::Endianness)) => return Err(why.into()),
            Err(why) if worst == BadFormat::Kind => worst = why,
            Err(_) => (),
        }
    }
    let (body, in_force) = best.ok_or(worst)?;
    // Read after the header: a file that grows at the same time gets longer before its header
    // changes.
    let len = medium.len()?;
    match body.file_size() {
        Some(size) if size <= len => Ok((body, in_force)),
        _ => Err(BadFormat::Length.into()),
    }
}

/// As much of both headers as the file contains.
fn both<B: Body>(medium: &impl Medium) -> Result<[Vec<u8>; 2]> {
    let mut headers = [Vec::new(), Vec::new()];
    for (header, at) in headers.iter_mut().zip(HEADERS) {
        header.resize(const { header_bytes::<B>() }, 0);
        let got = read_up_to(medium, at, header)?;
        header.truncate(got);
    }
    Ok(headers)
}

fn parse<B: Body>(header: &[u8], place: usize) -> std::result::Result<(B, InForce), BadFormat> {
    if !header.starts_with(&B::MAGIC) {
        return Err(BadFormat::Kind);
    }
    if header.len() < const { header_bytes::<B>() } {
        return Err(BadFormat::Length);
    }
    let (checked, crc) = header.split_at(header.len() - CRC_BYTES);
    if crc32fast::hash(checked) != u32_at(crc, 0) {
        return Err(BadFormat::Checksum);
    }
    if u32_at(header, VERSION) != B::VERSION {
        return Err(BadFormat::Version);
    }
    if header[MARK..SEQUENCE] != ENDIAN_MARK.to_ne_bytes() {
        return Err(BadFormat::Endianness);
    }
    let sequence = u64_at(header, SEQUENCE);
    match B::decode(&checked[BODY..]) {
        // After the highest number, no other could follow.
        Some(body) if sequence < u64::MAX => Ok((body, InForce { sequence, place })),
        _ => Err(BadFormat::Checksum),
    }
}

/// The header with this body that follows the one in force.
fn next<B: Body>(body: &B, in_force: InForce) -> Result<Vec<u8>> {
    let sequence = in_force.sequence.checked_add(1);
    Ok(encode(body, sequence.ok_or(Errno(libc::EOVERFLOW))?))
}

/// The header with this body and sequence number.
pub fn encode<B: Body>(body: &B, sequence: u64) -> Vec<u8> {
    let mut header = vec![0u8; const { header_bytes::<B>() }];
    let crc = header.len() - CRC_BYTES;
    header[..VERSION].copy_from_slice(&B::MAGIC);
    header[VERSION..MARK].copy_from_slice(&B::VERSION.to_le_bytes());
    header[MARK..SEQUENCE].copy_from_slice(&ENDIAN_MARK.to_ne_bytes());
    put(&mut header, SEQUENCE, sequence);
    body.encode(&mut header[BODY..crc]);
    let sum = crc32fast::hash(&header[..crc]);
    header[crc..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// The writes that put `body` in force: see [`super::Structure::commits`].
pub fn commits<B: Body>(body: &B, in_force: InForce) -> Result<Vec<Commit>> {
    let header = next(body, in_force)?;
    // The header in force stays until the other one is complete.
    let order = [HEADERS[1 - in_force.place], HEADERS[in_force.place]];
    Ok(order.into_iter().map(|at| (at, header.clone())).collect())
}

/// Clears the header that is not in force, if it differs: see
/// [`super::Structure::clear_leftover`].
pub fn clear_leftover<B: Body>(medium: &mut impl Medium, in_force: InForce) -> Result<()> {
    let [first, second] = both::<B>(medium)?;
    if first == second {
        return Ok(());
    }
    let zeros = vec![0; const { header_bytes::<B>() }];
    medium.write_at(HEADERS[1 - in_force.place], &zeros)?;
    medium.sync()
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}
