//! The resources that terms refer to.
//!
//! - A *mapping* owns a [`Region`]. Handles and live binaries keep it. When the last of them is collected,
//!   its destructor unmaps the memory and closes the file.
//! - A *handle* is the result of one `open` or `dup`: a cursor, and whether it was closed.
//!
//! - A *viewer* is the resource to which the live binaries refer that one handle makes on one scheduler. It keeps the
//!   mapping, as a handle does. If all schedulers changed one reference count, they would wait for each other.
//! - A *pinned* is the resource to which a live payload of a queue refers. It keeps the mapping, and prevents the payload
//!   from being overwritten.
//! - A *buffer* is the memory of a large copy.
//! - *Patterns* are the prepared patterns of a search.
//! - A *snapshot* is one opened handle of a snapshot.
//!
//! This module opens all types itself, without rustler, so that a hot NIF finds its handle without a
//! look-up by Rust type.
//! look-up by Rust type.

use std::os::raw::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::Arc;

use emmap_core::blocks::Blocks;
use emmap_core::buffer::Buffer;
use emmap_core::closing::{Closing, OpenHandles};
use emmap_core::counters::dynamic::Dynamic;
use emmap_core::counters::Grid;
use emmap_core::cursor::Cursor;
use emmap_core::queue::Pin;
use emmap_core::search::Patterns;
use emmap_core::striped::CACHE_LINE;
use emmap_core::table::Layout;
use emmap_core::word_waits::{Keeper, WAITS};
use emmap_core::{Errno, Region};
use rustler::sys::{
    enif_alloc_resource, enif_get_resource, enif_keep_resource, enif_make_resource,
    enif_make_resource_binary, enif_open_resource_type, enif_release_resource, ErlNifEnv,
    ErlNifResourceFlags, ErlNifResourceType, ErlNifTerm,
};
use rustler::{Decoder, Env, NifResult, ResourceArc, Term};

use crate::monitors;
use crate::queue::OpenQueue;
use crate::snapshot;
use crate::terms::{ArgumentError, Failure, NOT_A_HANDLE};

static MAPPING: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static HANDLE: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static VIEWER: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static PINNED: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static BUFFER: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static PATTERNS: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static SNAPSHOT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// Mappings and handles that were not collected yet, for the tests of lifetimes.
pub static LIVE_MAPPINGS: AtomicUsize = AtomicUsize::new(0);
pub static LIVE_HANDLES: AtomicUsize = AtomicUsize::new(0);

/// Memory above this size is unmapped by a separate thread: releasing a gigabyte takes tens of
/// milliseconds, and a destructor runs on a scheduler.
pub const UNMAP_INLINE: usize = 16 << 20;

pub struct Mapping {
    region: Option<Box<Region>>,
    open_handles: OpenHandles,
}

