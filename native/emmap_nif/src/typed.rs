//! The hot NIFs on numbers of any type and place, and on ranges of bytes within a map.

use emmap_core::region::{Read, Source, Wait, Written};
use emmap_core::typed::{Kind, Number, Type, MOST};
use rustler::sys::ErlNifTerm;

use crate::hot::{either, hot_nif, raw_nif, Call, Early, RawNif};
use crate::io::change::Change;
use crate::io::copy::{at_end, checked};
use crate::terms::{self, ArgumentError};

hot_nif!("typed_get" / 3 = get);
hot_nif!("typed_put" / 4 = put);
hot_nif!("fill" / 4 = fill);
hot_nif!("copy" / 4 = copy);

#[inline(always)]
fn number_type(call: &Call) -> Result<Type, Early> {
    const WRONG: ArgumentError = ArgumentError("unknown type of a number");
    let code = call.int64(2);
    match code.and_then(Type::of_code) {
        Some(found) => Ok(found),
        None => Err(call.raise(&WRONG)),
    }
}

// typed_get(handle, position, type)

fn get(call: &Call) -> ErlNifTerm {
    either(get_with(call, Wait::No))
}

#[cold]
fn get_waiting(call: &Call) -> ErlNifTerm {
    either(get_with(call, Wait::Yes))
}

#[inline(always)]
fn get_with(call: &Call, wait: Wait) -> Result<ErlNifTerm, Early> {
    let region = call.region(call.handle()?)?;
    let position = call.position(1)?;
    let of = number_type(call)?;
    let Some((start, count)) = region.locate(position, of.size()) else {
        return at_end(call, region);
    };
    let mark = region.mark();
    let mut bytes = [0; MOST];
    // SAFETY: `count` is at most the size of a number, for which there is room.
    match unsafe { region.copy_out(start, count, bytes.as_mut_ptr(), wait) } {
        Read::Busy => Ok(call.reschedule(c"typed_get", raw_nif!(get_waiting))),
        Read::Done(got) if got < of.size() => at_end(call, region),
        Read::Done(_) => checked(call, region, mark, number(call, of.decode(bytes))),
    }
}

#[inline(always)]
fn number(call: &Call, number: Number) -> ErlNifTerm {
    match number {
        Number::Unsigned(value) => call.uint64(value),
        Number::Signed(value) => call.sint64(value),
        Number::Float(value) if value.is_finite() => call.float(value),
        Number::Float(value) if value.is_nan() => terms::nan().as_c_arg(),
        Number::Float(value) if value > 0.0 => terms::infinity().as_c_arg(),
        Number::Float(_) => terms::neg_infinity().as_c_arg(),
    }
}

// typed_put(handle, position, type, value)

fn put(call: &Call) -> ErlNifTerm {
    either(put_with(call, Wait::No))
}

#[cold]
fn put_waiting(call: &Call) -> ErlNifTerm {
    either(put_with(call, Wait::Yes))
}

#[inline(always)]
fn put_with(call: &Call, wait: Wait) -> Result<ErlNifTerm, Early> {
    let region = call.region(call.handle()?)?;
    let position = call.position(1)?;
    let of = number_type(call)?;
    let bytes = value(call, of).ok_or_else(|| call.raise(&out_of_range(of)))?;
    let count = of.size();
    let again = (c"typed_put", raw_nif!(put_waiting) as RawNif);
    let change = Change::begin(call, region, position, count, wait, again)?;
    loop {
        let written = region.put_number(position, bytes, count, wait);
        if let Ok(Written::Done) = written {
            return change.done();
        }
        // SAFETY: a number has at most as many bytes as there are.
        if unsafe { change.grow(written, Source::Bytes(bytes.as_ptr())) }? {
            return Ok(call.ok());
        }
    }
}

/// The bytes of the number in argument 3, if the type has it.
#[inline(always)]
fn value(call: &Call, of: Type) -> Option<[u8; MOST]> {
    if of.kind() == Kind::Float {
        return of.encode_float(float(call)?);
    }
    match call.int64(3) {
        Some(value) => of.encode_i64(value),
        None => of.encode_u64(call.uint64_argument(3)?),
    }
}

