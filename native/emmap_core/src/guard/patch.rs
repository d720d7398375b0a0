//! What the handler does about a lost page of ours: zero pages in its place.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::slot::Guarded;
use super::table::slots;
use crate::fault::Reason;
use crate::os;
#[cfg(target_os = "linux")]
use crate::Errno;

/// Puts zero pages where the page at `address` was lost. `false`: not ours, or no memory for it.
/// For the handler: no lock, no allocation, no wait.
/// `poisoned`: the memory itself is broken.
pub fn patch(address: usize, poisoned: bool) -> bool {
    slots()
        .find_map(|slot| slot.read(address))
        .is_some_and(|guarded| patch_in(&guarded, address, poisoned))
}

fn patch_in(range: &Guarded, address: usize, poisoned: bool) -> bool {
    let Guarded { start, end, .. } = *range;
    if address >= end {
        // Another thread is growing or shrinking the map: what faulted has been replaced, or will
        // be part of the map in a moment. Try again.
        return true;
    }
    // SAFETY: the thread that faulted holds the range, and the range its fault.
    let loss = unsafe { &*range.fault }.enter();
    let page = address & !(range.page - 1);
    let file_end = file_end(range);
    let (reason, from, to) = if page < file_end {
        let reason = why_covered(range, page, poisoned);
        match reason.or_else(|| loss.believe().then(|| unexplained(range))) {
            Some(reason) => (reason, page, page + range.page),
            // It was cut when it was touched, and is whole again by now.
            None => return true,
        }
    } else {
        (Reason::Cut, file_end.max(start), end)
    };
    let position = (address - start).saturating_sub(range.delta) as u64;
    let mut protection = libc::PROT_READ;
    if range.writable {
        protection |= libc::PROT_WRITE;
    }
    loss.record(position, reason, from - start, to - start);
    // SAFETY: `from .. to` and `start .. end` lie inside a range of the table, which the thread that
    // faulted keeps alive.
    unsafe {
        let mut patched = os::zero_over(from as *mut u8, to - from, protection);
        // At the limit of maps a part cannot be replaced, for that splits one: give back a map
        // kept for this, and replace the whole.
        while patched.is_err() && give_back_spare() {
            loss.widen(0, end - start);
            patched = os::zero_over(start as *mut u8, end - start, protection);
        }
        patched.is_ok()
    }
}

/// Where in memory the pages of the file end now.
fn file_end(range: &Guarded) -> usize {
    if range.fd < 0 {
        return usize::MAX;
    }
    // SAFETY: fstat is async-signal-safe; `stat` is read only when it answered 0.
    let size = unsafe {
        let mut stat: MaybeUninit<libc::stat> = MaybeUninit::uninit();
        if libc::fstat(range.fd, stat.as_mut_ptr()) != 0 {
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
fn why_covered(range: &Guarded, page: usize, poisoned: bool) -> Option<Reason> {
    if range.fd < 0 {
        return Some(Reason::NoMemory);
    }
    let at = range
        .file_offset
        .saturating_add((page - range.start) as u64);
    let Ok(at) = os::offset_of(at) else {
        return Some(Reason::Device);
    };
    let mut byte = 0u8;
    // SAFETY: pread is async-signal-safe, and `byte` outlives it.
    let read = unsafe { libc::pread(range.fd, ptr::from_mut(&mut byte).cast(), 1, at) };
    if read < 0 || poisoned {
        return Some(Reason::Device);
    }
    let huge = range.page != os::page_size();
    (huge || no_block(range, at)).then_some(Reason::NoSpace)
}

/// Whether the file system has no block for a page.
fn no_block(range: &Guarded, at: libc::off_t) -> bool {
    #[cfg(target_os = "linux")]
    {
        // What the kernel just tried for a write to a hole.
        let (mode, count) = (libc::FALLOC_FL_KEEP_SIZE, range.page as libc::off_t);
        // SAFETY: a system call without pointers.
        if unsafe { libc::fallocate(range.fd, mode, at, count) } == 0 {
            return false;
        }
        // Open for reading only, or a file system that cannot be asked so.
        let error = Errno::last();
        if error != Errno(libc::EBADF) && error != Errno(libc::EOPNOTSUPP) {
            return true;
        }
    }
    // SAFETY: lseek is async-signal-safe, and nobody uses the position that it moves.
    let hole = unsafe { libc::lseek(range.fd, at, libc::SEEK_HOLE) } == at;
    hole && is_full(range)
}

/// What to answer for a page that cannot be had while nothing says why.
fn unexplained(range: &Guarded) -> Reason {
    match is_full(range) {
        true => Reason::NoSpace,
        false => Reason::Cut,
    }
}

/// Whether the file system has less than a page to give.
#[allow(clippy::unnecessary_cast)] // the types of the fields differ between systems
fn is_full(range: &Guarded) -> bool {
    // SAFETY: a system call; `stat` is read only when it answered 0.
    unsafe {
        let mut stat: MaybeUninit<libc::statvfs> = MaybeUninit::uninit();
        if libc::fstatvfs(range.fd, stat.as_mut_ptr()) != 0 {
            return false;
        }
        let stat = stat.assume_init_ref();
        (stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64) < range.page as u64
    }
}

/// Maps of one page that a fault at the limit of maps (`vm.max_map_count`) can do without.
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
