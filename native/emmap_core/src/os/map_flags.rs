//! The flags of mmap, and which of them this system lacks.

use crate::{Errno, Result};

/// FreeBSD reserves nothing for any map, and has no name for that.
#[cfg(target_os = "freebsd")]
pub const NO_RESERVE: libc::c_int = 0;
#[cfg(not(target_os = "freebsd"))]
pub const NO_RESERVE: libc::c_int = libc::MAP_NORESERVE;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    #[default]
    Shared,
    /// Shared, and the kernel refuses flags it does not know.
    SharedValidate,
    /// Copy-on-write: writes stay in this map.
    Private,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePage {
    Default,
    TwoMegabytes,
    OneGigabyte,
}

/// What a map is asked to be, beyond its place and its protection.
#[derive(Clone, Copy, Debug, Default)]
pub struct MapFlags {
    /// Of memory, and not of a file.
    pub anonymous: bool,
    pub sharing: Sharing,
    pub no_reserve: bool,
    pub populate: bool,
    pub nonblock: bool,
    pub huge: Option<HugePage>,
    /// MAP_SYNC: for files on persistent memory.
    pub sync: bool,
    /// MAP_NOCACHE: macOS only.
    pub no_cache: bool,
}

impl MapFlags {
    /// The `flags` argument of mmap, or ENOTSUP for one that this system lacks.
    #[cfg(target_os = "linux")]
    pub fn bits(&self) -> Result<libc::c_int> {
        if self.no_cache {
            return Err(Errno::NOTSUP);
        }
        let mut flags = match self.sharing {
            Sharing::Shared => libc::MAP_SHARED,
            Sharing::SharedValidate => libc::MAP_SHARED_VALIDATE,
            Sharing::Private => libc::MAP_PRIVATE,
        };
        if self.anonymous {
            flags |= libc::MAP_ANONYMOUS;
            if self.sharing == Sharing::SharedValidate {
                return Err(Errno::NOTSUP); // the kernel validates flags of files only
            }
        }
        let wanted = [
            (self.no_reserve, NO_RESERVE),
            (self.populate, libc::MAP_POPULATE),
            (self.nonblock, libc::MAP_NONBLOCK),
            (self.sync, libc::MAP_SYNC),
        ];
        for (asked, flag) in wanted {
            flags |= if asked { flag } else { 0 };
        }
        flags |= match self.huge {
            None => 0,
            Some(HugePage::Default) => libc::MAP_HUGETLB,
            Some(HugePage::TwoMegabytes) => libc::MAP_HUGETLB | libc::MAP_HUGE_2MB,
            Some(HugePage::OneGigabyte) => libc::MAP_HUGETLB | libc::MAP_HUGE_1GB,
        };
        Ok(flags)
    }

    /// The `flags` argument of mmap, or ENOTSUP for one that this system lacks.
    #[cfg(not(target_os = "linux"))]
    pub fn bits(&self) -> Result<libc::c_int> {
        let linux_only = self.populate || self.nonblock || self.sync;
        if linux_only || self.huge.is_some() || self.sharing == Sharing::SharedValidate {
            return Err(Errno::NOTSUP);
        }
        let mut flags = match self.sharing {
            Sharing::Private => libc::MAP_PRIVATE,
            _ => libc::MAP_SHARED,
        };
        if self.anonymous {
            flags |= libc::MAP_ANON;
        }
        if self.no_reserve {
            flags |= NO_RESERVE;
        }
        if self.no_cache {
            #[cfg(target_os = "macos")]
            {
                flags |= libc::MAP_NOCACHE;
            }
            #[cfg(not(target_os = "macos"))]
            return Err(Errno::NOTSUP);
        }
        Ok(flags)
    }
}
