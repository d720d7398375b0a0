//! Locks that processes hold: see `emmap_core::process_lock`. Those of mutexes, and of the publishers of a snapshot.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use emmap_core::control_file::{self, Error, MutexBody};
use emmap_core::mapped_file::Identity;
use emmap_core::process_lock::{Member, ProcessLock, Received, Requested, ToTell};
use emmap_core::store::{Absent, BadFormat};
use emmap_core::{Errno, Region};
use rustler::env::SavedTerm;
use rustler::types::atom;
use rustler::{
    Atom, Binary, Encoder, Env, LocalPid, Monitor, NifResult, OwnedEnv, Resource, ResourceArc, Term,
};

use crate::counters;
use crate::terms::Failure;

mod atoms {
    rustler::atoms! {
        abandoned,
        wait,
        taken,
        bad_format,
        content,
        holder,
        waiting,
        path,
        size,
    }
}

/// The process that waits for a lock.
pub struct Teller {
    pid: LocalPid,
    env: OwnedEnv,
    tag: SavedTerm,
}

pub type Lock = ProcessLock<Teller>;
type Result = emmap_core::Result<Received>;

/// The locks that this program has open, by file.
static OPEN: Mutex<BTreeMap<Identity, Weak<Lock>>> = Mutex::new(BTreeMap::new());
static NUMBER: AtomicU64 = AtomicU64::new(1);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lock of a control file. All handles of this program share one.
pub fn of_file(region: Region, identity: Identity) -> emmap_core::Result<Arc<Lock>> {
    let mut open = locked(&OPEN);
    if let Some(known) = open.get(&identity).and_then(Weak::upgrade) {
        if known.region().check_fault().is_err() {
            known.region().reattach()?;
        }
        return Ok(known);
    }
    let new = Arc::new(Lock::enter(region, tell_on_thread)?);
    open.retain(|_, lock| lock.strong_count() > 0);
    open.insert(identity, Arc::downgrade(&new));
    Ok(new)
}

fn encoded<'a>(env: Env<'a>, result: Result) -> Term<'a> {
    match result {
        Ok(received) => state(received).encode(env),
        Err(error) => failure(error).encode(env),
    }
}

pub fn failure(error: Errno) -> Failure {
    match error {
        Errno::CLOSED => Failure::Closed,
        error => Failure::Posix(error),
    }
}

fn state(received: Received) -> Atom {
    match received {
        Received::Clean => atom::ok(),
        Received::Abandoned => atoms::abandoned(),
    }
}

/// `{tag, :ok | :abandoned | {:error, reason}}`, from a thread of this library.
fn tell_on_thread(teller: Teller, result: Result) {
    let Teller { pid, mut env, tag } = teller;
    // A process that has ended needs no message.
    let _ = env.send_and_clear(&pid, |env| {
        (tag.load(env), encoded(env, result)).encode(env)
    });
}

/// The same, from a scheduler.
fn tell(env: Env, teller: Teller, result: Result) {
    let tag = teller.env.run(|of_tag| teller.tag.load(of_tag).in_env(env));
    let _ = env.send(&teller.pid, (tag, encoded(env, result)));
}

fn tell_next(env: Env, next: ToTell<Teller>) {
    if let Some((teller, received)) = next {
        tell(env, teller, Ok(received));
    }
}

/// One opened handle of a lock.
pub struct Session {
    /// `None`: it is closed.
    lock: Mutex<Option<Arc<Lock>>>,
    /// Those who wait or have the lock. Each has a monitor of its process.
    members: Mutex<HashMap<u64, ResourceArc<LockMember>>>,
}

pub struct OpenLock(pub Arc<Session>);

#[rustler::resource_impl(name = "emmap_lock")]
impl Resource for OpenLock {}

pub struct LockMember {
    session: Arc<Session>,
    number: u64,
}

#[rustler::resource_impl(name = "emmap_lock_member")]
impl Resource for LockMember {
    const IMPLEMENTS_DOWN: bool = true;

