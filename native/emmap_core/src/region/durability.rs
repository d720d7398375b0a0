//! Durability.

use std::sync::atomic::{AtomicI32, Ordering};

use super::{clamp, Region};
use crate::mapped_file::MappedFile;
use crate::{os, Errno, Result};

/// The first sync that failed. The kernel reports pages that it could not write only once, and treats
/// them as clean from then on, so a later sync would return success for data that is not on the disk.
#[derive(Default)]
pub(super) struct Failed(AtomicI32);

impl Failed {
    pub fn error(&self) -> Option<Errno> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            error => Some(Errno(error)),
        }
    }

    fn note(&self, error: Errno) -> Errno {
        let _ = self
            .0
            .compare_exchange(0, error.0, Ordering::AcqRel, Ordering::Relaxed);
        error
    }

    pub fn forget(&self) {
        self.0.store(0, Ordering::Release);
    }
}

impl Region {
    /// Writes the changes of the map in `position .. position + count` to the disk; with `wait`, they
    /// are there when this returns. Also makes the name of a new file durable.
    pub fn sync(&self, range: Option<(u64, u64)>, wait: bool) -> Result<()> {
        self.with_shared_file(|file, len| {
            let (position, count) = range.unwrap_or((0, len as u64));
            let (start, count) = clamp(position, count, len).unwrap_or((0, 0));
            if !wait {
                return match count {
                    0 => Ok(()),
                    _ => self.noted(self.start_write_back(file, start, count)),
                };
            }
            self.msync(start, count)?;
            // On macOS, msync stops at the drive's cache.
            if range.is_none() || cfg!(target_os = "macos") {
                self.noted(os::sync_all(file.fd()))?;
            }
            self.sync_name(file)
        })
    }

    /// As [`Region::sync`] for the whole map, without the file's timestamps.
    pub fn sync_data(&self) -> Result<()> {
        self.with_shared_file(|file, len| {
            self.msync(0, len)?;
            self.noted(os::sync_data(file.fd()))?;
            self.sync_name(file)
        })
    }

    /// Does nothing for maps that never write to a file.
    fn with_shared_file(&self, sync: impl FnOnce(&MappedFile, usize) -> Result<()>) -> Result<()> {
        self.check_fault()?;
        let writes = self.shape.appends || (self.shape.writable && !self.shape.private);
        let Some(file) = self.file()?.filter(|_| writes) else {
            return Ok(());
        };
        if let Some(error) = self.failed_sync.error() {
            return Err(error);
        }
        // Pages that were lost, before or during the sync, were not written, regardless of the result of the sync.
        self.reading(|| Ok::<_, Errno>(sync(&file, self.len())))??;
        self.check_size().map(drop)
    }

    #[cfg(target_os = "linux")]
    fn start_write_back(&self, file: &MappedFile, start: usize, count: usize) -> Result<()> {
        let offset = self.shape.offset + start as u64;
        os::start_write_back(file.fd(), offset, count as u64)
    }

    #[cfg(not(target_os = "linux"))]
    fn start_write_back(&self, _file: &MappedFile, start: usize, count: usize) -> Result<()> {
        let (at, len) = self.pages(start, count);
        // SAFETY: the pages are inside the mapping (1: Alive).
        os::retry(|| unsafe { libc::msync(at.cast(), len, libc::MS_ASYNC) })
    }

    /// Keeps the error of a call that writes back.
    fn noted(&self, answer: Result<()>) -> Result<()> {
        answer.map_err(|error| self.failed_sync.note(error))
    }

    fn msync(&self, start: usize, count: usize) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let (at, len) = self.pages(start, count);
        // SAFETY: the pages are inside the mapping (1: Alive).
        self.noted(os::retry(|| unsafe {
            libc::msync(at.cast(), len, libc::MS_SYNC)
        }))
    }

    /// Writes the name of a new file to the disk, once: a file is durable only if its directory is.
    fn sync_name(&self, file: &MappedFile) -> Result<()> {
        match file.unsynced_directory()? {
            None => Ok(()),
            Some(directory) => {
                self.noted(os::sync_directory(std::os::fd::AsFd::as_fd(&directory)))?;
                file.name_is_synced();
                Ok(())
            }
        }
    }
}
