//! What is wrong with a configuration.

use std::fmt;

use thiserror::Error;

/// All that is wrong with it.
#[derive(Debug, Error)]
pub struct PolicyErrors(pub Vec<PolicyError>);

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, Error)]
#[error("{place}: {problem}")]
pub struct PolicyError {
    /// Where.
    pub place: Place,
    /// What.
    pub problem: PolicyProblem,
}

/// One of the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The `[[prefix]]` with this number, from 1.
    Prefix(usize),
    /// The `[[rule]]` with this number, from 1, and its name.
    Rule(usize, Option<String>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(number) => write!(f, "prefix {number}"),
            Self::Rule(number, None) => write!(f, "rule {number}"),
            Self::Rule(number, Some(name)) => write!(f, "rule {number} ('{name}')"),
        }
    }
}

/// What can be wrong.
#[derive(Debug, Error)]
pub enum PolicyProblem {
    /// A value that the key does not take.
    #[error("{key} '{value}' is not understood: write {wanted}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What to write.
        wanted: &'static str,
    },
    /// A number that is too small or too large.
    #[error("{key} {value} is out of range: write {wanted}")]
    Range {
        /// The key.
        key: &'static str,
        /// Its value.
        value: u64,
        /// What to write.
        wanted: &'static str,
    },
    /// Not exactly one pattern.
    #[error("{given} of preset, template and regex are given: give one")]
    Patterns {
        /// How many are given.
        given: usize,
    },
    /// A preset's attributes are its own.
    #[error(
        "action, chain, id and policy go with template and regex: leave them out beside preset '{preset}'"
    )]
    PresetWithAttributes {
        /// The preset.
        preset: String,
    },
    /// No such preset.
    #[error("preset '{value}' is not known: write one of {}", super::presets::Names)]
    Preset {
        /// Its name.
        value: String,
    },
    /// No such field in a template.
    #[error(
        "template '{value}' has '{{{field}}}': write {{action}}, {{chain}}, {{id}}, {{policy}}, each once, or {{*}}, and {{{{ }}}} for braces"
    )]
    Template {
        /// The template.
        value: String,
        /// What is in the braces.
        field: String,
    },
    /// A pattern that says nothing.
    #[error("'{value}' says nothing of the rule: name a field in it, or give action, chain, id or policy")]
    Nothing {
        /// The pattern.
        value: String,
    },
    /// Not a regular expression.
    #[error("regex '{value}' is not one: {error}; groups are written (?P<action>...)")]
    Regex {
        /// The expression.
        value: String,
        /// What is wrong with it.
        error: regex_lite::Error,
    },
    /// A group of another name.
    #[error("regex '{value}' has a group '{group}': name groups action, chain, id or policy")]
    Group {
        /// The expression.
        value: String,
        /// The group.
        group: String,
    },
    /// Two rules of one name: their counts could not be told apart.
    #[error("the name is that of rule {other}, too: give each rule one of its own")]
    SameName {
        /// The other rule's number.
        other: usize,
    },
    /// An idle time that never comes before the interval ends.
    #[error("idle {idle} is not shorter than interval {interval}: shorten it or leave it out")]
    IdleTooLong {
        /// As it is written.
        idle: String,
        /// As it is written.
        interval: String,
    },
}
