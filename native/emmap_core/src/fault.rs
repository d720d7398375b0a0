//! What a map knows about its lost pages: the first of them, the reason, and what must be mapped again.
//!
//! Threads that lose pages (the guard, in a signal handler) and the thread that repairs them synchronize here
//! without a lock. It is correct because a lost page is always handled in this order:
//!
//! 1. [`Fault::enter`], before the file is checked;
//! 2. [`Loss::record`], before the page is replaced, so that whoever reads a zero of it finds the fault;
//! 3. the page is replaced, and [`Loss`] dropped.
//!
//! A [`Repair`] waits for all threads that entered before it, so that none replaces a page that it has mapped
//! again. The end of a repair never clears a loss that was recorded after the repair began.
//!
//! Code that accesses memory takes a [`Mark`] before, and calls [`Fault::since`] afterwards. This also detects a fault that
//! occurred and was repaired in between.

use crate::sync::atomic::{
    fence, AtomicBool, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed,
    Ordering::SeqCst,
};
use crate::sync::{sequenced, yield_now};
use crate::Errno;

/// How many faults all maps of this process have recorded.
#[cfg(not(loom))]
static EVENTS: AtomicU64 = AtomicU64::new(0);
/// How many maps have a fault now.
#[cfg(not(loom))]
static FAULTED: AtomicUsize = AtomicUsize::new(0);

/// A number that changes with every fault of any map, before the zeros of a lost page can be read. If the number is the same
/// before and after bytes were copied, none of them was lost in the meantime.
#[cfg(not(loom))]
#[inline]
pub fn events() -> u64 {
    // Everything that was read before this call was read before the number.
    fence(Acquire);
    EVENTS.load(Acquire)
}

/// Whether any map has a fault now.
#[cfg(not(loom))]
#[inline]
pub fn any() -> bool {
    FAULTED.load(Acquire) != 0
}

pub struct Fault {
    /// With a fault: [`FAULT`], the reason, and the position of the byte that was accessed. Without: how many faults were
    /// repaired.
    first: AtomicU64,
    count: AtomicU64,
    repairs: AtomicU64,
    /// How many faults were the first since a repair, and the word of the last of those.
    firsts: AtomicU64,
    latest: AtomicU64,
    /// Threads between steps 1 and 3.
    losing: AtomicUsize,
    /// The replaced range, in bytes from the start of a range of addresses.
    from: AtomicUsize,
    to: AtomicUsize,
    /// How often a loss was doubted since the last repair.
    doubts: AtomicUsize,
    /// The address of the last signal since the last repair, and how often it occurred in a row.
    signal: AtomicUsize,
    signals: AtomicUsize,
    /// Whether existing pages were replaced whose bytes are stored nowhere else.
    thrown_away: AtomicBool,
}

/// Why a page is not available: the error of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason(u8);

impl Reason {
    /// The file ended before it.
    pub const CUT: Reason = Reason::of(Errno::STALE);
    /// The file system has no block for it.
    pub const NO_SPACE: Reason = Reason::of(Errno::NOSPC);
    /// The device failed.
    pub const DEVICE: Reason = Reason::of(Errno::IO);
    /// The system had no anonymous memory left.
    pub const NO_MEMORY: Reason = Reason::of(Errno::NOMEM);
    /// The last handle was closed, and zero pages occupy the addresses. No error of a system has this number.
    pub const CLOSED: Reason = Reason(u8::MAX);

    /// The error that the system returned for the page.
    pub const fn of(error: Errno) -> Reason {
        match error.0 {
            0 | 255.. => Reason(libc::EIO as u8),
            error if error < 0 => Reason(libc::EIO as u8),
            error => Reason(error as u8),
        }
    }

    pub fn errno(self) -> Errno {
        match self {
            Reason::CLOSED => Errno::CLOSED,
            Reason(error) => Errno(error.into()),
        }
    }
}

/// The state of a map's faults when the mark was taken: its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64);

/// A fault exists: the sign of the word, so that one comparison detects it.
const FAULT: u64 = 1 << 63;
const REASON_SHIFT: u32 = 55;
const REASON: u64 = 0xFF << REASON_SHIFT;
/// Set while a fault is being repaired. A thread that records another fault clears it.
const REPAIRING: u64 = 1 << 54;
const POSITION: u64 = REPAIRING - 1;

