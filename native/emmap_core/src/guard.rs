//! The SIGBUS guard: a page that is lost (the file was cut, the disk is full under a hole, the
//! device failed) reads as zeros and marks its map, instead of killing the process.
//!
//! A signal handler may allocate nothing, lock nothing and wait for nothing. So the ranges we
//! answer for stand in a table of [`Slot`]s that is only ever added to; a generation number tells
//! the handler that it read a slot in one piece. A slot is freed before its range is unmapped,
//! and nobody can fault in a range that nobody holds.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{
    fence, AtomicBool, AtomicI32, AtomicPtr, AtomicU64, AtomicU8, AtomicUsize, Ordering,
};
use std::sync::{Mutex, PoisonError};

use crate::{os, Errno};

/// What the guard knows of the first lost page of a map, and how many faults there were.
#[derive(Default)]
pub struct Fault {
    /// 0: none. Else the position of the byte that was touched, plus one; [`COVERED`] set when the
    /// file still reached over it.
    first: AtomicU64,
    count: AtomicU64,
}

/// Set in [`Fault::first`]: the file was long enough, so its block could not be had.
const COVERED: u64 = 1 << 63;

impl Fault {
    /// Whether a page was lost. Ask after touching memory and before answering.
    #[inline]
    pub fn seen(&self) -> bool {
        self.first.load(Ordering::Relaxed) != 0
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The position in the map that was touched first, and whether the file still covered it.
    pub fn first(&self) -> Option<(u64, bool)> {
        match self.first.load(Ordering::Acquire) {
            0 => None,
            first => Some(((first & !COVERED) - 1, first & COVERED != 0)),
        }
    }

    /// Forgets what was seen; the count goes on.
    pub fn clear(&self) {
        self.first.store(0, Ordering::Release);
    }

    fn record(&self, position: u64, covered: bool) {
        let first = (position + 1) | if covered { COVERED } else { 0 };
        let _ = self
            .first
            .compare_exchange(0, first, Ordering::AcqRel, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

/// One guarded range. All fields are atomics, for the handler reads them at any time.
struct Slot {
    /// Odd while the slot is being filled or emptied.
    generation: AtomicUsize,
    /// 0: free.
    start: AtomicUsize,
    /// The end of the range of addresses, for as long as the slot is taken.
    limit: AtomicUsize,
    /// The end of what is mapped from the file; moves as the map grows and shrinks.
    end: AtomicUsize,
    fd: AtomicI32,
    file_offset: AtomicU64,
    /// Bytes from `start` to position 0 of the map.
    delta: AtomicUsize,
    page: AtomicUsize,
    writable: AtomicBool,
    fault: AtomicPtr<Fault>,
}

const SLOTS: usize = 256;

struct Chunk {
    slots: [Slot; SLOTS],
    next: AtomicPtr<Chunk>,
}

impl Slot {
    const fn free() -> Slot {
        Slot {
            generation: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            limit: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            fd: AtomicI32::new(-1),
            file_offset: AtomicU64::new(0),
            delta: AtomicUsize::new(0),
            page: AtomicUsize::new(0),
            writable: AtomicBool::new(false),
            fault: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

impl Chunk {
    const fn new() -> Chunk {
        Chunk {
            slots: [const { Slot::free() }; SLOTS],
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

static TABLE: Chunk = Chunk::new();
/// Slots beyond this were never taken.
static USED: AtomicUsize = AtomicUsize::new(0);
/// Held by those who fill and empty slots; never by the handler.
static FILLING: Mutex<()> = Mutex::new(());

/// Every chunk is in the table for good, so a reference lives as long as the program.
fn chunks() -> impl Iterator<Item = &'static Chunk> {
    std::iter::successors(Some(&TABLE), |chunk| {
        // SAFETY: `next` is null or a chunk leaked by `free_slot`, filled before it was published.
        unsafe { chunk.next.load(Ordering::Acquire).as_ref() }
    })
}

/// A place in the table for as long as this value lives.
pub struct Watch {
    slot: &'static Slot,
}

/// What the guard must know to patch a range.
pub struct Range<'a> {
    pub start: *mut u8,
    /// Bytes of addresses, whole pages.
    pub len: usize,
    /// Bytes mapped from the file, whole pages.
    pub mapped: usize,
    /// `None` for anonymous memory.
    pub fd: Option<BorrowedFd<'a>>,
    /// The place in the file of `start`.
    pub file_offset: u64,
    pub delta: usize,
    pub page: usize,
    pub writable: bool,
}

impl Watch {
    /// Guards `range` and notes its faults in `fault`.
    ///
    /// # Safety
    /// The range, its descriptor and `fault` must outlive the value returned.
    pub unsafe fn new(range: &Range, fault: *const Fault) -> Watch {
        let _filling = FILLING.lock().unwrap_or_else(PoisonError::into_inner);
        keep_spares();
        let slot = free_slot();
        slot.change(|| {
            let start = range.start as usize;
            slot.start.store(start, Ordering::Relaxed);
            slot.limit.store(start + range.len, Ordering::Relaxed);
            slot.end.store(start + range.mapped, Ordering::Relaxed);
            let fd = range.fd.map_or(-1, |fd| fd.as_raw_fd());
            slot.fd.store(fd, Ordering::Relaxed);
            slot.file_offset.store(range.file_offset, Ordering::Relaxed);
            slot.delta.store(range.delta, Ordering::Relaxed);
            slot.page.store(range.page, Ordering::Relaxed);
            slot.writable.store(range.writable, Ordering::Relaxed);
            slot.fault.store(fault.cast_mut(), Ordering::Relaxed);
        });
        Watch { slot }
    }

    /// Tells the guard how much of the range is mapped now.
    pub fn set_mapped(&self, mapped: usize) {
        let start = self.slot.start.load(Ordering::Relaxed);
        self.slot.end.store(start + mapped, Ordering::Release);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _filling = FILLING.lock().unwrap_or_else(PoisonError::into_inner);
        self.slot.change(|| {
            self.slot.start.store(0, Ordering::Relaxed);
            self.slot.limit.store(0, Ordering::Relaxed);
            self.slot.end.store(0, Ordering::Relaxed);
        });
    }
}

impl Slot {
    /// Runs `change` so that the handler sees all of it or skips the slot.
    fn change(&self, change: impl FnOnce()) {
        let generation = self.generation.load(Ordering::Relaxed);
        self.generation
            .store(generation.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        change();
        self.generation
            .store(generation.wrapping_add(2), Ordering::Release);
    }
}

fn free_slot() -> &'static Slot {
    let mut last = &TABLE;
    let mut before = 0;
    for chunk in chunks() {
        last = chunk;
        let free = |slot: &Slot| slot.start.load(Ordering::Relaxed) == 0;
        if let Some(at) = chunk.slots.iter().position(free) {
            USED.fetch_max(before + at + 1, Ordering::Release);
            return &chunk.slots[at];
        }
        before += SLOTS;
    }
    let chunk: &'static Chunk = Box::leak(Box::new(Chunk::new()));
    last.next
        .store(ptr::from_ref(chunk).cast_mut(), Ordering::Release);
    USED.fetch_max(before + 1, Ordering::Release);
    &chunk.slots[0]
}

/// The slots that were ever taken.
fn slots() -> impl Iterator<Item = &'static Slot> {
    let used = USED.load(Ordering::Acquire);
    chunks().flat_map(|chunk| &chunk.slots).take(used)
}

/// Whether `address` lies in a range of ours: its bytes may be a file's, and be mapped elsewhere
/// too.
pub fn is_guarded(address: usize) -> bool {
    slots().any(|slot| {
        let start = slot.start.load(Ordering::Relaxed);
        start != 0 && address >= start && address < slot.limit.load(Ordering::Relaxed)
    })
}

/// Whether the guard is in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    /// Another library took the signal after us.
    Lost,
    /// It was switched off before the library was loaded.
    Off,
}

const NOT_INSTALLED: u8 = 0;
const INSTALLED: u8 = 1;
static STATE: AtomicU8 = AtomicU8::new(NOT_INSTALLED);

/// The action that was there before ours. Written once, before the handler can run.
struct Previous(MaybeUninit<libc::sigaction>);
static mut PREVIOUS: Previous = Previous(MaybeUninit::uninit());

/// Takes SIGBUS, once, and keeps this library loaded for as long as the process lives.
pub fn install() -> crate::Result<()> {
    let _filling = FILLING.lock().unwrap_or_else(PoisonError::into_inner);
    if STATE.load(Ordering::Acquire) == INSTALLED {
        return Ok(());
    }
    pin_library()?;
    // SAFETY: both actions are whole: zeroed, then filled. `PREVIOUS` is written here only, under
    // the lock, before `handle` is installed and can read it.
    unsafe {
        let mut previous: libc::sigaction = std::mem::zeroed();
        os::check(libc::sigaction(libc::SIGBUS, ptr::null(), &mut previous))?;
        (*ptr::addr_of_mut!(PREVIOUS)).0.write(previous);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        os::check(libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()))?;
    }
    STATE.store(INSTALLED, Ordering::Release);
    Ok(())
}

pub fn status() -> Status {
    if STATE.load(Ordering::Acquire) != INSTALLED {
        return Status::Off;
    }
    // SAFETY: `now` is zeroed, then filled by the call.
    let now = unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGBUS, ptr::null(), &mut now);
        now.sa_sigaction
    };
    if now == handle as *const () as usize {
        Status::Ok
    } else {
        Status::Lost
    }
}

/// A purge of the module must not unload the code that the kernel calls.
fn pin_library() -> crate::Result<()> {
    // SAFETY: `handle` is an address inside this library; dladdr fills `info` when it answers
    // non-zero, and the name it gives lives as long as the library.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(handle as *const libc::c_void, &mut info) == 0 || info.dli_fname.is_null() {
            return Err(Errno::NOTSUP);
        }
        // No library of that name: we are linked into the program itself, which stays.
        libc::dlopen(
            info.dli_fname,
            libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE,
        );
    }
    Ok(())
}

/// The signal handler. It leaves `errno` as it was.
extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid `info` to a handler with SA_SIGINFO; the errno location
    // of this thread is always valid.
    unsafe {
        let errno = errno_location();
        let saved = *errno;
        // Up to 0: sent by somebody (`kill -BUS`), and no fault of any page.
        let fault = (*info).si_code > 0;
        let patched = fault && patch((*info).si_addr() as usize);
        *errno = saved;
        if !patched {
            call_previous(signal, info, context, fault);
        }
    }
}

