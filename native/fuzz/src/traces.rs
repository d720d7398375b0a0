//! What a run must not leave behind: descriptors, maps of its files, addresses.

use std::path::Path;
use std::sync::OnceLock;

/// Looks before and after; one run at a time.
pub struct Traces {
    descriptors: usize,
}

/// More than this and addresses are lost: reservations for growth take a gigabyte each, and what
/// takes a page shows after some hundred thousand runs.
const MOST_GROWN: usize = 4 << 30;

impl Traces {
    pub fn before() -> Traces {
        addresses_at_first();
        Traces {
            descriptors: descriptors(),
        }
    }

    /// `directory`: where the files of the run were.
    pub fn check(self, directory: &Path) {
        assert_eq!(descriptors(), self.descriptors, "descriptors");
        // Nothing where the system has no such file.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let name = directory.to_str().expect("a name of letters");
        assert!(!maps.contains(name), "still mapped: {name}");
        assert!(addresses() < addresses_at_first() + MOST_GROWN, "addresses");
    }
}

fn descriptors() -> usize {
    let folder = Path::new("/dev/fd");
    folder.read_dir().map_or(0, |entries| entries.count())
}

fn addresses_at_first() -> usize {
    static FIRST: OnceLock<usize> = OnceLock::new();
    *FIRST.get_or_init(addresses)
}

/// The bytes of addresses in use, where the system tells.
fn addresses() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').next().and_then(|word| word.parse().ok());
    pages.unwrap_or(0usize).saturating_mul(4096)
}
