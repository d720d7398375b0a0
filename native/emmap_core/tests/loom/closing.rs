//! Each handle is closed once, and one close is the last.

use crate::closing::{Closing, OpenHandles};
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::sync::Arc;
use loom::thread;

#[derive(Default)]
struct Mapping {
    open: OpenHandles,
    handles: [Closing; 2],
    /// What was written through any handle before its close.
    written: AtomicUsize,
    lasts: AtomicUsize,
}

impl Mapping {
    fn new(open: usize) -> Arc<Mapping> {
        let mapping = Mapping::default();
        (0..open).for_each(|_| mapping.open.add());
        Arc::new(mapping)
    }

    /// Whether it was this close that closed it.
    fn close(&self, handle: &Closing) -> bool {
        let answer = handle.close(&self.open);
        if answer == Some(true) {
            self.lasts.fetch_add(1, Relaxed);
        }
        answer.is_some()
    }
}

#[test]
fn each_once_and_one_last() {
    loom::model(|| {
        let mapping = Mapping::new(2);
        let closer = {
            let mapping = mapping.clone();
            thread::spawn(move || {
                mapping.written.fetch_add(1, Relaxed);
                usize::from(mapping.close(&mapping.handles[0]))
            })
        };
        mapping.written.fetch_add(1, Relaxed);
        // One handle is closed by both.
        let mut closed = usize::from(mapping.close(&mapping.handles[1]));
        closed += usize::from(mapping.close(&mapping.handles[0]));
        closed += closer.join().unwrap();
        assert_eq!(closed, 2);
        assert_eq!(mapping.lasts.load(Relaxed), 1);
        assert!(mapping.handles.iter().all(Closing::is_closed));
    });
}

/// The thread that closes last (and deletes the file, with `auto_unlink`) sees what was done through the other handles.
#[test]
fn the_last_comes_after_all() {
    loom::model(|| {
        let mapping = Mapping::new(2);
        let close = |mapping: &Mapping, handle: usize| {
            // Not one atomic step, so that only the close orders both.
            mapping.handles[handle].is_closed();
            if handle == 0 {
                mapping.written.store(1, Relaxed);
            }
            let last = mapping.handles[handle].close(&mapping.open);
            if last == Some(true) {
                assert_eq!(mapping.written.load(Relaxed), 1);
            }
        };
        let closer = {
            let mapping = mapping.clone();
            thread::spawn(move || close(&mapping, 0))
        };
        close(&mapping, 1);
        closer.join().unwrap();
    });
}

/// A second handle, made while the first is closed: it is refused, or its close is the last.
#[test]
fn another_handle_beside_the_last_close() {
    loom::model(|| {
        let mapping = Mapping::new(1);
        let closer = {
            let mapping = mapping.clone();
            thread::spawn(move || assert!(mapping.close(&mapping.handles[0])))
        };
        if !mapping.handles[0].is_closed() && mapping.open.add_beside() {
            assert!(mapping.close(&mapping.handles[1]));
        }
        closer.join().unwrap();
        assert_eq!(mapping.lasts.load(Relaxed), 1);
    });
}

/// A call that began before the close ends well; one that begins after it is refused.
#[test]
fn calls_after_a_close_are_refused() {
    loom::model(|| {
        let mapping = Mapping::new(1);
        let closer = {
            let mapping = mapping.clone();
            thread::spawn(move || {
                mapping.close(&mapping.handles[0]);
                // Told to somebody, who then calls.
                mapping
                    .written
                    .store(1, loom::sync::atomic::Ordering::Release);
            })
        };
        let told = mapping.written.load(loom::sync::atomic::Ordering::Acquire) == 1;
        assert!(!told || mapping.handles[0].is_closed());
        closer.join().unwrap();
    });
}
