//! A crash at every step of what is done to a structure's file, on a simulated medium: any subset of
//! the writes since the last sync reached the disk, in pieces much smaller than a disk's. What is
//! found then is the old state or the new one. And the proof that this can fail: without any one of
//! the syncs it does.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`medium`] | a file and its map that remember what a crash at any moment may leave |
//! | [`stories`] | many stories from seeds, until there were enough images |
//! | [`counters`] | counters: creation and growth |
//! | [`number`] | the smallest structure: what one has to supply, and its crashes |
//! | [`real_file`] | the same structure in a real file |
//! | [`snapshot`] | the control file of a snapshot: publications |
//! | [`table`] | tables: a build |

mod counters;
#[path = "../support/environment.rs"]
mod environment;
mod medium;
mod number;
mod real_file;
mod snapshot;
mod stories;
mod table;
