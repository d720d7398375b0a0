//! Waiting for another program to change a word of a shared map.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

#[cfg(target_os = "linux")]
use crate::Errno;

/// Waits until somebody calls [`futex_wake`] on the word, which does not happen where it is not `value` any more; or for
/// `timeout`. It may return early. Returns whether a signal interrupted it.
#[cfg(target_os = "linux")]
pub fn futex_wait(word: &AtomicU32, value: u32, timeout: Option<Duration>) -> bool {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos() as _,
    });
    let timeout = timeout
        .as_ref()
        .map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the word and the timeout outlive the call. Other programs map the word, so the call is not the private one.
    let waited = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            value,
            timeout,
        )
    };
    waited == -1 && Errno::last() == Errno(libc::EINTR)
}

#[cfg(target_os = "linux")]
pub fn futex_wake(word: &AtomicU32) {
    // SAFETY: takes the address only.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// No such call here: a short pause.
#[cfg(not(target_os = "linux"))]
pub fn futex_wait(word: &AtomicU32, value: u32, timeout: Option<Duration>) -> bool {
    const PAUSE: Duration = Duration::from_millis(5);
    if word.load(std::sync::atomic::Ordering::SeqCst) == value {
        std::thread::sleep(timeout.map_or(PAUSE, |timeout| timeout.min(PAUSE)));
    }
    false
}

#[cfg(not(target_os = "linux"))]
pub fn futex_wake(_word: &AtomicU32) {}