    /// The process ended: it does not wait any more, or it has abandoned the lock.
    fn down<'a>(&'a self, env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        let removed = self.session.remove(self.number);
        if let Ok(lock) = self.session.lock() {
            if !lock.stop_waiting(self.number) {
                let is_holder = |holder: Member| holder.number == self.number;
                if let Ok(next) = lock.release(is_holder, false) {
                    tell_next(env, next);
                }
            }
        }
        drop(removed);
    }
}

impl Session {
    pub fn new(lock: Arc<Lock>) -> Arc<Session> {
        Arc::new(Session {
            lock: Mutex::new(Some(lock)),
            members: Mutex::default(),
        })
    }

    pub fn lock(&self) -> emmap_core::Result<Arc<Lock>> {
        locked(&self.lock).clone().ok_or(Errno::CLOSED)
    }

    fn id(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    fn remove(&self, number: u64) -> Option<ResourceArc<LockMember>> {
        locked(&self.members).remove(&number)
    }

    /// Releases what its members have, and tells the waiting processes.
    pub fn close(&self, env: Env) -> emmap_core::Result<()> {
        let lock = locked(&self.lock).take().ok_or(Errno::CLOSED)?;
        let members = std::mem::take(&mut *locked(&self.members));
        let (ended, next) = lock.end_session(self.id());
        for teller in ended {
            tell(env, teller, Err(Errno::CLOSED));
        }
        tell_next(env, next);
        drop(members);
        Ok(())
    }
}

/// Identifies the calling process: its term is a word.
fn process(env: Env) -> u64 {
    let term = env.pid().encode(env).as_c_arg();
    // SAFETY: a transparent word.
    (unsafe { std::mem::transmute::<rustler::sys::ErlNifTerm, usize>(term) }) as u64
}

/// The path of a control file.
pub fn path_of<'a>(path: &'a Binary) -> std::result::Result<&'a Path, Errno> {
    match path.as_slice().contains(&0) {
        true => Err(Errno::INVAL),
        false => Ok(Path::new(OsStr::from_bytes(path.as_slice()))),
    }
}

pub fn refused<'a>(env: Env<'a>, error: Error) -> Term<'a> {
    match error {
        Error::Posix(error) => Failure::Posix(error).encode(env),
        Error::BadFormat(BadFormat::Content) => {
            (atom::error(), (atoms::bad_format(), atoms::content())).encode(env)
        }
        Error::BadFormat(why) => {
            let why = counters::why(why);
            (atom::error(), (atoms::bad_format(), why)).encode(env)
        }
        Error::Mismatch(never) => match never {},
    }
}

pub fn absent(existing: bool) -> Absent {
    match existing {
        true => Absent::Refuse,
        false => Absent::Create,
    }
}

// `{:ok, reference}`. Reads headers, may create the file.
#[rustler::nif(schedule = "DirtyIo")]
fn mutex_open<'a>(env: Env<'a>, path: Binary<'a>, existing: bool) -> Term<'a> {
    let open = || {
        let opened = control_file::open::<MutexBody>(path_of(&path)?, absent(existing))?;
        let lock = of_file(opened.region, opened.identity)?;
        lock.prepare()?;
        Ok(Session::new(lock))
    };
    match open() {
        Ok(session) => (atom::ok(), ResourceArc::new(OpenLock(session))).encode(env),
        Err(error) => refused(env, error),
    }
}

