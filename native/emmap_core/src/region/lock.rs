//! Makes a copy of any length atomic with respect to the others on the same map.
//!
//! The map is divided into stripes, page by page, so that copies of different pages do not wait for each other. Each
//! stripe has one word: how many long reads hold it, whether a writer holds it, and a number that each writer changes.
//!
//! - *A short read* writes nothing that other threads read. It copies, and copies again if the words of its stripes show that
//!   a writer came in between.
//! - *A writer* takes a stripe with one locked instruction and releases it with a store: as long as it holds the stripe,
//!   no other thread changes the word.
//! - *A long read* counts itself in the words of its stripes, so that writers wait for it and other long reads do not.
//!
//! A thread that needs several stripes takes them in ascending order, so no two threads wait for each other.
//!
//! The word alone makes copies atomic. `waiting` and `priority` only determine which thread comes next. By default, this is
//! the fastest thread, which costs least. A thread that has waited for a millisecond gets priority (one thread at a time), and
//! no other thread can take the stripe that it waits for. So neither readers nor writers wait forever.

use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::sync::atomic::{fence, AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sync::{spin_loop, Bell};

const STRIPES: usize = if cfg!(loom) { 2 } else { 16 };
/// A stripe of the map has this many bytes (as a power of two), the size of a page on most machines.
const STRIPE_SHIFT: u32 = 12;

/// The part of a stripe's word that counts its long reads.
const READERS: u64 = (1 << 16) - 1;
/// Whether a writer holds it. When the writer releases it, it adds this once more, so the bits above are a number
/// that each writer changes.
const WRITER: u64 = READERS + 1;

/// How often a short read is copied again before it waits its turn among the writers.
const OPTIMISTIC_TRIES: usize = if cfg!(loom) { 1 } else { 16 };
/// How often to try to take a stripe before waiting for it, or before a call goes where waiting is allowed: about a
/// microsecond, less than a switch to another scheduler costs.
const TRIES: usize = if cfg!(loom) { 1 } else { 64 };

#[derive(Default)]
pub struct CopyLock {
    stripes: [CachePadded<Stripe>; STRIPES],
    /// Whether a thread has priority.
    priority: AtomicBool,
    bell: Bell,
}

#[derive(Default)]
struct Stripe {
    word: AtomicU64,
    /// Threads to be woken when it is released.
    waiting: AtomicU32,
    /// Whether the thread that has priority waits for this stripe.
    priority: AtomicBool,
}

/// Whether a thread yields to the one that has priority.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Any,
    First,
}

impl Stripe {
    #[inline(always)]
    fn reserved(&self, turn: Turn) -> bool {
        turn == Turn::Any && self.priority.load(Ordering::Relaxed)
    }

    /// Takes it for a writer, if it is free.
    #[inline(always)]
    fn enter(&self, turn: Turn) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        if word & (READERS | WRITER) != 0 || self.reserved(turn) {
            return false;
        }
        // Pairs with the releases in `leave` and `leave_read`.
        let taken =
            self.word
                .compare_exchange(word, word + WRITER, Ordering::Acquire, Ordering::Relaxed);
        // A short read that sees a byte of the following copy also sees that the word has changed.
        fence(Ordering::Release);
        taken.is_ok()
    }

    #[inline(always)]
    fn leave(&self, bell: &Bell) {
        // Only the writer that holds it changes the word, so a load and a store are enough.
        let word = self.word.load(Ordering::Relaxed);
        self.word
            .store(word.wrapping_add(WRITER), Ordering::Release);
        self.ring(bell);
    }

    /// Takes it for a long read, if no writer holds it.
    fn enter_read(&self, turn: Turn) -> bool {
        let more = |word: u64| {
            (word & WRITER == 0 && word & READERS < READERS && !self.reserved(turn))
                .then_some(word + 1)
        };
        self.word
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, more)
            .is_ok()
    }

    fn leave_read(&self, bell: &Bell) {
        self.word.fetch_sub(1, Ordering::Release);
        self.ring(bell);
    }

    /// A store and the following load may be seen in the other order, so a thread that has just begun to wait may be
    /// missed. It checks again by itself.
    #[inline(always)]
    fn ring(&self, bell: &Bell) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            bell.ring();
        }
    }
}