/// `None` in the resource of [`keep_types`].
struct Pinned(#[allow(dead_code)] Option<Pin<KeptRegion>>);

/// The maximum number of viewers of a handle, a power of two. If there are more schedulers, they share viewers.
const VIEWERS: usize = 8;

struct Viewer {
    /// A resource of type `MAPPING` that this viewer keeps.
    mapping: *mut Mapping,
    /// The VM's reference count is stored before the resource. This keeps two of them out of the same cache line.
    _apart: [u8; CACHE_LINE - std::mem::size_of::<*mut Mapping>()],
}

pub struct Handle {
    /// A resource of type `MAPPING` that this handle keeps.
    mapping: *mut Mapping,
    /// The region that `mapping` owns, for direct access.
    region: *const Region,
    /// Resources of type `VIEWER` that this handle keeps, each created with the first live binary that refers to it, and null
    /// before that.
    viewers: [AtomicPtr<Viewer>; VIEWERS],
    pub cursor: Cursor,
    closing: Closing,
    pub direct: bool,
    /// Where this handle's root binary begins; 0 if it has none.
    pub root: usize,
    structure: Structure,
}

/// The structure in the file of a handle, if there is one.
#[derive(Clone)]
pub enum Structure {
    None,
    /// Where the counters are.
    Counters(Grid),
    Dynamic(Arc<Dynamic>),
    Queue(ResourceArc<OpenQueue>),
    Blocks(Arc<Blocks>),
    Table(Box<Layout>),
}

/// A region that is kept alive by this value.
pub struct KeptRegion(*mut Mapping);

// SAFETY: a mapping is a resource of the VM, which any thread may keep and release; its region is `Sync`.
unsafe impl Send for KeptRegion {}
// SAFETY: as above.
unsafe impl Sync for KeptRegion {}

impl KeptRegion {
    /// # Safety
    /// `mapping` must be a live resource of type `MAPPING`.
    unsafe fn of(mapping: *mut Mapping) -> KeptRegion {
        // SAFETY: the caller's promise; `drop` releases the resource that is kept here.
        unsafe { enif_keep_resource(mapping.cast_const().cast()) };
        KeptRegion(mapping)
    }
}

impl Clone for KeptRegion {
    fn clone(&self) -> KeptRegion {
        // SAFETY: the mapping is kept, so it is alive.
        unsafe { KeptRegion::of(self.0) }
    }
}

impl std::ops::Deref for KeptRegion {
    type Target = Region;

    #[inline(always)]
    fn deref(&self) -> &Region {
        // SAFETY: the mapping is kept, and has its region until its destructor.
        match unsafe { &(*self.0).region } {
            Some(region) => region,
            None => unreachable!("a mapping has its region until its destructor"),
        }
    }
}

impl Drop for KeptRegion {
    fn drop(&mut self) {
        // SAFETY: it was kept in `of`.
        unsafe { enif_release_resource(self.0.cast_const().cast()) };
    }
}

/// The viewer that a thread uses. The address of its stack distinguishes threads well enough (two may share a viewer), and
/// needs no call, unlike a thread-local variable in a library that is loaded at run time.
#[inline(always)]
pub fn viewer_of_thread() -> usize {
    // Multiples of any distance between stacks are spread by the golden ratio.
    const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;
    let on_stack = 0u8;
    let stack = ptr::from_ref(&on_stack) as u64 >> 18;
    (stack.wrapping_mul(GOLDEN_RATIO) >> (u64::BITS - VIEWERS.ilog2())) as usize
}

impl Handle {
    /// Where the counters are, on a handle of a counter file.
    #[inline(always)]
    pub fn counters(&self) -> Result<&Grid, &'static ArgumentError> {
        match &self.structure {
            Structure::Counters(grid) => Ok(grid),
            _ => Err(&NOT_A_HANDLE),
        }
    }

    /// The dynamic counters, on a handle of their file.
    #[inline(always)]
    pub fn dynamic(&self) -> Result<&Dynamic, &'static ArgumentError> {
        match &self.structure {
            Structure::Dynamic(dynamic) => Ok(dynamic),
            _ => Err(&NOT_A_HANDLE),
        }
    }

    /// The queue, on a handle of a queue's file.
    #[inline(always)]
    pub fn queue(&self) -> Result<&ResourceArc<OpenQueue>, &'static ArgumentError> {
        match &self.structure {
            Structure::Queue(queue) => Ok(queue),
            _ => Err(&NOT_A_HANDLE),
        }
    }

    /// The blocks, on a handle of a file of blocks.
    #[inline(always)]
    pub fn blocks(&self) -> Result<&Blocks, &'static ArgumentError> {
        match &self.structure {
            Structure::Blocks(blocks) => Ok(blocks),
            _ => Err(&NOT_A_HANDLE),
        }
    }

    /// Where the parts of the table are, on a handle of a table's file.
    #[inline(always)]
    pub fn table(&self) -> Result<&Layout, &'static ArgumentError> {
        match &self.structure {
            Structure::Table(layout) => Ok(layout),
            _ => Err(&NOT_A_HANDLE),
        }
    }

    /// The region, unless the handle is closed.
    #[inline(always)]
    pub fn region(&self) -> Result<&Region, Failure> {
        if self.closing.is_closed() {
            return Err(Failure::Closed);
        }
        // SAFETY: the handle keeps its mapping, whose region lives until its destructor.
        Ok(unsafe { &*self.region })
    }

    /// The resource to which a live binary refers, and which keeps the mapping.
    #[inline(always)]
    pub fn owner(&self) -> *const c_void {
        let place = &self.viewers[viewer_of_thread()];
        match place.load(Ordering::Acquire) {
            viewer if viewer.is_null() => self.new_viewer(place).cast(),
            viewer => viewer.cast_const().cast(),
        }
    }

    #[cold]
    #[inline(never)]
    fn new_viewer(&self, place: &AtomicPtr<Viewer>) -> *const Viewer {
        let viewer = Viewer {
            mapping: self.mapping,
            _apart: [0; CACHE_LINE - std::mem::size_of::<*mut Mapping>()],
        };
        // SAFETY: the handle keeps its mapping, so it is alive here. From here on, the viewer also keeps it, until its
        // destructor. The reference to the viewer from its allocation belongs to the handle, until its own destructor;
        // if another thread was faster, it is released immediately.
        unsafe {
            enif_keep_resource(self.mapping.cast_const().cast());
            let viewer = alloc(&VIEWER, viewer);
            let null = ptr::null_mut();
            match place.compare_exchange(null, viewer, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => viewer,
                Err(other) => {
                    enif_release_resource(viewer.cast_const().cast());
                    other
                }
            }
        }
    }

    /// Identifies the map among all existing ones.
    pub fn map_key(&self) -> usize {
        self.mapping as usize
    }

    pub fn close(&self) -> Result<(), Failure> {
        // SAFETY: the handle keeps its mapping.
        let (mapping, region) = unsafe { (&*self.mapping, &*self.region) };
        let last = self.closing.close(&mapping.open_handles);
        let last = last.ok_or(Failure::Closed)?;
        // Before the pages are released: threads wait for words in them.
        WAITS.end(ptr::from_ref(self) as usize, Errno::CLOSED);
        if last {
            region.release();
        }
        Ok(())
    }

    /// To be called before a live binary of the region is made. `false`: the handle is closed, and none may be made.
    #[inline(always)]
    pub fn lend(&self, region: &Region) -> bool {
        // In this order: see `emmap_core::region::release`.
        region.lend();
        !self.closing.is_closed()
    }
}

