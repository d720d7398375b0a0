//! Live payloads: what somebody shows is not written over, and what nobody shows any more is used again.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use emmap_core::queue::layout::{self, participant, DEAD_CURSOR, OWN};
use emmap_core::queue::{self, Found, Limits, Locked, Pin, Queue, Request, Room, Stop, Taken};
use emmap_core::region::Wait;
use emmap_core::store::pins::Pins;
use emmap_core::store::Shared;
use emmap_core::Region;

use crate::memory::Memory;
use crate::program::{expected, is_killed, new_file, Program, Random, SEGMENT};

fn word(slot: u32) -> u64 {
    participant::PLACE.of(slot) + participant::PINNED
}

/// Pops, and pins what was found instead of copying it.
fn pop(program: &Program, pins: &Pins, cursor: usize) -> queue::Result<Option<Found>> {
    find(program, pins, |locked, room| {
        // SAFETY: nothing is copied.
        unsafe { locked.pop(cursor, room) }
    })
}

type RoomFor<'a> = &'a mut dyn FnMut(&Found) -> Option<Room>;

fn find(
    program: &Program,
    pins: &Pins,
    mut find: impl FnMut(&Locked<Memory>, RoomFor) -> queue::Result<Option<Taken>>,
) -> queue::Result<Option<Found>> {
    let mut held: Option<Found> = None;
    let taken = program.call(|locked| {
        find(locked, &mut |found| {
            if let Some(before) = held.take() {
                pins.remove(before.position, program.memory, word(program.slot))
                    .unwrap();
            }
            pins.add(found.position, program.memory, word(program.slot))
                .ok()?;
            held = Some(*found);
            Some(Room::InPlace)
        })
    })?;
    Ok(taken.and(held))
}

/// Whether the bytes that a pin keeps are those of the item.
fn is_whole(memory: &Memory, found: &Found) -> bool {
    let (at, length) = found.head.payload(found.at);
    let mut bytes = vec![0; length as usize];
    memory.read(at, &mut bytes).unwrap();
    bytes == expected(found.head.sequence, bytes.len())
}

#[test]
fn what_is_pinned_stays_and_the_rest_is_used_again() {
    for seed in 1..60 {
        let mut random = Random::of(seed);
        let memory = Memory::new(new_file());
        let mut program = Program::recover(&memory).unwrap();
        let mut pins = Pins::default();
        let mut live: Vec<Found> = Vec::new();
        let mut next = 0;
        for _ in 0..400 {
            match random.below(10) {
                0..=3 => {
                    let length = [80, 3000, 20_000, 150_000][random.below(4) as usize];
                    assert_eq!(program.push(&expected(next, length)), Ok(next));
                    next += 1;
                }
                4 => live.extend(pop(&program, &pins, OWN).unwrap()),
                // The same one may be pinned more than once.
                5 => {
                    let peeked = find(&program, &pins, |locked, room| {
                        // SAFETY: nothing is copied.
                        unsafe { locked.peek(OWN, room) }
                    });
                    live.extend(peeked.unwrap())
                }
                6 => drop(program.pop(OWN).unwrap()),
                7 if random.below(4) == 0 => program.sync().unwrap(),
                8 if random.below(20) == 0 => program.call(|locked| locked.clear(OWN)).unwrap(),
                // It dies, and its live binaries with it.
                9 if random.below(20) == 0 => {
                    let (dead, slot) = (program.slot, (program.slot + 1) % 8);
                    program = Program::take_over(&memory, dead, slot);
                    pins = Pins::default();
                    live.clear();
                    assert_eq!(memory.load(word(dead)), Ok(0));
                }
                _ if !live.is_empty() => {
                    let which = random.below(live.len() as u64) as usize;
                    let found = live.swap_remove(which);
                    pins.remove(found.position, &memory, word(program.slot))
                        .unwrap();
                }
                _ => (),
            }
            program.check();
            let lowest = live.iter().map(|found| found.position + 1).min();
            assert_eq!(memory.load(word(program.slot)), Ok(lowest.unwrap_or(0)));
            for found in &live {
                assert!(is_whole(&memory, found), "seed {seed}: {found:?}");
            }
        }
        // When nothing is pinned the file grows no more.
        for found in live.drain(..) {
            pins.remove(found.position, &memory, word(program.slot))
                .unwrap();
        }
        program.call(|locked| locked.clear(OWN)).unwrap();
        let mut push_and_pop = || {
            for _ in 0..40 {
                program.push(&expected(next, 10_000)).unwrap();
                next += 1;
                program.pop(OWN).unwrap().unwrap();
            }
        };
        push_and_pop();
        let before = memory.bytes().len();
        push_and_pop();
        assert_eq!(memory.bytes().len(), before);
    }
}

