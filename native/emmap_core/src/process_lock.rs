//! A lock that processes hold for as long as they like, in any number of programs. It is released when its holder ends,
//! however that ends, and the next holder learns of it.
//!
//! Between programs, it is a word of a control file ([`crate::control_file`]), as in [`crate::store::exclusive`]. Inside of a
//! program, a list has the holder and the waiting processes. Only one thread of a program waits for other programs: for the word, and
//! for the life of the program that has it. Nobody polls.
//!
//! `W` is whatever tells a waiter that it has the lock.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::control_file::{ABANDONED, LIFE, LOCK, PARTICIPANTS, WAITING};
use crate::os::{self, DeathNotice, Expected, DIED};
use crate::store::exclusive::{self, Owner, Taken};
use crate::store::participants::{Others, Presence, SLOTS};
use crate::store::shared::Mapped;
use crate::store::Shared;
use crate::word_waits::{halves, halves_of};
use crate::{Errno, Region, Result};

/// How the lock was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    Clean,
    /// Its previous holder ended without releasing it: what it protects may be half changed.
    Abandoned,
}

/// The result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    Received(Received),
    /// The waiter is told later.
    Waits,
    /// Another one has it.
    Taken,
    /// The caller has it already.
    Own,
}

/// One who waits for the lock or has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub number: u64,
    /// The handle that it used.
    pub session: usize,
    /// Identifies the process.
    pub process: u64,
}

struct Waiter<W> {
    member: Member,
    who: W,
}

struct State<W> {
    holder: Option<Member>,
    waiting: VecDeque<Waiter<W>>,
    /// Whether the thread runs.
    contends: bool,
    /// How often it was passed on without giving it to other programs.
    passed: u32,
}

/// How often the lock is passed on inside of a program while others wait.
const MOST_PASSED: u32 = 16;
/// How often a thread looks while the holder dies: the kernel wakes it a moment before it releases the holder's slot.
const WHILE_IT_DIES: Duration = Duration::from_millis(1);
/// How often it looks in any case: the only thread that the kernel woke may have died, too.
const SELDOM: Duration = Duration::from_secs(1);
/// How often it looks where the kernel does not tell.
const WITHOUT_NOTICE: Duration = Duration::from_millis(20);

/// The lock, as all handles of this program share it.
pub struct ProcessLock<W> {
    // Before the region, which has its word.
    notice: Mutex<Option<DeathNotice>>,
    region: Region,
    presence: Arc<Presence>,
    state: Mutex<State<W>>,
    /// Changes when the thread has to look.
    calls: AtomicU32,
    /// Tells a waiter, on the thread.
    tell: fn(W, Result<Received>),
}

