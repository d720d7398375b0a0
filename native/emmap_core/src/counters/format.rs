//! What the bytes of a counter file mean. Every number is checked before it is used in arithmetic.

use super::medium::Medium;
use super::names::{self, encoded, Claim};
use crate::atomics::WORD;
use crate::striped::CACHE_LINE;
use crate::Errno;

pub const MAGIC: [u8; 8] = *b"EMMAPCNT";
pub const VERSION: u32 = 1;
/// Written in the byte order of the machine, as the counters are.
const ENDIAN_MARK: u32 = 0x0102_0304;

/// The two headers stand in pages of their own, so that a torn write of one spares the other. They
/// are the same, but for the moment in which a growth writes them, or when a crash cut that short:
/// then only one of them counts, and the next growth must write the other one first.
pub const HEADERS: [u64; 2] = [0, 4096];
const HEADER_BYTES: usize = 80;
pub const NAMES_OFFSET: u64 = 8192;
/// Room for names in a new file; a hole in the file until it is used.
const NAMES_CAPACITY: u64 = 1 << 20;

const SEQUENCE: usize = 16;
const COUNT: usize = 24;
const STRIPES: usize = 32;
const DATA_OFFSET: usize = 40;
const NAMES_AT: usize = 48;
const NAMES_ROOM: usize = 56;
const NAMES_LENGTH: usize = 64;
const NAMES_CRC: usize = 72;
const HEADER_CRC: usize = 76;
const _: () = assert!(HEADER_CRC + 4 == HEADER_BYTES);

/// The predecessor's file: this, the count (u64, little-endian), the values.
pub const PREDECESSOR: [u8; 8] = *b"EMMAP01\n";
const PREDECESSOR_DATA: u64 = 16;

const MAX_STRIPES: u32 = 1024;
const MAX_NAME_BYTES: u64 = 1024;
const COUNTERS_PER_LINE: u64 = (CACHE_LINE / WORD) as u64;

/// Why a file is not one of counters that we can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFormat {
    /// Another kind of file.
    Kind,
    /// Counters of a version we do not know.
    Version,
    /// Written on a machine of the other byte order.
    Endianness,
    /// Shorter than its header says.
    Length,
    /// Neither header is as it was written.
    Checksum,
    /// The table of names is not as it was written.
    Names,
}

/// Where the counters of a file are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub kind: Kind,
    pub count: u64,
    /// Cache lines for each counter; 1: none of write concurrency.
    pub stripes: u32,
    pub data_offset: u64,
    /// Empty for numbered counters.
    pub names: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Predecessor,
    Current {
        /// Of the header in force.
        sequence: u64,
        /// Which of [`HEADERS`] that is.
        in_force: usize,
        /// Bytes.
        names_room: u64,
    },
}

/// The position of counter `index` in its first stripe. Counters stand sixteen to a line; the
/// line comes once for each stripe, so that more counters move none.
pub fn position(data_offset: u64, stripes: u32, index: u64) -> u64 {
    let (line, place) = (index / COUNTERS_PER_LINE, index % COUNTERS_PER_LINE);
    data_offset + line * CACHE_LINE as u64 * u64::from(stripes) + place * WORD as u64
}

impl Layout {
    /// The layout of a new file; ENOSPC when there are more names than a file can have.
    pub fn new(count: u64, stripes: u32, names: &[String]) -> Result<Layout, Errno> {
        let used = encoded(names)?.len() as u64;
        let room = match names.is_empty() {
            true => 0,
            // Twice as many as there are, but not more than can be used.
            false => NAMES_CAPACITY
                .max((used * 2).next_multiple_of(4096))
                .min(names::MAX_BYTES),
        };
        Ok(Layout::with_room(count, stripes, names, room))
    }

