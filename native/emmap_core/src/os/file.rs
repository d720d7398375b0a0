//! The size, the blocks and the durability of a file.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::OnceLock;

use super::{offset_of, retry, stat, Advice};
use crate::{Errno, Result};

/// Makes the file at least `to` bytes long and never shorter, whatever others do to it in the meantime;
/// the blocks of `from .. to` are allocated first, unless it is `sparse`. What fails leaves size and
/// blocks as they were.
pub fn extend(fd: BorrowedFd, from: u64, to: u64, sparse: bool) -> Result<()> {
    if sparse {
        check_limit(to)?;
        return move_end(fd, to);
    }
    check_room(fd, from, to)?;
    let answer = match allocate_blocks(fd, from, to - from, true) {
        Err(Errno(libc::EOPNOTSUPP) | Errno(libc::ENOSYS)) => return append_zeros(fd, to),
        answer => answer.and_then(|()| move_end(fd, to)),
    };
    answer.inspect_err(|_| release_blocks(fd, to))
}

/// Allocates the blocks of `from .. to` of a file, of which `size` bytes are before its end. What fails for want of
/// space allocates nothing.
pub fn allocate(fd: BorrowedFd, from: u64, count: u64, size: u64) -> Result<()> {
    let to = from.saturating_add(count);
    let missing = missing_blocks(fd, from, to.min(size).max(from)).unwrap_or(0);
    let past_end = to.saturating_sub(from.max(size));
    let past_end = past_end.saturating_sub(blocks_past_end(fd)?);
    if missing.saturating_add(past_end) > free_bytes(fd)? {
        return Err(Errno::NOSPC);
    }
    match allocate_blocks(fd, from, count, true) {
        // A file system without fallocate: growing writes what is past the end, and before it all is there already
        // unless the file has holes.
        Err(Errno(libc::EOPNOTSUPP) | Errno(libc::ENOSYS)) if stat(fd)?.allocated >= size => Ok(()),
        answer => answer.inspect_err(|_| release_blocks(fd, to)),
    }
}

/// Refuses bytes from `from` to `to` that cannot be had. Asked before anything is allocated, so that little is to be
/// released after a failure.
pub fn check_room(fd: BorrowedFd, from: u64, to: u64) -> Result<()> {
    check_limit(to)?;
    let missing = to.saturating_sub(from);
    if missing <= free_bytes(fd)? || missing <= free_bytes(fd)?.saturating_add(blocks_past_end(fd)?)
    {
        return Ok(());
    }
    Err(Errno::NOSPC)
}

/// As [`check_room`], for a file that is to be created with `size` bytes.
pub fn check_room_in(path: &Path, size: u64, sparse: bool) -> Result<()> {
    check_limit(size)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match File::open(directory) {
        Ok(directory) if !sparse && size > free_bytes(directory.as_fd())? => Err(Errno::NOSPC),
        // What is wrong with it, opening the file tells.
        _ => Ok(()),
    }
}

/// Bytes of blocks that a file may have past its end, as far as it has no holes.
fn blocks_past_end(fd: BorrowedFd) -> Result<u64> {
    let stat = stat(fd)?;
    Ok(stat.allocated.saturating_sub(stat.size))
}

fn check_limit(to: u64) -> Result<()> {
    match to > file_size_limit() {
        true => Err(Errno(libc::EFBIG)),
        false => Ok(()),
    }
}

/// Moves the end of the file forward to `to`, and nothing else: ftruncate would take away what another program
/// appended since the size was looked at.
fn move_end(fd: BorrowedFd, to: u64) -> Result<()> {
    #[cfg(target_os = "linux")]
    match allocate_blocks(fd, to - 1, 1, false) {
        Err(Errno(libc::EOPNOTSUPP) | Errno(libc::ENOSYS)) => (),
        answer => return answer,
    }
    // Without fallocate: the last byte. A program that takes no lock and appends over all of the distance in this
    // very moment loses one byte; with ftruncate it would lose everything from there on.
    if size(fd)? >= to {
        return Ok(());
    }
    // SAFETY: one byte is readable.
    unsafe { write_at(fd, [0u8].as_ptr(), 1, to - 1) }.1
}

/// For file systems without fallocate: the blocks are there once something is written in them. Zeros are appended,
/// wherever the end is by then, so that nothing of what others append is overwritten.
fn append_zeros(fd: BorrowedFd, to: u64) -> Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let before = size(fd)?;
    let mut reached = before;
    let answer = appending(fd, || loop {
        let now = size(fd)?;
        if now >= to {
            return Ok(());
        }
        let count = (to - now).min(ZEROS.len() as u64) as usize;
        // SAFETY: the array has at least `count` bytes.
        let (written, answer) = unsafe { write_on(fd, ZEROS.as_ptr(), count) };
        reached += written as u64;
        answer?;
    });
    if answer.is_err() && reached > before && size(fd) == Ok(reached) {
        // Nobody else has appended.
        let _ = set_size(fd, before);
    }
    answer
}

