//! A clock that is cheap to read.

/// A number that changes with each tick of the system's clock: every 1 to 10 milliseconds.
#[cfg(target_os = "linux")]
pub fn tick() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` outlives the call, which sets it.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut now) };
    (now.tv_sec as u64) << 32 | now.tv_nsec as u64
}

#[cfg(not(target_os = "linux"))]
pub fn tick() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1
}
