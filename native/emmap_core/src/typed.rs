//! Numbers in memory: integers and floats of one to eight bytes, in either byte order,
//! at any alignment.

/// A number's size, whether it has a sign or a fraction, and its byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type {
    kind: Kind,
    size: usize,
    big: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Unsigned,
    Signed,
    Float,
}

/// A number that was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Unsigned(u64),
    Signed(i64),
    /// Any value, including NaN and the infinities.
    Float(f64),
}

/// The largest size of a number in bytes.
pub const MOST: usize = 8;

impl Type {
    /// Unsigned, eight bytes, in the byte order of this machine.
    pub const U64: Type = Type::native(Kind::Unsigned, MOST);
    pub const I64: Type = Type::native(Kind::Signed, MOST);
    pub const F64: Type = Type::native(Kind::Float, MOST);

    const fn native(kind: Kind, size: usize) -> Type {
        let big = cfg!(target_endian = "big");
        Type { kind, size, big }
    }

    /// `code` is the index of the name in `u8 i8 u16 i16 u32 i32 u64 i64 f32 f64`, plus 0 for the byte
    /// order of this machine, 16 for little and 32 for big endian.
    #[inline(always)]
    pub fn of_code(code: i64) -> Option<Type> {
        let (kind, size) = match code & 15 {
            0 => (Kind::Unsigned, 1),
            1 => (Kind::Signed, 1),
            2 => (Kind::Unsigned, 2),
            3 => (Kind::Signed, 2),
            4 => (Kind::Unsigned, 4),
            5 => (Kind::Signed, 4),
            6 => (Kind::Unsigned, 8),
            7 => (Kind::Signed, 8),
            8 => (Kind::Float, 4),
            9 => (Kind::Float, 8),
            _ => return None,
        };
        let big = match code >> 4 {
            0 => cfg!(target_endian = "big"),
            1 => false,
            2 => true,
            _ => return None,
        };
        Some(Type { kind, size, big })
    }

    pub fn kind(self) -> Kind {
        self.kind
    }

    /// Whether its byte order is not that of this machine.
    pub fn is_swapped(self) -> bool {
        self.big != cfg!(target_endian = "big") && self.size > 1
    }

    /// In bytes.
    #[inline]
    pub fn size(self) -> usize {
        self.size
    }

    /// The values of an integer of this type; for a float, the integers that it can represent exactly.
    pub fn integers(self) -> std::ops::RangeInclusive<i128> {
        let bits = 8 * self.size as u32;
        match self.kind {
            Kind::Unsigned => 0..=(1 << bits) - 1,
            _ => -(1 << (bits - 1))..=(1 << (bits - 1)) - 1,
        }
    }

    /// The number in the first bytes of `bytes`.
    #[inline(always)]
    pub fn decode(self, bytes: [u8; MOST]) -> Number {
        let unused = 64 - 8 * self.size as u32;
        // Shifted to the top, so that the bytes after the number are removed.
        let high = match self.big {
            true => u64::from_be_bytes(bytes) >> unused << unused,
            false => u64::from_le_bytes(bytes) << unused,
        };
        match (self.kind, self.size) {
            (Kind::Unsigned, _) => Number::Unsigned(high >> unused),
            (Kind::Signed, _) => Number::Signed(high as i64 >> unused),
            (Kind::Float, 4) => Number::Float(f64::from(f32::from_bits((high >> unused) as u32))),
            (Kind::Float, _) => Number::Float(f64::from_bits(high)),
        }
    }

    /// The bytes of an integer; `None` if it is out of range, or the type is a float type.
    #[inline]
    pub fn encode_integer(self, value: i128) -> Option<[u8; MOST]> {
        match (i64::try_from(value), u64::try_from(value)) {
            (Ok(value), _) => self.encode_i64(value),
            (_, Ok(value)) => self.encode_u64(value),
            _ => None,
        }
    }

    /// As [`Type::encode_integer`], without 128-bit arithmetic.
    #[inline(always)]
    pub fn encode_i64(self, value: i64) -> Option<[u8; MOST]> {
        let unused = 64 - 8 * self.size as u32;
        let fits = match self.kind {
            // With 64 bits, nothing is dropped at the top, not even the sign.
            Kind::Unsigned => value >= 0 && value as u64 <= u64::MAX >> unused,
            Kind::Signed => value << unused >> unused == value,
            Kind::Float => false,
        };
        fits.then(|| self.bytes(value as u64))
    }

