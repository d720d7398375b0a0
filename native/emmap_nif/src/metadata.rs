//! The NIFs for OTP's calls that need the file behind a handle: its metadata, and a descriptor that
//! another module of OTP may open.
//!
//! A *descriptor* is a resource that owns a duplicate of the map's file descriptor. As long as the
//! resource lives and is not closed, its number belongs to this file: neither a garbage
//! collection of the handle nor a `close` of it can assign the number to another file. Its type is
//! opened by rustler, because only cold NIFs look it up.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};

use emmap_core::os::Stat;
use rustler::types::atom;
use rustler::{Encoder, Env, NifMap, NifUnitEnum, Resource, ResourceArc, Term};

use crate::resource::HandleRef;
use crate::terms::{self, Failure};

#[derive(NifUnitEnum)]
enum Access {
    None,
    Read,
    Write,
    ReadWrite,
}

#[derive(NifMap)]
struct StatMap {
    size: u64,
    access: Access,
    atime: i64,
    mtime: i64,
    ctime: i64,
    mode: u32,
    links: u64,
    major_device: u64,
    minor_device: u64,
    inode: u64,
    uid: u32,
    gid: u32,
    allocated: u64,
}

impl From<Stat> for StatMap {
    fn from(stat: Stat) -> StatMap {
        StatMap {
            size: stat.size,
            access: match stat.access() {
                (false, false) => Access::None,
                (true, false) => Access::Read,
                (false, true) => Access::Write,
                (true, true) => Access::ReadWrite,
            },
            atime: stat.accessed,
            mtime: stat.modified,
            ctime: stat.changed,
            mode: stat.mode,
            links: stat.links,
            major_device: stat.device,
            minor_device: stat.special_device,
            inode: stat.inode,
            uid: stat.uid,
            gid: stat.gid,
            allocated: stat.allocated,
        }
    }
}

// `{:ok, map}`: fstat of the file of the map. The file system may ask a server.
#[rustler::nif(schedule = "DirtyIo")]
fn file_info<'a>(env: Env<'a>, handle: HandleRef<'a>) -> Term<'a> {
    match handle.0.region().and_then(|region| Ok(region.stat()?)) {
        Ok(stat) => (atom::ok(), StatMap::from(stat)).encode(env),
        Err(failure) => failure.encode(env),
    }
}

// `{:ok, {from, to}}`: the next range of data, or `:eof` if only holes follow. The file system may read
// its block maps.
#[rustler::nif(schedule = "DirtyIo")]
fn next_data<'a>(env: Env<'a>, handle: HandleRef<'a>, position: u64) -> Term<'a> {
    let found = handle
        .0
        .region()
        .and_then(|region| Ok(region.next_data(position)?));
    match found {
        Ok(Some(stretch)) => (atom::ok(), stretch).encode(env),
        Ok(None) => terms::eof().encode(env),
        Err(failure) => failure.encode(env),
    }
}

/// A duplicate of a map's descriptor; `None` once it is closed.
struct Descriptor(Mutex<Option<File>>);

#[rustler::resource_impl(name = "emmap_descriptor")]
impl Resource for Descriptor {}

/// Keeps the type for the life of the VM: see `resource::keep_types`.
pub fn keep_type() {
    std::mem::forget(ResourceArc::new(Descriptor(Mutex::new(None))));
}

// `{:ok, descriptor, number}`: a duplicate of the map's descriptor. The number is valid until
// `descriptor_close`.
#[rustler::nif(schedule = "DirtyIo")]
fn descriptor_open<'a>(env: Env<'a>, handle: HandleRef<'a>) -> Term<'a> {
    match handle
        .0
        .region()
        .and_then(|region| Ok(region.clone_file()?))
    {
        Ok(file) => {
            let number = file.as_raw_fd();
            let descriptor = ResourceArc::new(Descriptor(Mutex::new(Some(file))));
            (atom::ok(), descriptor, number).encode(env)
        }
        Err(failure) => failure.encode(env),
    }
}

// `:ok`, or `{:error, :closed}` if it is already closed. May be the last use of a deleted file.
#[rustler::nif(schedule = "DirtyIo")]
fn descriptor_close<'a>(env: Env<'a>, descriptor: ResourceArc<Descriptor>) -> Term<'a> {
    let mut file = descriptor.0.lock().unwrap_or_else(PoisonError::into_inner);
    match file.take() {
        Some(_closed) => atom::ok().encode(env),
        None => Failure::Closed.encode(env),
    }
}
