//! SIGXFSZ, which kills a process that makes a file longer than `ulimit -f` allows.

use std::ptr;

use crate::Result;

/// Runs a call that may raise SIGXFSZ so that it returns EFBIG instead: the signal is blocked on this thread, and
/// taken back if it came.
pub fn without_sigxfsz<R>(call: impl FnOnce() -> Result<R>) -> Result<R> {
    let _blocked = Blocked::new();
    call()
}

/// SIGXFSZ is blocked on this thread until this is dropped.
struct Blocked {
    signal: libc::sigset_t,
    /// What was blocked before.
    before: libc::sigset_t,
}

impl Blocked {
    fn new() -> Blocked {
        // SAFETY: both sets are initialised, by sigemptyset and by pthread_sigmask, before they are read.
        unsafe {
            let mut signal: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut signal);
            libc::sigaddset(&mut signal, libc::SIGXFSZ);
            libc::pthread_sigmask(libc::SIG_BLOCK, &signal, &mut before);
            Blocked { signal, before }
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the sets are initialised; sigwait returns at once, for the signal is pending.
        unsafe {
            let mut pending: libc::sigset_t = std::mem::zeroed();
            libc::sigpending(&mut pending);
            if libc::sigismember(&pending, libc::SIGXFSZ) == 1 {
                let mut taken = 0;
                libc::sigwait(&self.signal, &mut taken);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{catch_unwind, AssertUnwindSafe};

    /// Whether SIGXFSZ is blocked on this thread, and whether it is pending.
    fn state() -> (bool, bool) {
        // SAFETY: both sets are filled before they are read.
        unsafe {
            let mut mask: libc::sigset_t = std::mem::zeroed();
            let mut pending: libc::sigset_t = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut mask);
            libc::sigpending(&mut pending);
            let has = |set| libc::sigismember(set, libc::SIGXFSZ) == 1;
            (has(&mask), has(&pending))
        }
    }

    fn raise() {
        // SAFETY: the signal is blocked on this thread, which it is sent to.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGXFSZ) };
    }

    #[test]
    fn a_signal_that_came_is_taken_back() {
        let answer = without_sigxfsz(|| {
            raise();
            Ok(state())
        });
        assert_eq!(answer, Ok((true, true)));
        assert_eq!(state(), (false, false));
    }

    #[test]
    fn a_panic_leaves_nothing_blocked_or_pending() {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            without_sigxfsz::<()>(|| {
                raise();
                assert_eq!(state(), (true, true));
                panic!("while it is blocked")
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(state(), (false, false));
    }

    #[test]
    fn a_caller_that_had_it_blocked_still_has() {
        let _outer = Blocked::new();
        without_sigxfsz(|| Ok(())).unwrap();
        assert_eq!(state(), (true, false));
    }
}
