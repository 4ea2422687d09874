//! The nflog-agent program: arguments, own messages, exit code.

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use nflog_agent::agent::{self, EXIT_USAGE};
use nflog_agent::cli::{Cli, Command, usage_line};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Without arguments the whole help is more use than a line.
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            return ExitCode::from(EXIT_USAGE);
        }
        Err(error) if error.use_stderr() => {
            eprintln!("{}", usage_line(&error));
            return ExitCode::from(EXIT_USAGE);
        }
        // --help and --version. A closed pipe is no error of ours.
        Err(text) => {
            let _ = text.print();
            return ExitCode::SUCCESS;
        }
    };
    start_messages();
    let Command::Run(args) = cli.command;
    match agent::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// The agent's own messages go to standard error, at the level of RUST_LOG or `info`. Those of the probes come with them, by way
/// of the `log` crate.
fn start_messages() {
    let default = || EnvFilter::new("info,opentelemetry=error");
    let (filter, refused) = match std::env::var(EnvFilter::DEFAULT_ENV).map(EnvFilter::try_new) {
        Ok(Ok(filter)) => (filter, None),
        Ok(Err(error)) => (default(), Some(error)),
        Err(_) => (default(), None),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_target(false)
        .init();
    if let Some(error) = refused {
        tracing::warn!("RUST_LOG is not understood ({error}): write it like info,nflog_ebpf=debug");
    }
}