/// Some stripes of the lock, one bit each.
#[derive(Clone, Copy)]
pub struct Stripes(u16);

impl Stripes {
    pub const ALL: Stripes = Stripes(((1u32 << STRIPES) - 1) as u16);

    /// The stripe of `count` bytes at `start`, if they are in one stripe.
    #[inline(always)]
    fn one(start: usize, count: usize) -> Option<usize> {
        let last = start.wrapping_add(count).wrapping_sub(1);
        // Without bytes, the result is `None`; past the end of all addresses, the result does not matter.
        ((start ^ last) >> STRIPE_SHIFT == 0).then_some((start >> STRIPE_SHIFT) % STRIPES)
    }

    /// The two stripes of `count` bytes at `start` in ascending order, if there are two.
    #[inline(always)]
    fn two(start: usize, count: usize) -> Option<(usize, usize)> {
        let last = start.checked_add(count)?.checked_sub(1)?;
        let (one, other) = (start >> STRIPE_SHIFT, last >> STRIPE_SHIFT);
        if other.wrapping_sub(one) != 1 {
            return None;
        }
        let (one, other) = (one % STRIPES, other % STRIPES);
        Some((one.min(other), one.max(other)))
    }

    /// The stripes of `count` bytes at `start`.
    pub fn of(start: usize, count: usize) -> Stripes {
        let pages = (start % (1 << STRIPE_SHIFT))
            .saturating_add(count)
            .div_ceil(1 << STRIPE_SHIFT);
        if pages >= STRIPES {
            return Stripes::ALL;
        }
        let first = (start >> STRIPE_SHIFT) % STRIPES;
        let bits = ((1u32 << pages) - 1) << first;
        Stripes((bits | bits >> STRIPES) as u16 & Stripes::ALL.0)
    }

    pub fn and(self, others: Stripes) -> Stripes {
        Stripes(self.0 | others.0)
    }

    fn add(&mut self, at: usize) {
        self.0 |= 1 << at;
    }

    /// Their numbers, in ascending order.
    fn each(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let at = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            // The bits that are shifted out were not stripes.
            (at < STRIPES).then_some(at)
        })
    }
}

/// The state that a short read found before it copied.
#[derive(Clone, Copy)]
pub struct Quiet<'a> {
    stripe: &'a Stripe,
    word: u64,
}

impl Quiet<'_> {
    /// To be called after the copy: whether no writer came in between, so that the copy is consistent.
    #[inline(always)]
    pub fn still(self) -> bool {
        fence(Ordering::Acquire);
        (self.stripe.word.load(Ordering::Relaxed) ^ self.word) & !READERS == 0
    }
}

/// One stripe that a writer holds.
pub struct StripeGuard<'a> {
    stripe: &'a Stripe,
    bell: &'a Bell,
}

/// The stripes that a writer holds.
pub struct WriteGuard<'a> {
    lock: &'a CopyLock,
    held: Stripes,
}

/// The stripes that a long read holds.
struct ReadGuard<'a> {
    lock: &'a CopyLock,
    held: Stripes,
}