/// A handle that is kept alive by this value.
pub struct KeptHandle(*const Handle);

// SAFETY: a handle is a resource of the VM, which any thread may keep and release, and use: it is `Sync`.
unsafe impl Send for KeptHandle {}
// SAFETY: as above.
unsafe impl Sync for KeptHandle {}

impl KeptHandle {
    /// A handle that a term of the caller refers to.
    pub fn of(handle: &Handle) -> KeptHandle {
        // SAFETY: every `Handle` that can be borrowed is in a resource, which is alive; `drop` releases it.
        unsafe { enif_keep_resource(ptr::from_ref(handle).cast()) };
        KeptHandle(handle)
    }

    fn handle(&self) -> &Handle {
        // SAFETY: the handle is kept, so it is alive.
        unsafe { &*self.0 }
    }

    /// The resource.
    #[inline(always)]
    pub fn object(&self) -> *const c_void {
        self.0.cast()
    }

    pub fn is_closed(&self) -> bool {
        self.handle().closing.is_closed()
    }
}

impl Keeper for KeptHandle {
    fn region(&self) -> &Region {
        // SAFETY: the handle keeps its mapping, whose region lives until its destructor.
        unsafe { &*self.handle().region }
    }
}

impl Drop for KeptHandle {
    fn drop(&mut self) {
        // SAFETY: it was kept in `of`.
        unsafe { enif_release_resource(self.0.cast()) };
    }
}

/// A snapshot that is kept open by this value, although no term refers to it.
pub struct KeptSnapshot(*const Arc<snapshot::State>);

// SAFETY: a resource of the VM, which any thread may keep and release; the state is `Sync`.
unsafe impl Send for KeptSnapshot {}
// SAFETY: as above.
unsafe impl Sync for KeptSnapshot {}

impl KeptSnapshot {
    /// # Safety
    /// `state` must come from [`get_snapshot`].
    pub unsafe fn of(state: &Arc<snapshot::State>) -> KeptSnapshot {
        // The resource is an `Option` of it, which begins with it.
        const { assert!(size_of::<Option<Arc<snapshot::State>>>() == size_of::<usize>()) };
        // SAFETY: the caller's promise; `drop` releases the resource.
        unsafe { enif_keep_resource(ptr::from_ref(state).cast()) };
        KeptSnapshot(state)
    }

