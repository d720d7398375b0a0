//! The system calls, each with its answer as a `Result`, and the differences between systems.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::OnceLock;
#[cfg(target_os = "linux")]
use std::time::{Duration, Instant};

use crate::options::{HugePage, Options, Sharing};
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

#[cfg(not(target_os = "linux"))]
fn default_huge_page_size() -> usize {
    2 << 20
}

pub fn check(answer: libc::c_int) -> Result<()> {
    if answer == 0 {
        Ok(())
    } else {
        Err(Errno::last())
    }
}

/// Calls again while a signal interrupts.
pub fn retry(mut call: impl FnMut() -> libc::c_int) -> Result<()> {
    loop {
        match check(call()) {
            Err(Errno(libc::EINTR)) => continue,
            answer => return answer,
        }
    }
}

/// The `flags` of mmap that the options ask for, or ENOTSUP for one this system lacks.
#[cfg(target_os = "linux")]
pub fn map_flags(options: &Options) -> Result<libc::c_int> {
    if options.no_cache {
        return Err(Errno::NOTSUP);
    }
    let mut flags = match options.sharing {
        Sharing::Shared => libc::MAP_SHARED,
        Sharing::SharedValidate => libc::MAP_SHARED_VALIDATE,
        Sharing::Private => libc::MAP_PRIVATE,
    };
    if options.path.is_none() {
        flags |= libc::MAP_ANONYMOUS;
        if options.sharing == Sharing::SharedValidate {
            return Err(Errno::NOTSUP); // the kernel validates flags of files only
        }
    }
    let wanted = [
        (options.no_reserve, libc::MAP_NORESERVE),
        (options.populate, libc::MAP_POPULATE),
        (options.nonblock, libc::MAP_NONBLOCK),
        (options.map_sync, libc::MAP_SYNC),
    ];
    for (asked, flag) in wanted {
        flags |= if asked { flag } else { 0 };
    }
    flags |= match options.huge {
        None => 0,
        Some(HugePage::Default) => libc::MAP_HUGETLB,
        Some(HugePage::TwoMegabytes) => libc::MAP_HUGETLB | libc::MAP_HUGE_2MB,
        Some(HugePage::OneGigabyte) => libc::MAP_HUGETLB | libc::MAP_HUGE_1GB,
    };
    Ok(flags)
}

/// The `flags` of mmap that the options ask for, or ENOTSUP for one this system lacks.
#[cfg(not(target_os = "linux"))]
pub fn map_flags(options: &Options) -> Result<libc::c_int> {
    let linux_only = options.populate || options.nonblock || options.map_sync;
    if linux_only || options.huge.is_some() || options.sharing == Sharing::SharedValidate {
        return Err(Errno::NOTSUP);
    }
    let mut flags = match options.sharing {
        Sharing::Private => libc::MAP_PRIVATE,
        _ => libc::MAP_SHARED,
    };
    if options.path.is_none() {
        flags |= libc::MAP_ANON;
    }
    if options.no_reserve {
        flags |= libc::MAP_NORESERVE;
    }
    if options.no_cache {
        #[cfg(target_os = "macos")]
        {
            flags |= libc::MAP_NOCACHE;
        }
        #[cfg(not(target_os = "macos"))]
        return Err(Errno::NOTSUP);
    }
    Ok(flags)
}

/// Puts file pages (or, without `fd`, what `flags` say) at exactly `at`.
///
/// # Safety
/// `at .. at + len` must lie inside a reservation of ours: what is mapped there is replaced.
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

/// Puts private zero pages at exactly `at`: what a lost or cut tail reads as.
///
/// # Safety
/// As [`map_over`].
pub unsafe fn zero_over(at: *mut u8, len: usize, protection: libc::c_int) -> Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE;
    // SAFETY: the caller's promise is ours.
    unsafe { map_over(at, len, protection, flags, None, 0) }
}

/// Reserves `len` bytes of addresses, at `address` if that is free (or, with `fixed`, nowhere
/// else); nothing that is mapped is ever replaced.
pub fn reserve_at(address: usize, len: usize, fixed: bool) -> Result<*mut u8> {
    let mut flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE;
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

/// Whether the process may use only so many addresses (`ulimit -v`).
pub fn address_space_is_limited() -> bool {
    // SAFETY: `limit` is filled before it is read.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_AS, &mut limit) == 0 && limit.rlim_cur != libc::RLIM_INFINITY
    }
}

