//! The hot NIFs on bytes: at a position, and at the cursor.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`pread`] | reads at a position |
//! | [`pwrite`] | writes at a position |
//! | [`read`], [`read_line`] | reads at the cursor |
//! | [`write`] | writes at the cursor |
//! | [`position`] | the cursor itself, and the size of the map |
//! | [`copy`] | bytes of a map as a new binary |
//! | [`live`] | bytes of a map as a live binary |
//! | [`change`] | a change of bytes in a map that may grow |

pub mod change;
pub mod copy;
pub(crate) mod live;
mod position;
mod pread;
mod pwrite;
mod read;
mod read_line;
mod write;
