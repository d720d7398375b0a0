//! The file behind a mapping: open, size, sync. Only regular files get this far.

use std::cell::Cell;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::options::Options;
use crate::{lent, os, Errno, Result};

pub struct MappedFile {
    fd: OwnedFd,
    name: Name,
    /// Cleared by the first sync, which makes the name durable too.
    unsynced_name: AtomicBool,
    sparse: bool,
}

/// Which file it is, whatever its name: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    device: u64,
    inode: u64,
}

/// The name that a file was opened by.
#[derive(Clone)]
pub struct Name {
    /// Absolute; links in it are not resolved.
    path: PathBuf,
    identity: Identity,
}

/// An open file, not yet of the size that the options ask for.
pub struct Opened {
    pub file: MappedFile,
    /// The size when it was last looked at.
    size: Cell<u64>,
    /// The size that this open has given it.
    made: Cell<Option<u64>>,
    /// The path that this open created, of which the name may be a link to.
    created: Option<PathBuf>,
    writable: bool,
}

impl Opened {
    /// Opens `path`. Changes nothing, except that a new file may be there.
    pub fn new(path: &Path, options: &Options) -> Result<Opened> {
        options.wanted_size()?;
        // A private map writes to its own pages, and never to a file that was there.
        let writable = options.write && !options.private();
        let (fd, created) = open_fd(path, options, writable)?;
        match Opened::of_fd(fd, path, options) {
            Ok(mut opened) => {
                opened.writable = writable || created.is_some();
                opened.file.unsynced_name = AtomicBool::new(created.is_some());
                opened.created = created;
                Ok(opened)
            }
            Err(error) => {
                // Nobody had it before this call, and nobody gets it from this call.
                created.map(std::fs::remove_file);
                Err(error)
            }
        }
    }

    /// Takes a file that the caller opened and shaped. Whether its name is durable is not known.
    pub fn of_fd(fd: OwnedFd, path: &Path, options: &Options) -> Result<Opened> {
        let stat = os::stat(fd.as_fd())?;
        match stat.mode as libc::mode_t & libc::S_IFMT {
            libc::S_IFREG => (),
            libc::S_IFDIR => return Err(Errno::ISDIR),
            _ => return Err(Errno::NODEV),
        }
        let file = MappedFile {
            fd,
            name: Name {
                path: std::path::absolute(path)?,
                identity: Identity::of(&stat),
            },
            unsynced_name: AtomicBool::new(true),
            sparse: options.sparse,
        };
        Ok(Opened {
            file,
            size: Cell::new(stat.size),
            made: Cell::new(None),
            created: None,
            writable: options.write,
        })
    }

    /// LENT where the file is to be made shorter and this process holds live binaries of it: they would read zeros.
    pub fn refuse_lent(&self, options: &Options) -> Result<()> {
        let shorter = options.truncate && self.size.get() > 0
            || self.planned_size(options)? < self.size.get();
        match shorter && lent::is_lent(self.file.name.identity) {
            true => Err(Errno::LENT),
            false => Ok(()),
        }
    }

    /// Whether the size of the file is about to change, for which its lock must be held.
    pub fn resizes(&self, options: &Options) -> Result<bool> {
        let truncates = options.truncate && self.size.get() > 0;
        Ok(self.writable && (truncates || self.planned_size(options)? != self.size.get()))
    }

    /// Looks at the size again, as others may have changed it before the lock was taken.
    pub fn refresh(&self) -> Result<()> {
        self.size.set(self.file.size()?);
        Ok(())
    }

    /// The size it will have once it is shaped.
    pub fn planned_size(&self, options: &Options) -> Result<u64> {
        let kept = if options.truncate { 0 } else { self.size.get() };
        Ok(match options.wanted_size()?.filter(|_| self.writable) {
            Some(wanted) if options.fit => wanted,
            Some(wanted) => wanted.max(kept),
            None => kept,
        })
    }

    /// Brings it to at least its planned size, and allocates what truncating it must not lack later.
    pub fn lengthen(&self, options: &Options) -> Result<()> {
        let planned = self.planned_size(options)?;
        let kept = planned.min(self.size.get());
        if options.truncate && kept > 0 && !options.sparse {
            match os::without_sigxfsz(|| os::allocate_blocks(self.file.fd(), 0, kept, true)) {
                Err(Errno(libc::EOPNOTSUPP) | Errno(libc::ENOSYS)) => (),
                answer => answer?,
            }
        }
        self.file.extend(self.size.get(), planned)?;
        if planned > self.size.get() {
            self.made.set(Some(planned));
        }
        Ok(())
    }

