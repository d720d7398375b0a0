//! Maps, reservations and advice about pages.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;

#[cfg(target_os = "linux")]
use super::retry;
use super::slices::{in_slices, is_large};
use super::{check, Advice, HugePage, NO_RESERVE};
use crate::{Errno, Result};

/// The size of an ordinary page, in bytes.
pub fn page_size() -> usize {
    static PAGE: OnceLock<usize> = OnceLock::new();
    *PAGE.get_or_init(|| {
        // SAFETY: sysconf takes no pointers.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(page).unwrap_or(4096)
    })
}

/// The page size that a map with these options is made of.
pub fn map_page_size(huge: Option<HugePage>) -> usize {
    match huge {
        None => page_size(),
        Some(HugePage::TwoMegabytes) => 2 << 20,
        Some(HugePage::OneGigabyte) => 1 << 30,
        Some(HugePage::Default) => default_huge_page_size(),
    }
}

#[cfg(target_os = "linux")]
fn default_huge_page_size() -> usize {
    let kilobytes = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|l| l.starts_with("Hugepagesize:"))?;
            line.split_whitespace().nth(1)?.parse::<usize>().ok()
        })
        .filter(|kilobytes| kilobytes.is_power_of_two());
    kilobytes.unwrap_or(2048) << 10
}

/// The page size that a map of this file is made of. On hugetlbfs that is the file system's: a map of fewer bytes, and
/// the place of it, are rounded up to it by the kernel. ENOTSUP where `huge` is another size.
#[cfg(target_os = "linux")]
#[allow(clippy::unnecessary_cast)] // the types of the fields differ between systems
pub fn file_page_size(fd: BorrowedFd, huge: Option<HugePage>) -> Result<usize> {
    // SAFETY: `stat` is filled before it is read.
    let (kind, block) = unsafe {
        let mut stat: libc::statfs = std::mem::zeroed();
        retry(|| libc::fstatfs(fd.as_raw_fd(), &mut stat))?;
        (stat.f_type as u64 & 0xFFFF_FFFF, stat.f_bsize as usize)
    };
    const HUGETLBFS_MAGIC: u64 = 0x9584_58F6;
    match (kind, huge) {
        (HUGETLBFS_MAGIC, Some(size)) if map_page_size(Some(size)) != block => Err(Errno::NOTSUP),
        (HUGETLBFS_MAGIC, _) => Ok(block),
        _ => Ok(map_page_size(huge)),
    }
}

/// The page size that a map of this file is made of.
#[cfg(not(target_os = "linux"))]
pub fn file_page_size(_fd: BorrowedFd, huge: Option<HugePage>) -> Result<usize> {
    Ok(map_page_size(huge))
}

#[cfg(not(target_os = "linux"))]
fn default_huge_page_size() -> usize {
    2 << 20
}

/// Whether the first `len` bytes of a file can be mapped so. Mapped where nothing is, and unmapped again.
pub fn try_map(
    len: usize,
    protection: libc::c_int,
    flags: libc::c_int,
    fd: BorrowedFd,
) -> Result<()> {
    let nowhere = std::ptr::null_mut();
    // SAFETY: without MAP_FIXED the kernel replaces no mapping; what it made is seen by nobody.
    unsafe {
        let at = libc::mmap(nowhere, len, protection, flags, fd.as_raw_fd(), 0);
        if at == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        libc::munmap(at, len);
    }
    Ok(())
}

/// Whether there is a shared map of a file. Of those in /proc and /sys there is none.
pub fn is_mappable(fd: BorrowedFd) -> bool {
    let flags = libc::MAP_SHARED | NO_RESERVE;
    let mapped = try_map(page_size(), libc::PROT_READ, flags, fd);
    !matches!(mapped, Err(Errno::IO | Errno::NODEV))
}