/// Appends bytes: how many were, and what ended it.
///
/// # Safety
/// `data` must have `count` readable bytes.
pub unsafe fn append(fd: BorrowedFd, data: *const u8, count: usize) -> (usize, Result<()>) {
    let mut written = 0;
    let answer = appending(fd, || {
        // SAFETY: the caller's promise.
        let (got, answer) = unsafe { write_on(fd, data, count) };
        written = got;
        answer
    });
    (written, answer)
}

/// Runs `act` while every write to the descriptor goes to the end of the file. Only its owner may write to it
/// in the meantime.
fn appending<R>(fd: BorrowedFd, act: impl FnOnce() -> Result<R>) -> Result<R> {
    let mode = AppendMode::enter(fd)?;
    let answer = act();
    mode.leave()?;
    answer
}

/// O_APPEND is set until this is left, or dropped by a panic.
struct AppendMode<'a> {
    fd: BorrowedFd<'a>,
    /// The flags to set again; `None` where O_APPEND was set before.
    before: Option<libc::c_int>,
}

impl AppendMode<'_> {
    fn enter(fd: BorrowedFd<'_>) -> Result<AppendMode<'_>> {
        let mut flags = 0;
        retry(|| {
            // SAFETY: takes no pointers.
            flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
            flags.min(0)
        })?;
        if flags & libc::O_APPEND != 0 {
            return Ok(AppendMode { fd, before: None });
        }
        set_flags(fd, flags | libc::O_APPEND)?;
        let before = Some(flags);
        Ok(AppendMode { fd, before })
    }

    fn leave(mut self) -> Result<()> {
        match self.before.take() {
            Some(flags) => set_flags(self.fd, flags),
            None => Ok(()),
        }
    }
}

impl Drop for AppendMode<'_> {
    fn drop(&mut self) {
        if let Some(flags) = self.before {
            let _ = set_flags(self.fd, flags);
        }
    }
}

fn set_flags(fd: BorrowedFd, flags: libc::c_int) -> Result<()> {
    // SAFETY: takes no pointers.
    retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) })
}

/// Writes bytes at the descriptor's own position.
///
/// # Safety
/// `data` must have `count` readable bytes.
unsafe fn write_on(fd: BorrowedFd, data: *const u8, count: usize) -> (usize, Result<()>) {
    write_all(count, |done| {
        // SAFETY: `done` is at most `count`.
        unsafe { libc::write(fd.as_raw_fd(), data.add(done).cast(), count - done) }
    })
}

/// Writes bytes at `offset`: how many were, and what ended it.
///
/// # Safety
/// `data` must have `count` readable bytes.
pub unsafe fn write_at(
    fd: BorrowedFd,
    data: *const u8,
    count: usize,
    offset: u64,
) -> (usize, Result<()>) {
    let Ok(offset) = offset_of(offset) else {
        return (0, Err(Errno(libc::EFBIG)));
    };
    write_all(count, |done| {
        // SAFETY: `done` is at most `count`.
        unsafe {
            let at = offset + done as libc::off_t;
            libc::pwrite(fd.as_raw_fd(), data.add(done).cast(), count - done, at)
        }
    })
}

fn write_all(count: usize, mut write: impl FnMut(usize) -> isize) -> (usize, Result<()>) {
    let mut done = 0;
    while done < count {
        match write(done) {
            -1 if Errno::last() == Errno(libc::EINTR) => continue,
            -1 => return (done, Err(Errno::last())),
            0 => return (done, Err(Errno::NOSPC)),
            written => done += written as usize,
        }
    }
    (done, Ok(()))
}