    /// Removes what it has beyond its planned size, or, to be truncated, all that it had. What
    /// destroys comes last, when nothing else can fail.
    pub fn cut(&self, options: &Options) -> Result<()> {
        let planned = self.planned_size(options)?;
        let kept = planned.min(self.size.get());
        let cleared = match options.truncate && kept > 0 {
            // In place: blocks that are released first may not be had again.
            true => os::without_sigxfsz(|| os::clear(self.file.fd(), kept, options.sparse)),
            false => Ok(()),
        };
        let cut = cleared.and_then(|()| match planned < self.size.get() {
            true => os::set_size(self.file.fd(), planned),
            false => Ok(()),
        });
        cut.inspect_err(|_| {
            if options.truncate {
                // Empty, as it was to be, rather than half of it.
                let _ = os::set_size(self.file.fd(), 0);
            }
        })
    }

    /// Takes back what this open has done to the disk, after a failure; what others have made of the file since stays.
    /// A second time nothing is left to do.
    pub fn undo(&self, options: &Options) {
        let made = self.made.take();
        if let Some(created) = &self.created {
            if !self.is_written_by_others(made.unwrap_or(0)) {
                self.file.name.identity.remove(created);
            }
        } else if let (Some(made), Ok(planned)) = (made, self.planned_size(options)) {
            if made == planned {
                self.file.take_back(made, self.size.get());
            }
        }
    }

    /// Whether another program has written to the file that this open created, and made `made` bytes long: then it is
    /// that program's.
    fn is_written_by_others(&self, made: u64) -> bool {
        // hugetlbfs has no writes, and a map makes its file longer.
        let page = os::file_page_size(self.file.fd(), None);
        page == Ok(os::page_size()) && self.file.size() != Ok(made)
    }
}

/// The descriptor, and the path of the file if it is new.
fn open_fd(path: &Path, options: &Options, writable: bool) -> Result<(OwnedFd, Option<PathBuf>)> {
    // O_NONBLOCK: a FIFO without a writer would block the call forever.
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    let flags = flags | if options.append { libc::O_APPEND } else { 0 };
    // Never more than was asked for, not for a moment.
    let mode: libc::c_uint = options.mode.unwrap_or(0o666) & 0o7777;
    let access = if writable {
        libc::O_RDWR
    } else {
        libc::O_RDONLY
    };
    let existing = || open_path(path, access | flags, mode);
    if !options.create {
        return Ok((existing()?, None));
    }
    let mut new = path.to_owned();
    // Open and create separately, to know which of both it was; a file that this call makes is lengthened by it.
    let create = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
    loop {
        if !options.exclusive {
            match existing() {
                Err(Errno(libc::ENOENT)) => (),
                answer => return Ok((answer?, None)),
            }
        }
        if let (Some(wanted), Err(_)) = (options.wanted_size()?, new.symlink_metadata()) {
            // Before others can find the file, and lose with it what they write.
            os::check_room_in(&new, wanted, options.sparse)?;
        }
        match open_path(&new, create | flags, mode) {
            Ok(fd) => return created(fd, new, options),
            Err(Errno::EXIST) if !options.exclusive => (),
            Err(error) => return Err(error),
        }
        // Created between the two calls, or a dangling link, which O_EXCL does not follow: its target is what to
        // create.
        new = match std::fs::read_link(&new) {
            Ok(target) => new.parent().unwrap_or(Path::new("")).join(target),
            Err(_) => path.to_owned(),
        };
    }
}

fn open_path(path: &Path, flags: libc::c_int, mode: libc::c_uint) -> Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
    loop {
        // SAFETY: `name` is NUL-terminated and outlives the call.
        match unsafe { libc::open(name.as_ptr(), flags, mode) } {
            -1 => match Errno::last() {
                Errno(libc::EINTR) => continue,
                // A socket, or a FIFO nobody reads.
                Errno(libc::ENXIO) => return Err(Errno::NODEV),
                error => return Err(error),
            },
            // SAFETY: the descriptor is new and nobody else's.
            fd => return Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    }
}

fn created(fd: OwnedFd, path: PathBuf, options: &Options) -> Result<(OwnedFd, Option<PathBuf>)> {
    if let Some(mode) = options.mode {
        // The umask took bits away.
        let mode = mode as libc::mode_t & 0o7777;
        // SAFETY: takes no pointers.
        let changed = os::retry(|| unsafe { libc::fchmod(fd.as_raw_fd(), mode) });
        if let Err(error) = changed {
            match os::stat(fd.as_fd()) {
                Ok(stat) => Identity::of(&stat).remove(&path),
                Err(_) => drop(std::fs::remove_file(&path)),
            }
            return Err(error);
        }
    }
    Ok((fd, Some(path)))
}

