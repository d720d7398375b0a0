//! The queue's protocol on memory whose writers stop at any store and which loses what was not synced, and on real files.

mod crash;
mod damage;
mod death;
#[path = "../support/environment.rs"]
mod environment;
mod kills;
#[path = "../support/memory.rs"]
mod memory;
mod model;
mod pins;
mod program;
#[path = "../support/random.rs"]
mod random;
mod real_file;
