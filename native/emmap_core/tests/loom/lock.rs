//! Copies are atomic with respect to each other, and short ones never wait. A map of two stripes here.

use crate::lock::{CopyLock, Stripes};
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::sync::Arc;
use loom::thread;

const PAGE: usize = 4096;
/// The first byte of each stripe.
const STARTS: [usize; 2] = [0, PAGE];

fn stripe(at: usize) -> Stripes {
    Stripes::of(STARTS[at], 1)
}

#[derive(Default)]
struct Map {
    lock: CopyLock,
    /// Two bytes of one stripe, where a model needs no more, or one of each.
    bytes: [AtomicUsize; 2],
}

impl Map {
    fn fill(&self, byte: usize) {
        self.bytes.iter().for_each(|at| at.store(byte, Relaxed));
    }

    fn copy(&self) -> [usize; 2] {
        [self.bytes[0].load(Relaxed), self.bytes[1].load(Relaxed)]
    }
}

fn spawn<R: 'static>(
    map: &Arc<Map>,
    act: impl FnOnce(&Map) -> R + 'static,
) -> thread::JoinHandle<R> {
    let map = map.clone();
    thread::spawn(move || act(&map))
}

/// A byte of one copy, then the byte after it: both of the same.
fn assert_whole(seen: [usize; 2]) {
    assert_eq!(seen[0], seen[1], "torn");
}

#[test]
fn a_short_read_of_one_stripe_is_never_torn() {
    loom::model(|| {
        let map = Arc::new(Map::default());
        let writer = spawn(&map, |map| {
            for byte in 1..=2 {
                let _turn = map.lock.try_write_one(0, 1).expect("nobody else writes");
                map.fill(byte);
            }
        });
        if let Some(quiet) = map.lock.quiet(0, 2) {
            let seen = map.copy();
            if quiet.still() {
                assert_whole(seen);
            }
        }
        writer.join().unwrap();
        assert_eq!(map.copy(), [2, 2]);
    });
}

/// Writers of both stripes, and of one of them.
#[test]
fn a_short_read_of_two_stripes_without_a_loop_is_never_torn() {
    loom::model(|| {
        let map = Arc::new(Map::default());
        let writer = spawn(&map, |map| {
            {
                let turn = map.lock.try_write_two(0, 2 * PAGE);
                let _turn = turn.expect("nobody else writes");
                map.fill(1);
            }
            let _turn = map.lock.try_write_one(PAGE, 1);
            map.bytes[1].store(2, Relaxed);
        });
        if let Some(quiet) = map.lock.quiet_two(0, 2 * PAGE) {
            let seen = map.copy();
            if quiet.iter().all(|one| one.still()) {
                assert!([[0, 0], [1, 1], [1, 2]].contains(&seen), "torn: {seen:?}");
            }
        }
        writer.join().unwrap();
        assert_eq!(map.copy(), [1, 2]);
    });
}

/// One of both stripes does not write where another writes one of them.
#[test]
fn a_writer_of_two_stripes_excludes_one_of_the_second() {
    loom::model(|| {
        let map = Arc::new(Map::default());
        let add = |map: &Map| {
            let [first, second] = map.copy();
            assert_eq!(first, second, "in the middle of another's write");
            map.fill(first + 1);
            1
        };
        let other = spawn(&map, move |map| {
            let turn = map.lock.try_write_one(PAGE, 1);
            turn.map_or(0, |_turn| add(map))
        });
        let turn = map.lock.try_write_two(0, 2 * PAGE);
        let wrote = turn.map_or(0, |_turn| add(&map));
        let wrote = wrote + other.join().unwrap();
        assert_eq!(map.copy(), [wrote; 2]);
        // Released, whether or not both were taken.
        assert!(map.lock.try_write_two(0, 2 * PAGE).is_some());
    });
}

/// With its second try, which holds off writers.
#[test]
fn a_short_read_is_never_torn() {
    loom::model(|| {
        let map = Arc::new(Map::default());
        let writer = spawn(&map, |map| {
            for byte in 1..=2 {
                let _turn = map.lock.write(stripe(0));
                map.fill(byte);
            }
        });
        if let Some(seen) = map.lock.read_short(stripe(0), || map.copy()) {
            assert_whole(seen);
        }
        writer.join().unwrap();
        assert_eq!(map.copy(), [2, 2]);
    });
}

