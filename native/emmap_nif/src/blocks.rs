//! The NIFs of blocks. The hot ones work on one or several blocks; the cold ones open, close, sync and inspect.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`calls`] | the hot NIFs |
//! | [`cold`] | the cold NIFs |

mod calls;
mod cold;

use emmap_core::blocks::Stop;

use crate::hot::Early;

mod reasons {
    rustler::atoms! {
        corrupt,
        enoent,
        bad_format,
        content,
        other_block_size,
    }
}

impl From<Stop> for Early {
    fn from(stop: Stop) -> Early {
        match stop {
            Stop::Posix(error) => error.into(),
            Stop::Absent => Early::Reason(reasons::enoent()),
            Stop::Busy | Stop::Grow(_) | Stop::Sync => Early::Again,
            // Reported with its address where possible.
            Stop::Corrupt(_) => Early::from(emmap_core::Errno::IO),
        }
    }
}
