//! How long a call waits for something that another call holds.
//!
//! A separate thread waits for up to [`LONGEST`], counted from the start of the call, whatever it waits for.
//! A scheduler of the VM is needed by others: a call that runs there in [`briefly`] waits for a moment, and then ends with
//! one of the errors `Errno::WAIT_*`, before it has changed anything. It is then repeated on a thread that may wait.
//!
//! This is a property of the thread and not a parameter, because the whole queue, or the whole block store, is between the
//! call and the place where it waits.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::{Errno, Result};

/// The longest wait of a call for a lock that another program may hold.
pub const LONGEST: Duration = Duration::from_secs(2);
/// How long a scheduler waits: about the duration of another call.
pub const BRIEF: Duration = Duration::from_millis(1);

#[derive(Clone)]
enum Mode {
    Brief,
    /// The call began at this time. It is abandoned once its result is not needed any more.
    Since(Instant, Rc<dyn Fn() -> bool>),
    /// It has changed something, and has to continue.
    Begun,
}

thread_local! {
    static MODE: RefCell<Option<Mode>> = const { RefCell::new(None) };
}

fn mode() -> Option<Mode> {
    MODE.with_borrow(Clone::clone)
}

/// Restores the previous mode of the thread, also after a panic.
struct Before(Option<Mode>);

impl Drop for Before {
    fn drop(&mut self) {
        MODE.set(self.0.take());
    }
}

fn within<R>(mode: Mode, act: impl FnOnce() -> R) -> R {
    let _before = Before(MODE.replace(Some(mode)));
    act()
}

/// Runs a call on a thread that others need.
pub fn briefly<R>(act: impl FnOnce() -> R) -> R {
    within(Mode::Brief, act)
}

/// Runs a call that began at `start`, on a thread that may wait, until `given_up` returns that its result is not needed any more.
pub fn since<R>(start: Instant, given_up: Rc<dyn Fn() -> bool>, act: impl FnOnce() -> R) -> R {
    within(Mode::Since(start, given_up), act)
}

/// Runs the rest of a call that has changed something, and therefore cannot be repeated from the start.
pub fn begun<R>(act: impl FnOnce() -> R) -> R {
    match is_brief() {
        true => within(Mode::Begun, act),
        false => act(),
    }
}

/// Whether others need this thread.
pub fn is_brief() -> bool {
    matches!(mode(), Some(Mode::Brief))
}

/// How long to wait for a copy of bytes, which takes as long as it takes to copy them; `None`: until it is done.
pub fn of_copies() -> Option<Duration> {
    is_brief().then_some(BRIEF)
}

/// Until when to wait, and the error to end with then.
#[derive(Clone)]
pub struct Deadline {
    at: Instant,
    error: Errno,
    mode: Option<Mode>,
}

impl Deadline {
    /// `wait` is the error for a call that has to wait elsewhere.
    pub fn of_call(wait: Errno) -> Deadline {
        Deadline::within(LONGEST, wait)
    }

    /// As [`Deadline::of_call`], for a lock that is held longer.
    pub fn within(longest: Duration, wait: Errno) -> Deadline {
        let mode = mode();
        let (at, error) = match &mode {
            Some(Mode::Brief) => (Instant::now() + BRIEF, wait),
            Some(Mode::Since(start, _)) => (*start + longest, Errno::BUSY),
            Some(Mode::Begun) | None => (Instant::now() + longest, Errno::BUSY),
        };
        Deadline { at, error, mode }
    }

    /// Whether this call ends immediately if it would have to queue.
    pub fn is_brief(&self) -> bool {
        matches!(self.mode, Some(Mode::Brief))
    }

    /// The error of a call whose wait has ended.
    pub fn error(&self) -> Errno {
        self.error
    }

    pub fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// `Err` once the deadline has passed, or the result is not needed any more.
    pub fn check(&self) -> Result<()> {
        if self.left().is_zero() {
            return Err(self.error);
        }
        match &self.mode {
            Some(Mode::Since(_, given_up)) if given_up() => Err(Errno::BUSY),
            _ => Ok(()),
        }
    }

    /// Calls `ask` repeatedly, with pauses that become longer the longer it has waited.
    pub fn poll<R>(&self, mut ask: impl FnMut() -> Result<Option<R>>) -> Result<R> {
        const AT_ONCE: usize = 16;
        const LONGEST_PAUSE: Duration = Duration::from_millis(1);
        let start = Instant::now();
        for tries in 0.. {
            if let Some(found) = ask()? {
                return Ok(found);
            }
            self.check()?;
            if tries < AT_ONCE {
                std::thread::yield_now();
                continue;
            }
            let pause = start.elapsed() / 8;
            let pause = pause.clamp(Duration::from_micros(20), LONGEST_PAUSE);
            std::thread::sleep(pause.min(self.left()));
        }
        unreachable!("it ends at its deadline")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{catch_unwind, AssertUnwindSafe};

    fn never() -> Result<Option<()>> {
        Ok(None)
    }

    #[test]
    fn a_scheduler_waits_for_a_moment_and_ends_with_the_error_of_its_wait() {
        let start = Instant::now();
        let ended = briefly(|| Deadline::of_call(Errno::WAIT_SIZE).poll(never));
        assert_eq!(ended, Err(Errno::WAIT_SIZE));
        assert!(start.elapsed() < Duration::from_millis(200));
        assert!(!is_brief());
    }

    #[test]
    fn what_has_changed_something_goes_on() {
        briefly(|| {
            begun(|| assert!(!Deadline::of_call(Errno::WAIT_SIZE).is_brief()));
            assert!(is_brief());
        });
    }

    #[test]
    fn a_panic_leaves_the_thread_as_it_was() {
        let panicked = catch_unwind(AssertUnwindSafe(|| briefly(|| panic!("in a call"))));
        assert!(panicked.is_err());
        assert!(!is_brief());
    }

    #[test]
    fn the_time_before_a_call_came_here_counts() {
        let start = Instant::now() - LONGEST;
        let ended = since(start, Rc::new(|| false), || {
            Deadline::of_call(Errno::WAIT_SIZE).poll(never)
        });
        assert_eq!(ended, Err(Errno::BUSY));
        assert!(start.elapsed() < LONGEST + Duration::from_millis(500));
    }

    #[test]
    fn a_call_that_nobody_needs_ends() {
        let start = Instant::now();
        let ended = since(start, Rc::new(|| true), || {
            Deadline::of_call(Errno::WAIT_SIZE).poll(never)
        });
        assert_eq!(ended, Err(Errno::BUSY));
        assert!(start.elapsed() < LONGEST / 2);
    }
}
