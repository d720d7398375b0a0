//! A fault that is not ours kills, with a core, as it did before we came.

#![cfg(target_os = "linux")]

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

const CHILD: &str = "EMMAP_FOREIGN_FAULT";

#[test]
fn kills_with_a_core() {
    if std::env::var_os(CHILD).is_some() {
        fault();
    }
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.env(CHILD, "1").current_dir(directory.path());
    // SAFETY: setrlimit is async-signal-safe, and reads a value that is whole.
    unsafe {
        child.pre_exec(|| {
            let all = libc::rlimit {
                rlim_cur: libc::RLIM_INFINITY,
                rlim_max: libc::RLIM_INFINITY,
            };
            libc::setrlimit(libc::RLIMIT_CORE, &all);
            Ok(())
        });
    }
    let status = child.output().unwrap().status;
    assert_eq!(status.signal(), Some(libc::SIGBUS));
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        assert!(status.core_dumped(), "core_pattern {pattern}");
    } else {
        println!("no core is written here: core_pattern {pattern}");
    }
}

/// Touches a page of a file that has none.
fn fault() {
    emmap_core::guard::install().unwrap();
    let file = tempfile::tempfile().unwrap();
    // SAFETY: the map is made of a file that stays open, and only read.
    unsafe {
        use std::os::fd::AsRawFd;
        let flags = libc::MAP_SHARED;
        let fd = file.as_raw_fd();
        let at = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, flags, fd, 0);
        assert_ne!(at, libc::MAP_FAILED);
        at.cast::<u8>().read_volatile();
    }
}