impl CopyLock {
    /// To be called before a short read of one stripe, by code that must be inlined, which a closure may not be. `None`: there
    /// are several stripes, or a writer is active: then call [`CopyLock::read_short`].
    #[inline(always)]
    pub fn quiet(&self, start: usize, count: usize) -> Option<Quiet<'_>> {
        self.quiet_stripe(Stripes::one(start, count)?)
    }

    /// As [`CopyLock::quiet`], for two stripes.
    #[inline(always)]
    pub fn quiet_two(&self, start: usize, count: usize) -> Option<[Quiet<'_>; 2]> {
        let (one, other) = Stripes::two(start, count)?;
        Some([self.quiet_stripe(one)?, self.quiet_stripe(other)?])
    }

    #[inline(always)]
    fn quiet_stripe(&self, at: usize) -> Option<Quiet<'_>> {
        let stripe = &*self.stripes[at];
        // Pairs with the release in `Stripe::leave`.
        let word = stripe.word.load(Ordering::Acquire);
        (word & WRITER == 0).then_some(Quiet { stripe, word })
    }

    /// Runs `copy` so that no writer overlaps its last run. `None`: a writer holds a stripe for a long time; then call
    /// [`CopyLock::read_within`], where waiting is allowed.
    pub fn read_short<R>(&self, stripes: Stripes, mut copy: impl FnMut() -> R) -> Option<R> {
        for _ in 0..OPTIMISTIC_TRIES {
            if let Some(before) = self.numbers(stripes, Ordering::Acquire) {
                let result = copy();
                fence(Ordering::Acquire);
                if self.numbers(stripes, Ordering::Relaxed) == Some(before) {
                    return Some(result);
                }
            }
            spin_loop();
        }
        let mut reading = ReadGuard::of_none(self);
        for at in stripes.each() {
            reading.try_take(at)?;
        }
        Some(copy())
    }

    /// The sum of the stripes' numbers. As these only grow, it is unchanged only if all of them are. `None`: a writer
    /// is active.
    #[inline(always)]
    fn numbers(&self, stripes: Stripes, order: Ordering) -> Option<u64> {
        stripes.each().try_fold(0u64, |sum, at| {
            let word = self.stripes[at].word.load(order);
            (word & WRITER == 0).then_some(sum.wrapping_add(word & !READERS))
        })
    }

    /// Waits for writers, up to `longest` for each, then runs `copy` while all writers are kept out. For a thread that may wait.
    pub fn read_within<R>(
        &self,
        stripes: Stripes,
        longest: Option<Duration>,
        mut copy: impl FnMut() -> R,
    ) -> Option<R> {
        let mut reading = ReadGuard::of_none(self);
        for at in stripes.each() {
            self.wait(at, longest, Stripe::enter_read).then_some(())?;
            reading.held.add(at);
        }
        Some(copy())
    }

    /// Takes the stripe of `count` bytes at `start` for writing, if it is free. `None`: it is not, or there are several: then
    /// call [`CopyLock::try_write_two`].
    #[inline(always)]
    pub fn try_write_one(&self, start: usize, count: usize) -> Option<StripeGuard<'_>> {
        self.try_write_stripe(Stripes::one(start, count)?)
    }

    /// Takes the two stripes of `count` bytes at `start` for writing, if both are free. `None`: they are not, or there are
    /// not two: then call [`CopyLock::try_write`].
    #[inline(always)]
    pub fn try_write_two(&self, start: usize, count: usize) -> Option<[StripeGuard<'_>; 2]> {
        let (one, other) = Stripes::two(start, count)?;
        let one = self.try_write_stripe(one)?;
        Some([one, self.try_write_stripe(other)?])
    }

    #[inline(always)]
    fn try_write_stripe(&self, at: usize) -> Option<StripeGuard<'_>> {
        let stripe = &*self.stripes[at];
        // A guard exists only for a stripe that was taken, because its drop releases it.
        match stripe.enter(Turn::Any) {
            true => Some(StripeGuard {
                stripe,
                bell: &self.bell,
            }),
            false => None,
        }
    }

    /// Takes the stripes for writing, if each becomes free within about a microsecond.
    pub fn try_write(&self, stripes: Stripes) -> Option<WriteGuard<'_>> {
        let mut writing = WriteGuard::of_none(self);
        for at in stripes.each() {
            tries(|| self.stripes[at].enter(Turn::Any)).then_some(())?;
            writing.held.add(at);
        }
        Some(writing)
    }

    #[cfg(any(test, loom))]
    pub fn read_long<R>(&self, stripes: Stripes, copy: impl FnMut() -> R) -> R {
        let read = self.read_within(stripes, None, copy);
        read.expect("it waits for as long as it takes")
    }

    #[cfg(any(test, loom))]
    pub fn write(&self, stripes: Stripes) -> WriteGuard<'_> {
        let held = self.write_within(stripes, None);
        held.expect("it waits for as long as it takes")
    }

    /// Waits for the stripes, up to `longest` for each. For a thread that may wait.
    pub fn write_within(
        &self,
        stripes: Stripes,
        longest: Option<Duration>,
    ) -> Option<WriteGuard<'_>> {
        let mut writing = WriteGuard::of_none(self);
        for at in stripes.each() {
            self.wait(at, longest, Stripe::enter).then_some(())?;
            writing.held.add(at);
        }
        Some(writing)
    }

    /// Waits until `enter` takes the stripe, or `longest` has passed.
    fn wait(
        &self,
        at: usize,
        longest: Option<Duration>,
        enter: impl Fn(&Stripe, Turn) -> bool,
    ) -> bool {
        let stripe = &*self.stripes[at];
        if tries(|| enter(stripe, Turn::Any)) {
            return true;
        }
        let _waiting = Waiting::new(&stripe.waiting);
        let mut priority = None;
        self.bell.wait(longest, |for_long| {
            if for_long && priority.is_none() {
                priority = Priority::claim(&self.priority, &stripe.priority);
            }
            match priority {
                None => enter(stripe, Turn::Any),
                Some(_) => enter(stripe, Turn::First),
            }
        })
    }
}

