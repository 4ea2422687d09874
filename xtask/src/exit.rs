//! Errors that decide the exit code, after sysexits.h: those of the agent and of whatever calls xtask.

use std::fmt;

/// Something that xtask needs is not there, and xtask cannot install it.
pub(crate) const UNAVAILABLE: u8 = 69;
/// Not root.
pub(crate) const NO_PERMISSION: u8 = 77;

/// A one-line error with an exit code of its own.
#[derive(Debug)]
pub(crate) struct Exit {
    /// The process's exit code.
    pub(crate) code: u8,
    /// What is wrong and what to do about it.
    pub(crate) message: String,
}

impl Exit {
    /// Something is missing.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self {
            code: UNAVAILABLE,
            message: message.into(),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}
