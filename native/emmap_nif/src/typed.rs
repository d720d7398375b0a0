//! The hot NIFs on numbers of any type and place, and on ranges of bytes within a map.

use emmap_core::region::{Read, Source};
use emmap_core::typed::{Kind, Number, Type, MOST};
use emmap_core::Region;
use rustler::sys::ErlNifTerm;

use crate::hot::{hot_nif, Call, Early, Scheduler};
use crate::io::change::change;
use crate::terms::{self, ArgumentError};

hot_nif!("typed_get" / 3 = get, DirtyIo);
hot_nif!("get_u64" / 2 = get_u64, DirtyIo);
hot_nif!("get_i64" / 2 = get_i64, DirtyIo);
hot_nif!("get_f64" / 2 = get_f64, DirtyIo);
hot_nif!("typed_put" / 4 = put, DirtyIo);
hot_nif!("fill" / 4 = fill, DirtyIo);
hot_nif!("copy" / 4 = copy, DirtyIo);

#[inline(always)]
fn number_type(call: &Call) -> Result<Type, Early> {
    const WRONG: ArgumentError = ArgumentError("unknown type of a number", 0);
    let code = call.int64(2);
    code.and_then(Type::of_code).ok_or(Early::Raise(&WRONG))
}

// typed_get(handle, position, type)
#[inline(always)]
fn get<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let region = call.handle()?.region()?;
    let position = call.position(1)?;
    let of = number_type(call)?;
    region.reading(|| read::<S>(call, region, position, of))
}

#[inline(always)]
fn read<S: Scheduler>(
    call: &Call,
    region: &Region,
    position: u64,
    of: Type,
) -> Result<ErlNifTerm, Early> {
    let Some((start, count)) = region.locate(position, of.size()) else {
        return Ok(call.eof());
    };
    let mut bytes = [0; MOST];
    // SAFETY: `count` is at most the size of a number, for which there is room.
    match unsafe { region.copy_out(start, count, bytes.as_mut_ptr(), S::WAIT) } {
        Read::Busy => Err(Early::Again),
        Read::Done(got) if got < of.size() => Ok(call.eof()),
        Read::Done(_) => Ok(number(call, of.decode(bytes))),
    }
}

// get_u64(handle, position): as typed_get, of a type that is known where the library is compiled.
#[inline(always)]
fn get_u64<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    get_word::<S>(call, Type::U64)
}

#[inline(always)]
fn get_i64<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    get_word::<S>(call, Type::I64)
}

#[inline(always)]
fn get_f64<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    get_word::<S>(call, Type::F64)
}

/// A number of eight bytes.
#[inline(always)]
fn get_word<S: Scheduler>(call: &Call, of: Type) -> Result<ErlNifTerm, Early> {
    let region = call.handle()?.region()?;
    let position = call.position(1)?;
    region.reading(|| match region.read_word(position) {
        Some(bytes) => Ok(number(call, of.decode(bytes))),
        None => read_again::<S>(*call, region, position, of),
    })
}

#[cold]
#[inline(never)]
fn read_again<S: Scheduler>(
    call: Call,
    region: &Region,
    position: u64,
    of: Type,
) -> Result<ErlNifTerm, Early> {
    read::<S>(&call, region, position, of)
}

#[inline(always)]
pub fn number(call: &Call, number: Number) -> ErlNifTerm {
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
#[inline(always)]
fn put<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let region = call.handle()?.region()?;
    let position = call.position(1)?;
    let of = number_type(call)?;
    let bytes = value(call, of).ok_or_else(|| Early::Raise(out_of_range(of)))?;
    let count = of.size();
    let write = move || region.put_number(position, bytes, count, S::WAIT);
    let past_end = move || put_past_end(region, position, bytes, count);
    change::<S>(call, region, position, count, write, past_end)
}

/// (Takes the bytes as they are: where their address is taken, they are in memory, and not in a register.)
#[cold]
#[inline(never)]
fn put_past_end(
    region: &Region,
    position: u64,
    bytes: [u8; MOST],
    count: usize,
) -> emmap_core::Result<bool> {
    let source = Source::Bytes(bytes.as_ptr());
    // SAFETY: a number has at most as many bytes as there are.
    unsafe { region.write_past_end(position, source, count, || true) }
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
        return Some(f64::NAN);
    }
    infinite(term)
}

/// An infinity as its atom.
pub fn infinite(term: ErlNifTerm) -> Option<f64> {
    if term == terms::infinity().as_c_arg() {
        Some(f64::INFINITY)
    } else if term == terms::neg_infinity().as_c_arg() {
        Some(f64::NEG_INFINITY)
    } else {
        None
    }
}

fn out_of_range(of: Type) -> &'static ArgumentError {
    match (of.kind(), of.size()) {
        (Kind::Unsigned, 1) => &ArgumentError("a u8 is an integer from 0 to 255", 3),
        (Kind::Signed, 1) => &ArgumentError("an i8 is an integer from -128 to 127", 3),
        (Kind::Unsigned, 2) => &ArgumentError("a u16 is an integer from 0 to 65535", 3),
        (Kind::Signed, 2) => &ArgumentError("an i16 is an integer from -32768 to 32767", 3),
        (Kind::Unsigned, 4) => &ArgumentError("a u32 is an integer from 0 to 4294967295", 3),
        (Kind::Signed, 4) => &ArgumentError("an i32 is an integer from -2147483648 to 2147483647", 3),
        (Kind::Unsigned, _) => &ArgumentError("a u64 is an integer from 0 to 18446744073709551615", 3),
        (Kind::Signed, _) => {
            &ArgumentError("an i64 is an integer from -9223372036854775808 to 9223372036854775807", 3)
        }
        (Kind::Float, 4) => {
            &ArgumentError("an f32 is a number from -3.4028234663852886e38 to 3.4028234663852886e38, :nan, :infinity or :neg_infinity", 3)
        }
        (Kind::Float, _) => {
            &ArgumentError("an f64 is a number from -1.7976931348623157e308 to 1.7976931348623157e308, :nan, :infinity or :neg_infinity", 3)
        }
    }
}

// fill(handle, position, count, byte)
fn fill<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    const WRONG: ArgumentError = ArgumentError("the byte must be an integer from 0 to 255", 3);
    let region = call.handle()?.region()?;
    let position = call.position(1)?;
    let count = call.count(2)?;
    let byte = call.int64(3).and_then(|byte| u8::try_from(byte).ok());
    let byte = byte.ok_or(Early::Raise(&WRONG))?;
    let write = move || region.fill(position, count, byte, S::WAIT);
    let source = Source::Fill(byte);
    // SAFETY: no bytes are pointed to.
    let past_end = move || unsafe { region.write_past_end(position, source, count, || true) };
    change::<S>(call, region, position, count, write, past_end)
}

// copy(handle, from, to, count)
fn copy<S: Scheduler>(call: &Call) -> Result<ErlNifTerm, Early> {
    let region = call.handle()?.region()?;
    let (from, to) = (call.position(1)?, call.position(2)?);
    let count = call.count(3)?;
    let write = move || region.copy_within(from, to, count, S::WAIT);
    let past_end = move || region.copy_past_end(from, to, count);
    change::<S>(call, region, to, count, write, past_end)
}