#[test]
fn a_short_read_of_two_stripes_is_never_torn() {
    loom::model(|| {
        let map = Arc::new(Map::default());
        let writer = spawn(&map, |map| {
            let _turn = map.lock.try_write(Stripes::ALL);
            map.fill(1);
        });
        if let Some(seen) = map.lock.read_short(Stripes::ALL, || map.copy()) {
            assert_whole(seen);
        }
        writer.join().unwrap();
    });
}

/// One stripe is written after the other: who sees the second write sees the first one, too.
#[test]
fn a_read_of_two_stripes_is_of_one_moment() {
    for long in [false, true] {
        loom::model(move || {
            let map = Arc::new(Map::default());
            let writer = spawn(&map, |map| {
                for (byte, start) in map.bytes.iter().zip(STARTS) {
                    let _turn = map.lock.write(Stripes::of(start, 1));
                    byte.store(1, Relaxed);
                }
            });
            let seen = match long {
                true => Some(map.lock.read_long(Stripes::ALL, || map.copy())),
                false => map.lock.read_short(Stripes::ALL, || map.copy()),
            };
            assert_ne!(seen, Some([0, 1]), "of two moments");
            writer.join().unwrap();
        });
    }
}

#[test]
fn a_long_read_is_never_torn() {
    loom::model(|| {
        let map = Arc::new(Map::default());
        let reader = spawn(&map, |map| {
            assert_whole(map.lock.read_long(Stripes::ALL, || map.copy()))
        });
        {
            let _turn = map.lock.write(Stripes::ALL);
            map.fill(1);
        }
        assert_whole(map.lock.read_long(stripe(0), || map.copy()));
        reader.join().unwrap();
    });
}

#[test]
fn writers_exclude_each_other() {
    loom::model(|| {
        let map = Arc::new(Map::default());
        let add = |map: &Map| {
            let [first, second] = map.copy();
            assert_eq!(first, second, "in the middle of another's write");
            map.fill(first + 1);
        };
        let short = spawn(&map, move |map| match map.lock.try_write_one(PAGE, 1) {
            Some(_turn) => {
                add(map);
                1
            }
            None => 0,
        });
        {
            let _turn = map.lock.write(Stripes::ALL);
            add(&map);
        }
        let wrote = 1 + short.join().unwrap();
        let seen = map.lock.read_short(stripe(1), || map.copy());
        assert_eq!(seen, Some([wrote; 2]));
    });
}

/// A writer of one stripe and one of the other never meet.
#[test]
fn writers_of_different_stripes_do_not_wait() {
    loom::model(|| {
        let map = Arc::new(Map::default());
        let write = |map: &Map, at: usize| {
            let turn = map.lock.try_write_one(STARTS[at], PAGE);
            let _turn = turn.expect("nobody else writes to this stripe");
            map.bytes[at].store(1, Relaxed);
        };
        let other = spawn(&map, move |map| write(map, 1));
        write(&map, 0);
        other.join().unwrap();
        assert_eq!(map.copy(), [1, 1]);
    });
}

/// Each of two threads takes both stripes, and waits. They would wait forever if they took them in different orders. A thread
/// that waits for long gets priority, which here is from the second look on.
#[test]
fn all_who_wait_have_their_turn() {
    for read in [false, true] {
        loom::model(move || {
            let map = Arc::new(Map::default());
            let other = spawn(&map, move |map| match read {
                true => assert_whole(map.lock.read_long(Stripes::ALL, || map.copy())),
                false => {
                    let _turn = map.lock.write(Stripes::of(0, PAGE + 1));
                    map.fill(2);
                }
            });
            {
                // From the second stripe to the first one.
                let _turn = map.lock.write(Stripes::of(PAGE, PAGE + 1));
                map.fill(1);
            }
            other.join().unwrap();
            // Nobody has priority any more.
            let _turn = map.lock.try_write(Stripes::ALL).expect("all are free");
            assert_whole(map.copy());
        });
    }
}

/// The thread that holds the lock waits for threads that must not wait for it, which would be a deadlock.
#[test]
fn short_calls_never_wait() {
    loom::model(|| {
        let map = Arc::new(Map::default());
        let turn = map.lock.write(stripe(1));
        let reader = spawn(&map, |map| {
            assert!(map.lock.quiet(PAGE, 1).is_none());
            let seen = map.lock.read_short(Stripes::ALL, || map.copy());
            assert_eq!(seen, None);
        });
        let writer = spawn(&map, |map| {
            assert!(map.lock.try_write_one(PAGE, 1).is_none());
            assert!(map.lock.try_write(stripe(1)).is_none());
        });
        reader.join().unwrap();
        writer.join().unwrap();
        drop(turn);
        assert!(map.lock.try_write(Stripes::ALL).is_some());
    });
}