/// # Safety
/// The range must be a whole reservation that nobody will touch again.
pub unsafe fn unmap(at: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { libc::munmap(at.cast(), len) };
}

/// Makes the file at least `to` bytes long and never shorter, whatever others do to it meanwhile;
/// the blocks of `from .. to` are allocated first, unless it is `sparse`. What fails leaves the size
/// as it was.
pub fn extend(fd: BorrowedFd, from: u64, to: u64, sparse: bool) -> Result<()> {
    // Asked before anything is allocated: what a file system allocated before it failed could be
    // given back only by cutting the file, and with it what others appended meanwhile.
    if to > file_size_limit() {
        return Err(Errno(libc::EFBIG));
    }
    if !sparse {
        if to - from > free_bytes(fd)? {
            return Err(Errno::NOSPC);
        }
        match allocate_blocks(fd, from, to - from, true) {
            Err(Errno(libc::EOPNOTSUPP) | Errno(libc::ENOSYS)) => {
                return write_zeros(fd, from, to);
            }
            answer => answer?,
        }
    }
    // Allocating the last byte moves the end of the file forward, and nothing else; ftruncate
    // would cut what another program appended since we looked.
    match allocate_blocks(fd, to - 1, 1, false) {
        Err(Errno(libc::EOPNOTSUPP) | Errno(libc::ENOSYS)) => set_size(fd, to),
        answer => answer,
    }
}

/// `ulimit -f`, in bytes.
fn file_size_limit() -> u64 {
    // SAFETY: `limit` is filled before it is read.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        match libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) {
            0 if limit.rlim_cur != libc::RLIM_INFINITY => limit.rlim_cur,
            _ => u64::MAX,
        }
    }
}

/// What this user may still write to the file system of a file.
#[allow(clippy::unnecessary_cast)] // the types of the fields differ between systems
fn free_bytes(fd: BorrowedFd) -> Result<u64> {
    // SAFETY: `stat` is filled before it is read; geteuid cannot fail.
    unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        retry(|| libc::fstatvfs(fd.as_raw_fd(), &mut stat))?;
        let root = libc::geteuid() == 0;
        let blocks = if root { stat.f_bfree } else { stat.f_bavail };
        match (stat.f_blocks, stat.f_frsize) {
            // A file system that does not say, or has no limit.
            (0, _) | (_, 0) => Ok(u64::MAX),
            (_, size) => Ok((blocks as u64).saturating_mul(size as u64)),
        }
    }
}

/// Allocates blocks; with `keep_size` the file does not grow.
#[cfg(target_os = "linux")]
pub fn allocate_blocks(fd: BorrowedFd, from: u64, count: u64, keep_size: bool) -> Result<()> {
    let mode = if keep_size {
        libc::FALLOC_FL_KEEP_SIZE
    } else {
        0
    };
    let (from, count) = (offset_of(from)?, offset_of(count)?);
    // SAFETY: takes no pointers.
    retry(|| unsafe { libc::fallocate(fd.as_raw_fd(), mode, from, count) })
}

