//! Command line of the agent. Values are checked here, before anything is opened.

mod help;

use std::ffi::OsString;
use std::num::ParseIntError;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use thiserror::Error;

use crate::agent::CgroupPattern;
use crate::commands::rules::{self, RulesArgs};
use crate::commands::top::{self, TopArgs};
use crate::nflog::COPY_RANGE_MAX;
use crate::telemetry::endpoint::Listen;
use crate::workload::kubernetes::KeyPattern;
pub use help::command;
use help::{
    CHECK_EXAMPLES, COMPLETIONS_EXAMPLES, EXAMPLES, MAN_EXAMPLES, RECORD_EXAMPLES, REPLAY_EXAMPLES,
    RUN_EXAMPLES, SCHEMA_EXAMPLES,
};

/// NFLOG packets with the process and container that owns them, as OpenTelemetry logs.
#[derive(Clone, Debug, Parser)]
#[command(version, about, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Read NFLOG groups, name the owners, export.
    ///
    /// Exports OTLP when OTEL_EXPORTER_OTLP_ENDPOINT (or OTEL_EXPORTER_OTLP_LOGS_ENDPOINT) is set, else prints lines. The
    /// OTEL_EXPORTER_OTLP_* variables, OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES of the OpenTelemetry specification
    /// are honoured. RUST_LOG sets the agent's own messages; RUST_LOG=nflog_ebpf=debug shows those of the kernel probes.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Write the packets of NFLOG groups to a capture file, whole and undecoded.
    ///
    /// The file is a pcap of link type NFLOG, which tcpdump, Wireshark and `replay` read; - is standard output.
    #[command(after_help = RECORD_EXAMPLES)]
    Record(RecordArgs),
    /// Put capture files through the agent: records as `run` makes them, without owners.
    ///
    /// The configuration file's prefixes and rules apply, by the clock of the capture. Packets that are missing in a capture are not
    /// accounted for.
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(ReplayArgs),
    /// Show live who sends what: rates by prefix, process, workload, action and owner, and losses.
    #[command(after_help = top::EXAMPLES)]
    Top(Box<TopArgs>),
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
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
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

    /// Where records go.
    #[arg(short, long, value_enum, default_value_t, env = "NFLOG_AGENT_OUTPUT")]
    pub output: OutputArg,

    /// An id for each record.
    #[arg(long, value_enum, default_value_t, env = "NFLOG_AGENT_RECORD_ID")]
    pub record_id: RecordIdArg,

    /// Longest time to deliver what is queued when all is read.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = humantime::parse_duration)]
    pub drain_timeout: Duration,

    /// On the console, everything that is known of each packet, in lines below its own.
    #[arg(short, long, env = "NFLOG_AGENT_VERBOSE")]
    pub verbose: bool,

    /// Colour on the console.
    #[arg(long, value_enum, default_value_t, env = "NFLOG_AGENT_COLOR")]
    pub color: ColorArg,
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

