//! The file behind a mapping: open, size, sync. Only regular files get this far.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::options::Options;
use crate::{os, Errno, Result};

pub struct MappedFile {
    fd: OwnedFd,
    path: PathBuf,
    /// Cleared by the first sync, which makes the name durable too.
    unsynced_name: AtomicBool,
    sparse: bool,
}

/// An open file, not yet of the size that the options ask for.
pub struct Opened {
    pub file: MappedFile,
    /// The size it was found with.
    size: u64,
    created: bool,
    writable: bool,
}

impl Opened {
    /// Opens `path`, and changes nothing but that a new file may be there.
    pub fn new(path: &Path, options: &Options) -> Result<Opened> {
        options.wanted_size()?;
        // A private map writes to its own pages, and never to a file that was there.
        let writable = options.write && !options.private();
        let (fd, created) = open_fd(path, options, writable)?;
        let opened = Opened::of_fd(fd, path, options);
        if opened.is_err() && created {
            // Nobody had it before us, and nobody will have it from us.
            let _ = std::fs::remove_file(path);
        }
        let mut opened = opened?;
        opened.writable = writable || created;
        opened.created = created;
        opened.file.unsynced_name = AtomicBool::new(created);
        Ok(opened)
    }

    /// Takes over a file that somebody else opened and shaped. Whether its name is durable is not
    /// known.
    pub fn of_fd(fd: OwnedFd, path: &Path, options: &Options) -> Result<Opened> {
        let file = MappedFile {
            fd,
            path: std::path::absolute(path)?,
            unsynced_name: AtomicBool::new(true),
            sparse: options.sparse,
        };
        let size = file.regular_size()?;
        Ok(Opened {
            file,
            size,
            created: false,
            writable: options.write,
        })
    }

    /// The size it will have once it is shaped.
    pub fn planned_size(&self, options: &Options) -> Result<u64> {
        let kept = if options.truncate { 0 } else { self.size };
        Ok(match options.wanted_size()?.filter(|_| self.writable) {
            Some(wanted) if options.fit => wanted,
            Some(wanted) => wanted.max(kept),
            None => kept,
        })
    }

    /// Brings it to at least its planned size.
    pub fn lengthen(&self, options: &Options) -> Result<()> {
        self.file.extend(self.size, self.planned_size(options)?)
    }

    /// Takes away what it has beyond its planned size, or, to be truncated, all that it had. What
    /// destroys comes last, when nothing else can fail.
    pub fn cut(&self, options: &Options) -> Result<()> {
        let planned = self.planned_size(options)?;
        if options.truncate && self.size > 0 {
            os::set_size(self.file.fd(), 0)?;
            self.file.extend(0, planned)
        } else if planned < self.size {
            os::set_size(self.file.fd(), planned)
        } else {
            Ok(())
        }
    }

    /// Leaves the disk as it was found, after a failure.
    pub fn undo(&self, options: &Options) {
        if self.created {
            self.file.unlink();
        } else if let Ok(planned) = self.planned_size(options) {
            if planned > self.size && self.writable {
                self.file.take_back(planned, self.size);
            }
        }
    }
}

/// The descriptor, and whether the file is new.
fn open_fd(path: &Path, options: &Options, writable: bool) -> Result<(OwnedFd, bool)> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
    // O_NONBLOCK: a FIFO without a writer would hold us for ever.
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    let open = |more: libc::c_int| loop {
        // Never more than was asked for, not for a moment.
        let mode: libc::c_uint = options.mode.unwrap_or(0o666) & 0o7777;
        // One that we make is ours to lengthen.
        let access = match writable || more & libc::O_CREAT != 0 {
            true => libc::O_RDWR,
            false => libc::O_RDONLY,
        };
        // SAFETY: `name` is NUL-terminated and outlives the call.
        match unsafe { libc::open(name.as_ptr(), access | flags | more, mode) } {
            -1 => match Errno::last() {
                Errno(libc::EINTR) => continue,
                // A socket, or a FIFO nobody reads.
                Errno(libc::ENXIO) => return Err(Errno::NODEV),
                error => return Err(error),
            },
            // SAFETY: the descriptor is new and nobody else's.
            fd => return Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    };
    let new = |fd: OwnedFd| {
        if let Some(mode) = options.mode {
            // The umask took bits away.
            let mode = mode as libc::mode_t & 0o7777;
            // SAFETY: takes no pointers.
            os::check(unsafe { libc::fchmod(fd.as_raw_fd(), mode) })?;
        }
        Ok((fd, true))
    };
    if !options.create {
        return Ok((open(0)?, false));
    }
    loop {
        // Create and open apart, so that we know which of both it was.
        match open(libc::O_CREAT | libc::O_EXCL) {
            Ok(fd) => return new(fd),
            Err(Errno::EXIST) if !options.exclusive => (),
            Err(error) => return Err(error),
        }
        match open(0) {
            // Removed between the two calls, or a dangling link, which O_EXCL does not follow.
            Err(Errno(libc::ENOENT)) if path.symlink_metadata().is_err() => continue,
            Err(Errno(libc::ENOENT)) => return new(open(libc::O_CREAT)?),
            answer => return Ok((answer?, false)),
        }
    }
}

