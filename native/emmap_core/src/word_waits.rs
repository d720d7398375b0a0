//! Waits until a word of a map changes, in this program or another one, without polling.
//!
//! A 64-bit word is a futex in its least significant half: [`notify`] wakes the threads of all programs that wait there. A
//! waiter compares the whole word, so that a change of the other half is not missed either.
//!
//! [`Waits`] is for a program with many waiters and few threads: a thread waits for all words of a [`Group`] at once
//! (`futex_waitv`). If the system does not have this call, each word has its own thread.

use std::collections::HashMap;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::os::{self, Expected, MOST_WORDS};
use crate::{Errno, Region, Result};

/// How long a thread stays that has nothing to wait for.
const IDLE: Duration = Duration::from_secs(5);
/// How often a thread checks its word where it can wait for only one half of it.
const SELDOM: Duration = Duration::from_secs(1);

/// The halves of a word: the least significant one, which is the futex, and the other.
pub(crate) fn halves(word: &AtomicI64) -> [*const AtomicU32; 2] {
    let first = word.as_ptr().cast_const().cast::<AtomicU32>();
    // Inside of the word.
    let second = first.wrapping_add(1);
    match cfg!(target_endian = "little") {
        true => [first, second],
        false => [second, first],
    }
}

pub(crate) fn halves_of(value: i64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

fn read(region: &Region, position: u64) -> Result<i64> {
    region.reading(|| Ok(region.word(position)?.load(Ordering::SeqCst)))
}

/// Wakes all waiters for the word, in all programs. They continue to wait if it has the value that they expect.
pub fn notify(region: &Region, position: u64) -> Result<()> {
    region.reading(|| {
        let word = region.word(position)?;
        // A lost page is noticed here: the system call below would only fail.
        word.load(Ordering::SeqCst);
        // SAFETY: a half of a word inside of the map, which stays mapped for as long as the region lives (1: Alive in
        // `region.rs`).
        os::futex_wake(unsafe { &*halves(word)[0] });
        Ok(())
    })
}

/// Waits on the calling thread until the word differs from `expected`, and returns it. `None`: `timeout` has passed.
pub fn wait(
    region: &Region,
    position: u64,
    expected: i64,
    timeout: Option<Duration>,
) -> Result<Option<i64>> {
    let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let value = read(region, position)?;
        if value != expected {
            return Ok(Some(value));
        }
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
        let step = left.map_or(SELDOM, |left| left.min(SELDOM));
        // SAFETY: as in `notify`.
        let low = unsafe { &*halves(region.word(position)?)[0] };
        os::futex_wait(low, halves_of(expected)[0], Some(step));
    }
}

/// What keeps a region while others wait for its words.
pub trait Keeper: Send + Sync {
    fn region(&self) -> &Region;
}

/// Called with the new value, or with the error that ended the wait, on a thread of this module. It must not block.
pub type Told = Box<dyn FnOnce(Result<i64>) + Send>;

/// A word, by its region and its position.
type Key = (usize, u64);

/// A waiter that was added.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    key: Key,
    expected: i64,
    number: u64,
}

pub enum Waited {
    /// The word has this other value; nothing is called later.
    Changed(i64),
    Waits(Ticket),
}

struct Waiter {
    told: Told,
    /// Identifies whoever may be closed: see [`Waits::end`].
    owner: usize,
}

struct Word {
    keeper: Arc<dyn Keeper>,
    group: Arc<Group>,
    /// By the value that they expect. After each look, all of them expect the same one.
    waiters: HashMap<i64, HashMap<u64, Waiter>>,
}

/// The words of one thread.
struct Group {
    /// Changes when the thread has to look again.
    calls: AtomicU32,
    state: Mutex<GroupState>,
}

#[derive(Default)]
struct GroupState {
    keys: Vec<Key>,
    /// Waits that ended, to be told by the thread.
    ended: Vec<(Told, Result<i64>)>,
}

#[derive(Default)]
struct All {
    words: HashMap<Key, Word>,
    groups: Vec<Arc<Group>>,
    last: u64,
}

/// The waiters of a program.
pub struct Waits {
    all: Mutex<Option<All>>,
    /// How many there are, for callers that check whether there are any.
    count: AtomicUsize,
    /// Whether one thread can wait for many words.
    many: fn() -> bool,
}

/// All waiters of this program.
pub static WAITS: Waits = Waits::new(os::has_futex_wait_any);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Group {
    /// Lets the thread look again.
    fn call(&self) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        os::futex_wake(&self.calls);
    }
}

impl Waits {
    /// `many`: whether `futex_wait_any` can be called.
    pub const fn new(many: fn() -> bool) -> Waits {
        Waits {
            all: Mutex::new(None),
            count: AtomicUsize::new(0),
            many,
        }
    }

