//! The NIFs of queues. The hot ones push, pop, check out and acknowledge; the cold ones open, close, sync and inspect.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`calls`] | the hot NIFs |
//! | [`batches`] | the hot NIFs of many items |
//! | [`payload`] | how payloads are returned: copied or live |
//! | [`untold`] | damage at which a batch ended, to be reported by the next call |
//! | [`cold`] | the cold NIFs |
//! | [`owners`] | which process has checked out which items |
//! | [`notify`] | threads that wait for the processes, and send them messages |

mod batches;
mod calls;
mod cold;
mod notify;
mod owners;
mod payload;
mod untold;

use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use emmap_core::queue::{Queue, Stop};
use rustler::{Env, LocalPid, Monitor, Resource};

use crate::hot::Early;
use crate::resource::KeptRegion;
use notify::{Syncing, Waiting};
use owners::Owners;
use untold::Untold;

mod reasons {
    rustler::atoms! {
        corrupt,
        full,
        gone,
        empty,
        duplicate,
        emmap_queue,
        bad_format,
        content,
    }
}

/// The state of an open queue that the processes of this program share.
pub struct OpenQueue {
    pub part: Arc<Part>,
    owners: Owners,
    untold: Untold,
    /// Whether payloads are live.
    direct: bool,
}

/// The part of it that the threads also need.
pub struct Part {
    pub region: KeptRegion,
    pub queue: Queue,
    items: Waiting,
    space: Waiting,
    syncs: Syncing,
    closed: AtomicBool,
}

impl OpenQueue {
    fn new(region: KeptRegion, queue: Queue, direct: bool) -> OpenQueue {
        OpenQueue {
            part: Arc::new(Part {
                region,
                queue,
                items: Waiting::default(),
                space: Waiting::default(),
                syncs: Syncing::default(),
                closed: AtomicBool::new(false),
            }),
            owners: Owners::default(),
            untold: Untold::default(),
            direct,
        }
    }
}

#[rustler::resource_impl(name = "emmap_queue")]
impl Resource for OpenQueue {
    const IMPLEMENTS_DOWN: bool = true;

    /// A process ended: the items that it has checked out are available again.
    fn down<'a>(&'a self, _env: Env<'a>, pid: LocalPid, _monitor: Monitor) {
        if let Some(owner) = self.owners.remove(&pid) {
            notify::release(&self.part, owner);
        }
    }
}

/// Keeps the type for the life of the VM: see `resource::keep_types`. (A queue cannot be made without a file; the VM does
/// not unload a library that has opened a type which rustler keeps.)
pub fn keep_type() {}

impl From<Stop> for Early {
    fn from(stop: Stop) -> Early {
        match stop {
            Stop::Posix(error) => error.into(),
            Stop::Full => Early::Reason(reasons::full()),
            Stop::Gone => Early::Reason(reasons::gone()),
            Stop::Busy | Stop::Grow(_) | Stop::Checkpoint => Early::Again,
            // Reported with its position where possible.
            Stop::Corrupt(_) => Early::from(emmap_core::Errno::IO),
        }
    }
}
