//! What help texts and manual pages say below the arguments: examples, and exit codes.

use clap::CommandFactory as _;

use super::Cli;
use crate::exit_codes;

/// The command line, with the exit codes below the examples of each help text.
#[must_use]
pub fn command() -> clap::Command {
    with_exit_codes(Cli::command())
}

fn with_exit_codes(command: clap::Command) -> clap::Command {
    let codes = exit_codes::section();
    let help = match command.get_after_help() {
        Some(examples) => format!("{examples}\n\n{codes}"),
        None => codes,
    };
    command.after_help(help).mut_subcommands(with_exit_codes)
}

pub(super) const CHECK_EXAMPLES: &str = "Examples:
  nflog-agent check --config /etc/nflog-agent/nflog-agent.toml   all that this configuration needs
  nflog-agent check --group 7 --output json                      for programs: [{check, status, found, remedy}, ...]
  nflog-agent check --group 7 -- --spool /var/lib/nflog-agent    any flag of run, after --
  nflog-agent check --running                                    what the agent that runs can still do";

pub(super) const EXAMPLES: &str = "Examples:
  # What the rule `nft add rule inet filter input log group 7` logs, as lines
  sudo nflog-agent run --group 7
  # What a command understands
  nflog-agent run --help";

pub(super) const RUN_EXAMPLES: &str = "Examples:
  # Lines on the terminal
  sudo nflog-agent run --group 7
  # To a collector; what it does not take waits on disk
  sudo OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 \\
      nflog-agent run --group 7 --spool /var/lib/nflog-agent
  # In all pods' network namespaces, as JSON
  sudo nflog-agent run --group 7 --netns-of-cgroup '/kubepods*' --output json
  # As a configuration file says
  sudo nflog-agent run --config /etc/nflog-agent/nflog-agent.toml";

pub(super) const RECORD_EXAMPLES: &str = "Examples:
  # As tcpdump shows it
  sudo nflog-agent record --group 7 - | tcpdump -nr -
  # Into a file
  sudo nflog-agent record --group 7 night.pcap";

pub(super) const REPLAY_EXAMPLES: &str = "Examples:
  # What a configuration does with packets of last night
  nflog-agent replay --config /etc/nflog-agent/nflog-agent.toml --output console night.pcap";

pub(super) const SCHEMA_EXAMPLES: &str = "Examples:
  # For an editor that completes and checks TOML
  nflog-agent config-schema > nflog-agent.schema.json
  # Then as the first line of the configuration file
  #:schema ./nflog-agent.schema.json";

pub(super) const COMPLETIONS_EXAMPLES: &str = "Examples:
  # For all users of bash
  nflog-agent completions bash | sudo tee /usr/share/bash-completion/completions/nflog-agent
  # For this zsh, at once
  source <(nflog-agent completions zsh)";

pub(super) const MAN_EXAMPLES: &str = "Examples:
  # Read it
  nflog-agent man | man -l -
  # The pages of all commands
  nflog-agent man --directory /usr/local/share/man/man1";
