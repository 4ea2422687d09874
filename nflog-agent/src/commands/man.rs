//! `man`: the manual pages, written from the definitions that the command line is read by.
//!
//! One page for the program and one for each command, with what clap does not know: files, environment, exit codes.

use std::fs::{File, create_dir_all};
use std::io::{self, Write, stdout};
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::CommandError;
use crate::cli::{self, ManArgs};
use crate::exit_codes;

const ENVIRONMENT: [(&str, &str); 7] = [
    (
        "NFLOG_AGENT_*",
        "Every option of run has a variable, which is named with it. Options beat variables, which beat the file of --config.",
    ),
    (
        "OTEL_EXPORTER_OTLP_*, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES",
        "Where records go and how, as in the OpenTelemetry specification.",
    ),
    (
        "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY",
        "The way to the collector.",
    ),
    ("K8S_NODE_NAME, KUBECONFIG", "Names of pods."),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS, FDSTORE",
        "Set by systemd: states, signs of life, and the sockets that survive a restart. Without systemd 254, FDSTORE says that the unit has a \
         descriptor store (FileDescriptorStoreMax=).",
    ),
    (
        "RUST_LOG",
        "The agent's own messages: error, warn, info, debug or trace.",
    ),
    ("NO_COLOR", "No colour on the console."),
];

const FILES: [(&str, &str); 3] = [
    (
        "/etc/nflog-agent/nflog-agent.toml",
        "Configuration of the systemd unit.",
    ),
    (
        "/etc/nflog-agent/nflog-agent.env",
        "Environment of the systemd unit.",
    ),
    (
        "/var/lib/nflog-agent",
        "Records that wait for the collector: the spool of the systemd unit.",
    ),
];

/// Prints the page of the program, or writes all of them.
pub(super) fn print(args: &ManArgs) -> Result<u8, CommandError> {
    let mut command = cli::command().disable_help_subcommand(true);
    command.build();
    match &args.directory {
        None => stdout().write_all(&page(&command)?)?,
        Some(directory) => write_all(&command, directory)?,
    }
    Ok(0)
}

fn write_all(command: &Command, directory: &Path) -> io::Result<()> {
    create_dir_all(directory)?;
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    File::create(directory.join(format!("{name}.1")))?.write_all(&page(command)?)?;
    let mut shown = command.get_subcommands().filter(|command| is_shown(command));
    shown.try_for_each(|command| write_all(command, directory))
}

fn is_shown(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let man = Man::new(command.clone()).manual("nflog-agent").date("");
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut out)?;
    }
    let mut roff = Roff::default();
    notes_and_examples(command, &mut roff);
    let codes = exit_codes::ALL.map(|(code, meaning)| (code.to_string(), meaning));
    let codes = codes.each_ref().map(|(code, meaning)| (code.as_str(), *meaning));
    entries(&mut roff, "EXIT STATUS", &codes);
    entries(&mut roff, "ENVIRONMENT", &ENVIRONMENT);
    entries(&mut roff, "FILES", &FILES);
    see_also(command, &mut roff);
    roff.to_writer(&mut out)?;
    if command.get_version().is_some() {
        man.render_version_section(&mut out)?;
    }
    Ok(out)
}

/// What is below the arguments of the help text, as it is there; exit codes have a section of their own.
fn notes_and_examples(command: &Command, roff: &mut Roff) {
    let help = command
        .get_after_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let text = help.split("Exit codes:\n").next().unwrap_or_default();
    let (notes, examples) = text.split_once("Examples:\n").unwrap_or((text, ""));
    for (title, text) in [("NOTES", notes), ("EXAMPLES", examples)] {
        if text.trim().is_empty() {
            continue;
        }
        roff.control("SH", [title]).control("nf", []);
        for line in text.trim_end().lines() {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
    }
}

fn entries(roff: &mut Roff, title: &str, entries: &[(&str, &str)]) {
    roff.control("SH", [title]);
    for (name, about) in entries {
        roff.control("TP", []).text([bold(*name)]).text([roman(*about)]);
    }
}

fn see_also(command: &Command, roff: &mut Roff) {
    let mut pages = vec!["nft(8)".to_owned(), "iptables-extensions(8)".to_owned()];
    if command.has_subcommands() {
        let shown = command.get_subcommands().filter(|command| is_shown(command));
        pages.extend(shown.map(|command| format!("{}(1)", command.get_display_name().unwrap_or_default())));
    } else {
        pages.push("nflog-agent(1)".to_owned());
    }
    roff.control("SH", ["SEE ALSO"]).text([roman(pages.join(", "))]);
}
