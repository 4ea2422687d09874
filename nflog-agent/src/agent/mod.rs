//! Wires the stages, starts them and stops them.
//!
//! Start: settings, privileges, probes, readers, exporter. Probes come before the readers bind their groups, so that the
//! first entry already has its owner. Then `serve` runs until the end. Stop: readers drain, and unbind unless the service manager keeps
//! their sockets for the next process; then the exporter delivers what is queued.

mod account;
mod attributions;
mod descriptors;
mod devices;
mod entry;
mod error;
mod gaps;
mod kubernetes;
mod netns;
mod notices;
mod output;
mod owners;
mod probes;
mod processes;
mod reader;
mod replay;
mod serve;
mod signals;
mod sockets;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

pub use error::RunError;
pub(crate) use error::open_exit_code;
pub use netns::{CgroupPattern, CgroupPatternError};
pub use reader::ReaderError;
pub use replay::{ReplayError, replay};

use crate::cli::{ConntrackArg, RunArgs, WhenFullArg};
use crate::export::{
    Batcher, ExportQueue, Exporter, ExporterOptions, OtlpConfig, Signal, Spool, SpoolLimits, WhenFull,
};
use crate::nflog::{Config, Flags, Loss, Netns, Warning};
use crate::owner::{MapSizes, Probes};
use crate::policy::{Engine, RuleCounts};
use crate::process::Processes;
use crate::service::{Manager, Store, Watchdog};
use crate::settings::Settings;
use crate::telemetry::ledger::Ledger;
use crate::telemetry::metrics::Metrics;
use crate::workload::kubernetes::Pods;
use crate::workload::{DEFAULT_CAPACITY, Resolver};
use account::Accounts;
use attributions::Attributions;
use devices::Devices;
use gaps::Gaps;
use netns::{Counts, Named, Namespace, own_inode};
use output::Output;
use owners::Owners;
use probes::Messages;
use reader::{Reader, Stage};
use rustix::time::{ClockId, clock_gettime};
use serve::Opened;
use sockets::Socket;
use tokio::runtime::Handle;

/// The agent's own network namespace, in messages.
const HERE: &str = "this network namespace";

/// Index of CAP_NET_ADMIN in the capability sets (`uapi/linux/capability.h`).
const CAP_NET_ADMIN: u64 = 12;

/// Runs until a signal, the end of the output's reader, or a failed reader.
///
/// # Errors
/// See [`RunError`].
pub fn run(settings: &Settings) -> Result<(), RunError> {
    let args = &settings.args;
    let manager = Arc::new(Manager::from_environment());
    let store = Store::open(Arc::clone(&manager));
    let output = Output::choose(args.into(), |name| settings.variable(name))?;
    nflog_config(args, Netns::Current, false)?;
    require_privileges()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let signals = signals::watch()?;
    let sizes = MapSizes {
        sockets: args.max_sockets,
        process_events: args.process_buffer,
        process_arguments: args.process_command_line,
        ..MapSizes::default()
    };
    let mut probes = probes::open(args.attribution, &args.groups, sizes)?;
    let processes = probes
        .as_mut()
        .and_then(|probes| processes::follow(probes, args.process_command_line));
    let messages = probes.as_mut().and_then(Messages::forward);
    let ledger = Ledger::new();
    let _entered = runtime.enter();
    let pods = kubernetes::watch(args, runtime.handle())?;
    let (queue, exporter) = start_exporter(args, &output, &ledger, runtime.handle())?;
    let agent = Agent {
        settings,
        args,
        output: &output,
        ledger: &ledger,
        queue: &queue,
        manager: &manager,
        store: &store,
        probes: probes.as_ref(),
        counts: Arc::default(),
        attributions: Arc::default(),
        rules: settings.policy.counts(),
        processes: processes.as_ref().map(|(processes, _)| processes),
        pods,
    };
    descriptors::allow_many();
    let (named, readers) = agent.open_readers()?;
    let metrics = agent.start_metrics(runtime.handle())?;
    let ended = agent.serve(named, readers, signals);
    let delivered = exporter.close(args.shutdown_timeout);
    if let Some(metrics) = metrics {
        metrics.shutdown(args.shutdown_timeout);
    }
    drop(messages);
    agent.summary(delivered);
    runtime.shutdown_background();
    ended
}

