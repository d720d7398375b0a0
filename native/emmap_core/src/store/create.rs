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

/// Writes a new file of this layout, in an order that is safe against crashes.
pub fn write<S: Structure>(layout: &S, medium: &mut impl Medium) -> Result<()> {
    let size = layout.file_size().ok_or(Errno(libc::EFBIG))?;
    medium.extend(size, layout.allocated_from())?;
    layout.fill(medium)?;
    for (at, header) in layout.commits()? {
        medium.write_at(at, &header)?;
    }
    // Complete and on the disk before any program can find it.
    medium.sync()?;
    medium.publish()
}

pub(super) enum Naming {
    /// No other file may have the name.
    New,
    /// Replaces an empty file with this metadata.
    Over(Metadata),
}

/// Creates a file that satisfies `request`, and returns its identity.
pub(super) fn create<S: Structure>(
    path: &Path,
    request: &S::Request,
    naming: Naming,
) -> std::result::Result<Identity, Error<S::Mismatch>> {
    let layout = S::new(request)?;
    let mut file = NewFile::beside(path, naming)?;
    if os::file_page_size(file.file.as_fd(), None)? != os::page_size() {
        // hugetlbfs does not support writes.
        return Err(Errno::NOTSUP.into());
    }
    let identity = Identity::of_file(&file.file)?;
    write(&layout, &mut file)?;
    Ok(identity)
}

/// At the start of a file that is being filled in place, until its headers are written. After a crash, it is still there, and
/// the next opener starts again.
const BEGUN: [u8; 16] = *b"EMMAPNEW\0\0\0\0\0\0\0\0";

/// Whether a file that is not intact was begun in place and not completed. This includes the state after a power failure in
/// which the length was on the disk and the mark was not.
pub fn is_begun(medium: &impl Medium) -> Result<bool> {
    let mut start = [0; BEGUN.len()];
    let len = medium.len()?;
    if len < start.len() as u64 {
        return Ok(false);
    }
    medium.read_at(0, &mut start)?;
    Ok(start == BEGUN || (len == start.len() as u64 && start == [0; BEGUN.len()]))
}

/// Whether the file does not contain a structure yet.
fn is_unfilled<S: Structure>(file: &File) -> Result<bool> {
    Ok(Medium::len(file)? == 0
        || (is_begun(file)? && matches!(S::read(file), Err(Error::BadFormat(_)))))
}

/// Makes a structure of a file that is empty, or that contains only the mark, in an order that is safe against
/// crashes: the mark is overwritten when the other header is on the disk.
pub fn write_in_place<S: Structure>(layout: &S, medium: &mut impl Medium) -> Result<()> {
    let size = layout.file_size().ok_or(Errno(libc::EFBIG))?;
    medium.write_at(0, &BEGUN)?;
    medium.sync()?;
    medium.extend(size, layout.allocated_from())?;
    layout.fill(medium)?;
    for (at, header) in layout.commits()? {
        medium.write_at(at, &header)?;
        // Everything is on the disk before the last header overwrites the mark.
        medium.sync()?;
    }
    Ok(())
}

/// If this fails, the file is empty.
fn create_in_place<S: Structure>(
    mut file: File,
    request: &S::Request,
) -> std::result::Result<(), Error<S::Mismatch>> {
    // Writing to a file of /proc or /sys has side effects.
    if !os::is_mappable(file.as_fd()) {
        return Err(Errno::NODEV.into());
    }
    let layout = S::new(request)?;
    // The mark of an interrupted attempt stays.
    let kept = Medium::len(&file)?.min(BEGUN.len() as u64);
    os::set_size(file.as_fd(), kept)?;
    write_in_place(&layout, &mut file).inspect_err(|_| {
        if is_unfilled::<S>(&file) != Ok(false) {
            let _ = os::set_size(file.as_fd(), 0);
        }
    })?;
    Ok(())
}

/// Whether this file cannot be replaced with another: it is a mount point, or it or its directory belongs to another
/// user.
fn is_irreplaceable<M>(error: &Error<M>) -> bool {
    matches!(
        error,
        Error::Posix(Errno(
            libc::EBUSY | libc::EPERM | libc::EACCES | libc::EROFS | libc::EXDEV
        ))
    )
}

