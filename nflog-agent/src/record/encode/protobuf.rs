//! Protobuf wire format, writing only. Tags are single bytes: the OTLP log messages have no field above 15. The attributes of a
//! log record, which are most of what is written, are in `scratch`.

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

pub(super) const fn low7(value: u64) -> u8 {
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

/// `AnyValue` fields.
pub(super) const STRING_VALUE: u8 = 1;
pub(super) const BOOL_VALUE: u8 = 2;
pub(super) const INT_VALUE: u8 = 3;
pub(super) const ARRAY_VALUE: u8 = 5;
/// `ArrayValue.values`.
pub(super) const VALUES: u8 = 1;

/// An `AnyValue` field that holds a string.
pub(super) fn any_string(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    open(out, field, delimited_len(value.len()));
    bytes(out, STRING_VALUE, value);
}

/// A `KeyValue` field with a name that is no constant.
pub(super) fn named_attribute(out: &mut Vec<u8>, field: u8, name: &str, value: &str) {
    let any = delimited_len(value.len());
    open(out, field, delimited_len(name.len()) + delimited_len(any));
    bytes(out, 1, name.as_bytes());
    any_string(out, 2, value.as_bytes());
}

/// The same with an array of strings.
pub(super) fn named_attributes(out: &mut Vec<u8>, field: u8, name: &str, values: &[String]) {
    let mut array = Vec::new();
    for value in values {
        any_string(&mut array, VALUES, value.as_bytes());
    }
    let any = delimited_len(array.len());
    open(out, field, delimited_len(name.len()) + delimited_len(any));
    bytes(out, 1, name.as_bytes());
    open(out, 2, any);
    bytes(out, ARRAY_VALUE, &array);
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use prost::Message as _;

    use super::*;

    #[test]
    fn an_array_is_what_a_generated_decoder_reads() {
        for values in [
            vec![],
            vec!["v2".to_owned()],
            vec![String::new(), "ä".repeat(300)],
        ] {
            let mut out = Vec::new();
            named_attributes(&mut out, 1, "container.image.tags", &values);
            let mut attributes = Resource::decode(out.as_slice()).unwrap().attributes;
            let attribute = attributes.pop().unwrap();
            assert_eq!(
                (attribute.key.as_str(), attributes.len()),
                ("container.image.tags", 0)
            );
            let Some(Value::ArrayValue(array)) = attribute.value.unwrap().value else {
                panic!("no array");
            };
            let texts = array.values.into_iter().map(|value| match value.value {
                Some(Value::StringValue(text)) => text,
                other => panic!("{other:?}"),
            });
            assert_eq!(texts.collect::<Vec<_>>(), values);
        }
    }

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