    /// As [`Layout::new`], with room for so many bytes of names, a multiple of 4096.
    pub fn with_room(count: u64, stripes: u32, names: &[String], names_room: u64) -> Layout {
        debug_assert!(names_room.is_multiple_of(4096));
        Layout {
            kind: Kind::Current {
                sequence: 0,
                in_force: 0,
                names_room,
            },
            count,
            stripes: stripes.clamp(1, MAX_STRIPES),
            data_offset: NAMES_OFFSET + names_room,
            names: names.to_vec(),
        }
    }

    /// The least size of a file with this layout.
    pub fn file_size(&self) -> Option<u64> {
        let data = match self.kind {
            Kind::Predecessor => self.count.checked_mul(WORD as u64)?,
            Kind::Current { .. } => self
                .count
                .div_ceil(COUNTERS_PER_LINE)
                .checked_mul(CACHE_LINE as u64)?
                .checked_mul(u64::from(self.stripes))?,
        };
        let size = self.data_offset.checked_add(data)?;
        (size <= i64::MAX as u64).then_some(size)
    }

    /// Reads and checks the layout of a file.
    pub fn read(medium: &impl Medium) -> Result<Layout, super::Error> {
        let mut start = [0u8; HEADER_BYTES];
        let got = take(medium, HEADERS[0], &mut start)?;
        if start[..got].starts_with(&PREDECESSOR) {
            return Ok(Layout::read_predecessor(&start[..got], medium.len()?)?);
        }
        let mut best: Option<Header> = None;
        let mut worst = BadFormat::Kind;
        for (place, offset) in HEADERS.into_iter().enumerate() {
            let mut header = [0u8; HEADER_BYTES];
            let got = take(medium, offset, &mut header)?;
            match parse(&header[..got], place) {
                Ok(header) => {
                    let sequence = header.layout.sequence();
                    if best
                        .as_ref()
                        .is_none_or(|best| best.layout.sequence() < sequence)
                    {
                        best = Some(header);
                    }
                }
                // Sound, and not for us: then nothing in the file is.
                Err(why @ (BadFormat::Version | BadFormat::Endianness)) => return Err(why.into()),
                Err(why) if worst == BadFormat::Kind => worst = why,
                Err(_) => (),
            }
        }
        let header = best.ok_or(worst)?;
        // Asked after the header was read: a file that grows meanwhile is longer before it says so.
        let len = medium.len()?;
        if header.layout.file_size().is_none_or(|size| len < size) {
            return Err(BadFormat::Length.into());
        }
        header.with_names(medium)
    }

    fn read_predecessor(start: &[u8], len: u64) -> Result<Layout, BadFormat> {
        let count = start.get(8..16).ok_or(BadFormat::Length)?;
        let layout = Layout {
            kind: Kind::Predecessor,
            count: u64_at(count, 0),
            stripes: 1,
            data_offset: PREDECESSOR_DATA,
            names: Vec::new(),
        };
        match layout.file_size() {
            Some(size) if size <= len => Ok(layout),
            _ => Err(BadFormat::Length),
        }
    }

    fn sequence(&self) -> u64 {
        match self.kind {
            Kind::Predecessor => 0,
            Kind::Current { sequence, .. } => sequence,
        }
    }

    /// The bytes of the next header.
    fn next_header(&self, sequence: u64, names_room: u64) -> Result<Vec<u8>, Errno> {
        let next = sequence.checked_add(1).ok_or(Errno(libc::EOVERFLOW))?;
        let table = encoded(&self.names)?;
        let mut header = vec![0u8; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&ENDIAN_MARK.to_ne_bytes());
        put(&mut header, SEQUENCE, next);
        put(&mut header, COUNT, self.count);
        header[STRIPES..STRIPES + 4].copy_from_slice(&self.stripes.to_le_bytes());
        put(&mut header, DATA_OFFSET, self.data_offset);
        put(&mut header, NAMES_AT, NAMES_OFFSET);
        put(&mut header, NAMES_ROOM, names_room);
        put(&mut header, NAMES_LENGTH, table.len() as u64);
        header[NAMES_CRC..HEADER_CRC].copy_from_slice(&crc32fast::hash(&table).to_le_bytes());
        let crc = crc32fast::hash(&header[..HEADER_CRC]);
        header[HEADER_CRC..].copy_from_slice(&crc.to_le_bytes());
        Ok(header)
    }

