//! The properties of a region that do not change, except that a writable map can be made read-only.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::bounds::round_up;
use crate::{os, Errno, Options, Result};

pub(super) struct Shape {
    /// As it was when the region was created.
    pub writable: bool,
    pub private: bool,
    /// `resize` may change its size.
    pub resizable: bool,
    /// A write past the end extends it.
    pub grows: bool,
    /// When it is reattached, it takes the current size of its file.
    pub follows: bool,
    /// Stays in its first range of addresses.
    pub pinned: bool,
    /// Writes go to the end of the file, through the file.
    pub appends: bool,
    /// Copies are atomic with respect to each other.
    pub locking: bool,
    pub auto_unlink: bool,
    pub tag: u64,
    protection: AtomicI32,
    pub flags: libc::c_int,
    pub page: usize,
    /// The offset of position 0 in the file, in bytes.
    pub offset: u64,
    /// The distance of `offset` from the start of its page.
    pub delta: usize,
    pub max_size: u64,
    pub max_increment: u64,
}

impl Shape {
    /// The shape and the length of a map. `file_size` is the size of the file at that time, or `None` for anonymous memory.
    pub fn of(options: &Options, file_size: Option<u64>, page: usize) -> Result<(Shape, usize)> {
        let flags = options.map_flags().bits()?;
        let length = options.length.filter(|length| *length > 0);
        let (available, whole_file) = match file_size {
            Some(size) => (size.saturating_sub(options.offset), options.offset == 0),
            None => (options.size.or(length).ok_or(Errno::INVAL)?, true),
        };
        let len = usize::try_from(length.unwrap_or(available).min(available))
            .map_err(|_| Errno::NOMEM)?;
        // Appended data reaches the file through its descriptor.
        let writable = options.write && !options.append;
        let shared_file = file_size.is_some() && writable && !options.private();
        let whole = whole_file && len as u64 == available;
        let resizable = !options.fixed_size && whole && (shared_file || file_size.is_none());
        let mut protection = libc::PROT_READ;
        if writable {
            protection |= libc::PROT_WRITE;
        }
        let shape = Shape {
            writable,
            private: options.private(),
            resizable,
            grows: resizable && file_size.is_some() && length.is_none(),
            follows: file_size.is_some() && whole_file && length.is_none() && !options.fixed_size,
            pinned: options.fixed || file_size.is_none(),
            appends: options.append,
            locking: options.lock,
            auto_unlink: options.auto_unlink,
            tag: options.tag,
            protection: AtomicI32::new(protection),
            flags,
            page,
            offset: options.offset,
            delta: (options.offset % page as u64) as usize,
            max_size: options.max_size.unwrap_or(i64::MAX as u64),
            max_increment: options.max_increment,
        };
        Ok((shape, len))
    }

    /// The allowed access to the pages.
    pub fn protection(&self) -> libc::c_int {
        self.protection.load(Ordering::Relaxed)
    }

    /// From now on, the pages of the map can only be read. The caller must hold the ranges.
    pub fn make_read_only(&self) {
        self.protection.store(libc::PROT_READ, Ordering::Relaxed);
    }

    /// Maps the file with the flags of this shape, or with those that an append-only file (`chattr +a`) requires.
    pub fn with_flags_of(
        &self,
        fd: BorrowedFd,
        map: impl Fn(libc::c_int) -> Result<()>,
    ) -> Result<()> {
        match map(self.flags) {
            Err(Errno::ACCES) if os::is_append_only(fd) => {
                match self.protection() & libc::PROT_WRITE != 0 {
                    true => Err(Errno::PERM),
                    // Nothing is written through this map, and pages that were not written are those of the file.
                    false => {
                        map(self.flags & !(libc::MAP_SHARED | libc::MAP_PRIVATE)
                            | libc::MAP_PRIVATE)
                    }
                }
            }
            answer => answer,
        }
    }

    /// Whether its pages are stored in no file, and are shared with forked child processes.
    pub fn is_shared_memory(&self) -> bool {
        self.flags & libc::MAP_ANON != 0 && !self.private
    }

    /// Whether its pages are loaded into memory when they are mapped.
    #[cfg(target_os = "linux")]
    pub fn populates(&self) -> bool {
        self.flags & (libc::MAP_POPULATE | libc::MAP_NONBLOCK) == libc::MAP_POPULATE
    }

    #[cfg(not(target_os = "linux"))]
    pub fn populates(&self) -> bool {
        false
    }

    /// The size of the whole pages that `len` bytes of the map take, in bytes.
    pub fn bytes(&self, len: usize) -> Result<usize> {
        if len == 0 {
            return Ok(0);
        }
        round_up(self.delta.checked_add(len).ok_or(Errno::NOMEM)?, self.page)
    }
}
