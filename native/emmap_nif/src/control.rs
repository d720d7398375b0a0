//! The cold NIFs on an open handle.

use std::os::unix::ffi::OsStrExt;

use emmap_core::os::{Advice, MemoryAdvice};
use emmap_core::region::Info;
use emmap_core::word_waits::WAITS;
use emmap_core::Region;
use emmap_core::{fault, guard, source};
use rustler::types::atom;
use rustler::{Binary, Encoder, Env, NewBinary, NifMap, NifUnitEnum, Term};

use crate::hot::cold_nif;
use crate::io::change::check_turn;
use crate::resource::{HandleRef, LIVE_HANDLES, LIVE_MAPPINGS};
use crate::terms::{answer, Failure};

cold_nif!(DirtyIo, "resize" / 2 = resize(handle, size));
cold_nif!(DirtyIo, "double" / 1 = double(handle));
cold_nif!(DirtyIo, "truncate" / 1 = truncate(handle));
cold_nif!(DirtyIo, "protect" / 1 = protect(handle));
cold_nif!(DirtyIo, "reattach" / 1 = reattach(handle));
cold_nif!(DirtyIo, "allocate" / 3 = allocate(handle, position, count));

/// As [`on_region`], for calls that change the size of the map: calls that are already waiting for that come first.
fn on_size<'a>(
    env: Env<'a>,
    handle: &HandleRef,
    act: impl FnOnce(&Region) -> emmap_core::Result<()>,
) -> Term<'a> {
    let done = on_region(env, handle, |region| {
        check_turn(handle.0)?;
        act(region)
    });
    // Words that waiters wait for may not be in the map any more.
    WAITS.look();
    done
}

fn on_region<'a>(
    env: Env<'a>,
    handle: &HandleRef,
    act: impl FnOnce(&Region) -> emmap_core::Result<()>,
) -> Term<'a> {
    let done = handle.0.region().and_then(|region| Ok(act(region)?));
    answer(env, done)
}

// Dirty: it may unlink the file, unmaps its pages, and closes it.
#[rustler::nif(schedule = "DirtyIo")]
fn close<'a>(env: Env<'a>, handle: HandleRef<'a>) -> Term<'a> {
    answer(env, handle.0.close())
}

// Allocates blocks and changes maps.
fn resize<'a>(env: Env<'a>, handle: HandleRef<'a>, size: u64) -> Term<'a> {
    on_size(env, &handle, |region| region.resize(size))
}

// As resize, to a size that is determined under its lock.
fn double<'a>(env: Env<'a>, handle: HandleRef<'a>) -> Term<'a> {
    let double = |region: &Region| check_turn(handle.0).and_then(|()| region.double());
    match handle.0.region().and_then(|region| Ok(double(region)?)) {
        Ok(size) => (atom::ok(), size).encode(env),
        Err(failure) => failure.encode(env),
    }
}

// As resize, at the cursor.
fn truncate<'a>(env: Env<'a>, handle: HandleRef<'a>) -> Term<'a> {
    on_size(env, &handle, |region| {
        region.truncate(handle.0.cursor.get())
    })
}

// Changes maps, and waits for a call that grows the map.
fn reattach<'a>(env: Env<'a>, handle: HandleRef<'a>) -> Term<'a> {
    on_size(env, &handle, |region| {
        region.reattach()?;
        handle.0.cursor.limit(region.len() as u64);
        Ok(())
    })
}

// One store.
#[rustler::nif(schedule = "Normal")]
fn refuse_writes<'a>(env: Env<'a>, handle: HandleRef<'a>) -> Term<'a> {
    on_region(env, &handle, |region| {
        region.refuse_writes();
        Ok(())
    })
}

// Changes maps, and waits for writes on dirty schedulers. To be called after `refuse_writes`, once every process that was
// running then has given up its scheduler.
fn protect<'a>(env: Env<'a>, handle: HandleRef<'a>) -> Term<'a> {
    // SAFETY: a write that may not wait is one call on a scheduler of the VM. By the caller's promise, it is finished.
    on_region(env, &handle, |region| unsafe { region.protect() })
}

// Waits for the disk.
#[rustler::nif(schedule = "DirtyIo")]
fn sync<'a>(env: Env<'a>, handle: HandleRef<'a>, wait: bool) -> Term<'a> {
    on_region(env, &handle, |region| region.sync(None, wait))
}

// Waits for the disk.
#[rustler::nif(schedule = "DirtyIo")]
fn sync_range<'a>(
    env: Env<'a>,
    handle: HandleRef<'a>,
    position: u64,
    count: u64,
    wait: bool,
) -> Term<'a> {
    on_region(env, &handle, |region| {
        region.sync(Some((position, count)), wait)
    })
}

