//! The options of a mapping. The caller's side decides whether options contradict each other, because it can name
//! them. Here, each field is used as it is.

use std::path::PathBuf;

use crate::os::MapFlags;

pub use crate::os::{HugePage, Sharing};

#[derive(Clone, Debug)]
pub struct Options {
    /// `None`: anonymous memory of `size` bytes.
    pub path: Option<PathBuf>,
    pub write: bool,
    pub create: bool,
    pub exclusive: bool,
    pub truncate: bool,
    /// Every write goes to the current end of the file. The map itself is read-only.
    pub append: bool,
    pub sharing: Sharing,
    /// Where the map begins in the file, in bytes; need not be page-aligned.
    pub offset: u64,
    /// `None`: up to the end of the file.
    pub length: Option<u64>,
    /// The file is extended to at least this size.
    pub size: Option<u64>,
    /// The file gets exactly `size` (or `offset + length`) bytes: a longer file is truncated.
    pub fit: bool,
    pub fixed_size: bool,
    /// The file keeps its size, even if `length` extends past its end.
    pub keep_size: bool,
    /// The map never grows beyond this.
    pub max_size: Option<u64>,
    /// Limits by how much [`crate::Region::double`] extends the map.
    pub max_increment: u64,
    /// Creating and growing leave holes instead of allocating blocks.
    pub sparse: bool,
    /// Copies are atomic with respect to each other.
    pub lock: bool,
    pub auto_unlink: bool,
    /// A number that the caller chose, which [`crate::Region::info`] returns.
    pub tag: u64,
    /// The exact mode of a new file; `None`: 0666 minus the umask.
    pub mode: Option<u32>,
    pub address: Option<usize>,
    /// `address` is a requirement, not a hint.
    pub fixed: bool,
    pub no_reserve: bool,
    pub populate: bool,
    pub nonblock: bool,
    pub huge: Option<HugePage>,
    /// MAP_SYNC: for files on persistent memory.
    pub map_sync: bool,
    /// MAP_NOCACHE: macOS only.
    pub no_cache: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            path: None,
            write: false,
            create: false,
            exclusive: false,
            truncate: false,
            append: false,
            sharing: Sharing::Shared,
            offset: 0,
            length: None,
            size: None,
            fit: false,
            fixed_size: false,
            keep_size: false,
            max_size: None,
            max_increment: 64 << 20,
            sparse: false,
            lock: true,
            auto_unlink: false,
            tag: 0,
            mode: None,
            address: None,
            fixed: false,
            no_reserve: false,
            populate: false,
            nonblock: false,
            huge: None,
            map_sync: false,
            no_cache: false,
        }
    }
}

impl Options {
    pub fn private(&self) -> bool {
        self.sharing == Sharing::Private
    }

    /// The flags for mmap.
    pub(crate) fn map_flags(&self) -> MapFlags {
        MapFlags {
            anonymous: self.path.is_none(),
            sharing: self.sharing,
            no_reserve: self.no_reserve,
            populate: self.populate,
            nonblock: self.nonblock,
            huge: self.huge,
            sync: self.map_sync,
            no_cache: self.no_cache,
        }
    }

    /// The size that the file must have before it is mapped, if the options require one.
    pub(crate) fn wanted_size(&self) -> crate::Result<Option<u64>> {
        let length = self.length.filter(|length| *length > 0);
        let end = match length {
            Some(length) => Some(crate::bounds::checked_end(self.offset, length)?),
            None => None,
        };
        let size = match self.size {
            Some(size) => Some(crate::bounds::checked_end(size, 0)?),
            None => None,
        };
        Ok(size.max(end))
    }
}
