//! Memory-mapped files that grow in place, and that can be closed, truncated and filled without crashing the
//! process that maps them. This crate does not depend on the BEAM: `emmap_nif` converts its values to terms.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`errno`] | the error of every call: a POSIX number |
//! | [`bounds`] | the only check of position and length, before they are used for an address |
//! | [`os`] | the system calls, each with a `Result` |
//! | [`options`] | the options of a mapping, already checked |
//! | [`opened_file`] | a file that is opened or created for a map, and its size |
//! | [`mapped_file`] | the file of a mapping: its name, its size, its durability |
//! | [`guard`] | the SIGBUS handler and its table of ranges |
//! | [`fault`] | what a map knows about its lost pages |
//! | [`news`] | notifies a thread that a map has met a fault |
//! | [`closing`] | which handles are open |
//! | [`lent`] | which files live binaries show |
//! | [`source`] | bytes to write that may belong to a map |
//! | [`patience`] | how long a call waits, and where |
//! | [`sync`] | the atomics and locks of everything that loom checks |
//! | [`arena`] | where maps are placed |
//! | [`region`] | the mapping itself: read, write, grow, shrink |
//! | [`atomics`] | integers in a map |
//! | [`striped`] | integers that threads add to without waiting for each other |
//! | [`store`] | what the files of all structures have in common: headers, creation, growth |
//! | [`counters`] | files of persistent counters |
//! | [`queue`] | files of queues |
//! | [`blocks`] | files of blocks |
//! | [`table`] | files of tables |
//! | [`control_file`] | small files with a lock for processes: those of mutexes and snapshots |
//! | [`process_lock`] | a lock that processes hold for long, and that outlives none of them |
//! | [`snapshot`] | the control file of a snapshot, with the number of the current version |
//! | [`block_storage`] | the predecessor's block storage, in any map |
//! | [`buffer`] | memory for a large copy |
//! | [`cursor`] | the file position of a handle |
//! | [`byte_search`] | finds and counts one byte in raw memory |
//! | [`lines`] | splits memory into lines |
//! | [`search`] | finds and counts patterns of bytes |
//! | [`word_waits`] | waits until a word of a map changes |
//! | [`array`] | sums and searches over columns of numbers |
//! | [`typed`] | numbers of any size and byte order |

// A build for loom compiles the modules only as a part of its test (tests/loom.rs).
#![cfg(not(loom))]

#[cfg(not(unix))]
compile_error!("emmap needs POSIX memory maps and signals: Windows has neither");

pub mod arena;
pub mod array;
pub mod atomics;
pub mod block_storage;
pub mod blocks;
pub mod bounds;
pub mod buffer;
pub mod byte_search;
pub mod closing;
pub mod control_file;
mod copy_up;
pub mod counters;
pub mod cursor;
pub mod errno;
pub mod fault;
pub mod guard;
pub mod interrupt;
pub mod lent;
pub mod lines;
pub mod mapped_file;
pub mod news;
pub mod opened_file;
pub mod options;
pub mod os;
pub mod patience;
pub mod process_lock;
pub mod queue;
pub mod region;
pub mod search;
pub mod snapshot;
pub mod source;
pub mod store;
pub mod striped;
pub mod sync;
pub mod table;
pub mod typed;
pub mod word_waits;

pub use errno::{Errno, Result};
pub use options::Options;
pub use region::Region;