#[test]
fn a_program_that_is_killed_while_it_pins_leaves_no_pin() {
    for stop in 0..40 {
        let memory = Memory::new(new_file());
        let program = Program::recover(&memory).unwrap();
        for item in 0..10 {
            program.push(&expected(item, 30_000)).unwrap();
        }
        let pins = Pins::default();
        pop(&program, &pins, OWN).unwrap().unwrap();
        memory.kill_after(stop);
        let killed = pop(&program, &pins, OWN);
        assert!(killed.is_ok() || is_killed(&killed));
        let other = Program::take_over(&memory, 0, 1);
        assert_eq!(memory.load(word(0)), Ok(0));
        other.check();
        let rest = other.rest(OWN);
        assert!(rest == (1..10).collect::<Vec<_>>() || rest == (2..10).collect::<Vec<_>>());
    }
}

#[test]
fn pins_of_items_do_not_keep_dead_letters() {
    let memory = Memory::new(new_file());
    let program = Program::recover(&memory).unwrap();
    let pins = Pins::default();
    program.push(&expected(0, 100)).unwrap();
    pop(&program, &pins, OWN).unwrap().unwrap();
    let dead_letters = |from: u64| {
        for item in from..from + 20 {
            let sequence = program.push(&expected(item, 30_000)).unwrap();
            let claimed = program.call(|locked| locked.check_out(OWN, 1, Some(1)));
            let receipt = claimed.unwrap().unwrap().receipt;
            program
                .call(|locked| locked.release_claim(OWN, &receipt))
                .unwrap();
            let buried = program.call(|locked| locked.check_out(OWN, 1, Some(1)));
            assert!(buried.unwrap().is_none());
            let (taken, _) = program.pop(DEAD_CURSOR).unwrap().unwrap();
            assert_eq!(taken.extension.word(0), sequence);
        }
    };
    dead_letters(1);
    let first = |stream: usize| {
        let at = layout::stream::at(stream) + layout::stream::FIRST_SEGMENT;
        let number = memory.load(at).unwrap() - 1;
        let at = queue::segment::offset_of(number, SEGMENT);
        memory.load(at + 8).unwrap()
    };
    assert_eq!(first(layout::ITEMS), 0);
    assert!(first(layout::DEAD) > 0);
}

fn open(path: &Path) -> (Arc<Region>, Queue) {
    let (region, queue) = queue::open(path, &Request::default()).unwrap();
    (Arc::new(region), queue)
}

fn push(region: &Region, queue: &Queue, payload: &[u8]) {
    let item = (0, payload.as_ptr(), payload.len());
    // SAFETY: a slice.
    unsafe { queue.push(region, Wait::Yes, item, &Limits::default()) }.unwrap();
}

/// A payload in the map of a file.
struct Live {
    pin: Pin<Arc<Region>>,
    at: usize,
    length: usize,
    sequence: u64,
}

impl Live {
    fn is_whole(&self) -> bool {
        let at = self.pin.region().base().wrapping_add(self.at);
        let mut bytes = vec![0u8; self.length];
        // SAFETY: the record is in the map, which lives as long as the pin.
        unsafe { std::ptr::copy_nonoverlapping(at, bytes.as_mut_ptr(), self.length) };
        bytes == expected(self.sequence, self.length)
    }
}

fn hold(region: &Arc<Region>, queue: &Queue, found: &Found) -> Live {
    let (at, length) = found.head.payload(found.at);
    Live {
        pin: queue.pin(region.clone(), found).unwrap(),
        at: at as usize,
        length: length as usize,
        sequence: found.head.sequence,
    }
}

fn pop_live(region: &Arc<Region>, queue: &Queue) -> Result<Option<Live>, Stop> {
    let mut live = None;
    // SAFETY: nothing is copied.
    let taken = unsafe {
        queue.pop(region, Wait::Yes, OWN, |found| {
            live = Some(hold(region, queue, found));
            Room::InPlace
        })?
    };
    Ok(taken.and(live))
}

#[test]
fn a_live_payload_outlives_the_queue_and_its_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("q");
    let (region, queue) = open(&path);
    push(&region, &queue, &expected(0, 2_000_000));
    push(&region, &queue, &expected(1, 70_000));
    let live = [(); 2].map(|()| pop_live(&region, &queue).unwrap().unwrap());
    let slot = queue.slot();
    let churn = |region: &Arc<Region>, queue: &Queue| {
        for item in 0..4_000 {
            push(region, queue, &expected(item, 1_000));
            drop(pop_live(region, queue).unwrap().unwrap());
        }
    };
    churn(&region, &queue);
    assert!(live.iter().all(Live::is_whole));
    queue.leave(&region).unwrap();
    drop((region, queue));

    // The program still participates: it has the same slot, and nothing is recovered.
    let (region, queue) = open(&path);
    assert_eq!(queue.slot(), slot);
    let pinned = |queue: &Queue| {
        queue
            .with(&region, Wait::Yes, |locked| {
                locked.check().unwrap();
                locked.bytes_pinned()
            })
            .unwrap()
    };
    assert!(pinned(&queue) > 5_000_000);
    churn(&region, &queue);
    assert!(live.iter().all(Live::is_whole));
    assert!(pinned(&queue) > 9_000_000);
    drop(live);
    assert_eq!(pinned(&queue), 0);
    let before = region.len();
    churn(&region, &queue);
    assert_eq!(region.len(), before);
}

