//! Files of tables: built once, then only read. A lookup reads one cache line of the index if the key is absent, and one
//! more, of the record, if it is there.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`layout`] | the header, and where everything is |
//! | [`memory`] | checked reads of the map |
//! | [`record`] | a key and its value |
//! | [`lookup`] | finds the record of a key |
//! | [`walk`] | records in order, and the first record of a range |
//! | [`check`] | compares the file with its checksums, and the index with the records |
//! | [`build`] | writes a new file in bounded memory |

pub mod build;
pub mod check;
pub mod layout;
pub mod lookup;
pub mod memory;
pub mod record;
pub mod walk;

use std::path::Path;

use crate::store::medium::Mapped;
use crate::store::Error;
use crate::{Options, Region};

pub use layout::{Flags, Layout};
pub use memory::Memory;
pub use record::{Record, MOST_KEY};

/// Opens a file: maps it and checks its header, in constant time.
pub fn open(path: &Path) -> Result<(Region, Layout), Error> {
    let options = Options {
        path: Some(path.to_owned()),
        // Nothing writes to the file.
        lock: false,
        ..Options::default()
    };
    let region = Region::open(&options)?;
    let layout = Layout::read(&Mapped(&region))?;
    Ok((region, layout))
}

/// Maps the file again after a fault, if it still has this layout.
pub fn reattach(region: &Region, layout: &Layout) -> Result<(), Error> {
    region.reattach()?;
    match Layout::read(&Mapped(region))? == *layout {
        true => Ok(()),
        false => {
            region.distrust();
            Err(crate::Errno::STALE.into())
        }
    }
}