    /// Clears what a growth that a crash cut short left of its header: together with parts of the
    /// next one it could become whole, and speak of names that are others by then.
    fn clear_leftover(&self, medium: &mut impl Medium) -> Result<(), Errno> {
        let Kind::Current { in_force, .. } = self.kind else {
            return Ok(());
        };
        let mut headers = [[0u8; HEADER_BYTES]; 2];
        for (header, at) in headers.iter_mut().zip(HEADERS) {
            take(medium, at, header)?;
        }
        if headers[0] == headers[1] {
            return Ok(());
        }
        medium.write_at(HEADERS[1 - in_force], &[0; HEADER_BYTES])?;
        medium.sync()
    }

    /// Clears the places of the last line that no counter has yet, as far as they need it.
    fn clear_rest_of_line(&self, medium: &mut impl Medium) -> Result<(), Errno> {
        const ZEROS: [u8; CACHE_LINE] = [0; CACHE_LINE];
        let taken = self.count % COUNTERS_PER_LINE * WORD as u64;
        if taken == 0 || self.kind == Kind::Predecessor {
            return Ok(());
        }
        let first = position(self.data_offset, self.stripes, self.count);
        for stripe in 0..u64::from(self.stripes) {
            let at = first + stripe * CACHE_LINE as u64;
            let mut rest = ZEROS;
            let rest = &mut rest[taken as usize..];
            medium.read_at(at, rest)?;
            if *rest != ZEROS[taken as usize..] {
                medium.write_at(at, &ZEROS[taken as usize..])?;
            }
        }
        Ok(())
    }

    /// What is written last, and where: the first write makes the layout the file's.
    fn commits(&self) -> Result<Vec<(u64, Vec<u8>)>, Errno> {
        match self.kind {
            Kind::Predecessor => Ok(vec![(8, self.count.to_le_bytes().to_vec())]),
            Kind::Current {
                sequence,
                in_force,
                names_room,
            } => {
                let header = self.next_header(sequence, names_room)?;
                // The one in force stays until the other one is whole.
                let order = [HEADERS[1 - in_force], HEADERS[in_force]];
                Ok(order.into_iter().map(|at| (at, header.clone())).collect())
            }
        }
    }

    /// This layout with more counters; ENOSPC when the names do not fit.
    pub fn grown(&self, count: u64, names: &[String]) -> Result<Layout, Errno> {
        if let Kind::Current { names_room, .. } = self.kind {
            if encoded(names)?.len() as u64 > names_room {
                return Err(Errno::NOSPC);
            }
        }
        let grown = Layout {
            count,
            names: names.to_vec(),
            ..self.clone()
        };
        grown.file_size().ok_or(Errno(libc::EFBIG))?;
        Ok(grown)
    }

    /// Writes what makes a whole file of this layout, in an order that a crash cannot hurt.
    pub fn create(&self, medium: &mut impl Medium) -> Result<(), Errno> {
        let size = self.file_size().ok_or(Errno(libc::EFBIG))?;
        medium.extend(size, self.data_offset)?;
        medium.write_at(NAMES_OFFSET, &encoded(&self.names)?)?;
        for (at, header) in self.commits()? {
            medium.write_at(at, &header)?;
        }
        // Whole and on the disk before anybody can find it.
        medium.sync()?;
        medium.publish()
    }

