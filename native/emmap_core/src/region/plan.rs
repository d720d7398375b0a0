//! What an open derives from its file and its options: first decided, then checked, then carried out.

use super::address_range::AddressRange;
use super::reservation::{Place, Size};
use super::Shape;
use crate::fault::Fault;
use crate::mapped_file::MappedFile;
use crate::opened_file::{OpenedFile, SizePlan, Undo};
use crate::{os, Errno, Options, Result};

/// How many addresses to reserve for a map that can grow, beyond twice its size.
#[cfg(target_pointer_width = "64")]
const GROWTH_RESERVE: usize = 1 << 30;
#[cfg(not(target_pointer_width = "64"))]
const GROWTH_RESERVE: usize = 16 << 20;

/// The most addresses to reserve for a map that may grow to `max_size`.
#[cfg(target_pointer_width = "64")]
const MOST_AHEAD: usize = 16 << 30;
/// As above, for anonymous memory, which cannot be shown in a larger range.
#[cfg(target_pointer_width = "64")]
const MOST_AHEAD_OF_MEMORY: usize = 1 << 40;
#[cfg(not(target_pointer_width = "64"))]
const MOST_AHEAD_OF_MEMORY: usize = MOST_AHEAD;
#[cfg(not(target_pointer_width = "64"))]
const MOST_AHEAD: usize = 64 << 20;

pub(super) struct Plan {
    pub shape: Shape,
    /// The length of the map in bytes.
    pub len: usize,
    /// How the size of the file changes; `None`: anonymous memory.
    size: Option<SizePlan>,
    /// The length of the map in whole pages, in bytes.
    needed: usize,
    /// How many bytes of addresses to reserve for it, if there are plenty.
    wanted: usize,
    place: Place,
}

/// Plans an open and carries it out. If it changes the size of the file, it does both under the lock of the file, and from the
/// size that the file then has. If it fails, it is undone. The range must be dropped before the file and the fault.
pub(super) fn plan_and_map(
    opened: Option<&OpenedFile>,
    options: &Options,
    fault: &Fault,
) -> Result<(Plan, AddressRange)> {
    let Some(opened) = opened else {
        return Plan::of_memory(options)?.carry_out(None, fault);
    };
    // Declared first, and so dropped last: everything is undone under the lock.
    let _lock;
    let mut undo = Undo::new(opened);
    let mut size = opened.plan_size(opened.size(), options)?;
    if opened.writable() && size.changes() {
        _lock = os::FileLock::wait(opened.file.fd())?;
        // Others may have changed it before the lock was free.
        size = opened.plan_size(opened.file.size()?, options)?;
    }
    let mapped = Plan::of_file(opened, size, options)?.carry_out(Some(&mut undo), fault)?;
    undo.disarm();
    Ok(mapped)
}

impl Plan {
    fn of_memory(options: &Options) -> Result<Plan> {
        Plan::new(options, None, os::map_page_size(options.huge))
    }

    fn of_file(opened: &OpenedFile, size: SizePlan, options: &Options) -> Result<Plan> {
        opened.refuse_lent(size)?;
        let page = opened.file.page_size(options.huge)?;
        if options.append && page != os::page_size() {
            // hugetlbfs does not support writes.
            return Err(Errno::NOTSUP);
        }
        Plan::new(options, Some(size), page)
    }

    fn new(options: &Options, size: Option<SizePlan>, page: usize) -> Result<Plan> {
        let (shape, len) = Shape::of(options, size.map(|size| size.after()), page)?;
        let needed = shape.bytes(len)?;
        if shape.resizable && len as u64 > shape.max_size {
            return Err(Errno::NOSPC);
        }
        let wanted = match options.max_size {
            _ if !shape.resizable => needed,
            // The reservation for growth is limited. A map that needs more gets a larger range later.
            Some(max) => {
                let most = if size.is_none() {
                    MOST_AHEAD_OF_MEMORY
                } else {
                    MOST_AHEAD
                };
                shape.bytes(usize::try_from(max).unwrap_or(usize::MAX).min(most))?
            }
            None if options.fixed => needed,
            None => needed.saturating_mul(2).max(GROWTH_RESERVE),
        };
        let place = match options.address {
            None => Place::Anywhere,
            Some(address) if options.fixed => Place::Exactly(address),
            Some(address) => Place::Hint(address),
        };
        Ok(Plan {
            shape,
            len,
            size,
            needed,
            wanted: wanted.max(needed),
            place,
        })
    }

    /// Everything that can be refused is requested before the file is changed.
    fn carry_out(self, undo: Option<&mut Undo>, fault: &Fault) -> Result<(Plan, AddressRange)> {
        let shape = &self.shape;
        let file = undo.as_ref().map(|undo| undo.file());
        let needed = self.needed;
        let size = Size {
            least: needed,
            wanted: self.wanted,
            outgrown: false,
        };
        let mut range = AddressRange::new(shape, file, fault, size, self.place)?;
        // If the file does not change, it need not be tried: mapping it will tell.
        let probed = needed == 0 || self.size.is_none_or(|size| size.changes());
        if let (Some(file), true) = (file, probed) {
            probe(shape, file)?;
        }
        if let Some((undo, size)) = undo.zip(self.size) {
            size.lengthen(undo)?;
        }
        range
            .grow(shape, file, needed)
            .map_err(|error| match error {
                Errno::IO if !probed => Errno::NODEV,
                error => error,
            })?;
        if let Some((file, size)) = file.zip(self.size) {
            size.cut(file)?;
        }
        Ok((self, range))
    }
}

/// Whether the file can be mapped as requested, before it is changed: files in /proc are empty and
/// cannot, and not every file supports huge pages.
fn probe(shape: &Shape, file: &MappedFile) -> Result<()> {
    // Without side effects: hugetlbfs reserves pages for every map without MAP_NORESERVE.
    let mapped = shape.with_flags_of(file.fd(), |flags| {
        let flags = flags | os::NO_RESERVE;
        #[cfg(target_os = "linux")]
        let flags = flags & !libc::MAP_POPULATE;
        os::try_map(shape.page, shape.protection(), flags, file.fd())
    });
    match mapped {
        Err(Errno::IO) => Err(Errno::NODEV),
        Err(Errno::INVAL) if shape.page != os::page_size() => Err(Errno::NOTSUP),
        answer => answer,
    }
}