fn tries(mut enter: impl FnMut() -> bool) -> bool {
    (0..TRIES).any(|_| {
        let entered = enter();
        if !entered {
            spin_loop();
        }
        entered
    })
}

/// A thread that is counted as waiting.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU32) -> Waiting<'a> {
        count.fetch_add(1, Ordering::SeqCst);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Priority on a stripe.
struct Priority<'a> {
    taken: &'a AtomicBool,
    of_stripe: &'a AtomicBool,
}

impl<'a> Priority<'a> {
    /// `None`: another thread has priority.
    fn claim(taken: &'a AtomicBool, of_stripe: &'a AtomicBool) -> Option<Priority<'a>> {
        if taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        of_stripe.store(true, Ordering::Release);
        Some(Priority { taken, of_stripe })
    }
}

impl Drop for Priority<'_> {
    fn drop(&mut self) {
        self.of_stripe.store(false, Ordering::Release);
        self.taken.store(false, Ordering::Release);
    }
}

impl Drop for StripeGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.stripe.leave(self.bell);
    }
}

impl WriteGuard<'_> {
    fn of_none(lock: &CopyLock) -> WriteGuard<'_> {
        let held = Stripes(0);
        WriteGuard { lock, held }
    }
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        for at in self.held.each() {
            self.lock.stripes[at].leave(&self.lock.bell);
        }
    }
}

