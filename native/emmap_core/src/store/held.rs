//! The lock of a structure while a call of this program holds it.

use super::exclusive::{self, Taken};
use super::log;
use super::participants::{Others, Place, Presence};
use super::shared::Mapped;
use crate::region::Wait;
use crate::Result;

/// The lock, until it is dropped.
pub struct Held<'a> {
    shared: &'a Mapped<'a>,
    at: u64,
}

impl Drop for Held<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // This cannot fail: the lock is inside the map, because it was taken there.
        let _ = exclusive::release(self.shared, self.at);
    }
}

/// Takes the lock at `at` if it is free, or its owner is dead. The structure has no log. `None`: another participant has it.
pub fn attempt<'a>(
    shared: &'a Mapped<'a>,
    at: u64,
    presence: &Presence,
    place: &'static Place,
) -> Result<Option<Held<'a>>> {
    let others = Others {
        presence,
        shared,
        place,
    };
    let taken = exclusive::attempt(shared, at, presence.owner(), &others)?;
    Ok(taken.map(|_| Held { shared, at }))
}

/// Takes the lock at `at`, and completes the change of a participant that died holding it. `None`: another one has it, and
/// this caller may not wait.
#[inline(always)]
pub fn take<'a>(
    shared: &'a Mapped<'a>,
    at: u64,
    presence: &Presence,
    place: &'static Place,
    log: Option<&log::Place>,
    wait: Wait,
) -> Result<Option<Held<'a>>> {
    let others = Others {
        presence,
        shared,
        place,
    };
    let Some(taken) = exclusive::acquire(shared, at, presence.owner(), &others, wait)? else {
        return Ok(None);
    };
    let held = Held { shared, at };
    if let (Taken::FromDead, Some(log)) = (taken, log) {
        log::replay(shared, log)?;
    }
    Ok(Some(held))
}