/// Puts file pages (or, without `fd`, what `flags` say) at exactly `at`.
///
/// # Safety
/// `at .. at + len` must be inside a reservation that the caller owns, because its contents are replaced.
pub unsafe fn map_over(
    at: *mut u8,
    len: usize,
    protection: libc::c_int,
    flags: libc::c_int,
    fd: Option<BorrowedFd>,
    offset: u64,
) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    let fd = fd.map_or(-1, |fd| fd.as_raw_fd());
    let offset = libc::off_t::try_from(offset).map_err(|_| Errno(libc::EOVERFLOW))?;
    // SAFETY: the caller owns the range, so MAP_FIXED replaces nothing of anybody else.
    let got = unsafe {
        libc::mmap(
            at.cast(),
            len,
            protection,
            flags | libc::MAP_FIXED,
            fd,
            offset,
        )
    };
    if got == libc::MAP_FAILED {
        Err(Errno::last())
    } else {
        Ok(())
    }
}

/// As [`map_over`], where readers may be: `MAP_FIXED` takes away what was there before the
/// file system is asked, and one that refuses (a dead device) would leave a hole that kills. So the
/// file is mapped elsewhere first, and moved, a part at a time: there may be no room for all of it twice. What fails
/// leaves what was there, or zero pages.
///
/// # Safety
/// As [`map_over`].
pub unsafe fn replace(
    at: *mut u8,
    len: usize,
    protection: libc::c_int,
    flags: libc::c_int,
    fd: Option<BorrowedFd>,
    offset: u64,
) -> Result<()> {
    // A multiple of the size of all pages; as much as there is room for on every system.
    const PART: usize = if cfg!(target_pointer_width = "64") {
        1 << 40
    } else {
        1 << 30
    };
    for done in (0..len).step_by(PART) {
        let part = PART.min(len - done);
        let offset = match fd {
            Some(_) => offset.saturating_add(done as u64),
            None => 0,
        };
        // SAFETY: the caller's promise.
        let answer = unsafe { replace_part(at.add(done), part, protection, flags, fd, offset) };
        if answer.is_err() && done > 0 {
            // SAFETY: the caller's promise.
            let _ = unsafe { zero_over(at, done, protection) };
        }
        answer?;
    }
    Ok(())
}

/// # Safety
/// As [`map_over`].
unsafe fn replace_part(
    at: *mut u8,
    len: usize,
    protection: libc::c_int,
    flags: libc::c_int,
    fd: Option<BorrowedFd>,
    offset: u64,
) -> Result<()> {
    let place = libc::off_t::try_from(offset).map_err(|_| Errno(libc::EOVERFLOW))?;
    let descriptor = fd.map_or(-1, |fd| fd.as_raw_fd());
    let nowhere = std::ptr::null_mut();
    // SAFETY: without MAP_FIXED the kernel replaces no mapping.
    let elsewhere = unsafe { libc::mmap(nowhere, len, protection, flags, descriptor, place) };
    if elsewhere == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: `elsewhere` was made above and is seen by nobody; the range at `at` is the caller's.
    unsafe {
        if move_over(elsewhere, at, len) {
            return Ok(());
        }
        libc::munmap(elsewhere, len);
        let answer = map_over(at, len, protection, flags, fd, offset);
        if answer.is_err() {
            let _ = zero_over(at, len, protection);
        }
        answer
    }
}

/// # Safety
/// Both ranges must be ours to replace.
#[cfg(target_os = "linux")]
unsafe fn move_over(from: *mut libc::c_void, to: *mut u8, len: usize) -> bool {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: the caller's promise.
    unsafe { libc::mremap(from, len, len, flags, to) != libc::MAP_FAILED }
}

/// # Safety
/// None: the call does not exist here.
#[cfg(not(target_os = "linux"))]
unsafe fn move_over(_from: *mut libc::c_void, _to: *mut u8, _len: usize) -> bool {
    false
}

/// Puts private zero pages at exactly `at`: what a lost or cut tail reads as.
///
/// # Safety
/// As [`map_over`].
pub unsafe fn zero_over(at: *mut u8, len: usize, protection: libc::c_int) -> Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON | NO_RESERVE;
    // SAFETY: the caller's promise is ours.
    unsafe { map_over(at, len, protection, flags, None, 0) }
}