/// Allocates blocks; with `keep_size` the file does not grow.
#[cfg(target_os = "macos")]
pub fn allocate_blocks(fd: BorrowedFd, from: u64, count: u64, keep_size: bool) -> Result<()> {
    let mut store = libc::fstore_t {
        fst_flags: libc::F_ALLOCATEALL,
        fst_posmode: libc::F_PEOFPOSMODE,
        fst_offset: 0,
        fst_length: offset_of(count)?,
        fst_bytesalloc: 0,
    };
    // SAFETY: `store` outlives the call.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_PREALLOCATE, &mut store) } == -1 {
        return Err(Errno::last());
    }
    if keep_size {
        Ok(())
    } else {
        set_size(fd, crate::range::checked_end(from, count)?)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub fn allocate_blocks(fd: BorrowedFd, from: u64, count: u64, keep_size: bool) -> Result<()> {
    if keep_size {
        return Err(Errno::NOTSUP);
    }
    let (from, count) = (offset_of(from)?, offset_of(count)?);
    // SAFETY: takes no pointers. posix_fallocate answers the error itself.
    match unsafe { libc::posix_fallocate(fd.as_raw_fd(), from, count) } {
        0 => Ok(()),
        error => Err(Errno(error)),
    }
}

/// For file systems without fallocate: the blocks are there once something is written in them.
fn write_zeros(fd: BorrowedFd, from: u64, to: u64) -> Result<()> {
    let zeros = [0u8; 16 << 10];
    let mut at = from;
    while at < to {
        let count = zeros
            .len()
            .min(usize::try_from(to - at).unwrap_or(usize::MAX));
        // SAFETY: `zeros` holds at least `count` bytes.
        let wrote =
            unsafe { libc::pwrite(fd.as_raw_fd(), zeros.as_ptr().cast(), count, offset_of(at)?) };
        match wrote {
            -1 if Errno::last() == Errno(libc::EINTR) => continue,
            -1 => return Err(Errno::last()),
            0 => return Err(Errno::NOSPC),
            _ => at += wrote as u64,
        }
    }
    Ok(())
}

pub fn set_size(fd: BorrowedFd, size: u64) -> Result<()> {
    let size = offset_of(size)?;
    // SAFETY: takes no pointers.
    retry(|| unsafe { libc::ftruncate(fd.as_raw_fd(), size) })
}

/// Runs a call that may raise SIGXFSZ (`ulimit -f`) so that it answers EFBIG instead: the signal
/// is blocked on this thread, and taken back if it came.
pub fn without_sigxfsz<R>(call: impl FnOnce() -> Result<R>) -> Result<R> {
    // SAFETY: both sets are initialised by sigemptyset before they are read.
    let (blocked, before) = unsafe {
        let mut blocked: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut blocked);
        libc::sigaddset(&mut blocked, libc::SIGXFSZ);
        libc::pthread_sigmask(libc::SIG_BLOCK, &blocked, &mut before);
        (blocked, before)
    };
    let answer = call();
    // SAFETY: the sets are initialised; sigwait returns at once, for the signal is pending.
    unsafe {
        let mut pending: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&mut pending);
        if libc::sigismember(&pending, libc::SIGXFSZ) == 1 {
            let mut signal = 0;
            libc::sigwait(&blocked, &mut signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
    }
    answer
}

pub fn offset_of(n: u64) -> Result<libc::off_t> {
    libc::off_t::try_from(n).map_err(|_| Errno(libc::EFBIG))
}

/// Runs `act` while no other open file of the same kind, in this process or another, does: the size
/// of a file must not move between looking at it and changing it. The kernel frees the lock of a
/// holder that dies. It is one byte beyond the end of any file; a program that locks *all* of the
/// file holds it too, and after two seconds of that the answer is EBUSY.
#[cfg(target_os = "linux")]
pub fn with_file_lock<R>(fd: BorrowedFd, act: impl FnOnce() -> R) -> Result<R> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let start = Instant::now();
    loop {
        match change_file_lock(fd, libc::F_WRLCK as _) {
            Ok(()) => break,
            Err(Errno(libc::EAGAIN) | Errno(libc::EACCES)) if start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(Errno(libc::EAGAIN) | Errno(libc::EACCES)) => return Err(Errno(libc::EBUSY)),
            // A file system without locks: nobody can have one.
            Err(Errno(libc::EINVAL) | Errno(libc::ENOLCK) | Errno(libc::EOPNOTSUPP)) => {
                return Ok(act());
            }
            Err(error) => return Err(error),
        }
    }
    let answer = act();
    let _ = change_file_lock(fd, libc::F_UNLCK as _);
    Ok(answer)
}

#[cfg(target_os = "linux")]
fn change_file_lock(fd: BorrowedFd, kind: libc::c_int) -> Result<()> {
    let lock = libc::flock {
        l_type: kind as _,
        l_whence: libc::SEEK_SET as _,
        l_start: libc::off_t::MAX - 1,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: `lock` outlives the call.
    retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &lock) })
}

#[cfg(not(target_os = "linux"))]
pub fn with_file_lock<R>(fd: BorrowedFd, act: impl FnOnce() -> R) -> Result<R> {
    // SAFETY: takes no pointers.
    retry(|| unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX) })?;
    let answer = act();
    // SAFETY: takes no pointers.
    unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_UN) };
    Ok(answer)
}

#[cfg(not(target_os = "macos"))]
pub fn sync_data(fd: BorrowedFd) -> Result<()> {
    // SAFETY: takes no pointers.
    retry(|| unsafe { libc::fdatasync(fd.as_raw_fd()) })
}

#[cfg(not(target_os = "macos"))]
pub fn sync_all(fd: BorrowedFd) -> Result<()> {
    // SAFETY: takes no pointers.
    retry(|| unsafe { libc::fsync(fd.as_raw_fd()) })
}

#[cfg(target_os = "macos")]
pub fn sync_data(fd: BorrowedFd) -> Result<()> {
    sync_all(fd)
}

