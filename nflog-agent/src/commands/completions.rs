//! `completions`: what a shell needs to complete the command line.

use std::io::{Write as _, stdout};

use super::CommandError;
use crate::cli::{self, CompletionsArgs};

pub(super) fn print(args: &CompletionsArgs) -> Result<u8, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli::command(), "nflog-agent", &mut script);
    let script = String::from_utf8_lossy(&script);
    stdout().write_all(with_one_name(&script).as_bytes())?;
    Ok(0)
}

/// With one spelling of the program's name in the states of bash's script: clap_complete 4.6 writes the hyphen in two ways, so
/// that nothing is completed behind a subcommand (<https://github.com/clap-rs/clap/issues/6421>).
fn with_one_name(script: &str) -> String {
    script.replace("nflog__subcmd__agent", "nflog__agent")
}
