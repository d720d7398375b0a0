//! A file that was opened in order to be mapped, and its size.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::mapped_file::{Identity, MappedFile};
use crate::options::Options;
use crate::{lent, os, Errno, Result};

/// An open file that does not yet have the size that the options require.
pub struct OpenedFile {
    pub file: MappedFile,
    /// Its size when it was opened.
    size: u64,
    /// The path that this open created. The given name may be a link to it.
    created: Option<PathBuf>,
    /// Whether it was opened by its path.
    by_path: bool,
    writable: bool,
}

impl OpenedFile {
    /// Opens `path`. Changes nothing, except that it may create a new file.
    pub fn open(path: &Path, options: &Options) -> Result<OpenedFile> {
        options.wanted_size()?;
        // A private map writes only to its own pages, and never to an existing file.
        let writable = options.write && !options.private();
        let (fd, created) = open_fd(path, options, writable)?;
        match OpenedFile::of_fd(fd, path, options) {
            Ok(mut opened) => {
                opened.by_path = true;
                opened.writable = writable || created.is_some();
                match &created {
                    Some(created) => opened.file.is_created_by(created)?,
                    // It is not the responsibility of this map to sync the name of an existing file.
                    None => opened.file.name_is_synced(),
                }
                opened.created = created;
                Ok(opened)
            }
            Err(error) => {
                // No other program had it before this call, and no other program gets it from this call.
                created.map(std::fs::remove_file);
                Err(error)
            }
        }
    }

    /// Uses a file that the caller opened and shaped.
    pub fn of_fd(fd: OwnedFd, path: &Path, options: &Options) -> Result<OpenedFile> {
        let stat = os::stat(fd.as_fd())?;
        Ok(OpenedFile {
            size: stat.size,
            file: MappedFile::new(fd, path, &stat, options.sparse)?,
            created: None,
            by_path: false,
            writable: options.write,
        })
    }

    /// Opens a file again that the caller has open. EACCES if its mode does not allow this use.
    pub fn of_descriptor(fd: BorrowedFd, options: &Options) -> Result<OpenedFile> {
        options.wanted_size()?;
        let writable = options.write && !options.private();
        match os::access_of(fd)? {
            (true, writes) if writes || !writable => (),
            _ => return Err(Errno::ACCES),
        }
        // A file that is not regular may not even allow to be opened again.
        let path = os::path_of(fd);
        let stat = os::stat(fd)?;
        MappedFile::check_kind(&stat)?;
        let opened = os::reopen_as(fd, open_flags(options, writable))?;
        let opened = OpenedFile::of_fd(opened, &path, options)?;
        opened.file.name_is_synced();
        Ok(OpenedFile { writable, ..opened })
    }

    /// The size that the options require, where `before` is the current size; [`OpenedFile::size`] until its lock is held.
    pub fn plan_size(&self, before: u64, options: &Options) -> Result<SizePlan> {
        let kept = if options.truncate { 0 } else { before };
        let after = match options
            .wanted_size()?
            .filter(|_| self.writable && !options.keep_size)
        {
            Some(wanted) if options.fit => wanted,
            Some(wanted) => wanted.max(kept),
            None => kept,
        };
        Ok(SizePlan {
            before,
            after,
            truncates: options.truncate && before > 0,
        })
    }

    /// LENT if the file is to be shortened and this process holds live binaries of it, which would then read zeros. Also if
    /// its name was removed in the meantime, as it is with the last of them (`auto_unlink`): the name may belong to another
    /// file by now.
    pub fn refuse_lent(&self, plan: SizePlan) -> Result<()> {
        let name = self.file.name();
        if !plan.shortens() {
            return Ok(());
        }
        // In this order: the name is removed first.
        if lent::is_lent(name.identity()) || self.by_path && self.is_removed()? {
            return Err(Errno::LENT);
        }
        Ok(())
    }

    fn is_removed(&self) -> Result<bool> {
        // Some file systems in user space do not count links.
        Ok(os::stat(self.file.fd())?.links == 0 && !self.file.name().leads_to_it())
    }

    /// The size that it had when it was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn writable(&self) -> bool {
        self.writable
    }

    /// Whether another program has written to the file that this open created and extended to `made` bytes. The file then
    /// belongs to that program.
    fn is_written_by_others(&self, made: u64) -> bool {
        // hugetlbfs does not support writes, and mapping a file extends it.
        let page = self.file.page_size(None);
        page == Ok(os::page_size()) && self.file.size() != Ok(made)
    }
}

/// How an open changes the size of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizePlan {
    before: u64,
    after: u64,
    /// All of its contents become zeros.
    truncates: bool,
}

impl SizePlan {
    /// The size that the file has once the plan is carried out.
    pub fn after(&self) -> u64 {
        self.after
    }

    /// Whether the plan changes the file.
    pub fn changes(&self) -> bool {
        self.truncates || self.after != self.before
    }

    fn shortens(&self) -> bool {
        self.truncates || self.after < self.before
    }

