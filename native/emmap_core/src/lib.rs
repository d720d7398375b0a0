//! Memory-mapped files that grow in place and can be closed, cut and filled without killing the
//! process that maps them. This crate knows nothing of the BEAM: `emmap_nif` puts terms around it.
//!
//! | module | its one job |
//! | --- | --- |
//! | [`errno`] | the error of every call: a POSIX number |
//! | [`range`] | the one check of position and length before either meets an address |
//! | [`os`] | the system calls, each with its answer as a `Result` |
//! | [`options`] | what a caller may ask of a mapping, already checked for sense |
//! | [`file`] | open, create, allocate and sync the file behind a mapping |
//! | [`reservation`] | a range of addresses, owned and given back |
//! | [`guard`] | the SIGBUS handler and its table of ranges |
//! | [`fault`] | what a map knows of the pages it lost |
//! | [`extent`] | where a map is and how long |
//! | [`closing`] | which handles are open |
//! | [`lent`] | which files live binaries show |
//! | [`source`] | bytes to write that may be a map's |
//! | [`sync`] | the atomics and locks of all that loom checks |
//! | [`lock`] | makes copies atomic towards each other |
//! | [`region`] | the mapping itself: read, write, grow, shrink |
//! | [`atomics`] | integers in a map |
//! | [`striped`] | integers that threads add to without waiting for each other |
//! | [`store`] | what every file of a structure shares: its headers, its creation, its growth |
//! | [`counters`] | files of persistent counters |
//! | [`buffer`] | memory for a large copy |
//! | [`cursor`] | the file position of a handle |
//! | [`byte_search`] | one byte in raw memory, found and counted |
//! | [`lines`] | the lines of a piece of memory |
//! | [`search`] | patterns of bytes, found and counted |
//! | [`typed`] | numbers of any size and byte order |

#[cfg(not(unix))]
compile_error!("emmap needs POSIX memory maps and signals: Windows has neither");

#[cfg(not(loom))]
pub mod atomics;
#[cfg(not(loom))]
pub mod buffer;
#[cfg(not(loom))]
pub mod byte_search;
pub mod closing;
#[cfg(not(loom))]
pub mod counters;
#[cfg(not(loom))]
pub mod cursor;
pub mod errno;
pub mod extent;
pub mod fault;
#[cfg(not(loom))]
pub mod file;
#[cfg(not(loom))]
pub mod guard;
#[cfg(not(loom))]
pub mod lent;
#[cfg(not(loom))]
pub mod lines;
pub mod lock;
#[cfg(not(loom))]
pub mod options;
#[cfg(not(loom))]
pub mod os;
#[cfg(not(loom))]
pub mod range;
#[cfg(not(loom))]
pub mod region;
#[cfg(not(loom))]
pub mod reservation;
#[cfg(not(loom))]
pub mod search;
#[cfg(not(loom))]
pub mod source;
#[cfg(not(loom))]
pub mod store;
#[cfg(not(loom))]
pub mod striped;
pub mod sync;
#[cfg(not(loom))]
pub mod typed;

// What loom checks of the guard.
#[cfg(loom)]
#[path = "guard/slot.rs"]
pub mod slot;

pub use errno::{Errno, Result};
#[cfg(not(loom))]
pub use options::Options;
#[cfg(not(loom))]
pub use region::Region;
