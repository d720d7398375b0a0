//! The queue's protocol on memory whose writers stop at any store and which loses what was not synced, and on real files.

mod crash;
mod damage;
mod death;
mod kills;
mod memory;
mod model;
mod pins;
mod program;
mod real_file;
