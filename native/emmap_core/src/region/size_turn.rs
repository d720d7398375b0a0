//! The turn to change the size of a map: one thread at a time, in the order of arrival.
//!
//! A thread that has the turn may wait for the lock of the file. So this is not a mutex: a thread waits for the turn
//! until its own deadline, and threads that only look at the map never need it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::patience::Deadline;
use crate::Result;

#[derive(Default)]
pub(super) struct SizeTurn {
    line: Mutex<Line>,
    left: Condvar,
}

#[derive(Default)]
struct Line {
    taken: bool,
    waiting: VecDeque<u64>,
    next: u64,
}

pub(super) struct Held<'a>(&'a SizeTurn);

impl SizeTurn {
    /// Waits for the turn. A call that may wait only briefly returns immediately if others have to go first.
    pub fn enter(&self, deadline: &Deadline) -> Result<Held<'_>> {
        let mut line = self.line();
        if !line.taken && line.waiting.is_empty() {
            line.taken = true;
            return Ok(Held(self));
        }
        if deadline.is_brief() {
            return Err(deadline.error());
        }
        let me = line.next;
        line.next += 1;
        line.waiting.push_back(me);
        while line.taken || line.waiting.front() != Some(&me) {
            if let Err(error) = deadline.check() {
                line.waiting.retain(|waiting| *waiting != me);
                // The next one may now be the first.
                self.left.notify_all();
                return Err(error);
            }
            let waited = self.left.wait_timeout(line, deadline.left());
            line = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        line.waiting.pop_front();
        line.taken = true;
        Ok(Held(self))
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut line = self.0.line();
        line.taken = false;
        if !line.waiting.is_empty() {
            self.0.left.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patience::{briefly, LONGEST};
    use crate::Errno;
    use std::time::{Duration, Instant};

    fn deadline() -> Deadline {
        Deadline::of_call(Errno::WAIT_SIZE)
    }

    #[test]
    fn they_come_in_order_and_a_scheduler_does_not_wait() {
        let turn = SizeTurn::default();
        let order = Mutex::new(Vec::new());
        std::thread::scope(|threads| {
            let held = turn.enter(&deadline()).unwrap();
            for number in 0..4 {
                let (turn, order) = (&turn, &order);
                threads.spawn(move || {
                    let _held = turn.enter(&deadline()).unwrap();
                    order.lock().unwrap().push(number);
                });
                while turn.line().waiting.len() <= number {
                    std::thread::yield_now();
                }
            }
            let start = Instant::now();
            let ended = briefly(|| turn.enter(&deadline()).map(drop));
            assert_eq!(ended, Err(Errno::WAIT_SIZE));
            assert!(start.elapsed() < Duration::from_millis(100));
            drop(held);
        });
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3]);
    }

    #[test]
    fn each_waits_until_its_own_deadline() {
        let turn = SizeTurn::default();
        let held = turn.enter(&deadline()).unwrap();
        std::thread::scope(|threads| {
            for _ in 0..3 {
                threads.spawn(|| {
                    let start = Instant::now();
                    let ended = turn.enter(&deadline()).map(drop);
                    assert_eq!(ended, Err(Errno::BUSY));
                    assert!(start.elapsed() < LONGEST + Duration::from_millis(500));
                });
            }
        });
        drop(held);
        assert!(turn.enter(&deadline()).is_ok());
    }
}
