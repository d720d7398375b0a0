//! The lock of a file whose size is about to change.
//!
//! It is one byte, `LOCK`, beyond the end of any file. The kernel gives it to whoever asks first when it is free, so a
//! program that takes it again and again would keep the others out. Therefore waiting threads form a queue, which is made of
//! `PLACES` more bytes below it: each waits at one place, and goes on to the next when that is free, so they arrive in order.
//! Whoever was served a moment ago may take the lock directly, as long as the system's clock has not ticked: then it has to
//! queue, too. That costs nothing where nobody waits, and where somebody does, each serves itself for some milliseconds.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{retry, tick};
use crate::patience::Deadline;
use crate::{Errno, Result};

/// Held, no other open file of the same kind, in this process or another, holds it: the size of a
/// file must not move between looking at it and changing it. The kernel frees the lock of a holder
/// that dies. A program that locks *all* of the file holds it too.
///
/// Dropped, it is free, whatever happened in the meantime.
pub struct FileLock<'a> {
    /// `None`: a file system without locks.
    held: Option<BorrowedFd<'a>>,
}

/// When a descriptor queued for the lock last.
#[derive(Default)]
pub struct Courtesy(AtomicU64);

impl Courtesy {
    fn is_due(&self) -> bool {
        self.0.load(Ordering::Relaxed) != tick()
    }

    fn note(&self) {
        self.0.store(tick(), Ordering::Relaxed);
    }
}

/// Runs `act` under the lock of the file.
pub fn with_file_lock<R>(fd: BorrowedFd, act: impl FnOnce() -> R) -> Result<R> {
    let _lock = FileLock::wait(fd)?;
    Ok(act())
}

impl FileLock<'_> {
    /// Waits for the lock for as long as a call may: see [`crate::patience`].
    pub fn wait(fd: BorrowedFd<'_>) -> Result<FileLock<'_>> {
        let deadline = Deadline::of_call(Errno::WAIT_SIZE);
        FileLock::wait_until(fd, &Courtesy::default(), &deadline)
    }
}

#[cfg(target_os = "linux")]
mod queue {
    use super::*;
    use std::ops::RangeInclusive;

    /// The byte of the lock.
    pub const LOCK: libc::off_t = libc::off_t::MAX - 1;
    /// How many wait in order. Those behind them are served in any order.
    pub const PLACES: libc::off_t = 16;
    const LAST: libc::off_t = LOCK - PLACES;

    impl FileLock<'_> {
        /// Waits for the lock. `deadline` says how long, and with which error it ends.
        pub fn wait_until<'a>(
            fd: BorrowedFd<'a>,
            courtesy: &Courtesy,
            deadline: &Deadline,
        ) -> Result<FileLock<'a>> {
            let held = FileLock { held: Some(fd) };
            let taken = match courtesy.is_due() {
                false => try_lock(fd, LOCK..=LOCK),
                true => try_lock(fd, LAST..=LOCK).inspect(|taken| {
                    if *taken {
                        unlock(fd, LAST..=LOCK - 1);
                        courtesy.note();
                    }
                }),
            };
            match taken {
                Ok(true) => Ok(held),
                Ok(false) => {
                    wait_in_queue(fd, deadline)?;
                    courtesy.note();
                    Ok(held)
                }
                // Nobody can have a lock there.
                Err(error) if is_without_locks(error) => Ok(FileLock { held: None }),
                Err(error) => Err(error),
            }
        }
    }

    /// Goes from place to place until it has the lock.
    fn wait_in_queue(fd: BorrowedFd, deadline: &Deadline) -> Result<()> {
        let mut place = Place { fd, at: None };
        for at in LAST..=LOCK {
            deadline.poll(|| Ok(try_lock(fd, at..=at)?.then_some(())))?;
            place.move_to(at);
        }
        // The lock itself is kept.
        place.at = None;
        Ok(())
    }

    /// A place in the queue, left when this is dropped.
    struct Place<'a> {
        fd: BorrowedFd<'a>,
        at: Option<libc::off_t>,
    }

    impl Place<'_> {
        fn move_to(&mut self, at: libc::off_t) {
            if let Some(before) = self.at.replace(at) {
                unlock(self.fd, before..=before);
            }
        }
    }

    impl Drop for Place<'_> {
        fn drop(&mut self) {
            if let Some(at) = self.at {
                unlock(self.fd, at..=at);
            }
        }
    }

    impl Drop for FileLock<'_> {
        fn drop(&mut self) {
            if let Some(fd) = self.held {
                unlock(fd, LOCK..=LOCK);
            }
        }
    }

    fn is_without_locks(error: Errno) -> bool {
        matches!(
            error,
            Errno(libc::EINVAL) | Errno(libc::ENOLCK) | Errno(libc::EOPNOTSUPP)
        )
    }

    pub(super) fn try_lock(fd: BorrowedFd, bytes: RangeInclusive<libc::off_t>) -> Result<bool> {
        let locked = match change(fd, &bytes, libc::F_WRLCK as _) {
            // Open for reading only: a caller that does not change the file keeps only those out that do.
            Err(Errno(libc::EBADF)) => change(fd, &bytes, libc::F_RDLCK as _),
            locked => locked,
        };
        match locked {
            Ok(()) => Ok(true),
            Err(Errno(libc::EAGAIN) | Errno(libc::EACCES)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn unlock(fd: BorrowedFd, bytes: RangeInclusive<libc::off_t>) {
        let _ = change(fd, &bytes, libc::F_UNLCK as _);
    }

    fn change(
        fd: BorrowedFd,
        bytes: &RangeInclusive<libc::off_t>,
        kind: libc::c_int,
    ) -> Result<()> {
        let lock = libc::flock {
            l_type: kind as _,
            l_whence: libc::SEEK_SET as _,
            l_start: *bytes.start(),
            l_len: bytes.end() - bytes.start() + 1,
            l_pid: 0,
        };
        // SAFETY: `lock` outlives the call.
        retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &lock) })
    }
}

