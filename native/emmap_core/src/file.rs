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

/// An open file and what must be undone should the mapping not come about.
pub struct Opened {
    pub file: MappedFile,
    pub size: u64,
    created: bool,
    size_before: u64,
    writable: bool,
}

impl Opened {
    /// Opens `path`, and brings it to the size the options ask for.
    pub fn new(path: &Path, options: &Options) -> Result<Opened> {
        let (fd, created, writable) = open_fd(path, options)?;
        let mut opened = Opened::of_fd(fd, path, options)?;
        opened.created = created;
        opened.writable = writable;
        opened.file.unsynced_name = AtomicBool::new(created);
        match opened.prepare(options) {
            Ok(()) => Ok(opened),
            Err(error) => {
                opened.undo();
                Err(error)
            }
        }
    }

    /// Takes over a file that somebody else opened and shaped.
    pub fn of_fd(fd: OwnedFd, path: &Path, options: &Options) -> Result<Opened> {
        let file = MappedFile {
            fd,
            path: std::path::absolute(path)?,
            unsynced_name: AtomicBool::new(false),
            sparse: options.sparse,
        };
        let size = file.regular_size()?;
        Ok(Opened {
            file,
            size,
            created: false,
            size_before: size,
            writable: options.write,
        })
    }

    fn prepare(&mut self, options: &Options) -> Result<()> {
        if self.created {
            if let Some(mode) = options.mode {
                let mode = mode as libc::mode_t & 0o7777;
                // SAFETY: takes no pointers.
                os::check(unsafe { libc::fchmod(self.file.fd.as_raw_fd(), mode) })?;
            }
        }
        if options.truncate && self.size > 0 {
            os::set_size(self.file.fd(), 0)?;
            (self.size, self.size_before) = (0, 0);
        }
        if let Some(wanted) = options.wanted_size()?.filter(|_| self.writable) {
            if wanted > self.size {
                self.file.extend(self.size, wanted)?;
                self.size = wanted;
            } else if options.fit && wanted < self.size {
                os::set_size(self.file.fd(), wanted)?;
                self.size = wanted;
            }
        }
        Ok(())
    }

    /// Leaves the disk as it was found.
    pub fn undo(&self) {
        if self.created {
            let _ = std::fs::remove_file(&self.file.path);
        } else if self.writable && self.size > self.size_before {
            let _ = os::set_size(self.file.fd(), self.size_before);
        }
    }
}

/// The descriptor, whether the file is new, and whether it may be written.
fn open_fd(path: &Path, options: &Options) -> Result<(OwnedFd, bool, bool)> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
    // A private map writes to its own pages; it needs the file writable only to shape it.
    let shapes = options.create || options.truncate || options.wanted_size()?.is_some();
    let writable = options.write && (!options.private() || shapes);
    // O_NONBLOCK: a FIFO without a writer would hold us for ever.
    let access = if writable {
        libc::O_RDWR
    } else {
        libc::O_RDONLY
    };
    let flags = access | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    let open = |more: libc::c_int| loop {
        let mode: libc::c_uint = 0o666;
        // SAFETY: `name` is NUL-terminated and outlives the call.
        match unsafe { libc::open(name.as_ptr(), flags | more, mode) } {
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
    if !options.create {
        return Ok((open(0)?, false, writable));
    }
    loop {
        // Create and open apart, so that we know which of both it was.
        match open(libc::O_CREAT | libc::O_EXCL) {
            Ok(fd) => return Ok((fd, true, writable)),
            Err(Errno::EXIST) if !options.exclusive => (),
            Err(error) => return Err(error),
        }
        match open(0) {
            // Removed between the two calls, or a dangling link that O_EXCL does not follow.
            Err(Errno(libc::ENOENT)) if path.symlink_metadata().is_err() => continue,
            Err(Errno(libc::ENOENT)) => return Ok((open(libc::O_CREAT)?, false, writable)),
            answer => return Ok((answer?, false, writable)),
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

    fn regular_size(&self) -> Result<u64> {
        let stat = self.stat()?;
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => u64::try_from(stat.st_size).map_err(|_| Errno::IO),
            libc::S_IFDIR => Err(Errno::ISDIR),
            _ => Err(Errno::NODEV),
        }
    }

    /// Makes the file `to` bytes long, its blocks allocated unless it is sparse. What fails leaves
    /// it `from` bytes long.
    pub fn extend(&self, from: u64, to: u64) -> Result<()> {
        let answer = os::without_sigxfsz(|| match self.sparse {
            true => os::set_size(self.fd(), to),
            false => os::extend_allocated(self.fd(), from, to),
        });
        if answer.is_err() {
            // A file system may have kept part of it.
            let _ = os::set_size(self.fd(), from);
        }
        answer
    }

    /// Writes the name of a new file to the disk, once: a file is durable when its directory is.
    pub fn sync_name(&self) -> Result<()> {
        if !self.unsynced_name.load(Ordering::Acquire) {
            return Ok(());
        }
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        match File::open(parent) {
            Ok(directory) => os::sync_all(directory.as_fd())?,
            // The directory was removed, and the name with it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (),
            Err(error) => return Err(error.into()),
        }
        self.unsynced_name.store(false, Ordering::Release);
        Ok(())
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