fn start_exporter(
    args: &RunArgs,
    output: &Output,
    ledger: &Arc<Ledger>,
    runtime: &Handle,
) -> Result<(ExportQueue, Exporter), RunError> {
    let (transport, options) = (output.transport()?, ExporterOptions::default());
    let Some(path) = args.spool.as_ref().filter(|_| output.is_otlp()) else {
        if args.spool.is_some() {
            tracing::warn!("--spool is for OTLP: the {} does without", output.describe());
        }
        return Ok(Exporter::start(transport, options, runtime));
    };
    let limits = SpoolLimits {
        bytes: args.spool_bytes,
        max_age: args.spool_max_age.as_secs(),
        when_full: match args.spool_when_full {
            WhenFullArg::DropOldest => WhenFull::DropOldest,
            WhenFullArg::DropNewest => WhenFull::DropNewest,
        },
        ..SpoolLimits::default()
    };
    let spool = Spool::open(path, limits, ledger)?;
    Ok(Exporter::start_with_spool(transport, options, spool, runtime)?)
}

struct Agent<'a> {
    settings: &'a Settings,
    args: &'a RunArgs,
    output: &'a Output,
    ledger: &'a Arc<Ledger>,
    queue: &'a ExportQueue,
    manager: &'a Manager,
    store: &'a Store,
    probes: Option<&'a Probes>,
    counts: Arc<Counts>,
    attributions: Arc<Attributions>,
    rules: Arc<RuleCounts>,
    processes: Option<&'a Arc<Processes>>,
    pods: Option<Arc<Pods>>,
}

impl<'a> Agent<'a> {
    /// The namespaces of the configuration, and one reader for each, all groups bound.
    fn open_readers(&self) -> Result<(Vec<Named>, Vec<Opened<'a>>), RunError> {
        if self.args.netns.is_empty() {
            if !self.args.netns_of_cgroup.is_empty() {
                return Ok((Vec::new(), Vec::new()));
            }
            let reader = self.open_reader(HERE.to_owned(), None, true)?;
            let here = Named::here(HERE, reader.stage.netns);
            let namespace = None;
            return Ok((vec![here], vec![Opened { reader, namespace }]));
        }
        let (mut all, mut opened, mut inodes) = (Vec::new(), Vec::new(), HashSet::new());
        for value in &self.args.netns {
            let (named, namespace) = Named::open(value)?;
            // Two names of one namespace.
            if inodes.insert(namespace.inode()) {
                let reader = self.open_reader(value.clone(), Some(&namespace), true)?;
                let namespace = Some(namespace);
                opened.push(Opened { reader, namespace });
            } else {
                tracing::info!("{value} is a network namespace that is read already, under another name");
            }
            all.push(named);
        }
        let (given, limit) = (opened.len(), self.args.max_netns);
        if limit < u32::try_from(given).unwrap_or(u32::MAX) {
            return Err(RunError::TooManyNamespaces { given, limit });
        }
        Ok((all, opened))
    }

    const fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Conntrack entries are a second key to what the probes know; the fallback does not use them.
    fn asks_conntrack(&self) -> bool {
        self.probes.is_some() && self.args.conntrack == ConntrackArg::Auto
    }

