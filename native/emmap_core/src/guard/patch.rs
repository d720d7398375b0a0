//! How the handler replaces a lost page of a guarded range with a zero page.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::slot::{self, Guarded, Slot};
use crate::fault::Reason;
use crate::{os, Errno};

/// Puts zero pages where the page at `address` was lost. `false`: not ours, or no memory for it.
/// For the handler: no lock, no allocation, no wait.
/// `poisoned`: the memory itself is broken.
pub fn patch(address: usize, poisoned: bool) -> bool {
    super::find(address).is_some_and(|(slot, guarded)| patch_in(slot, &guarded, address, poisoned))
}

fn patch_in(slot: &Slot, range: &Guarded, address: usize, poisoned: bool) -> bool {
    let Guarded { start, end, .. } = *range;
    // SAFETY: the thread that faulted holds the range, and the range its fault.
    let fault = unsafe { &*range.fault };
    if fault.is_hopeless(address) {
        return false;
    }
    if address >= end {
        // Another thread is growing or shrinking the map: the page that faulted has been replaced, or will be
        // part of the map in a moment. Try again.
        // SAFETY: takes no pointers, and is async-signal-safe.
        unsafe { libc::sched_yield() };
        return true;
    }
    let loss = fault.enter();
    // After `enter`: the descriptor stays open until the loss is dropped.
    let fd = slot.fd();
    let page = address & !(range.page - 1);
    let file_end = file_end(fd, range);
    let (reason, from, to) = if page < file_end {
        let reason = why_covered(fd, range, page, poisoned);
        match reason.or_else(|| loss.believe().then(|| unexplained(fd, range, page))) {
            Some(reason) => {
                let (from, to) = piece(slot, range, page, fd);
                (reason, from, to)
            }
            // The file was truncated when the page was touched, and is whole again by now.
            None => return true,
        }
    } else {
        (Reason::CUT, file_end.max(start), end)
    };
    let position = (address - start).saturating_sub(range.delta) as u64;
    loss.record(position, reason, from - start, to - start);
    if range.only_copy && reason != Reason::CUT && to - from > range.page {
        // Their bytes are lost, and the VM is not.
        fault.throw_away();
    }
    if replace(range, page, from, to) {
        slot.add_piece();
        counter(range.only_copy).fetch_add(1, Ordering::Relaxed);
        return true;
    }
    // At the limit of maps a part cannot be replaced, for that splits one: release a map kept for this, and
    // replace the whole.
    while give_back_spare() {
        loss.widen(0, end - start);
        if range.only_copy {
            fault.throw_away();
        }
        if replace(range, page, start, end) {
            return true;
        }
    }
    // Pages that cannot be written are not charged: who reads them lives.
    zero(from, to, libc::PROT_READ)
}

/// How many pieces all ranges have: those that show a file shared, and those whose bytes are stored nowhere else. Each may
/// be a mapping more, and the system limits how many a process has.
static PIECES: AtomicUsize = AtomicUsize::new(0);
static ONLY_COPIES: AtomicUsize = AtomicUsize::new(0);
/// A range is replaced page by page this often; then, as often again, in pieces of two, four, eight pages ….
const PIECES_OF_A_SIZE: usize = 64;
/// The most pieces of all ranges of a kind: an eighth of the usual limit (`vm.max_map_count` is 65,530).
const MOST_PIECES: usize = 8 << 10;

fn counter(range_is_only_copy: bool) -> &'static AtomicUsize {
    match range_is_only_copy {
        true => &ONLY_COPIES,
        false => &PIECES,
    }
}

/// The part to replace around a page that the file reaches over. Its neighbours may be there, but every call on
/// the map returns the fault by now, and [`crate::Region::reattach`] maps the file again.
fn piece(slot: &Slot, range: &Guarded, page: usize, fd: i32) -> (usize, usize) {
    let Guarded { start, end, .. } = *range;
    let pieces = slot.pieces();
    if counter(range.only_copy).load(Ordering::Relaxed) >= MOST_PIECES {
        return (start, end);
    }
    if range.only_copy {
        return (page, page + range.page);
    }
    let size = u32::try_from(pieces / PIECES_OF_A_SIZE)
        .ok()
        .and_then(|doublings| range.page.checked_shl(doublings))
        .filter(|size| *size >= range.page && *size < end - start)
        .unwrap_or(end - start);
    let from = match fd {
        // Where the file ends cannot be asked: what is before the page may be there, for live binaries.
        slot::CLOSED => page,
        _ => start + (page - start) / size * size,
    };
    (from, from.saturating_add(size).min(end))
}

