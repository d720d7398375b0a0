//! The receivers of notifications that a map has met a fault: the processes that monitor it, and the VM's logger.
//!
//! A fault is met in a signal handler, or in a call. Both only count it and wake one thread, which is started with the
//! first map and serves all of them. The logger gets the same message as for the VM's own log events, so
//! Emmap needs no process for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use emmap_core::word_waits::WAITS;
use emmap_core::{news, Errno, Region};
use rustler::sys::enif_whereis_pid;
use rustler::types::atom;
use rustler::{Encoder, Env, LocalPid, OwnedEnv, Resource, ResourceArc, Term};

use crate::resource::HandleRef;
use crate::terms;

mod atoms {
    rustler::atoms! {
        emmap,
        fault,
        log,
        warning,
        logger_proxy,
        domain,
        emmap_fault,
        path,
        position,
        reason,
    }
}

/// The result of `Emmap.monitor/1`: its term is a unique reference.
pub struct FaultMonitor {
    pid: LocalPid,
    /// The map, as its key in [`Maps`].
    map: usize,
}

#[rustler::resource_impl(name = "emmap_monitor")]
impl Resource for FaultMonitor {
    const IMPLEMENTS_DOWN: bool = true;

    /// The monitoring process has ended.
    fn down<'a>(&'a self, _env: Env<'a>, _pid: LocalPid, _monitor: rustler::Monitor) {
        drop(maps().take(self));
    }
}

struct Watched {
    region: *const Region,
    /// The last fault that was logged.
    logged: u64,
    monitors: Vec<Told>,
}

// SAFETY: a region is `Sync`, and a listed map has its region, because it is removed from the list before the region is
// dropped.
unsafe impl Send for Watched {}

/// A monitor, and the last fault that it was told of.
struct Told {
    monitor: ResourceArc<FaultMonitor>,
    fault: u64,
}

#[derive(Default)]
struct Maps(Option<HashMap<usize, Watched>>);

static MAPS: Mutex<Maps> = Mutex::new(Maps(None));
/// Held while messages are sent, so that none is sent after `demonitor` has returned. Taken before [`MAPS`].
static SENDING: Mutex<()> = Mutex::new(());
static LOGS: AtomicBool = AtomicBool::new(true);
static RUNS: AtomicBool = AtomicBool::new(false);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn maps() -> MutexGuard<'static, Maps> {
    lock(&MAPS)
}

impl Maps {
    fn all(&mut self) -> &mut HashMap<usize, Watched> {
        self.0.get_or_insert_default()
    }

    /// Takes a monitor out of the list; to be dropped when the list is not locked any more.
    fn take(&mut self, monitor: &FaultMonitor) -> Option<Told> {
        let monitors = &mut self.all().get_mut(&monitor.map)?.monitors;
        let same = |told: &Told| std::ptr::eq(&*told.monitor, monitor);
        let index = monitors.iter().position(same)?;
        Some(monitors.swap_remove(index))
    }
}

/// Whether faults are logged, from now on.
pub fn set_logs(logs: bool) {
    LOGS.store(logs, Ordering::Relaxed);
}

/// A map is there, until [`remove`].
///
/// # Safety
/// The region must stay until then.
pub unsafe fn add(map: usize, region: *const Region) {
    let watched = Watched {
        region,
        logged: 0,
        monitors: Vec::new(),
    };
    maps().all().insert(map, watched);
    if LOGS.load(Ordering::Relaxed) {
        start();
    }
}

pub fn remove(map: usize) {
    let removed = maps().all().remove(&map);
    drop(removed);
}

/// The thread that tells; where none can be had, the next map tries again.
fn start() {
    if RUNS.swap(true, Ordering::AcqRel) {
        return;
    }
    let thread = std::thread::Builder::new().name("emmap_faults".into());
    let spawned = thread.stack_size(256 << 10).spawn(|| loop {
        let seen = news::number();
        let _ = std::panic::catch_unwind(tell_all);
        news::wait(seen);
        // What happens at the same time to many maps is told at once.
        std::thread::sleep(Duration::from_millis(5));
    });
    if spawned.is_err() {
        RUNS.store(false, Ordering::Release);
    }
}

struct LogEntry {
    path: Option<String>,
    position: u64,
    reason: Errno,
}

/// Waiters for words of a map hear of its faults, too.
pub fn listen() {
    start();
}