    /// Opens a reader in a namespace, or in the agent's own. `expected`: somebody asked for this very namespace, so silence there
    /// is worth a hint.
    fn open_reader(
        &self,
        name: String,
        namespace: Option<&Namespace>,
        expected: bool,
    ) -> Result<Reader<'a>, RunError> {
        let opened = self.open_reader_in(name, namespace, expected);
        opened.map_err(|error| match namespace {
            Some(namespace) => namespace.named(error),
            None => error,
        })
    }

    fn open_reader_in(
        &self,
        name: String,
        namespace: Option<&Namespace>,
        expected: bool,
    ) -> Result<Reader<'a>, RunError> {
        // The agent's own needs no CAP_SYS_ADMIN.
        let namespace = match namespace {
            Some(namespace) if namespace.inode() == own_inode()? => None,
            other => other,
        };
        let netns = namespace.map_or(Netns::Current, Namespace::netns);
        let devices = Devices::open(&netns)?;
        let owners = Owners::open(self.probes, &netns)?;
        let config = nflog_config(self.args, netns, self.asks_conntrack())?;
        let opened_ns = monotonic_ns();
        let Socket { nflog, note, adopted } = self.open_socket(&config, &name)?;
        for warning in &nflog.effective().warnings {
            tracing::warn!("{name}: {warning}{}", consequence(warning));
        }
        let netns = nflog.netns_inode();
        let encoder = self.output.encoder(self.ledger)?;
        let stage = Stage {
            name,
            netns,
            owners,
            resolver: Resolver::new("/proc", DEFAULT_CAPACITY, self.processes.cloned())
                .with_pods(self.pods.clone()),
            devices,
            policy: Engine::new(
                &self.settings.policy,
                &self.rules,
                self.ledger,
                netns,
                Instant::now(),
            ),
            batcher: Batcher::new(encoder, self.output.policy(), self.queue.clone()),
            ledger: Arc::clone(self.ledger),
            attributions: Arc::clone(&self.attributions),
            gaps: Gaps::new(netns),
            seen: Loss::default(),
            flush_timeout: config.timeout(),
            opened_ns,
            adopted,
            expected,
        };
        let longest_rest = self.manager.watchdog().map(Watchdog::longest_rest);
        Ok(Reader::new(nflog, note, stage, longest_rest))
    }

    /// The agent's own metrics, if the environment names an endpoint for them.
    fn start_metrics(&self, runtime: &Handle) -> Result<Option<Metrics>, RunError> {
        let Some(config) = OtlpConfig::from_env(Signal::Metrics, |name| self.settings.variable(name))? else {
            return Ok(None);
        };
        let mut families = Vec::from(self.counts.metrics());
        families.extend(self.attributions.metrics());
        families.extend(self.rules.metrics());
        if let Some(probes) = self.probes {
            families.push(probes::metric(probes.counters()));
            families.push(probes::left_out_metric(probes.statistics()));
        }
        families.extend(self.processes.map(processes::metric));
        let resource = self.output.resource();
        Ok(Some(Metrics::install(
            &config,
            resource,
            runtime,
            self.ledger,
            Some(self.queue),
            families,
        )?))
    }

    /// What reports the account to the collector; people at a console get it at the end.
    fn accounts(&self) -> Result<Option<Accounts>, RunError> {
        let interval = self.args.account_interval;
        if interval.is_zero() || self.output.is_console() {
            return Ok(None);
        }
        let encoder = self.output.encoder(self.ledger)?;
        let batcher = Batcher::new(encoder, self.output.policy(), self.queue.clone());
        Ok(Some(Accounts::new(
            batcher,
            self.ledger,
            interval,
            Instant::now(),
        )))
    }

    /// Says that all that is to be read at start is.
    fn say_reading(&self) {
        tracing::info!(
            "reading group {} in {}; {}",
            list(&self.args.groups),
            self.places(),
            self.output.describe()
        );
    }

    fn places(&self) -> String {
        let patterns = self.args.netns_of_cgroup.iter();
        let mut places = self.args.netns.clone();
        places.extend(patterns.map(|pattern| format!("the namespaces of cgroups {}", pattern.as_str())));
        if places.is_empty() {
            places.push(HERE.to_owned());
        }
        places.join(", ")
    }

    /// The account, on standard error.
    fn summary(&self, delivered: bool) {
        tracing::info!("{}", self.ledger.snapshot());
        tracing::info!("owners: {}", self.attributions);
        if !self.rules.is_empty() {
            tracing::info!("rules: {}", self.rules);
        }
        if !self.args.netns_of_cgroup.is_empty() {
            tracing::info!("network namespaces: {}", self.counts);
        }
        if !delivered {
            tracing::warn!("the exporter did not end in time; what it held is lost");
        }
        if let Some(probes) = self.probes {
            probes::summary(&probes.counters());
            probes::left_out(&probes.statistics());
        }
    }
}

fn nflog_config(args: &RunArgs, netns: Netns, conntrack: bool) -> Result<Config, RunError> {
    let numbered = Flags::SEQ | Flags::SEQ_GLOBAL;
    Ok(Config::builder()
        .netns(netns)
        .groups(args.groups.iter().copied())
        .flags(if conntrack {
            numbered | Flags::CONNTRACK
        } else {
            numbered
        })
        .copy_range(args.copy_range)
        .receive_buffer(args.receive_buffer)
        .timeout(args.flush_timeout)
        // The report costs one call per episode and is the sign that operators know.
        .no_enobufs(false)
        .build()?)
}

/// What a warning of the library means for the agent, as the end of its sentence.
const fn consequence(warning: &Warning) -> &'static str {
    match warning {
        Warning::ConntrackRefused => {
            "; where addresses are translated (NAT), packets that are logged with addresses other than their socket's have \
             no owner (--conntrack off silences this)"
        }
        _ => "",
    }
}

/// Says what is missing before anything is opened, so that one cause gives one message.
fn require_privileges() -> Result<(), RunError> {
    match procfs::process::Process::myself().and_then(|myself| myself.status()) {
        Ok(status) if status.capeff & (1 << CAP_NET_ADMIN) == 0 => Err(RunError::NotPrivileged),
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::warn!("cannot read my own capabilities: {error}");
            Ok(())
        }
    }
}

/// `CLOCK_MONOTONIC`, as the probes use.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let ns = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u64::try_from(ns).unwrap_or_default()
}

/// The counts that are not 0, in words: `one 3, other 2`; empty if all are.
fn nonzero(counts: impl IntoIterator<Item = (&'static str, u64)>) -> String {
    let seen = counts.into_iter().filter(|(_, count)| *count > 0);
    let parts: Vec<_> = seen.map(|(name, count)| format!("{name} {count}")).collect();
    parts.join(", ")
}

fn list(groups: &[u16]) -> String {
    groups.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}
