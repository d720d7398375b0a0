//! Calls that have to wait for another call or another program.
//!
//! A scheduler that waits is not available for anything else: a node has ten dirty I/O threads, and all
//! access to files uses them. So a call that finds a lock taken retries for about a millisecond (see
//! `emmap_core::patience`), and then returns `{:wait, kind}`, before it has changed anything. `Emmap.Waiting` passes it to
//! [`wait`], and its process waits for a message. The call is repeated here, by a separate thread: the same body,
//! with the same arguments, in the environment of the message.
//!
//! There is one such thread for each thing to wait for: for each map and kind of lock, or for each path that is opened. It
//! serves its callers in order. So a thousand waiting processes need one thread, and none after that.
//!
//! The alternative would be that the process retries by itself. Then a call would have to keep its place among the
//! others (in the queue for the lock of the file, or its priority on a part of the map) while it is not running. Others
//! would have to be able to take away this place when the process is killed, and a cursor that a read has moved would have
//! to be moved back.

use std::collections::{HashMap, VecDeque};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use emmap_core::{patience, Errno};
use rustler::codegen_runtime::inventory;
use rustler::env::SavedTerm;
use rustler::sys::ErlNifTerm;
use rustler::types::atom;
use rustler::{Atom, Encoder, Env, LocalPid, NifResult, OwnedEnv, Term};

use crate::hot::{Call, Early};
use crate::resource::{get_handle, mapping_of};
use crate::terms::Failure;

/// A body that can be run by a thread of this module.
pub struct Waitable {
    pub name: &'static str,
    pub arity: usize,
    pub body: fn(&Call) -> Result<ErlNifTerm, Early>,
    /// Whether one run is the result of all calls that were made before it began.
    pub shared: bool,
}

inventory::collect!(Waitable);

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The right to change the size of the file.
    Size,
    /// Another copy of bytes.
    Copy,
    /// The lock of a structure.
    Store,
    /// A lock of a structure that is held for long.
    Long,
}

impl Kind {
    /// The kind of wait that a call ended with.
    pub fn of(error: Errno) -> Option<Kind> {
        match error {
            Errno::WAIT_SIZE => Some(Kind::Size),
            Errno::WAIT_COPY => Some(Kind::Copy),
            Errno::WAIT_STORE => Some(Kind::Store),
            Errno::WAIT_LONG => Some(Kind::Long),
            _ => None,
        }
    }

    fn of_number(number: u8) -> Kind {
        match number {
            0 => Kind::Size,
            1 => Kind::Copy,
            2 => Kind::Store,
            _ => Kind::Long,
        }
    }
}

impl Encoder for Kind {
    /// `{:wait, number}`
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        (atoms::wait(), *self as u8).encode(env)
    }
}

mod atoms {
    rustler::atoms! {
        wait,
        raise,
    }
}

pub fn wait_atom() -> Atom {
    atoms::wait()
}

/// Identifies the queue of a call.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Place {
    /// A map, by the address of its mapping, which the jobs keep alive.
    Map(usize),
    Path(Vec<u8>),
}

type Key = (Place, Kind);

struct Job {
    number: usize,
    start: Instant,
    pid: LocalPid,
    what: &'static Waitable,
    env: OwnedEnv,
    tag: SavedTerm,
    arguments: Vec<SavedTerm>,
}

#[derive(Default)]
struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    added: Condvar,
}

/// The queues that have a thread.
static QUEUES: Mutex<Option<HashMap<Key, Arc<Queue>>>> = Mutex::new(None);
static NUMBER: AtomicUsize = AtomicUsize::new(1);
/// Jobs that have not begun.
static PENDING: AtomicUsize = AtomicUsize::new(0);

/// How long an idle thread stays.
const IDLE: Duration = Duration::from_secs(1);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether calls wait for the size of this map, so that another one has to queue after them.
pub fn is_waited_for(mapping: usize) -> bool {
    if PENDING.load(Ordering::Relaxed) == 0 {
        return false;
    }
    let queues = lock(&QUEUES);
    let queue = queues
        .as_ref()
        .and_then(|queues| queues.get(&(Place::Map(mapping), Kind::Size)));
    queue.is_some_and(|queue| !lock(&queue.jobs).is_empty())
}

// wait(kind, handle or path, tag, name, arguments) -> {:ok, number} | {:error, reason}: later, a message {tag, result} or
// {tag, :raise, reason} is sent.
#[rustler::nif(schedule = "Normal")]
fn wait<'a>(
    env: Env<'a>,
    kind: u8,
    place: Term<'a>,
    tag: Term<'a>,
    name: Atom,
    arguments: Vec<Term<'a>>,
) -> NifResult<Term<'a>> {
    let name = name.to_term(env).atom_to_string()?;
    let what = inventory::iter::<Waitable>
        .into_iter()
        .find(|what| what.name == name && what.arity == arguments.len())
        .ok_or(rustler::Error::BadArg)?;
    let of_env = OwnedEnv::new();
    let job = Job {
        number: NUMBER.fetch_add(1, Ordering::Relaxed),
        start: Instant::now(),
        pid: env.pid(),
        what,
        tag: of_env.save(tag),
        arguments: arguments.iter().map(|term| of_env.save(*term)).collect(),
        env: of_env,
    };
    let number = job.number;
    match add((place_of(env, place)?, Kind::of_number(kind)), job) {
        Ok(()) => Ok((atom::ok(), number).encode(env)),
        Err(error) => Ok(Failure::from(error).encode(env)),
    }
}