fn word(position: u64, reason: Reason) -> u64 {
    FAULT | u64::from(reason.0) << REASON_SHIFT | position.min(POSITION)
}

fn reason_of(word: u64) -> Reason {
    Reason(((word & REASON) >> REASON_SHIFT) as u8)
}

fn is_fault(word: u64) -> bool {
    word & FAULT != 0
}

impl Default for Fault {
    fn default() -> Fault {
        Fault {
            first: AtomicU64::new(0),
            count: AtomicU64::new(0),
            repairs: AtomicU64::new(0),
            firsts: AtomicU64::new(0),
            latest: AtomicU64::new(0),
            losing: AtomicUsize::new(0),
            from: AtomicUsize::new(usize::MAX),
            to: AtomicUsize::new(0),
            doubts: AtomicUsize::new(0),
            signal: AtomicUsize::new(0),
            signals: AtomicUsize::new(0),
            thrown_away: AtomicBool::new(false),
        }
    }
}

impl Fault {
    /// Whether a page was lost. To be called after memory was accessed, and before the result is returned.
    #[inline]
    pub fn seen(&self) -> bool {
        // Memory that was accessed before this was read before it. A thread that read a zero of a lost page finds the
        // fault, which was recorded before the page was replaced.
        fence(Acquire);
        // `bench/guard.exs` measures the cost of this check, with a build that omits it.
        !cfg!(unguarded) && is_fault(self.first.load(Relaxed))
    }

    /// To be called before memory is accessed.
    #[inline]
    pub fn mark(&self) -> Mark {
        Mark(if cfg!(unguarded) {
            0
        } else {
            self.first.load(Acquire)
        })
    }

    /// Whether a page was lost before the mark was taken.
    #[inline]
    pub fn seen_before(mark: Mark) -> bool {
        is_fault(mark.0)
    }

    /// To be called after memory was accessed: whether everything that was accessed since `mark` was available.
    #[inline]
    pub fn since(&self, mark: Mark) -> bool {
        fence(Acquire);
        // No word equals that of a fault without its sign, so this comparison also detects a mark that was taken with a fault.
        cfg!(unguarded) || self.first.load(Relaxed) == mark.0 & !FAULT
    }

    /// The number of faults, including repaired ones.
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// The first position in the map that was accessed, and the reason, which every call returns.
    pub fn first(&self) -> Option<(u64, Reason)> {
        Self::told(self.first.load(SeqCst))
    }

    /// How many faults were the first of the map since a repair.
    pub fn firsts(&self) -> u64 {
        self.firsts.load(SeqCst)
    }

    /// The last of those, even if it was repaired.
    pub fn latest(&self) -> Option<(u64, Reason)> {
        Self::told(self.latest.load(SeqCst))
    }

    fn told(word: u64) -> Option<(u64, Reason)> {
        if !is_fault(word) {
            return None;
        }
        Some((word & POSITION, reason_of(word)))
    }

    /// Records a loss that raised no signal: the file ends inside a page, or the lost page was not accessed.
    pub fn note(&self, position: u64, reason: Reason) {
        self.record(word(position, reason));
    }

