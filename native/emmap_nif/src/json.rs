//! JSON as terms: the headers of tensor files, and the indexes of models in several files.
//!
//! | JSON | term |
//! | --- | --- |
//! | object | `{:object, [{key, value}]}`, in order, with every key that occurs twice |
//! | array | list |
//! | string | binary |
//! | number | integer of 64 bits, or float |
//! | `true`, `false`, `null` | the atom, `nil` |

use std::fmt;

use emmap_core::interrupt;
use rustler::{Binary, Encoder, Env, Term};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::interrupting::interruptible;

mod atom {
    rustler::atoms! { ok, error, object, ebadmsg }
}

// `bytes` must not be live. Dirty: a header may have 100 MB.
#[rustler::nif(schedule = "DirtyCpu")]
fn json<'a>(env: Env<'a>, bytes: Binary<'a>) -> Term<'a> {
    interruptible(env, || {
        let mut text = serde_json::Deserializer::from_slice(bytes.as_slice());
        let value = Value(env).deserialize(&mut text);
        match value.and_then(|value| text.end().map(|()| value)) {
            Ok(value) => (atom::ok(), value).encode(env),
            Err(_) => (atom::error(), atom::ebadmsg()).encode(env),
        }
    })
}

#[derive(Clone, Copy)]
struct Value<'a>(Env<'a>);

impl<'de, 'a> DeserializeSeed<'de> for Value<'a> {
    type Value = Term<'a>;

    fn deserialize<D: Deserializer<'de>>(self, text: D) -> Result<Term<'a>, D::Error> {
        text.deserialize_any(self)
    }
}

impl<'de, 'a> Visitor<'de> for Value<'a> {
    type Value = Term<'a>;

    fn expecting(&self, text: &mut fmt::Formatter) -> fmt::Result {
        text.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Term<'a>, E> {
        Ok(value.encode(self.0))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Term<'a>, E> {
        Ok(value.encode(self.0))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Term<'a>, E> {
        Ok(value.encode(self.0))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Term<'a>, E> {
        Ok(value.encode(self.0))
    }

    fn visit_str<E>(self, value: &str) -> Result<Term<'a>, E> {
        Ok(value.encode(self.0))
    }

    fn visit_unit<E>(self) -> Result<Term<'a>, E> {
        Ok(rustler::types::atom::nil().encode(self.0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Term<'a>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = array.next_element_seed(self)? {
            still_needed()?;
            values.push(value);
        }
        Ok(values.encode(self.0))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Term<'a>, A::Error> {
        let mut pairs = Vec::new();
        while let Some(key) = object.next_key_seed(self)? {
            still_needed()?;
            pairs.push((key, object.next_value_seed(self)?));
        }
        Ok((atom::object(), pairs).encode(self.0))
    }
}

fn still_needed<E: Error>() -> Result<(), E> {
    interrupt::check().map_err(|_| E::custom("the process was killed"))
}