fn tell_all() {
    WAITS.look();
    let _sending = lock(&SENDING);
    let mut to_log = Vec::new();
    let mut to_tell = Vec::new();
    for watched in maps().all().values_mut() {
        // SAFETY: a map that is listed has its region, and the list is locked.
        let region = unsafe { &*watched.region };
        let number = region.fault_number();
        let news = watched.logged != number || watched.monitors.iter().any(|t| t.fault != number);
        let (true, Some((position, reason))) = (news, region.latest_fault()) else {
            continue;
        };
        if watched.logged != number {
            watched.logged = number;
            to_log.push(LogEntry {
                path: region
                    .path()
                    .map(|path| path.to_string_lossy().into_owned()),
                position,
                reason,
            });
        }
        for told in &mut watched.monitors {
            if told.fault != number {
                told.fault = number;
                to_tell.push((told.monitor.clone(), reason));
            }
        }
    }
    let mut env = OwnedEnv::new();
    for (monitor, reason) in to_tell {
        // A process that has ended needs no message.
        let _ = env.send_and_clear(&monitor.pid, |env| message(env, &monitor, reason));
    }
    if LOGS.load(Ordering::Relaxed) {
        if let (false, Some(logger)) = (to_log.is_empty(), logger(&env)) {
            for entry in to_log {
                let _ = env.send_and_clear(&logger, |env| entry.encode(env));
            }
        }
    }
}

/// The process to which the VM sends its own log events.
fn logger(env: &OwnedEnv) -> Option<LocalPid> {
    env.run(|env| {
        let name = atoms::logger_proxy().encode(env);
        let mut pid = std::mem::MaybeUninit::uninit();
        // SAFETY: in a thread that is not the VM's no environment exists; `pid` is set when the result is not 0.
        unsafe {
            match enif_whereis_pid(std::ptr::null_mut(), name.as_c_arg(), pid.as_mut_ptr()) {
                0 => None,
                _ => Some(LocalPid::from_c_arg(pid.assume_init())),
            }
        }
    })
}

/// `{:emmap, reference, :fault, reason}`
fn message<'a>(env: Env<'a>, monitor: &ResourceArc<FaultMonitor>, reason: Errno) -> Term<'a> {
    let reason = terms::reason(env, reason);
    (atoms::emmap(), monitor, atoms::fault(), reason).encode(env)
}

impl LogEntry {
    /// `{log, Level, Format, Arguments, Metadata}`, as the VM's own.
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        let what = self.path.as_deref().unwrap_or("anonymous memory");
        let reason = terms::reason(env, self.reason);
        let characters: Vec<u32> = FORMAT.chars().map(u32::from).collect();
        let arguments = vec![
            what.encode(env),
            self.position.encode(env),
            self.why().encode(env),
            reason.encode(env),
        ];
        let fault = rustler::term_map!(env, {
            atoms::path() => &self.path,
            atoms::position() => self.position,
            atoms::reason() => reason,
        });
        let metadata = rustler::term_map!(env, {
            atoms::domain() => vec![atoms::emmap()],
            atoms::emmap_fault() => fault,
        });
        (
            atoms::log(),
            atoms::warning(),
            characters,
            arguments,
            metadata,
        )
            .encode(env)
    }

    fn why(&self) -> &'static str {
        match self.reason {
            Errno::STALE => "the file was truncated",
            Errno::NOSPC => "the disk has no space for them",
            Errno::IO => "the device failed",
            Errno::NOMEM => "there is no memory for them",
            Errno::PERM => "the file may not be changed any more",
            Errno(libc::EDQUOT) => "the quota is used up",
            Errno(libc::EROFS) => "the file system has become read-only",
            Errno(libc::ETXTBSY) => "the file is in use for swapping",
            Errno(libc::ENOTCONN) => "the server of the file system is gone",
            _ => "the file system refuses them",
        }
    }
}

const FORMAT: &str = "Emmap: pages of ~ts were lost, the first at byte ~b: ~ts. \
                      Calls on the map return the error ~p until it is reattached.";

// `{:ok, reference}`; a map that has a fault by now is told of at once. Sends at most one message.
#[rustler::nif(schedule = "Normal")]
fn monitor<'a>(env: Env<'a>, handle: HandleRef<'a>) -> Term<'a> {
    let region = match handle.0.region() {
        Ok(region) => region,
        Err(failure) => return failure.encode(env),
    };
    let monitor = ResourceArc::new(FaultMonitor {
        pid: env.pid(),
        map: handle.0.map_key(),
    });
    // `None`: the process is being killed, and the monitor with it.
    if monitor.monitor(Some(env), &monitor.pid).is_some() {
        let mut maps = maps();
        let fault = region.fault_number();
        let now = region.check_fault();
        if let Some(watched) = maps.all().get_mut(&monitor.map) {
            let fault = now.map_or_else(|_| region.fault_number(), |()| fault);
            let monitor = monitor.clone();
            watched.monitors.push(Told { monitor, fault });
        }
        drop(maps);
        if let Err(reason) = now {
            let _ = env.send(&monitor.pid, message(env, &monitor, reason));
        }
        start();
    }
    (atom::ok(), monitor).encode(env)
}

// Whether there was such a monitor. Waits while messages are being sent, which takes microseconds for each.
#[rustler::nif(schedule = "Normal")]
fn demonitor(monitor: Term) -> bool {
    let Ok(monitor) = monitor.decode::<ResourceArc<FaultMonitor>>() else {
        return false;
    };
    let _sending = lock(&SENDING);
    let taken = maps().take(&monitor);
    taken.is_some()
}
