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
//! | [`lock`] | makes copies atomic towards each other |
//! | [`region`] | the mapping itself: read, write, grow, shrink |
//! | [`atomics`] | integers in a map |
//! | [`counters`] | files of persistent counters |
//! | [`buffer`] | memory for a large copy |
//! | [`cursor`] | the file position of a handle |

#[cfg(not(unix))]
compile_error!("emmap needs POSIX memory maps and signals: Windows has neither");

pub mod atomics;
pub mod buffer;
pub mod counters;
pub mod cursor;
pub mod errno;
pub mod file;
pub mod guard;
pub mod lock;
pub mod options;
pub mod os;
pub mod range;
pub mod region;
pub mod reservation;

pub use errno::{Errno, Result};
pub use options::Options;
pub use region::Region;
