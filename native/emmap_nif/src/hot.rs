//! The hot kind of NIF.
//!
//! `#[rustler::nif]` collects its arguments in a `Vec`, and a `ResourceArc` argument looks up its type
//! in a hash map and counts a reference: together 35 ns in a call whose work takes 5. A hot
//! NIF is a raw C function that decodes its arguments in place. It still catches panics, which costs nothing
//! until one happens. Only [`crate::array`], [`crate::io`], [`crate::atomics`], [`crate::counters`], [`crate::lines`],
//! [`crate::queue`], [`crate::search`], [`crate::typed`] and [`crate::words`] are written in this way.

mod arguments;
mod results;

use std::any::Any;
use std::cell::Cell;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::raw::c_int;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Duration;

use emmap_core::region::Wait;
use emmap_core::Errno;
use rustler::sys::{
    enif_consume_timeslice, enif_raise_exception, enif_schedule_nif, enif_self, ErlNifEnv,
    ErlNifPid, ErlNifTerm,
};
use rustler::types::atom;
use rustler::{Atom, Encoder, Env, Error, LocalPid, NifResult, SchedulerFlags, Term};

use results::{encode, raise};

use crate::interrupting::interruptible;
use crate::terms::{ArgumentError, Failure};
use crate::waiting::Kind;

/// Copies of up to this many bytes run on the calling scheduler. A longer copy would delay that
/// scheduler, and anything may wait, so both run on a dirty I/O scheduler.
pub const INLINE_BYTES: usize = 64 << 10;

/// How long a call works on a dirty scheduler before others get a turn there, and before a kill or a `close` can
/// end it. There are as many dirty CPU schedulers as cores, and the VM also collects large heaps on them.
pub const AT_ONCE_DIRTY: Duration = Duration::from_millis(2);

pub type RawNif = unsafe extern "C" fn(*mut ErlNifEnv, c_int, *const ErlNifTerm) -> ErlNifTerm;

/// Why a body ends without a result. [`run`] converts it to a term.
///
/// The contents are at most as long as a pointer, so that an `Early` is passed in two registers.
pub enum Early {
    /// `{:error, :closed}`
    Closed,
    /// `{:error, posix}`: the number of an [`Errno`].
    Posix(i64),
    /// `{:error, atom}`, for another reason.
    Reason(Atom),
    Raise(&'static ArgumentError),
    /// A term of the call's environment.
    RaiseTerm(ErlNifTerm),
    /// Nothing was done: the same call has to be repeated where it may wait.
    Again,
}

impl Early {
    /// The result of a call in a message: whether the process has to raise the term, and the term.
    fn told<'a>(self, env: Env<'a>, call: &Call) -> (bool, Term<'a>) {
        match self {
            Early::Closed => (false, Failure::Closed.encode(env)),
            Early::Posix(error) => (false, Failure::Posix(Errno(error as i32)).encode(env)),
            Early::Reason(reason) => (false, (atom::error(), reason).encode(env)),
            Early::Raise(error) if error.1 == 0 => (true, error.encode(env)),
            Early::Raise(error) => {
                // SAFETY: a term of this environment.
                let argument = unsafe { Term::new(env, call.argument(error.1)) };
                (true, error.showing(env, argument).encode(env))
            }
            // SAFETY: a term of this environment.
            Early::RaiseTerm(term) => (true, unsafe { Term::new(env, term) }),
            // In such a call, everything may wait, so this does not occur.
            Early::Again => (false, Failure::from(Errno::BUSY).encode(env)),
        }
    }
}

impl From<Errno> for Early {
    #[inline(always)]
    fn from(error: Errno) -> Early {
        Early::Posix(error.0.into())
    }
}

impl From<Failure> for Early {
    #[inline(always)]
    fn from(failure: Failure) -> Early {
        match failure {
            Failure::Closed => Early::Closed,
            Failure::Posix(error) => error.into(),
        }
    }
}

impl From<&'static ArgumentError> for Early {
    #[inline(always)]
    fn from(error: &'static ArgumentError) -> Early {
        Early::Raise(error)
    }
}

/// Where a call continues that could not be done immediately.
pub struct Elsewhere {
    pub name: &'static CStr,
    pub arity: usize,
    pub raw: RawNif,
    pub scheduler: SchedulerFlags,
}

/// The kind of scheduler on which a body runs. A separate body is compiled for each.
pub trait Scheduler {
    /// Whether the body may wait, and may take long.
    const WAIT: Wait;
}

