//! Files of an overlay, as the root of a container is one. Opened for reading before anybody wrote to it, such a file is
//! that of the lower layer. The first write copies it to the upper one, and from then on the name, and every read through
//! the descriptor, lead to the copy; but what is mapped through that descriptor stays the old file for ever.

use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::os::{self, Stat};
use crate::Result;

/// Which of both files the maps of a descriptor show, as far as that is known.
pub struct CopyUp(Mutex<Shown>);

#[derive(Clone, Copy)]
enum Shown {
    /// The one that there was when the file was opened, at these times. It may have been copied at that very moment.
    Opened(Times),
    /// The one that there was at these times.
    Mapped(Times),
    /// The only one, or the copy: nothing becomes of it any more.
    Last,
}

/// A copy has another time of change; and one whose bytes were written, another time of writing, too.
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
    /// Of a file that was opened and is to be mapped.
    pub fn new(stat: &Stat) -> CopyUp {
        CopyUp(Mutex::new(Shown::Opened(Times::of(stat))))
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the descriptor lead to the copy, if there may be one that its maps do not show. Then all of them are to be
    /// mapped again, and [`CopyUp::is_shown`] called with what this returns. Its locks are released by that.
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
            // It may not be opened any more, and nothing says that it was copied.
            Err(_) if now == before => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All maps show the file that there was at these times, or a later one.
    pub fn is_shown(&self, now: Times) {
        let mut shown = self.shown();
        *shown = match *shown {
            Shown::Opened(before) | Shown::Mapped(before) if before.modified == now.modified => {
                Shown::Mapped(now)
            }
            // Its bytes were written in between, and so copied before it was mapped.
            _ => Shown::Last,
        };
    }
}
