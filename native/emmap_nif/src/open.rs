//! From the options that Elixir checked to an open handle.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use emmap_core::options::{HugePage, Sharing};
use emmap_core::{Errno, Options, Region};
use rustler::types::atom;
use rustler::{Binary, Encoder, Env, NifMap, NifResult, NifUnitEnum, Term};

use crate::hot::cold_nif;
use crate::resource::{dup_handle, new_handle, HandleRef, NewHandle};
use crate::terms::{ArgumentError, Failure};

cold_nif!(DirtyIo, "open" / 1 = open(request));

#[derive(NifUnitEnum)]
enum Share {
    Shared,
    SharedValidate,
    Private,
}

#[derive(NifUnitEnum)]
enum Huge {
    Hugetlb,
    #[allow(non_camel_case_types)]
    Huge_2mb,
    #[allow(non_camel_case_types)]
    Huge_1gb,
}

/// The map that `Emmap.Options` makes; every field is checked there.
#[derive(NifMap)]
struct Request<'a> {
    path: Option<Binary<'a>>,
    /// In the place of a path.
    fd: Option<i32>,
    write: bool,
    create: bool,
    exclusive: bool,
    truncate: bool,
    append: bool,
    sharing: Share,
    direct: bool,
    offset: u64,
    length: Option<u64>,
    size: Option<u64>,
    fit: bool,
    fixed_size: bool,
    keep_size: bool,
    max_size: Option<u64>,
    max_inc_size: u64,
    sparse: bool,
    lock: bool,
    auto_unlink: bool,
    /// The flags that were given, a bit for each.
    given: u64,
    chmod: Option<u32>,
    address: Option<u64>,
    fixed: bool,
    noreserve: bool,
    populate: bool,
    nonblock: bool,
    huge: Option<Huge>,
    sync: bool,
    nocache: bool,
}

impl Request<'_> {
    fn options(&self) -> Result<Options, Errno> {
        let path = self
            .path
            .as_ref()
            .map(|path| OsStr::from_bytes(path.as_slice()).into());
        let address = match self.address {
            Some(address) => Some(usize::try_from(address).map_err(|_| Errno::INVAL)?),
            None => None,
        };
        Ok(Options {
            path,
            write: self.write,
            create: self.create,
            exclusive: self.exclusive,
            truncate: self.truncate,
            append: self.append,
            sharing: match self.sharing {
                Share::Shared => Sharing::Shared,
                Share::SharedValidate => Sharing::SharedValidate,
                Share::Private => Sharing::Private,
            },
            offset: self.offset,
            length: self.length,
            size: self.size,
            fit: self.fit,
            fixed_size: self.fixed_size,
            keep_size: self.keep_size,
            max_size: self.max_size,
            max_increment: self.max_inc_size,
            sparse: self.sparse,
            lock: self.lock,
            auto_unlink: self.auto_unlink,
            tag: self.given,
            mode: self.chmod,
            address,
            fixed: self.fixed,
            no_reserve: self.noreserve,
            populate: self.populate,
            nonblock: self.nonblock,
            huge: self.huge.as_ref().map(|huge| match huge {
                Huge::Hugetlb => HugePage::Default,
                Huge::Huge_2mb => HugePage::TwoMegabytes,
                Huge::Huge_1gb => HugePage::OneGigabyte,
            }),
            map_sync: self.sync,
            no_cache: self.nocache,
        })
    }
}

/// `{:ok, reference, root_or_nil}`.
fn opened<'a>(env: Env<'a>, handle: NewHandle<'a>) -> Term<'a> {
    (atom::ok(), handle.reference, handle.root).encode(env)
}

// Opens files, allocates blocks, may populate pages: all of it waits for a disk.
fn open<'a>(env: Env<'a>, request: Term<'a>) -> NifResult<Term<'a>> {
    let request: Request = request
        .decode()
        .map_err(|_| &ArgumentError("options not made by Emmap.Options", 0))?;
    let region = request.options().and_then(|options| match request.fd {
        None => Region::open(&options),
        Some(number) if number < 0 => Err(Errno(libc::EBADF)),
        // SAFETY: the number is not that of no descriptor. If it is not open, the first call fails; and if the caller
        // closes it in the meantime, a later one does, or finds another file.
        Some(number) => Region::of_descriptor(unsafe { BorrowedFd::borrow_raw(number) }, &options),
    });
    match region {
        Ok(region) => Ok(opened(env, new_handle(env, region, request.direct))),
        Err(error) => Ok(Failure::from(error).encode(env)),
    }
}

// Allocates two small terms.
#[rustler::nif(schedule = "Normal")]
fn dup<'a>(env: Env<'a>, handle: HandleRef<'a>) -> Term<'a> {
    match handle.0.region().and_then(|_| dup_handle(env, handle.0)) {
        Ok(another) => opened(env, another),
        Err(failure) => failure.encode(env),
    }
}