pub enum Normal {}
pub enum Dirty {}

impl Scheduler for Normal {
    const WAIT: Wait = Wait::No;
}

impl Scheduler for Dirty {
    const WAIT: Wait = Wait::Yes;
}

/// Declares a hot NIF, on a normal scheduler.
///
/// - `hot_nif!("name" / arity = body)`: `body` takes a [`Call`] and never waits.
/// - `hot_nif!("name" / arity = body, DirtyIo)`: `body` also has a type parameter, the kind of [`Scheduler`] that it runs
///   on. That is a normal one first; when the body returns [`Early::Again`], it is called again with the same arguments,
///   on that dirty one.
macro_rules! hot_nif {
    ($name:literal / $arity:literal = $body:ident) => {
        $crate::hot::register!($name, $arity, $crate::hot::raw_nif!([] None, $body));
    };
    ($name:literal / $arity:literal = $body:ident, $scheduler:ident) => {
        $crate::hot::waitable!($name, $arity, false, |call| $body::<$crate::hot::Dirty>(call));
        $crate::hot::register!($name, $arity, {
            const ELSEWHERE: &$crate::hot::Elsewhere = &$crate::hot::Elsewhere {
                name: $crate::hot::c_name(concat!($name, "\0")),
                arity: $arity,
                raw: $crate::hot::dirty_nif!($body::<$crate::hot::Dirty>),
                scheduler: rustler::SchedulerFlags::$scheduler,
            };
            $crate::hot::raw_nif!([] Some(ELSEWHERE), $body::<$crate::hot::Normal>)
        });
    };
}

macro_rules! register {
    ($name:literal, $arity:literal, $raw:expr) => {
        $crate::hot::register!($name, $arity, $raw, Normal);
    };
    ($name:literal, $arity:literal, $raw:expr, $scheduler:ident) => {
        rustler::codegen_runtime::inventory::submit! {
            rustler::Nif {
                name: concat!($name, "\0").as_ptr().cast(),
                arity: $arity,
                flags: rustler::SchedulerFlags::$scheduler as rustler::codegen_runtime::c_uint,
                raw_func: $raw,
            }
        }
    };
}

