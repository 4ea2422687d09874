//! The nflog-agent program: arguments, own messages, exit code.

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;

use clap::error::ErrorKind;
use nflog_agent::agent;
use nflog_agent::cli::usage_line;
use nflog_agent::commands;
use nflog_agent::exit_codes;
use nflog_agent::settings::{self, Asked, SettingsError};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let asked = match settings::read(std::env::args_os()) {
        Ok(asked) => asked,
        Err(SettingsError::File(errors)) => {
            for error in &errors.0 {
                eprintln!("error: {error}");
            }
            return ExitCode::from(exit_codes::USAGE);
        }
        Err(SettingsError::Arguments(error)) => return usage(&error),
    };
    let ended = match asked {
        Asked::Run(settings) => {
            start_messages();
            let ended = agent::run(&settings).map(|()| 0);
            ended.map_err(|error| (error.to_string(), error.exit_code()))
        }
        Asked::Replay(settings) => {
            start_messages();
            let ended = agent::replay(&settings).map(|()| 0);
            ended.map_err(|error| (error.to_string(), error.exit_code()))
        }
        Asked::Other(command) => {
            let ended = commands::carry_out(&command);
            ended.map_err(|error| (error.to_string(), error.exit_code()))
        }
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err((message, code)) => {
            eprintln!("error: {message}");
            ExitCode::from(code)
        }
    }
}

/// What clap has to say instead of settings, and the exit code.
fn usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        // Without arguments the whole help is more use than a line.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(exit_codes::USAGE)
        }
        _ if error.use_stderr() => {
            eprintln!("{}", usage_line(error));
            ExitCode::from(exit_codes::USAGE)
        }
        // --help and --version. A closed pipe is no error of ours.
        _ => {
            let _ = error.print();
            ExitCode::SUCCESS
        }
    }
}

/// The agent's own messages go to standard error, at the level of RUST_LOG or `info`. Those of the probes come with them, by way
/// of the `log` crate.
fn start_messages() {
    let default = || EnvFilter::new("info,opentelemetry=error,kube_client=error");
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
