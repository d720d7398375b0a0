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

const UNALIGNED: &str = "EMMAP_UNALIGNED";

/// Zero pages would not make an address aligned: the guard would be called forever.
#[test]
fn an_unaligned_address_in_a_map_kills_and_hangs_not() {
    if std::env::var_os(UNALIGNED).is_some() {
        unaligned();
    }
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.arg("unaligned").env(UNALIGNED, "1");
    child.current_dir(directory.path());
    assert_eq!(child.output().unwrap().status.signal(), Some(libc::SIGBUS));
}

/// Tells this process what the kernel would where words must be aligned.
fn unaligned() {
    emmap_core::guard::install().unwrap();
    let options = emmap_core::Options {
        write: true,
        size: Some(4096),
        ..Default::default()
    };
    let region = emmap_core::Region::open(&options).unwrap();
    // SAFETY: `info` is zeroed, which is a valid one, and holds an address where the kernel has it; the map has that byte.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        info.si_signo = libc::SIGBUS;
        info.si_code = 1;
        let fields = std::ptr::from_mut(&mut info).cast::<u8>();
        let address = fields.add(2 * size_of::<usize>()).cast::<usize>();
        address.write_unaligned(region.pointer(1) as usize);
        assert_eq!(info.si_addr() as usize, region.pointer(1) as usize);
        // A process may send itself any code.
        let (process, thread) = (libc::getpid(), libc::syscall(libc::SYS_gettid));
        let sent = libc::syscall(
            libc::SYS_rt_tgsigqueueinfo,
            process,
            thread,
            libc::SIGBUS,
            &info,
        );
        assert_eq!(sent, 0);
    }
    // The instruction would run again, and meet the default action.
    // SAFETY: `now` is zeroed, then filled; raise takes no pointers.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut now);
        if now.sa_sigaction == libc::SIG_DFL {
            libc::raise(libc::SIGBUS);
        }
    }
    std::process::exit(3);
}