impl ReadGuard<'_> {
    fn of_none(lock: &CopyLock) -> ReadGuard<'_> {
        let held = Stripes(0);
        ReadGuard { lock, held }
    }

    fn try_take(&mut self, at: usize) -> Option<()> {
        tries(|| self.lock.stripes[at].enter_read(Turn::Any)).then_some(())?;
        self.held.add(at);
        Some(())
    }
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        for at in self.held.each() {
            self.lock.stripes[at].leave_read(&self.lock.bell);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::thread;
    use std::time::{Duration, Instant};

    const PAGE: usize = 1 << STRIPE_SHIFT;

    #[test]
    fn bytes_lie_in_the_stripes_of_their_pages() {
        let each = |start, count| Stripes::of(start, count).each().collect::<Vec<_>>();
        assert_eq!(each(PAGE, 0), []);
        assert_eq!(each(0, PAGE), [0]);
        assert_eq!(each(PAGE - 1, 2), [0, 1]);
        assert_eq!(each(5 * PAGE + 1, 2 * PAGE), [5, 6, 7]);
        // From the last stripe to the first ones, taken in ascending order.
        assert_eq!(
            each((2 * STRIPES - 1) * PAGE, 3 * PAGE),
            [0, 1, STRIPES - 1]
        );
        let all: Vec<usize> = (0..STRIPES).collect();
        assert_eq!(each(1, (STRIPES - 1) * PAGE), all);
        assert_eq!(each(usize::MAX, usize::MAX), all);
        for (start, count) in [
            (0, 1),
            (PAGE - 1, 2),
            (7 * PAGE, PAGE),
            (7, PAGE),
            (usize::MAX, 1),
            // From the last stripe to the first one.
            (STRIPES * PAGE - 1, 2),
            (64, PAGE),
            (64, 2 * PAGE),
        ] {
            let stripes = each(start, count);
            let one = Stripes::one(start, count);
            assert_eq!(one, (stripes.len() == 1).then_some(stripes[0]));
            let two = Stripes::two(start, count);
            assert_eq!(two, (stripes.len() == 2).then(|| (stripes[0], stripes[1])));
        }
        let both = Stripes::of(0, 1).and(Stripes::of(3 * PAGE, 1));
        assert_eq!(both.each().collect::<Vec<_>>(), [0, 3]);
    }

    /// Each stripe has three words. Writers of all stripes fill the first words with one number, and writers of some
    /// stripes the second and third ones. No read may see two numbers where one writer wrote one.
    #[test]
    fn copies_are_never_torn() {
        let lock = CopyLock::default();
        let words: Vec<[AtomicUsize; 3]> = (0..STRIPES).map(|_| Default::default()).collect();
        let stop = AtomicBool::new(false);
        let fill = |stripes: Stripes, n| {
            for at in stripes.each() {
                words[at][1].store(n, Ordering::Relaxed);
                words[at][2].store(n, Ordering::Relaxed);
            }
        };
        let copy = || -> Vec<[usize; 3]> {
            let copy = |of: &[AtomicUsize; 3]| [0, 1, 2].map(|at| of[at].load(Ordering::Relaxed));
            words.iter().map(copy).collect()
        };
        let assert_whole = |seen: Vec<[usize; 3]>| {
            for [all, one, other] in &seen {
                assert!(*all == seen[0][0] && one == other, "torn: {seen:?}");
            }
        };
        thread::scope(|scope| {
            for seed in 0..2 {
                let (lock, words, stop, fill) = (&lock, &words, &stop, &fill);
                scope.spawn(move || {
                    let mut n = seed;
                    while !stop.load(Ordering::Relaxed) {
                        n += 2;
                        let at = n % STRIPES;
                        let some = Stripes::of(at * PAGE, n % 3 * PAGE);
                        if let Some(_turn) = lock.try_write_one(at * PAGE, 1) {
                            fill(Stripes::of(at * PAGE, 1), n);
                        }
                        if let Some(_turn) = lock.try_write(some) {
                            fill(some, n);
                        }
                        if let Some(_turn) = lock.try_write_two(at * PAGE, 2 * PAGE) {
                            fill(Stripes::of(at * PAGE, 2 * PAGE), n);
                        }
                        let _turn = lock.write(Stripes::ALL);
                        words.iter().for_each(|w| w[0].store(n, Ordering::Relaxed));
                    }
                });
            }
            for round in 0..20_000 {
                match round % 8 {
                    0 => assert_whole(lock.read_long(Stripes::ALL, copy)),
                    _ => lock.read_short(Stripes::ALL, copy).map_or((), assert_whole),
                };
                let at = round % STRIPES;
                if let Some(quiet) = lock.quiet(at * PAGE, PAGE) {
                    let [_, one, other] = copy()[at];
                    assert!(!quiet.still() || one == other);
                }
                if let Some(quiet) = lock.quiet_two(at * PAGE, 2 * PAGE) {
                    let seen = copy();
                    let whole = |at: usize| seen[at % STRIPES][1] == seen[at % STRIPES][2];
                    assert!(!quiet.iter().all(|one| one.still()) || whole(at) && whole(at + 1));
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_held_stripe_is_refused_not_waited_for() {
        let lock = CopyLock::default();
        let (one, two) = (Stripes::of(0, 1), Stripes::of(0, PAGE + 1));
        let guard = lock.write(one);
        assert!(lock.try_write_one(0, 1).is_none() && lock.try_write(two).is_none());
        assert!(lock.try_write_two(0, 2 * PAGE).is_none() && lock.quiet_two(0, 2 * PAGE).is_none());
        assert!(lock.quiet(0, 1).is_none());
        // If the second of two is refused, the first is released.
        let last = (STRIPES - 1) * PAGE;
        assert!(lock.try_write_two(last, 2 * PAGE).is_none());
        assert!(lock.try_write_one(last, 1).is_some());
        assert_eq!(lock.read_short(two, || 1), None);
        // The other stripes are free, also after a refusal.
        assert!(lock.try_write_one(PAGE, 1).is_some());
        assert_eq!(lock.read_short(Stripes::of(PAGE, 1), || 1), Some(1));
        drop(guard);
        assert!(lock.try_write(two).is_some());
        assert_eq!(lock.read_short(two, || 1), Some(1));
    }

    #[test]
    fn a_long_read_holds_off_writers_of_its_stripes_and_no_reads() {
        let lock = CopyLock::default();
        let (one, two) = (Stripes::of(0, 1), Stripes::of(0, PAGE + 1));
        lock.read_long(one, || {
            assert!(lock.try_write_one(0, 1).is_none() && lock.try_write(two).is_none());
            assert!(lock.try_write_one(PAGE, 1).is_some());
            assert!(lock.quiet(0, 1).is_some_and(Quiet::still));
            assert_eq!(lock.read_short(two, || 1), Some(1));
            assert_eq!(lock.read_long(two, || 2), 2);
        });
        assert!(lock.try_write(two).is_some());
    }

    #[test]
    fn a_panic_releases_the_stripes() {
        let lock = CopyLock::default();
        let panics = |act: &(dyn Fn() + std::panic::RefUnwindSafe)| {
            assert!(std::panic::catch_unwind(act).is_err());
            assert!(lock.try_write(Stripes::ALL).is_some());
            assert_eq!(lock.read_short(Stripes::ALL, || 1), Some(1));
        };
        let lock = std::panic::AssertUnwindSafe(&lock);
        panics(&|| lock.read_long(Stripes::ALL, || panic!("expected by the test")));
        panics(&|| {
            let _turn = lock.try_write_one(0, 1);
            panic!("expected by the test")
        });
        panics(&|| {
            let _turn = lock.write(Stripes::ALL);
            panic!("expected by the test")
        });
    }

    /// Threads that hold a stripe again and again must not keep out a thread that waits, whatever it waits for.
    fn assert_not_starved(hold: impl Fn(&CopyLock, &dyn Fn()) + Sync, take: impl Fn(&CopyLock)) {
        const HOLD: Duration = Duration::from_micros(300);
        let lock = CopyLock::default();
        let stop = AtomicBool::new(false);
        let busy = || {
            let begun = Instant::now();
            while begun.elapsed() < HOLD {
                spin_loop();
            }
        };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        hold(&lock, &busy);
                    }
                });
            }
            for _ in 0..20 {
                take(&lock);
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_writer_is_not_starved_by_long_reads() {
        assert_not_starved(
            |lock, busy| lock.read_long(Stripes::ALL, busy),
            |lock| drop(lock.write(Stripes::of(3 * PAGE, 1))),
        );
    }

    #[test]
    fn a_long_read_is_not_starved_by_writers() {
        assert_not_starved(
            |lock, busy| {
                let _turn = lock.write(Stripes::of(3 * PAGE, 1));
                busy();
            },
            |lock| lock.read_long(Stripes::ALL, || ()),
        );
    }
}
