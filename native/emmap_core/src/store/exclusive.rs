//! The lock of a structure: one word in its file, which any participant of any program takes with a compare-exchange, and
//! which is taken from a participant that died.
//!
//! What the lock protects must be right at every instruction: see [`super::log`].

use std::time::{Duration, Instant};

use super::Shared;
use crate::region::Wait;
use crate::{Errno, Result};

/// A participant, as the lock names it: never 0, and never the same twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(u64);

impl Owner {
    pub fn new(slot: u32, epoch: u64) -> Owner {
        Owner(epoch << 8 | u64::from(slot + 1))
    }

    pub fn slot(self) -> u32 {
        ((self.0 & 0xff) as u32).wrapping_sub(1)
    }

    pub fn epoch(self) -> u64 {
        self.0 >> 8
    }
}

/// Who else participates.
pub trait Peers {
    /// Whether this participant can still release the lock. Never asked of the caller's own.
    fn is_alive(&self, owner: Owner) -> bool;
}

/// How the lock was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Free,
    /// From a participant that died holding it.
    FromDead,
}

/// About a microsecond, less than the way to another scheduler costs.
const SPINS: usize = 64;
/// A participant that is stopped while it holds the lock is alive.
const PATIENCE: Duration = Duration::from_secs(2);

/// Takes the lock at `at`. `None`: another participant has it, and this caller may not wait. EBUSY after two seconds.
#[inline(always)]
pub fn acquire<S: Shared>(
    shared: &S,
    at: u64,
    me: Owner,
    peers: &impl Peers,
    wait: Wait,
) -> Result<Option<Taken>> {
    if shared.compare_exchange(at, 0, me.0)? {
        return Ok(Some(Taken::Free));
    }
    acquire_contended(shared, at, me, peers, wait)
}

#[cold]
#[inline(never)]
fn acquire_contended<S: Shared>(
    shared: &S,
    at: u64,
    me: Owner,
    peers: &impl Peers,
    wait: Wait,
) -> Result<Option<Taken>> {
    let start = Instant::now();
    let mut pause = Duration::ZERO;
    loop {
        for _ in 0..SPINS {
            if shared.load(at)? == 0 && shared.compare_exchange(at, 0, me.0)? {
                return Ok(Some(Taken::Free));
            }
            std::hint::spin_loop();
        }
        if wait == Wait::No {
            return Ok(None);
        }
        let owner = shared.load(at)?;
        if owner != 0
            && owner != me.0
            && !peers.is_alive(Owner(owner))
            && shared.compare_exchange(at, owner, me.0)?
        {
            return Ok(Some(Taken::FromDead));
        }
        if start.elapsed() > PATIENCE {
            return Err(Errno::BUSY);
        }
        if pause.is_zero() {
            std::thread::yield_now();
            pause = Duration::from_micros(5);
        } else {
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_micros(500));
        }
    }
}

#[inline(always)]
pub fn release<S: Shared>(shared: &S, at: u64) -> Result<()> {
    shared.store(at, 0)
}

/// Releases the lock if this participant has it, though none of its calls does.
pub fn release_own<S: Shared>(shared: &S, at: u64, me: Owner) -> Result<bool> {
    shared.compare_exchange(at, me.0, 0)
}