/// Arguments of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Configuration file, TOML: each flag is a key of the same name, and the tables otlp, otlp.logs, otlp.metrics and resource
    /// stand for the OpenTelemetry variables. Flags and environment beat it.
    #[arg(short, long, value_name = "FILE", env = "NFLOG_AGENT_CONFIG")]
    pub config: Option<PathBuf>,

    /// NFLOG group to read, 0 to 65535; several as 7,8 or repeated.
    #[arg(short, long = "group", value_name = "N", required = true, value_delimiter = ',', value_parser = group, env = "NFLOG_AGENT_GROUPS")]
    pub groups: Vec<u16>,

    /// Network namespace to read in: a name (/run/netns/NAME), a path, or a pid; several as a,b or repeated. One that is deleted
    /// and made again under its name is read again; that of a pid until the process ends. Default, without --netns-of-cgroup:
    /// the agent's own, which is /proc/self/ns/net.
    #[arg(
        long = "netns",
        value_name = "NAME|PATH|PID",
        value_delimiter = ',',
        env = "NFLOG_AGENT_NETNS"
    )]
    pub netns: Vec<String>,

    /// Also read in every network namespace that a process in a matching cgroup lives in, as they come and go: a path as in
    /// /proc/PID/cgroup, with *, ? and [...] for a part of one name and ** for any depth; it covers all that is below.
    /// /kubepods* are the pods, / is everything. Several as a,b or repeated.
    #[arg(
        long = "netns-of-cgroup",
        value_name = "PATTERN",
        value_delimiter = ',',
        env = "NFLOG_AGENT_NETNS_OF_CGROUP"
    )]
    pub netns_of_cgroup: Vec<CgroupPattern>,

    /// Longest time until a namespace that came or went is noticed. Mostly it takes a fraction of a second: changes of cgroups and
    /// of names are watched.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = interval, env = "NFLOG_AGENT_NETNS_INTERVAL")]
    pub netns_interval: Duration,

    /// Network namespaces read at the same time; those beyond are named in a warning, and read when there is room.
    #[arg(long, value_name = "COUNT", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1 << 14), env = "NFLOG_AGENT_MAX_NETNS")]
    pub max_netns: u32,

    /// Where records go.
    #[arg(short, long, value_enum, default_value_t, env = "NFLOG_AGENT_OUTPUT")]
    pub output: OutputArg,

    /// How owners are found.
    #[arg(long, value_enum, default_value_t, env = "NFLOG_AGENT_ATTRIBUTION")]
    pub attribution: AttributionArg,

    /// Whether the kernel attaches the conntrack entry to each packet, which names owners where addresses are translated
    /// (DNAT, SNAT, service addresses). Only used with kernel probes.
    #[arg(long, value_enum, default_value_t, env = "NFLOG_AGENT_CONNTRACK")]
    pub conntrack: ConntrackArg,

    /// Sockets that the kernel probes know the owner of at the same time, over all namespaces. Those that do not fit have no
    /// owner and are counted as socket-map-error, tuple-map-error or port-map-error. The kernel
    /// memory for all of them is taken at start.
    #[arg(long, value_name = "COUNT", default_value_t = 1 << 16, value_parser = clap::value_parser!(u32).range(1..=1 << 24), env = "NFLOG_AGENT_MAX_SOCKETS")]
    pub max_sockets: u32,

    /// Bytes of the kernel's buffer for what processes do (fork, exec, end), rounded up to a power of two. What does not fit
    /// is counted as process-events-lost, and leaves executables unknown.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(4096..=1 << 28), env = "NFLOG_AGENT_PROCESS_BUFFER")]
    pub process_buffer: u32,

    /// Put the arguments of the owner's program into records, up to 512 bytes. They may contain secrets. Only with kernel
    /// probes.
    #[arg(long, env = "NFLOG_AGENT_PROCESS_COMMAND_LINE")]
    pub process_command_line: bool,

    /// Whether records have the names of pods, from the Kubernetes API: of this node's pods, which the agent's account must be allowed
    /// to get, list and watch.
    #[arg(long, value_enum, default_value_t, env = "NFLOG_AGENT_KUBERNETES")]
    pub kubernetes: KubernetesArg,

    /// Name the Services of the cluster, too, where one is at the other end of a packet (nflog.peer.k8s.service.name). Every agent
    /// then watches the Services of the whole cluster, which its account must be allowed to get, list and watch. Nothing with
    /// --kubernetes off.
    #[arg(long, env = "NFLOG_AGENT_KUBERNETES_SERVICES")]
    pub kubernetes_services: bool,

    /// This node's name in Kubernetes. Default: the variable K8S_NODE_NAME, which a manifest fills with spec.nodeName.
    #[arg(long, value_name = "NAME", env = "NFLOG_AGENT_KUBERNETES_NODE")]
    pub kubernetes_node: Option<String>,

    /// Labels of pods that go into records as k8s.pod.label.KEY: keys, or beginnings of keys with * at the end; several as a,b* or
    /// repeated. At most 64 of a pod.
    #[arg(
        long,
        value_name = "KEY",
        value_delimiter = ',',
        env = "NFLOG_AGENT_KUBERNETES_LABELS"
    )]
    pub kubernetes_labels: Vec<KeyPattern>,

    /// Annotations of pods that go into records as k8s.pod.annotation.KEY, likewise; their values are cut after 1024 bytes.
    #[arg(
        long,
        value_name = "KEY",
        value_delimiter = ',',
        env = "NFLOG_AGENT_KUBERNETES_ANNOTATIONS"
    )]
    pub kubernetes_annotations: Vec<KeyPattern>,

    /// Sockets of Docker and Podman, which tell the names and images of containers that are in no pod. They are asked once for each
    /// container, and only while there is one. Whoever may use such a socket is as good as root. off: records have container ids.
    #[arg(
        long,
        value_name = "PATH",
        value_delimiter = ',',
        default_value = "/run/docker.sock,/run/podman/podman.sock",
        env = "NFLOG_AGENT_CONTAINER_SOCKETS"
    )]
    pub container_sockets: Vec<PathBuf>,

    /// Bytes of each packet to copy: enough for the headers.
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65_531), env = "NFLOG_AGENT_COPY_RANGE")]
    pub copy_range: u32,

    /// Receive buffer of each NFLOG socket, bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20, value_parser = clap::value_parser!(u32).range(4096..=0x7fff_fffe), env = "NFLOG_AGENT_RECEIVE_BUFFER")]
    pub receive_buffer: u32,

    /// Longest time that the kernel holds a packet to fill a batch.
    #[arg(long, value_name = "DURATION", default_value = "10ms", value_parser = humantime::parse_duration, env = "NFLOG_AGENT_FLUSH_TIMEOUT")]
    pub flush_timeout: Duration,

    /// Longest time to deliver what is queued when the agent stops.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration, env = "NFLOG_AGENT_SHUTDOWN_TIMEOUT")]
    pub shutdown_timeout: Duration,

    /// Directory for records that the collector does not take: while it is down, too slow, or still owed some when the agent
    /// stops. They are sent when it takes requests again, also after a restart. Without it they are lost and counted. Only for
    /// OTLP.
    #[arg(long, value_name = "DIRECTORY", env = "NFLOG_AGENT_SPOOL")]
    pub spool: Option<PathBuf>,

    /// Room for the spool, bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30, value_parser = clap::value_parser!(u64).range(1 << 20..), requires = "spool", env = "NFLOG_AGENT_SPOOL_BYTES")]
    pub spool_bytes: u64,

    /// Longest time that records stay in the spool.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = humantime::parse_duration, requires = "spool", env = "NFLOG_AGENT_SPOOL_MAX_AGE")]
    pub spool_max_age: Duration,

    /// What is given up when the spool is full.
    #[arg(
        long,
        value_enum,
        default_value_t,
        requires = "spool",
        env = "NFLOG_AGENT_SPOOL_WHEN_FULL"
    )]
    pub spool_when_full: WhenFullArg,

    /// An id for each record, by which a backend can drop what arrives twice: after a request whose answer was lost, or a crash.
    #[arg(long, value_enum, default_value_t, env = "NFLOG_AGENT_RECORD_ID")]
    pub record_id: RecordIdArg,

    /// How often the account (received, exported, spooled, lost) goes out as a record of its own, event nflog.account; only if it has
    /// changed, and not to the console. 0s: never.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration, env = "NFLOG_AGENT_ACCOUNT_INTERVAL")]
    pub account_interval: Duration,

    /// What the agent still can do once everything is open: capabilities, system calls (seccomp) and files (Landlock) that the settings
    /// do not need are given up. `nflog-agent check --running` shows what is left.
    #[arg(long, value_enum, default_value_t, env = "NFLOG_AGENT_SANDBOX")]
    pub sandbox: SandboxArg,

    /// Where health and metrics are served over HTTP, without authentication: /live, /ready, /metrics (Prometheus). Default:
    /// 127.0.0.1:6356, and if another program has that, nowhere, with a warning. One that is named here is had, or the agent does
    /// not start.
    #[arg(long, value_name = "ADDRESS:PORT|off", env = "NFLOG_AGENT_LISTEN")]
    pub listen: Option<Listen>,

    /// How the agent writes its own messages, which go to standard error.
    #[arg(long, value_enum, default_value_t, env = "NFLOG_AGENT_LOG_FORMAT")]
    pub log_format: LogFormatArg,

    /// On the console, everything that is known of each packet, in lines below its own. JSON and OTLP always have it.
    #[arg(short, long, env = "NFLOG_AGENT_VERBOSE")]
    pub verbose: bool,

    /// Colour on the console.
    #[arg(long, value_enum, default_value_t, env = "NFLOG_AGENT_COLOR")]
    pub color: ColorArg,
}

