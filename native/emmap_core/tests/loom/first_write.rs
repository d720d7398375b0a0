//! The first writers of a map create its lock, while others read without one.

use crate::first_write::LockOfFirstWrite;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::sync::Arc;
use loom::thread;

#[derive(Default)]
struct Map {
    lock: LockOfFirstWrite,
    bytes: [AtomicUsize; 2],
}

impl Map {
    fn write(&self, byte: usize) {
        // Another first writer may have it.
        if let Some(_turn) = self.lock.needed().try_write_one(0, 2) {
            self.bytes.iter().for_each(|at| at.store(byte, Relaxed));
        }
    }

    fn copy(&self) -> [usize; 2] {
        [self.bytes[0].load(Relaxed), self.bytes[1].load(Relaxed)]
    }

    /// As a short read of a region. `None`: it would be tried again.
    fn read(&self) -> Option<[usize; 2]> {
        match self.lock.existing() {
            None => {
                let seen = self.copy();
                self.lock.written().is_none().then_some(seen)
            }
            Some(lock) => {
                let quiet = lock.quiet(0, 2)?;
                let seen = self.copy();
                quiet.still().then_some(seen)
            }
        }
    }
}

fn spawn(map: &Arc<Map>, act: impl FnOnce(&Map) + 'static) -> thread::JoinHandle<()> {
    let map = map.clone();
    thread::spawn(move || act(&map))
}

#[test]
fn a_read_before_the_first_write_is_never_torn() {
    loom::model(|| {
        let map = Arc::new(Map::default());
        let writer = spawn(&map, |map| {
            map.write(1);
            map.write(2);
        });
        if let Some(seen) = map.read() {
            assert_eq!(seen[0], seen[1], "torn");
        }
        writer.join().unwrap();
        assert_eq!(map.copy(), [2, 2]);
    });
}

/// The second of them may find the lock that the first created.
#[test]
fn two_first_writers_have_one_lock() {
    loom::model(|| {
        let map = Arc::new(Map::default());
        let writers = [1, 2].map(|byte| spawn(&map, move |map| map.write(byte)));
        if let Some(seen) = map.read() {
            assert_eq!(seen[0], seen[1], "torn");
        }
        writers
            .into_iter()
            .for_each(|writer| writer.join().unwrap());
        let last = map.copy();
        assert_eq!(last[0], last[1], "two locks");
    });
}
