//! The nflog-agent program: arguments, own messages, exit code.

use std::fmt::Display;
use std::io::ErrorKind::BrokenPipe;
use std::io::{IsTerminal, Write as _, stderr};
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use nflog_agent::agent;
use nflog_agent::cli::{LogFormatArg, usage_line};
use nflog_agent::commands;
use nflog_agent::commands::top::{self, Messages};
use nflog_agent::exit_codes;
use nflog_agent::settings::{self, Asked, SettingsError};
use nflog_agent::telemetry::messages;
use nflog_agent::telemetry::standard_error::{self, StandardError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt, registry};

/// How long the last messages may take: standard error may be a pipe that nobody reads.
const LAST_WORDS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let asked = match settings::read(std::env::args_os()) {
        Ok(asked) => asked,
        Err(SettingsError::File(errors)) => {
            for error in &errors.0 {
                say(format_args!("error: {error}"));
            }
            return ExitCode::from(exit_codes::USAGE);
        }
        Err(SettingsError::Arguments(error)) => return usage(&error),
    };
    let mut as_json = false;
    let ended = match asked {
        Asked::Run(settings) => {
            as_json = settings.args.log_format == LogFormatArg::Json;
            start_messages(StandardError, stderr().is_terminal(), settings.args.log_format);
            warn_of_variables();
            let ended = agent::run(&settings).map(|()| 0);
            messages::finish();
            ended.map_err(|error| (error.to_string(), error.exit_code()))
        }
        Asked::Replay(settings) => {
            start_messages(StandardError, stderr().is_terminal(), LogFormatArg::Text);
            warn_of_variables();
            let ended = agent::replay(&settings).map(|()| 0);
            messages::finish();
            ended.map_err(|error| (error.to_string(), error.exit_code()))
        }
        Asked::Top(settings, view) => {
            let messages = Messages::default();
            start_messages(messages.clone(), false, LogFormatArg::Text);
            warn_of_variables();
            let ended = top::run(&settings, &view, messages).map(|()| 0);
            messages::finish();
            ended.map_err(|error| (error.to_string(), error.exit_code()))
        }
        Asked::Tool(tool) => {
            let ended = commands::carry_out(&tool);
            ended.map_err(|error| (error.to_string(), error.exit_code()))
        }
    };
    let code = ended.unwrap_or_else(|(message, code)| {
        if as_json {
            tracing::error!("{message}");
        } else {
            say(format_args!("error: {message}"));
        }
        code
    });
    standard_error::finish(LAST_WORDS);
    ExitCode::from(code)
}

/// A line on standard error. If that takes none there is nobody to tell.
fn say(line: impl Display) {
    let _ = StandardError.write_all(format!("{line}\n").as_bytes());
}

fn warn_of_variables() {
    for variable in settings::unknown_variables() {
        tracing::warn!("{variable}");
    }
}

/// What clap has to say instead of settings, and the exit code.
fn usage(error: &clap::Error) -> ExitCode {
    let printed = match error.kind() {
        // Without arguments the whole help is more use than a line.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            return ExitCode::from(exit_codes::USAGE);
        }
        _ if error.use_stderr() => {
            for variable in settings::unknown_variables() {
                say(format_args!("warning: {variable}"));
            }
            say(usage_line(error));
            return ExitCode::from(exit_codes::USAGE);
        }
        // --help and --version.
        _ => error.print(),
    };
    match printed {
        Err(error) if error.kind() != BrokenPipe => {
            say(format_args!("error: cannot write the output: {error}"));
            ExitCode::from(exit_codes::IO)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// The agent's own messages go to standard error, at the level of RUST_LOG or `info`. Those of the probes come with them, by way
/// of the `log` crate. What one place says too often is held back and counted.
fn start_messages<W>(writer: W, colour: bool, format: LogFormatArg)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let default = || EnvFilter::new("info,opentelemetry=error,kube_client=error");
    let (filter, refused) = match std::env::var(EnvFilter::DEFAULT_ENV).map(EnvFilter::try_new) {
        Ok(Ok(filter)) => (filter, None),
        Ok(Err(error)) => (default(), Some(error)),
        Err(_) => (default(), None),
    };
    // A line that cannot be written is no reason to panic, as printing an error about it would.
    let lines = fmt::layer().with_writer(writer).log_internal_errors(false);
    let lines = match format {
        LogFormatArg::Text => lines.with_ansi(colour).with_target(false).boxed(),
        LogFormatArg::Json => lines.json().flatten_event(true).boxed(),
    };
    registry()
        .with(filter)
        .with(messages::limits())
        .with(lines)
        .init();
    if let Some(error) = refused {
        tracing::warn!("RUST_LOG is not understood ({error}): write it like info,nflog_ebpf=debug");
    }
}
