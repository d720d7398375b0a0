//! The control file of a snapshot: which version is current. Each version is a file of its own.
//!
//! A version is published in this order, under the lock: its file is complete and on the disk; the header that is not in force
//! gets the number; the word [`VERSION`] gets it, which is what readers look at; waiters are woken; the file of the previous
//! version is removed. A program may die in between: the header is the truth, and the word follows it.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::Ordering;

use crate::control_file::{self, Error, Layout, BOOT, SIZE, VERSION};
use crate::mapped_file::Identity;
use crate::store::header::{self, put, u64_at, Body};
use crate::store::shared::Mapped;
use crate::store::{Absent, Medium, Structure};
use crate::{os, word_waits, Errno, Region, Result};

/// What a header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// 0: nothing was published yet.
    pub number: u64,
    /// The size of its file in bytes.
    pub size: u64,
    /// The boot in which it was published without waiting for the disk; 0: it is on the disk.
    pub boot: u128,
}

impl Body for Version {
    const MAGIC: [u8; 8] = *b"EMMAPSNP";
    const VERSION: u32 = 1;
    const BYTES: usize = 32;

    fn encode(&self, body: &mut [u8]) {
        put(body, 0, self.number);
        put(body, 8, self.size);
        put(body, 16, self.boot as u64);
        put(body, 24, (self.boot >> 64) as u64);
    }

    fn decode(body: &[u8]) -> Option<Version> {
        let version = Version {
            number: u64_at(body, 0),
            size: u64_at(body, 8),
            boot: u128::from(u64_at(body, 16)) | u128::from(u64_at(body, 24)) << 64,
        };
        // Words of a map are signed, and no file is longer.
        let limit = i64::MAX as u64;
        (version.number < limit && version.size <= limit).then_some(version)
    }

    fn file_size(&self) -> Option<u64> {
        Some(SIZE)
    }
}

impl Version {
    /// Whether it was not on the disk when the machine stopped.
    pub fn is_lost(&self) -> bool {
        self.boot != 0 && self.boot != os::boot_id()
    }
}

/// Opens the control file, and creates it if it does not exist. Blocks on the disk.
pub fn open(path: &Path, absent: Absent) -> std::result::Result<(Region, Identity), Error> {
    let opened = control_file::open::<Version>(path, absent)?;
    let file = opened.region.clone_file()?;
    let inode = os::stat(file.as_fd())?.inode;
    let shared = Mapped::new(&opened.region);
    // Only one program at a time does this.
    let _lock = os::FileLock::wait(file.as_fd())?;
    let version = Layout::<Version>::read(&file)?.body;
    let word = opened.region.word_mut(VERSION)?;
    match BOOT.is_current(&shared, inode)? {
        // A publisher may have died between the header and the word.
        true => {
            word.fetch_max(version.number as i64, Ordering::SeqCst);
        }
        // The page of the word may be older or newer than that of the header.
        false => {
            word.store(version.number as i64, Ordering::SeqCst);
            BOOT.set_current(&shared, inode)?;
        }
    }
    opened.region.check_fault()?;
    Ok((opened.region, opened.identity))
}

/// The version that the header in force names.
pub fn in_force(region: &Region) -> std::result::Result<Version, Error> {
    Ok(Layout::<Version>::read(&region.clone_file()?)?.body)
}

/// Writes the header of the next version. With `synced`, everything is on the disk in order.
pub fn write(
    medium: &mut impl Medium,
    version: &Version,
    synced: bool,
) -> std::result::Result<(), Error> {
    let layout = Layout::<Version>::read(medium)?;
    if layout.body.number >= version.number {
        return Err(Errno::INVAL.into());
    }
    let commits = header::commits(version, layout.in_force)?;
    // Only the header that is not in force: the other one names the version before.
    let (at, header) = commits.first().ok_or(Errno::INVAL)?;
    medium.write_at(*at, header)?;
    if synced {
        medium.sync()?;
    }
    Ok(())
}

/// The name of the file of a version in the directory of the snapshot.
pub fn file_name(number: u64) -> String {
    format!("{VERSION_PREFIX}{number}")
}

const VERSION_PREFIX: &str = "version-";
/// Begins the name of a file that becomes a version.
pub const NEW_PREFIX: &str = "new-";

/// Makes the complete file at `new` the current version, and returns its number. The caller has the lock. If this fails, the version before is current,
/// and neither file exists. Blocks on the disk.
pub fn publish_file(
    region: &Region,
    directory: &Path,
    new: &Path,
    synced: bool,
) -> std::result::Result<u64, Error> {
    let number = in_force(region)?.number + 1;
    let file = directory.join(file_name(number));
    let published = publish_named(region, directory, (new, &file), number, synced);
    if published.is_err() {
        let _ = std::fs::remove_file(new);
        // Unless the header names it.
        if in_force(region).is_ok_and(|version| version.number != number) {
            let _ = std::fs::remove_file(&file);
        }
    }
    published.map(|()| number)
}

fn publish_named(
    region: &Region,
    directory: &Path,
    (new, file): (&Path, &Path),
    number: u64,
    synced: bool,
) -> std::result::Result<(), Error> {
    let metadata = new.symlink_metadata().map_err(Errno::from)?;
    if !metadata.is_file() {
        return Err(Errno::NODEV.into());
    }
    if synced {
        let mut contents = std::fs::File::open(new).map_err(Errno::from)?;
        contents.sync()?;
    }
    std::fs::rename(new, file).map_err(Errno::from)?;
    if synced {
        crate::mapped_file::sync_directory(directory)?;
    }
    let version = Version {
        number,
        size: metadata.len(),
        boot: if synced { 0 } else { os::boot_id() },
    };
    publish(region, &version, synced)
}

/// Removes the files of versions before the current one, and what publishers left that died. The caller has the lock. Readers keep
/// the pages of what they have open.
pub fn tidy(region: &Region, directory: &Path) -> std::result::Result<(), Error> {
    let version = in_force(region)?;
    // A publisher may have died between the header and the word: readers look at the word.
    advance(region, version.number)?;
    let current = file_name(version.number);
    for entry in directory.read_dir().map_err(Errno::from)? {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_ours = name.starts_with(NEW_PREFIX) || name.starts_with(VERSION_PREFIX);
        if is_ours && name != current {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Makes a version current whose file is complete, and wakes all threads that wait for it. The caller has the lock. Blocks on the
/// disk.
pub fn publish(region: &Region, version: &Version, synced: bool) -> std::result::Result<(), Error> {
    write(&mut region.clone_file()?, version, synced)?;
    Ok(advance(region, version.number)?)
}

/// Stores the number in the word unless it is there, and wakes all threads that wait for it.
fn advance(region: &Region, number: u64) -> Result<()> {
    let number = number as i64;
    let before = region.writing(|| {
        let word = region.word_mut(VERSION)?;
        Ok::<_, Errno>(word.fetch_max(number, Ordering::SeqCst))
    })?;
    match before < number {
        true => word_waits::notify(region, VERSION),
        false => Ok(()),
    }
}

/// The number of the current version; 0: there is none.
#[inline(always)]
pub fn number(region: &Region) -> Result<u64> {
    region.reading(|| Ok(region.word(VERSION)?.load(Ordering::SeqCst) as u64))
}
