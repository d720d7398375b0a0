//! Files of persistent counters: their layout, and the operations on a counter. The
//! [`store`](crate::store) creates, opens and grows them. `docs/formats.md` describes the format for
//! readers in other languages.

pub mod dynamic;
pub mod format;
mod grid;
mod names;

pub use format::Layout;
pub use grid::{Grid, Refused};

use std::path::Path;

pub use crate::store::BadFormat;
use crate::store::{self, Absent};
use crate::Region;

/// Why counters could not be opened. In all cases, the file is unchanged.
pub type Error = store::Error<OtherNames>;

/// An open counter file.
pub type Counters = store::Opened<Layout>;

/// The file has other names than requested. These are the names in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherNames(pub Vec<String>);

/// The requested contents of a counter file.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// At least this many counters.
    pub count: u64,
    /// Names from the first counter on; empty for numbered counters.
    pub names: Vec<String>,
    /// Cache lines for each counter of a new file.
    pub stripes: u32,
    /// The file must exist and contain counters.
    pub existing: bool,
}

/// Opens the counters at `path`, and creates or extends them as requested. Blocks on the disk.
pub fn open(path: &Path, request: &Request) -> Result<Counters, Error> {
    let absent = match request.existing {
        true => Absent::Refuse,
        false => Absent::Create,
    };
    store::open(path, request, absent)
}

/// As [`Region::reattach`], if the file still has the counters of `grid` at the same positions, and the
/// first of them under these names. Otherwise, all operations on them fail until it does.
pub fn reattach(region: &Region, grid: &Grid, names: &[String]) -> Result<(), Error> {
    let check = |now: &Layout| match Grid::from(now).extends(grid) {
        false => Err(BadFormat::Length.into()),
        true if now.continues(names) => Ok(()),
        true => Err(BadFormat::Content.into()),
    };
    store::reattach(region, check).map_err(Error::of)
}
