//! What is wrong with a configuration file.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::export::ConfigError;
use crate::policy::PolicyError;

/// All that is wrong with a configuration file.
#[derive(Debug, Error)]
pub struct FileErrors(pub Vec<FileError>);

impl fmt::Display for FileErrors {
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
#[error("{}{}: {problem}", .path.display(), Line(*.line))]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1; `None` if it is about the whole file.
    pub line: Option<usize>,
    /// What is wrong there.
    pub problem: Problem,
}

struct Line(Option<usize>);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, ", line {line}"))
    }
}

/// What can be wrong.
#[derive(Debug, Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot be read ({0}); name a file that is there and that the agent may read")]
    Unreadable(io::Error),
    /// Not TOML.
    #[error("not TOML: {0}")]
    Toml(String),
    /// No such key.
    #[error("unknown key '{key}'{}", Suggestion(.suggestion.as_deref()))]
    UnknownKey {
        /// The key, with its table.
        key: String,
        /// One that is much like it.
        suggestion: Option<String>,
    },
    /// A value of another type.
    #[error("'{key}' is {found}; write {wanted}")]
    Type {
        /// The key, with its table.
        key: String,
        /// The value, unless it may be a secret.
        found: String,
        /// What to write.
        wanted: &'static str,
    },
    /// A table that is not like the others of its name.
    #[error("{0}")]
    Table(String),
    /// What a prefix means, or which records leave.
    #[error(transparent)]
    Policy(PolicyError),
    /// A value that the flag of the same name does not take.
    #[error("{0}")]
    Flag(String),
    /// A value that the specification's variable does not take.
    #[error("'{key}' stands for {error}")]
    Variable {
        /// The key, with its table.
        key: String,
        /// What is wrong with it.
        error: ConfigError,
    },
}

struct Suggestion<'a>(Option<&'a str>);

impl fmt::Display for Suggestion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(key) => write!(f, "; did you mean '{key}'?"),
            None => f.write_str("; see nflog-agent run --help for those there are"),
        }
    }
}
