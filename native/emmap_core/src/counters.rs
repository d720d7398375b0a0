//! Files of persistent counters: their layout, and what is done to one counter. The
//! [`store`](crate::store) creates, opens and grows them. `docs/formats.md` has the format for
//! readers in other languages.

pub mod format;
mod grid;
mod names;

pub use format::Layout;
pub use grid::{Grid, Refused};

use std::path::Path;

pub use crate::store::BadFormat;
use crate::store::{self, Absent};
use crate::Region;

/// Why counters could not be opened. None of these touches the file.
pub type Error = store::Error<OtherNames>;

/// An open counter file.
pub type Counters = store::Opened<Layout>;

/// The file has other names than those asked for; these are the file's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherNames(pub Vec<String>);

/// What is asked of a counter file.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// At least so many counters.
    pub count: u64,
    /// Names from the first counter on; empty for numbered counters.
    pub names: Vec<String>,
    /// Cache lines for each counter of a new file.
    pub stripes: u32,
    /// The file must be there, with counters in it.
    pub existing: bool,
}

/// Opens the counters at `path`, creating or growing them as asked. Blocks on the disk.
pub fn open(path: &Path, request: &Request) -> Result<Counters, Error> {
    let absent = match request.existing {
        true => Absent::Refuse,
        false => Absent::Create,
    };
    store::open(path, request, absent)
}

/// As [`Region::reattach`], if the file still has the counters of `grid` where they were, and the
/// first of them under these names. If it has not, nobody counts in them until it has.
pub fn reattach(region: &Region, grid: &Grid, names: &[String]) -> Result<(), Error> {
    let check = |now: &Layout| match Grid::from(now).extends(grid) {
        false => Err(BadFormat::Length.into()),
        true if now.continues(names) => Ok(()),
        true => Err(BadFormat::Content.into()),
    };
    store::reattach(region, check).map_err(Error::of)
}
