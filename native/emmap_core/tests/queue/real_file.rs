//! Real files, and several programs.

use std::path::Path;

use emmap_core::queue::layout::OWN;
use emmap_core::queue::participation::Pushed;
use emmap_core::queue::{self, Limits, Queue, Request, Stop, Taken};
use emmap_core::region::Wait;
use emmap_core::Region;

use crate::program::expected;

fn open(path: &Path) -> (Region, Queue) {
    queue::open(path, &Request::default()).unwrap()
}

fn push(region: &Region, queue: &Queue, payload: &[u8], limits: &Limits) -> Result<Pushed, Stop> {
    let item = (0, payload.as_ptr(), payload.len());
    // SAFETY: a slice.
    unsafe { queue.push(region, Wait::Yes, item, limits) }
}

fn pop(region: &Region, queue: &Queue, cursor: usize) -> Result<Option<(Taken, Vec<u8>)>, Stop> {
    let mut payload = Vec::new();
    // SAFETY: the vector gets as much room as the payload needs.
    let taken = unsafe {
        queue.pop(region, Wait::Yes, cursor, |found| {
            payload = vec![0; found.head.length as usize];
            payload.as_mut_ptr()
        })?
    };
    Ok(taken.map(|taken| (taken, payload)))
}

#[test]
fn items_survive_closing_and_not_closing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("q");
    for round in 0..4u64 {
        let (region, queue) = open(&path);
        for item in 0..100 {
            let item = round * 100 + item;
            let length = if item % 50 == 7 { 2_000_000 } else { 75 };
            let pushed = push(&region, &queue, &expected(item, length), &Limits::default());
            assert_eq!(pushed, Ok(Pushed::At(item)));
        }
        assert_eq!(queue.lengths(&region, OWN), Ok((100 + round * 50, 0)));
        for item in 0..50 {
            let (taken, payload) = pop(&region, &queue, OWN).unwrap().unwrap();
            assert_eq!(taken.sequence, round * 50 + item);
            assert!(payload == expected(taken.sequence, payload.len()));
        }
        queue
            .with(&region, Wait::Yes, |locked| Ok(locked.check()))
            .unwrap()
            .unwrap();
        if round % 2 == 0 {
            queue.leave(&region).unwrap();
        }
    }
}

#[test]
fn a_closed_file_that_was_changed_is_read_again() {
    use std::os::unix::fs::FileExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("q");
    let (region, queue) = open(&path);
    for item in 0..10 {
        push(&region, &queue, &expected(item, 75), &Limits::default()).unwrap();
    }
    queue.leave(&region).unwrap();
    drop((region, queue));
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    // The tail's sequence number.
    let at = queue::layout::stream::at(0) + queue::layout::stream::SEQUENCE;
    file.write_all_at(&[77], at).unwrap();
    let (region, queue) = open(&path);
    assert_eq!(queue.lengths(&region, OWN), Ok((10, 0)));
    for item in 0..10 {
        assert_eq!(pop(&region, &queue, OWN).unwrap().unwrap().0.sequence, item);
    }
}

#[test]
fn a_short_queue_does_not_grow_and_a_limit_holds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("q");
    let (region, queue) = open(&path);
    for item in 0..200_000u64 {
        push(&region, &queue, &expected(item, 75), &Limits::default()).unwrap();
        if item >= 1000 {
            assert_eq!(
                pop(&region, &queue, OWN).unwrap().unwrap().0.sequence,
                item - 1000
            );
        }
    }
    assert!(region.len() < 262_144 + 4 * 262_144, "{}", region.len());
    let most = Limits {
        most_bytes: Some(queue.bytes(&region, Wait::Yes).unwrap()),
        ..Limits::default()
    };
    assert_eq!(push(&region, &queue, b"more", &most), Err(Stop::Full));
    let most = Limits {
        drop_oldest: true,
        ..most
    };
    assert!(push(&region, &queue, b"more", &most).is_ok());
    assert_eq!(
        pop(&region, &queue, OWN).unwrap().unwrap().0.sequence,
        199_001
    );
}

#[test]
fn threads_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("q");
    let (region, queue) = open(&path);
    const EACH: u64 = 20_000;
    let total = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for producer in 0..4u64 {
            let (region, queue) = (&region, &queue);
            scope.spawn(move || {
                for item in 0..EACH {
                    let payload = (producer << 32 | item).to_le_bytes();
                    push(region, queue, &payload, &Limits::default()).unwrap();
                }
            });
        }
        for _ in 0..4 {
            scope.spawn(|| {
                let mut last = [None; 4];
                while total.load(std::sync::atomic::Ordering::SeqCst) < 4 * EACH {
                    let Some((_, payload)) = pop(&region, &queue, OWN).unwrap() else {
                        std::thread::yield_now();
                        continue;
                    };
                    let item = u64::from_le_bytes(payload.try_into().unwrap());
                    let last = &mut last[(item >> 32) as usize];
                    assert!(last.is_none_or(|last| last < item), "out of order");
                    *last = Some(item);
                    total.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(queue.lengths(&region, OWN), Ok((0, 0)));
}

#[test]
fn one_handle_that_stops_waiting_leaves_the_others_waiting() {
    use emmap_core::queue::layout::ITEMS_WAITERS;
    use emmap_core::queue::waiting::Event::Items;
    use emmap_core::store::Shared;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("q");
    let ((region, one), (_, two), (_, three)) = (open(&path), open(&path), open(&path));
    let waits = || {
        one.with(&region, Wait::Yes, |locked| {
            Ok(locked.shared.load(ITEMS_WAITERS)?)
        })
    };
    for handle in [&one, &one, &two, &three] {
        handle.set_waiting(&region, Items, true).unwrap();
    }
    assert_ne!(waits(), Ok(0));
    one.set_waiting(&region, Items, false).unwrap();
    assert_ne!(waits(), Ok(0));
    // A program that was never told that no thread waits.
    drop(two);
    assert_ne!(waits(), Ok(0));
    three.set_waiting(&region, Items, false).unwrap();
    assert_eq!(waits(), Ok(0));
}

#[test]
fn bytes_are_counted_where_another_map_made_the_file_longer() {
    use emmap_core::queue::layout::claim::FIRST_CLAIMS;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("q");
    // As two programs: each has a map of its own.
    let ((region, queue), (other_region, other)) = (open(&path), open(&path));
    // The last claim is in a segment: the control area has room for the others.
    let mut claims = Vec::new();
    for _ in 0..=FIRST_CLAIMS {
        push(&other_region, &other, b"item", &Limits::default()).unwrap();
        let claimed = other.check_out(&other_region, Wait::Yes, OWN, 1, None);
        claims.push(claimed.unwrap().expect("an item").receipt);
    }
    let acknowledge = |receipt| other.acknowledge(&other_region, Wait::Yes, OWN, receipt);
    let (last, others) = claims.split_last().unwrap();
    for receipt in others {
        acknowledge(receipt).unwrap();
    }
    assert!(other_region.len() > region.len());
    assert_eq!(queue.bytes(&region, Wait::No), Err(Stop::Busy));
    let bytes = other.bytes(&other_region, Wait::No).unwrap();
    assert!(bytes > 0);
    assert_eq!(queue.bytes(&region, Wait::Yes), Ok(bytes));
    assert_eq!(queue.bytes(&region, Wait::No), Ok(bytes));
    acknowledge(last).unwrap();
}