#[test]
fn live_payloads_that_end_after_the_close_leave_a_closed_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("q");
    let (region, queue) = open(&path);
    for item in 0..3 {
        push(&region, &queue, &expected(item, 5_000));
    }
    let live = pop_live(&region, &queue).unwrap().unwrap();
    queue.leave(&region).unwrap();
    drop((region, queue));
    assert!(live.is_whole());
    drop(live);
    let (region, queue) = open(&path);
    let recoveries = queue.with(&region, Wait::Yes, |locked| {
        Ok(locked.shared.load(layout::RECOVERIES)?)
    });
    assert_eq!(recoveries, Ok(0));
    assert_eq!(pop_live(&region, &queue).unwrap().unwrap().sequence, 1);
}

#[test]
fn a_closed_file_that_was_changed_under_a_live_payload_is_busy() {
    use std::os::unix::fs::FileExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("q");
    let (region, queue) = open(&path);
    push(&region, &queue, &expected(0, 5_000));
    let live = pop_live(&region, &queue).unwrap().unwrap();
    queue.leave(&region).unwrap();
    drop((region, queue));
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let at = layout::stream::at(0) + layout::stream::SEQUENCE;
    file.write_all_at(&[77], at).unwrap();
    // A recovery would use its segment again.
    let busy = queue::open(&path, &Request::default()).map(drop);
    assert_eq!(busy, Err(emmap_core::Errno(libc::EBUSY).into()));
    assert!(live.is_whole());
    drop(live);
    open(&path);
}

#[test]
fn a_damaged_payload_is_not_shown_and_not_pinned() {
    use std::os::unix::fs::FileExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("q");
    let (region, queue) = open(&path);
    // Copied under the lock, and without it.
    for (item, length) in [(0, 5_000), (1, 3_000_000), (2, 5_000)] {
        push(&region, &queue, &expected(item, length));
    }
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).write(true).open(&path).unwrap();
    for _ in 0..2 {
        let mut at = 0;
        queue
            .with(&region, Wait::Yes, |locked| {
                at = locked.next(OWN)?.expect("an item").at;
                Ok(())
            })
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at + 3_000).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at + 3_000).unwrap();
        let damaged = pop_live(&region, &queue).map(drop);
        assert!(matches!(damaged, Err(Stop::Corrupt(_))), "{damaged:?}");
        let pinned = queue.with(&region, Wait::Yes, |locked| locked.lowest_pinned());
        assert_eq!(pinned, Ok(None));
    }
    assert!(pop_live(&region, &queue).unwrap().unwrap().is_whole());
}

#[test]
fn threads_pin_and_unpin_at_any_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("q");
    let (region, queue) = open(&path);
    // Two handles of one program share its word.
    let (other_region, other) = open(&path);
    let next = std::sync::Mutex::new(0u64);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (region, queue) = match thread % 2 {
                0 => (&region, &queue),
                _ => (&other_region, &other),
            };
            let next = &next;
            scope.spawn(move || {
                let mut random = Random::of(thread + 1);
                let mut live: VecDeque<Live> = VecDeque::new();
                for _ in 0..10_000 {
                    {
                        let mut next = next.lock().unwrap();
                        let length = [100, 2_000, 9_000][random.below(3) as usize];
                        push(region, queue, &expected(*next, length));
                        *next += 1;
                    }
                    live.extend(pop_live(region, queue).unwrap());
                    while live.len() > random.below(30) as usize {
                        let which = random.below(live.len() as u64) as usize;
                        let ended = live.swap_remove_back(which).unwrap();
                        assert!(ended.is_whole(), "item {}", ended.sequence);
                    }
                }
            });
        }
    });
    let pinned = queue.with(&region, Wait::Yes, |locked| locked.lowest_pinned());
    assert_eq!(pinned, Ok(None));
    // Everything can be used again.
    let before = region.len().max(other_region.len());
    for item in 0..1_000 {
        push(&region, &queue, &expected(item, 2_000));
        pop_live(&region, &queue).unwrap().unwrap();
    }
    assert_eq!(region.len().max(other_region.len()), before);
}
