//! The lock of a structure: a word in its file, which any participant of any program takes with a compare-exchange, and
//! which is taken from a participant that died.
//!
//! The data that the lock protects must be consistent at every instruction: see [`super::log`].

use super::Shared;
use crate::patience::Deadline;
use crate::region::Wait;
use crate::{Errno, Result};

/// A participant as the lock identifies it: never 0, and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(u64);

impl Owner {
    pub fn new(slot: u32, epoch: u64) -> Owner {
        Owner(epoch << 8 | u64::from(slot + 1))
    }

    /// The participant that a lock names; `None`: it is free.
    pub fn of_word(word: u64) -> Option<Owner> {
        (word != 0).then_some(Owner(word))
    }

    pub fn slot(self) -> u32 {
        ((self.0 & 0xff) as u32).wrapping_sub(1)
    }

    pub fn epoch(self) -> u64 {
        self.0 >> 8
    }
}

/// The other participants.
pub trait Peers {
    /// Whether this participant can still release the lock. Never called for the caller itself.
    fn is_alive(&self, owner: Owner) -> bool;
}

/// How the lock was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Free,
    /// From a participant that died holding it.
    FromDead,
}

/// About a microsecond, less than a switch to another scheduler costs.
const SPINS: usize = 64;

/// Takes the lock at `at`. `None`: another participant has it, and this caller may not wait. Otherwise, it waits as long as a
/// call may: see [`crate::patience`].
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
    if wait == Wait::No {
        return spin(shared, at, me);
    }
    // A participant that is stopped while it holds the lock counts as alive.
    let deadline = Deadline::of_call(Errno::WAIT_STORE);
    deadline.poll(|| attempt(shared, at, me, peers)).map(Some)
}

fn spin<S: Shared>(shared: &S, at: u64, me: Owner) -> Result<Option<Taken>> {
    for _ in 0..SPINS {
        if shared.load(at)? == 0 && shared.compare_exchange(at, 0, me.0)? {
            return Ok(Some(Taken::Free));
        }
        std::hint::spin_loop();
    }
    Ok(None)
}

/// Takes the lock if it is free, or its owner is dead. `None`: another participant has it.
pub fn attempt<S: Shared>(
    shared: &S,
    at: u64,
    me: Owner,
    peers: &impl Peers,
) -> Result<Option<Taken>> {
    if let Some(taken) = spin(shared, at, me)? {
        return Ok(Some(taken));
    }
    let owner = shared.load(at)?;
    let is_dead = owner != 0 && owner != me.0 && !peers.is_alive(Owner(owner));
    let taken = is_dead && shared.compare_exchange(at, owner, me.0)?;
    Ok(taken.then_some(Taken::FromDead))
}

#[inline(always)]
pub fn release<S: Shared>(shared: &S, at: u64) -> Result<()> {
    shared.store(at, 0)
}

/// Releases the lock if this participant has it, although none of its calls holds it.
pub fn release_own<S: Shared>(shared: &S, at: u64, me: Owner) -> Result<bool> {
    shared.compare_exchange(at, me.0, 0)
}
