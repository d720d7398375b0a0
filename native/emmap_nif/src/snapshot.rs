//! The NIFs of snapshots: see `emmap_core::snapshot`.
//!
//! A program opens a version once. What it opened is kept in an environment that belongs to no process, from which each call of
//! `snapshot_current` copies the term. A change of the current version releases it: a thread waits for that.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use emmap_core::control_file::{Error, VERSION};
use emmap_core::snapshot;
use emmap_core::word_waits::{Keeper, Ticket, Told, Waited, WAITS};
use emmap_core::{Errno, Region};
use rustler::sys::{
    enif_alloc_env, enif_free_env, enif_make_copy, enif_make_resource, enif_make_tuple_from_array,
    ErlNifEnv, ErlNifTerm,
};
use rustler::types::atom;
use rustler::{
    Atom, Binary, Encoder, Env, LocalPid, Monitor, NifResult, OwnedEnv, Resource, ResourceArc, Term,
};

use crate::hot::{hot_nif, Call, Early};
use crate::locks::{self, absent, failure, path_of, refused, Lock, OpenLock, Session};
use crate::monitors;
use crate::resource::{get_handle, get_snapshot, new_snapshot, Handle, KeptHandle, KeptSnapshot};
use crate::terms::Failure;
use crate::words;

hot_nif!("snapshot_current" / 1 = current);
hot_nif!("snapshot_generation" / 1 = generation);
hot_nif!("snapshot_wait" / 3 = wait);

