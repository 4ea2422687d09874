//! What the program does beside `run`: a command each, in a file or folder of its name.
//!
//! A command writes its result to standard output; what goes wrong is a [`CommandError`], with the exit code that belongs to it.

mod check;
mod completions;
mod config_schema;
mod man;
mod record;
pub mod rules;
pub mod top;

use std::io;

use thiserror::Error;

use crate::cli::Tool;
use crate::exit_codes;
pub use record::RecordError;
use rules::RulesError;

/// Why a command did not do its work.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Standard output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// `record`.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// `rules`.
    #[error(transparent)]
    Rules(#[from] RulesError),
}

impl CommandError {
    /// Exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Output(_) => exit_codes::IO,
            Self::Record(error) => error.exit_code(),
            Self::Rules(error) => error.exit_code(),
        }
    }
}

/// Carries out a command, and returns the exit code.
///
/// # Errors
/// See [`CommandError`]. That nobody reads the output any more is none.
pub fn carry_out(tool: &Tool) -> Result<u8, CommandError> {
    let done = match tool {
        Tool::Record(args) => record::record(args).map(|()| 0).map_err(CommandError::from),
        Tool::Rules(args) => rules::carry_out(args),
        Tool::Check(args) => check::report(args),
        Tool::Completions(args) => completions::print(args),
        Tool::ConfigSchema => config_schema::print(),
        Tool::Man(args) => man::print(args),
    };
    match done {
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        other => other,
    }
}