/// A raw C function around a body.
macro_rules! raw_nif {
    ([$(#[$attribute:meta])?] $elsewhere:expr, $body:path) => {{
        $(#[$attribute])?
        unsafe extern "C" fn raw(
            env: *mut rustler::sys::ErlNifEnv,
            argc: std::os::raw::c_int,
            argv: *const rustler::sys::ErlNifTerm,
        ) -> rustler::sys::ErlNifTerm {
            // SAFETY: the VM passes the arity it registered, and terms of this environment.
            unsafe { $crate::hot::run(env, argc, argv, $elsewhere, $body) }
        }
        raw
    }};
}

/// A raw C function around a body that may wait. On a dirty scheduler, it waits only for a moment.
macro_rules! dirty_nif {
    ($body:path) => {{
        #[cold]
        unsafe extern "C" fn raw(
            env: *mut rustler::sys::ErlNifEnv,
            argc: std::os::raw::c_int,
            argv: *const rustler::sys::ErlNifTerm,
        ) -> rustler::sys::ErlNifTerm {
            // SAFETY: the VM passes the arity it registered, and terms of this environment.
            emmap_core::patience::briefly(|| unsafe {
                $crate::hot::run(env, argc, argv, None, $body)
            })
        }
        raw
    }};
}

/// Lets a thread of [`crate::waiting`] run a body.
macro_rules! waitable {
    ($name:literal, $arity:literal, $shared:literal, $body:expr) => {
        rustler::codegen_runtime::inventory::submit! {
            $crate::waiting::Waitable {
                name: $name,
                arity: $arity,
                body: $body,
                shared: $shared,
            }
        }
    };
}

/// Where a call continues in `body`, with other arguments, if it may wait.
macro_rules! elsewhere {
    ($name:literal / $arity:literal = $body:path) => {
        $crate::hot::elsewhere!($name / $arity = $body, DirtyIo)
    };
    ($name:literal / $arity:literal = $body:path, $scheduler:ident) => {{
        $crate::hot::waitable!($name, $arity, false, $body);
        &$crate::hot::Elsewhere {
            name: $crate::hot::c_name(concat!($name, "\0")),
            arity: $arity,
            raw: $crate::hot::dirty_nif!($body),
            scheduler: rustler::SchedulerFlags::$scheduler,
        }
    }};
}

/// Declares a cold NIF that may have to wait for a lock: a function of an environment and of decoded arguments.
///
/// - `cold_nif!(Scheduler, "name" / arity = function(argument, …))`: it runs on that scheduler, and continues in a thread of
///   [`crate::waiting`] if it has to wait.
/// - `cold_nif!(Kind::…, shared, …)`: it runs only in such a thread, because it takes locks in several steps; with `true`,
///   once for all callers that arrive in the meantime.
macro_rules! cold_nif {
    ($scheduler:ident, $name:literal / $arity:literal = $function:ident($($argument:ident),*)) => {
        const _: () = {
            fn body(call: &$crate::hot::Call) -> Result<rustler::sys::ErlNifTerm, $crate::hot::Early> {
                $crate::hot::decoded!(call, $function($($argument),*))
            }
            $crate::hot::waitable!($name, $arity, false, body);
            $crate::hot::register!($name, $arity, $crate::hot::dirty_nif!(body), $scheduler);
        };
    };
    ($kind:expr, $shared:literal, $name:literal / $arity:literal = $function:ident($($argument:ident),*)) => {
        const _: () = {
            fn body(call: &$crate::hot::Call) -> Result<rustler::sys::ErlNifTerm, $crate::hot::Early> {
                $crate::hot::decoded!(call, $function($($argument),*))
            }
            fn wait(call: &$crate::hot::Call) -> Result<rustler::sys::ErlNifTerm, $crate::hot::Early> {
                Ok(call.with_env(|env| rustler::Encoder::encode(&$kind, env).as_c_arg()))
            }
            $crate::hot::waitable!($name, $arity, $shared, body);
            $crate::hot::register!($name, $arity, $crate::hot::raw_nif!([] None, wait));
        };
    };
}

/// Calls a function with the decoded arguments of a call.
macro_rules! decoded {
    ($call:ident, $function:ident($($argument:ident),*)) => {
        $call.with_terms(|env, terms| {
            let [$($argument),*] = terms else {
                return Err(rustler::Error::BadArg);
            };
            $crate::hot::Answer::answer($function(env, $($argument.decode()?),*))
        })
    };
}

pub(crate) use {cold_nif, decoded, dirty_nif, elsewhere, hot_nif, raw_nif, register, waitable};

/// What a cold function returns.
pub trait Answer<'a> {
    fn answer(self) -> NifResult<Term<'a>>;
}

impl<'a> Answer<'a> for Term<'a> {
    fn answer(self) -> NifResult<Term<'a>> {
        Ok(self)
    }
}

impl<'a> Answer<'a> for NifResult<Term<'a>> {
    fn answer(self) -> NifResult<Term<'a>> {
        self
    }
}

/// A name that ends with NUL, which is checked at compile time.
pub const fn c_name(name: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(name.as_bytes()) {
        Ok(name) => name,
        Err(_) => panic!("no name of a C function"),
    }
}

/// # Safety
/// The arguments must be those that the VM passed to a NIF.
#[inline(always)]
pub unsafe fn run(
    env: *mut ErlNifEnv,
    argc: c_int,
    argv: *const ErlNifTerm,
    elsewhere: Option<&'static Elsewhere>,
    body: impl FnOnce(&Call) -> Result<ErlNifTerm, Early>,
) -> ErlNifTerm {
    let call = Call { env, argc, argv };
    let caught = catch_unwind(AssertUnwindSafe(|| match body(&call) {
        Ok(term) => term,
        // SAFETY: the caller's promise.
        Err(early) => unsafe { ended_early(env, argv, early, elsewhere) },
    }));
    match caught {
        Ok(term) => term,
        // SAFETY: the caller's promise.
        Err(panic) => unsafe { panicked(env, panic) },
    }
}