/// An empty file does not contain a structure yet. The opener that holds its lock replaces it with a complete
/// one, with the same mode and owner, or fills it in place if it cannot be replaced.
pub(super) fn fill_empty<S: Structure>(
    path: &Path,
    file: File,
    request: &S::Request,
) -> std::result::Result<(), Error<S::Mismatch>> {
    use std::io::ErrorKind::NotFound;
    // `None`: a file without a name, to which a path in /proc leads.
    let name = match path.canonicalize() {
        Err(error) if error.kind() == NotFound => None,
        answer => Some(answer.map_err(Errno::from)?),
    };
    let writer = file.try_clone().map_err(Errno::from)?;
    os::with_file_lock(file.as_fd(), || {
        let locked = file.metadata().map_err(Errno::from)?;
        let named = match name.as_deref().unwrap_or(path).metadata() {
            // It was removed in the meantime.
            Err(error) if error.kind() == NotFound => return Ok(()),
            answer => answer.map_err(Errno::from)?,
        };
        let named = (locked.dev(), locked.ino()) == (named.dev(), named.ino());
        let empty = locked.len() == 0;
        if !named || !(empty || is_unfilled::<S>(&file)?) {
            return Ok(());
        }
        let Some(name) = name.filter(|_| empty) else {
            return create_in_place::<S>(writer, request);
        };
        match create::<S>(&name, request, Naming::Over(locked)) {
            Err(error) if is_irreplaceable(&error) => create_in_place::<S>(writer, request),
            answer => answer.map(drop),
        }
    })?
}

/// A file that is complete on the disk before it gets its name. If it is dropped without a name, it is
/// removed.
struct NewFile<'a> {
    file: File,
    /// `None`: it has no name, and is deleted when its descriptor is closed.
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
                // Left by a killed process with the same number.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A file without a name in the directory of `path`, if the system supports this: if the process is killed,
/// nothing is left behind.
#[cfg(target_os = "linux")]
pub(crate) fn nameless(path: &Path) -> Option<File> {
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
pub(crate) fn nameless(_path: &Path) -> Option<File> {
    None
}

pub(crate) fn descriptor_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

pub(crate) fn directory_of(path: &Path) -> &Path {
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
                // Only root may change the owner of a file.
                let owner = (Some(empty.uid()), Some(empty.gid()));
                let _ = std::os::unix::fs::fchown(&self.file, owner.0, owner.1);
                std::fs::rename(temporary, self.path)?;
            }
            (Naming::Over(_), None) => return Err(Errno::INVAL),
        }
        let synced = crate::mapped_file::sync_directory(directory_of(self.path));
        if let (Err(_), Naming::New) = (&synced, &self.naming) {
            // The name must survive a power failure; if that is not certain, the file is removed.
            Identity::of_file(&self.file)?.remove(self.path);
        }
        synced
    }
}

/// Creates a name for the file to which the link `from` leads, unless the name exists.
pub(crate) fn link(from: &Path, to: &Path) -> Result<()> {
    let name = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL);
    let (from, to) = (name(from)?, name(to)?);
    let (here, follow) = (libc::AT_FDCWD, libc::AT_SYMLINK_FOLLOW);
    // SAFETY: both names are NUL-terminated and outlive the call.
    os::check(unsafe { libc::linkat(here, from.as_ptr(), here, to.as_ptr(), follow) })
}

/// Names a file that already has another name, unless the new name exists.
pub(crate) fn name_new(from: &Path, to: &Path) -> Result<()> {
    let linked = std::fs::hard_link(from, to).map_err(Errno::from);
    match linked {
        // Not every file system has hard links. rename cannot refuse to overwrite, so this checks first.
        Err(Errno(libc::EPERM) | Errno(libc::ENOTSUP) | Errno(libc::ENOSYS)) => {
            if to.symlink_metadata().is_ok() {
                return Err(Errno::EXIST);
            }
            Ok(std::fs::rename(from, to)?)
        }
        answer => answer,
    }
}