/// Makes the first `count` bytes of a file zeros, in place; with `holes` they take no blocks.
pub fn clear(fd: BorrowedFd, count: u64, holes: bool) -> Result<()> {
    #[cfg(target_os = "linux")]
    {
        let mode = match holes {
            true => libc::FALLOC_FL_PUNCH_HOLE,
            false => libc::FALLOC_FL_ZERO_RANGE,
        };
        let count = offset_of(count)?;
        let mode = mode | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: takes no pointers.
        match retry(|| unsafe { libc::fallocate(fd.as_raw_fd(), mode, 0, count) }) {
            Err(Errno(libc::EOPNOTSUPP) | Errno(libc::ENOSYS)) => (),
            answer => return answer,
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = holes;
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = 0;
    while at < count {
        let step = (count - at).min(ZEROS.len() as u64) as usize;
        // SAFETY: the array has at least `step` bytes.
        unsafe { write_at(fd, ZEROS.as_ptr(), step, at) }.1?;
        at += step as u64;
    }
    Ok(())
}

fn size(fd: BorrowedFd) -> Result<u64> {
    Ok(stat(fd)?.size)
}

/// After an allocation up to `to` that failed half-way: releases blocks past the end of the file. Those near the end stay,
/// where another program may append in this very moment; so the file is not truncated to the size that it has, either.
fn release_blocks(fd: BorrowedFd, to: u64) {
    #[cfg(target_os = "linux")]
    {
        const NEAR: u64 = 16 << 20;
        let Some(from) = size(fd).ok().and_then(|size| size.checked_add(NEAR)) else {
            return;
        };
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        if let (Ok(at), Ok(count)) = (offset_of(from), offset_of(to.saturating_sub(from))) {
            if count > 0 {
                // SAFETY: takes no pointers.
                unsafe { libc::fallocate(fd.as_raw_fd(), mode, at, count) };
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (fd, to);
}

/// How many bytes of `from .. to` have no block yet; `None` where the file system does not say.
#[cfg(target_os = "linux")]
fn missing_blocks(fd: BorrowedFd, from: u64, to: u64) -> Option<u64> {
    const EXTENTS: usize = 64;
    const LAST: u32 = 1;
    // What linux/fiemap.h declares.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Extent {
        logical: u64,
        physical: u64,
        length: u64,
        reserved64: [u64; 2],
        flags: u32,
        reserved: [u32; 3],
    }
    #[repr(C)]
    struct Map {
        start: u64,
        length: u64,
        flags: u32,
        mapped: u32,
        count: u32,
        reserved: u32,
        extents: [Extent; EXTENTS],
    }
    const FS_IOC_FIEMAP: libc::c_ulong = 0xC020_660B;
    let mut at = from;
    let mut missing = to.saturating_sub(from);
    while at < to {
        // SAFETY: zeros are a valid value of these integers.
        let mut map: Map = unsafe { std::mem::zeroed() };
        (map.start, map.length, map.count) = (at, to - at, EXTENTS as u32);
        // SAFETY: `map` has room for as many extents as it says, and outlives the call.
        if unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FIEMAP as _, &mut map) } == -1 {
            return None;
        }
        let found = &map.extents[..(map.mapped as usize).min(EXTENTS)];
        for extent in found {
            let end = extent.logical.saturating_add(extent.length).min(to);
            missing = missing.saturating_sub(end.saturating_sub(extent.logical.max(at)));
            at = at.max(end);
        }
        if found.last().is_none_or(|last| last.flags & LAST != 0) {
            break;
        }
    }
    Some(missing)
}

#[cfg(not(target_os = "linux"))]
fn missing_blocks(_fd: BorrowedFd, _from: u64, _to: u64) -> Option<u64> {
    None
}

/// `ulimit -f`, in bytes.
#[allow(clippy::unnecessary_cast)] // 32 bits on some systems
fn file_size_limit() -> u64 {
    // SAFETY: `limit` is filled before it is read.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        match libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) {
            0 if limit.rlim_cur != libc::RLIM_INFINITY => limit.rlim_cur as u64,
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
        let blocks = if is_root() {
            stat.f_bfree
        } else {
            stat.f_bavail
        };
        match (stat.f_blocks, stat.f_frsize) {
            // A file system that does not say, or has no limit.
            (0, _) | (_, 0) => Ok(u64::MAX),
            (_, size) => Ok((blocks as u64).saturating_mul(size as u64)),
        }
    }
}

/// Whether this user is root outside of a user namespace too: file systems keep blocks for that one only.
fn is_root() -> bool {
    static ROOT: OnceLock<bool> = OnceLock::new();
    // SAFETY: takes nothing and cannot fail.
    let zero = unsafe { libc::geteuid() } == 0;
    // "inside outside count": all numbers are mapped to themselves.
    let identity = || match std::fs::read_to_string("/proc/self/uid_map") {
        Ok(map) => map.split_whitespace().eq(["0", "0", "4294967295"]),
        Err(_) => true,
    };
    zero && *ROOT.get_or_init(identity)
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

/// Allocates blocks, here always past the last one; with `keep_size` the file does not grow.
#[cfg(target_os = "macos")]
pub fn allocate_blocks(fd: BorrowedFd, _from: u64, count: u64, keep_size: bool) -> Result<()> {
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
    match keep_size {
        true => Ok(()),
        false => Err(Errno(libc::EOPNOTSUPP)),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub fn allocate_blocks(fd: BorrowedFd, from: u64, count: u64, keep_size: bool) -> Result<()> {
    if keep_size {
        return Err(Errno::NOTSUP);
    }
    let (from, count) = (offset_of(from)?, offset_of(count)?);
    // SAFETY: takes no pointers. posix_fallocate returns the error itself.
    match unsafe { libc::posix_fallocate(fd.as_raw_fd(), from, count) } {
        0 => Ok(()),
        error => Err(Errno(error)),
    }
}

/// Whether a file may only be appended to (`chattr +a`): no shared map is given of it through a descriptor that writes.
#[cfg(target_os = "linux")]
pub fn is_append_only(fd: BorrowedFd) -> bool {
    const APPEND_ONLY: libc::c_int = 0x20;
    // _IOR('f', 1, long), though the kernel writes an int.
    const GET_FLAGS: libc::c_ulong =
        0x8000_6601 | (size_of::<libc::c_long>() as libc::c_ulong) << 16;
    let mut flags: [libc::c_int; 2] = [0; 2];
    // SAFETY: the kernel writes an int to `flags`, which outlives the call.
    let got = unsafe { libc::ioctl(fd.as_raw_fd(), GET_FLAGS as _, flags.as_mut_ptr()) };
    got == 0 && flags[0] & APPEND_ONLY != 0
}

/// Not asked for: another system's flag of that kind forbids no map.
#[cfg(not(target_os = "linux"))]
pub fn is_append_only(_fd: BorrowedFd) -> bool {
    false
}

pub fn set_size(fd: BorrowedFd, size: u64) -> Result<()> {
    let size = offset_of(size)?;
    // SAFETY: takes no pointers.
    retry(|| unsafe { libc::ftruncate(fd.as_raw_fd(), size) })
}

/// Makes the names in a directory durable. Some file systems (CIFS, vboxsf, FUSE) cannot, and report it by different errors:
/// their names are as durable as they get. So are those in a directory that this user, or this mount, may only read.
pub fn sync_directory(fd: BorrowedFd) -> Result<()> {
    match sync_all(fd) {
        Err(Errno(
            libc::EINVAL
            | libc::ENOTSUP
            | libc::ENOSYS
            | libc::ENOTTY
            | libc::EBADF
            | libc::EISDIR
            | libc::EACCES
            | libc::EPERM
            | libc::EROFS,
        )) => Ok(()),
        answer => answer,
    }
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
#[allow(clippy::unnecessary_cast)] // off_t has 32 bits on some systems, these have 64 on all
pub fn start_write_back(fd: BorrowedFd, offset: u64, count: u64) -> Result<()> {
    let offset = offset_of(offset)? as libc::off64_t;
    let count = offset_of(count)? as libc::off64_t;
    let flags = libc::SYNC_FILE_RANGE_WRITE;
    // SAFETY: takes no pointers.
    match super::check(unsafe { libc::sync_file_range(fd.as_raw_fd(), offset, count, flags) }) {
        // Not every file system can; the kernel writes back in its own time.
        Err(Errno(libc::ENOSYS | libc::ESPIPE | libc::EINVAL | libc::EOPNOTSUPP)) => Ok(()),
        answer => answer,
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
    // SAFETY: takes no pointers. posix_fadvise returns the error itself.
    match unsafe { libc::posix_fadvise(fd.as_raw_fd(), offset, count, advice) } {
        0 => Ok(()),
        error => Err(Errno(error)),
    }
}

#[cfg(not(target_os = "linux"))]
pub fn advise_file(_fd: BorrowedFd, _offset: u64, _count: u64, _advice: Advice) -> Result<()> {
    Ok(())
}

/// Makes bytes of a file zeros that take no blocks. The file keeps its length.
#[cfg(target_os = "linux")]
pub fn punch_hole(fd: BorrowedFd, from: u64, count: u64) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let (from, count) = (offset_of(from)?, offset_of(count)?);
    // SAFETY: takes no pointers.
    retry(|| unsafe { libc::fallocate(fd.as_raw_fd(), mode, from, count) })
}

/// Makes bytes of a file zeros that take no blocks. The file keeps its length.
#[cfg(not(target_os = "linux"))]
pub fn punch_hole(_fd: BorrowedFd, _from: u64, _count: u64) -> Result<()> {
    Err(Errno::NOTSUP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{catch_unwind, AssertUnwindSafe};

    #[test]
    fn a_panic_leaves_no_descriptor_appending() {
        let file = tempfile::tempfile().unwrap();
        let appends = || {
            // SAFETY: takes no pointers.
            let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
            flags & libc::O_APPEND != 0
        };
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            appending::<()>(file.as_fd(), || {
                assert!(appends());
                panic!("while it appends")
            })
        }));
        assert!(panicked.is_err() && !appends());
    }
}
