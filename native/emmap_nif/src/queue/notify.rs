//! Threads that wait on behalf of processes: for items, for space, and for the disk. Each is started when a process waits, and
//! ends some time after the last process has stopped waiting.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use emmap_core::queue::waiting::{Event, SELDOM};
use emmap_core::queue::Stop;
use emmap_core::region::Wait;
use emmap_core::Errno;
use rustler::types::atom;
use rustler::{Encoder, LocalPid, OwnedEnv};

use super::{reasons, Part};
use crate::terms::Failure;

/// How long an idle thread stays.
const IDLE: Duration = Duration::from_secs(5);

/// A number that is unique to each message of this library.
static TICKET: AtomicU64 = AtomicU64::new(1);

struct Waiter {
    pid: LocalPid,
    ticket: u64,
}

#[derive(Default)]
struct List {
    waiters: Vec<Waiter>,
    /// The number that the event had when the first of them began to wait.
    number: u32,
    /// And how many items had been pushed.
    pushed: u64,
    /// Whether the thread runs.
    runs: bool,
}

/// The processes that wait for items, or for space.
#[derive(Default)]
pub struct Waiting {
    list: Mutex<List>,
    changed: Condvar,
}

/// The processes that wait for a sync.
#[derive(Default)]
pub struct Syncing {
    list: Mutex<List>,
    changed: Condvar,
}

