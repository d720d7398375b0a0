//! Where threads meet, in every order in which they can (`make loom`). Each model has the fewest
//! threads that show what it is about. What the kernel does (to replace a page, to move a map) is
//! an atomic here.

#![cfg(loom)]

#[path = "loom/closing.rs"]
mod closing;
#[path = "loom/extent.rs"]
mod extent;
#[path = "loom/fault.rs"]
mod fault;
#[path = "loom/lock.rs"]
mod lock;
#[path = "loom/region.rs"]
mod region;
#[path = "loom/release.rs"]
mod release;
#[path = "loom/slot.rs"]
mod slot;