    /// Step 1 of losing a page.
    pub fn enter(&self) -> Loss<'_> {
        self.losing.fetch_add(1, SeqCst);
        sequenced();
        Loss(self)
    }

    /// Returns once no thread that began before the call is between steps 1 and 3.
    pub fn await_losing(&self) {
        while self.losing.load(SeqCst) > 0 {
            yield_now();
        }
    }

    /// The last handle is being closed. From here on, every access is refused, also of calls that began before.
    /// This cannot be repaired.
    pub fn close(&self) {
        let before = self.first.swap(word(0, Reason::CLOSED), SeqCst);
        if is_fault(before) && !Self::is_closed(before) {
            self.uncount();
        }
    }

    fn is_closed(word: u64) -> bool {
        is_fault(word) && reason_of(word) == Reason::CLOSED
    }

    fn record(&self, new: u64) {
        let mut now = self.first.load(SeqCst);
        let mut is_first = false;
        // The first fault stays, unless it is about to be cleared.
        while !Self::is_closed(now) && (!is_fault(now) || now & REPAIRING != 0) {
            if !is_fault(now) {
                self.recount();
            }
            match self.first.compare_exchange(now, new, SeqCst, SeqCst) {
                Ok(_) => {
                    is_first = !is_fault(now);
                    break;
                }
                Err(other) => {
                    if !is_fault(now) {
                        self.uncount();
                    }
                    now = other;
                }
            }
        }
        self.count.fetch_add(1, Relaxed);
        Self::tell();
        if is_first {
            self.latest.store(new, SeqCst);
            self.firsts.fetch_add(1, SeqCst);
            #[cfg(not(loom))]
            crate::news::tell();
        }
    }

    // Counted before the fault is visible.
    #[cfg(not(loom))]
    fn recount(&self) {
        FAULTED.fetch_add(1, SeqCst);
    }

    // After the fault is visible, and before the page is replaced. So a thread that reads a zero of the page finds another
    // number, and a thread that finds another number finds the fault.
    #[cfg(not(loom))]
    fn tell() {
        EVENTS.fetch_add(1, SeqCst);
    }

    #[cfg(not(loom))]
    fn uncount(&self) {
        FAULTED.fetch_sub(1, SeqCst);
    }

    // Loom's atomics cannot be static, and the counts are for all maps.
    #[cfg(loom)]
    fn recount(&self) {}
    #[cfg(loom)]
    fn uncount(&self) {}
    #[cfg(loom)]
    fn tell() {}

    /// Notes that existing pages are replaced whose bytes are stored nowhere else.
    pub fn throw_away(&self) {
        self.thrown_away.store(true, SeqCst);
    }

    /// Whether that ever happened. The map can then not be repaired.
    pub fn has_thrown_away(&self) -> bool {
        self.thrown_away.load(SeqCst)
    }

    /// Whether the signal at `address` occurred so often in a row that replacing pages does not help, as in an
    /// emulator that reports another address than the one that was accessed.
    pub fn is_hopeless(&self, address: usize) -> bool {
        const TIMES: usize = 1 << 16;
        if self.signal.swap(address, Relaxed) != address {
            self.signals.store(0, Relaxed);
        }
        self.signals.fetch_add(1, Relaxed) >= TIMES
    }

    fn add_lost(&self, from: usize, to: usize) {
        self.from.fetch_min(from, SeqCst);
        self.to.fetch_max(to, SeqCst);
    }

    /// Begins to repair what was lost; `None` if nothing was lost. The caller must ensure that only one repair
    /// runs at a time.
    pub fn repair(&self) -> Option<Repair<'_>> {
        // A thread that has found a page lost may not have recorded it yet.
        self.await_losing();
        let mut before = self.first.load(SeqCst);
        loop {
            if !is_fault(before) || Self::is_closed(before) {
                return None;
            }
            let repairing = before | REPAIRING;
            match self
                .first
                .compare_exchange(before, repairing, SeqCst, SeqCst)
            {
                Ok(_) => break,
                Err(other) => before = other,
            }
        }
        self.await_losing();
        Some(Repair {
            fault: self,
            before,
            from: self.from.swap(usize::MAX, SeqCst),
            to: self.to.swap(0, SeqCst),
        })
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let first = self.first.load(SeqCst);
        if is_fault(first) && !Self::is_closed(first) {
            self.uncount();
        }
    }
}

/// A thread that is losing a page.
pub struct Loss<'a>(&'a Fault);

impl Loss<'_> {
    /// Step 2: `from .. to` is about to be replaced.
    pub fn record(&self, position: u64, reason: Reason, from: usize, to: usize) {
        // First the fault, then the bytes: a repair that ended before the fault was recorded has
        // not taken the bytes.
        self.0.record(word(position, reason));
        self.0.add_lost(from, to);
    }

    /// Whether to treat a page as lost although the system reports that it is available. It
    /// may have been lost only at the moment of the access, so the result is `false`, to access it again, but not
    /// forever, even on a slow machine.
    pub fn believe(&self) -> bool {
        const TIMES: usize = 256;
        self.0.doubts.fetch_add(1, Relaxed) >= TIMES
    }

    /// A larger range is about to be replaced than was recorded.
    pub fn widen(&self, from: usize, to: usize) {
        self.0.add_lost(from, to);
    }
}

impl Drop for Loss<'_> {
    fn drop(&mut self) {
        self.0.losing.fetch_sub(1, SeqCst);
    }
}

