//! A lost page: nobody takes its zeros for the file's bytes, and no loss is forgotten.

use crate::fault::{Fault, Reason};
use loom::sync::atomic::{
    fence, AtomicBool, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
};
use loom::sync::Arc;
use loom::thread;

/// What a page shows.
const FILE: usize = 1;
const ZEROS: usize = 0;

const PAGE: usize = 4096;

pub struct Map {
    pub fault: Fault,
    /// Two pages, as they are mapped. The kernel replaces them one after the other. A thread that sees a replaced page also
    /// sees what was done before; an access itself orders nothing.
    pub pages: [AtomicUsize; 2],
    /// Whether the file reaches over them.
    pub whole: AtomicBool,
}

impl Map {
    pub fn new() -> Arc<Map> {
        Arc::new(Map {
            fault: Fault::default(),
            pages: [AtomicUsize::new(FILE), AtomicUsize::new(FILE)],
            whole: AtomicBool::new(false),
        })
    }

    /// What the handler does about page `at`.
    pub fn lose(&self, at: usize) {
        let loss = self.fault.enter();
        if self.whole.load(Acquire) {
            return; // touched again, and there
        }
        loss.record(at as u64, Reason::CUT, at * PAGE, (at + 1) * PAGE);
        self.pages[at].swap(ZEROS, AcqRel);
    }

    /// What `reattach` does. Whether nothing is lost now.
    pub fn reattach(&self) -> bool {
        let Some(repair) = self.fault.repair() else {
            return true;
        };
        if !self.whole.load(Acquire) {
            return false;
        }
        let lost = repair.lost();
        for at in lost.start / PAGE..lost.end / PAGE {
            self.pages[at].swap(FILE, AcqRel);
        }
        repair.finish()
    }

    /// What a read does: the bytes, unless a page was lost.
    pub fn read(&self, at: usize) -> Option<usize> {
        let mark = self.fault.mark();
        let byte = self.pages[at].load(Relaxed);
        self.fault.since(mark).then_some(byte)
    }

    /// At rest: no fault, no zeros; a fault, and it can be repaired.
    fn assert_repairable(&self) {
        self.whole.store(true, Release);
        assert!(self.reattach(), "nobody is losing pages now");
        for page in &self.pages {
            assert_eq!(page.load(Acquire), FILE, "zeros without a fault");
        }
    }
}

fn spawn(map: &Arc<Map>, act: impl FnOnce(&Map) + 'static) -> thread::JoinHandle<()> {
    let map = map.clone();
    thread::spawn(move || act(&map))
}

#[test]
fn zeros_are_never_taken_for_bytes() {
    loom::model(|| {
        let map = Map::new();
        let loser = spawn(&map, |map| map.lose(0));
        assert_ne!(map.read(0), Some(ZEROS));
        // Without a mark it is enough where nobody repairs.
        let byte = map.pages[0].load(Relaxed);
        assert!(byte == FILE || map.fault.seen());
        loser.join().unwrap();
        assert!(map.fault.seen());
    });
}

#[test]
fn zeros_that_are_repaired_before_one_asks() {
    loom::model(|| {
        let map = Map::new();
        map.lose(0);
        let repairer = spawn(&map, |map| {
            map.whole.store(true, Release);
            assert!(map.reattach());
        });
        assert_ne!(map.read(0), Some(ZEROS));
        repairer.join().unwrap();
        assert_eq!(map.read(0), Some(FILE));
    });
}

#[test]
fn a_page_lost_and_repaired_under_a_reader() {
    loom::model(|| {
        let map = Map::new();
        let other = spawn(&map, |map| {
            map.lose(0);
            map.whole.store(true, Release);
            assert!(map.reattach());
        });
        assert_ne!(map.read(0), Some(ZEROS));
        other.join().unwrap();
    });
}

/// The file is whole for a moment, in which it is repaired, and cut again.
#[test]
fn a_loss_during_a_repair_is_not_forgotten() {
    loom::model(|| {
        let map = Map::new();
        map.lose(0);
        map.whole.store(true, Release);
        let loser = spawn(&map, |map| {
            map.whole.store(false, Release);
            map.lose(1);
        });
        let repaired = map.reattach();
        assert!(repaired || map.fault.seen());
        assert_ne!(map.read(0), Some(ZEROS));
        assert_ne!(map.read(1), Some(ZEROS));
        loser.join().unwrap();
        map.assert_repairable();
    });
}

/// Cut for a moment in the middle of a repair: who is losing a page in the meantime has told of the fault
/// before of the bytes.
#[test]
fn a_cut_that_is_gone_again_during_a_repair() {
    loom::model(|| {
        let map = Map::new();
        map.lose(0);
        map.whole.store(true, Release);
        let loser = spawn(&map, |map| {
            let loss = map.fault.enter();
            // Seen as cut, and whole again by the time that the repair looks.
            loss.record(1, Reason::CUT, PAGE, 2 * PAGE);
            map.pages[1].swap(ZEROS, AcqRel);
        });
        map.reattach();
        assert_ne!(map.read(1), Some(ZEROS));
        loser.join().unwrap();
        map.assert_repairable();
    });
}

/// A thread that checked the file while it was truncated replaces its page before the repair maps it again,
/// or not at all.
#[test]
fn a_late_handler_replaces_no_page_that_was_brought_back() {
    loom::model(|| {
        let map = Map::new();
        let losers = [
            spawn(&map, |map| map.lose(0)),
            spawn(&map, |map| map.lose(0)),
        ];
        map.whole.store(true, Release);
        if map.reattach() {
            assert_ne!(map.read(0), Some(ZEROS));
        }
        losers.into_iter().for_each(|loser| loser.join().unwrap());
        map.assert_repairable();
    });
}

/// A thread that checked the file while it was truncated has recorded the fault before a repair reports that
/// there is none.
#[test]
fn a_cut_before_a_repair_is_not_told_of_after_it() {
    loom::model(|| {
        let map = Map::new();
        let loser = spawn(&map, |map| {
            let loss = map.fault.enter();
            // To look at a file is a system call, which orders what is before and after it.
            fence(SeqCst);
            if !map.whole.load(Relaxed) {
                loss.record(0, Reason::CUT, 0, PAGE);
                map.pages[0].swap(ZEROS, AcqRel);
            }
        });
        map.whole.store(true, Relaxed);
        fence(SeqCst);
        assert!(map.reattach());
        loser.join().unwrap();
        assert!(!map.fault.seen());
        assert_eq!(map.read(0), Some(FILE));
    });
}

/// What was to be mapped again is still known after a repair that failed.
#[test]
fn a_repair_that_fails_forgets_no_page() {
    loom::model(|| {
        let map = Map::new();
        map.lose(0);
        let loser = spawn(&map, |map| map.lose(1));
        // The file is too short, so it gives up.
        assert!(!map.reattach());
        assert!(
            map.fault.seen(),
            "a repair that was given up changes nothing"
        );
        loser.join().unwrap();
        assert_eq!(map.fault.count(), 2);
        map.assert_repairable();
    });
}