    /// As [`Type::encode_i64`].
    #[inline]
    pub fn encode_u64(self, value: u64) -> Option<[u8; MOST]> {
        match i64::try_from(value) {
            Ok(value) => self.encode_i64(value),
            // Only one type has these values.
            Err(_) => (self.kind == Kind::Unsigned && self.size == MOST).then(|| self.bytes(value)),
        }
    }

    /// The bytes of a float; `None` if a finite value is out of range, or the type is an integer
    /// type.
    #[inline]
    pub fn encode_float(self, value: f64) -> Option<[u8; MOST]> {
        match (self.kind, self.size) {
            (Kind::Float, 4) => {
                let narrow = value as f32;
                let fits = narrow.is_finite() || !value.is_finite();
                fits.then(|| self.bytes(u64::from(narrow.to_bits())))
            }
            (Kind::Float, _) => Some(self.bytes(value.to_bits())),
            _ => None,
        }
    }

    #[inline(always)]
    fn bytes(self, value: u64) -> [u8; MOST] {
        match self.big {
            true => (value << (64 - 8 * self.size as u32)).to_be_bytes(),
            false => value.to_le_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn codes() -> impl Strategy<Value = i64> {
        (0i64..10, 0i64..3).prop_map(|(place, order)| place + 16 * order)
    }

    #[test]
    fn what_is_no_code() {
        for wrong in [-1, 10, 15, 26, 42, 48, i64::MIN, i64::MAX] {
            assert_eq!(Type::of_code(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn known_bytes() {
        let [native, little, big] = [5, 16 + 5, 32 + 5].map(|code| Type::of_code(code).unwrap());
        assert_eq!(native.encode_integer(7).unwrap()[..4], 7i32.to_ne_bytes());
        assert_eq!(
            little.encode_integer(-2).unwrap()[..4],
            [0xFE, 0xFF, 0xFF, 0xFF]
        );
        assert_eq!(big.encode_integer(1).unwrap()[..4], [0, 0, 0, 1]);
        let float = Type::of_code(32 + 8).unwrap();
        assert_eq!(float.encode_float(1.5).unwrap()[..4], [0x3F, 0xC0, 0, 0]);
        assert_eq!(float.encode_float(3.5e38), None);
        assert!(float.encode_float(f64::INFINITY).is_some());
    }

    proptest! {
        #[test]
        fn integers_come_back_and_others_are_refused(code in codes(), value: i64, near in -2i128..3) {
            let of = Type::of_code(code).unwrap();
            let (least, most) = (*of.integers().start(), *of.integers().end());
            for value in [i128::from(value), least + near, most + near] {
                match of.encode_integer(value) {
                    None => prop_assert!(of.kind == Kind::Float || !(least..=most).contains(&value)),
                    Some(bytes) => match of.decode(bytes) {
                        Number::Unsigned(back) => prop_assert_eq!(i128::from(back), value),
                        Number::Signed(back) => prop_assert_eq!(i128::from(back), value),
                        Number::Float(_) => prop_assert!(false),
                    },
                }
            }
        }

        #[test]
        fn what_lies_behind_is_not_looked_at(code in codes(), bytes: [u8; 8], other: [u8; 8]) {
            let of = Type::of_code(code).unwrap();
            let mut mixed = other;
            mixed[..of.size].copy_from_slice(&bytes[..of.size]);
            let same = match (of.decode(bytes), of.decode(mixed)) {
                (Number::Float(one), Number::Float(two)) => one.to_bits() == two.to_bits(),
                (one, two) => one == two,
            };
            prop_assert!(same);
        }

        #[test]
        fn floats_come_back(value: f64, narrow: f32) {
            for (code, value) in [(8, f64::from(narrow)), (32 + 8, f64::from(narrow)), (16 + 9, value), (32 + 9, value)] {
                let of = Type::of_code(code).unwrap();
                match of.decode(of.encode_float(value).unwrap()) {
                    Number::Float(back) => prop_assert!(back == value || (back.is_nan() && value.is_nan())),
                    _ => prop_assert!(false),
                }
            }
        }
    }
}