/// The result of a body that ended early. (Its parameters are separate words, because a `Call` that is passed on is in
/// memory, and not in registers.)
///
/// # Safety
/// As [`run`].
#[cold]
#[inline(never)]
unsafe fn ended_early(
    env: *mut ErlNifEnv,
    argv: *const ErlNifTerm,
    early: Early,
    elsewhere: Option<&'static Elsewhere>,
) -> ErlNifTerm {
    // SAFETY: the caller's promise; a call goes on with as many arguments as it has, and an error shows one of them.
    unsafe {
        match early {
            Early::Closed => encode(env, &Failure::Closed),
            Early::Posix(error) => encode(env, &Failure::Posix(Errno(error as i32))),
            Early::Reason(reason) => encode(env, &(atom::error(), reason)),
            Early::Raise(error) if error.1 == 0 => raise(env, error),
            Early::Raise(error) => {
                let lifetime = ();
                let env = Env::new(&lifetime, env);
                let argument = Term::new(env, *argv.add(error.1));
                raise(env.as_c_arg(), &error.showing(env, argument))
            }
            Early::RaiseTerm(term) => enif_raise_exception(env, term),
            Early::Again => match elsewhere {
                Some(elsewhere) => elsewhere.go_on(env, argv),
                // On a dirty scheduler: another copy is running.
                None => encode(env, &Kind::Copy),
            },
        }
    }
}

/// Raises `:nif_panicked`, as rustler does for cold NIFs: a panic is a bug of this library, not of the caller.
///
/// # Safety
/// As [`run`].
#[cold]
#[inline(never)]
unsafe fn panicked(env: *mut ErlNifEnv, panic: Box<dyn Any + Send>) -> ErlNifTerm {
    drop(panic);
    // SAFETY: the caller's promise.
    unsafe { raise(env, &atom::nif_panicked()) }
}

impl Elsewhere {
    /// # Safety
    /// As [`run`]; `argv` must have as many terms as the arity says.
    unsafe fn go_on(&self, env: *mut ErlNifEnv, argv: *const ErlNifTerm) -> ErlNifTerm {
        let (name, argc, flags) = (
            self.name.as_ptr(),
            self.arity as c_int,
            self.scheduler as c_int,
        );
        // SAFETY: the caller's promise; the VM copies name and arguments.
        unsafe { enif_schedule_nif(env, name, flags, self.raw, argc, argv) }
    }
}

/// The call of a hot NIF. [`arguments`] decodes its arguments, and [`results`] encodes its result.
///
/// Its `SAFETY` comments rely on one invariant: a `Call` is made only by [`run`] and never outlives
/// it, so `env` belongs to the running process and `argv` has `argc` terms of it.
///
/// Code that is needed in every call is inlined; other code is in cold functions. Those take the `Call` by value,
/// because a `Call` whose address is passed on is in memory, and not in registers.
#[derive(Clone, Copy)]
pub struct Call {
    env: *mut ErlNifEnv,
    /// Below 0 in the environment of a message: see [`Call::in_message`].
    argc: c_int,
    argv: *const ErlNifTerm,
}

thread_local! {
    /// The process for which this thread makes a call.
    static CALLER: Cell<Option<ErlNifPid>> = const { Cell::new(None) };
}