impl MappedFile {
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn stat(&self) -> Result<libc::stat> {
        // SAFETY: a zeroed stat is a valid one; fstat fills it.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            os::check(libc::fstat(self.fd.as_raw_fd(), &mut stat))?;
            Ok(stat)
        }
    }

    /// The size of the file in bytes, now.
    pub fn size(&self) -> Result<u64> {
        u64::try_from(self.stat()?.st_size).map_err(|_| Errno::IO)
    }

    /// Bytes of the blocks that the file has on its disk.
    pub fn allocated(&self) -> Result<u64> {
        // What POSIX leaves open, and all systems of ours agree on.
        const BLOCK: u64 = 512;
        Ok(u64::try_from(self.stat()?.st_blocks).unwrap_or(0) * BLOCK)
    }

    fn regular_size(&self) -> Result<u64> {
        let stat = self.stat()?;
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => u64::try_from(stat.st_size).map_err(|_| Errno::IO),
            libc::S_IFDIR => Err(Errno::ISDIR),
            _ => Err(Errno::NODEV),
        }
    }

    /// Makes the file at least `to` bytes long, its blocks from `from` on allocated unless it is
    /// sparse. What fails leaves its size as it was.
    pub fn extend(&self, from: u64, to: u64) -> Result<()> {
        if to <= from {
            return Ok(());
        }
        os::without_sigxfsz(|| os::extend(self.fd(), from, to, self.sparse))
    }

    /// Makes the file `to` bytes long again, if it is still the `from` that we made it: what others
    /// appended meanwhile stays.
    pub fn take_back(&self, from: u64, to: u64) {
        if self.size() == Ok(from) {
            let _ = os::set_size(self.fd(), to);
        }
    }

    /// The directory of a new file whose name may not be on the disk yet.
    pub fn unsynced_directory(&self) -> Result<Option<File>> {
        match self.unsynced_name.load(Ordering::Acquire) {
            true => open_directory(self.path.parent().unwrap_or(Path::new("/"))),
            false => Ok(None),
        }
    }

    pub fn name_is_synced(&self) {
        self.unsynced_name.store(false, Ordering::Release);
    }

    /// Deletes the file, unless another one has its name by now.
    pub fn unlink(&self) {
        let (Ok(ours), Ok(named)) = (self.stat(), self.path.metadata()) else {
            return;
        };
        #[allow(clippy::unnecessary_cast)] // the types of both differ between systems
        if (ours.st_dev as u64, ours.st_ino as u64) == (named.dev(), named.ino()) {
            let _ = self.path.canonicalize().and_then(std::fs::remove_file);
        }
    }
}

/// Makes the names in a directory durable, as far as this user may.
pub fn sync_directory(path: &Path) -> Result<()> {
    match open_directory(path)? {
        Some(directory) => os::sync_all(directory.as_fd()),
        None => Ok(()),
    }
}

/// `None`: it was removed, and the names with it; or nobody may open it.
fn open_directory(path: &Path) -> Result<Option<File>> {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    match File::open(path) {
        Ok(directory) => Ok(Some(directory)),
        Err(error) if matches!(error.kind(), NotFound | PermissionDenied) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
