//! Atoms, error tuples, and the only exception that is raised.

use emmap_core::Errno;
use rustler::types::atom::{self, Atom};
use rustler::{Encoder, Env, Error, Term};

use crate::errno;
use crate::waiting::Kind;

rustler::atoms! {
    eof,
    closed,
    nil,
    nomatch,
    nan,
    infinity,
    neg_infinity,
    struct_key = "__struct__",
    exception_key = "__exception__",
    message,
    argument_error = "Elixir.ArgumentError",
}

/// `ok | {:error, reason}`.
pub fn answer<'a>(env: Env<'a>, result: Result<(), Failure>) -> Term<'a> {
    match result {
        Ok(()) => atom::ok().encode(env),
        Err(failure) => failure.encode(env),
    }
}

/// Why a call failed: encoded as `{:error, reason}`, or as `{:wait, kind}` if it has to wait first.
pub enum Failure {
    Closed,
    Posix(Errno),
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Failure {
        Failure::Posix(error)
    }
}

impl Encoder for Failure {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        if let Failure::Posix(error) = self {
            if let Some(kind) = Kind::of(*error) {
                return kind.encode(env);
            }
        }
        let reason = match self {
            Failure::Closed => closed().encode(env),
            Failure::Posix(error) => self::reason(env, *error).encode(env),
        };
        (atom::error(), reason).encode(env)
    }
}

/// The name of an error, as it appears in `{:error, reason}`.
pub fn reason(env: Env, error: Errno) -> Atom {
    let name = errno::name(error.0);
    Atom::from_str(env, name).unwrap_or_else(|_| atom::error())
}

/// An Elixir `ArgumentError` with this message, and the index of the argument of the NIF that it shows; 0 is the handle,
/// which is not shown.
pub struct ArgumentError(pub &'static str, pub usize);

/// One for each argument that may be invalid.
pub const fn of_each(text: &'static str) -> [ArgumentError; 6] {
    [
        ArgumentError(text, 0),
        ArgumentError(text, 1),
        ArgumentError(text, 2),
        ArgumentError(text, 3),
        ArgumentError(text, 4),
        ArgumentError(text, 5),
    ]
}

impl ArgumentError {
    /// With the argument. (Terms are printed in Erlang syntax.)
    pub fn showing<'a>(&self, env: Env<'a>, argument: Term<'a>) -> Term<'a> {
        const MOST: usize = 100;
        let mut shown = format!("{argument:?}");
        if let Some((end, _)) = shown.char_indices().nth(MOST) {
            shown.truncate(end);
            shown.push('…');
        }
        exception(env, &format!("{}, got {shown}", self.0))
    }
}

fn exception<'a>(env: Env<'a>, text: &str) -> Term<'a> {
    rustler::term_map!(env, {
        struct_key() => argument_error(),
        exception_key() => true,
        message() => text,
    })
}

pub static NOT_A_HANDLE: ArgumentError = ArgumentError(
    "not an open Emmap handle of this node and of this load of the library",
    0,
);

impl Encoder for ArgumentError {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        exception(env, self.0)
    }
}

impl From<&'static ArgumentError> for Error {
    fn from(error: &'static ArgumentError) -> Error {
        Error::RaiseTerm(Box::new(error))
    }
}