    /// Extends the file to at least its planned size, and allocates the blocks that truncating needs later.
    pub fn lengthen(&self, undo: &mut Undo) -> Result<()> {
        let file = undo.file();
        let kept = self.after.min(self.before);
        if self.truncates && kept > 0 && !file.is_sparse() {
            match os::without_sigxfsz(|| os::allocate_blocks(file.fd(), 0, kept, true)) {
                Err(Errno(libc::EOPNOTSUPP) | Errno(libc::ENOSYS)) => (),
                answer => answer?,
            }
        }
        file.extend(self.before, self.after)?;
        if self.after > self.before {
            undo.lengthened = Some(*self);
        }
        Ok(())
    }

    /// Removes the part of the file beyond its planned size or, with truncation, all of its contents. The destructive step
    /// comes last, when nothing else can fail.
    pub fn cut(&self, file: &MappedFile) -> Result<()> {
        let kept = self.after.min(self.before);
        // On hugetlbfs, a file has whole pages and does not support writes. The map has reserved its pages.
        let page = file.page_size(None)?;
        let huge = page != os::page_size();
        let whole = |size: u64| match huge {
            true => size.checked_next_multiple_of(page as u64),
            false => Some(size),
        };
        let (kept, after) = whole(kept)
            .zip(whole(self.after))
            .ok_or(Errno(libc::EFBIG))?;
        let cleared = match self.truncates && kept > 0 {
            // In place, because blocks that are released first may not be available again.
            true => os::without_sigxfsz(|| os::clear(file.fd(), kept, huge || file.is_sparse())),
            false => Ok(()),
        };
        let cut = cleared.and_then(|()| match after < self.before {
            true => os::set_size(file.fd(), after),
            false => Ok(()),
        });
        cut.inspect_err(|_| {
            if self.truncates {
                // Rather empty, as requested, than half of it.
                let _ = os::set_size(file.fd(), 0);
            }
        })
    }
}

/// When it is dropped, it undoes what an open has done on the disk. Changes by others since then stay. It must be dropped
/// while the lock of the file is held, if that was taken.
pub struct Undo<'a> {
    opened: &'a OpenedFile,
    lengthened: Option<SizePlan>,
}

impl<'a> Undo<'a> {
    pub fn new(opened: &'a OpenedFile) -> Undo<'a> {
        Undo {
            opened,
            lengthened: None,
        }
    }

    pub fn file(&self) -> &'a MappedFile {
        &self.opened.file
    }

    /// The open has succeeded.
    pub fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let file = &self.opened.file;
        match (&self.opened.created, self.lengthened) {
            (Some(created), lengthened) => {
                let made = lengthened.map_or(0, |plan| plan.after);
                if !self.opened.is_written_by_others(made) {
                    file.name().identity().remove(created);
                }
            }
            (None, Some(plan)) => file.take_back(plan.after, plan.before),
            (None, None) => (),
        }
    }
}

fn open_flags(options: &Options, writable: bool) -> libc::c_int {
    // O_NONBLOCK: a FIFO without a writer would block the call forever.
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    let flags = flags | if options.append { libc::O_APPEND } else { 0 };
    let access = if writable {
        libc::O_RDWR
    } else {
        libc::O_RDONLY
    };
    flags | access
}

/// The descriptor, and the path of the file if it is new.
fn open_fd(path: &Path, options: &Options, writable: bool) -> Result<(OwnedFd, Option<PathBuf>)> {
    let flags = open_flags(options, writable);
    // Never more than requested, not even for a moment.
    let mode: libc::c_uint = options.mode.unwrap_or(0o666) & 0o7777;
    let existing = || open_path(path, flags, mode);
    if !options.create {
        return Ok((existing()?, None));
    }
    let mut new = path.to_owned();
    // Opens and creates separately, to know which of the two it was. A file that this call creates is extended by it.
    let create = open_flags(options, true) | libc::O_CREAT | libc::O_EXCL;
    loop {
        if !options.exclusive {
            match existing() {
                Err(Errno(libc::ENOENT)) => (),
                answer => return Ok((answer?, None)),
            }
        }
        if let (Some(wanted), Err(_)) = (options.wanted_size()?, new.symlink_metadata()) {
            // Before others can find the file and lose what they write to it.
            os::check_room_in(&new, wanted, options.sparse)?;
        }
        match open_path(&new, create, mode) {
            Ok(fd) => return created(fd, new, options),
            Err(Errno::EXIST) if !options.exclusive => (),
            Err(error) => return Err(error),
        }
        // The file was created between the two calls, or the path is a dangling link, which O_EXCL does not follow: then the
        // target of the link is created.
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
                // A socket, or a FIFO without a reader.
                Errno(libc::ENXIO) => return Err(Errno::NODEV),
                error => return Err(error),
            },
            // SAFETY: the descriptor is new, and nothing else owns it.
            fd => return Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    }
}

