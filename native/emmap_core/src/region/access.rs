//! Access to the map, together with the check for pages that were lost in the meantime. Every access includes the check.

use super::Region;
use crate::fault::{Fault, Mark};
use crate::{Errno, Result};

impl Region {
    /// Runs `read`, which reads the map, and returns its result, or the fault if a page was lost by then. A page
    /// that was repaired in the meantime counts as well (ESTALE).
    #[inline(always)]
    pub fn reading<T, E: From<Errno>>(
        &self,
        read: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let mark = self.hot.fault.mark();
        let found = read()?;
        self.check_since(mark)?;
        Ok(found)
    }

    /// As [`Region::reading`], for `write`, which changes the map. After a fault, it is not even begun.
    #[inline(always)]
    pub fn writing<T, E: From<Errno>>(
        &self,
        write: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let mark = self.hot.fault.mark();
        if Fault::seen_before(mark) {
            self.first_fault()?;
        }
        let done = write()?;
        self.check_since(mark)?;
        Ok(done)
    }

    /// The fault that every call returns after a page was lost.
    #[inline(always)]
    pub fn check_fault(&self) -> Result<()> {
        match self.hot.fault.seen() {
            false => Ok(()),
            true => self.first_fault(),
        }
    }

    #[inline(always)]
    fn check_since(&self, mark: Mark) -> Result<()> {
        match self.hot.fault.since(mark) {
            true => Ok(()),
            false => self.first_fault().and(Err(Errno::STALE)),
        }
    }

    #[cold]
    #[inline(never)]
    fn first_fault(&self) -> Result<()> {
        match self.hot.fault.first() {
            // Repaired in between.
            None => Ok(()),
            Some((_, reason)) => Err(reason.errno()),
        }
    }
}
