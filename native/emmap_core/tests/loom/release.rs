//! The last close, under calls and views that are at work: no zeros, no lost write, no descriptor of another file.

use crate::closing::{Closing, Lent, OpenHandles};
use crate::fault::Fault;
use crate::slot::{Guarded, Slot};
use loom::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{AcqRel, Relaxed, SeqCst},
};
use loom::sync::Arc;
use loom::thread;

const FILE: usize = 1;
const ZEROS: usize = 0;

#[derive(Default)]
struct Mapping {
    open: OpenHandles,
    handles: [Closing; 2],
    lent: Lent,
    fault: Fault,
    /// 1: zero pages are in the place of the file's.
    replaced: AtomicUsize,
    /// What was written to the file, and to the zero pages.
    written: [AtomicUsize; 2],
}

impl Mapping {
    fn new(handles: usize) -> Arc<Mapping> {
        let mapping = Mapping::default();
        (0..handles).for_each(|_| mapping.open.add());
        Arc::new(mapping)
    }

    /// As `Handle::close` and `Region::release`.
    fn close(&self, handle: usize) {
        if self.handles[handle].close(&self.open) == Some(true) && !self.lent.is_lent() {
            self.fault.close();
            self.replaced.swap(1, AcqRel);
        }
    }

    /// As `pread`: the byte, unless it is closed.
    fn read(&self, handle: usize) -> Option<usize> {
        if self.handles[handle].is_closed() {
            return None;
        }
        let mark = self.fault.mark();
        let byte = match self.replaced.load(Relaxed) {
            0 => FILE,
            _ => ZEROS,
        };
        self.fault.since(mark).then_some(byte)
    }

    /// As `pwrite`: whether it was written.
    fn write(&self, handle: usize) -> bool {
        if self.handles[handle].is_closed() {
            return false;
        }
        let mark = self.fault.mark();
        if Fault::seen_before(mark) {
            return false;
        }
        self.written[self.replaced.load(Relaxed)].store(1, Relaxed);
        self.fault.since(mark)
    }

    /// As `view`: whether a live binary was handed out.
    fn view(&self, handle: usize) -> bool {
        if self.handles[handle].is_closed() {
            return false;
        }
        self.lent.lend();
        !self.handles[handle].is_closed()
    }

    fn shows_file(&self) -> bool {
        self.replaced.load(SeqCst) == 0
    }
}

fn spawn(mapping: &Arc<Mapping>, act: impl FnOnce(&Mapping) + 'static) -> thread::JoinHandle<()> {
    let mapping = mapping.clone();
    thread::spawn(move || act(&mapping))
}

#[test]
fn a_read_gives_the_files_bytes_or_nothing() {
    loom::model(|| {
        let mapping = Mapping::new(1);
        let closer = spawn(&mapping, |mapping| mapping.close(0));
        assert_ne!(mapping.read(0), Some(ZEROS));
        closer.join().unwrap();
        assert_eq!(mapping.read(0), None);
        assert!(!mapping.shows_file());
    });
}

#[test]
fn a_write_that_is_answered_with_ok_is_in_the_file() {
    loom::model(|| {
        let mapping = Mapping::new(1);
        let closer = spawn(&mapping, |mapping| mapping.close(0));
        let written = mapping.write(0);
        closer.join().unwrap();
        assert!(!written || mapping.written[0].load(SeqCst) == 1);
    });
}

/// A call through one handle, while the other is closed, and then its own.
#[test]
fn a_call_through_a_handle_that_is_closed_first() {
    loom::model(|| {
        let mapping = Mapping::new(2);
        let closer = spawn(&mapping, |mapping| {
            mapping.close(0);
            mapping.close(1);
        });
        assert_ne!(mapping.read(0), Some(ZEROS));
        closer.join().unwrap();
    });
}

#[test]
fn a_live_binary_shows_the_file() {
    loom::model(|| {
        let mapping = Mapping::new(2);
        let others = [
            spawn(&mapping, |mapping| {
                mapping.close(0);
                mapping.close(1);
            }),
            spawn(&mapping, |mapping| {
                let viewed = mapping.view(1);
                assert!(!viewed || mapping.shows_file());
            }),
        ];
        let viewed = mapping.view(0);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert!(!viewed || mapping.shows_file());
    });
}

/// A repair that is at work when the last handle is closed brings nothing back.
#[test]
fn nothing_repairs_a_closed_map() {
    loom::model(|| {
        let mapping = Mapping::new(1);
        mapping.fault.note(0, crate::fault::Reason::CUT);
        let closer = spawn(&mapping, |mapping| mapping.close(0));
        if let Some(repair) = mapping.fault.repair() {
            repair.finish();
        }
        closer.join().unwrap();
        assert!(mapping.fault.seen());
        assert!(mapping.fault.repair().is_none());
    });
}

/// A signal handler asks the descriptor for the size of the file, while it is being closed and its number becomes
/// another file's.
#[test]
fn a_handler_asks_no_descriptor_of_another_file() {
    loom::model(|| {
        let slot = Arc::new(Slot::free());
        let (fault, open) = (Arc::new(Fault::default()), Arc::new(AtomicBool::new(true)));
        slot.fill(&Guarded {
            start: 0x1000,
            limit: 0x9000,
            end: 0x9000,
            fd: 7,
            file_offset: 0,
            delta: 0,
            page: 0x1000,
            writable: true,
            only_copy: false,
            fault: std::ptr::null(),
        });
        let handler = {
            let (slot, fault, open) = (slot.clone(), fault.clone(), open.clone());
            thread::spawn(move || {
                let loss = fault.enter();
                if slot.fd() == 7 {
                    assert!(open.load(SeqCst));
                }
                drop(loss);
            })
        };
        slot.forget_fd();
        fault.await_losing();
        open.store(false, SeqCst);
        handler.join().unwrap();
    });
}
