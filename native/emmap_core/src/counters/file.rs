//! Counters in a real file.

use std::ffi::CString;
use std::fs::{File, Metadata, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::format::{BadFormat, Layout};
use super::grid::Grid;
use super::medium::Medium;
use super::Error;
use crate::file::Identity;
use crate::{os, Errno, Options, Region, Result};

/// What is asked of a counter file.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// At least so many counters.
    pub count: u64,
    /// Names from the first counter on; empty for numbered counters.
    pub names: Vec<String>,
    /// Cache lines for each counter of a new file.
    pub stripes: u32,
    /// The file must be there, with counters in it.
    pub existing: bool,
}

/// An open counter file.
pub struct Counters {
    pub region: Region,
    pub layout: Layout,
}

/// Opens the counters at `path`, creating or growing them as asked. Blocks on the disk.
pub fn open(path: &Path, request: &Request) -> std::result::Result<Counters, Error> {
    // What this call created, to be removed should it fail.
    let mut created = None;
    let opened = open_or_create(path, request, &mut created);
    if let (Err(_), Some(identity)) = (&opened, created) {
        identity.remove(path);
    }
    opened
}

fn open_or_create(
    path: &Path,
    request: &Request,
    created: &mut Option<Identity>,
) -> std::result::Result<Counters, Error> {
    loop {
        let Some(mut file) = open_existing(path)? else {
            if request.existing {
                return Err(Errno(libc::ENOENT).into());
            }
            match create(path, request, Naming::New) {
                // A link to nowhere: it is there, and cannot be opened.
                Err(Error::Posix(Errno::EXIST))
                    if path.metadata().is_err() && path.is_symlink() =>
                {
                    return Err(Errno(libc::ENOENT).into());
                }
                Ok(identity) => {
                    *created = Some(identity);
                    continue;
                }
                // Somebody else created it meanwhile.
                Err(Error::Posix(Errno::EXIST)) => continue,
                Err(error) => return Err(error),
            }
        };
        if Medium::len(&file)? == 0 {
            if request.existing {
                return Err(Error::BadFormat(BadFormat::Kind));
            }
            fill_empty(path, file, request)?;
            continue;
        }
        let layout = match wanted(&Layout::read(&file)?, request)? {
            (layout, false) => layout,
            (_, true) => grow(&mut file, request)?,
        };
        let options = Options {
            write: true,
            fixed_size: true,
            lock: false,
            ..Options::default()
        };
        let region = Region::of_file(file.into(), path, &options)?;
        return Ok(Counters { region, layout });
    }
}

/// As [`Region::reattach`], if the file still has the counters of `grid` where they were, and the first of
/// them under these names. If it has not, nobody counts in them until it has.
pub fn reattach(region: &Region, grid: &Grid, names: &[String]) -> std::result::Result<(), Error> {
    let file = region.clone_file()?;
    match still_there(&Layout::read(&file), grid, names) {
        Ok(()) => Ok(region.reattach()?),
        Err(error) => {
            if matches!(error, Error::BadFormat(_)) {
                region.distrust();
            }
            Err(error)
        }
    }
}

fn still_there(
    layout: &std::result::Result<Layout, Error>,
    grid: &Grid,
    names: &[String],
) -> std::result::Result<(), Error> {
    let now = layout.as_ref().map_err(Clone::clone)?;
    if !Grid::from(now).extends(grid) {
        return Err(Error::BadFormat(BadFormat::Length));
    }
    if !now.names.starts_with(names) || (names.is_empty() && !now.names.is_empty()) {
        return Err(Error::BadFormat(BadFormat::Names));
    }
    Ok(())
}

/// The layout that serves `request`, and whether the file must grow for it.
fn wanted(layout: &Layout, request: &Request) -> std::result::Result<(Layout, bool), Error> {
    let common = layout.names.len().min(request.names.len());
    let same_names = layout.names[..common] == request.names[..common];
    let numbered = request.names.is_empty();
    if !same_names || (!numbered && layout.names.is_empty()) {
        return Err(Error::OtherNames(layout.names.clone()));
    }
    let count = match numbered {
        true => request.count,
        false => request.names.len() as u64,
    };
    if count <= layout.count {
        return Ok((layout.clone(), false));
    }
    if numbered && !layout.names.is_empty() {
        // More counters than names cannot be told from the file of somebody else.
        return Err(Error::OtherNames(layout.names.clone()));
    }
    Ok((layout.grown(count, &request.names)?, true))
}

fn grow(file: &mut File, request: &Request) -> std::result::Result<Layout, Error> {
    let lock = file.try_clone().map_err(Errno::from)?;
    os::with_file_lock(lock.as_fd(), || {
        // Somebody may have grown it while we waited.
        let before = Layout::read(file)?;
        let (after, must) = wanted(&before, request)?;
        if must {
            after.replace(&before, file)?;
        }
        Ok(after)
    })?
}