// Waits for the disk.
#[rustler::nif(schedule = "DirtyIo")]
fn datasync<'a>(env: Env<'a>, handle: HandleRef<'a>) -> Term<'a> {
    on_region(env, &handle, Region::sync_data)
}

#[derive(NifUnitEnum)]
enum AdviceAtom {
    Normal,
    Sequential,
    Random,
    NoReuse,
    WillNeed,
    DontNeed,
}

// A hint may start I/O.
#[rustler::nif(schedule = "DirtyIo")]
fn advise<'a>(
    env: Env<'a>,
    handle: HandleRef<'a>,
    position: u64,
    count: u64,
    advice: AdviceAtom,
) -> Term<'a> {
    let advice = match advice {
        AdviceAtom::Normal => Advice::Normal,
        AdviceAtom::Sequential => Advice::Sequential,
        AdviceAtom::Random => Advice::Random,
        AdviceAtom::NoReuse => Advice::NoReuse,
        AdviceAtom::WillNeed => Advice::WillNeed,
        AdviceAtom::DontNeed => Advice::DontNeed,
    };
    on_region(env, &handle, |region| {
        region.advise(position, count, advice)
    })
}

#[derive(NifUnitEnum)]
enum MemoryAdviceAtom {
    Cold,
    Pageout,
    Hugepage,
    Nohugepage,
    Collapse,
    Dontdump,
    Dodump,
    Dontfork,
    Dofork,
    Mergeable,
    Unmergeable,
    PopulateRead,
    PopulateWrite,
    Free,
    Remove,
}

// Walks the page tables, and may read from the disk or write to it.
#[rustler::nif(schedule = "DirtyIo")]
fn advise_memory<'a>(
    env: Env<'a>,
    handle: HandleRef<'a>,
    position: u64,
    count: u64,
    advice: MemoryAdviceAtom,
) -> Term<'a> {
    let advice = match advice {
        MemoryAdviceAtom::Cold => MemoryAdvice::Cold,
        MemoryAdviceAtom::Pageout => MemoryAdvice::PageOut,
        MemoryAdviceAtom::Hugepage => MemoryAdvice::HugePage,
        MemoryAdviceAtom::Nohugepage => MemoryAdvice::NoHugePage,
        MemoryAdviceAtom::Collapse => MemoryAdvice::Collapse,
        MemoryAdviceAtom::Dontdump => MemoryAdvice::DontDump,
        MemoryAdviceAtom::Dodump => MemoryAdvice::DoDump,
        MemoryAdviceAtom::Dontfork => MemoryAdvice::DontFork,
        MemoryAdviceAtom::Dofork => MemoryAdvice::DoFork,
        MemoryAdviceAtom::Mergeable => MemoryAdvice::Mergeable,
        MemoryAdviceAtom::Unmergeable => MemoryAdvice::Unmergeable,
        MemoryAdviceAtom::PopulateRead => MemoryAdvice::PopulateRead,
        MemoryAdviceAtom::PopulateWrite => MemoryAdvice::PopulateWrite,
        MemoryAdviceAtom::Free => MemoryAdvice::Free,
        MemoryAdviceAtom::Remove => MemoryAdvice::Remove,
    };
    on_region(env, &handle, |region| {
        region.advise_memory(position, count, advice)
    })
}

// Allocates blocks.
fn allocate<'a>(env: Env<'a>, handle: HandleRef<'a>, position: u64, count: u64) -> Term<'a> {
    on_size(env, &handle, |region| region.allocate(position, count))
}

// Reads from the disk.
#[rustler::nif(schedule = "DirtyIo")]
fn prefetch<'a>(env: Env<'a>, handle: HandleRef<'a>, position: u64, count: u64) -> Term<'a> {
    on_region(env, &handle, |region| region.prefetch(position, count))
}

// Reads every page from the disk.
#[rustler::nif(schedule = "DirtyIo")]
fn lock_memory<'a>(env: Env<'a>, handle: HandleRef<'a>, position: u64, count: u64) -> Term<'a> {
    on_region(env, &handle, |region| region.lock_memory(position, count))
}

// Walks the page tables.
#[rustler::nif(schedule = "DirtyIo")]
fn unlock_memory<'a>(env: Env<'a>, handle: HandleRef<'a>, position: u64, count: u64) -> Term<'a> {
    on_region(env, &handle, |region| region.unlock_memory(position, count))
}