/// Until it is finished, every call returns the old fault.
pub struct Repair<'a> {
    fault: &'a Fault,
    before: u64,
    from: usize,
    to: usize,
}

impl Repair<'_> {
    /// The bytes to map again, from the start of each range of addresses.
    pub fn lost(&self) -> std::ops::Range<usize> {
        self.from.min(self.to)..self.to
    }

    /// Everything is mapped again. `false`: something was lost in the meantime, and the fault stays.
    pub fn finish(self) -> bool {
        let repairing = self.before | REPAIRING;
        // A different number than before, so that a thread that took a mark before the fault detects that it
        // occurred.
        let repaired = (self.fault.repairs.fetch_add(1, Relaxed) + 1) & POSITION;
        let first = &self.fault.first;
        let done = first
            .compare_exchange(repairing, repaired, SeqCst, SeqCst)
            .is_ok();
        if done {
            self.fault.doubts.store(0, Relaxed);
            self.fault.signals.store(0, Relaxed);
            self.fault.uncount();
            std::mem::forget(self);
        }
        done
    }
}

impl Drop for Repair<'_> {
    fn drop(&mut self) {
        self.fault.add_lost(self.from, self.to);
        let repairing = self.before | REPAIRING;
        let _ = self
            .fault
            .first
            .compare_exchange(repairing, self.before, SeqCst, SeqCst);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_first_stays_until_it_is_repaired() {
        let fault = Fault::default();
        assert!(!fault.seen() && fault.first().is_none() && fault.repair().is_none());
        fault.enter().record(5, Reason::CUT, 4096, 8192);
        fault.enter().record(1, Reason::DEVICE, 0, 4096);
        assert_eq!(fault.first(), Some((5, Reason::CUT)));
        let repair = fault.repair().unwrap();
        assert_eq!(repair.lost(), 0..8192);
        assert!(fault.seen() && fault.first() == Some((5, Reason::CUT)));
        assert!(repair.finish());
        assert!(!fault.seen());
        assert_eq!(fault.count(), 2);
    }

    #[test]
    fn what_is_lost_during_a_repair_is_not_forgotten() {
        let fault = Fault::default();
        fault.enter().record(0, Reason::CUT, 0, 4096);
        let repair = fault.repair().unwrap();
        fault.enter().record(9, Reason::NO_SPACE, 8192, 12288);
        assert!(!repair.finish());
        assert_eq!(fault.first(), Some((9, Reason::NO_SPACE)));
        // What the failed repair had taken is recorded again.
        assert_eq!(fault.repair().unwrap().lost(), 0..12288);
    }

    #[test]
    fn the_error_of_the_system_is_the_reason() {
        for error in (1..255).map(Errno) {
            let (fault, far) = (Fault::default(), 1 << 53);
            fault.note(far, Reason::of(error));
            assert_eq!(fault.first(), Some((far, Reason::of(error))));
            assert_eq!(Reason::of(error).errno(), error);
        }
        for none in [Errno(0), Errno::CLOSED, Errno(255), Errno(4095)] {
            assert_eq!(Reason::of(none), Reason::DEVICE);
        }
    }

    #[test]
    fn a_loss_is_doubted_but_not_for_ever() {
        let fault = Fault::default();
        let believed = || (0..1000).position(|_| fault.enter().believe());
        assert!(believed().is_some_and(|times| times > 100));
        fault.note(0, Reason::CUT);
        assert!(fault.repair().unwrap().finish());
        assert!(believed().is_some_and(|times| times > 100), "again");
    }

    #[test]
    fn a_mark_sees_a_fault_that_is_gone_again() {
        let fault = Fault::default();
        let before = fault.mark();
        assert!(fault.since(before));
        fault.note(3, Reason::CUT);
        let during = fault.mark();
        assert!(!fault.since(before) && !fault.since(during));
        assert!(fault.repair().unwrap().finish());
        assert!(!fault.seen() && !fault.since(before) && !fault.since(during));
        assert!(fault.since(fault.mark()));
    }

    #[test]
    fn a_repair_that_is_given_up_changes_nothing() {
        let fault = Fault::default();
        fault.note(7, Reason::CUT);
        drop(fault.repair().unwrap());
        assert_eq!(fault.first(), Some((7, Reason::CUT)));
        assert!(fault.repair().unwrap().lost().is_empty());
    }
}