/// A slot's range is one mapping again, or gone.
pub fn forget_pieces(slot: &Slot) {
    let pieces = slot.take_pieces();
    counter(slot.is_only_copy()).fetch_sub(pieces, Ordering::Relaxed);
}

/// Puts zero pages over `from .. to`, or where the system does not grant so many (it charges pages that can be
/// written as memory where `vm.overcommit_memory` is 2), over fewer from `page` on.
fn replace(range: &Guarded, page: usize, from: usize, to: usize) -> bool {
    if !range.writable {
        return zero(from, to, libc::PROT_READ);
    }
    let both = libc::PROT_READ | libc::PROT_WRITE;
    let smaller = [64 << 20, 1 << 20, range.page].map(|size| size.max(range.page));
    zero(from, to, both)
        || smaller
            .into_iter()
            .filter(|size| *size < to - from)
            .any(|size| zero(page, page.saturating_add(size).min(to), both))
}

/// `from .. to` must be inside a range of the table.
fn zero(from: usize, to: usize, protection: libc::c_int) -> bool {
    // SAFETY: inside a range of the table, by the word of the callers in this module, which the thread that
    // faulted keeps alive.
    unsafe { os::zero_over(from as *mut u8, to - from, protection) }.is_ok()
}

/// Where in memory the pages of the file end now.
fn file_end(fd: i32, range: &Guarded) -> usize {
    if fd < 0 {
        return usize::MAX;
    }
    // SAFETY: fstat is async-signal-safe; `stat` is read only if it returned 0.
    let size = unsafe {
        let mut stat: MaybeUninit<libc::stat> = MaybeUninit::uninit();
        if libc::fstat(fd, stat.as_mut_ptr()) != 0 {
            return usize::MAX;
        }
        (*stat.as_ptr()).st_size as u64
    };
    let bytes = size
        .saturating_sub(range.file_offset)
        .min(isize::MAX as u64) as usize;
    let pages = bytes.saturating_add(range.page - 1) & !(range.page - 1);
    range.start.saturating_add(pages)
}

/// Why a page that the file reaches over could not be had; `None`: nothing that can be asked says
/// that it cannot.
fn why_covered(fd: i32, range: &Guarded, page: usize, poisoned: bool) -> Option<Reason> {
    match fd {
        slot::ANONYMOUS => return Some(Reason::NO_MEMORY),
        // Nothing can be asked any more.
        slot::CLOSED => return Some(Reason::CUT),
        _ => (),
    }
    let at = range
        .file_offset
        .saturating_add((page - range.start) as u64);
    let Ok(at) = os::offset_of(at) else {
        return Some(Reason::DEVICE);
    };
    let mut byte = 0u8;
    // SAFETY: pread is async-signal-safe, and `byte` outlives it.
    let read = unsafe { libc::pread(fd, ptr::from_mut(&mut byte).cast(), 1, at) };
    if poisoned {
        return Some(Reason::DEVICE);
    }
    if read < 0 {
        // A network file system says ESTALE of a file that is gone, and a server in user space that died ENOTCONN.
        return Some(Reason::of(Errno::last()));
    }
    match range.page == os::page_size() {
        true => why_no_block(fd, range, at),
        false => Some(Reason::NO_SPACE),
    }
}

/// Why the file system gives no block for a page, or does not let it be written; `None`: it would, or does not say.
fn why_no_block(fd: i32, range: &Guarded, at: libc::off_t) -> Option<Reason> {
    #[cfg(target_os = "linux")]
    match refusal(fd, range, at, 0) {
        // What the kernel just tried for a write to a hole.
        Ok(()) => {
            // There is a block, and a write needs another one where it is shared with a copy of the file (XFS).
            let shared = refusal(fd, range, at, libc::FALLOC_FL_UNSHARE_RANGE);
            let full = |error: &Errno| matches!(error.0, libc::ENOSPC | libc::EDQUOT);
            return shared.err().filter(full).map(Reason::of);
        }
        // Open for reading only, or a file system that cannot be asked so.
        Err(Errno(libc::EBADF | libc::EOPNOTSUPP | libc::ENOSYS | libc::EINTR)) => (),
        Err(error) => return Some(Reason::of(error)),
    }
    // SAFETY: lseek is async-signal-safe, and nobody uses the position that it moves.
    let hole = unsafe { libc::lseek(fd, at, libc::SEEK_HOLE) } == at;
    (hole && has_less(fd, range.page as u64)).then_some(Reason::NO_SPACE)
}

