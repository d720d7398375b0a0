//! What the fuzz targets do with their bytes. The tests of `emmap_core` compile this folder too, and
//! replay the corpus through it.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`options`] | any options on any small file |
//! | [`counters`] | any bytes as a counter file |
//! | [`dynamic_counters`] | any bytes in a file of dynamic counters |
//! | [`queue`] | any bytes as a queue file |
//! | [`blocks`] | any bytes as a file of blocks |
//! | [`snapshot`] | any bytes in the control file of a snapshot or a mutex |
//! | [`table`] | a changed table, and any bytes as one |
//! | [`bytes`] | numbers and choices out of bytes |
//! | [`traces`] | what a run must not leave behind |

pub mod blocks;
pub mod bytes;
pub mod counters;
pub mod dynamic_counters;
pub mod options;
pub mod queue;
pub mod snapshot;
pub mod table;
pub mod traces;

/// Where a run has its files: in memory, where the system has such, for they are synced often.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a directory")
}