    pub fn state(&self) -> &Arc<snapshot::State> {
        // SAFETY: the resource is kept, and has its value until its destructor.
        unsafe { &*self.0 }
    }
}

impl Drop for KeptSnapshot {
    fn drop(&mut self) {
        // SAFETY: it was kept in `of`.
        unsafe { enif_release_resource(self.0.cast()) };
    }
}

/// Identifies the map of a handle.
pub fn mapping_of(handle: &Handle) -> usize {
    handle.mapping as usize
}

/// A borrowed handle as the argument of a cold NIF.
pub struct HandleRef<'a>(pub &'a Handle);

impl<'a> Decoder<'a> for HandleRef<'a> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let env = term.get_env();
        // SAFETY: the term keeps the handle alive for as long as its environment.
        match unsafe { get_handle(env.as_c_arg(), term.as_c_arg()) } {
            Some(handle) => Ok(HandleRef(handle)),
            None => Err((&NOT_A_HANDLE).into()),
        }
    }
}

/// # Safety
/// `env` must be the environment of the running NIF and `term` one of its terms.
#[inline(always)]
pub unsafe fn get_handle<'a>(env: *mut ErlNifEnv, term: ErlNifTerm) -> Option<&'a Handle> {
    let mut object: *const c_void = ptr::null();
    // SAFETY: the type was opened at load; `object` is set if the result is not 0.
    unsafe {
        let handle_type = HANDLE.load(Ordering::Relaxed).cast_const().cast();
        match enif_get_resource(env, term, handle_type, &mut object) {
            0 => None,
            _ => Some(&*object.cast::<Handle>()),
        }
    }
}

/// The terms of a new handle: its reference, and its root binary or `nil`.
pub struct NewHandle<'a> {
    pub reference: Term<'a>,
    pub root: Option<Term<'a>>,
}

/// Makes the first handle on a region.
pub fn new_handle<'a>(env: Env<'a>, region: Region, direct: bool) -> NewHandle<'a> {
    first_handle(env, region, direct, |_| Structure::None)
}

/// Makes the first handle on the file of a structure.
pub fn new_structure<'a>(
    env: Env<'a>,
    region: Region,
    structure: impl FnOnce(KeptRegion) -> Structure,
) -> Term<'a> {
    first_handle(env, region, false, structure).reference
}

/// As [`new_structure`]; if `direct`, with a root for long live binaries.
pub fn new_structure_with_root<'a>(
    env: Env<'a>,
    region: Region,
    direct: bool,
    structure: Structure,
) -> NewHandle<'a> {
    first_handle(env, region, direct, |_| structure)
}

fn first_handle<'a>(
    env: Env<'a>,
    region: Region,
    direct: bool,
    structure: impl FnOnce(KeptRegion) -> Structure,
) -> NewHandle<'a> {
    let mapping = Mapping {
        region: Some(Box::new(region)),
        open_handles: OpenHandles::default(),
    };
    mapping.open_handles.add();
    LIVE_MAPPINGS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the type was opened at load, for values of type Mapping; the reference that
    // allocation gives us is released below, when the handle has its own.
    unsafe {
        let object = alloc(&MAPPING, mapping);
        if let Some(region) = &(*object).region {
            monitors::add(object as usize, &**region);
        }
        let structure = structure(KeptRegion::of(object));
        let handle = handle_on(env, object, direct, structure);
        enif_release_resource(object.cast());
        handle
    }
}

/// Makes another handle on the same map, with its own cursor, unless the last handle is
/// being closed.
pub fn dup_handle<'a>(env: Env<'a>, handle: &Handle) -> Result<NewHandle<'a>, Failure> {
    // SAFETY: `handle` keeps its mapping, so it is alive.
    unsafe {
        match (*handle.mapping).open_handles.add_beside() {
            true => Ok(handle_on(
                env,
                handle.mapping,
                handle.direct,
                handle.structure.clone(),
            )),
            false => Err(Failure::Closed),
        }
    }
}

