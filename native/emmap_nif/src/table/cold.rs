//! The cold NIFs of tables: the whole file.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use emmap_core::store::Error;
use emmap_core::table::check::{Place, Progress};
use emmap_core::table::{self, Memory};
use emmap_core::Errno;
use rustler::types::atom;
use rustler::{Binary, Encoder, Env, NifMap, NifResult, Term};

use super::reasons;
use crate::counters;
use crate::hot::{cold_nif, AT_ONCE_DIRTY};
use crate::resource::{new_structure_with_root, HandleRef, Structure};
use crate::terms::Failure;

cold_nif!(DirtyIo, "table_open" / 1 = table_open(path));
cold_nif!(DirtyIo, "table_reattach" / 1 = table_reattach(handle));

/// The longest live binary that needs no root, as in `Emmap.Handle.alone/0`.
const ALONE: u64 = 4096;

#[derive(NifMap)]
struct Described {
    count: u64,
    term_keys: bool,
    term_values: bool,
    sorted: bool,
    index_size: u64,
    longest_value: u64,
}

// `{:ok, reference, root | nil, description}`. Reads the header.
fn table_open<'a>(env: Env<'a>, path: Binary<'a>) -> Term<'a> {
    if path.as_slice().contains(&0) {
        return Failure::from(Errno::INVAL).encode(env);
    }
    let path = Path::new(OsStr::from_bytes(path.as_slice()));
    match table::open(path) {
        Ok((region, layout)) => {
            let described = Described {
                count: layout.count,
                term_keys: layout.flags.term_keys,
                term_values: layout.flags.term_values,
                sorted: layout.flags.sorted,
                index_size: layout.checksums - layout.marks,
                longest_value: layout.longest_value,
            };
            let direct = layout.longest_value > ALONE && !layout.flags.term_values;
            let structure = Structure::Table(Box::new(layout));
            let handle = new_structure_with_root(env, region, direct, structure);
            (atom::ok(), handle.reference, handle.root, described).encode(env)
        }
        Err(error) => why_not_open(env, error),
    }
}

fn why_not_open<'a>(env: Env<'a>, error: Error) -> Term<'a> {
    match error {
        Error::Posix(error) => Failure::from(error).encode(env),
        Error::BadFormat(bad) => {
            (atom::error(), (reasons::bad_format(), counters::why(bad))).encode(env)
        }
        Error::Mismatch(never) => match never {},
    }
}

// Reads the header, and maps the file again.
fn table_reattach<'a>(env: Env<'a>, handle: HandleRef<'a>) -> NifResult<Term<'a>> {
    let layout = handle.0.table()?;
    let region = match handle.0.region() {
        Ok(region) => region,
        Err(closed) => return Ok(closed.encode(env)),
    };
    Ok(match table::reattach(region, layout) {
        Ok(()) => atom::ok().encode(env),
        Err(error) => why_not_open(env, error),
    })
}

/// Where a check continues, as a term.
type PlaceTerm = (u64, u64, u64, u64, u64);

// `:ok | {:error, {:corrupt, position} | reason}`, or a place to continue at. Reads for some milliseconds.
#[rustler::nif(schedule = "DirtyIo")]
fn table_check<'a>(
    env: Env<'a>,
    handle: HandleRef<'a>,
    (block, record, before, count, mark): PlaceTerm,
) -> NifResult<Term<'a>> {
    let layout = handle.0.table()?;
    let region = match handle.0.region() {
        Ok(region) => region,
        Err(closed) => return Ok(closed.encode(env)),
    };
    let place = Place {
        block,
        record,
        before,
        count,
        mark,
    };
    let until = Instant::now() + AT_ONCE_DIRTY;
    let checked = region.reading(|| Ok::<_, Errno>(layout.check(Memory::of(region), place, until)));
    Ok(match checked {
        Ok(Progress::Intact) => atom::ok().encode(env),
        Ok(Progress::Corrupt(at)) => (atom::error(), (reasons::corrupt(), at)).encode(env),
        Ok(Progress::Paused(place)) => {
            let place: PlaceTerm = (
                place.block,
                place.record,
                place.before,
                place.count,
                place.mark,
            );
            place.encode(env)
        }
        Err(error) => Failure::from(error).encode(env),
    })
}