impl Identity {
    pub fn of_file(file: &File) -> Result<Identity> {
        Ok(Identity::of(&os::stat(file.as_fd())?))
    }

    fn of(stat: &os::Stat) -> Identity {
        Identity {
            device: stat.device,
            inode: stat.inode,
        }
    }

    /// Removes the name `path`, unless it leads to another file by now.
    pub fn remove(self, path: &Path) {
        let named = path.metadata().map(|named| Identity {
            device: named.dev(),
            inode: named.ino(),
        });
        if named.is_ok_and(|named| named == self) {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Name {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Removes the name, unless another file has it by now. Of a link, the link: its target has a name of its own.
    pub fn unlink(&self) {
        self.identity.remove(&self.path);
    }
}

impl MappedFile {
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The size of the file in bytes, now.
    pub fn size(&self) -> Result<u64> {
        Ok(os::stat(self.fd())?.size)
    }

    /// Bytes of the blocks that the file has on its disk.
    pub fn allocated(&self) -> Result<u64> {
        Ok(os::stat(self.fd())?.allocated)
    }

    /// Makes the file at least `to` bytes long, its blocks from `from` on allocated unless it is
    /// sparse. What fails leaves its size and its blocks as they were.
    pub fn extend(&self, from: u64, to: u64) -> Result<()> {
        if to <= from {
            return Ok(());
        }
        os::without_sigxfsz(|| os::extend(self.fd(), from, to, self.sparse))
    }

    /// Writes bytes that end past the end of the file, which is `from` bytes long: the file gets longer as the bytes
    /// arrive in it, so a program that follows the file reads no zeros. What fails leaves its size as it was.
    ///
    /// # Safety
    /// `data` must have `count` readable bytes.
    pub unsafe fn write_past_end(
        &self,
        from: u64,
        position: u64,
        data: *const u8,
        count: usize,
    ) -> Result<()> {
        let end = crate::bounds::checked_end(position, count as u64)?;
        let mut reached = from;
        os::without_sigxfsz(|| {
            self.check_room(from.max(position), end)?;
            if position > from {
                os::extend(self.fd(), from, position, self.sparse)?;
                reached = position;
            }
            // SAFETY: the caller's promise.
            let (written, answer) = unsafe { os::write_at(self.fd(), data, count, position) };
            reached = reached.max(position + written as u64);
            answer
        })
        .inspect_err(|_| self.take_back(reached, from))
    }

    /// Appends bytes, wherever the end of the file is by now. What fails may have appended some of them: to take these
    /// back would take others' with them.
    ///
    /// # Safety
    /// `data` must have `count` readable bytes.
    pub unsafe fn append(&self, data: *const u8, count: usize) -> Result<()> {
        let before = self.size()?;
        let end = crate::bounds::checked_end(before, count as u64)?;
        os::without_sigxfsz(|| {
            self.check_room(before, end)?;
            // SAFETY: the caller's promise.
            unsafe { os::append(self.fd(), data, count) }.1
        })
    }

    /// Refuses a long write that cannot be had. Of a short one, what was written of it is taken back for less.
    fn check_room(&self, from: u64, to: u64) -> Result<()> {
        const SHORT: u64 = 1 << 20;
        match to.saturating_sub(from) > SHORT {
            true => os::check_room(self.fd(), from, to),
            false => Ok(()),
        }
    }

    /// Makes the file `to` bytes long again, if it is still the `from` that we made it: what others
    /// appended meanwhile stays.
    pub fn take_back(&self, from: u64, to: u64) {
        if from > to && self.size() == Ok(from) {
            let _ = os::set_size(self.fd(), to);
        }
    }

    /// The directory of a new file whose name may not be on the disk yet.
    pub fn unsynced_directory(&self) -> Result<Option<File>> {
        match self.unsynced_name.load(Ordering::Acquire) {
            true => open_directory(self.name.path.parent().unwrap_or(Path::new("/"))),
            false => Ok(None),
        }
    }

    pub fn name_is_synced(&self) {
        self.unsynced_name.store(false, Ordering::Release);
    }
}

/// Makes the names in a directory durable, as far as this user may and the file system can.
pub fn sync_directory(path: &Path) -> Result<()> {
    match open_directory(path)? {
        Some(directory) => os::sync_directory(directory.as_fd()),
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
