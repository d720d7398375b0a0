//! Takes part in a queue until it is killed: pushes, and checks out and acknowledges as the queue's own consumer and as a
//! reader. What was done is written to logs when it was done, for `test/queue_kills.exs` to judge.
//!
//! `queue_worker work FILE LOGS PRODUCER FIRST IDENTITY`: the logs are LOGS.producer, LOGS.consumer, and LOGS.reader;
//! the items are of PRODUCER, numbered from FIRST; with IDENTITY 1 they are pushed with the producer's identity. A line
//! `die N` on its input ends it after the Nth store from then on, mostly with the lock of the queue.
//! `queue_worker hold FILE`: checks an item out, prints that, and keeps it; `queue_worker lock FILE` keeps the lock of the queue,
//! too. `queue_worker untold FILE`: pushes an item as one that dies before it wakes who waits for it. `queue_worker check
//! FILE`: what must hold at all times does. `queue_worker bounce FILE ROUNDS`: a futex round trip with another thread, for a benchmark.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use emmap_core::queue::waiting::Event;
use emmap_core::queue::{
    self, Claimed, Content, Extension, Limits, Locked, Pushed, Queue, Receipt, Request, Stop,
};
use emmap_core::region::Wait;
use emmap_core::store::shared::Mapped;
use emmap_core::store::Shared;
use emmap_core::{os, Region};

const PUSHED: u64 = 1;
const DELIVERED: u64 = 2;
const ACKNOWLEDGED: u64 = 3;
const RELEASED: u64 = 4;

/// As much as the queue may have.
const MOST_BYTES: u64 = 2 << 20;
const READER: &[u8] = b"audit";

fn main() {
    // A thread that found something wrong ends all of them.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::exit(101);
    }));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["work", file, logs, producer, first, identity] => {
            let number = |text: &str| text.parse::<u64>().expect("a number");
            work(
                file,
                logs,
                number(producer),
                number(first),
                number(identity) == 1,
            )
        }
        ["hold", file] => hold(file, false),
        ["lock", file] => hold(file, true),
        ["untold", file] => push_untold(file),
        ["check", file] => check(file),
        ["bounce", rounds] => bounce(rounds.parse().expect("a number")),
        _ => panic!("see the documentation of this program"),
    }
}

fn open(file: &str) -> (Region, Queue) {
    let request = Request {
        existing: true,
        segment_size: None,
    };
    match queue::open(Path::new(file), &request) {
        Ok(opened) => opened,
        Err(error) => panic!("{error:?}"),
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.expect("after 1970").as_nanos() as u64
}

/// How many stores there are until this program ends.
static LEFT: AtomicU64 = AtomicU64::new(u64::MAX);

fn is_doomed() -> bool {
    LEFT.load(Ordering::Relaxed) != u64::MAX
}

/// The map of the queue, whose stores are counted.
struct Mortal<'a>(&'a Mapped<'a>);

/// Ends this program as a kill does: no other code of any of its threads runs. The first process of a PID namespace cannot
/// kill itself.
fn after_store() {
    if LEFT.fetch_sub(1, Ordering::Relaxed) <= 1 {
        // SAFETY: takes no pointers, and does not return.
        unsafe { libc::_exit(128 + libc::SIGKILL) }
    }
}

impl Shared for Mortal<'_> {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn load(&self, at: u64) -> emmap_core::Result<u64> {
        self.0.load(at)
    }

    fn store(&self, at: u64, value: u64) -> emmap_core::Result<()> {
        self.0.store(at, value)?;
        after_store();
        Ok(())
    }

    fn compare_exchange(&self, at: u64, current: u64, new: u64) -> emmap_core::Result<bool> {
        let exchanged = self.0.compare_exchange(at, current, new)?;
        after_store();
        Ok(exchanged)
    }

    fn update(&self, at: u64, set: u64, clear: u64) -> emmap_core::Result<u64> {
        let before = self.0.update(at, set, clear)?;
        after_store();
        Ok(before)
    }

    unsafe fn copy_out(&self, at: u64, out: *mut u8, count: usize) -> emmap_core::Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.0.copy_out(at, out, count) }
    }

    unsafe fn copy_in(&self, at: u64, data: *const u8, count: usize) -> emmap_core::Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.0.copy_in(at, data, count)? };
        after_store();
        Ok(())
    }
}

