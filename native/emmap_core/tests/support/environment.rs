//! Numbers that `make` passes to the tests.

/// The number in an environment variable; `None` if it is not set.
pub fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} must be a number, got {value:?}")),
    )
}

/// How many images of crashes to test for each structure.
pub fn crash_images(default: u64) -> u64 {
    number("EMMAP_CRASH_IMAGES").unwrap_or(default)
}
