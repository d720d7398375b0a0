//! Which boot of the system this is.

use std::sync::OnceLock;

/// A number that differs after a reboot. 0: the system does not tell.
pub fn boot_id() -> u128 {
    static BOOT: OnceLock<u128> = OnceLock::new();
    *BOOT.get_or_init(|| read().as_deref().map_or(0, number_of))
}

/// The hexadecimal digits of a UUID.
fn number_of(uuid: &str) -> u128 {
    let digits = uuid.chars().filter_map(|digit| digit.to_digit(16));
    digits.fold(0, |number, digit| number << 4 | u128::from(digit))
}

#[cfg(target_os = "linux")]
fn read() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()
}

#[cfg(target_os = "macos")]
fn read() -> Option<String> {
    let mut uuid = [0u8; 64];
    let mut length = uuid.len();
    // SAFETY: the name is NUL-terminated; at most `length` bytes are written to `uuid`.
    let answer = unsafe {
        libc::sysctlbyname(
            c"kern.bootsessionuuid".as_ptr(),
            uuid.as_mut_ptr().cast(),
            &mut length,
            std::ptr::null_mut(),
            0,
        )
    };
    (answer == 0).then(|| String::from_utf8_lossy(&uuid[..length]).into_owned())
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn read() -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read() {
        assert_eq!(number_of("0000000a-00ff\n"), 0x0a_00ff);
        assert_eq!(boot_id(), boot_id());
        if cfg!(target_os = "linux") {
            assert_ne!(boot_id(), 0);
        }
    }
}
