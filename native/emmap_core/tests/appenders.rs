//! Programs that append to one file at the same time, each as fast as it can: none is left out, on one processor and with
//! others at work, and however slow the system calls are.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use emmap_core::{Options, Region};

const FILE: &str = "EMMAP_APPENDER_FILE";
const SLOW: &str = "EMMAP_APPENDER_SLOW";
const LONG: Duration = Duration::from_secs(4);
const PROGRAMS: usize = 8;

/// A program, when the test below starts this one again: appends, and prints how often.
#[test]
fn appender() {
    let Ok(path) = std::env::var(FILE) else {
        return;
    };
    let slow = std::env::var(SLOW).is_ok();
    let options = Options {
        path: Some(path.clone().into()),
        write: !slow,
        append: !slow,
        ..Options::default()
    };
    // A slow program holds the lock of the file itself, as growing does.
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let region = Region::open(&options).unwrap();
    let (start, mut count) = (Instant::now(), 0u64);
    while start.elapsed() < LONG {
        if slow {
            let fd = std::os::fd::AsFd::as_fd(&file);
            let slept = emmap_core::os::with_file_lock(fd, || {
                std::thread::sleep(Duration::from_millis(10));
            });
            slept.expect("the lock");
        } else {
            // SAFETY: ten bytes.
            unsafe { region.append(b"0123456789".as_ptr(), 10) }.expect("an append");
        }
        count += 1;
    }
    println!("appended {count}.");
}

/// Runs the programs on one processor, next to one that computes. Returns how often each appended.
fn run(path: &Path, slow: bool) -> Vec<u64> {
    let me = std::env::current_exe().unwrap();
    let one_processor = Command::new("taskset").arg("-V").output().is_ok();
    let command = |program: &Path, arguments: &[&str]| {
        let mut command = match one_processor {
            true => {
                let mut command = Command::new("taskset");
                command.args(["-c", "0"]).arg(program);
                command
            }
            false => Command::new(program),
        };
        command.args(arguments);
        command
    };
    let mut load = command(Path::new("sh"), &["-c", "while :; do :; done"])
        .spawn()
        .unwrap();
    let programs: Vec<_> = (0..PROGRAMS)
        .map(|_| {
            let mut command = command(&me, &["--exact", "appender", "--nocapture"]);
            command.env(FILE, path).stdout(Stdio::piped());
            if slow {
                command.env(SLOW, "1");
            }
            command.spawn().unwrap()
        })
        .collect();
    let counts = programs
        .into_iter()
        .map(|program| {
            let said = program.wait_with_output().unwrap();
            assert!(said.status.success(), "a program was refused");
            let said = String::from_utf8(said.stdout).unwrap();
            let count = said.split("appended ").nth(1).unwrap();
            count.split('.').next().unwrap().parse().unwrap()
        })
        .collect();
    load.kill().unwrap();
    load.wait().unwrap();
    counts
}

fn check(slow: bool) {
    if std::env::var(FILE).is_ok() {
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let counts = run(file.path(), slow);
    println!("{counts:?}");
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(*least > 0 && *most <= 5 * least, "{counts:?}");
    if !slow {
        let size = file.as_file().metadata().unwrap().len();
        assert_eq!(size, 10 * counts.iter().sum::<u64>());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn programs_that_append_are_served_alike() {
    check(false);
}

#[cfg(target_os = "linux")]
#[test]
fn also_where_each_holds_the_lock_for_long() {
    check(true);
}