/// Puts zero pages where the page at `address` was lost. `false`: not ours, or no memory for it.
fn patch(address: usize) -> bool {
    for slot in slots() {
        let generation = slot.generation.load(Ordering::Acquire);
        let start = slot.start.load(Ordering::Relaxed);
        let limit = slot.limit.load(Ordering::Relaxed);
        if generation & 1 == 1 || start == 0 || address < start || address >= limit {
            continue;
        }
        let end = slot.end.load(Ordering::Acquire);
        let fd = slot.fd.load(Ordering::Relaxed);
        let file_offset = slot.file_offset.load(Ordering::Relaxed);
        let delta = slot.delta.load(Ordering::Relaxed);
        let page = slot.page.load(Ordering::Relaxed);
        let writable = slot.writable.load(Ordering::Relaxed);
        let fault = slot.fault.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if slot.generation.load(Ordering::Relaxed) != generation || page == 0 {
            continue;
        }
        if address >= end {
            // Another thread is growing or shrinking the map: what faulted has been replaced, or
            // will be part of the map in a moment. Try again.
            return true;
        }
        let first = address & !(page - 1);
        let file_end = file_end(fd, start, file_offset, page);
        let covered = first < file_end;
        let (from, to) = if covered {
            (first, first + page)
        } else {
            (file_end.max(start), end)
        };
        let mut protection = libc::PROT_READ;
        if writable {
            protection |= libc::PROT_WRITE;
        }
        // SAFETY: `from .. to` and `start .. end` lie inside a range of the table, which the
        // thread that faulted keeps alive, and so is `fault`.
        unsafe {
            let mut patched = os::zero_over(from as *mut u8, to - from, protection);
            // At the limit of maps a part cannot be replaced, for that splits one: give back a map
            // kept for this, and replace the whole.
            while patched.is_err() && give_back_spare() {
                patched = os::zero_over(start as *mut u8, end - start, protection);
            }
            if patched.is_err() {
                return false;
            }
            (*fault).record((address - start).saturating_sub(delta) as u64, covered);
        }
        return true;
    }
    false
}

