//! The layer between `Emmap.Native` and `emmap_core`: it converts terms, and chooses the scheduler. It has no other
//! logic.
//!
//! There are two kinds of NIF, each written in one way:
//!
//! - *cold* ones ([`open`], [`control`], [`metadata`], [`monitors`], [`json`]) are plain `#[rustler::nif]`, on a dirty scheduler when they
//!   can wait for a disk;
//! - *hot* ones ([`io`], [`array`], [`atomics`], [`counters`], [`lines`], [`queue`], [`blocks`], [`block_storage`], [`search`],
//!   [`table`], [`typed`], [`words`]) are declared with [`hot::hot_nif`], which explains why.

mod array;
mod atomics;
mod block_storage;
mod blocks;
mod control;
mod counters;
mod errno;
mod hot;
mod interrupting;
mod io;
mod json;
mod lines;
mod locks;
mod metadata;
mod monitors;
mod open;
#[cfg(feature = "panics")]
mod panics;
mod queue;
mod resource;
mod search;
mod snapshot;
mod table;
mod terms;
mod typed;
mod waiting;
mod words;

use rustler::{Env, Term};

/// The arguments of `load_nif`: whether to handle SIGBUS, and whether to log faults.
fn load(env: Env, settings: Term) -> bool {
    let Ok((guarded, logs)) = settings.decode::<(bool, bool)>() else {
        return false;
    };
    monitors::set_logs(logs);
    if !resource::open_types(env) {
        return false;
    }
    metadata::keep_type();
    queue::keep_type();
    search::keep_type();
    lines::keep_type();
    words::keep_type();
    table::keep_type();
    !guarded || emmap_core::guard::install().is_ok()
}

#[cfg(not(feature = "panics"))]
rustler::init!("Elixir.Emmap.Native", load = load);
// Loaded in addition to the tested library, in one VM.
#[cfg(feature = "panics")]
rustler::init!("Elixir.Emmap.PanicTest.Native", load = load);
