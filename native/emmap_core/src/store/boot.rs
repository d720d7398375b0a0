//! Whether the state in a structure's file is from this boot, and from this file. Then it is consistent at every instruction.
//! Otherwise, any part of it may be older than any other part.

use super::Shared;
use crate::{os, Result};

/// The offset of the words: two of the boot id, then the inode number.
#[derive(Clone, Copy)]
pub struct Place(pub u64);

impl Place {
    fn inode(self) -> u64 {
        self.0 + 16
    }

    pub fn is_current<S: Shared>(self, shared: &S, inode: u64) -> Result<bool> {
        let boot = os::boot_id();
        let current = shared.load(self.0)? == boot as u64
            && shared.load(self.0 + 8)? == (boot >> 64) as u64
            && shared.load(self.inode())? == inode;
        Ok(current && boot != 0)
    }

    /// Called when the state is consistent. If a program dies in between, no other program relies on what it has changed.
    pub fn set_current<S: Shared>(self, shared: &S, inode: u64) -> Result<()> {
        let boot = os::boot_id();
        shared.store(self.0 + 8, (boot >> 64) as u64)?;
        shared.store(self.inode(), inode)?;
        shared.store(self.0, boot as u64)
    }
}
