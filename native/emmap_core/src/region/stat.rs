//! What the system knows of the file behind a region, and where the file has data.

use super::Region;
use crate::os::{self, Stat};
use crate::{Errno, Result};

impl Region {
    /// The file as `fstat` sees it now. ENOTSUP for anonymous memory.
    pub fn stat(&self) -> Result<Stat> {
        let file = self.file.as_ref().ok_or(Errno::NOTSUP)?;
        os::stat(file.fd())
    }
}
