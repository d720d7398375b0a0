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

/// A word, and the value that it has as long as a wait continues.
#[derive(Clone, Copy)]
pub struct Expected {
    pub word: *const AtomicU32,
    pub value: u32,
}

/// For how many words [`futex_wait_any`] waits at most.
pub const MOST_WORDS: usize = 128;

/// Whether the system has [`futex_wait_any`] (Linux 5.16, and not every sandbox permits it).
#[cfg(target_os = "linux")]
pub fn has_futex_wait_any() -> bool {
    static KNOWN: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    // Without words, the call is refused, but not as an unknown one.
    *KNOWN.get_or_init(|| wait_any(&[], None) == Err(Errno::INVAL))
}

/// Waits until somebody calls [`futex_wake`] on one of the words, which does not happen where one of them has another value
/// already; or for `timeout`. It may return early.
///
/// # Safety
/// The words must stay mapped during the call.
#[cfg(target_os = "linux")]
pub unsafe fn futex_wait_any(words: &[Expected], timeout: Option<Duration>) -> crate::Result<()> {
    let entries: Vec<Entry> = words.iter().take(MOST_WORDS).map(Entry::of).collect();
    match wait_any(&entries, timeout.map(Time::after)) {
        Err(Errno(libc::EAGAIN | libc::EINTR | libc::ETIMEDOUT)) => Ok(()),
        waited => waited,
    }
}

/// `struct __kernel_timespec`, of CLOCK_MONOTONIC.
#[cfg(target_os = "linux")]
#[repr(C)]
struct Time {
    seconds: i64,
    nanoseconds: i64,
}

#[cfg(target_os = "linux")]
impl Time {
    fn after(timeout: Duration) -> Time {
        let mut now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `now` outlives the call.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
        #[allow(clippy::unnecessary_cast)] // 32 bits on some systems
        let now = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
        let end = now.saturating_add(timeout);
        Time {
            seconds: i64::try_from(end.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: end.subsec_nanos().into(),
        }
    }
}

/// `struct futex_waitv` of the kernel.
#[cfg(target_os = "linux")]
#[repr(C)]
struct Entry {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

#[cfg(target_os = "linux")]
impl Entry {
    fn of(expected: &Expected) -> Entry {
        /// `FUTEX_32`. Other programs map the words, so they are not private ones.
        const BITS_32: u32 = 2;
        Entry {
            value: u64::from(expected.value),
            address: expected.word as usize as u64,
            flags: BITS_32,
            reserved: 0,
        }
    }
}

#[cfg(target_os = "linux")]
fn wait_any(entries: &[Entry], end: Option<Time>) -> crate::Result<()> {
    /// `futex_waitv`, the same on all processors of Rust's standard library.
    const NUMBER: libc::c_long = 449;
    let no_flags = 0usize;
    let end = end.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the entries and the time outlive the call. The kernel reads the words, and returns EFAULT where none is mapped.
    let waited = unsafe {
        let count = entries.len();
        libc::syscall(
            NUMBER,
            entries.as_ptr(),
            count,
            no_flags,
            end,
            libc::CLOCK_MONOTONIC,
        )
    };
    match waited {
        -1 => Err(Errno::last()),
        _ => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
pub fn has_futex_wait_any() -> bool {
    false
}

/// # Safety
/// None here: the system does not have this call.
#[cfg(not(target_os = "linux"))]
pub unsafe fn futex_wait_any(_words: &[Expected], _timeout: Option<Duration>) -> crate::Result<()> {
    Err(crate::Errno(libc::ENOSYS))
}
