//! Advice about pages that Linux has beyond that of POSIX.

#[cfg(target_os = "linux")]
use super::slices::in_slices;
#[cfg(not(target_os = "linux"))]
use crate::Errno;
use crate::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryAdvice {
    Cold,
    PageOut,
    HugePage,
    NoHugePage,
    Collapse,
    DontDump,
    DoDump,
    DontFork,
    DoFork,
    Mergeable,
    Unmergeable,
    PopulateRead,
    PopulateWrite,
    /// Loses bytes.
    Free,
    /// Loses bytes.
    Remove,
}

impl MemoryAdvice {
    /// Whether the bytes of the pages may be gone afterwards.
    pub fn loses_bytes(self) -> bool {
        matches!(self, MemoryAdvice::Free | MemoryAdvice::Remove)
    }

    /// Whether it takes pages that can be written.
    pub fn writes(self) -> bool {
        self.loses_bytes() || self == MemoryAdvice::PopulateWrite
    }

    #[cfg(target_os = "linux")]
    fn number(self) -> libc::c_int {
        match self {
            MemoryAdvice::Cold => libc::MADV_COLD,
            MemoryAdvice::PageOut => libc::MADV_PAGEOUT,
            MemoryAdvice::HugePage => libc::MADV_HUGEPAGE,
            MemoryAdvice::NoHugePage => libc::MADV_NOHUGEPAGE,
            MemoryAdvice::Collapse => MADV_COLLAPSE,
            MemoryAdvice::DontDump => libc::MADV_DONTDUMP,
            MemoryAdvice::DoDump => libc::MADV_DODUMP,
            MemoryAdvice::DontFork => libc::MADV_DONTFORK,
            MemoryAdvice::DoFork => libc::MADV_DOFORK,
            MemoryAdvice::Mergeable => libc::MADV_MERGEABLE,
            MemoryAdvice::Unmergeable => libc::MADV_UNMERGEABLE,
            MemoryAdvice::PopulateRead => libc::MADV_POPULATE_READ,
            MemoryAdvice::PopulateWrite => libc::MADV_POPULATE_WRITE,
            MemoryAdvice::Free => libc::MADV_FREE,
            MemoryAdvice::Remove => libc::MADV_REMOVE,
        }
    }
}

/// Linux 6.1.
#[cfg(target_os = "linux")]
const MADV_COLLAPSE: libc::c_int = 25;

/// Gives advice about whole pages, some at a time: one call would hold the lock on the address space for as long as it
/// takes.
///
/// # Safety
/// The range must be inside one of our mappings, and its bytes may be lost where the advice loses them.
#[cfg(target_os = "linux")]
pub unsafe fn advise_memory(at: *mut u8, len: usize, advice: MemoryAdvice) -> Result<()> {
    in_slices(len, |from, count| {
        // SAFETY: the caller's promise.
        super::retry(|| unsafe { libc::madvise(at.add(from).cast(), count, advice.number()) })
    })
}

/// # Safety
/// None: the call does not exist here.
#[cfg(not(target_os = "linux"))]
pub unsafe fn advise_memory(_at: *mut u8, _len: usize, _advice: MemoryAdvice) -> Result<()> {
    Err(Errno::NOTSUP)
}