#[derive(NifMap)]
struct InfoMap<'a> {
    path: Option<Binary<'a>>,
    fd: Option<i32>,
    size: usize,
    offset: u64,
    position: u64,
    writable: bool,
    private: bool,
    direct: bool,
    resizable: bool,
    grows: bool,
    appends: bool,
    lock: bool,
    given: u64,
    max_size: Option<u64>,
    page_size: usize,
    resident_pages: usize,
    allocated: Option<u64>,
    address_ranges: usize,
    faults: u64,
    fault: Option<(u64, Term<'a>)>,
    failed_sync: Option<Term<'a>>,
}

// mincore walks the page tables of the whole map.
#[rustler::nif(schedule = "DirtyIo")]
fn info<'a>(env: Env<'a>, handle: HandleRef<'a>) -> Term<'a> {
    let info = handle.0.region().and_then(|region| Ok(region.info()?));
    match info {
        Ok(info) => (atom::ok(), info_map(env, &handle, info)).encode(env),
        Err(failure) => failure.encode(env),
    }
}

// mincore, as in info. The caller chooses the number of parts.
#[rustler::nif(schedule = "DirtyIo")]
fn residency<'a>(env: Env<'a>, handle: HandleRef<'a>, parts: u16) -> Term<'a> {
    let parts = usize::from(parts);
    match handle
        .0
        .region()
        .and_then(|region| Ok(region.residency(parts)?))
    {
        Ok(parts) => {
            let parts: Vec<_> = parts.iter().map(|p| (p.pages, p.resident)).collect();
            (atom::ok(), parts).encode(env)
        }
        Err(failure) => failure.encode(env),
    }
}

// As info, without the parts that take long. Waits for a call that grows the map.
#[rustler::nif(schedule = "DirtyIo")]
fn describe<'a>(env: Env<'a>, handle: HandleRef<'a>, look: bool) -> Term<'a> {
    match handle.0.region() {
        Ok(region) => (atom::ok(), info_map(env, &handle, region.describe(look))).encode(env),
        Err(failure) => failure.encode(env),
    }
}

fn info_map<'a>(env: Env<'a>, handle: &HandleRef, info: Info) -> InfoMap<'a> {
    InfoMap {
        path: info.path.map(|path| {
            let bytes = path.as_os_str().as_bytes();
            let mut binary = NewBinary::new(env, bytes.len());
            binary.as_mut_slice().copy_from_slice(bytes);
            binary.into()
        }),
        fd: info.fd,
        size: info.size,
        offset: info.offset,
        position: handle.0.cursor.get(),
        writable: info.writable,
        private: info.private,
        direct: handle.0.direct,
        resizable: info.resizable,
        grows: info.grows,
        appends: info.appends,
        lock: info.locking,
        given: info.tag,
        max_size: info.max_size,
        page_size: info.page_size,
        resident_pages: info.resident_pages,
        allocated: info.allocated,
        address_ranges: info.ranges,
        faults: info.faults,
        fault: info
            .first_fault
            .map(|(at, errno)| (at, Failure::from(errno).encode(env))),
        failed_sync: info
            .failed_sync
            .map(|errno| Failure::from(errno).encode(env)),
    }
}

#[derive(NifUnitEnum)]
enum GuardStatus {
    Ok,
    Lost,
    Off,
}

// One system call that reads.
#[rustler::nif(schedule = "Normal")]
fn guard_status() -> GuardStatus {
    match guard::status() {
        guard::Status::Ok => GuardStatus::Ok,
        guard::Status::Lost => GuardStatus::Lost,
        guard::Status::Off => GuardStatus::Off,
    }
}

// Two loads: the number of faults of all maps, and whether one has a fault now.
#[rustler::nif(schedule = "Normal")]
fn faults() -> (u64, bool) {
    (fault::events(), fault::any())
}

// `{:ok, copy}` of a binary, or the error of the map that it is a part of. Dirty, for a binary of any size.
#[rustler::nif(schedule = "DirtyIo")]
fn source_copy<'a>(env: Env<'a>, data: Binary<'a>) -> Term<'a> {
    let mut copy = NewBinary::new(env, data.len());
    let to = copy.as_mut_slice().as_mut_ptr();
    // SAFETY: the new binary has room for as many bytes, and both are kept by their terms.
    match unsafe { source::copy_intact(data.as_slice().as_ptr(), to, data.len()) } {
        Ok(()) => (atom::ok(), Term::from(copy)).encode(env),
        Err(error) => Failure::from(error).encode(env),
    }
}

// Two loads: mappings and handles not collected yet.
#[rustler::nif(schedule = "Normal")]
fn live() -> (usize, usize) {
    use std::sync::atomic::Ordering::Relaxed;
    (LIVE_MAPPINGS.load(Relaxed), LIVE_HANDLES.load(Relaxed))
}
