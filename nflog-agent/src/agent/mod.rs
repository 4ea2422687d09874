//! Wires the stages, starts them and stops them.
//!
//! Start: settings, privileges, probes, confinement, exporter, readers. Probes come before the readers bind their groups, so that the
//! first entry already has its owner. Then `serve` runs until the end, and `reload` when asked. Stop: readers drain, and unbind unless the
//! service manager keeps their sockets for the next process; then the exporter delivers what is queued.

mod account;
mod attributions;
mod confined;
mod descriptors;
mod devices;
mod engines;
mod entry;
mod error;
mod exporting;
mod gaps;
mod health;
pub(crate) mod kubernetes;
mod metrics;
mod netns;
mod notices;
mod output;
mod owners;
mod probes;
mod processes;
mod reader;
mod reload;
mod replay;
mod serve;
mod signals;
mod sockets;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use error::RunError;
pub(crate) use error::{netns_exit_code, open_exit_code};
pub use netns::{CgroupPattern, CgroupPatternError};
pub use output::Viewer;
pub(crate) use output::colour;
pub use reader::ReaderError;
pub use replay::{ReplayError, replay};

use crate::cli::{ConntrackArg, RunArgs};
use crate::confinement::{self, Confinement, Role};
use crate::export::{Batcher, ExportQueue, SpoolUsage};
use crate::nflog::{Config, Flags, Loss, Netns, Warning, monotonic_ns};
use crate::owner::{MapSizes, Probes};
use crate::policy::{Engine, InForce, RuleCounts};
use crate::process::Processes;
use crate::service::{Manager, Store, Watchdog};
use crate::settings::Settings;
use crate::telemetry::endpoint::Site;
use crate::telemetry::health::{Health, Phase, Shortcoming};
use crate::telemetry::ledger::Ledger;
use crate::telemetry::standard_error;
use crate::workload::engines::Engines;
use crate::workload::{DEFAULT_CAPACITY, Peers, Resolver};
use account::Accounts;
use attributions::Attributions;
use devices::Devices;
use gaps::Gaps;
use netns::{Counts, Named, Namespace, own_inode};
pub(crate) use output::Output;
use owners::Owners;
use probes::Messages;
use reader::{Reader, Stage};
use reload::Reloads;
use serve::Opened;
use sockets::Socket;
use tokio::runtime::Runtime;

/// The agent's own network namespace, in messages.
const HERE: &str = "this network namespace";

/// Index of CAP_NET_ADMIN in the capability sets (`uapi/linux/capability.h`).
const CAP_NET_ADMIN: u64 = 12;

/// Runs until a signal, the end of the output's reader, or a failed reader.
///
/// # Errors
/// See [`RunError`].
pub fn run(settings: &Settings) -> Result<(), RunError> {
    let output = Output::choose(&settings.args.output, |name| settings.variable(name))?;
    run_to(&output, settings)
}

/// The same, with a viewer in place of the output that the settings name.
///
/// # Errors
/// See [`RunError`].
pub fn show(settings: &Settings, viewer: Arc<dyn Viewer>) -> Result<(), RunError> {
    run_to(&Output::viewer(viewer), settings)
}

