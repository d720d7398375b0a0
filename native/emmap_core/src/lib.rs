//! Memory-mapped files that grow in place and can be closed, truncated and filled without killing the
//! process that maps them. This crate knows nothing of the BEAM: `emmap_nif` puts terms around it.
//!
//! | module | its one job |
//! | --- | --- |
//! | [`errno`] | the error of every call: a POSIX number |
//! | [`bounds`] | the one check of position and length before either meets an address |
//! | [`os`] | the system calls, each with its answer as a `Result` |
//! | [`options`] | what a caller may ask of a mapping, already checked for sense |
//! | [`opened_file`] | a file that is opened or created for a map, and what becomes of its size |
//! | [`mapped_file`] | the file behind a mapping: its name, its size, its durability |
//! | [`guard`] | the SIGBUS handler and its table of ranges |
//! | [`fault`] | what a map knows of the pages it lost |
//! | [`news`] | tells a thread that a map has met a fault |
//! | [`closing`] | which handles are open |
//! | [`lent`] | which files live binaries show |
//! | [`source`] | bytes to write that may be a map's |
//! | [`patience`] | how long a call waits, and where |
//! | [`sync`] | the atomics and locks of all that loom checks |
//! | [`arena`] | where maps are placed |
//! | [`region`] | the mapping itself: read, write, grow, shrink |
//! | [`atomics`] | integers in a map |
//! | [`striped`] | integers that threads add to without waiting for each other |
//! | [`store`] | what every file of a structure shares: its headers, its creation, its growth |
//! | [`counters`] | files of persistent counters |
//! | [`queue`] | files of queues |
//! | [`blocks`] | files of blocks |
//! | [`block_storage`] | the predecessor's block storage, in any map |
//! | [`buffer`] | memory for a large copy |
//! | [`cursor`] | the file position of a handle |
//! | [`byte_search`] | one byte in raw memory, found and counted |
//! | [`lines`] | the lines of a piece of memory |
//! | [`search`] | patterns of bytes, found and counted |
//! | [`typed`] | numbers of any size and byte order |

// A build for loom has its modules in its test alone (tests/loom.rs).
#![cfg(not(loom))]

#[cfg(not(unix))]
compile_error!("emmap needs POSIX memory maps and signals: Windows has neither");

pub mod arena;
pub mod atomics;
pub mod block_storage;
pub mod blocks;
pub mod bounds;
pub mod buffer;
pub mod byte_search;
pub mod closing;
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
pub mod queue;
pub mod region;
pub mod search;
pub mod source;
pub mod store;
pub mod striped;
pub mod sync;
pub mod typed;

pub use errno::{Errno, Result};
pub use options::Options;
pub use region::Region;
