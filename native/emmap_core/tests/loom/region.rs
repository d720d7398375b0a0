//! Growth, a fault, its repair and a close at once, in a map of three pages: what each reader is
//! told is true.

use crate::closing::{Closing, OpenHandles};
use crate::extent::Extent;
use loom::sync::Arc;
use loom::thread;

use super::model_fault::Map;

struct Region {
    map: Arc<Map>,
    extent: Extent,
    open: OpenHandles,
    handle: Closing,
}

const BASE: *mut u8 = 0x1000 as *mut u8;

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Byte(usize),
    Eof,
    Stale,
    Closed,
}

impl Region {
    /// One page long, with a second one to grow into.
    fn new() -> Arc<Region> {
        let region = Region {
            map: Map::new(),
            extent: Extent::new(BASE, 1),
            open: OpenHandles::default(),
            handle: Closing::default(),
        };
        region.map.pages[1].store(0, loom::sync::atomic::Ordering::Relaxed);
        region.open.add();
        Arc::new(region)
    }

    fn grow(&self) {
        self.map.pages[1].swap(1, loom::sync::atomic::Ordering::AcqRel);
        self.extent.grow(BASE, 2);
    }

    fn read(&self, at: usize) -> Answer {
        if self.handle.is_closed() {
            return Answer::Closed;
        }
        if at >= self.extent.len() {
            return Answer::Eof;
        }
        match self.map.read(at) {
            Some(byte) => Answer::Byte(byte),
            None => Answer::Stale,
        }
    }
}

fn spawn(region: &Arc<Region>, act: impl FnOnce(&Region) + 'static) -> thread::JoinHandle<()> {
    let region = region.clone();
    thread::spawn(move || act(&region))
}

#[test]
fn a_reader_among_growth_and_faults() {
    loom::model(|| {
        let region = Region::new();
        let grower = spawn(&region, Region::grow);
        let loser = spawn(&region, |region| region.map.lose(0));
        for at in [1, 0] {
            assert_ne!(region.read(at), Answer::Byte(0), "zeros for bytes");
        }
        grower.join().unwrap();
        loser.join().unwrap();
        assert_eq!(region.read(1), Answer::Stale);
    });
}

#[test]
fn a_reader_among_faults_repairs_and_a_close() {
    loom::model(|| {
        let region = Region::new();
        let repairer = spawn(&region, |region| {
            region.map.lose(0);
            region
                .map
                .whole
                .store(true, loom::sync::atomic::Ordering::Release);
            assert!(region.map.reattach());
        });
        let closer = spawn(&region, |region| {
            assert_eq!(region.handle.close(&region.open), Some(true));
        });
        let first = region.read(0);
        assert_ne!(first, Answer::Byte(0), "zeros for bytes");
        if region.handle.is_closed() {
            assert_eq!(region.read(0), Answer::Closed);
        }
        repairer.join().unwrap();
        closer.join().unwrap();
        assert_eq!(region.read(0), Answer::Closed);
    });
}
