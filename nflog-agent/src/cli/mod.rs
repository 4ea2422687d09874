//! Command line of the agent. Values are checked here, before anything is opened.

mod choices;
mod help;
mod output;
mod tools;

use std::num::ParseIntError;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use thiserror::Error;

use crate::agent::CgroupPattern;
use crate::commands::top::{self, TopArgs};
use crate::telemetry::endpoint::Listen;
use crate::workload::kubernetes::KeyPattern;
pub use choices::{AttributionArg, ConntrackArg, KubernetesArg, LogFormatArg, SandboxArg, WhenFullArg};
pub use help::command;
use help::{EXAMPLES, REPLAY_EXAMPLES, RUN_EXAMPLES};
pub use output::{ColorArg, OutputArg, OutputArgs, RecordIdArg};
pub use tools::{CheckArgs, CompletionsArgs, ManArgs, RecordArgs, ReplayArgs, ReportArg, Tool};

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
    /// Put capture files through the agent: records as `run` makes them, without owners.
    ///
    /// The configuration file's prefixes and rules apply, by the clock of the capture. Packets that are missing in a capture are not
    /// accounted for.
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(ReplayArgs),
    /// Show live who sends what: rates by prefix, process, workload, action and owner, and losses.
    #[command(after_help = top::EXAMPLES)]
    Top(Box<TopArgs>),
    /// The others, which need no settings beside their arguments.
    #[command(flatten)]
    Tool(Tool),
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

    /// Where records go, and how.
    #[command(flatten)]
    pub output: OutputArgs,

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
    #[arg(long, value_name = "DURATION", default_value = "10ms", value_parser = time, env = "NFLOG_AGENT_FLUSH_TIMEOUT")]
    pub flush_timeout: Duration,

    /// Longest time to deliver what is queued when the agent stops.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = time, env = "NFLOG_AGENT_SHUTDOWN_TIMEOUT")]
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
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = time, requires = "spool", env = "NFLOG_AGENT_SPOOL_MAX_AGE")]
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

    /// How often the account (received, exported, spooled, lost) goes out as a record of its own, event nflog.account; only if it has
    /// changed, and not to the console. 0s: never.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = time, env = "NFLOG_AGENT_ACCOUNT_INTERVAL")]
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
    let line = parts.join("; ").replace(":; ", ": ");
    line.replace("invalid digit found in string", "write a whole number")
}

/// Why a value is not a group.
#[derive(Debug, Error)]
#[error("NFLOG groups are numbers from 0 to 65535: use the N of `log group N` in the rule")]
pub struct GroupError(#[from] ParseIntError);

fn group(value: &str) -> Result<u16, GroupError> {
    Ok(value.trim().parse()?)
}

/// Why a value is not a time that can be waited for.
#[derive(Debug, Error)]
pub enum TimeError {
    /// Not a time.
    #[error(transparent)]
    Duration(#[from] humantime::DurationError),
    /// Looking would take all the time there is, or never happen.
    #[error("{} is not in 100ms to 1h", humantime::format_duration(*.value))]
    Interval {
        /// The value.
        value: Duration,
    },
    /// It would have no end that the clock knows.
    #[error("more than 100 years: write less")]
    Long,
}

pub(crate) fn interval(value: &str) -> Result<Duration, TimeError> {
    let value = humantime::parse_duration(value.trim())?;
    if (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&value) {
        Ok(value)
    } else {
        Err(TimeError::Interval { value })
    }
}

fn time(value: &str) -> Result<Duration, TimeError> {
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);
    let value = humantime::parse_duration(value.trim())?;
    if value <= LONGEST {
        Ok(value)
    } else {
        Err(TimeError::Long)
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
    fn a_time_without_end_is_refused() {
        for flag in [
            "--account-interval",
            "--shutdown-timeout",
            "--flush-timeout",
            "--spool-max-age",
        ] {
            let line = usage_line(&run(&["-g", "7", "--spool", "/x", flag, "500000000000y"]).unwrap_err());
            assert!(line.contains(flag) && line.contains("100 years"), "{line}");
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