/// The parts of `at .. at + len` that show no file.
#[cfg(target_os = "linux")]
pub fn parts_without_file(at: usize, len: usize) -> Result<Vec<std::ops::Range<usize>>> {
    // "start-end rights offset device inode path", in order of their addresses.
    let part = |line: &str| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?.max(at);
        let end = usize::from_str_radix(end, 16).ok()?.min(at + len);
        (fields.nth(3)? == "0" && start < end).then_some(start..end)
    };
    // The paths may be any bytes.
    let maps = std::fs::read("/proc/self/maps")?;
    let maps = String::from_utf8_lossy(&maps);
    Ok(maps.lines().filter_map(part).collect())
}

/// All of it, where the system does not tell.
#[cfg(not(target_os = "linux"))]
pub fn parts_without_file(at: usize, len: usize) -> Result<Vec<std::ops::Range<usize>>> {
    Ok(vec![at..at + len])
}

/// Reserves `len` bytes of addresses, at `address` if that is free (or, with `fixed`, nowhere
/// else); nothing that is mapped is ever replaced.
pub fn reserve_at(address: usize, len: usize, fixed: bool) -> Result<*mut u8> {
    let mut flags = libc::MAP_PRIVATE | libc::MAP_ANON | NO_RESERVE;
    #[cfg(target_os = "linux")]
    if fixed {
        flags |= libc::MAP_FIXED_NOREPLACE;
    }
    #[cfg(not(target_os = "linux"))]
    {
        flags |= 0;
    }
    // SAFETY: without MAP_FIXED the kernel replaces no mapping.
    let got = unsafe { libc::mmap(address as *mut _, len, libc::PROT_READ, flags, -1, 0) };
    if got == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    if fixed && got as usize != address {
        // A kernel that does not know MAP_FIXED_NOREPLACE took the address for a hint.
        // SAFETY: this range was made two lines above and nobody has seen it.
        unsafe { libc::munmap(got, len) };
        return Err(Errno::EXIST);
    }
    Ok(got.cast())
}

/// Whether `len` bytes more could be mapped.
pub fn has_room(len: usize) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON | NO_RESERVE;
    let nowhere = std::ptr::null_mut();
    // SAFETY: without MAP_FIXED the kernel replaces no mapping; what it made is seen by nobody.
    unsafe {
        let at = libc::mmap(nowhere, len, libc::PROT_NONE, flags, -1, 0);
        at != libc::MAP_FAILED && {
            libc::munmap(at, len);
            true
        }
    }
}

/// How many addresses the process may use (`ulimit -v`), in bytes.
#[allow(clippy::unnecessary_cast)] // 32 bits on some systems
pub fn address_space_limit() -> Option<u64> {
    // SAFETY: `limit` is filled before it is read.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        let got = libc::getrlimit(libc::RLIMIT_AS, &mut limit) == 0;
        (got && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur as u64)
    }
}

/// How many maps a process may have; `usize::MAX` where the system does not say.
pub fn most_maps() -> usize {
    static MOST: OnceLock<usize> = OnceLock::new();
    *MOST.get_or_init(|| {
        let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok();
        limit
            .and_then(|limit| limit.trim().parse().ok())
            .unwrap_or(usize::MAX)
    })
}

/// # Safety
/// The range must be a whole reservation that is not accessed again.
pub unsafe fn unmap(at: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { libc::munmap(at.cast(), len) };
}

/// Tells the kernel about pages in memory.
///
/// # Safety
/// The range must be inside a mapping that the caller owns. [`Advice::DontNeed`] discards data that was written
/// to private pages.
pub unsafe fn advise_pages(at: *mut u8, len: usize, advice: Advice) -> Result<()> {
    let advice = match advice {
        Advice::Normal | Advice::NoReuse => libc::MADV_NORMAL,
        Advice::Sequential => libc::MADV_SEQUENTIAL,
        Advice::Random => libc::MADV_RANDOM,
        Advice::WillNeed => libc::MADV_WILLNEED,
        Advice::DontNeed => libc::MADV_DONTNEED,
    };
    // SAFETY: the caller's promise.
    check(unsafe { libc::madvise(at.cast(), len, advice) })
}