fn float(call: &Call) -> Option<f64> {
    if let Some(value) = call.double(3) {
        return Some(value);
    }
    let term = call.argument(3);
    if term == terms::nan().as_c_arg() {
        Some(f64::NAN)
    } else if term == terms::infinity().as_c_arg() {
        Some(f64::INFINITY)
    } else if term == terms::neg_infinity().as_c_arg() {
        Some(f64::NEG_INFINITY)
    } else {
        None
    }
}

fn out_of_range(of: Type) -> ArgumentError {
    ArgumentError(match (of.kind(), of.size()) {
        (Kind::Unsigned, 1) => "a u8 is an integer from 0 to 255",
        (Kind::Signed, 1) => "an i8 is an integer from -128 to 127",
        (Kind::Unsigned, 2) => "a u16 is an integer from 0 to 65535",
        (Kind::Signed, 2) => "an i16 is an integer from -32768 to 32767",
        (Kind::Unsigned, 4) => "a u32 is an integer from 0 to 4294967295",
        (Kind::Signed, 4) => "an i32 is an integer from -2147483648 to 2147483647",
        (Kind::Unsigned, _) => "a u64 is an integer from 0 to 18446744073709551615",
        (Kind::Signed, _) => {
            "an i64 is an integer from -9223372036854775808 to 9223372036854775807"
        }
        (Kind::Float, 4) => {
            "an f32 is a number from -3.4028234663852886e38 to 3.4028234663852886e38, :nan, :infinity or :neg_infinity"
        }
        (Kind::Float, _) => {
            "an f64 is a number from -1.7976931348623157e308 to 1.7976931348623157e308, :nan, :infinity or :neg_infinity"
        }
    })
}

// fill(handle, position, count, byte)

fn fill(call: &Call) -> ErlNifTerm {
    either(fill_with(call, Wait::No))
}

#[cold]
fn fill_waiting(call: &Call) -> ErlNifTerm {
    either(fill_with(call, Wait::Yes))
}

fn fill_with(call: &Call, wait: Wait) -> Result<ErlNifTerm, Early> {
    const WRONG: ArgumentError = ArgumentError("the byte must be an integer from 0 to 255");
    let region = call.region(call.handle()?)?;
    let position = call.position(1)?;
    let count = call.count(2)?;
    let byte = call.int64(3).and_then(|byte| u8::try_from(byte).ok());
    let byte = byte.ok_or_else(|| call.raise(&WRONG))?;
    let again = (c"fill", raw_nif!(fill_waiting) as RawNif);
    let change = Change::begin(call, region, position, count, wait, again)?;
    loop {
        let written = region.fill(position, count, byte, wait);
        if let Ok(Written::Done) = written {
            return change.done();
        }
        // SAFETY: no bytes are pointed to.
        if unsafe { change.grow(written, Source::Fill(byte)) }? {
            return Ok(call.ok());
        }
    }
}

// copy(handle, from, to, count)

fn copy(call: &Call) -> ErlNifTerm {
    either(copy_with(call, Wait::No))
}

#[cold]
fn copy_waiting(call: &Call) -> ErlNifTerm {
    either(copy_with(call, Wait::Yes))
}

fn copy_with(call: &Call, wait: Wait) -> Result<ErlNifTerm, Early> {
    let region = call.region(call.handle()?)?;
    let (from, to) = (call.position(1)?, call.position(2)?);
    let count = call.count(3)?;
    let again = (c"copy", raw_nif!(copy_waiting) as RawNif);
    let change = Change::begin(call, region, to, count, wait, again)?;
    loop {
        let written = region.copy_within(from, to, count, wait);
        if let Ok(Written::Done) = written {
            return change.done();
        }
        change.not_done(written)?;
        let grown = region.copy_past_end(from, to, count);
        if grown.map_err(|error| call.error(error))? {
            return Ok(call.ok());
        }
    }
}