/// fsync on macOS stops at the drive's cache; F_FULLFSYNC does not.
#[cfg(target_os = "macos")]
pub fn sync_all(fd: BorrowedFd) -> Result<()> {
    // SAFETY: takes no pointers.
    match retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_FULLFSYNC) }) {
        Err(Errno(libc::ENOTSUP) | Errno(libc::EINVAL)) => {
            // SAFETY: takes no pointers.
            retry(|| unsafe { libc::fsync(fd.as_raw_fd()) })
        }
        answer => answer,
    }
}

/// Starts writing dirty pages to the disk and does not wait.
#[cfg(target_os = "linux")]
pub fn start_write_back(fd: BorrowedFd, offset: u64, count: u64) -> Result<()> {
    let (offset, count) = (offset_of(offset)?, offset_of(count)?);
    let flags = libc::SYNC_FILE_RANGE_WRITE;
    // SAFETY: takes no pointers.
    match check(unsafe { libc::sync_file_range(fd.as_raw_fd(), offset, count, flags) }) {
        // Not every file system can; the kernel writes back in its own time.
        Err(Errno(libc::ENOSYS) | Errno(libc::ESPIPE)) => Ok(()),
        answer => answer,
    }
}

#[cfg(not(target_os = "linux"))]
pub fn start_write_back(_fd: BorrowedFd, _offset: u64, _count: u64) -> Result<()> {
    Ok(())
}

/// What a program may say about the pages it will use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    Normal,
    Sequential,
    Random,
    NoReuse,
    WillNeed,
    DontNeed,
}

/// Tells the kernel about pages in memory.
///
/// # Safety
/// The range must lie inside a mapping of ours; [`Advice::DontNeed`] throws away what was written
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

/// Takes pages out of the page tables, a slice at a time: a single call for gigabytes would hold
/// the lock on the address space, and every thread that allocates, for tens of milliseconds.
///
/// # Safety
/// The range must lie inside a mapping of ours that starts at a page. What was written to private
/// pages is lost; shared pages lose nothing.
pub unsafe fn release_pages(at: *mut u8, len: usize) {
    const SLICE: usize = 16 << 20;
    for from in (0..len).step_by(SLICE) {
        // SAFETY: the caller's promise.
        unsafe {
            libc::madvise(
                at.add(from).cast(),
                SLICE.min(len - from),
                libc::MADV_DONTNEED,
            );
        }
    }
}

/// Tells the kernel about a range of the file. `count` 0: to the end.
#[cfg(target_os = "linux")]
pub fn advise_file(fd: BorrowedFd, offset: u64, count: u64, advice: Advice) -> Result<()> {
    let advice = match advice {
        Advice::Normal => libc::POSIX_FADV_NORMAL,
        Advice::Sequential => libc::POSIX_FADV_SEQUENTIAL,
        Advice::Random => libc::POSIX_FADV_RANDOM,
        Advice::NoReuse => libc::POSIX_FADV_NOREUSE,
        Advice::WillNeed => libc::POSIX_FADV_WILLNEED,
        Advice::DontNeed => libc::POSIX_FADV_DONTNEED,
    };
    let (offset, count) = (offset_of(offset)?, offset_of(count)?);
    // SAFETY: takes no pointers. posix_fadvise answers the error itself.
    match unsafe { libc::posix_fadvise(fd.as_raw_fd(), offset, count, advice) } {
        0 => Ok(()),
        error => Err(Errno(error)),
    }
}

#[cfg(not(target_os = "linux"))]
pub fn advise_file(_fd: BorrowedFd, _offset: u64, _count: u64, _advice: Advice) -> Result<()> {
    Ok(())
}

/// Whether this is the answer for pages that cannot be had.
pub fn is_lost_page(error: Errno) -> bool {
    #[cfg(target_os = "linux")]
    if error == Errno(libc::EHWPOISON) {
        return true;
    }
    error == Errno(libc::EFAULT)
}

/// Brings pages into memory and waits for them.
///
/// # Safety
/// The range must lie inside a mapping of ours.
pub unsafe fn populate(at: *mut u8, len: usize) -> Result<()> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the caller's promise; reading pages changes nothing.
        match retry(|| unsafe { libc::madvise(at.cast(), len, libc::MADV_POPULATE_READ) }) {
            // A kernel before 5.14 does not know it.
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
/// The range must lie inside a mapping of ours, `at` page aligned.
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
