//! A file that is complete before it gets its name.

use std::ffi::CString;
use std::fs::{File, Metadata, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
#[cfg(target_os = "linux")]
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Error, Medium, Structure};
use crate::mapped_file::Identity;
use crate::{os, Errno, Result};

/// Writes a new file of this layout, in an order that a crash cannot hurt.
pub fn write<S: Structure>(layout: &S, medium: &mut impl Medium) -> Result<()> {
    let size = layout.file_size().ok_or(Errno(libc::EFBIG))?;
    medium.extend(size, layout.allocated_from())?;
    layout.fill(medium)?;
    for (at, header) in layout.commits()? {
        medium.write_at(at, &header)?;
    }
    // Complete and on the disk before anybody can find it.
    medium.sync()?;
    medium.publish()
}

pub(super) enum Naming {
    /// No other file may have the name.
    New,
    /// In the place of an empty file, which looks like this.
    Over(Metadata),
}

/// Creates a file that serves `request`, and returns which one it is.
pub(super) fn create<S: Structure>(
    path: &Path,
    request: &S::Request,
    naming: Naming,
) -> std::result::Result<Identity, Error<S::Mismatch>> {
    let layout = S::new(request)?;
    let mut file = NewFile::beside(path, naming)?;
    let identity = Identity::of_file(&file.file)?;
    write(&layout, &mut file)?;
    Ok(identity)
}

/// An empty file is not a structure's yet. The opener that holds its lock puts a complete one in
/// its place, with its mode and owner.
pub(super) fn fill_empty<S: Structure>(
    path: &Path,
    file: File,
    request: &S::Request,
) -> std::result::Result<(), Error<S::Mismatch>> {
    let path = path.canonicalize().map_err(Errno::from)?;
    os::with_file_lock(file.as_fd(), || {
        let locked = file.metadata().map_err(Errno::from)?;
        let named = match path.metadata() {
            // It was removed meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            answer => answer.map_err(Errno::from)?,
        };
        if (locked.dev(), locked.ino()) == (named.dev(), named.ino()) && locked.len() == 0 {
            create::<S>(&path, request, Naming::Over(locked))?;
        }
        Ok(())
    })?
}

/// A file that is complete on the disk before it gets its name. Dropped without a name, it is
/// removed.
struct NewFile<'a> {
    file: File,
    /// `None`: it has no name at all, and is gone when its descriptor is closed.
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
        let synced = crate::mapped_file::sync_directory(directory_of(self.path));
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