/// `--output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputArg {
    /// OTLP when an endpoint is set in the environment, else console.
    #[default]
    Auto,
    /// OTLP to OTEL_EXPORTER_OTLP_ENDPOINT, or to the specification's default on localhost.
    Otlp,
    /// One readable line per packet on standard output.
    Console,
    /// One JSON object per line on standard output.
    Json,
}

/// `--attribution`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AttributionArg {
    /// Kernel probes, or socket diagnostics where the kernel has no probes.
    #[default]
    Auto,
    /// Kernel probes, or stop.
    Probes,
    /// Socket diagnostics and /proc only.
    Sockdiag,
}

/// `--conntrack`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ConntrackArg {
    /// Ask for it; a kernel that cannot is said once. About 200 bytes more per packet that conntrack knows.
    #[default]
    Auto,
    /// Do without.
    Off,
}

/// `--kubernetes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum KubernetesArg {
    /// In a pod with a service account's token, or where KUBECONFIG names a file.
    #[default]
    Auto,
    /// Or stop.
    On,
    /// Records have pod UIDs and container ids.
    Off,
}

/// `--spool-when-full`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WhenFullArg {
    /// The oldest records, several megabytes at a time.
    #[default]
    DropOldest,
    /// The newest ones.
    DropNewest,
}

/// `--sandbox`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SandboxArg {
    /// As much as this kernel has; what it lacks is said.
    #[default]
    Auto,
    /// Nothing is given up. For debuggers, and for a KUBECONFIG that runs a program for its credentials.
    Off,
}