/// Runs `act` under the lock, which ends this program at a store.
fn doomed<R>(
    region: &Region,
    queue: &Queue,
    event: Event,
    act: impl Fn(&Locked<Mortal>) -> queue::Result<R>,
) -> queue::Result<R> {
    queue.with_waking(region, Wait::Yes, event, |locked| {
        act(&Locked {
            shared: &Mortal(locked.shared),
            segment_size: locked.segment_size,
            slot: locked.slot,
            may_wait: locked.may_wait,
            new_salt: locked.new_salt,
        })
    })
}

/// Follows what the input says.
fn obey() {
    for line in std::io::stdin().lines() {
        let line = line.expect("a line");
        let stores = line.strip_prefix("die ").expect("no other command");
        LEFT.store(stores.parse().expect("a number"), Ordering::Relaxed);
    }
}

/// One write for each record, so that a kill does not tear it.
struct Log(File);

impl Log {
    fn new(logs: &str, name: &str) -> Log {
        Log(File::create(format!("{logs}.{name}")).expect("a log"))
    }

    fn note(&mut self, kind: u64, (producer, number): (u64, u64), time: u64, attempts: u64) {
        let mut record = [0; 40];
        for (index, word) in [kind, producer, number, time, attempts]
            .into_iter()
            .enumerate()
        {
            record[index * 8..][..8].copy_from_slice(&word.to_le_bytes());
        }
        self.0.write_all(&record).expect("the log");
    }
}

/// An item of any size that says what it must be.
fn item(producer: u64, number: u64) -> Vec<u8> {
    let filler = match number % 997 {
        996 => 70_000,
        _ => (number * 7 % 300) as usize,
    };
    let mut item = [producer.to_le_bytes(), number.to_le_bytes()].concat();
    item.resize(16 + filler, number as u8);
    item
}

fn parse(payload: &[u8]) -> (u64, u64) {
    let word = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().expect("8 bytes"));
    let (producer, number) = (word(0), word(8));
    assert_eq!(
        payload,
        item(producer, number),
        "an item is not what was pushed"
    );
    (producer, number)
}

fn work(file: &str, logs: &str, producer: u64, first: u64, identity: bool) {
    let (region, queue) = open(file);
    let reader = queue.with(&region, Wait::Yes, |locked| locked.find_reader(READER));
    let reader = reader.expect("the lock").expect("the reader");
    std::thread::scope(|scope| {
        scope.spawn(|| produce(&region, &queue, logs, producer, first, identity));
        scope.spawn(|| consume(&region, &queue, logs, "consumer", queue::layout::OWN));
        scope.spawn(|| consume(&region, &queue, logs, "reader", reader));
        obey();
    });
}

fn produce(region: &Region, queue: &Queue, logs: &str, producer: u64, first: u64, identity: bool) {
    let mut log = Log::new(logs, "producer");
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(producer + 1).to_le_bytes());
    for number in first.. {
        let item = item(producer, number);
        let limits = Limits {
            most_bytes: Some(MOST_BYTES),
            drop_oldest: false,
            identity: identity.then_some((id, number)),
        };
        loop {
            match push(region, queue, &item, &limits) {
                Ok(Pushed::At(_) | Pushed::Duplicate) => break,
                Err(Stop::Full) => std::thread::sleep(Duration::from_millis(1)),
                Err(stop) => panic!("push: {stop:?}"),
            }
        }
        log.note(PUSHED, (producer, number), now(), 0);
        if number % 16 == 0 {
            std::thread::sleep(Duration::from_micros(300));
        }
    }
}

fn push(region: &Region, queue: &Queue, item: &[u8], limits: &Limits) -> queue::Result<Pushed> {
    if !is_doomed() || item.len() > 60_000 {
        // SAFETY: the item is alive.
        return unsafe { queue.push(region, Wait::Yes, (0, item.as_ptr(), item.len()), limits) };
    }
    let mut content = Content {
        flags: 0,
        extension: Extension::default(),
        payload: item.as_ptr(),
        length: item.len(),
    };
    if let Some((producer, number)) = limits.identity {
        content.flags |= queue::record::IDENTITY;
        content.extension = Extension::identity(producer, number);
    }
    doomed(region, queue, Event::Items, |locked| {
        let Some(producer) = locked.admit(content.room(), limits)? else {
            return Ok(Pushed::Duplicate);
        };
        // SAFETY: the item is alive.
        unsafe { locked.push_item(&content, producer).map(Pushed::At) }
    })
}