    /// How many words a thread waits for: its own, and both halves of each.
    fn words_of_a_thread(&self) -> usize {
        match (self.many)() {
            true => (MOST_WORDS - 1) / 2,
            false => 1,
        }
    }

    /// Calls `told` once the word differs from `expected`. `is_open` is checked when a call of [`Waits::end`] for `owner`
    /// can no longer miss the waiter.
    pub fn wait(
        &'static self,
        keeper: Arc<dyn Keeper>,
        (position, expected): (u64, i64),
        owner: usize,
        is_open: impl FnOnce() -> bool,
        told: Told,
    ) -> Result<Waited> {
        let value = read(keeper.region(), position)?;
        if value != expected {
            return Ok(Waited::Changed(value));
        }
        let key = (std::ptr::from_ref(keeper.region()) as usize, position);
        let mut guard = lock(&self.all);
        let all = guard.get_or_insert_default();
        if !is_open() {
            return Err(Errno::CLOSED);
        }
        all.last += 1;
        let number = all.last;
        let word = match all.words.get_mut(&key) {
            Some(word) => word,
            None => {
                let group = self.group_with_room(all)?;
                lock(&group.state).keys.push(key);
                all.words.entry(key).or_insert(Word {
                    keeper,
                    group,
                    waiters: HashMap::new(),
                })
            }
        };
        let same = word.waiters.entry(expected).or_default();
        let is_first = same.is_empty();
        same.insert(number, Waiter { told, owner });
        self.count.fetch_add(1, Ordering::SeqCst);
        if is_first {
            // Otherwise, its thread is waiting for a change from this value already, or is about to look.
            word.group.call();
            self.wake_single(word, position);
        }
        Ok(Waited::Waits(Ticket {
            key,
            expected,
            number,
        }))
    }

    /// A group with room for a word, and a thread.
    fn group_with_room(&'static self, all: &mut All) -> Result<Arc<Group>> {
        let most = self.words_of_a_thread();
        let has_room = |group: &&Arc<Group>| lock(&group.state).keys.len() < most;
        if all.words.len() < all.groups.len() * most {
            if let Some(group) = all.groups.iter().find(has_room) {
                return Ok(group.clone());
            }
        }
        let group = Arc::new(Group {
            calls: AtomicU32::new(0),
            state: Mutex::default(),
        });
        let of_thread = group.clone();
        let thread = std::thread::Builder::new()
            .name("emmap_words".into())
            .stack_size(256 << 10);
        thread
            .spawn(move || self.serve(&of_thread))
            .map_err(|_| Errno(libc::EAGAIN))?;
        all.groups.push(group.clone());
        Ok(group)
    }

    /// A thread that can wait for only one word does not notice a call.
    fn wake_single(&self, word: &Word, position: u64) {
        if !(self.many)() {
            let _ = notify(word.keeper.region(), position);
        }
    }

    /// Removes a waiter. `false`: it was told, or is being told.
    pub fn cancel(&self, ticket: Ticket) -> bool {
        let mut guard = lock(&self.all);
        let Some(all) = guard.as_mut() else {
            return false;
        };
        let Some(word) = all.words.get_mut(&ticket.key) else {
            return false;
        };
        let same = word.waiters.get_mut(&ticket.expected);
        let Some(waiter) = same.and_then(|same| same.remove(&ticket.number)) else {
            return false;
        };
        self.count.fetch_sub(1, Ordering::SeqCst);
        word.waiters.retain(|_, same| !same.is_empty());
        let removed = word
            .waiters
            .is_empty()
            .then(|| self.remove(all, ticket.key));
        drop(guard);
        // Not under the lock: these may release a region.
        drop(waiter);
        drop(removed);
        true
    }

    fn remove(&self, all: &mut All, key: Key) -> Option<Word> {
        let word = all.words.remove(&key)?;
        lock(&word.group.state).keys.retain(|other| *other != key);
        word.group.call();
        self.wake_single(&word, key.1);
        Some(word)
    }