/// # Safety
/// `mapping` must be a live resource of type `MAPPING`, and count the new handle among the open ones
/// already.
unsafe fn handle_on<'a>(
    env: Env<'a>,
    mapping: *mut Mapping,
    direct: bool,
    structure: Structure,
) -> NewHandle<'a> {
    // SAFETY: `mapping` is alive, and `enif_keep_resource` keeps it so until the handle's
    // destructor releases it. The root binary spans mapped bytes, which outlive it (the binary is
    // a reference to the mapping).
    unsafe {
        enif_keep_resource(mapping.cast_const().cast());
        let region: *const Region = match &(*mapping).region {
            Some(region) => &**region,
            None => unreachable!("a mapping has its region until its destructor"),
        };
        let len = (*region).len();
        let root = (direct && len > 0).then(|| {
            (*region).lend();
            let at = (*region).base();
            let owner = mapping.cast_const().cast();
            (
                at,
                enif_make_resource_binary(env.as_c_arg(), owner, at.cast(), len),
            )
        });
        LIVE_HANDLES.fetch_add(1, Ordering::Relaxed);
        let object = alloc(
            &HANDLE,
            Handle {
                mapping,
                region,
                viewers: Default::default(),
                cursor: Cursor::default(),
                closing: Closing::default(),
                direct,
                root: root.map_or(0, |(at, _)| at as usize),
                structure,
            },
        );
        let reference = enif_make_resource(env.as_c_arg(), object.cast_const().cast());
        enif_release_resource(object.cast_const().cast());
        NewHandle {
            reference: Term::new(env, reference),
            root: root.map(|(_, term)| Term::new(env, term)),
        }
    }
}

/// # Safety
/// `kind` must be the resource type whose destructor takes a `T`.
unsafe fn alloc<T>(kind: &AtomicPtr<c_void>, value: T) -> *mut T {
    // The VM aligns resources to eight bytes.
    const { assert!(std::mem::align_of::<T>() <= 8) };
    // SAFETY: freshly allocated memory of the right size and alignment; written before use.
    unsafe {
        let kind = kind.load(Ordering::Relaxed).cast_const().cast();
        let object = enif_alloc_resource(kind, std::mem::size_of::<T>()).cast::<T>();
        object.write(value);
        object
    }
}

unsafe extern "C" fn drop_mapping(_env: *mut ErlNifEnv, object: *mut c_void) {
    // SAFETY: the VM calls the destructor once, with an object of this type without a reference.
    let region = unsafe { (*object.cast::<Mapping>()).region.take() };
    monitors::remove(object as usize);
    LIVE_MAPPINGS.fetch_sub(1, Ordering::Relaxed);
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop_region(region)));
}

fn drop_region(region: Option<Box<Region>>) {
    if let Some(region) = region {
        let large = region.is_large();
        // Not on the other thread: an open of the file must not depend on when it runs.
        region.take_back_lent();
        drop_elsewhere(region, large);
    }
}

/// Drops `value`, on a separate thread if it is `large`.
pub fn drop_elsewhere<T: Send + 'static>(value: T, large: bool) {
    if large {
        // If no thread can be created, the closure is dropped here, and the value with it.
        let _ = std::thread::Builder::new()
            .name("emmap_unmap".into())
            .stack_size(64 << 10)
            .spawn(move || drop(value));
    }
}

unsafe extern "C" fn drop_pinned(_env: *mut ErlNifEnv, object: *mut c_void) {
    // SAFETY: the VM calls the destructor once, with an object of this type without a reference.
    let pinned = unsafe { object.cast::<Pinned>().read() };
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(pinned)));
}

/// A live binary of a payload that is pinned for as long as the binary lives: `start .. start + count` of the map.
///
/// # Safety
/// `env` must be the environment of the running NIF, and the range must be inside the map.
pub unsafe fn pinned_binary(
    env: *mut ErlNifEnv,
    pin: Pin<KeptRegion>,
    start: usize,
    count: usize,
) -> ErlNifTerm {
    // SAFETY: the range is mapped for as long as the region lives, which the pin keeps, and the binary keeps the resource
    // that owns the pin.
    unsafe {
        let at = pin.region().pointer(start);
        let object = alloc(&PINNED, Pinned(Some(pin))).cast_const().cast();
        let binary = enif_make_resource_binary(env, object, at.cast_const().cast(), count);
        enif_release_resource(object);
        binary
    }
}

unsafe extern "C" fn drop_buffer(_env: *mut ErlNifEnv, object: *mut c_void) {
    // SAFETY: the VM calls the destructor once, with an object of this type without a reference.
    let buffer = unsafe { object.cast::<Buffer>().read() };
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        drop_elsewhere(buffer, true)
    }));
}