/// What the file system says to blocks for a page, which it may allocate.
#[cfg(target_os = "linux")]
fn refusal(fd: i32, range: &Guarded, at: libc::off_t, mode: libc::c_int) -> Result<(), Errno> {
    let (mode, count) = (mode | libc::FALLOC_FL_KEEP_SIZE, range.page as libc::off_t);
    // SAFETY: a system call without pointers.
    match unsafe { libc::fallocate(fd, mode, at, count) } {
        0 => Ok(()),
        _ => Err(Errno::last()),
    }
}

/// What to return for a page that cannot be had while nothing says why. Not that the file was truncated, unless
/// the page can be had now: then it was, over and over.
fn unexplained(fd: i32, range: &Guarded, page: usize) -> Reason {
    /// File systems keep some blocks for themselves.
    const KEPT: u64 = 1 << 20;
    if can_be_had(range, page) == Some(true) {
        return Reason::CUT;
    }
    match no_new_block(fd, range) {
        Some(error) => Reason::of(error),
        None if has_less(fd, KEPT.max(range.page as u64)) => Reason::NO_SPACE,
        None => Reason::DEVICE,
    }
}

/// What the file system says to a block more, far behind the end of the file; it is released at once.
fn no_new_block(fd: i32, range: &Guarded) -> Option<Errno> {
    #[cfg(target_os = "linux")]
    {
        // No file grows so far in the meantime.
        const FAR: u64 = 1 << 40;
        let end = file_end(fd, range).checked_sub(range.start)?;
        let far = range
            .file_offset
            .checked_add(end as u64)?
            .checked_add(FAR)?;
        let far = os::offset_of(far).ok()?;
        let error = refusal(fd, range, far, 0).err();
        if error.is_none() {
            let _ = refusal(fd, range, far, libc::FALLOC_FL_PUNCH_HOLE);
        }
        error.filter(|error| matches!(error.0, libc::ENOSPC | libc::EDQUOT | libc::EROFS))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (fd, range);
        None
    }
}

/// Whether a touch of the page would raise no signal now; `None`: the system does not say.
fn can_be_had(range: &Guarded, page: usize) -> Option<bool> {
    #[cfg(target_os = "linux")]
    {
        const TIMES: usize = 16;
        let touches = || {
            let read = touch(range, page, libc::MADV_POPULATE_READ)?;
            match read && range.writable {
                true => touch(range, page, libc::MADV_POPULATE_WRITE),
                false => Some(read),
            }
        };
        for _ in 0..TIMES {
            if touches()? {
                return Some(true);
            }
        }
        Some(false)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (range, page);
        None
    }
}

/// Has the kernel touch a page, which raises no signal.
#[cfg(target_os = "linux")]
fn touch(range: &Guarded, page: usize, how: libc::c_int) -> Option<bool> {
    // SAFETY: the page is inside a range of the table, which the thread that faulted keeps alive; what is in it
    // does not change.
    match unsafe { libc::madvise(page as *mut libc::c_void, range.page, how) } {
        0 => Some(true),
        // A kernel before 5.14.
        _ if Errno::last() == Errno::INVAL => None,
        _ => Some(false),
    }
}

/// Whether the file system has fewer than this many bytes available.
#[allow(clippy::unnecessary_cast)] // the types of the fields differ between systems
fn has_less(fd: i32, bytes: u64) -> bool {
    // SAFETY: a system call; `stat` is read only if it returned 0.
    unsafe {
        let mut stat: MaybeUninit<libc::statvfs> = MaybeUninit::uninit();
        if libc::fstatvfs(fd, stat.as_mut_ptr()) != 0 {
            return false;
        }
        let stat = stat.assume_init_ref();
        stat.f_blocks > 0 && (stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64) < bytes
    }
}

/// Spare maps of one page, which are released on a fault at the limit of maps (`vm.max_map_count`).
static SPARES: [AtomicUsize; 8] = [const { AtomicUsize::new(0) }; 8];

/// Makes the spare maps that are missing, as far as there may be more.
pub fn keep_spares() {
    let page = os::page_size();
    for spare in &SPARES {
        if spare.load(Ordering::Relaxed) == 0 {
            // Three pages of which the middle one is another kind: no two spares become one map.
            if let Ok(at) = os::reserve_at(0, 3 * page, false) {
                // SAFETY: the range was made in the line above.
                unsafe { libc::mprotect(at.add(page).cast(), page, libc::PROT_NONE) };
                spare.store(at as usize, Ordering::Release);
            }
        }
    }
}

/// For the handler: one system call. `false`: none is left.
fn give_back_spare() -> bool {
    for spare in &SPARES {
        let at = spare.swap(0, Ordering::AcqRel);
        if at != 0 {
            // SAFETY: the range is of `keep_spares`, and taken from the table by us alone.
            unsafe { os::unmap(at as *mut u8, 3 * os::page_size()) };
            return true;
        }
    }
    false
}
