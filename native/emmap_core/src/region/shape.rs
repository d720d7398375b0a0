//! What does not change after a region is made; but a map that was writable can be made read-only.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::bounds::round_up;
use crate::{os, Errno, Options, Result};

pub(super) struct Shape {
    /// When it was made.
    pub writable: bool,
    pub private: bool,
    /// `resize` may change its size.
    pub resizable: bool,
    /// A write past the end makes it longer.
    pub grows: bool,
    /// Reattached, it takes the size that its file has by then.
    pub follows: bool,
    /// Stays in its first range of addresses.
    pub pinned: bool,
    /// Writes go to the end of the file, through the file.
    pub appends: bool,
    pub auto_unlink: bool,
    pub tag: u64,
    protection: AtomicI32,
    pub flags: libc::c_int,
    pub page: usize,
    /// Position 0 in the file, in bytes.
    pub offset: u64,
    /// `offset` less its page.
    pub delta: usize,
    pub max_size: u64,
    pub max_increment: u64,
}

impl Shape {
    /// The shape of a map, and its length; `file_size` is the size that its file has by then, `None` of anonymous memory.
    pub fn of(options: &Options, file_size: Option<u64>, page: usize) -> Result<(Shape, usize)> {
        let flags = options.map_flags().bits()?;
        let length = options.length.filter(|length| *length > 0);
        let (available, whole_file) = match file_size {
            Some(size) => (size.saturating_sub(options.offset), options.offset == 0),
            None => (options.size.or(length).ok_or(Errno::INVAL)?, true),
        };
        let len = usize::try_from(length.unwrap_or(available).min(available))
            .map_err(|_| Errno::NOMEM)?;
        // What is appended reaches the file through its descriptor.
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

    /// What may be done with the pages.
    pub fn protection(&self) -> libc::c_int {
        self.protection.load(Ordering::Relaxed)
    }

    /// The pages of the map can only be read from now on. The caller must hold the ranges.
    pub fn make_read_only(&self) {
        self.protection.store(libc::PROT_READ, Ordering::Relaxed);
    }

    /// Maps the file with the flags of this shape, or with those that an append-only file (`chattr +a`) wants.
    pub fn with_flags_of(
        &self,
        fd: BorrowedFd,
        map: impl Fn(libc::c_int) -> Result<()>,
    ) -> Result<()> {
        match map(self.flags) {
            Err(Errno::ACCES) if os::is_append_only(fd) => {
                match self.protection() & libc::PROT_WRITE != 0 {
                    true => Err(Errno::PERM),
                    // Nothing is written through it, and a page that was not written is the file's.
                    false => {
                        map(self.flags & !(libc::MAP_SHARED | libc::MAP_PRIVATE)
                            | libc::MAP_PRIVATE)
                    }
                }
            }
            answer => answer,
        }
    }

    /// Whether its pages are stored in no file, and are shared with processes that this one forks.
    pub fn is_shared_memory(&self) -> bool {
        self.flags & libc::MAP_ANON != 0 && !self.private
    }

    /// Whether its pages are brought into memory when they are mapped.
    #[cfg(target_os = "linux")]
    pub fn populates(&self) -> bool {
        self.flags & (libc::MAP_POPULATE | libc::MAP_NONBLOCK) == libc::MAP_POPULATE
    }

    #[cfg(not(target_os = "linux"))]
    pub fn populates(&self) -> bool {
        false
    }

    /// The bytes of whole pages that `len` bytes of the map take.
    pub fn bytes(&self, len: usize) -> Result<usize> {
        if len == 0 {
            return Ok(0);
        }
        round_up(self.delta.checked_add(len).ok_or(Errno::NOMEM)?, self.page)
    }
}
