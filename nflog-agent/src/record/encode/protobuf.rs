//! Protobuf wire format, writing only. Tags are single bytes: the OTLP log messages have no field above 15.

use crate::record::semconv::{Head, Key};

/// Wire type 2 (length-delimited) of a field.
pub(super) const fn delimited(field: u8) -> u8 {
    assert!(field < 16, "the tag must fit one byte");
    field << 3 | 2
}

/// Wire type 0 (varint) of a field.
pub(super) const fn varint_tag(field: u8) -> u8 {
    assert!(field < 16, "the tag must fit one byte");
    field << 3
}

/// Wire type 1 (64 bits) of a field.
pub(super) const fn fixed64_tag(field: u8) -> u8 {
    assert!(field < 16, "the tag must fit one byte");
    field << 3 | 1
}

/// Bytes that [`varint`] writes.
pub(super) const fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

pub(super) fn varint(out: &mut Vec<u8>, value: u64) {
    let mut rest = value;
    while rest >= 0x80 {
        out.push(low7(rest) | 0x80);
        rest >>= 7;
    }
    out.push(low7(rest));
}

const fn low7(value: u64) -> u8 {
    (value & 0x7f) as u8
}

/// Size of a length-delimited field with one tag byte and `len` bytes of content.
pub(super) const fn delimited_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// Tag and length of a length-delimited field; the caller appends `len` bytes.
pub(super) fn open(out: &mut Vec<u8>, field: u8, len: usize) {
    out.push(delimited(field));
    varint(out, len as u64);
}

/// A string, bytes or message field.
pub(super) fn bytes(out: &mut Vec<u8>, field: u8, content: &[u8]) {
    open(out, field, content.len());
    out.extend_from_slice(content);
}

pub(super) fn fixed64(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(fixed64_tag(field));
    out.extend_from_slice(&value.to_le_bytes());
}

/// `AnyValue` fields.
const STRING_VALUE: u8 = 1;
const BOOL_VALUE: u8 = 2;
const INT_VALUE: u8 = 3;
const ARRAY_VALUE: u8 = 5;
/// `ArrayValue.values`.
const VALUES: u8 = 1;

/// An `AnyValue` field that holds a string.
pub(super) fn any_string(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    open(out, field, delimited_len(value.len()));
    bytes(out, STRING_VALUE, value);
}

/// An attribute of a log record that holds a string.
pub(super) fn string_attribute(out: &mut Vec<u8>, key: Key, value: &[u8]) {
    let any = delimited_len(value.len());
    open_attribute(out, key.head(), any);
    if let Some(len) = short(value.len()) {
        out.extend_from_slice(&[delimited(STRING_VALUE), len]);
        out.extend_from_slice(value);
    } else {
        bytes(out, STRING_VALUE, value);
    }
}

/// An attribute of a log record that holds an int.
pub(super) fn int_attribute(out: &mut Vec<u8>, key: Key, value: i64) {
    let bits = value.cast_unsigned();
    open_attribute(out, key.head(), 1 + varint_len(bits));
    out.push(varint_tag(INT_VALUE));
    varint(out, bits);
}

/// An attribute of a log record that holds a bool.
pub(super) fn bool_attribute(out: &mut Vec<u8>, key: Key, value: bool) {
    open_attribute(out, key.head(), 2);
    out.extend_from_slice(&[varint_tag(BOOL_VALUE), u8::from(value)]);
}

/// An attribute of a log record that holds an array of strings.
pub(super) fn strings_attribute<'a>(
    out: &mut Vec<u8>,
    key: Key,
    values: impl Iterator<Item = &'a str> + Clone,
) {
    let array = values
        .clone()
        .map(|value| delimited_len(delimited_len(value.len())))
        .sum();
    open_attribute(out, key.head(), delimited_len(array));
    open(out, ARRAY_VALUE, array);
    for value in values {
        any_string(out, VALUES, value.as_bytes());
    }
}

/// All of an attribute before the content of its `AnyValue`, which takes `any` bytes.
fn open_attribute(out: &mut Vec<u8>, head: Head, any: usize) {
    let key_value = head.len - 2 + varint_len(any as u64) + any;
    out.reserve(Head::SIZE + 16 + any);
    let start = out.len();
    if let (Some(key_value), Some(any)) = (short(key_value), short(any)) {
        out.extend_from_slice(&head.bytes);
        out.truncate(start + head.len);
        out[start + 1] = key_value;
        out.push(any);
    } else {
        out.push(head.bytes[0]);
        varint(out, key_value as u64);
        out.extend_from_slice(&head.bytes[2..head.len]);
        varint(out, any as u64);
    }
}

/// A length that is one varint byte.
fn short(len: usize) -> Option<u8> {
    u8::try_from(len).ok().filter(|len| *len < 0x80)
}

/// A `KeyValue` field with a name that is no constant.
pub(super) fn named_attribute(out: &mut Vec<u8>, field: u8, name: &str, value: &str) {
    let any = delimited_len(value.len());
    open(out, field, delimited_len(name.len()) + delimited_len(any));
    bytes(out, 1, name.as_bytes());
    any_string(out, 2, value.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_as_long_as_announced() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1_u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value), "{value}");
                assert_eq!(
                    prost::encoding::decode_varint(&mut out.as_slice()).unwrap(),
                    value
                );
            }
        }
    }
}