    /// Turns a file of layout `before` into one of this layout, in an order that a crash cannot
    /// hurt. Values stay where they are. When it fails, the file is as long as it was.
    pub fn replace(&self, before: &Layout, medium: &mut impl Medium) -> Result<(), Errno> {
        let size = self.file_size().ok_or(Errno(libc::EFBIG))?;
        let end = before.file_size().unwrap_or(0);
        let commits = self.commits()?;
        let kept = encoded(&before.names)?.len();
        before.clear_leftover(medium)?;
        // Behind the names in use, in room that the file has already.
        medium.write_at(NAMES_OFFSET + kept as u64, &encoded(&self.names)?[kept..])?;
        // New counters are 0, whatever somebody left behind the old ones.
        before.clear_rest_of_line(medium)?;
        let mut at = end;
        let stale = medium.len()?.min(size);
        while at < stale {
            let zeros = [0u8; 4096];
            let count = (stale - at).min(zeros.len() as u64);
            medium.write_at(at, &zeros[..count as usize])?;
            at += count;
        }
        medium.extend(size, end)?;
        // What the new header speaks of is on the disk before the header is.
        medium.sync()?;
        for (at, header) in commits {
            medium.write_at(at, &header)?;
            // One header is whole at any moment.
            medium.sync()?;
        }
        Ok(())
    }
}

/// One header that is as it was written; the names it speaks of are still unread.
struct Header {
    layout: Layout,
    names_length: u64,
    names_crc: u32,
}

impl Header {
    fn with_names(mut self, medium: &impl Medium) -> Result<Layout, super::Error> {
        let claim = Claim {
            offset: NAMES_OFFSET,
            length: self.names_length,
            crc: self.names_crc,
            count: self.layout.count,
        };
        self.layout.names = names::read(medium, claim)?;
        Ok(self.layout)
    }
}

fn parse(header: &[u8], place: usize) -> Result<Header, BadFormat> {
    if !header.starts_with(&MAGIC) {
        return Err(BadFormat::Kind);
    }
    if header.len() < HEADER_BYTES {
        return Err(BadFormat::Length);
    }
    if crc32fast::hash(&header[..HEADER_CRC]) != u32_at(header, HEADER_CRC) {
        return Err(BadFormat::Checksum);
    }
    if u32_at(header, 8) != VERSION {
        return Err(BadFormat::Version);
    }
    if header[12..16] != ENDIAN_MARK.to_ne_bytes() {
        return Err(BadFormat::Endianness);
    }
    let (room, length) = (u64_at(header, NAMES_ROOM), u64_at(header, NAMES_LENGTH));
    let stripes = u32_at(header, STRIPES);
    let data_offset = u64_at(header, DATA_OFFSET);
    let sound = (1..=MAX_STRIPES).contains(&stripes)
        && u64_at(header, NAMES_AT) == NAMES_OFFSET
        && NAMES_OFFSET.checked_add(room) == Some(data_offset)
        && data_offset.is_multiple_of(CACHE_LINE as u64)
        && length <= room
        && length <= names::MAX_BYTES
        && length <= u64_at(header, COUNT).saturating_mul(MAX_NAME_BYTES + 2)
        && u64_at(header, SEQUENCE) < u64::MAX;
    if !sound {
        return Err(BadFormat::Checksum);
    }
    let layout = Layout {
        kind: Kind::Current {
            sequence: u64_at(header, SEQUENCE),
            in_force: place,
            names_room: room,
        },
        count: u64_at(header, COUNT),
        stripes,
        data_offset,
        names: Vec::new(),
    };
    Ok(Header {
        layout,
        names_length: length,
        names_crc: u32_at(header, NAMES_CRC),
    })
}

/// Reads as much of `out` as the file has.
fn take(medium: &impl Medium, offset: u64, out: &mut [u8]) -> Result<usize, Errno> {
    let got = medium.len()?.saturating_sub(offset).min(out.len() as u64) as usize;
    if got > 0 {
        medium.read_at(offset, &mut out[..got])?;
    }
    Ok(got)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn put(header: &mut [u8], at: usize, value: u64) {
    header[at..at + 8].copy_from_slice(&value.to_le_bytes());
}