impl Call {
    /// Makes a call for a process, on a thread that may wait, with terms of the environment of a message. Returns whether
    /// the process has to raise the term, and the term.
    pub fn in_message<'a>(
        env: Env<'a>,
        pid: LocalPid,
        arguments: &[ErlNifTerm],
        body: fn(&Call) -> Result<ErlNifTerm, Early>,
    ) -> (bool, Term<'a>) {
        let call = Call {
            env: env.as_c_arg(),
            argc: -1 - arguments.len() as c_int,
            argv: arguments.as_ptr(),
        };
        CALLER.set(Some(*pid.as_c_arg()));
        let ended = catch_unwind(AssertUnwindSafe(|| body(&call)));
        CALLER.set(None);
        match ended {
            // SAFETY: a body returns a term of its environment.
            Ok(Ok(term)) => (false, unsafe { Term::new(env, term) }),
            Ok(Err(early)) => early.told(env, &call),
            Err(_) => (true, atom::nif_panicked().to_term(env)),
        }
    }

    fn is_in_message(&self) -> bool {
        self.argc < 0
    }

    fn arity(&self) -> usize {
        match self.argc {
            of_message if of_message < 0 => (-1 - of_message) as usize,
            argc => argc as usize,
        }
    }

    /// The environment and the arguments, for a function that decodes them.
    pub fn with_terms(
        &self,
        act: impl for<'a> FnOnce(Env<'a>, &[Term<'a>]) -> NifResult<Term<'a>>,
    ) -> Result<ErlNifTerm, Early> {
        self.with_env(|env| {
            let terms: Vec<Term> = (0..self.arity())
                // SAFETY: the Call invariant.
                .map(|index| unsafe { Term::new(env, self.argument(index)) })
                .collect();
            match act(env, &terms) {
                Ok(term) => Ok(term.as_c_arg()),
                Err(Error::RaiseTerm(reason)) => {
                    Err(Early::RaiseTerm(reason.encode(env).as_c_arg()))
                }
                Err(_) => Err(Early::RaiseTerm(atom::badarg().as_c_arg())),
            }
        })
    }

    /// Whether the environment belongs to the calling process, so that monitors can be created from it.
    pub fn own_env(&self) -> bool {
        !self.is_in_message()
    }

    /// The environment, for code that is not written here.
    pub fn with_env<T>(&self, act: impl FnOnce(Env<'_>) -> T) -> T {
        let lifetime = ();
        // SAFETY: the Call invariant; nothing of it outlives `act`.
        act(unsafe { Env::new(&lifetime, self.env) })
    }

    /// Runs `act`, whose long loops end early after the calling process was killed.
    pub fn interruptible<T>(&self, act: impl FnOnce() -> T) -> T {
        self.with_env(|env| interruptible(env, act))
    }

    /// The calling process.
    #[inline(always)]
    pub fn pid(&self) -> ErlNifPid {
        if self.is_in_message() {
            if let Some(pid) = CALLER.get() {
                return pid;
            }
        }
        let mut pid = MaybeUninit::uninit();
        // SAFETY: the Call invariant; a NIF has a process, so `pid` is set.
        unsafe {
            enif_self(self.env, pid.as_mut_ptr());
            pid.assume_init()
        }
    }

    /// Tells the scheduler about a copy. Otherwise, a call of a NIF counts as one reduction, whatever it did.
    #[inline(always)]
    pub fn consumed(&self, bytes: usize) {
        const BYTES_OF_A_PERCENT: usize = 64 << 10;
        if bytes >= BYTES_OF_A_PERCENT && !self.is_in_message() {
            // A hundredth of a timeslice is about 10 microseconds, in which at least this much is copied, even from memory that
            // is not in a cache.
            // SAFETY: the Call invariant.
            unsafe { enif_consume_timeslice(self.env, (bytes / BYTES_OF_A_PERCENT) as c_int) };
        }
    }

    /// As [`Call::consumed`], for a known duration.
    pub fn consumed_time(&self, time: Duration) {
        const MICROSECONDS_OF_A_PERCENT: u128 = 10;
        let percent = (time.as_micros() / MICROSECONDS_OF_A_PERCENT).min(100);
        if percent > 0 {
            // SAFETY: the Call invariant.
            unsafe { enif_consume_timeslice(self.env, percent as c_int) };
        }
    }

    /// As [`Call::consumed`], for a batch: an item counts about as much as a separate call.
    pub fn consumed_items(&self, items: usize, bytes: usize) {
        const ITEMS_OF_A_PERCENT: usize = 100;
        let percent = items / ITEMS_OF_A_PERCENT + bytes / INLINE_BYTES;
        if percent > 0 && !self.is_in_message() {
            // SAFETY: the Call invariant.
            unsafe { enif_consume_timeslice(self.env, percent.min(100) as c_int) };
        }
    }

    /// Continues in a thread that may wait, with the handle and these arguments: `{:wait, kind, name, one, other}`.
    #[cold]
    pub fn wait_for_copy(
        &self,
        elsewhere: &Elsewhere,
        [one, other]: [ErlNifTerm; 2],
    ) -> ErlNifTerm {
        let (wait, name) = self.with_env(|env| {
            let name = elsewhere.name.to_str().ok();
            let name = name.and_then(|name| Atom::from_str(env, name).ok());
            (
                crate::waiting::wait_atom(),
                name.unwrap_or_else(atom::error),
            )
        });
        let kind = self.uint64(Kind::Copy as u64);
        self.tuple(&[wait.as_c_arg(), kind, name.as_c_arg(), one, other])
    }

    /// Continues elsewhere, with other arguments.
    #[cold]
    #[inline(never)]
    pub fn go_on<const N: usize>(
        self,
        elsewhere: &Elsewhere,
        arguments: [ErlNifTerm; N],
    ) -> ErlNifTerm {
        debug_assert_eq!(N, elsewhere.arity);
        // SAFETY: the Call invariant, and the line above.
        unsafe { elsewhere.go_on(self.env, arguments.as_ptr()) }
    }
}
