//! Where threads meet, in every order in which they can (`make loom`). Each model has the fewest
//! threads that show what it is about. What the kernel does (to replace a page, to move a map) is
//! an atomic here.

#![cfg(loom)]
#![allow(dead_code)] // The models use a part of each module.

// The modules as they are, with the atomics and locks of loom.
#[path = "../src/closing.rs"]
mod closing;
#[path = "../src/errno.rs"]
mod errno;
#[path = "../src/region/extent.rs"]
mod extent;
#[path = "../src/fault.rs"]
mod fault;
#[path = "../src/region/first_write.rs"]
mod first_write;
#[path = "../src/region/lock.rs"]
mod lock;
#[path = "../src/guard/slot.rs"]
mod slot;
#[path = "../src/sync.rs"]
mod sync;
#[path = "../src/guard/table.rs"]
mod table;

use errno::Errno;

#[path = "loom/closing.rs"]
mod model_closing;
#[path = "loom/extent.rs"]
mod model_extent;
#[path = "loom/fault.rs"]
mod model_fault;
#[path = "loom/first_write.rs"]
mod model_first_write;
#[path = "loom/lock.rs"]
mod model_lock;
#[path = "loom/region.rs"]
mod model_region;
#[path = "loom/release.rs"]
mod model_release;
#[path = "loom/slot.rs"]
mod model_slot;
#[path = "loom/table.rs"]
mod model_table;
