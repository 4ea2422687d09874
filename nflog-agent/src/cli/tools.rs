//! Arguments of the commands beside `run`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::help::{CHECK_EXAMPLES, COMPLETIONS_EXAMPLES, MAN_EXAMPLES, RECORD_EXAMPLES, SCHEMA_EXAMPLES};
use super::{ConntrackArg, OutputArgs, group, time};
use crate::commands::rules::{self, RulesArgs};
use crate::nflog::COPY_RANGE_MAX;

/// Commands that need no settings beside their arguments.
#[derive(Clone, Debug, Subcommand)]
pub enum Tool {
    /// Write the packets of NFLOG groups to a capture file, whole and undecoded.
    ///
    /// The file is a pcap of link type NFLOG, which tcpdump, Wireshark and `replay` read; - is standard output.
    #[command(after_help = RECORD_EXAMPLES)]
    Record(RecordArgs),
    /// Print firewall rules that log for the agent, or put them into a table of their own and remove them.
    #[command(after_help = rules::EXAMPLES)]
    Rules(Box<RulesArgs>),
    /// Check every prerequisite of `run`, with what to do about it; or what a running agent can still do.
    ///
    /// A line each: ok, warning (the agent runs, with less) or FAILED. Exit code: 0 if nothing failed, else that of the worst failure:
    /// 64 wrong configuration, 77 missing privileges, 69 the kernel, the collector or the API lacks something, 75 another program reads a
    /// group, 74 the spool cannot be written.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Box<CheckArgs>),
    /// Print completions for a shell.
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Print the JSON Schema of the configuration file.
    #[command(after_help = SCHEMA_EXAMPLES)]
    ConfigSchema,
    /// Print the manual page, or write all manual pages.
    #[command(after_help = MAN_EXAMPLES)]
    Man(ManArgs),
}

/// Arguments of `record`.
#[derive(Clone, Debug, Args)]
pub struct RecordArgs {
    /// File to write, or - for standard output.
    pub file: PathBuf,

    /// NFLOG group to read, 0 to 65535; several as 7,8 or repeated.
    #[arg(short, long = "group", value_name = "N", required = true, value_delimiter = ',', value_parser = group)]
    pub groups: Vec<u16>,

    /// Network namespace to read in: a name (/run/netns/NAME), a path, or a pid. Default: the program's own.
    #[arg(long, value_name = "NAME|PATH|PID")]
    pub netns: Option<String>,

    /// End after this many packets.
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub count: Option<u64>,

    /// End after this time.
    #[arg(long, value_name = "DURATION", value_parser = time)]
    pub duration: Option<Duration>,

    /// Bytes of each packet to copy.
    #[arg(long, value_name = "BYTES", default_value_t = COPY_RANGE_MAX, value_parser = clap::value_parser!(u32).range(1..=65_531))]
    pub copy_range: u32,

    /// Whether the kernel attaches the conntrack entry to each packet.
    #[arg(long, value_enum, default_value_t)]
    pub conntrack: ConntrackArg,

    /// Write over a file that is there.
    #[arg(long)]
    pub overwrite: bool,
}

/// Arguments of `replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// Capture files of link type NFLOG, pcap or pcapng; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Configuration file, as of `run`: what it says of the output, of OTLP, prefixes and rules applies.
    #[arg(short, long, value_name = "FILE", env = "NFLOG_AGENT_CONFIG")]
    pub config: Option<PathBuf>,

    /// Where records go, and how.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Longest time to deliver what is queued when all is read.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = time)]
    pub drain_timeout: Duration,
}

/// Arguments of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Look at a running agent instead: capabilities, no_new_privs and seccomp of each of its threads, beside what it promises.
    #[arg(long, value_name = "PID", num_args = 0..=1)]
    pub running: Option<Option<u32>>,

    /// Lines, or an array of {check, status, found, remedy}; status is ok, warning or failed, remedy null where there is none.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: ReportArg,

    /// Configuration file, as of run; it is checked, too. Also NFLOG_AGENT_CONFIG.
    #[arg(id = "file", short, long = "config", value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Groups, as of run.
    #[arg(short, long = "group", value_name = "N")]
    pub groups: Vec<String>,

    /// Network namespaces, as of run.
    #[arg(long = "netns", value_name = "NAME|PATH|PID")]
    pub netns: Vec<String>,

    /// Any other flags of run.
    #[arg(last = true, value_name = "FLAGS OF RUN")]
    pub run: Vec<OsString>,
}

/// `check --output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportArg {
    /// One line each.
    #[default]
    Text,
    /// JSON.
    Json,
}

/// Arguments of `man`.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Write the pages of all commands into this directory, which is made if it is missing.
    #[arg(long, value_name = "DIRECTORY")]
    pub directory: Option<PathBuf>,
}

/// Arguments of `completions`.
#[derive(Clone, Copy, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: clap_complete::Shell,
}