fn created(fd: OwnedFd, path: PathBuf, options: &Options) -> Result<(OwnedFd, Option<PathBuf>)> {
    if let Some(mode) = options.mode {
        // The umask has removed bits.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{catch_unwind, AssertUnwindSafe};

    fn options(size: u64) -> Options {
        Options {
            write: true,
            create: true,
            size: Some(size),
            ..Options::default()
        }
    }

    /// Extends the file, and fails with a panic if `panics`.
    fn lengthen(path: &Path, size: u64, panics: bool) {
        let opened = OpenedFile::open(path, &options(size)).unwrap();
        let plan = opened.plan_size(opened.size(), &options(size)).unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut undo = Undo::new(&opened);
            plan.lengthen(&mut undo).unwrap();
            assert_eq!(opened.file.size(), Ok(size));
            assert!(!panics, "a panic");
            undo.disarm();
        }));
        assert_eq!(result.is_err(), panics);
    }

    #[test]
    fn what_fails_is_undone_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        lengthen(&path, 5000, true);
        assert!(!path.exists());
        lengthen(&path, 5000, false);
        lengthen(&path, 9000, true);
        assert_eq!(path.metadata().unwrap().len(), 5000);
        lengthen(&path, 9000, false);
        assert_eq!(path.metadata().unwrap().len(), 9000);
    }

    #[test]
    fn the_directory_of_a_file_that_was_created_through_a_link_is_that_of_its_target() {
        let directory = tempfile::tempdir().unwrap();
        let (links, data) = (
            directory.path().join("links"),
            directory.path().join("data"),
        );
        std::fs::create_dir(&links).unwrap();
        std::fs::create_dir(&data).unwrap();
        let link = links.join("file");
        std::os::unix::fs::symlink("../data/file", &link).unwrap();
        let opened = OpenedFile::open(&link, &options(1)).unwrap();
        assert_eq!(opened.file.name().path(), link);
        let synced = opened.file.unsynced_directory().unwrap().unwrap();
        let expected = std::fs::File::open(&data).unwrap();
        let identity = |file| Identity::of_file(file).unwrap();
        assert_eq!(identity(&synced), identity(&expected));
    }

    #[test]
    fn what_others_wrote_meanwhile_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let opened = OpenedFile::open(&path, &options(1)).unwrap();
        let undo = Undo::new(&opened);
        std::fs::write(&path, b"another program's").unwrap();
        drop(undo);
        assert_eq!(std::fs::read(&path).unwrap(), b"another program's");
    }

    #[test]
    fn a_file_is_not_shortened_once_its_name_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let refused = |path: &Path, truncate, meanwhile: &dyn Fn()| {
            let options = Options {
                truncate,
                ..options(0)
            };
            let opened = OpenedFile::open(path, &options).unwrap();
            meanwhile();
            opened.refuse_lent(opened.plan_size(opened.size(), &options).unwrap())
        };
        let remove = || std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"data").unwrap();
        assert_eq!(refused(&path, true, &|| ()), Ok(()));
        assert_eq!(refused(&path, false, &remove), Ok(()));
        std::fs::write(&path, b"data").unwrap();
        assert_eq!(refused(&path, true, &remove), Err(Errno::LENT));
        std::fs::write(&path, b"data").unwrap();
        let replace = || {
            remove();
            std::fs::write(&path, b"another file").unwrap();
        };
        assert_eq!(refused(&path, true, &replace), Err(Errno::LENT));
        // With two names, it still has one.
        let other = directory.path().join("other");
        std::fs::hard_link(&path, &other).unwrap();
        assert_eq!(refused(&path, true, &remove), Ok(()));
        // A path that leads to a file without a name.
        if cfg!(target_os = "linux") {
            let file = std::fs::File::options().read(true).write(true).open(&other);
            let file = file.unwrap();
            std::fs::remove_file(&other).unwrap();
            let number = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
            assert_eq!(refused(&number, true, &|| ()), Ok(()));
        }
    }

    #[test]
    fn a_plan_says_what_becomes_of_the_size() {
        let directory = tempfile::tempdir().unwrap();
        let opened = OpenedFile::open(&directory.path().join("data"), &options(8)).unwrap();
        let plan = |before, options: Options| {
            let plan = opened.plan_size(before, &options).unwrap();
            (plan.after(), plan.changes())
        };
        let fit = |size| Options {
            fit: true,
            ..options(size)
        };
        let truncate = |size| Options {
            truncate: true,
            ..options(size)
        };
        assert_eq!(plan(0, options(8)), (8, true));
        assert_eq!(plan(8, options(8)), (8, false));
        assert_eq!(plan(9, options(8)), (9, false));
        assert_eq!(plan(9, fit(8)), (8, true));
        assert_eq!(plan(8, fit(8)), (8, false));
        assert_eq!(plan(9, truncate(8)), (8, true));
        // The bytes change, although the size does not.
        assert_eq!(plan(8, truncate(8)), (8, true));
        assert_eq!(plan(0, truncate(0)), (0, false));
    }
}
