//! The file of a mapping: its name, its size, its durability. It is always a regular file.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::copy_up::CopyUp;
use crate::os::HugePage;
use crate::patience::Deadline;
use crate::{os, Errno, Result};

pub struct MappedFile {
    fd: OwnedFd,
    name: Name,
    /// The path by which the file was created. If the name is a link, this is its target.
    created: PathBuf,
    /// Cleared by the first sync, which also makes the name durable.
    unsynced_name: AtomicBool,
    sparse: bool,
    /// Whether its pages may have another size than ordinary pages.
    perhaps_huge: bool,
    copy_up: CopyUp,
    courtesy: os::Courtesy,
}

/// Identifies a file regardless of its name: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    device: u64,
    inode: u64,
}

/// The name by which a file was opened.
#[derive(Clone)]
pub struct Name {
    /// Absolute; links in it are not resolved.
    path: PathBuf,
    identity: Identity,
}

impl Identity {
    pub fn of_file(file: &File) -> Result<Identity> {
        Ok(Identity::of(&os::stat(file.as_fd())?))
    }

    pub fn of(stat: &os::Stat) -> Identity {
        Identity {
            device: stat.device,
            inode: stat.inode,
        }
    }

    /// Whether `path` leads to this file.
    fn is_at(self, path: &Path) -> bool {
        let named = path.metadata().map(|named| Identity {
            device: named.dev(),
            inode: named.ino(),
        });
        named.is_ok_and(|named| named == self)
    }

    /// Removes the name `path`, unless it now leads to another file.
    pub fn remove(self, path: &Path) {
        if self.is_at(path) {
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

    /// Whether it leads to the file now.
    pub fn leads_to_it(&self) -> bool {
        self.identity.is_at(&self.path)
    }

    /// Removes the name, unless another file has it now. Of a link, it removes the link, not its target.
    pub fn unlink(&self) {
        self.identity.remove(&self.path);
    }
}

impl MappedFile {
    /// Takes ownership of a descriptor. `sparse` is whether the blocks of new parts are not allocated. Whether its name is
    /// durable is not known.
    pub fn new(fd: OwnedFd, path: &Path, stat: &os::Stat, sparse: bool) -> Result<MappedFile> {
        MappedFile::check_kind(stat)?;
        let path = std::path::absolute(path)?;
        Ok(MappedFile {
            fd,
            created: path.clone(),
            name: Name {
                path,
                identity: Identity::of(stat),
            },
            unsynced_name: AtomicBool::new(true),
            sparse,
            perhaps_huge: stat.preferred > os::page_size(),
            copy_up: CopyUp::new(stat),
            courtesy: os::Courtesy::default(),
        })
    }

    /// Only regular files are mapped.
    pub fn check_kind(stat: &os::Stat) -> Result<()> {
        match stat.mode as libc::mode_t & libc::S_IFMT {
            libc::S_IFREG => Ok(()),
            libc::S_IFDIR => Err(Errno::ISDIR),
            _ => Err(Errno::NODEV),
        }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Waits for the lock under which the size of the file changes.
    pub fn lock_size(&self, deadline: &Deadline) -> Result<os::FileLock<'_>> {
        os::FileLock::wait_until(self.fd(), &self.courtesy, deadline)
    }

    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Which of its files the maps show.
    pub fn copy_up(&self) -> &CopyUp {
        &self.copy_up
    }

    /// The page size of a map of it; see [`os::file_page_size`].
    pub fn page_size(&self, huge: Option<HugePage>) -> Result<usize> {
        match self.perhaps_huge {
            true => os::file_page_size(self.fd(), huge),
            false => Ok(os::map_page_size(huge)),
        }
    }

    /// The current size of the file in bytes.
    pub fn size(&self) -> Result<u64> {
        Ok(os::stat(self.fd())?.size)
    }

    /// The size of the blocks that the file has on its disk, in bytes.
    pub fn allocated(&self) -> Result<u64> {
        Ok(os::stat(self.fd())?.allocated)
    }

    /// Extends the file to at least `to` bytes, and allocates its blocks from `from` on unless it is
    /// sparse. If this fails, its size and its blocks do not change.
    pub fn extend(&self, from: u64, to: u64) -> Result<()> {
        if to <= from {
            return Ok(());
        }
        os::without_sigxfsz(|| os::extend(self.fd(), from, to, self.sparse))
    }

    /// Writes bytes that end past the end of the file, which is `from` bytes long. The file grows as the bytes
    /// arrive in it, so a program that follows the file never reads zeros. If this fails, its size does not change.
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

    /// Appends bytes at the current end of the file. If this fails, some of them may have been appended: removing
    /// them could remove bytes of others.
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

    /// Refuses a long write that does not fit on the disk. A short one is cheaper to undo after a partial write.
    fn check_room(&self, from: u64, to: u64) -> Result<()> {
        const SHORT: u64 = 1 << 20;
        match to.saturating_sub(from) > SHORT {
            true => os::check_room(self.fd(), from, to),
            false => Ok(()),
        }
    }

    /// Shortens the file to `to` bytes again, if its length is still `from`, which this map caused. Bytes that others
    /// have appended in the meantime stay.
    pub fn take_back(&self, from: u64, to: u64) {
        if from > to && self.size() == Ok(from) {
            let _ = os::set_size(self.fd(), to);
        }
    }

    /// The directory of a new file whose name may not be on the disk yet.
    pub fn unsynced_directory(&self) -> Result<Option<File>> {
        match self.unsynced_name.load(Ordering::Acquire) {
            true => open_directory(self.created.parent().unwrap_or(Path::new("/"))),
            false => Ok(None),
        }
    }

    /// Whether new parts of it get no blocks until they are written.
    pub fn is_sparse(&self) -> bool {
        self.sparse
    }

    /// Notes that the file is new, and was created by this path.
    pub fn is_created_by(&mut self, path: &Path) -> Result<()> {
        self.created = std::path::absolute(path)?;
        Ok(())
    }

    pub fn name_is_synced(&self) {
        self.unsynced_name.store(false, Ordering::Release);
    }
}

/// Makes the names in a directory durable, as far as the user's permissions and the file system allow.
pub fn sync_directory(path: &Path) -> Result<()> {
    match open_directory(path)? {
        Some(directory) => os::sync_directory(directory.as_fd()),
        None => Ok(()),
    }
}

/// `None`: the directory was removed, with all names in it, or cannot be opened.
fn open_directory(path: &Path) -> Result<Option<File>> {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    match File::open(path) {
        Ok(directory) => Ok(Some(directory)),
        Err(error) if matches!(error.kind(), NotFound | PermissionDenied) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
