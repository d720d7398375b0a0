//! Opens the file of a structure: checks it, creates it, grows it under its lock, and maps it.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::create::{create, fill_empty, is_begun, Naming};
use super::medium::read_up_to;
use super::{grow, BadFormat, Error, Medium, Structure};
use crate::mapped_file::Identity;
use crate::{os, Errno, Options, Region, Result};

/// What to do if the file is missing or empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    Create,
    Refuse,
}

/// An open file of a structure.
pub struct Opened<S> {
    pub region: Region,
    pub layout: S,
}

type Answer<S, T> = std::result::Result<T, Error<<S as Structure>::Mismatch>>;

/// Opens the file at `path`, and creates or grows it as requested. Blocks on the disk.
pub fn open<S: Structure>(
    path: &Path,
    request: &S::Request,
    absent: Absent,
) -> Answer<S, Opened<S>> {
    // The file that this call created, to be removed if it fails.
    let mut created = None;
    let opened = open_or_create(path, request, absent, &mut created);
    if let (Err(_), Some(identity)) = (&opened, created) {
        identity.remove(path);
    }
    match opened {
        // Files of /proc and /sys return various errors, none of which is the cause.
        Err(Error::Posix(_)) if is_unmappable(path) => Err(Errno::NODEV.into()),
        opened => opened,
    }
}

/// Whether the file exists, and its file system does not support a shared map of it.
fn is_unmappable(path: &Path) -> bool {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    file.is_ok_and(|file| {
        file.metadata().is_ok_and(|it| it.is_file()) && !os::is_mappable(file.as_fd())
    })
}

fn open_or_create<S: Structure>(
    path: &Path,
    request: &S::Request,
    absent: Absent,
    created: &mut Option<Identity>,
) -> Answer<S, Opened<S>> {
    loop {
        let Some(mut file) = open_existing(path)? else {
            if absent == Absent::Refuse {
                return Err(Errno(libc::ENOENT).into());
            }
            match create::<S>(path, request, Naming::New) {
                // A dangling link: it exists, and cannot be opened.
                Err(Error::Posix(Errno::EXIST))
                    if path.metadata().is_err() && path.is_symlink() =>
                {
                    return Err(Errno(libc::ENOENT).into());
                }
                Ok(identity) => {
                    *created = Some(identity);
                    continue;
                }
                // Another opener created it in the meantime.
                Err(Error::Posix(Errno::EXIST)) => continue,
                Err(error) => return Err(error),
            }
        };
        if Medium::len(&file)? == 0 {
            if absent == Absent::Refuse {
                return Err(BadFormat::Kind.into());
            }
            fill_empty::<S>(path, file, request)?;
            continue;
        }
        let found = match S::read(&file) {
            Err(Error::BadFormat(why)) if is_begun(&file)? => {
                if absent == Absent::Refuse {
                    return Err(why.into());
                }
                fill_empty::<S>(path, file, request)?;
                continue;
            }
            answer => answer.map_err(Error::of)?,
        };
        let layout = match found.wanted(request)? {
            None => found,
            Some(_) => grow::under_lock(&mut file, request)?,
        };
        let options = Options {
            write: true,
            fixed_size: !S::GROWS_MAPPED,
            lock: false,
            ..Options::default()
        };
        let region = Region::of_file(file.into(), path, &options)?;
        return Ok(Opened { region, layout });
    }
}

/// The first bytes of a file, which tell what it contains; `None` if the file does not exist or is shorter.
pub fn start_of(path: &Path) -> Option<[u8; 8]> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut start = [0; 8];
    let got = read_up_to(&file, 0, &mut start).ok()?;
    (got == start.len()).then_some(start)
}

fn open_existing(path: &Path) -> Result<Option<File>> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path);
    match opened.map_err(Errno::from) {
        Ok(file) => match file.metadata()?.file_type() {
            kind if kind.is_file() => Ok(Some(file)),
            _ => Err(Errno::NODEV),
        },
        Err(Errno(libc::ENOENT)) => Ok(None),
        Err(Errno(libc::ENXIO)) => Err(Errno::NODEV),
        Err(error) => Err(error),
    }
}

impl<S: Structure> Opened<S> {
    /// Grows the file for `request` while it is mapped, for a structure that supports this
    /// ([`Structure::GROWS_MAPPED`]). Blocks on the disk. If this fails, the layout and the contents of
    /// this map are the old ones.
    ///
    /// `&mut`, because the lock of a file excludes other openers, but not a second call on this map.
    pub fn grow(&mut self, request: &S::Request) -> Answer<S, ()> {
        let mut file = self.region.clone_file()?;
        let layout: S = grow::under_lock(&mut file, request)?;
        self.region
            .grow(layout.file_size().ok_or(Errno(libc::EFBIG))?)?;
        self.layout = layout;
        Ok(())
    }
}

/// As [`Region::reattach`], if `check` accepts the current layout of the file. If the file does
/// not contain an intact structure, or `check` returns an error of the format, all calls on the
/// region fail until it does.
pub fn reattach<S: Structure>(
    region: &Region,
    check: impl FnOnce(&S) -> std::result::Result<(), Error>,
) -> std::result::Result<(), Error> {
    let file = region.clone_file()?;
    match S::read(&file).and_then(|now| check(&now)) {
        Ok(()) => Ok(region.reattach()?),
        Err(error) => {
            if matches!(error, Error::BadFormat(_)) {
                region.distrust();
            }
            Err(error)
        }
    }
}
