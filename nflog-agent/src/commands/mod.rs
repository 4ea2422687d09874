//! What the program does beside `run`: a command each, in a file or folder of its name.
//!
//! A command writes its result to standard output; what goes wrong is a [`CommandError`], with the exit code that belongs to it.

mod completions;
mod man;
mod record;

use std::io;

use thiserror::Error;

use crate::cli::Command;
use crate::exit_codes;
pub use record::RecordError;

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
}

impl CommandError {
    /// Exit code of the process.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Output(_) => exit_codes::IO,
            Self::Record(error) => error.exit_code(),
        }
    }
}

/// Carries out a command other than `run`, and returns the exit code.
///
/// # Errors
/// See [`CommandError`]. That nobody reads the output any more is none.
pub fn carry_out(command: &Command) -> Result<u8, CommandError> {
    let done = match command {
        // Have settings beside their arguments: `agent::run` and `agent::replay`.
        Command::Run(_) | Command::Replay(_) => Ok(0),
        Command::Record(args) => record::record(args).map(|()| 0).map_err(CommandError::from),
        Command::Completions(args) => completions::print(args),
        Command::Man(args) => man::print(args),
    };
    match done {
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        other => other,
    }
}
