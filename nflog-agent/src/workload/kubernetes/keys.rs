//! Which labels and annotations go into records.

use std::str::FromStr;

use thiserror::Error;

/// A label's or annotation's key, or the beginning of keys with `*` at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPattern {
    key: String,
    prefix: bool,
}

/// Why a text is no [`KeyPattern`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "'{0}' is no key of a label or annotation: write it like app.kubernetes.io/name, or with one * at its end"
)]
pub struct KeyPatternError(String);

impl KeyPattern {
    /// Whether a key is meant.
    #[must_use]
    pub fn matches(&self, key: &str) -> bool {
        if self.prefix {
            key.starts_with(&self.key)
        } else {
            key == self.key
        }
    }
}

impl FromStr for KeyPattern {
    type Err = KeyPatternError;

    fn from_str(text: &str) -> Result<Self, KeyPatternError> {
        let text = text.trim();
        let (key, prefix) = match text.strip_suffix('*') {
            Some(key) => (key, true),
            None => (text, false),
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        if text.is_empty() || !key.bytes().all(allowed) {
            return Err(KeyPatternError(text.to_owned()));
        }
        Ok(Self {
            key: key.to_owned(),
            prefix,
        })
    }
}

/// Most labels, and most annotations, that a pod's records carry.
const MOST: usize = 64;
/// Most bytes of a value. Annotations may have 256 KiB, labels 63 bytes.
const LONGEST: usize = 1024;

/// The pairs that a pattern matches, by key, as `PREFIX.KEY` and value: at most 64, values cut after 1024 bytes. Empty values say
/// nothing and are left out.
pub fn chosen<'a>(
    prefix: &'a str,
    pairs: impl IntoIterator<Item = (&'a String, &'a String)>,
    patterns: &[KeyPattern],
) -> Vec<(String, String)> {
    pairs
        .into_iter()
        .filter(|(key, value)| !value.is_empty() && patterns.iter().any(|pattern| pattern.matches(key)))
        .take(MOST)
        .map(|(key, value)| {
            let end = value.floor_char_boundary(LONGEST);
            (format!("{prefix}.{key}"), value[..end].to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn keys_match_whole_or_by_their_beginning() {
        let exact: KeyPattern = "app.kubernetes.io/name".parse().unwrap();
        assert!(exact.matches("app.kubernetes.io/name") && !exact.matches("app.kubernetes.io/names"));
        let prefix: KeyPattern = " team-* ".parse().unwrap();
        assert!(prefix.matches("team-a") && prefix.matches("team-") && !prefix.matches("teams"));
        assert!("*".parse::<KeyPattern>().unwrap().matches("anything"));
        for wrong in ["", "a*b", "**", "a b", "ä"] {
            let error = wrong.parse::<KeyPattern>().unwrap_err().to_string();
            assert!(error.contains(&format!("'{wrong}'")), "{error}");
        }
    }

    #[test]
    fn values_and_their_number_are_bounded() {
        let pairs: BTreeMap<_, _> = (0..200).map(|n| (format!("k{n:03}"), "ä".repeat(5000))).collect();
        let taken = chosen("k8s.pod.annotation", &pairs, &["k*".parse().unwrap()]);
        assert_eq!(taken.len(), MOST);
        assert_eq!(taken[0].0, "k8s.pod.annotation.k000");
        assert!(taken.iter().all(|(_, value)| value.len() == LONGEST));
    }
}