fn run_to(output: &Output, settings: &Settings) -> Result<(), RunError> {
    let args = &settings.args;
    let manager = Arc::new(Manager::from_environment());
    let store = Store::open(Arc::clone(&manager));
    nflog_config(args, Netns::Current, false)?;
    require_privileges()?;
    let (collector, endpoint) = if output.is_viewer() {
        (None, None)
    } else {
        (metrics::collector(settings)?, health::bind(args.listen)?)
    };
    let health = Health::new(Instant::now());
    let signals = signals::watch(reloads(args, output))?;
    let sizes = MapSizes {
        sockets: args.max_sockets,
        process_events: args.process_buffer,
        process_arguments: args.process_command_line,
        ..MapSizes::default()
    };
    let mut probes = probes::open(args.attribution, &args.groups, sizes)?;
    let ledger = Ledger::new();
    let spool = exporting::open_spool(args, output, &ledger)?;
    // Until here there is this thread only. Each of those to come begins in its role; this one keeps what it has until all is open.
    let confinement = Arc::new(confined::start(
        settings,
        output,
        collector.as_ref(),
        probes.as_ref(),
    )?);
    confinement.run_as(Role::Outward, standard_error::start)??;
    let runtime = start_runtime(&confinement)?;
    let processes = confinement.run_as(Role::Inward, || {
        let probes = probes.as_mut()?;
        processes::follow(probes, args.process_command_line)
    })?;
    let messages = confinement.run_as(Role::Outward, || probes.as_mut().and_then(Messages::forward))?;
    let _entered = runtime.enter();
    let names = kubernetes::watch(args, runtime.handle())?;
    let site = health::serve(endpoint, &health, runtime.handle())?;
    let engines = engines::ask(args, runtime.handle());
    let usage = spool.as_ref().map(|spool| Arc::clone(spool.usage()));
    let (queue, exporter) = confinement.run_as(Role::Outward, || {
        exporting::start(output, spool, runtime.handle())
    })??;
    queue.watch(health::of_exporter(&health));
    health::note(&health, args.attribution, probes.as_ref(), processes.is_some());
    let agent = Agent {
        settings,
        args,
        output,
        ledger: &ledger,
        queue: &queue,
        manager: &manager,
        store: &store,
        probes: probes.as_ref(),
        counts: Arc::default(),
        attributions: Arc::default(),
        rules: settings.policy.counts(),
        policy: Arc::new(InForce::new(Arc::clone(&settings.policy))),
        reloads: Arc::default(),
        processes: processes.as_ref().map(|(processes, _)| processes),
        names,
        engines,
        node: netns::node_inode(),
        health: &health,
        site: site.as_ref(),
        spool: usage.as_ref(),
    };
    descriptors::allow_many();
    let (named, readers) = agent.open_readers()?;
    let sent = confinement.run_as(Role::Outward, || {
        let _entered = runtime.enter();
        agent.start_metrics(collector.as_ref(), runtime.handle())
    })??;
    confinement.enter(Role::Inward);
    let ended = agent.serve(named, readers, signals);
    let delivered = exporter.close(args.shutdown_timeout);
    if let Some(metrics) = sent {
        metrics.shutdown(args.shutdown_timeout);
    }
    drop(messages);
    agent.summary(delivered);
    runtime.shutdown_background();
    ended
}

/// Whether SIGHUP has the configuration read again. Without a file, or with a view on the terminal, it asks for the end.
const fn reloads(args: &RunArgs, output: &Output) -> bool {
    args.config.is_some() && !output.is_viewer()
}

fn start_runtime(confinement: &Arc<Confinement>) -> Result<Runtime, RunError> {
    let confinement = Arc::clone(confinement);
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(confinement::NETWORK)
        .on_thread_start(move || confinement.enter_outward_once())
        .enable_all()
        .build()?)
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
    policy: Arc<InForce>,
    reloads: Arc<Reloads>,
    processes: Option<&'a Arc<Processes>>,
    names: kubernetes::Names,
    engines: Option<Arc<Engines>>,
    /// Inode of the node's own network namespace, as far as it can be told.
    node: Option<u32>,
    health: &'a Arc<Health>,
    site: Option<&'a Arc<Site>>,
    spool: Option<&'a Arc<SpoolUsage>>,
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

    /// Conntrack entries are a second key to what the probes know, which the fallback does not use; and they tell which Service's address
    /// a connection was made to.
    fn asks_conntrack(&self) -> bool {
        let used = self.probes.is_some() || self.names.services.is_some();
        used && self.args.conntrack == ConntrackArg::Auto
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
            if matches!(warning, Warning::ConntrackRefused) {
                self.health.lacks(Shortcoming::NoConntrack, warning);
            }
        }
        let netns = nflog.netns_inode();
        let encoder = self.output.encoder(self.ledger)?;
        let (generation, policy) = self.policy.get();
        let stage = Stage {
            name,
            netns,
            owners,
            resolver: Resolver::new("/proc", DEFAULT_CAPACITY, self.processes.cloned())
                .with_names(self.names.pods.clone(), self.engines.clone()),
            peers: Peers::new(
                self.names.pods.clone(),
                self.names.services.clone(),
                self.node == Some(netns),
            ),
            devices,
            policy: Engine::new(&policy, &self.rules, self.ledger, netns, Instant::now()),
            policy_in_force: Arc::clone(&self.policy),
            policy_generation: generation,
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

    /// What reports the account to the collector; people at a console get it at the end.
    fn accounts(&self, interval: Duration) -> Result<Option<Accounts>, RunError> {
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
        let what = format!("group {} in {}", list(&self.args.groups), self.places());
        tracing::info!("reading {what}; {}", self.output.describe());
        self.health.set_phase(Phase::Reading(what));
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

/// The settings of the library that these arguments stand for.
///
/// # Errors
/// The first that it does not take.
pub(crate) fn nflog_config(args: &RunArgs, netns: Netns, conntrack: bool) -> Result<Config, RunError> {
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

/// The counts that are not 0, in words: `one 3, other 2`; empty if all are.
fn nonzero(counts: impl IntoIterator<Item = (&'static str, u64)>) -> String {
    let seen = counts.into_iter().filter(|(_, count)| *count > 0);
    let parts: Vec<_> = seen.map(|(name, count)| format!("{name} {count}")).collect();
    parts.join(", ")
}

fn list(groups: &[u16]) -> String {
    groups.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}