/// Maps of one page that a fault at the limit of maps (`vm.max_map_count`) can do without.
static SPARES: [AtomicUsize; 8] = [const { AtomicUsize::new(0) }; 8];

/// Makes the spare maps that are missing, as far as there may be more.
fn keep_spares() {
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

/// Where in memory the pages of the file end now.
fn file_end(fd: i32, start: usize, file_offset: u64, page: usize) -> usize {
    if fd < 0 {
        return usize::MAX;
    }
    // SAFETY: fstat is async-signal-safe; `stat` is read only when it answered 0.
    let size = unsafe {
        let mut stat: MaybeUninit<libc::stat> = MaybeUninit::uninit();
        if libc::fstat(fd, stat.as_mut_ptr()) != 0 {
            return usize::MAX;
        }
        (*stat.as_ptr()).st_size as u64
    };
    let bytes = size.saturating_sub(file_offset).min(isize::MAX as u64) as usize;
    start.saturating_add(bytes.saturating_add(page - 1) & !(page - 1))
}

/// Not our page: do what would have been done without us.
///
/// # Safety
/// Only from the handler, with what the kernel passed to it.
unsafe fn call_previous(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
    fault: bool,
) {
    // SAFETY: `PREVIOUS` was filled before the handler was installed and never since; a previous
    // handler is called with the arguments that its flags say it takes.
    unsafe {
        let previous = (*ptr::addr_of!(PREVIOUS)).0.assume_init_ref();
        match previous.sa_sigaction {
            libc::SIG_IGN if !fault => (),
            libc::SIG_DFL | libc::SIG_IGN => {
                // The instruction runs again and dies as it would have.
                let mut default: libc::sigaction = std::mem::zeroed();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &default, ptr::null_mut());
                if !fault {
                    // No instruction will: send it again, to be taken when the handler returns.
                    libc::raise(signal);
                }
            }
            handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
                type Action = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
                std::mem::transmute::<usize, Action>(handler)(signal, info, context);
            }
            handler => std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler)(signal),
        }
    }
}

#[cfg(target_os = "linux")]
unsafe fn errno_location() -> *mut libc::c_int {
    // SAFETY: takes nothing, always valid.
    unsafe { libc::__errno_location() }
}

#[cfg(not(target_os = "linux"))]
unsafe fn errno_location() -> *mut libc::c_int {
    // SAFETY: takes nothing, always valid.
    unsafe { libc::__error() }
}
