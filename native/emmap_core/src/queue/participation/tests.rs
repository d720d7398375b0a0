//! Handles that are opened while the first one still ends what an earlier program left.

use std::sync::mpsc::{channel, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::store::exclusive::Peers;

const LONG: Duration = Duration::from_secs(30);
/// How long a thread gets for what it must not do.
const SHORT: Duration = Duration::from_millis(100);

/// Nobody has died.
struct Alive;

impl Peers for Alive {
    fn is_alive(&self, _owner: exclusive::Owner) -> bool {
        true
    }
}

fn new_queue(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("queue");
    let (region, queue) = open(&path, &Request::default()).unwrap();
    queue.leave(&region).unwrap();
    path
}

#[test]
fn the_first_handle_keeps_the_others_out_until_it_has_cleaned_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = new_queue(directory.path());
    // Another program holds the lock, so that the clean-up has to wait.
    let options = crate::Options {
        path: Some(path.clone()),
        write: true,
        ..crate::Options::default()
    };
    let region = Region::open(&options).unwrap();
    let file = region.clone_file().unwrap();
    let shared = Mapped::new(&region);
    let place = &participant::PLACE;
    let other = Presence::of_another_program(file.as_fd(), &shared, place).unwrap();
    let lock = layout::LOCK;
    exclusive::acquire(&shared, lock, other.owner(), &Alive, Wait::No).unwrap();

    let first = thread::spawn({
        let path = path.clone();
        move || open(&path, &Request::default()).unwrap()
    });
    // It has its slot once the file has another participant: the presence of this program.
    let presence = loop {
        let taken = (0..crate::store::participants::SLOTS).filter(|slot| other.is_taken(*slot));
        if taken.count() > 0 {
            break Presence::enter(file.as_fd(), &shared, place).unwrap();
        }
        thread::yield_now();
    };
    let start = Instant::now();
    while presence.is_entered() {
        assert!(start.elapsed() < LONG, "the first handle cleans up alone");
        thread::yield_now();
    }
    let (done, second) = channel();
    thread::spawn(move || done.send(open(&path, &Request::default()).unwrap()).is_ok());
    assert_eq!(
        second.recv_timeout(SHORT).err(),
        Some(RecvTimeoutError::Timeout)
    );
    assert!(!presence.is_entered(), "until the clean-up has ended");

    exclusive::release(&shared, lock).unwrap();
    first.join().unwrap();
    second.recv_timeout(LONG).unwrap();
}

#[test]
fn a_handle_waits_for_the_clean_up_of_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = new_queue(directory.path());
    let (_region, queue) = open(&path, &Request::default()).unwrap();
    // As the first handle does during its clean-up.
    let cleaning = queue.presence.entering();
    let (done, second) = channel();
    thread::spawn(move || done.send(open(&path, &Request::default()).unwrap()).is_ok());
    assert_eq!(
        second.recv_timeout(SHORT).err(),
        Some(RecvTimeoutError::Timeout)
    );
    drop(cleaning);
    second.recv_timeout(LONG).unwrap();
}
