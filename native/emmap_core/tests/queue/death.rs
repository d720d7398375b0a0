//! What the living see of participants that died, and who is told of it.

use emmap_core::queue::layout::{participant, ITEMS_WAITERS, OWN};
use emmap_core::queue::waiting::Event::Items;
use emmap_core::queue::{self, Limits, Locked, Queue, Request, Result};
use emmap_core::region::Wait;
use emmap_core::store::shared::Mapped;
use emmap_core::store::Shared;
use emmap_core::Region;

/// A slot that no program has: whatever is there is of a dead one.
const DEAD: u32 = 5;

struct File {
    region: Region,
    queue: Queue,
    _directory: tempfile::TempDir,
}

fn file() -> File {
    let directory = tempfile::tempdir().unwrap();
    let (region, queue) = queue::open(&directory.path().join("q"), &Request::default()).unwrap();
    File {
        region,
        queue,
        _directory: directory,
    }
}

impl File {
    fn push(&self) {
        let item = (0, b"item".as_ptr(), 4);
        // SAFETY: a slice.
        let pushed = unsafe {
            self.queue
                .push(&self.region, Wait::Yes, item, &Limits::default())
        };
        pushed.unwrap();
    }

    fn check_out(&self) -> bool {
        let claimed = self.queue.check_out(&self.region, Wait::Yes, OWN, 1, None);
        claimed.unwrap().is_some()
    }

    fn with<R>(&self, act: impl Fn(&Locked<Mapped>) -> Result<R>) -> R {
        self.queue.with(&self.region, Wait::Yes, act).unwrap()
    }

    /// As a program in the slot, and as long as nobody looks for it.
    fn as_other<R>(&self, act: impl Fn(&Locked<Mapped>) -> Result<R>) -> R {
        self.with(|locked| {
            act(&Locked {
                shared: locked.shared,
                slot: DEAD,
                ..*locked
            })
        })
    }

    fn word(&self, at: u64) -> u64 {
        self.with(|locked| Ok(locked.shared.load(at)?))
    }

    fn event(&self) -> u32 {
        self.queue.event(&self.region, Items).unwrap()
    }
}

#[test]
fn all_who_wait_are_told_of_what_one_found_of_a_dead_program() {
    let file = file();
    file.push();
    file.push();
    for _ in 0..2 {
        assert!(file
            .as_other(|other| other.check_out(OWN, 1, None))
            .is_some());
    }
    file.queue.set_waiting(&file.region, Items, true).unwrap();
    let before = file.event();
    // This finds both, and takes one.
    assert!(file.check_out());
    assert_ne!(file.event(), before);
    let told = file.event();
    assert!(file.check_out());
    assert_eq!(file.event(), told);
}

#[test]
fn a_look_finds_what_a_dead_program_had() {
    let file = file();
    file.push();
    assert!(file
        .as_other(|other| other.check_out(OWN, 1, None))
        .is_some());
    assert_eq!(file.queue.lengths(&file.region, OWN), Ok((0, 1)));
    let before = file.event();
    file.queue.look(&file.region).unwrap();
    assert_ne!(file.event(), before);
    assert_eq!(file.queue.lengths(&file.region, OWN), Ok((1, 0)));
    // Nothing is left to look for, and nobody is woken for nothing.
    let told = file.event();
    assert_eq!(file.queue.others_have_claims(&file.region), Ok(false));
    file.queue.look(&file.region).unwrap();
    assert_eq!(file.event(), told);
}

#[test]
fn nobody_looks_for_claims_that_have_ended() {
    let file = file();
    let marked = || file.word(participant::PLACE.of(DEAD) + participant::HAS_CLAIMS) != 0;
    let forget = || file.with(|locked| locked.forget_ended_claims());
    let mut claims = Vec::new();
    for _ in 0..40 {
        file.push();
        claims.extend(file.as_other(|other| other.check_out(OWN, 1, None)));
    }
    while let Some(claimed) = claims.pop() {
        forget();
        assert!(marked());
        file.as_other(|other| match claims.len() % 2 {
            0 => other.acknowledge(OWN, &claimed.receipt),
            _ => other.release_claim(OWN, &claimed.receipt),
        });
    }
    assert!(marked());
    forget();
    assert!(!marked());
    // And again with the next claim, or with segments that are set aside.
    assert!(file
        .as_other(|other| other.check_out(OWN, 1, None))
        .is_some());
    assert!(marked());
}

#[test]
fn segments_that_are_set_aside_are_looked_for() {
    let file = file();
    let large = vec![0; 1 << 20];
    let content = queue::tail::content(0, Default::default(), &large);
    // As `with` does: the file is made longer first.
    file.as_other(|other| other.reserve(queue::layout::ITEMS, &content));
    file.with(|locked| locked.forget_ended_claims());
    let used = || file.with(|locked| Ok(locked.check())).is_ok();
    assert!(file.queue.others_have_claims(&file.region).unwrap() && used());
    file.queue.look(&file.region).unwrap();
    let reserved = participant::PLACE.of(DEAD) + participant::RESERVATION;
    assert_eq!(file.word(reserved), 0);
    assert!(used());
}

#[test]
fn a_push_wakes_no_dead_program_for_long() {
    let file = file();
    file.queue.set_waiting(&file.region, Items, true).unwrap();
    let own = file.word(ITEMS_WAITERS);
    assert_ne!(own, 0);
    file.with(|locked| Ok(locked.shared.update(ITEMS_WAITERS, 1 << DEAD, 0)?));
    assert_ne!(file.word(ITEMS_WAITERS), own);
    file.push();
    // Once in each tick of the clock.
    std::thread::sleep(std::time::Duration::from_millis(20));
    file.push();
    assert_eq!(file.word(ITEMS_WAITERS), own);
}