/// A binary over a buffer that was filled, of which it takes ownership.
///
/// # Safety
/// `env` must be the environment of the running NIF, and `count` at most the buffer's length.
pub unsafe fn buffer_binary(env: *mut ErlNifEnv, mut buffer: Buffer, count: usize) -> ErlNifTerm {
    let at = buffer.as_mut_ptr();
    // SAFETY: moving a buffer moves no memory; the binary keeps the resource that owns it.
    unsafe {
        let object = alloc(&BUFFER, buffer).cast_const().cast();
        let binary = enif_make_resource_binary(env, object, at.cast_const().cast(), count);
        enif_release_resource(object);
        binary
    }
}

/// The term of prepared patterns.
pub fn new_patterns<'a>(env: Env<'a>, patterns: Patterns) -> Term<'a> {
    // SAFETY: the type was opened at load, for values of type Patterns; the reference that
    // allocation gives us is released when the term has its own.
    unsafe {
        let object = alloc(&PATTERNS, patterns).cast_const().cast();
        let term = enif_make_resource(env.as_c_arg(), object);
        enif_release_resource(object);
        Term::new(env, term)
    }
}

/// # Safety
/// `env` must be the environment of the running NIF and `term` one of its terms.
pub unsafe fn get_patterns<'a>(env: *mut ErlNifEnv, term: ErlNifTerm) -> Option<&'a Patterns> {
    let mut object: *const c_void = ptr::null();
    // SAFETY: as in `get_handle`; nothing changes patterns once they are made.
    unsafe {
        let kind = PATTERNS.load(Ordering::Relaxed).cast_const().cast();
        match enif_get_resource(env, term, kind, &mut object) {
            0 => None,
            _ => Some(&*object.cast::<Patterns>()),
        }
    }
}

unsafe extern "C" fn drop_patterns(_env: *mut ErlNifEnv, object: *mut c_void) {
    // SAFETY: the VM calls the destructor once, with an object of this type without a reference.
    let patterns = unsafe { object.cast::<Patterns>().read() };
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let large = patterns.memory() > UNMAP_INLINE;
        drop_elsewhere(patterns, large)
    }));
}

/// The term of an opened snapshot.
pub fn new_snapshot<'a>(env: Env<'a>, state: Arc<snapshot::State>) -> Term<'a> {
    // SAFETY: the type was opened at load, for values of type `Option<Arc<State>>`; the reference that allocation gives us is
    // released when the term has its own.
    unsafe {
        let object = alloc(&SNAPSHOT, Some(state)).cast_const().cast();
        let term = enif_make_resource(env.as_c_arg(), object);
        enif_release_resource(object);
        Term::new(env, term)
    }
}

/// # Safety
/// `env` must be the environment of the running NIF and `term` one of its terms.
#[inline(always)]
pub unsafe fn get_snapshot<'a>(
    env: *mut ErlNifEnv,
    term: ErlNifTerm,
) -> Option<&'a Arc<snapshot::State>> {
    let mut object: *const c_void = ptr::null();
    // SAFETY: as in `get_handle`; nothing changes the value before its destructor.
    unsafe {
        let kind = SNAPSHOT.load(Ordering::Relaxed).cast_const().cast();
        match enif_get_resource(env, term, kind, &mut object) {
            0 => None,
            _ => (*object.cast::<Option<Arc<snapshot::State>>>()).as_ref(),
        }
    }
}

unsafe extern "C" fn drop_snapshot(_env: *mut ErlNifEnv, object: *mut c_void) {
    // SAFETY: the VM calls the destructor once, with an object of this type without a reference.
    let state = unsafe { object.cast::<Option<Arc<snapshot::State>>>().read() };
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        if let Some(state) = state {
            snapshot::drop_state(state);
        }
    }));
}

unsafe extern "C" fn drop_viewer(_env: *mut ErlNifEnv, object: *mut c_void) {
    // SAFETY: the VM calls the destructor once, with an object of this type without a reference; its reference to the
    // mapping is released exactly here.
    unsafe { enif_release_resource((*object.cast::<Viewer>()).mapping.cast_const().cast()) }
}