    /// Ends the waits of an owner with an error.
    pub fn end(&self, owner: usize, error: Errno) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut guard = lock(&self.all);
        let Some(all) = guard.as_mut() else { return };
        let mut empty = Vec::new();
        for (key, word) in &mut all.words {
            let mut ended = Vec::new();
            for same in word.waiters.values_mut() {
                let numbers: Vec<u64> = same
                    .iter()
                    .filter(|(_, waiter)| waiter.owner == owner)
                    .map(|(number, _)| *number)
                    .collect();
                ended.extend(numbers.iter().filter_map(|number| same.remove(number)));
            }
            if ended.is_empty() {
                continue;
            }
            self.count.fetch_sub(ended.len(), Ordering::SeqCst);
            word.waiters.retain(|_, same| !same.is_empty());
            let ended = ended.into_iter().map(|waiter| (waiter.told, Err(error)));
            lock(&word.group.state).ended.extend(ended);
            word.group.call();
            self.wake_single(word, key.1);
            if word.waiters.is_empty() {
                empty.push(*key);
            }
        }
        let removed: Vec<_> = empty.iter().map(|key| self.remove(all, *key)).collect();
        drop(guard);
        drop(removed);
    }

    /// To be called after a map has met a fault or has become shorter: waiters for its words get the error.
    pub fn look(&self) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let guard = lock(&self.all);
        for word in guard.iter().flat_map(|all| all.words.iter()) {
            word.1.group.call();
            self.wake_single(word.1, word.0 .1);
        }
    }

    /// How many waiters there are.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// The thread.
    fn serve(&self, group: &Arc<Group>) {
        loop {
            let seen = group.calls.load(Ordering::SeqCst);
            let (told, watched, garbage) = self.look_at(group);
            drop(garbage);
            for (told, result) in told {
                // A panic must not end a thread for which others wait.
                let _ = catch_unwind(AssertUnwindSafe(|| told(result)));
            }
            if !watched.is_empty() {
                self.sleep(group, seen, &watched);
                continue;
            }
            os::futex_wait(&group.calls, seen, Some(IDLE));
            if group.calls.load(Ordering::SeqCst) == seen && self.end_idle(group) {
                return;
            }
        }
    }

    /// Takes the waiters that are to be told, and returns the words of the others with the values that they expect.
    #[allow(clippy::type_complexity)] // three lists
    fn look_at(
        &self,
        group: &Group,
    ) -> (Vec<(Told, Result<i64>)>, Vec<Watched>, Vec<Option<Word>>) {
        let mut guard = lock(&self.all);
        let Some(all) = guard.as_mut() else {
            return Default::default();
        };
        let mut state = lock(&group.state);
        let mut told = std::mem::take(&mut state.ended);
        let keys = state.keys.clone();
        drop(state);
        let (mut watched, mut garbage) = (Vec::new(), Vec::new());
        for key in keys {
            let Some(word) = all.words.get_mut(&key) else {
                continue;
            };
            let value = read(word.keeper.region(), key.1);
            let before = told.len();
            word.waiters.retain(|expected, same| {
                if value == Ok(*expected) {
                    return true;
                }
                let same = std::mem::take(same);
                told.extend(same.into_values().map(|waiter| (waiter.told, value)));
                false
            });
            self.count.fetch_sub(told.len() - before, Ordering::SeqCst);
            match (value, word.waiters.is_empty()) {
                (Ok(value), false) => watched.push(Watched {
                    keeper: word.keeper.clone(),
                    position: key.1,
                    value,
                }),
                _ => {
                    lock(&group.state).keys.retain(|other| *other != key);
                    garbage.push(all.words.remove(&key));
                }
            }
        }
        (told, watched, garbage)
    }

    fn sleep(&self, group: &Group, seen: u32, watched: &[Watched]) {
        if !(self.many)() {
            if let Some((low, value)) = watched.first().and_then(Watched::low) {
                os::futex_wait(low, value, Some(SELDOM));
            }
            return;
        }
        let mut words = Vec::with_capacity(1 + 2 * watched.len());
        words.push(Expected {
            word: &group.calls,
            value: seen,
        });
        for watched in watched {
            match watched.keeper.region().word(watched.position) {
                Ok(word) => {
                    let pairs = halves(word).into_iter().zip(halves_of(watched.value));
                    words.extend(pairs.map(|(word, value)| Expected { word, value }));
                }
                // The map has become shorter.
                Err(_) => return,
            }
        }
        // SAFETY: `watched` keeps the regions, whose words stay mapped for as long as they live (1: Alive in `region.rs`).
        match unsafe { os::futex_wait_any(&words, None) } {
            // A page was lost, which the next look finds.
            Ok(()) | Err(Errno(libc::EFAULT)) => (),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }

    /// Whether the thread of this group may end.
    fn end_idle(&self, group: &Arc<Group>) -> bool {
        let mut guard = lock(&self.all);
        let state = lock(&group.state);
        if !(state.keys.is_empty() && state.ended.is_empty()) {
            return false;
        }
        if let Some(all) = guard.as_mut() {
            all.groups.retain(|other| !Arc::ptr_eq(other, group));
        }
        true
    }
}

/// A word for whose change from `value` a thread waits.
struct Watched {
    keeper: Arc<dyn Keeper>,
    position: u64,
    value: i64,
}

impl Watched {
    fn low(&self) -> Option<(&AtomicU32, u32)> {
        let word = self.keeper.region().word(self.position).ok()?;
        // SAFETY: as in `notify`; `self` keeps the region.
        Some((unsafe { &*halves(word)[0] }, halves_of(self.value)[0]))
    }
}

#[cfg(test)]
mod tests;