/// An empty file is no counter file yet. The one who holds its lock puts a whole one in its place,
/// with its mode and owner.
fn fill_empty(path: &Path, file: File, request: &Request) -> std::result::Result<(), Error> {
    let path = path.canonicalize().map_err(Errno::from)?;
    os::with_file_lock(file.as_fd(), || {
        let locked = file.metadata().map_err(Errno::from)?;
        let named = match path.metadata() {
            // Somebody took it away meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            answer => answer.map_err(Errno::from)?,
        };
        if (locked.dev(), locked.ino()) == (named.dev(), named.ino()) && locked.len() == 0 {
            create(&path, request, Naming::Over(locked))?;
        }
        Ok(())
    })?
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

enum Naming {
    /// Nobody else may have the name.
    New,
    /// In the place of an empty file, which looks like this.
    Over(Metadata),
}

fn create(path: &Path, request: &Request, naming: Naming) -> std::result::Result<Identity, Error> {
    let count = match request.names.is_empty() {
        true => request.count,
        false => request.names.len() as u64,
    };
    let layout = Layout::new(count, request.stripes, &request.names)?;
    let mut file = NewFile::beside(path, naming)?;
    let identity = Identity::of_file(&file.file)?;
    layout.create(&mut file)?;
    Ok(identity)
}

/// A file that is whole on the disk before it gets its name; without it, it goes again.
struct NewFile<'a> {
    file: File,
    /// `None`: it has no name yet, and goes with its process.
    temporary: Option<PathBuf>,
    path: &'a Path,
    naming: Naming,
}

impl NewFile<'_> {
    fn beside(path: &Path, naming: Naming) -> Result<NewFile<'_>> {
        path.file_name().ok_or(Errno::ISDIR)?;
        let nameless = match naming {
            Naming::New => nameless(path),
            Naming::Over(_) => None,
        };
        if let Some(file) = nameless {
            return Ok(NewFile {
                file,
                temporary: None,
                path,
                naming,
            });
        }
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!(".emmap-{}-{number}.new", std::process::id());
            let temporary = path.with_file_name(name);
            let opened = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&temporary);
            match opened {
                Ok(file) => {
                    return Ok(NewFile {
                        file,
                        temporary: Some(temporary),
                        path,
                        naming,
                    })
                }
                // Left by a process of the same number that was killed.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A file without a name in the directory of `path`, where the system has such: should we be killed,
/// nothing is left behind.
#[cfg(target_os = "linux")]
fn nameless(path: &Path) -> Option<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC)
        .open(directory_of(path))
        .ok()?;
    // It is named through /proc.
    descriptor_path(&file).exists().then_some(file)
}

#[cfg(not(target_os = "linux"))]
fn nameless(_path: &Path) -> Option<File> {
    None
}

fn descriptor_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Gone already where it was renamed.
            let _ = std::fs::remove_file(temporary);
        }
    }
}

impl Medium for File {
    fn len(&self) -> Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        Ok(self.read_exact_at(out, offset)?)
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        os::without_sigxfsz(|| Ok(self.write_all_at(data, offset)?))
    }

    fn extend(&mut self, to: u64, allocated: u64) -> Result<()> {
        let size = Medium::len(self)?;
        if size >= to {
            return Ok(());
        }
        let answer = os::without_sigxfsz(|| {
            // What lies between stays a hole until it is written.
            let from = size.max(allocated).min(to);
            os::extend(self.as_fd(), from, to, from == to)
        });
        // We hold the lock of the file, or nobody has it yet.
        if answer.is_err() {
            let _ = os::set_size(self.as_fd(), size);
        }
        answer
    }

    fn sync(&mut self) -> Result<()> {
        os::sync_all(self.as_fd())
    }

    /// It has its name.
    fn publish(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Medium for NewFile<'_> {
    fn len(&self) -> Result<u64> {
        Medium::len(&self.file)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        Medium::read_at(&self.file, offset, out)
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        Medium::write_at(&mut self.file, offset, data)
    }

    fn extend(&mut self, to: u64, allocated: u64) -> Result<()> {
        self.file.extend(to, allocated)
    }

    fn sync(&mut self) -> Result<()> {
        self.file.sync()
    }

    fn publish(&mut self) -> Result<()> {
        match (&self.naming, &self.temporary) {
            (Naming::New, Some(temporary)) => name_new(temporary, self.path)?,
            (Naming::New, None) => link(&descriptor_path(&self.file), self.path)?,
            (Naming::Over(empty), Some(temporary)) => {
                let permissions = empty.permissions();
                self.file.set_permissions(permissions)?;
                // Only root may give a file away.
                let owner = (Some(empty.uid()), Some(empty.gid()));
                let _ = std::os::unix::fs::fchown(&self.file, owner.0, owner.1);
                std::fs::rename(temporary, self.path)?;
            }
            (Naming::Over(_), None) => return Err(Errno::INVAL),
        }
        let synced = crate::file::sync_directory(directory_of(self.path));
        if let (Err(_), Naming::New) = (&synced, &self.naming) {
            // A name that may not outlive a power failure is not what was asked for.
            Identity::of_file(&self.file)?.remove(self.path);
        }
        synced
    }
}

/// A name for the file that the link `from` leads to, unless it is taken.
fn link(from: &Path, to: &Path) -> Result<()> {
    let name = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL);
    let (from, to) = (name(from)?, name(to)?);
    let (here, follow) = (libc::AT_FDCWD, libc::AT_SYMLINK_FOLLOW);
    // SAFETY: both names are NUL-terminated and outlive the call.
    os::check(unsafe { libc::linkat(here, from.as_ptr(), here, to.as_ptr(), follow) })
}

/// Names a file that has another name already, unless the new name is taken.
fn name_new(from: &Path, to: &Path) -> Result<()> {
    let linked = std::fs::hard_link(from, to).map_err(Errno::from);
    match linked {
        // Not every file system has hard links; rename cannot refuse, so look first.
        Err(Errno(libc::EPERM) | Errno(libc::ENOTSUP) | Errno(libc::ENOSYS)) => {
            if to.symlink_metadata().is_ok() {
                return Err(Errno::EXIST);
            }
            Ok(std::fs::rename(from, to)?)
        }
        answer => answer,
    }
}
