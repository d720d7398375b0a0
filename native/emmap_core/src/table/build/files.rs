//! The new file and the temporary files of a build, in the directory of the target.
//!
//! Where the system supports it, they have no names, and vanish with their descriptors. Otherwise they have temporary
//! names, and each is locked by the build that uses it, so that a later build of the same target can remove those of
//! a build that was killed.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::mapped_file::{sync_directory, Identity};
use crate::store::create::{descriptor_path, directory_of, link, name_new, nameless};
use crate::store::Medium;
use crate::table::lookup::hash;
use crate::{os, Errno, Result};

/// The files that a build writes.
pub trait Files {
    type Target: Medium;
    type Spill: Medium;

    fn target(&mut self) -> &mut Self::Target;
    /// A new temporary file.
    fn spill(&mut self) -> Result<Self::Spill>;
}

/// Files on the disk.
pub struct RealFiles {
    target: Target,
    path: PathBuf,
}

impl RealFiles {
    /// Creates the new file. It gets the name `path` with [`Medium::publish`]; with `replace`, instead of a file that has the
    /// name. Removes what killed builds of the same target have left.
    pub fn create(path: &Path, replace: bool) -> Result<RealFiles> {
        // A symbolic link stays, and its target is replaced.
        let path = match path.canonicalize() {
            Ok(path) => path,
            Err(_) => path.to_owned(),
        };
        path.file_name().ok_or(Errno::ISDIR)?;
        let replaced = match path.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
            Ok(_) if !replace => return Err(Errno::EXIST),
            Ok(found) if found.is_dir() => return Err(Errno::ISDIR),
            // A device or a socket is not replaced by a file.
            Ok(found) if !found.is_file() => return Err(Errno::NODEV),
            Ok(found) => Some(found.permissions()),
        };
        remove_abandoned(&path);
        let file = Temporary::create(&path)?;
        if os::file_page_size(std::os::fd::AsFd::as_fd(&file.file), None)? != os::page_size() {
            // hugetlbfs does not support writes.
            return Err(Errno::NOTSUP);
        }
        Ok(RealFiles {
            target: Target {
                file,
                path: path.clone(),
                replace,
                permissions: replaced,
            },
            path,
        })
    }
}

impl Files for RealFiles {
    type Target = Target;
    type Spill = Temporary;

    fn target(&mut self) -> &mut Target {
        &mut self.target
    }

    fn spill(&mut self) -> Result<Temporary> {
        let mut spill = Temporary::create(&self.path)?;
        // A file that is never named.
        if let Some(name) = spill.name.take() {
            std::fs::remove_file(name)?;
        }
        Ok(spill)
    }
}

/// A file without a name, or with a temporary one that is removed when this is dropped.
pub struct Temporary {
    file: File,
    name: Option<PathBuf>,
}

impl Temporary {
    fn create(target: &Path) -> Result<Temporary> {
        match nameless(target) {
            Some(file) => {
                let _ = file.try_lock();
                Ok(Temporary { file, name: None })
            }
            None => Temporary::with_name(target),
        }
    }

    fn with_name(target: &Path) -> Result<Temporary> {
        loop {
            let name = temporary_name(target);
            let opened = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&name);
            let file = match opened {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error.into()),
            };
            // Another build may have taken it for abandoned before it was locked.
            let _ = file.try_lock();
            if file.metadata()?.nlink() > 0 {
                let name = Some(name);
                return Ok(Temporary { file, name });
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Gone already if it was renamed.
            let _ = std::fs::remove_file(name);
        }
    }
}

/// The start of all temporary names of a target.
fn prefix(target: &Path) -> OsString {
    let name = target.file_name().unwrap_or(OsStr::new(""));
    OsString::from(format!(".emmap-table-{:016x}-", hash(0, name.as_bytes())))
}

fn temporary_name(target: &Path) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut name = prefix(target).into_vec();
    name.extend_from_slice(format!("{}-{number}.new", std::process::id()).as_bytes());
    target.with_file_name(OsString::from_vec(name))
}

/// Removes the temporary files of this target that no program uses.
fn remove_abandoned(target: &Path) {
    let prefix = prefix(target);
    let Ok(entries) = std::fs::read_dir(directory_of(target)) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_name().as_bytes().starts_with(prefix.as_bytes()) {
            continue;
        }
        // Not one that a name in the directory leads to.
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        if let Ok(file) = File::open(entry.path()) {
            if file.try_lock().is_ok() {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// The new file.
pub struct Target {
    file: Temporary,
    path: PathBuf,
    replace: bool,
    permissions: Option<Permissions>,
}

impl Target {
    fn give_name(&mut self) -> Result<()> {
        if let Some(permissions) = self.permissions.take() {
            self.file.file.set_permissions(permissions)?;
        }
        let of_new = match &self.file.name {
            Some(name) => name_new(name, &self.path),
            None => link(&descriptor_path(&self.file.file), &self.path),
        };
        match of_new {
            Err(Errno::EXIST) if self.replace => (),
            named => return named,
        }
        if self.file.name.is_none() {
            let name = temporary_name(&self.path);
            link(&descriptor_path(&self.file.file), &name)?;
            self.file.name = Some(name);
        }
        match &self.file.name {
            Some(name) => Ok(std::fs::rename(name, &self.path)?),
            None => Err(Errno::INVAL),
        }
    }
}

impl Medium for Target {
    fn len(&self) -> Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.file.read_at(offset, out)
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.file.write_at(offset, data)
    }

    fn extend(&mut self, to: u64, allocated: u64) -> Result<()> {
        self.file.extend(to, allocated)
    }

    fn sync(&mut self) -> Result<()> {
        self.file.sync()
    }

    fn publish(&mut self) -> Result<()> {
        let is_new = !self.path.exists();
        self.give_name()?;
        let synced = sync_directory(directory_of(&self.path));
        if synced.is_err() && is_new {
            // The name must survive a power failure; if that is not certain, the file is removed.
            Identity::of_file(&self.file.file)?.remove(&self.path);
        }
        synced
    }
}

impl Medium for Temporary {
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
}
