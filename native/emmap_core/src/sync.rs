//! Where threads meet: the atomics and locks of the standard library or, in a build with
//! `--cfg loom`, those of loom, which tries every order in which threads can meet. The modules that
//! loom checks take theirs from here: [`crate::fault`], [`crate::closing`], the lock and the extent of a region, and the
//! slots of the guard. That build includes them in its test (`tests/loom.rs`), as they are.

#[cfg(not(loom))]
pub use std::{
    hint::spin_loop,
    sync::{atomic, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread::yield_now,
};

#[cfg(loom)]
pub use loom::{
    hint::spin_loop,
    sync::{atomic, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread::yield_now,
};

/// Between two accesses that are both `SeqCst`. Loom takes such an access for `AcqRel`, so it is told again with a fence;
/// elsewhere nothing is missing.
#[inline(always)]
pub fn sequenced() {
    #[cfg(loom)]
    atomic::fence(atomic::Ordering::SeqCst);
}