fn check_out(region: &Region, queue: &Queue, cursor: usize) -> queue::Result<Option<Claimed>> {
    match is_doomed() {
        false => queue.check_out(region, Wait::Yes, cursor, 1, None),
        true => doomed(region, queue, Event::Space, |locked| {
            locked.check_out(cursor, 1, None)
        }),
    }
}

fn acknowledge(region: &Region, queue: &Queue, cursor: usize, receipt: &Receipt) {
    let done = match is_doomed() {
        false => queue.acknowledge(region, Wait::Yes, cursor, receipt),
        true => doomed(region, queue, Event::Space, |locked| {
            locked.acknowledge(cursor, receipt)
        }),
    };
    done.expect("the claim is ours");
}

fn release(region: &Region, queue: &Queue, cursor: usize, receipt: &Receipt) {
    let done = match is_doomed() {
        false => queue.release(region, Wait::Yes, cursor, receipt),
        true => doomed(region, queue, Event::Items, |locked| {
            locked.release_claim(cursor, receipt)
        }),
    };
    done.expect("the claim is ours");
}

fn consume(region: &Region, queue: &Queue, logs: &str, name: &str, cursor: usize) {
    let mut log = Log::new(logs, name);
    for round in 0u64.. {
        let start = now();
        let claimed = match check_out(region, queue, cursor) {
            Ok(Some(claimed)) => claimed,
            Ok(None) => {
                std::thread::sleep(Duration::from_micros(500));
                continue;
            }
            Err(stop) => panic!("check out: {stop:?}"),
        };
        let mut payload = vec![0; claimed.found.head.length as usize];
        // SAFETY: there is room for the payload.
        let copied =
            unsafe { queue.deliver_claimed(region, cursor, &claimed, payload.as_mut_ptr()) };
        copied
            .expect("the claim is ours")
            .expect("and keeps the item");
        let item = parse(&payload);
        let attempts = u64::from(claimed.receipt.attempts);
        log.note(DELIVERED, item, start, attempts);
        if round % 64 == 63 {
            release(region, queue, cursor, &claimed.receipt);
            log.note(RELEASED, item, now(), attempts);
            continue;
        }
        acknowledge(region, queue, cursor, &claimed.receipt);
        log.note(ACKNOWLEDGED, item, now(), attempts);
    }
}

fn hold(file: &str, lock: bool) {
    let (region, queue) = open(file);
    let claimed = queue.check_out(&region, Wait::Yes, queue::layout::OWN, 1, None);
    claimed.expect("the lock").expect("an item");
    let keep = || -> ! {
        println!("held");
        loop {
            std::thread::park();
        }
    };
    if lock {
        let kept: queue::Result<()> = queue.with(&region, Wait::Yes, |_| keep());
        kept.expect("the lock");
    }
    keep()
}

fn push_untold(file: &str) {
    let (region, queue) = open(file);
    let content = queue::tail::content(0, Extension::default(), b"untold");
    let pushed = queue.with(&region, Wait::Yes, |locked| {
        // SAFETY: the payload is alive.
        unsafe { locked.push(queue::layout::ITEMS, &content) }
    });
    pushed.expect("the lock");
    println!("pushed");
}

fn check(file: &str) {
    let (region, queue) = open(file);
    queue
        .with(&region, Wait::Yes, |locked| {
            locked.check().map_err(|broken| panic!("{broken}"))
        })
        .expect("the lock");
    println!("sound");
}

/// Two threads that wake each other: half a round trip is what a wake costs at least.
fn bounce(rounds: u32) {
    let (ping, pong) = (AtomicU32::new(0), AtomicU32::new(0));
    let wait = |word: &AtomicU32, seen: u32| {
        while word.load(Ordering::Acquire) == seen {
            os::futex_wait(word, seen, None);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..rounds {
                wait(&ping, round);
                pong.store(round + 1, Ordering::Release);
                os::futex_wake(&pong);
            }
        });
        let mut times = Vec::new();
        for round in 0..rounds {
            // As with a queue, the other one sleeps by now.
            std::thread::sleep(Duration::from_micros(200));
            let start = Instant::now();
            ping.store(round + 1, Ordering::Release);
            os::futex_wake(&ping);
            wait(&pong, round);
            times.push(start.elapsed().as_nanos());
        }
        times.sort_unstable();
        println!("{}", times[times.len() / 2]);
    });
}