fn lock(list: &Mutex<List>) -> MutexGuard<'_, List> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Part {
    fn waiting(&self, event: Event) -> &Waiting {
        match event {
            Event::Items => &self.items,
            Event::Space => &self.space,
        }
    }

    /// Sends the process a message with the ticket when it should check again. It must also check again after this call.
    pub fn wait(self: &Arc<Part>, event: Event, pid: LocalPid) -> emmap_core::Result<u64> {
        let ticket = TICKET.fetch_add(1, Ordering::Relaxed);
        let waiting = self.waiting(event);
        let mut list = lock(&waiting.list);
        // Under the lock of the list, which `close` takes after it has set this.
        if self.closed.load(Ordering::SeqCst) {
            return Err(Errno::CLOSED);
        }
        self.queue.set_waiting(&self.region, event, true)?;
        if list.waiters.is_empty() {
            // After the bit: later events change the number, and the process itself sees earlier ones.
            list.number = self.queue.event(&self.region, event)?;
            list.pushed = self.queue.pushed(&self.region)?;
        }
        list.waiters.push(Waiter { pid, ticket });
        if !list.runs {
            let part = self.clone();
            spawn("emmap_wait", move || part.wait_for(event))?;
            list.runs = true;
        }
        waiting.changed.notify_one();
        Ok(ticket)
    }

    /// The process does not wait any more. `false`: its message is on the way, or was sent.
    pub fn stop_waiting(&self, event: Event, ticket: u64) -> bool {
        let mut list = lock(&self.waiting(event).list);
        let before = list.waiters.len();
        list.waiters.retain(|waiter| waiter.ticket != ticket);
        list.waiters.len() < before
    }

    /// From now on, nothing can wait. Waiting calls check again, and find that the queue is closed. The region must not have
    /// been released yet, because the threads wait for words in it.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for event in [Event::Items, Event::Space] {
            let list = lock(&self.waiting(event).list);
            self.waiting(event).changed.notify_all();
            drop(list);
            let _ = self.queue.wake(&self.region, event);
        }
    }

    /// The thread: waits until the number of the event changes, as long as a process waits.
    fn wait_for(&self, event: Event) {
        let waiting = self.waiting(event);
        loop {
            let mut list = lock(&waiting.list);
            if self.closed.load(Ordering::SeqCst) {
                list.runs = false;
                let waiters = std::mem::take(&mut list.waiters);
                drop(list);
                return send(&waiters, None);
            }
            if list.waiters.is_empty() {
                let _ = self.queue.set_waiting(&self.region, event, false);
                let waited = waiting.changed.wait_timeout(list, IDLE);
                let (again, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                list = again;
                if timeout.timed_out() && list.waiters.is_empty() {
                    list.runs = false;
                    return;
                }
                continue;
            }
            let before = (list.number, list.pushed);
            drop(list);
            if let Err(_error) = self.wait_once(event, before) {
                // Each process gets the error itself.
                let waiters = std::mem::take(&mut lock(&waiting.list).waiters);
                send(&waiters, None);
            }
        }
    }

    fn wait_once(&self, event: Event, (number, pushed): (u32, u64)) -> emmap_core::Result<()> {
        let start = Instant::now();
        self.queue.wait(&self.region, event, number, None)?;
        // A program that made something available may have died before it sent a notification.
        let untold = match event {
            Event::Items => {
                // The process that takes an item gets the error.
                let _ = self.queue.look(&self.region);
                self.queue.pushed(&self.region)? != pushed
            }
            Event::Space => start.elapsed() >= SELDOM,
        };
        if untold || self.queue.event(&self.region, event)? != number {
            let mut list = lock(&self.waiting(event).list);
            let waiters = std::mem::take(&mut list.waiters);
            drop(list);
            send(&waiters, None);
        }
        Ok(())
    }

    /// Sends the process the result of a sync that begins after this call.
    pub fn sync(self: &Arc<Part>, pid: LocalPid) -> emmap_core::Result<u64> {
        let ticket = TICKET.fetch_add(1, Ordering::Relaxed);
        let mut list = lock(&self.syncs.list);
        list.waiters.push(Waiter { pid, ticket });
        if !list.runs {
            let part = self.clone();
            spawn("emmap_sync", move || part.sync_all())?;
            list.runs = true;
        }
        self.syncs.changed.notify_one();
        Ok(ticket)
    }

    /// The thread: one sync for all processes that are waiting by then.
    fn sync_all(&self) {
        loop {
            let mut list = lock(&self.syncs.list);
            if list.waiters.is_empty() {
                let waited = self.syncs.changed.wait_timeout(list, IDLE);
                let (again, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                list = again;
                if timeout.timed_out() && list.waiters.is_empty() {
                    list.runs = false;
                    return;
                }
                continue;
            }
            let waiters = std::mem::take(&mut list.waiters);
            drop(list);
            let synced = self.queue.sync(&self.region);
            send(&waiters, Some(synced));
        }
    }
}

/// Makes the items available that a process had checked out before it ended.
pub fn release(part: &Arc<Part>, owner: u32) {
    if let Err(Stop::Busy) = part.queue.release_owner(&part.region, Wait::No, owner) {
        // Not on a scheduler.
        let part = part.clone();
        let _ = spawn("emmap_release", move || {
            let _ = part.queue.release_owner(&part.region, Wait::Yes, owner);
        });
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> emmap_core::Result<()> {
    let thread = std::thread::Builder::new()
        .name(name.into())
        .stack_size(256 << 10);
    let spawned = thread.spawn(move || {
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    });
    spawned.map(drop).map_err(|_| Errno(libc::EAGAIN))
}

/// `{:emmap_queue, ticket}`, or with the result of a sync `{:emmap_queue, ticket, result}`.
fn send(waiters: &[Waiter], result: Option<Result<(), Stop>>) {
    let mut env = OwnedEnv::new();
    for waiter in waiters {
        // A process that ended needs no message.
        let _ = env.send_and_clear(&waiter.pid, |env| {
            let kind = reasons::emmap_queue();
            match result {
                None => (kind, waiter.ticket).encode(env),
                Some(Ok(())) => (kind, waiter.ticket, atom::ok()).encode(env),
                Some(Err(stop)) => {
                    let error = match stop {
                        Stop::Posix(error) => error,
                        _ => Errno::IO,
                    };
                    (kind, waiter.ticket, Failure::from(error)).encode(env)
                }
            }
        });
    }
}