/// Takes pages out of the page tables, a slice at a time: see [`in_slices`].
///
/// # Safety
/// The range must be inside a mapping that the caller owns, and start at a page. Data that was written to private
/// pages is lost; shared pages lose nothing.
pub unsafe fn release_pages(at: *mut u8, len: usize) {
    let _ = in_slices(len, |from, count| {
        // SAFETY: the caller's promise.
        unsafe { libc::madvise(at.add(from).cast(), count, libc::MADV_DONTNEED) };
        Ok(())
    });
}

/// As [`release_pages`], before the range is replaced or unmapped, so that little is left for that call.
///
/// # Safety
/// As [`release_pages`].
pub unsafe fn release_large(at: *mut u8, len: usize) {
    if is_large(len) {
        // SAFETY: the caller's promise.
        unsafe { release_pages(at, len) }
    }
}

/// Releases the pages of shared memory, which then reads as zeros. If it fails, some of them may have been released.
///
/// # Safety
/// The range must be inside one of our mappings, and its content must not be needed.
#[cfg(target_os = "linux")]
pub unsafe fn remove_pages(at: *mut u8, len: usize) -> Result<()> {
    // SAFETY: the caller's promise.
    let remove = || check(unsafe { libc::madvise(at.cast(), len, libc::MADV_REMOVE) });
    match remove() {
        Err(Errno::INVAL) => {
            // Locked pages are not released.
            // SAFETY: the caller's promise.
            check(unsafe { libc::munlock(at.cast(), len) })?;
            remove()
        }
        answer => answer,
    }
}

/// # Safety
/// None: the call does not exist here.
#[cfg(not(target_os = "linux"))]
pub unsafe fn remove_pages(_at: *mut u8, _len: usize) -> Result<()> {
    Err(Errno::NOTSUP)
}

/// Allocates the pages of memory that is empty. `false`: there are not enough.
///
/// # Safety
/// The range must be inside one of our mappings.
#[cfg(target_os = "linux")]
pub unsafe fn populate_write(at: *mut u8, len: usize) -> bool {
    // SAFETY: the caller's promise; what is there is not changed.
    retry(|| unsafe { libc::madvise(at.cast(), len, libc::MADV_POPULATE_WRITE) }).is_ok()
}

/// # Safety
/// None: the call does not exist here.
#[cfg(not(target_os = "linux"))]
pub unsafe fn populate_write(_at: *mut u8, _len: usize) -> bool {
    false
}

/// Whether this is the error for pages that are not available.
pub fn is_lost_page(error: Errno) -> bool {
    #[cfg(target_os = "linux")]
    if error == Errno(libc::EHWPOISON) {
        return true;
    }
    error == Errno(libc::EFAULT)
}

/// Loads pages into memory and waits for them.
///
/// # Safety
/// The range must be inside a mapping that the caller owns.
pub unsafe fn populate(at: *mut u8, len: usize) -> Result<()> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the caller's promise; reading pages changes nothing.
        match retry(|| unsafe { libc::madvise(at.cast(), len, libc::MADV_POPULATE_READ) }) {
            // A kernel before 5.14 does not support it.
            Err(Errno::INVAL) => (),
            answer => return answer,
        }
    }
    // SAFETY: the caller's promise.
    unsafe { advise_pages(at, len, Advice::WillNeed) }
}

/// How many pages of a range are in memory.
///
/// # Safety
/// The range must be inside a mapping that the caller owns, with `at` page-aligned.
pub unsafe fn resident_pages(at: *mut u8, len: usize) -> Result<usize> {
    const PAGES: usize = 64 << 10;
    let page = page_size();
    let mut seen = vec![0u8; PAGES.min(len.div_ceil(page))];
    let (mut resident, mut done) = (0, 0);
    while done < len {
        let step = (len - done).min(PAGES * page);
        // SAFETY: `seen` has a byte for each page of `step`; the range is the caller's promise.
        check(unsafe { libc::mincore(at.add(done).cast(), step, seen.as_mut_ptr().cast()) })?;
        let pages = &seen[..step.div_ceil(page)];
        resident += pages.iter().filter(|page| **page & 1 == 1).count();
        done += step;
    }
    Ok(resident)
}