/// `--record-id`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RecordIdArg {
    /// A ULID in log.record.uid: 48 bytes of each record.
    #[default]
    Ulid,
    /// None.
    Off,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormatArg {
    /// Lines for people.
    #[default]
    Text,
    /// A JSON object per line: timestamp, level, message, target.
    Json,
}

/// `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorArg {
    /// When standard output is a terminal and NO_COLOR is not set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// A `--netns` value: a pid when it is a number, a path when it has a slash, else a name that `ip netns` made.
#[must_use]
pub fn netns_path(value: &str) -> PathBuf {
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        Path::new("/proc").join(value).join("ns/net")
    } else if value.contains('/') {
        PathBuf::from(value)
    } else {
        Path::new("/run/netns").join(value)
    }
}

/// clap's message in one line: what is wrong, its tips, and where to read more.
#[must_use]
pub fn usage_line(error: &clap::Error) -> String {
    format!("{} (see --help)", usage_parts(error))
}

/// clap's message in one line: what is wrong, and its tips.
pub(crate) fn usage_parts(error: &clap::Error) -> String {
    let text = error.to_string();
    let parts: Vec<_> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"))
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
        .collect();
    parts.join("; ").replace(":; ", ": ")
}

/// Why a value is not a group.
#[derive(Debug, Error)]
#[error("NFLOG groups are numbers from 0 to 65535: use the N of `log group N` in the rule")]
pub struct GroupError(#[from] ParseIntError);

fn group(value: &str) -> Result<u16, GroupError> {
    Ok(value.trim().parse()?)
}

/// Why a value is not an interval.
#[derive(Debug, Error)]
pub enum IntervalError {
    /// Not a time.
    #[error(transparent)]
    Duration(#[from] humantime::DurationError),
    /// Looking would take all the time there is, or never happen.
    #[error("{} is not in 100ms to 1h", humantime::format_duration(*.value))]
    Range {
        /// The value.
        value: Duration,
    },
}

fn interval(value: &str) -> Result<Duration, IntervalError> {
    let value = humantime::parse_duration(value.trim())?;
    if (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&value) {
        Ok(value)
    } else {
        Err(IntervalError::Range { value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Result<RunArgs, clap::Error> {
        let cli = Cli::try_parse_from(["nflog-agent", "run"].iter().chain(arguments))?;
        match cli.command {
            Command::Run(run) => Ok(*run),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn groups_may_be_repeated_or_listed() {
        assert_eq!(run(&["--group", "7,8", "-g", "9"]).unwrap().groups, [7, 8, 9]);
    }

    #[test]
    fn a_group_out_of_range_is_named_with_the_remedy() {
        let error = run(&["--group", "70000"]).unwrap_err().to_string();
        assert!(error.contains("70000") && error.contains("0 to 65535"), "{error}");
    }

    #[test]
    fn usage_errors_are_one_line_with_the_tip() {
        let line = usage_line(&run(&["--grop", "7"]).unwrap_err());
        assert_eq!(line.lines().count(), 1);
        assert!(
            line.contains("'--grop'") && line.contains("'--group'") && line.contains("--help"),
            "{line}"
        );
    }

    #[test]
    fn cgroup_patterns_may_be_repeated_or_listed() {
        let arguments = [
            "-g",
            "7",
            "--netns-of-cgroup",
            "/a,/b*",
            "--netns-of-cgroup",
            "/c/**",
        ];
        let patterns = run(&arguments).unwrap().netns_of_cgroup;
        let texts: Vec<_> = patterns.iter().map(CgroupPattern::as_str).collect();
        assert_eq!(texts, ["/a", "/b*", "/c/**"]);
        let error = usage_line(&run(&["-g", "7", "--netns-of-cgroup", "kubepods"]).unwrap_err());
        assert!(
            error.contains("'kubepods'") && error.contains("begin with /"),
            "{error}"
        );
    }

    #[test]
    fn an_interval_that_makes_no_sense_is_refused_with_its_bounds() {
        for (value, word) in [("0s", "100ms"), ("2h", "1h"), ("soon", "soon")] {
            let error = usage_line(&run(&["-g", "7", "--netns-interval", value]).unwrap_err());
            assert!(error.contains(word), "{value}: {error}");
        }
    }

    #[test]
    fn a_group_is_required() {
        assert!(run(&[]).unwrap_err().to_string().contains("--group"));
    }

    #[test]
    fn namespaces_are_names_paths_or_pids() {
        assert_eq!(netns_path("web"), Path::new("/run/netns/web"));
        assert_eq!(netns_path("/proc/1/ns/net"), Path::new("/proc/1/ns/net"));
        assert_eq!(netns_path("4711"), Path::new("/proc/4711/ns/net"));
    }
}
