//! The log record that is being written: a buffer that is written by position, not by appending.
//!
//! A record has some thirty attributes of some thirty bytes, so what an append to a `Vec` costs beside copying the bytes is most of
//! the time. Here the longest that an attribute can be is reserved once, and what is the same in every record is copied at a fixed size.

use super::protobuf::{self as wire, delimited, delimited_len, low7, varint_len};
use crate::record::semconv::{Head, Key};

/// What an attribute takes at most besides the text of its value: its head, four lengths and a tag.
const MOST: usize = Head::SIZE + 48;

/// A log record that is being written.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// What is beyond `len` is left from earlier records.
    buffer: Vec<u8>,
    len: usize,
}

impl Scratch {
    pub(super) const fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.room(bytes.len());
        let end = self.len + bytes.len();
        self.buffer[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }

    /// A string, bytes or message field.
    pub(super) fn bytes(&mut self, field: u8, content: &[u8]) {
        self.room(MOST + content.len());
        self.tag(delimited(field));
        self.varint(content.len() as u64);
        self.extend(content);
    }

    pub(super) fn fixed64(&mut self, field: u8, value: u64) {
        self.room(MOST);
        self.tag(wire::fixed64_tag(field));
        self.extend(&value.to_le_bytes());
    }

    /// A varint field whose value is less than 128.
    pub(super) fn small(&mut self, field: u8, value: u8) {
        debug_assert!(value < 0x80, "the value must fit one byte");
        self.room(MOST);
        self.tag(wire::varint_tag(field));
        self.tag(value);
    }

    /// An `AnyValue` field that holds a string.
    pub(super) fn any_string(&mut self, field: u8, value: &[u8]) {
        self.room(MOST + value.len());
        self.tag(delimited(field));
        self.varint(delimited_len(value.len()) as u64);
        self.bytes(wire::STRING_VALUE, value);
    }

    /// An attribute that holds a string.
    pub(super) fn string_attribute(&mut self, key: Key, value: &[u8]) {
        self.open_attribute(key.head(), delimited_len(value.len()));
        self.bytes(wire::STRING_VALUE, value);
    }

    /// An attribute that holds an int.
    pub(super) fn int_attribute(&mut self, key: Key, value: i64) {
        let bits = value.cast_unsigned();
        self.open_attribute(key.head(), 1 + varint_len(bits));
        self.tag(wire::varint_tag(wire::INT_VALUE));
        self.varint(bits);
    }

    /// An attribute that holds a bool.
    pub(super) fn bool_attribute(&mut self, key: Key, value: bool) {
        self.open_attribute(key.head(), 2);
        self.tag(wire::varint_tag(wire::BOOL_VALUE));
        self.tag(u8::from(value));
    }

    /// An attribute that holds an array of strings.
    pub(super) fn strings_attribute<'a>(&mut self, key: Key, values: impl Iterator<Item = &'a str> + Clone) {
        let array = values
            .clone()
            .map(|value| delimited_len(delimited_len(value.len())))
            .sum();
        self.open_attribute(key.head(), delimited_len(array));
        self.tag(delimited(wire::ARRAY_VALUE));
        self.varint(array as u64);
        for value in values {
            self.any_string(wire::VALUES, value.as_bytes());
        }
    }

    /// All of an attribute before the content of its `AnyValue`, which takes `any` bytes.
    fn open_attribute(&mut self, head: Head, any: usize) {
        self.room(MOST + any);
        let key_value = head.len - 2 + varint_len(any as u64) + any;
        let start = self.len;
        if let Some(key_value) = short(key_value) {
            self.buffer[start..start + Head::SIZE].copy_from_slice(&head.bytes);
            self.buffer[start + 1] = key_value;
            self.len = start + head.len;
        } else {
            self.tag(head.bytes[0]);
            self.varint(key_value as u64);
            self.extend(&head.bytes[2..head.len]);
        }
        self.varint(any as u64);
    }

    /// One byte, for which there is room.
    fn tag(&mut self, byte: u8) {
        self.buffer[self.len] = byte;
        self.len += 1;
    }

    /// At most ten bytes, for which there is room.
    fn varint(&mut self, value: u64) {
        let mut rest = value;
        while rest >= 0x80 {
            self.tag(low7(rest) | 0x80);
            rest >>= 7;
        }
        self.tag(low7(rest));
    }

    /// Makes room for as many bytes.
    fn room(&mut self, bytes: usize) {
        if self.buffer.len() - self.len < bytes {
            self.grow(bytes);
        }
    }

    #[cold]
    fn grow(&mut self, bytes: usize) {
        let wanted = (self.len + bytes).max(2 * self.buffer.len()).max(4096);
        self.buffer.resize(wanted, 0);
    }
}

/// A length that is one varint byte.
fn short(len: usize) -> Option<u8> {
    u8::try_from(len).ok().filter(|len| *len < 0x80)
}
