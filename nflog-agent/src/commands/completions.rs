//! `completions`: what a shell needs to complete the command line.

use std::io::{Write as _, stdout};

use clap::CommandFactory as _;

use super::CommandError;
use crate::cli::{Cli, CompletionsArgs};

pub(super) fn print(args: &CompletionsArgs) -> Result<u8, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "nflog-agent", &mut script);
    stdout().write_all(&script)?;
    Ok(0)
}