unsafe extern "C" fn drop_handle(_env: *mut ErlNifEnv, object: *mut c_void) {
    // SAFETY: as above; the handle's reference to its mapping is released exactly here.
    unsafe {
        let handle = object.cast::<Handle>().read();
        let last = handle.closing.close(&(*handle.mapping).open_handles) == Some(true);
        if last && (*handle.region).is_lent() {
            // Live binaries may keep the mapping for long. Without them, the next line releases it.
            let _ = std::panic::catch_unwind(|| (*handle.region).try_release_descriptor());
        }
        for viewer in handle.viewers {
            let viewer = viewer.into_inner();
            if !viewer.is_null() {
                enif_release_resource(viewer.cast_const().cast());
            }
        }
        enif_release_resource(handle.mapping.cast_const().cast());
    }
    LIVE_HANDLES.fetch_sub(1, Ordering::Relaxed);
}

/// Opens the resource types.
pub fn open_types(env: Env) -> bool {
    type Destructor = unsafe extern "C" fn(*mut ErlNifEnv, *mut c_void);
    let open = |name: &std::ffi::CStr, destructor: Destructor| -> *const ErlNifResourceType {
        let flags = ErlNifResourceFlags::ERL_NIF_RT_CREATE;
        let mut tried = ErlNifResourceFlags::ERL_NIF_RT_CREATE;
        // SAFETY: called while the library loads, the only time it may be.
        unsafe {
            let module = ptr::null();
            let destructor = Some(destructor);
            enif_open_resource_type(
                env.as_c_arg(),
                module,
                name.as_ptr(),
                destructor,
                flags,
                &mut tried,
            )
        }
    };
    let mapping = open(c"emmap_mapping", drop_mapping);
    let handle = open(c"emmap_handle", drop_handle);
    let viewer = open(c"emmap_viewer", drop_viewer);
    let pinned = open(c"emmap_pinned", drop_pinned);
    let buffer = open(c"emmap_buffer", drop_buffer);
    let patterns = open(c"emmap_patterns", drop_patterns);
    let snapshot = open(c"emmap_snapshot", drop_snapshot);
    let kinds = [mapping, handle, viewer, pinned, buffer, patterns, snapshot];
    if kinds.iter().any(|opened| opened.is_null()) {
        return false;
    }
    MAPPING.store(mapping.cast_mut().cast(), Ordering::Relaxed);
    HANDLE.store(handle.cast_mut().cast(), Ordering::Relaxed);
    VIEWER.store(viewer.cast_mut().cast(), Ordering::Relaxed);
    PINNED.store(pinned.cast_mut().cast(), Ordering::Relaxed);
    BUFFER.store(buffer.cast_mut().cast(), Ordering::Relaxed);
    PATTERNS.store(patterns.cast_mut().cast(), Ordering::Relaxed);
    SNAPSHOT.store(snapshot.cast_mut().cast(), Ordering::Relaxed);
    keep_types();
    true
}

/// Keeps one resource of each type for the life of the VM. `init:stop/0` unloads all code while dirty calls still run,
/// and the VM frees a type with its last resource: a call that makes a resource after that uses freed memory.
fn keep_types() {
    let nothing = Patterns::new(&[b"-"]).ok();
    // SAFETY: the types were opened above, each for values of the type it is given here. The reference that allocation
    // gives us is never released, so no destructor of these ever runs.
    unsafe {
        alloc(
            &MAPPING,
            Mapping {
                region: None,
                open_handles: OpenHandles::default(),
            },
        );
        alloc(
            &HANDLE,
            Handle {
                mapping: ptr::null_mut(),
                region: ptr::null(),
                viewers: Default::default(),
                cursor: Cursor::default(),
                closing: Closing::default(),
                direct: false,
                root: 0,
                structure: Structure::None,
            },
        );
        alloc(
            &VIEWER,
            Viewer {
                mapping: ptr::null_mut(),
                _apart: [0; CACHE_LINE - std::mem::size_of::<*mut Mapping>()],
            },
        );
        alloc(&PINNED, Pinned(None));
        alloc(&SNAPSHOT, None::<Arc<snapshot::State>>);
        if let Ok(buffer) = Buffer::new(1) {
            alloc(&BUFFER, buffer);
        }
        if let Some(patterns) = nothing {
            alloc(&PATTERNS, patterns);
        }
    }
}
