//! One change of a storage at a time, whichever maps of this program show its file. (Other programs are not kept out: the
//! format has no place for a lock.)

use std::collections::BTreeMap;
use std::sync::{
    Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError, Weak,
};

use super::{Result, Stop};
use crate::mapped_file::Identity;
use crate::patience::{self, Deadline};
use crate::region::Wait;
use crate::Errno;

pub type Turn = RwLock<()>;

static TURNS: Mutex<BTreeMap<Identity, Weak<Turn>>> = Mutex::new(BTreeMap::new());

/// The turns of a file, or of memory without a file.
pub fn of(file: Option<Identity>) -> Arc<Turn> {
    let Some(file) = file else {
        return Arc::default();
    };
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(turn) = turns.get(&file).and_then(Weak::upgrade) {
        return turn;
    }
    turns.retain(|_, turn| turn.strong_count() > 0);
    let turn = Arc::default();
    turns.insert(file, Arc::downgrade(&turn));
    turn
}

pub fn to_read(turn: &Turn, wait: Wait) -> Result<RwLockReadGuard<'_, ()>> {
    match wait {
        Wait::Yes if patience::is_brief() => briefly(|| taken(turn.try_read())),
        Wait::Yes => Ok(turn.read().unwrap_or_else(PoisonError::into_inner)),
        Wait::No => taken(turn.try_read()),
    }
}

pub fn to_change(turn: &Turn, wait: Wait) -> Result<RwLockWriteGuard<'_, ()>> {
    match wait {
        Wait::Yes if patience::is_brief() => briefly(|| taken(turn.try_write())),
        Wait::Yes => Ok(turn.write().unwrap_or_else(PoisonError::into_inner)),
        Wait::No => taken(turn.try_write()),
    }
}

/// Asks for a moment; after that the call waits elsewhere.
fn briefly<G>(mut attempt: impl FnMut() -> Result<G>) -> Result<G> {
    let deadline = Deadline::of_call(Errno::WAIT_STORE);
    Ok(deadline.poll(|| Ok(attempt().ok()))?)
}

fn taken<G>(attempt: std::result::Result<G, TryLockError<G>>) -> Result<G> {
    match attempt {
        Ok(guard) => Ok(guard),
        Err(TryLockError::Poisoned(guard)) => Ok(guard.into_inner()),
        Err(TryLockError::WouldBlock) => Err(Stop::Busy),
    }
}