// `:ok | :abandoned | {:wait, number} | :taken`. If it waits, the message `{tag, :ok | :abandoned | {:error, reason}}` follows.
// Takes a few microseconds: a compare-exchange, and a system call if another program has the lock.
#[rustler::nif(schedule = "Normal")]
fn lock_request<'a>(
    env: Env<'a>,
    lock: ResourceArc<OpenLock>,
    tag: Term<'a>,
    waits: bool,
) -> Term<'a> {
    let session = &lock.0;
    let pid = env.pid();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let member = ResourceArc::new(LockMember {
        session: session.clone(),
        number,
    });
    // `None`: the process is being killed.
    if member.monitor(Some(env), &pid).is_none() {
        return atoms::taken().encode(env);
    }
    // Before the request: another thread may end it at any time after that.
    locked(&session.members).insert(number, member);
    let lock = match session.lock() {
        Ok(lock) => lock,
        Err(_) => {
            drop(session.remove(number));
            return Failure::Closed.encode(env);
        }
    };
    let who = waits.then(|| {
        let of_tag = OwnedEnv::new();
        let tag = of_tag.save(tag);
        Teller {
            pid,
            env: of_tag,
            tag,
        }
    });
    let asked = Member {
        number,
        session: session.id(),
        process: process(env),
    };
    let result = lock.request(asked, who);
    if session.lock().is_err() {
        // Closed in the meantime, before or after it knew of this member.
        let (ended, next) = lock.end_session(session.id());
        drop((session.remove(number), ended));
        tell_next(env, next);
        return Failure::Closed.encode(env);
    }
    match result {
        Ok(Requested::Received(received)) => return state(received).encode(env),
        Ok(Requested::Waits) => return (atoms::wait(), number).encode(env),
        _ => drop(session.remove(number)),
    }
    match result {
        Ok(Requested::Own) => Failure::Posix(Errno(libc::EDEADLK)).encode(env),
        Err(error) => failure(error).encode(env),
        _ => atoms::taken().encode(env),
    }
}

// Whether the process did not receive the lock, and will not.
#[rustler::nif(schedule = "Normal")]
fn lock_cancel(lock: ResourceArc<OpenLock>, number: u64) -> bool {
    let cancelled = lock.0.lock().is_ok_and(|lock| lock.stop_waiting(number));
    if cancelled {
        drop(lock.0.remove(number));
    }
    cancelled
}

// The process did not wait for the message that it has the lock, because of an error.
#[rustler::nif(schedule = "Normal")]
fn lock_forget(lock: ResourceArc<OpenLock>, number: u64) -> Atom {
    drop(lock.0.remove(number));
    atom::ok()
}

#[rustler::nif(schedule = "Normal")]
fn lock_release<'a>(env: Env<'a>, lock: ResourceArc<OpenLock>, clean: bool) -> Term<'a> {
    let session = &lock.0;
    let Ok(lock) = session.lock() else {
        return Failure::Closed.encode(env);
    };
    let caller = process(env);
    let mut number = None;
    let is_holder = |holder: Member| {
        number = Some(holder.number);
        holder.process == caller && holder.session == session.id()
    };
    match lock.release(is_holder, clean) {
        Ok(next) => {
            tell_next(env, next);
            drop(number.and_then(|number| session.remove(number)));
            atom::ok().encode(env)
        }
        Err(error) => {
            if error != Errno::PERM {
                drop(number.and_then(|number| session.remove(number)));
            }
            failure(error).encode(env)
        }
    }
}

// Releases the map of the file if it is the last handle.
#[rustler::nif(schedule = "DirtyIo")]
fn lock_close<'a>(env: Env<'a>, lock: ResourceArc<OpenLock>) -> Term<'a> {
    match lock.0.close(env) {
        Ok(()) => atom::ok().encode(env),
        Err(error) => failure(error).encode(env),
    }
}

// `{:ok, map}`
#[rustler::nif(schedule = "Normal")]
fn lock_info<'a>(env: Env<'a>, lock: ResourceArc<OpenLock>) -> NifResult<Term<'a>> {
    let Ok(lock) = lock.0.lock() else {
        return Ok(Failure::Closed.encode(env));
    };
    Ok(match lock.is_taken() {
        Ok(taken) => {
            let info = rustler::term_map!(env, {
                atoms::taken() => taken,
                atoms::waiting() => lock.waiting(),
            });
            (atom::ok(), info).encode(env)
        }
        Err(error) => failure(error).encode(env),
    })
}