/// The process that the caller has to tell that it has received the lock.
pub type ToTell<W> = Option<(W, Received)>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<W: Send + 'static> ProcessLock<W> {
    /// Takes part with the map of a control file. EUSERS: 64 programs have it open.
    pub fn enter(region: Region, tell: fn(W, Result<Received>)) -> Result<ProcessLock<W>> {
        let file = region.clone_file()?;
        let presence = {
            let _lock = os::FileLock::wait(file.as_fd())?;
            region.writing(|| {
                let shared = Mapped::new(&region);
                let presence = Presence::enter(file.as_fd(), &shared, &PARTICIPANTS)?;
                // Left by a program that had this slot before.
                shared.store(PARTICIPANTS.of(presence.owner().slot()) + LIFE, 0)?;
                Ok::<_, Errno>(presence)
            })?
        };
        Ok(ProcessLock {
            notice: Mutex::new(None),
            region,
            presence,
            state: Mutex::new(State {
                holder: None,
                waiting: VecDeque::new(),
                contends: false,
                passed: 0,
            }),
            calls: AtomicU32::new(0),
            tell,
        })
    }

    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Held by a thread that changes what the lock protects, and may still do so after its process was killed and has lost the
    /// lock.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.presence.turn()
    }

    fn me(&self) -> Owner {
        self.presence.owner()
    }

    fn state(&self) -> MutexGuard<'_, State<W>> {
        lock(&self.state)
    }

    /// Takes the word, if it is free or its owner is dead.
    fn take(&self) -> Result<Option<Received>> {
        self.show_life()?;
        self.region.writing(|| {
            let shared = Mapped::new(&self.region);
            let others = Others {
                presence: &self.presence,
                shared: &shared,
                place: &PARTICIPANTS,
            };
            let me = self.me();
            match exclusive::attempt(&shared, LOCK, me, &others)? {
                // No member has it: an error prevented its release.
                None if Owner::of_word(shared.load(LOCK)?) == Some(me) => {
                    Ok(Some(Received::Abandoned))
                }
                None => Ok(None),
                Some(Taken::Free) => self.received(&shared).map(Some),
                Some(Taken::FromDead) => {
                    shared.store(ABANDONED, 1)?;
                    // Others wait for the life of the dead.
                    self.wake_programs(&shared)?;
                    Ok(Some(Received::Abandoned))
                }
            }
        })
    }

    fn received(&self, shared: &Mapped) -> Result<Received> {
        Ok(match shared.load(ABANDONED)? {
            0 => Received::Clean,
            _ => Received::Abandoned,
        })
    }

    /// Starts the thread whose life shows that of this program. To be called before the first request, by a thread that may
    /// wait for a moment.
    pub fn prepare(&self) -> Result<()> {
        self.show_life()
    }

    /// Before this program has the lock for the first time.
    fn show_life(&self) -> Result<()> {
        let mut notice = lock(&self.notice);
        if notice.is_none() {
            let word = self.life(self.me().slot())?;
            // SAFETY: the notice is dropped before the region, which keeps its words mapped (1: Alive in `region.rs`).
            *notice = Some(unsafe { DeathNotice::new(word)? });
        }
        Ok(())
    }

    fn life(&self, slot: u32) -> Result<&AtomicU32> {
        let word = self.region.word(PARTICIPANTS.of(slot) + LIFE)?;
        // SAFETY: a half of a word inside of the map, which stays mapped for as long as the region lives (1: Alive).
        Ok(unsafe { &*halves(word)[0] })
    }

    /// Wakes the threads of other programs that wait, if there are any.
    fn wake_programs(&self, shared: &Mapped) -> Result<()> {
        if shared.update(WAITING, 0, 0)? != 0 {
            let word = self.region.word(LOCK)?;
            // SAFETY: as in `life`.
            os::futex_wake(unsafe { &*halves(word)[0] });
        }
        Ok(())
    }

    /// Asks for the lock. `who`: what tells the member that it has received the lock; `None`: it does not wait.
    pub fn request(self: &Arc<Self>, member: Member, who: Option<W>) -> Result<Requested> {
        let mut state = self.state();
        if let Some(holder) = state.holder {
            if holder.process == member.process {
                return Ok(Requested::Own);
            }
        } else if state.waiting.is_empty() {
            if let Some(received) = self.take()? {
                state.holder = Some(member);
                state.passed = 0;
                return Ok(Requested::Received(received));
            }
        }
        let Some(who) = who else {
            return Ok(Requested::Taken);
        };
        state.waiting.push_back(Waiter { member, who });
        if let Err(error) = self.contend_if_necessary(&mut state) {
            state.waiting.pop_back();
            return Err(error);
        }
        Ok(Requested::Waits)
    }

    /// Starts the thread if members wait and none has the lock.
    fn contend_if_necessary(self: &Arc<Self>, state: &mut State<W>) -> Result<()> {
        if state.holder.is_some() || state.waiting.is_empty() || state.contends {
            return Ok(());
        }
        let this = self.clone();
        let thread = std::thread::Builder::new()
            .name("emmap_lock".into())
            .stack_size(256 << 10);
        let spawned = thread.spawn(move || {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| this.contend()));
        });
        spawned.map_err(|_| Errno(libc::EAGAIN))?;
        state.contends = true;
        Ok(())
    }

    /// The thread: waits for other programs, as long as a member waits.
    fn contend(&self) {
        loop {
            let seen = self.calls.load(Ordering::SeqCst);
            let mut state = self.state();
            let Some(first) = state.waiting.front() else {
                self.end_contending(&mut state);
                return;
            };
            let member = first.member;
            match self.take() {
                Ok(None) => drop(state),
                Ok(Some(received)) => {
                    let waiter = state.waiting.pop_front();
                    state.holder = Some(member);
                    state.passed = 0;
                    self.end_contending(&mut state);
                    drop(state);
                    if let Some(waiter) = waiter {
                        (self.tell)(waiter.who, Ok(received));
                    }
                    return;
                }
                Err(error) => {
                    let waiting = std::mem::take(&mut state.waiting);
                    self.end_contending(&mut state);
                    drop(state);
                    for waiter in waiting {
                        (self.tell)(waiter.who, Err(error));
                    }
                    return;
                }
            }
            if self.sleep(seen).is_err() {
                // The next attempt gets the error.
                std::thread::sleep(WHILE_IT_DIES);
            }
        }
    }

    /// Under the lock of the state: the next thread sets the bit again.
    fn end_contending(&self, state: &mut State<W>) {
        state.contends = false;
        self.set_waiting(false);
    }

    /// Sets whether this program is woken.
    fn set_waiting(&self, waits: bool) {
        let bit = 1 << self.me().slot();
        let (set, clear) = if waits { (bit, 0) } else { (0, bit) };
        let _ = self
            .region
            .writing(|| Mapped::new(&self.region).update(WAITING, set, clear));
    }

    /// Until the word, or the life of the program that has it, changes.
    fn sleep(&self, seen: u32) -> Result<()> {
        self.set_waiting(true);
        let word = self.region.word(LOCK)?;
        let value = self
            .region
            .reading(|| Ok::<_, Errno>(word.load(Ordering::SeqCst)))?;
        let owner = Owner::of_word(value as u64);
        let Some(owner) = owner.filter(|owner| owner.slot() < SLOTS) else {
            return Ok(());
        };
        let life = self.life(owner.slot())?;
        let lives = life.load(Ordering::SeqCst);
        let longest = match (lives, lives & DIED) {
            (0, _) => WITHOUT_NOTICE,
            (_, 0) => SELDOM,
            _ => WHILE_IT_DIES,
        };
        let [low, high] = halves(word);
        let [low_value, high_value] = halves_of(value);
        if !os::has_futex_wait_any() {
            // SAFETY: as in `life`.
            let low = unsafe { &*low };
            os::futex_wait(low, low_value, Some(longest.min(WITHOUT_NOTICE)));
            return Ok(());
        }
        let of = |word: *const AtomicU32, value: u32| Expected { word, value };
        let words = [
            of(&self.calls, seen),
            of(low, low_value),
            of(high, high_value),
            of(life, lives),
        ];
        // SAFETY: `self` keeps the region, whose words stay mapped for as long as it lives.
        unsafe { os::futex_wait_any(&words, Some(longest)) }
    }

    /// Releases the lock. `clean`: what it protects is consistent. EPERM: another one has it. The caller has to tell the next
    /// one.
    pub fn release(
        self: &Arc<Self>,
        is_holder: impl FnOnce(Member) -> bool,
        clean: bool,
    ) -> Result<ToTell<W>> {
        let mut state = self.state();
        if !state.holder.is_some_and(is_holder) {
            return Err(Errno::PERM);
        }
        state.holder = None;
        let next = self.pass_on(&mut state, clean);
        if next.is_err() {
            // The thread gets the error, and tells all who wait.
            let _ = self.contend_if_necessary(&mut state);
        }
        next
    }

    fn pass_on(self: &Arc<Self>, state: &mut State<W>, clean: bool) -> Result<ToTell<W>> {
        let passed = self.region.writing(|| {
            let shared = Mapped::new(&self.region);
            shared.store(ABANDONED, u64::from(!clean))?;
            let mine = 1 << self.me().slot();
            let others_wait = shared.update(WAITING, 0, 0)? & !mine != 0;
            if !state.waiting.is_empty() && (!others_wait || state.passed < MOST_PASSED) {
                return Ok::<_, Errno>(true);
            }
            exclusive::release_own(&shared, LOCK, self.me())?;
            self.wake_programs(&shared)?;
            Ok(false)
        })?;
        // After the check for lost pages: nobody must be forgotten.
        if !passed {
            self.contend_if_necessary(state)?;
            return Ok(None);
        }
        Ok(state.waiting.pop_front().map(|waiter| {
            state.holder = Some(waiter.member);
            state.passed += 1;
            let received = match clean {
                true => Received::Clean,
                false => Received::Abandoned,
            };
            (waiter.who, received)
        }))
    }

    /// A member does not wait any more. `false`: it has, or had, the lock.
    pub fn stop_waiting(&self, number: u64) -> bool {
        let mut state = self.state();
        let position = state
            .waiting
            .iter()
            .position(|waiter| waiter.member.number == number);
        let removed = position.and_then(|position| state.waiting.remove(position));
        if state.waiting.is_empty() && state.contends {
            self.call();
        }
        removed.is_some()
    }

    /// Lets the thread look.
    fn call(&self) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        os::futex_wake(&self.calls);
        if !os::has_futex_wait_any() {
            if let Ok(word) = self.region.word(LOCK) {
                // SAFETY: as in `life`.
                os::futex_wake(unsafe { &*halves(word)[0] });
            }
        }
    }

    /// A handle was closed: returns the processes that waited with it, and the next holder if it had the lock. The caller tells them.
    pub fn end_session(self: &Arc<Self>, session: usize) -> (Vec<W>, ToTell<W>) {
        let mut state = self.state();
        let (ended, left): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut state.waiting)
            .into_iter()
            .partition(|waiter| waiter.member.session == session);
        state.waiting = left;
        if state.contends {
            self.call();
        }
        drop(state);
        let next = self.release(|holder| holder.session == session, false);
        let ended = ended.into_iter().map(|waiter| waiter.who).collect();
        (ended, next.unwrap_or(None))
    }

    /// The member of this program that has the lock.
    pub fn holder(&self) -> Option<Member> {
        self.state().holder
    }

    /// How many members of this program wait.
    pub fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// Whether the lock is taken, by any program.
    pub fn is_taken(&self) -> Result<bool> {
        let word = self
            .region
            .reading(|| Mapped::new(&self.region).load(LOCK))?;
        Ok(word != 0)
    }
}
