//! What differs between two readings of the settings, key by key.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use clap::ArgMatches;

use super::flags;

/// Values by key, as they are written; of flags the effective ones, wherever they come from.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Given(BTreeMap<String, Value>);

#[derive(Clone, PartialEq, Eq)]
enum Value {
    Flag(String),
    /// May be a secret, like a header, or long, like rules.
    Unsaid(String),
}

/// A key whose value is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// A flag's long name, or a key of the file like `otlp.headers`.
    pub key: String,
    /// Before and after, of flags.
    values: Option<(String, String)>,
}

impl Given {
    pub(super) fn new(run: &ArgMatches) -> Self {
        let flags = flags::given(run).map(|(name, values)| (name, Value::Flag(values)));
        Self(flags.collect())
    }

    pub(super) fn add(&mut self, key: &str, value: String) {
        self.0.insert(key.to_owned(), Value::Unsaid(value));
    }

    /// The keys whose value is another one in `new`.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let keys: BTreeSet<_> = self.0.keys().chain(new.0.keys()).collect();
        keys.into_iter()
            .filter_map(|key| {
                let (old, new) = (self.0.get(key), new.0.get(key));
                let shown = |value: Option<&Value>| match value {
                    None => Some("unset".to_owned()),
                    Some(Value::Flag(text)) => Some(text.clone()),
                    Some(Value::Unsaid(_)) => None,
                };
                (old != new).then(|| Change {
                    key: key.clone(),
                    values: shown(old).zip(shown(new)),
                })
            })
            .collect()
    }

    /// Takes over what `new` says of a key.
    pub fn take(&mut self, key: &str, new: &Self) {
        match new.0.get(key) {
            Some(value) => self.0.insert(key.to_owned(), value.clone()),
            None => self.0.remove(key),
        };
    }
}

/// Shows no secrets.
impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        match &self.values {
            Some((before, after)) => write!(f, " ({before}, now {after})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(flags: &[(&str, &str)], unsaid: &[(&str, &str)]) -> Given {
        let mut given = Given::default();
        for (key, value) in flags {
            let value = Value::Flag((*value).to_owned());
            given.0.insert((*key).to_owned(), value);
        }
        for (key, value) in unsaid {
            given.add(key, (*value).to_owned());
        }
        given
    }

    fn said(changes: &[Change]) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn values_of_flags_are_said_and_others_are_not() {
        let old = given(
            &[("a", "1"), ("b", "2")],
            &[("otlp.headers", "secret"), ("rule", "x")],
        );
        let new = given(
            &[("a", "1"), ("b", "3"), ("c", "4")],
            &[("otlp.headers", "other")],
        );
        let changes = old.changes(&new);
        assert_eq!(
            said(&changes),
            ["b (2, now 3)", "c (unset, now 4)", "otlp.headers", "rule"]
        );
        assert!(!format!("{old:?}{changes:?}").contains("secret"));
    }

    #[test]
    fn what_is_not_taken_over_is_a_change_again() {
        let mut old = given(&[("a", "1"), ("b", "2")], &[]);
        let new = given(&[("a", "9")], &[]);
        old.take("a", &new);
        assert_eq!(said(&old.changes(&new)), ["b (2, now unset)"]);
        old.take("b", &new);
        assert_eq!(old, new);
    }
}
