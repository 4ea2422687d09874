//! `completions`: what a shell needs to complete the command line.

use std::io::{Write as _, stdout};

use super::CommandError;
use crate::cli::{self, CompletionsArgs};

pub(super) fn print(args: &CompletionsArgs) -> Result<u8, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli::command(), "nflog-agent", &mut script);
    stdout().write_all(&script)?;
    Ok(0)
}
