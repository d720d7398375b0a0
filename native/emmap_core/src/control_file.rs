//! Small files with a lock that processes hold ([`crate::process_lock`]): those of mutexes and snapshots.
//!
//! ```text
//! 0, 4096   headers
//! 8192      lock word | abandoned | slots that wait | reserved
//! 8256      number of the current version (snapshots)
//! 8320      boot id and inode number
//! 12288     64 participants of 64 bytes: epoch | life | reserved
//! 16384     end
//! ```

use std::os::fd::AsFd;
use std::path::Path;

use crate::mapped_file::Identity;
use crate::store::header::{self, Body};
use crate::store::{self, boot, participants, Absent, InForce, Medium, Structure};
use crate::{os, Region};

/// The lock: 0, or the participant that has it.
pub const LOCK: u64 = 8192;
/// 1: the last holder ended without releasing the lock.
pub const ABANDONED: u64 = 8200;
/// A bit for each participant that waits.
pub const WAITING: u64 = 8208;
/// The number of the current version of a snapshot.
pub const VERSION: u64 = 8256;
pub const BOOT: boot::Place = boot::Place(8320);
pub const PARTICIPANTS: participants::Place = participants::Place {
    slots: 12_288,
    bytes_of_each: 64,
};
/// From the start of a participant: the number of a thread that lives as long as its program.
pub const LIFE: u64 = 8;
pub const SIZE: u64 = 16_384;

pub type Error = store::Error;

/// The layout of such a file. `B`: what its headers say.
#[derive(Clone, Debug)]
pub struct Layout<B> {
    pub body: B,
    pub in_force: InForce,
}

impl<B: Body + Clone + Default> Structure for Layout<B> {
    type Request = ();
    type Mismatch = std::convert::Infallible;
    type Body = B;

    fn new(_request: &()) -> Result<Self, Error> {
        Ok(Layout {
            body: B::default(),
            in_force: InForce::NONE,
        })
    }

    fn read(medium: &impl Medium) -> Result<Self, Error> {
        let (body, in_force) = header::read(medium)?;
        Ok(Layout { body, in_force })
    }

    fn wanted(&self, _request: &()) -> Result<Option<Self>, Error> {
        Ok(None)
    }

    fn file_size(&self) -> Option<u64> {
        Some(SIZE)
    }

    fn body(&self) -> crate::Result<B> {
        Ok(self.body.clone())
    }

    fn in_force(&self) -> InForce {
        self.in_force
    }
}

/// An open control file.
pub struct Opened<B> {
    pub region: Region,
    pub layout: Layout<B>,
    pub identity: Identity,
}

/// Opens the file, and creates it if it does not exist. Blocks on the disk.
pub fn open<B: Body + Clone + Default>(path: &Path, absent: Absent) -> Result<Opened<B>, Error> {
    let opened = store::open::<Layout<B>>(path, &(), absent)?;
    let file = opened.region.clone_file()?;
    let identity = Identity::of(&os::stat(file.as_fd())?);
    Ok(Opened {
        region: opened.region,
        layout: opened.layout,
        identity,
    })
}

/// The headers of a mutex say nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MutexBody;

impl Body for MutexBody {
    const MAGIC: [u8; 8] = *b"EMMAPMTX";
    const VERSION: u32 = 1;
    /// Reserved: 0.
    const BYTES: usize = 8;

    fn encode(&self, _body: &mut [u8]) {}

    fn decode(body: &[u8]) -> Option<MutexBody> {
        body.iter().all(|byte| *byte == 0).then_some(MutexBody)
    }

    fn file_size(&self) -> Option<u64> {
        Some(SIZE)
    }
}
