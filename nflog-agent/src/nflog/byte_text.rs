//! Byte strings in serde's formats: lower-case hexadecimal digits in those that people read, bytes in the others. Pure.
//!
//! A log prefix is text in almost every rule. In readable formats it is a string if it is UTF-8, else `{"hex": "…"}`; both
//! forms are read, so that any prefix survives.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

/// A byte string.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

/// A byte string that is mostly text.
pub(super) struct Text<'a>(pub(super) &'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&Hex(self.0))
        } else {
            serializer.serialize_bytes(self.0)
        }
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_bytes(self.0);
        }
        if let Ok(text) = str::from_utf8(self.0) {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("hex", &Bytes(self.0))?;
        map.end()
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Reads a byte string.
pub(super) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    Owned::deserialize(deserializer).map(|owned| owned.0)
}

/// Reads a byte string that may be absent.
pub(super) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    Option::<Owned>::deserialize(deserializer).map(|owned| owned.map(|owned| owned.0))
}

/// Reads a byte string that is mostly text.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(
        untagged,
        expecting = "a string, or an object whose `hex` is hexadecimal digits"
    )]
    enum Form {
        Text(String),
        Bytes { hex: Owned },
    }
    if !deserializer.is_human_readable() {
        return bytes(deserializer);
    }
    Ok(match Form::deserialize(deserializer)? {
        Form::Text(text) => text.into_bytes(),
        Form::Bytes { hex } => hex.0,
    })
}

struct Owned(Vec<u8>);

impl<'de> Deserialize<'de> for Owned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(FromHex)
        } else {
            deserializer.deserialize_byte_buf(FromBytes)
        }
        .map(Self)
    }
}

struct FromHex;

impl Visitor<'_> for FromHex {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an even number of hexadecimal digits")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
        parse(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

fn parse(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks() else {
        return None;
    };
    pairs
        .iter()
        .map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?))
        .collect()
}

struct FromBytes;

impl Visitor<'_> for FromBytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a byte string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_are_read_in_either_case_and_in_pairs_only() {
        assert_eq!(parse("00fF9a"), Some(vec![0, 0xff, 0x9a]));
        assert_eq!(parse(""), Some(vec![]));
        for bad in ["0", "0g", " 00", "+1", "é"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        assert_eq!(Hex(&[0, 0xff, 0x9a]).to_string(), "00ff9a");
    }
}
