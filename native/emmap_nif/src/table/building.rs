//! The NIFs that build a table. Each works for some milliseconds and is called again; only the last step, which waits until the
//! file is on the disk, takes as long as that does.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use emmap_core::table::build::files::RealFiles;
use emmap_core::table::build::{Added, Builder, Duplicates, Error, Options, Phase};
use emmap_core::table::Flags;
use emmap_core::Errno;
use rustler::types::atom;
use rustler::{
    Atom, Binary, Encoder, Env, NewBinary, NifMap, NifResult, Resource, ResourceArc, Term,
};

use super::reasons;
use crate::interrupting::interruptible;
use crate::resource::drop_elsewhere;
use crate::terms::Failure;

/// How long a step takes. Shorter ones would mostly wait for a thread.
const STEP: Duration = Duration::from_millis(5);

/// A table that is being built; `None` after that.
struct Building(Mutex<Option<Builder<RealFiles>>>);

#[rustler::resource_impl(name = "emmap_building")]
impl Resource for Building {}

impl Building {
    fn lock(&self) -> MutexGuard<'_, Option<Builder<RealFiles>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        // The process that built it was killed. Files are released.
        if let Some(builder) = self.lock().take() {
            drop_elsewhere(builder, true);
        }
    }
}

/// Keeps the type for the life of the VM: see `resource::keep_types`.
pub fn keep_type() {
    std::mem::forget(ResourceArc::new(Building(Mutex::new(None))));
}

/// The options of `Emmap.Table.build/3`, which has checked them.
#[derive(NifMap)]
struct Wanted {
    term_keys: bool,
    term_values: bool,
    sorted: bool,
    duplicates: Atom,
    seed: u64,
    memory: usize,
    replace: bool,
}

// Creates the new file.
#[rustler::nif(schedule = "DirtyIo")]
fn table_build<'a>(env: Env<'a>, path: Binary<'a>, wanted: Wanted) -> Term<'a> {
    if path.as_slice().contains(&0) {
        return Failure::from(Errno::INVAL).encode(env);
    }
    let path = Path::new(OsStr::from_bytes(path.as_slice()));
    let options = Options {
        flags: Flags {
            term_keys: wanted.term_keys,
            term_values: wanted.term_values,
            sorted: wanted.sorted,
        },
        seed: wanted.seed,
        duplicates: match wanted.duplicates {
            policy if policy == reasons::last() => Duplicates::Last,
            policy if policy == reasons::first() => Duplicates::First,
            _ => Duplicates::Refused,
        },
        memory: wanted.memory,
    };
    match RealFiles::create(path, wanted.replace) {
        Ok(files) => {
            let builder = Builder::new(options, files);
            let building = ResourceArc::new(Building(Mutex::new(Some(builder))));
            (atom::ok(), building).encode(env)
        }
        Err(error) => Failure::from(error).encode(env),
    }
}

fn failed<'a>(env: Env<'a>, error: Error) -> Term<'a> {
    match error {
        Error::Posix(error) => Failure::from(error).encode(env),
        Error::Collisions => (atom::error(), reasons::collisions()).encode(env),
        Error::Duplicate(key) => {
            let mut binary = NewBinary::new(env, key.len());
            binary.as_mut_slice().copy_from_slice(&key);
            let key: Term = binary.into();
            (atom::error(), (reasons::duplicate(), key)).encode(env)
        }
    }
}

// Adds the records of a list of a key, its value, the next key, its value, and so on. Returns the rest of the list, which is
// not empty if there is no more room before table_advance. Copies at most what the list has.
#[rustler::nif(schedule = "DirtyIo")]
fn table_add<'a>(
    env: Env<'a>,
    building: ResourceArc<Building>,
    records: Term<'a>,
) -> NifResult<Term<'a>> {
    let mut building = building.lock();
    let Some(builder) = building.as_mut() else {
        return Ok(Failure::Closed.encode(env));
    };
    interruptible(env, || {
        let mut rest = records;
        while !rest.is_empty_list() {
            let (key, values) = rest.list_get_cell()?;
            let (value, next) = values.list_get_cell()?;
            let part = |binary: &Binary<'a>| (binary.as_ptr(), binary.len());
            let (key, value) = (key.decode::<Binary>()?, value.decode::<Binary>()?);
            // SAFETY: binaries of an argument, alive until the call ends.
            match unsafe { builder.add(part(&key), part(&value)) } {
                Ok(Added::Done) => rest = next,
                Ok(Added::Full) => break,
                Err(error) => return Ok(failed(env, error)),
            }
        }
        Ok(rest)
    })
}

// Goes on: `{phase, done, total}`, or `{:ok, {count, duplicates, size}}` once the table has its name. With `last`, all
// records were added.
#[rustler::nif(schedule = "DirtyIo")]
fn table_advance<'a>(env: Env<'a>, building: ResourceArc<Building>, last: bool) -> Term<'a> {
    let mut building = building.lock();
    let Some(builder) = building.as_mut() else {
        return Failure::Closed.encode(env);
    };
    if last {
        builder.finish();
    }
    let progress = interruptible(env, || builder.advance(Instant::now() + STEP));
    match (progress, builder.built()) {
        (Err(error), _) => failed(env, error),
        (Ok(_), Some(built)) => {
            let built = (built.count, built.duplicates, built.size);
            (atom::ok(), built).encode(env)
        }
        (Ok(progress), None) => {
            let phase = match progress.phase {
                Phase::Adding => reasons::adding(),
                Phase::Sorting => reasons::sorting(),
                Phase::Merging => reasons::merging(),
                Phase::Indexing => reasons::indexing(),
                Phase::Publishing => reasons::publishing(),
                Phase::Done => reasons::done(),
            };
            (phase, progress.done, progress.total).encode(env)
        }
    }
}

// Releases memory and files. What has no name yet is gone.
#[rustler::nif(schedule = "DirtyIo")]
fn table_end<'a>(env: Env<'a>, building: ResourceArc<Building>) -> Term<'a> {
    drop(building.lock().take());
    atom::ok().encode(env)
}
