//! The system calls, each with a `Result`, and the differences between systems.

mod boot;
mod byte_lock;
mod death;
mod descriptor;
mod file;
mod file_lock;
mod futex;
mod map_flags;
mod memory_advice;
mod mmap;
mod sigxfsz;
mod slices;
mod stat;
mod tick;

pub use boot::boot_id;
pub use byte_lock::*;
pub use death::{DeathNotice, DIED};
pub use descriptor::{access_of, path_of, reopen_as};
pub use file::*;
pub use file_lock::{with_file_lock, Courtesy, FileLock};
pub use futex::{futex_wait, futex_wait_any, futex_wake, has_futex_wait_any, Expected, MOST_WORDS};
pub use map_flags::{HugePage, MapFlags, Sharing, NO_RESERVE};
pub use memory_advice::{advise_memory, MemoryAdvice};
pub use mmap::*;
pub use sigxfsz::without_sigxfsz;
pub use stat::*;
pub use tick::tick;

use crate::{Errno, Result};

pub fn check(answer: libc::c_int) -> Result<()> {
    if answer == 0 {
        Ok(())
    } else {
        Err(Errno::last())
    }
}

/// Repeats the call while a signal interrupts it.
pub fn retry(mut call: impl FnMut() -> libc::c_int) -> Result<()> {
    loop {
        match check(call()) {
            Err(Errno(libc::EINTR)) => continue,
            answer => return answer,
        }
    }
}

pub fn offset_of(n: u64) -> Result<libc::off_t> {
    libc::off_t::try_from(n).map_err(|_| Errno(libc::EFBIG))
}

/// How a program announces that it will use pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    Normal,
    Sequential,
    Random,
    NoReuse,
    WillNeed,
    DontNeed,
}
