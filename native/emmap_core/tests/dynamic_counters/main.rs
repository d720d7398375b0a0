//! The protocol of dynamic counters on memory whose writers stop at any store and which loses what was not synced, and on
//! real files.

mod crash;
mod damage;
#[path = "../support/environment.rs"]
mod environment;
mod kills;
#[path = "../support/memory.rs"]
mod memory;
mod program;
#[path = "../support/random.rs"]
#[allow(dead_code)] // names are not random bytes
mod random;
mod real_file;
