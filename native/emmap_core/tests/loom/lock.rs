//! Copies are atomic towards each other, and short ones never wait.

use crate::lock::CopyLock;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::sync::Arc;
use loom::thread;

#[derive(Default)]
struct Map {
    lock: CopyLock,
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

/// A byte of one copy, then the byte after it: both of the same.
fn assert_whole(seen: [usize; 2]) {
    assert_eq!(seen[0], seen[1], "torn");
}

#[test]
fn a_short_read_is_never_torn() {
    loom::model(|| {
        let map = Arc::new(Map::default());
        let writer = {
            let map = map.clone();
            thread::spawn(move || {
                for byte in 1..=2 {
                    let _turn = map.lock.write();
                    map.fill(byte);
                }
            })
        };
        if let Some(seen) = map.lock.read_short(|| map.copy()) {
            assert_whole(seen);
        }
        writer.join().unwrap();
        assert_eq!(map.copy(), [2, 2]);
    });
}

#[test]
fn a_long_read_is_never_torn() {
    loom::model(|| {
        let map = Arc::new(Map::default());
        let reader = {
            let map = map.clone();
            thread::spawn(move || assert_whole(map.lock.read_long(|| map.copy())))
        };
        {
            let _turn = map.lock.write();
            map.fill(1);
        }
        assert_whole(map.lock.read_long(|| map.copy()));
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
        let short = {
            let map = map.clone();
            thread::spawn(move || match map.lock.try_write() {
                Some(_turn) => {
                    add(&map);
                    1
                }
                None => 0,
            })
        };
        {
            let _turn = map.lock.write();
            add(&map);
        }
        let wrote = 1 + short.join().unwrap();
        assert_eq!(map.lock.read_short(|| map.copy()), Some([wrote; 2]));
    });
}

/// The one who holds the lock waits for those who must not wait for it: a deadlock, if they did.
#[test]
fn short_calls_never_wait() {
    loom::model(|| {
        let map = Arc::new(Map::default());
        let turn = map.lock.write();
        let reader = {
            let map = map.clone();
            thread::spawn(move || assert_eq!(map.lock.read_short(|| map.copy()), None))
        };
        let writer = {
            let map = map.clone();
            thread::spawn(move || assert!(map.lock.try_write().is_none()))
        };
        reader.join().unwrap();
        writer.join().unwrap();
        drop(turn);
        assert!(map.lock.try_write().is_some());
    });
}
