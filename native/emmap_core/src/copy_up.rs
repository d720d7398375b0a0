//! Files on an overlay file system, such as the root of a container. If such a file is opened for reading before it was ever
//! written to, it is the file of the lower layer. The first write copies it to the upper layer. From then on, the name, and
//! every read through the descriptor, lead to the copy, but maps of that descriptor continue to show the old file.

use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::os::{self, Stat};
use crate::Result;

/// Which of the two files the maps of a descriptor show, as far as that is known.
pub struct CopyUp(Mutex<Shown>);

#[derive(Clone, Copy)]
enum Shown {
    /// The file that existed when it was opened, at these times. It may have been copied at that moment.
    Opened(Times),
    /// The file that existed at these times.
    Mapped(Times),
    /// The only file, or the copy: it will not be copied again.
    Last,
}

/// A copy has another time of change. If its bytes were written, it also has another time of modification.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Times {
    changed: (i64, i64),
    modified: (i64, i64),
}

impl Times {
    fn of(stat: &Stat) -> Times {
        Times {
            changed: (stat.changed, stat.changed_nanos),
            modified: (stat.modified, stat.modified_nanos),
        }
    }
}

impl CopyUp {
    /// For a file that was opened and will be mapped.
    pub fn new(stat: &Stat) -> CopyUp {
        CopyUp(Mutex::new(Shown::Opened(Times::of(stat))))
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the descriptor lead to the copy, if a copy may exist that its maps do not show. The caller must then map all of
    /// them again, and call [`CopyUp::is_shown`] with the result. This releases the locks of the descriptor.
    pub fn renew(&self, fd: BorrowedFd) -> Result<Option<Times>> {
        let mut shown = self.shown();
        let before = match *shown {
            Shown::Last => return Ok(None),
            Shown::Opened(times) | Shown::Mapped(times) => times,
        };
        if !os::is_for_reading(fd)? || !os::is_on_overlay(fd)? {
            *shown = Shown::Last;
            return Ok(None);
        }
        let now = Times::of(&os::stat(fd)?);
        if matches!(*shown, Shown::Mapped(_)) && now == before {
            return Ok(None);
        }
        match os::reopen_for_reading(fd) {
            Ok(()) => Ok(Some(now)),
            // It may be impossible to open it again, and nothing indicates that it was copied.
            Err(_) if now == before => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All maps show the file that existed at these times, or a later one.
    pub fn is_shown(&self, now: Times) {
        let mut shown = self.shown();
        *shown = match *shown {
            Shown::Opened(before) | Shown::Mapped(before) if before.modified == now.modified => {
                Shown::Mapped(now)
            }
            // Its bytes were written in the meantime, so it was copied before it was mapped.
            _ => Shown::Last,
        };
    }
}
