//! The `key1=value1,key2=value2` lists of the OpenTelemetry environment variables, values percent-encoded.

/// Splits a list. Spaces around keys and values and empty members are ignored; a repeated key is not.
///
/// # Errors
/// The first member that is not `key=value` with valid percent encoding.
pub(super) fn list(text: &str) -> Result<Vec<(String, String)>, &str> {
    text.split(',')
        .map(str::trim)
        .filter(|member| !member.is_empty())
        .map(|member| pair(member).ok_or(member))
        .collect()
}

fn pair(member: &str) -> Option<(String, String)> {
    let (key, value) = member.split_once('=')?;
    let key = decode(key.trim())?;
    (!key.is_empty()).then_some((key, decode(value.trim())?))
}

fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let decoded = if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            u8::try_from(high << 4 | low).ok()?
        } else {
            byte
        };
        out.push(decoded);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_and_decoded() {
        let list = list(" a = b ,c=d%20e%2Cf,,g=h=i,j=").unwrap();
        let list: Vec<_> = list
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(list, [("a", "b"), ("c", "d e,f"), ("g", "h=i"), ("j", "")]);
    }

    #[test]
    fn the_faulty_member_is_named() {
        for faulty in ["novalue", "=x", "a=%2", "a=%zz", "a=%ff"] {
            assert_eq!(list(&format!("ok=1, {faulty} ,ok=2")), Err(faulty));
        }
    }
}