// wait_cancel(kind, handle or path, number) -> whether it had not begun, and will not begin.
#[rustler::nif(schedule = "Normal")]
fn wait_cancel<'a>(env: Env<'a>, kind: u8, place: Term<'a>, number: usize) -> NifResult<bool> {
    let key = (place_of(env, place)?, Kind::of_number(kind));
    let queue = lock(&QUEUES)
        .as_ref()
        .and_then(|queues| queues.get(&key).cloned());
    let Some(queue) = queue else {
        return Ok(false);
    };
    let mut jobs = lock(&queue.jobs);
    let before = jobs.len();
    jobs.retain(|job| job.number != number);
    let cancelled = jobs.len() < before;
    if cancelled {
        PENDING.fetch_sub(1, Ordering::Relaxed);
    }
    Ok(cancelled)
}

fn place_of<'a>(env: Env<'a>, place: Term<'a>) -> NifResult<Place> {
    if let Ok(path) = place.decode::<rustler::Binary>() {
        return Ok(Place::Path(path.as_slice().to_vec()));
    }
    // SAFETY: a term of this environment.
    let handle = unsafe { get_handle(env.as_c_arg(), place.as_c_arg()) };
    Ok(Place::Map(mapping_of(
        handle.ok_or(rustler::Error::BadArg)?,
    )))
}

fn add(key: Key, job: Job) -> emmap_core::Result<()> {
    let mut queues = lock(&QUEUES);
    let queues = queues.get_or_insert_default();
    if let Some(queue) = queues.get(&key) {
        PENDING.fetch_add(1, Ordering::Relaxed);
        lock(&queue.jobs).push_back(job);
        queue.added.notify_one();
        return Ok(());
    }
    let queue = Arc::new(Queue::default());
    let thread = std::thread::Builder::new()
        .name("emmap_waits".into())
        .stack_size(512 << 10);
    let (of_thread, its_key) = (queue.clone(), key.clone());
    thread
        .spawn(move || serve(&its_key, &of_thread))
        .map_err(|_| Errno(libc::EAGAIN))?;
    PENDING.fetch_add(1, Ordering::Relaxed);
    lock(&queue.jobs).push_back(job);
    queue.added.notify_one();
    queues.insert(key, queue);
    Ok(())
}

/// The thread: runs one job after the other, as long as there are any.
fn serve(key: &Key, queue: &Queue) {
    loop {
        let mut jobs = lock(&queue.jobs);
        if jobs.is_empty() {
            let waited = queue.added.wait_timeout(jobs, IDLE);
            jobs = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if jobs.is_empty() {
            drop(jobs);
            // Jobs are added under the lock of the queues.
            let mut queues = lock(&QUEUES);
            if lock(&queue.jobs).is_empty() {
                if let Some(queues) = queues.as_mut() {
                    queues.remove(key);
                }
                return;
            }
            continue;
        }
        let mut now = Vec::new();
        if let Some(first) = jobs.pop_front() {
            if first.what.shared {
                let same = |job: &Job| std::ptr::eq(job.what, first.what);
                let (others, left): (Vec<_>, Vec<_>) = jobs.drain(..).partition(same);
                now = others;
                *jobs = left.into();
            }
            now.insert(0, first);
        }
        PENDING.fetch_sub(now.len(), Ordering::Relaxed);
        drop(jobs);
        // A panic must not end a thread for which others wait.
        let _ = catch_unwind(AssertUnwindSafe(|| run(now)));
    }
}

/// Runs the first of these jobs for all of them.
fn run(jobs: Vec<Job>) {
    let mut result: Option<(bool, SavedTerm, OwnedEnv)> = None;
    for mut job in jobs {
        if !job.env.run(|env| job.pid.is_alive(env)) {
            continue;
        }
        let (tag, arguments) = (job.tag.clone(), std::mem::take(&mut job.arguments));
        let (pid, start, body) = (job.pid, job.start, job.what.body);
        let shared = job.what.shared;
        let earlier = result.take();
        let mut kept = None;
        let _ = job.env.send_and_clear(&pid, |env| {
            let (raises, term) = match &earlier {
                Some((raises, term, of_first)) => {
                    (*raises, of_first.run(|first| term.load(first).in_env(env)))
                }
                None => {
                    let terms: Vec<ErlNifTerm> = arguments
                        .iter()
                        .map(|saved| saved.load(env).as_c_arg())
                        .collect();
                    let given_up = {
                        let asked = OwnedEnv::new();
                        Rc::new(move || !asked.run(|env| pid.is_alive(env)))
                    };
                    patience::since(start, given_up, || Call::in_message(env, pid, &terms, body))
                }
            };
            if shared {
                let keeper = OwnedEnv::new();
                let saved = keeper.save(term);
                kept = Some((raises, saved, keeper));
            }
            let tag = tag.load(env);
            match raises {
                true => (tag, atoms::raise(), term).encode(env),
                false => (tag, term).encode(env),
            }
        });
        result = kept;
    }
}