/// A queue needs locks of single bytes.
#[cfg(not(target_os = "linux"))]
impl FileLock<'_> {
    pub fn wait_until<'a>(
        fd: BorrowedFd<'a>,
        courtesy: &Courtesy,
        deadline: &Deadline,
    ) -> Result<FileLock<'a>> {
        let mut waited = courtesy.is_due();
        deadline
            .poll(|| {
                // Whoever had it just now lets the others look.
                if std::mem::take(&mut waited) {
                    std::thread::yield_now();
                }
                // SAFETY: takes no pointers.
                match retry(|| unsafe {
                    libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB)
                }) {
                    Ok(()) => Ok(Some(FileLock { held: Some(fd) })),
                    Err(Errno(libc::EWOULDBLOCK)) => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .inspect(|_| courtesy.note())
    }
}

#[cfg(not(target_os = "linux"))]
impl Drop for FileLock<'_> {
    fn drop(&mut self) {
        if let Some(fd) = self.held {
            // SAFETY: takes no pointers.
            unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_UN) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patience::{briefly, LONGEST};
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::panic::{catch_unwind, AssertUnwindSafe};
    use std::path::Path;
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    fn open(path: &Path) -> File {
        File::options().read(true).write(true).open(path).unwrap()
    }

    fn is_free(file: &File) -> bool {
        briefly(|| FileLock::wait(file.as_fd()).is_ok())
    }

    #[test]
    fn a_panic_frees_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let other = open(file.path());
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            with_file_lock(file.as_file().as_fd(), || {
                assert!(!is_free(&other), "held");
                panic!("under the lock");
            })
        }));
        assert!(panicked.is_err());
        assert!(is_free(&other));
    }

    #[test]
    fn a_wait_ends_at_its_deadline_and_leaves_the_queue() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (other, third) = (open(file.path()), open(file.path()));
        let held = FileLock::wait(file.as_file().as_fd()).unwrap();
        let start = Instant::now();
        let ended = FileLock::wait(other.as_fd()).map(drop);
        assert_eq!(ended, Err(Errno::BUSY));
        assert!(start.elapsed() >= LONGEST && start.elapsed() < LONGEST * 2);
        let brief = briefly(|| FileLock::wait(other.as_fd()).map(drop));
        assert_eq!(brief, Err(Errno::WAIT_SIZE));
        drop(held);
        assert!(is_free(&third), "no place was kept");
    }

    /// Several descriptors take the lock again and again: none is left out.
    #[test]
    fn it_is_fair() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stop = AtomicBool::new(false);
        let taken: Vec<u64> = std::thread::scope(|threads| {
            let takers: Vec<_> = (0..6)
                .map(|_| {
                    threads.spawn(|| {
                        let own = open(file.path());
                        let courtesy = Courtesy::default();
                        let mut taken = 0;
                        while !stop.load(Ordering::Relaxed) {
                            let deadline = Deadline::of_call(Errno::WAIT_SIZE);
                            let _held =
                                FileLock::wait_until(own.as_fd(), &courtesy, &deadline).unwrap();
                            // A slow system call, and no time between two of them.
                            std::thread::sleep(Duration::from_millis(1));
                            taken += 1;
                        }
                        taken
                    })
                })
                .collect();
            std::thread::sleep(Duration::from_secs(3));
            stop.store(true, Ordering::Relaxed);
            takers.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let (least, most) = (taken.iter().min().unwrap(), taken.iter().max().unwrap());
        assert!(*least > 20 && *most <= 4 * least, "{taken:?}");
    }
}