mod atoms {
    rustler::atoms! {
        open,
        again,
        wait,
        emmap_snapshot,
        generation,
        size,
        synced,
        lost,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the resource of a snapshot refers to.
pub struct State {
    session: Arc<Session>,
    /// The map of the control file, which the session keeps; null: it is closed. To be read inside of the cache.
    region: AtomicPtr<Region>,
    cache: Cache,
    opening: Mutex<Opening>,
}

/// Which process opens a version, and who waits for it.
#[derive(Default)]
struct Opening {
    opener: Option<usize>,
    last: usize,
    waiting: Vec<(LocalPid, OwnedEnv, rustler::env::SavedTerm)>,
}

/// An opened version.
struct Opened {
    number: u64,
    env: *mut ErlNifEnv,
    /// `{term}`, of that environment.
    term: ErlNifTerm,
    /// A handle is returned as a new reference, which is faster than a copy.
    handle: Option<KeptHandle>,
}

impl Opened {
    /// # Safety
    /// `env` must be the environment of the running NIF, and `term` one of its terms.
    unsafe fn new(number: u64, env: *mut ErlNifEnv, term: ErlNifTerm) -> Opened {
        // SAFETY: the caller's promise; the new environment is freed by `drop`.
        unsafe {
            let handle = get_handle(env, term).map(|handle: &Handle| KeptHandle::of(handle));
            let own = enif_alloc_env();
            let copy = [enif_make_copy(own, term)];
            let term = enif_make_tuple_from_array(own, copy.as_ptr(), 1);
            Opened {
                number,
                env: own,
                term,
                handle,
            }
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`.
        unsafe { enif_free_env(self.env) };
    }
}

const STRIPES: usize = 8;

/// Readers that are inside of a call, on a cache line of their own.
#[repr(align(64))]
#[derive(Default)]
struct Stripe([AtomicUsize; 2]);

/// The opened version. Readers take no lock: they count themselves, and whoever replaces it waits until those have left that may
/// have seen it.
struct Cache {
    opened: AtomicPtr<Opened>,
    /// Which of the two counters of a stripe new readers use.
    phase: AtomicUsize,
    stripes: Box<[Stripe; STRIPES]>,
    /// Held while it is replaced.
    turn: Mutex<Option<Ticket>>,
}

/// A reader, until it is dropped.
struct Inside<'a>(&'a AtomicUsize);

impl Drop for Inside<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl Cache {
    fn new() -> Cache {
        Cache {
            opened: AtomicPtr::new(ptr::null_mut()),
            phase: AtomicUsize::new(0),
            stripes: Box::default(),
            turn: Mutex::new(None),
        }
    }

    #[inline(always)]
    fn enter(&self) -> Inside<'_> {
        let phase = self.phase.load(Ordering::SeqCst) & 1;
        let count = &self.stripes[crate::resource::viewer_of_thread() % STRIPES].0[phase];
        count.fetch_add(1, Ordering::SeqCst);
        Inside(count)
    }

    /// Returns once every reader that was inside has left.
    fn await_readers(&self) {
        // Twice: a reader may have read the phase before the previous change, and counted itself after it.
        for _ in 0..2 {
            let before = self.phase.fetch_add(1, Ordering::SeqCst) & 1;
            for stripe in self.stripes.iter() {
                while stripe.0[before].load(Ordering::SeqCst) != 0 {
                    std::thread::yield_now();
                }
            }
        }
    }

    /// Under the turn.
    fn replace(&self, opened: Option<Opened>) {
        let new = opened.map_or(ptr::null_mut(), |opened| Box::into_raw(Box::new(opened)));
        let old = self.opened.swap(new, Ordering::SeqCst);
        if !old.is_null() {
            self.await_readers();
            // SAFETY: it came from a box, nobody finds it any more, and its readers have left.
            drop(unsafe { Box::from_raw(old) });
        }
    }

    fn number(&self) -> u64 {
        let _inside = self.enter();
        let opened = self.opened.load(Ordering::SeqCst);
        // SAFETY: not freed while a reader is inside.
        unsafe { opened.as_ref() }.map_or(0, |opened| opened.number)
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        let opened = *self.opened.get_mut();
        if !opened.is_null() {
            // SAFETY: it came from a box, and nobody else refers to the cache.
            drop(unsafe { Box::from_raw(opened) });
        }
    }
}

/// Keeps the control file mapped, and the snapshot open, while somebody waits.
struct Kept {
    lock: Arc<Lock>,
    #[allow(dead_code)]
    snapshot: Option<Arc<KeptSnapshot>>,
}

impl Keeper for Kept {
    fn region(&self) -> &Region {
        self.lock.region()
    }
}

impl State {
    fn is_closed(&self) -> bool {
        self.region.load(Ordering::SeqCst).is_null()
    }

    /// The number of the current version.
    #[inline(always)]
    fn number(&self, _inside: &Inside) -> Result<u64, Early> {
        // SAFETY: a close waits for all readers inside before it releases the map.
        match unsafe { self.region.load(Ordering::SeqCst).as_ref() } {
            Some(region) => Ok(snapshot::number(region)?),
            None => Err(Early::Closed),
        }
    }

    /// For a call that may take long: it keeps the map.
    fn lock(&self) -> Result<Arc<Lock>, Failure> {
        self.session.lock().map_err(failure)
    }

    fn id(&self) -> usize {
        ptr::from_ref(self) as usize
    }

    /// Ends all waits. `false`: it was closed before.
    pub fn close(&self) -> bool {
        if self
            .region
            .swap(ptr::null_mut(), Ordering::SeqCst)
            .is_null()
        {
            return false;
        }
        WAITS.end(self.id(), Errno::CLOSED);
        self.cache.replace_under_turn(None);
        self.cache.await_readers();
        true
    }

    /// Waits for the next version, to release this one.
    fn release_after(self: &Arc<Self>, number: u64) -> Option<Ticket> {
        let state = Arc::downgrade(self);
        let told: Told = Box::new(move |_changed| release(&state, number));
        let word = (VERSION, number as i64);
        let keeper = Arc::new(Kept {
            lock: self.lock().ok()?,
            snapshot: None,
        });
        let closing = self.clone();
        let is_open = move || !closing.is_closed();
        match WAITS.wait(keeper, word, self.id(), is_open, told) {
            Ok(Waited::Waits(ticket)) => Some(ticket),
            Ok(Waited::Changed(_)) | Err(_) => None,
        }
    }
}

impl Cache {
    fn replace_under_turn(&self, opened: Option<Opened>) {
        let mut turn = locked(&self.turn);
        if let Some(ticket) = turn.take() {
            WAITS.cancel(ticket);
        }
        self.replace(opened);
    }
}

fn release(state: &Weak<State>, number: u64) {
    let Some(state) = state.upgrade() else { return };
    let mut turn = locked(&state.cache.turn);
    if state.cache.number() == number {
        *turn = None;
        state.cache.replace(None);
    }
}

fn state(call: &Call) -> Result<&Arc<State>, Early> {
    // SAFETY: the environment and an argument of this call, which keeps the resource alive.
    let found = call.with_env(|env| unsafe { get_snapshot(env.as_c_arg(), call.argument(0)) });
    found.ok_or(Early::Raise(&crate::terms::NOT_A_HANDLE))
}

fn decoded<'a>(env: Env<'a>, snapshot: Term<'a>) -> NifResult<&'a Arc<State>> {
    // SAFETY: a term of this environment, which keeps the resource alive.
    let found = unsafe { get_snapshot(env.as_c_arg(), snapshot.as_c_arg()) };
    found.ok_or(rustler::Error::BadArg)
}

// snapshot_current(snapshot) -> a handle's reference | {term} | {:open, number} | {:error, reason}
fn current(call: &Call) -> Result<ErlNifTerm, Early> {
    let state = state(call)?;
    let number;
    {
        let inside = state.cache.enter();
        number = state.number(&inside)?;
        let opened = state.cache.opened.load(Ordering::SeqCst);
        // SAFETY: not freed while a reader is inside.
        if let Some(opened) = unsafe { opened.as_ref() } {
            if opened.number == number {
                // SAFETY: the environment of this call; the handle is kept, and the term is of a live environment.
                return Ok(call.with_env(|env| unsafe {
                    match &opened.handle {
                        Some(handle) => enif_make_resource(env.as_c_arg(), handle.object()),
                        None => enif_make_copy(env.as_c_arg(), opened.term),
                    }
                }));
            }
        }
    }
    match number {
        0 => Err(Errno(libc::ENOENT).into()),
        _ => Ok(call.pair(atoms::open().as_c_arg(), call.uint64(number))),
    }
}

// snapshot_generation(snapshot) -> the number of the current version
fn generation(call: &Call) -> Result<ErlNifTerm, Early> {
    let state = state(call)?;
    Ok(call.uint64(state.number(&state.cache.enter())?))
}

// snapshot_wait(snapshot, number, tag): as word_wait.
fn wait(call: &Call) -> Result<ErlNifTerm, Early> {
    let state = state(call)?;
    let lock = state.lock()?;
    let expected = call.signed_word(1)?;
    // SAFETY: `state` is that of an argument.
    let snapshot = Some(Arc::new(unsafe { KeptSnapshot::of(state) }));
    let keeper = Arc::new(Kept { lock, snapshot });
    let closing = state.clone();
    let is_open = move || !closing.is_closed();
    words::wait_for(call, keeper, state.id(), is_open, (VERSION, expected), 2)
}

// `{:ok, snapshot, lock}`. Reads headers, may create the file.
#[rustler::nif(schedule = "DirtyIo")]
fn snapshot_open<'a>(env: Env<'a>, path: Binary<'a>, existing: bool) -> Term<'a> {
    let open = || {
        let (region, identity) = snapshot::open(path_of(&path)?, absent(existing))?;
        Ok(locks::of_file(region, identity)?)
    };
    let lock = match open() {
        Ok(lock) => lock,
        Err(error) => return refused(env, error),
    };
    let region = ptr::from_ref(lock.region()).cast_mut();
    let session = Session::new(lock);
    let state = Arc::new(State {
        session: session.clone(),
        region: AtomicPtr::new(region),
        cache: Cache::new(),
        opening: Mutex::default(),
    });
    let lock = ResourceArc::new(OpenLock(session));
    (atom::ok(), new_snapshot(env, state), lock).encode(env)
}

// Before the first publication: starts a thread.
#[rustler::nif(schedule = "DirtyIo")]
fn snapshot_prepare<'a>(env: Env<'a>, snapshot: Term<'a>) -> NifResult<Term<'a>> {
    let prepared = decoded(env, snapshot)?.lock();
    let prepared = prepared.and_then(|lock| lock.prepare().map_err(failure));
    Ok(crate::terms::answer(env, prepared))
}

// The caller has the lock. Renames the file and writes a header; waits for the disk if the version is to be on it.
#[rustler::nif(schedule = "DirtyIo")]
fn snapshot_publish<'a>(
    env: Env<'a>,
    snapshot: Term<'a>,
    directory: Binary<'a>,
    file: Binary<'a>,
    synced: bool,
) -> NifResult<Term<'a>> {
    let lock = match decoded(env, snapshot)?.lock() {
        Ok(lock) => lock,
        Err(failure) => return Ok(failure.encode(env)),
    };
    let region = lock.region();
    let publish = || {
        let (directory, file) = (path_of(&directory)?, path_of(&file)?);
        let _turn = lock.turn();
        let number = snapshot::publish_file(region, directory, file, synced)?;
        // The version is current; the next publication tries again.
        let _ = snapshot::tidy(region, directory);
        Ok(number)
    };
    Ok(match publish() {
        Ok(number) => (atom::ok(), number).encode(env),
        Err(error) => refused(env, error),
    })
}

// The caller has the lock. Removes files.
#[rustler::nif(schedule = "DirtyIo")]
fn snapshot_tidy<'a>(
    env: Env<'a>,
    snapshot: Term<'a>,
    directory: Binary<'a>,
) -> NifResult<Term<'a>> {
    let lock = match decoded(env, snapshot)?.lock() {
        Ok(lock) => lock,
        Err(failure) => return Ok(failure.encode(env)),
    };
    let directory = path_of(&directory).map_err(Error::from);
    let _turn = lock.turn();
    let tidied = directory.and_then(|directory| snapshot::tidy(lock.region(), directory));
    Ok(done(env, tidied))
}

fn done(env: Env, result: Result<(), Error>) -> Term {
    match result {
        Ok(()) => atom::ok().encode(env),
        Err(error) => refused(env, error),
    }
}

// `{:ok, map}`: the version in the header.
#[rustler::nif(schedule = "DirtyIo")]
fn snapshot_version<'a>(env: Env<'a>, snapshot: Term<'a>) -> NifResult<Term<'a>> {
    let lock = match decoded(env, snapshot)?.lock() {
        Ok(lock) => lock,
        Err(failure) => return Ok(failure.encode(env)),
    };
    let region = lock.region();
    Ok(match snapshot::in_force(region) {
        Ok(version) => {
            let map = rustler::term_map!(env, {
                atoms::generation() => version.number,
                atoms::size() => version.size,
                atoms::synced() => version.boot == 0,
                atoms::lost() => version.is_lost(),
            });
            (atom::ok(), map).encode(env)
        }
        Err(error) => refused(env, error),
    })
}

/// The process that opens a version.
struct Opener {
    state: Arc<State>,
    number: usize,
}

#[rustler::resource_impl(name = "emmap_snapshot_opener")]
impl Resource for Opener {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        self.end(env);
    }
}

impl Opener {
    /// Another process may try.
    fn end(&self, env: Env) {
        let mut opening = locked(&self.state.opening);
        if opening.opener != Some(self.number) {
            return;
        }
        opening.opener = None;
        let waiting = std::mem::take(&mut opening.waiting);
        drop(opening);
        for (pid, of_tag, tag) in waiting {
            let tag = of_tag.run(|of_tag| tag.load(of_tag).in_env(env));
            // A process that has ended needs no message.
            let _ = env.send(&pid, (tag, atoms::again()));
        }
    }
}

// `:again | {:ok, opener} | :wait`: with `:wait`, the message `{tag, :again}` follows.
#[rustler::nif(schedule = "Normal")]
fn snapshot_begin_open<'a>(
    env: Env<'a>,
    snapshot: Term<'a>,
    number: u64,
    tag: Term<'a>,
) -> NifResult<Term<'a>> {
    let state = decoded(env, snapshot)?;
    let pid = env.pid();
    let mut opening = locked(&state.opening);
    if state.cache.number() == number {
        return Ok(atoms::again().encode(env));
    }
    if opening.opener.is_some() {
        let of_tag = OwnedEnv::new();
        let tag = of_tag.save(tag);
        opening.waiting.push((pid, of_tag, tag));
        return Ok(atoms::wait().encode(env));
    }
    opening.last += 1;
    let opener = ResourceArc::new(Opener {
        state: state.clone(),
        number: opening.last,
    });
    // `None`: the process is being killed.
    if opener.monitor(Some(env), &pid).is_none() {
        return Ok(atoms::again().encode(env));
    }
    opening.opener = Some(opening.last);
    Ok((atom::ok(), opener).encode(env))
}

// The version is open, or could not be opened (`number` 0). Waits until readers have left the previous one, which takes less than
// a microsecond unless the system has suspended one; sends messages to all who wait.
#[rustler::nif(schedule = "DirtyCpu")]
fn snapshot_end_open<'a>(
    env: Env<'a>,
    opener: ResourceArc<Opener>,
    number: u64,
    term: Term<'a>,
) -> Atom {
    let state = &opener.state;
    if number > 0 {
        // SAFETY: a term of this environment.
        let opened = unsafe { Opened::new(number, env.as_c_arg(), term.as_c_arg()) };
        state.cache.replace_under_turn(Some(opened));
        let ticket = state.release_after(number);
        match ticket {
            Some(_) => *locked(&state.cache.turn) = ticket,
            // Replaced or closed in the meantime.
            None => release(&Arc::downgrade(state), number),
        }
    }
    opener.end(env);
    atom::ok()
}

/// A process that is told of each new version.
pub struct Subscription {
    snapshot: Arc<KeptSnapshot>,
    pid: LocalPid,
    ended: AtomicBool,
    ticket: Mutex<Option<Ticket>>,
}

#[rustler::resource_impl(name = "emmap_snapshot_subscription")]
impl Resource for Subscription {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        self.end();
    }
}

impl Subscription {
    fn end(&self) -> bool {
        let first = !self.ended.swap(true, Ordering::SeqCst);
        let ticket = locked(&self.ticket).take();
        if let Some(ticket) = ticket {
            WAITS.cancel(ticket);
        }
        first
    }
}

/// Waits for a version after `number`. Returns the number of a version that is there already.
fn follow(
    subscription: &ResourceArc<Subscription>,
    number: u64,
) -> emmap_core::Result<Option<u64>> {
    let state = subscription.snapshot.state();
    // The ticket is stored before the next message can be sent.
    let mut place = locked(&subscription.ticket);
    if subscription.ended.load(Ordering::SeqCst) {
        return Ok(None);
    }
    let this = subscription.clone();
    let told: Told = Box::new(move |result| changed(&this, result));
    let closing = state.clone();
    let is_open = move || !closing.is_closed();
    let owner = state.id();
    let word = (VERSION, number as i64);
    let keeper = Arc::new(Kept {
        lock: state.session.lock()?,
        snapshot: Some(subscription.snapshot.clone()),
    });
    match WAITS.wait(keeper, word, owner, is_open, told)? {
        Waited::Changed(now) => Ok(Some(now as u64)),
        Waited::Waits(ticket) => {
            *place = Some(ticket);
            Ok(None)
        }
    }
}

/// On a thread of this library.
fn changed(subscription: &ResourceArc<Subscription>, result: emmap_core::Result<i64>) {
    let mut result = result.map(|number| number as u64);
    loop {
        if subscription.ended.load(Ordering::SeqCst) {
            return;
        }
        let mut env = OwnedEnv::new();
        let sent = env.send_and_clear(&subscription.pid, |env| {
            let what = match result {
                Ok(number) => number.encode(env),
                Err(error) => failure(error).encode(env),
            };
            (atoms::emmap_snapshot(), subscription, what).encode(env)
        });
        let (Ok(()), Ok(number)) = (sent, result) else {
            return;
        };
        match follow(subscription, number) {
            Ok(None) => return,
            Ok(Some(next)) => result = Ok(next),
            Err(error) => result = Err(error),
        }
    }
}

// `{:ok, subscription}`: the message `{:emmap_snapshot, subscription, number}` follows each version after the current one.
#[rustler::nif(schedule = "Normal")]
fn snapshot_subscribe<'a>(env: Env<'a>, snapshot: Term<'a>) -> NifResult<Term<'a>> {
    let state = decoded(env, snapshot)?;
    let now = state
        .lock()
        .and_then(|lock| Ok(snapshot::number(lock.region())?));
    let mut number = match now {
        Ok(number) => number,
        Err(failure) => return Ok(failure.encode(env)),
    };
    monitors::listen();
    let subscription = ResourceArc::new(Subscription {
        // SAFETY: `state` is that of an argument.
        snapshot: Arc::new(unsafe { KeptSnapshot::of(state) }),
        pid: env.pid(),
        ended: AtomicBool::new(false),
        ticket: Mutex::new(None),
    });
    loop {
        match follow(&subscription, number) {
            // Published during this call.
            Ok(Some(newer)) => number = newer,
            Ok(None) => break,
            Err(error) => return Ok(failure(error).encode(env)),
        }
    }
    // `None`: the process is being killed.
    if subscription.monitor(Some(env), &env.pid()).is_none() {
        subscription.end();
    }
    Ok((atom::ok(), subscription).encode(env))
}

#[rustler::nif(schedule = "Normal")]
fn snapshot_unsubscribe(subscription: Term) -> bool {
    let subscription = subscription.decode::<ResourceArc<Subscription>>();
    subscription.is_ok_and(|subscription| subscription.end())
}

// Releases the map of the file if it is the last handle.
#[rustler::nif(schedule = "DirtyIo")]
fn snapshot_close<'a>(env: Env<'a>, snapshot: Term<'a>) -> NifResult<Term<'a>> {
    let state = decoded(env, snapshot)?;
    if !state.close() {
        return Ok(Failure::Closed.encode(env));
    }
    // The lock of a publisher, and the map.
    let _ = state.session.close(env);
    Ok(atom::ok().encode(env))
}

/// For the destructor of the resource.
pub fn drop_state(state: Arc<State>) {
    state.close();
}
