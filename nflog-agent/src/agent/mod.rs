//! Wires the stages, starts them and stops them.
//!
//! Start: settings, privileges, probes, readers, exporter. Probes come before the readers bind their groups, so that the
//! first entry already has its owner. Stop: readers unbind and drain, then the exporter delivers what is queued.

mod devices;
mod error;
mod gaps;
mod output;
mod owners;
mod probes;
mod reader;
mod signals;

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, Scope, ScopedJoinHandle, scope, sleep};
use std::time::Duration;

pub use error::{EXIT_USAGE, RunError};
pub use reader::ReaderError;

use crate::cli::{ConntrackArg, RunArgs, WhenFullArg, netns_path};
use crate::export::{
    Batcher, ExportQueue, Exporter, ExporterOptions, OtlpConfig, Signal, Spool, SpoolLimits, WhenFull,
    environment,
};
use crate::nflog::{Config, Flags, Loss, Netns, Nflog, Waker, Warning};
use crate::owner::{MapSizes, Probes};
use crate::telemetry::ledger::Ledger;
use crate::telemetry::metrics::Metrics;
use crate::workload::{DEFAULT_CAPACITY, Resolver};
use devices::Devices;
use gaps::Gaps;
use output::Output;
use owners::Owners;
use probes::Messages;
use reader::{Reader, Stage};
use tokio::runtime::Handle;

/// The agent's own network namespace, in messages.
const HERE: &str = "this network namespace";

/// How often to look whether a reader has ended.
const WATCH: Duration = Duration::from_millis(50);

/// Index of CAP_NET_ADMIN in the capability sets (`uapi/linux/capability.h`).
const CAP_NET_ADMIN: u64 = 12;

/// Runs until a signal, the end of the output's reader, or a failed reader.
///
/// # Errors
/// See [`RunError`].
pub fn run(args: &RunArgs) -> Result<(), RunError> {
    let output = Output::choose(args, environment)?;
    nflog_config(args, Netns::Current, false)?;
    require_privileges()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let signals = signals::watch()?;
    let sizes = MapSizes {
        sockets: args.max_sockets,
        ..MapSizes::default()
    };
    let mut probes = probes::open(args.attribution, &args.groups, sizes)?;
    let messages = probes.as_mut().and_then(Messages::forward);
    let ledger = Ledger::new();
    let _entered = runtime.enter();
    let (queue, exporter) = start_exporter(args, &output, &ledger, runtime.handle())?;
    let agent = Agent {
        args,
        output: &output,
        ledger: &ledger,
        queue: &queue,
        probes: probes.as_ref(),
    };
    let readers = agent.open_readers()?;
    let metrics = agent.start_metrics(runtime.handle())?;
    tracing::info!(
        "reading group {} in {}; {}",
        list(&args.groups),
        agent.places(),
        output.describe()
    );
    let ended = agent.serve(readers, signals);
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
    args: &'a RunArgs,
    output: &'a Output,
    ledger: &'a Arc<Ledger>,
    queue: &'a ExportQueue,
    probes: Option<&'a Probes>,
}

impl<'a> Agent<'a> {
    /// One reader for each namespace, all groups bound.
    fn open_readers(&self) -> Result<Vec<Reader<'a>>, RunError> {
        if self.args.netns.is_empty() {
            return Ok(vec![self.open_reader(None)?]);
        }
        self.args
            .netns
            .iter()
            .map(|netns| self.open_reader(Some(netns)))
            .collect()
    }

    /// Conntrack entries are a second key to what the probes know; the fallback does not use them.
    fn asks_conntrack(&self) -> bool {
        self.probes.is_some() && self.args.conntrack == ConntrackArg::Auto
    }

    fn open_reader(&self, name: Option<&str>) -> Result<Reader<'a>, RunError> {
        let netns = name.map_or(Netns::Current, |name| Netns::Path(netns_path(name)));
        let devices = Devices::open(&netns)?;
        let owners = Owners::open(self.probes, &netns)?;
        let config = nflog_config(self.args, netns, self.asks_conntrack())?;
        let nflog = Nflog::open(&config)?;
        let name = name.unwrap_or(HERE).to_owned();
        for warning in &nflog.effective().warnings {
            tracing::warn!("{name}: {warning}{}", consequence(warning));
        }
        let netns = nflog.netns_inode();
        let encoder = self.output.encoder(self.ledger);
        let stage = Stage {
            name,
            netns,
            owners,
            resolver: Resolver::new("/proc", DEFAULT_CAPACITY),
            devices,
            batcher: Batcher::new(encoder, self.output.policy(), self.queue.clone()),
            ledger: Arc::clone(self.ledger),
            gaps: Gaps::new(netns),
            seen: Loss::default(),
            flush_timeout: config.timeout(),
        };
        Ok(Reader { nflog, stage })
    }

    /// The agent's own metrics, if the environment names an endpoint for them.
    fn start_metrics(&self, runtime: &Handle) -> Result<Option<Metrics>, RunError> {
        let Some(config) = OtlpConfig::from_env(Signal::Metrics, environment)? else {
            return Ok(None);
        };
        let families = self.probes.map(|probes| {
            let left_out = probes::left_out_metric(probes.statistics());
            vec![probes::metric(probes.counters()), left_out]
        });
        let (resource, families) = (self.output.resource(), families.unwrap_or_default());
        Ok(Some(Metrics::install(
            &config,
            resource,
            runtime,
            self.ledger,
            Some(self.queue),
            families,
        )?))
    }

    /// Runs the readers to their end.
    fn serve(
        &self,
        readers: Vec<Reader<'a>>,
        mut signals: signal_hook::iterator::Signals,
    ) -> Result<(), RunError> {
        let stop = AtomicBool::new(false);
        let wakers: Vec<Waker> = readers.iter().map(|reader| reader.nflog.waker()).collect();
        let halt = |why: &str| {
            if !stop.swap(true, Ordering::AcqRel) {
                tracing::info!("stopping: {why}");
            }
            for waker in &wakers {
                if let Err(error) = waker.wake() {
                    tracing::warn!("cannot wake a reader, it stops within a second: {error}");
                }
            }
        };
        let handle = signals.handle();
        scope(|scope| {
            let signal_thread = scope.spawn(|| {
                if let Some(signal) = signals.forever().next() {
                    halt(signals::name(signal));
                }
            });
            let ended = self.join(start(scope, readers, &stop), &halt);
            handle.close();
            // Ends when the handle is closed; it cannot panic.
            let _ = signal_thread.join();
            ended
        })
    }

    /// Waits for every reader; the first that ends, for whatever reason, stops the others.
    fn join(
        &self,
        threads: Result<Vec<ScopedJoinHandle<'_, Result<(), ReaderError>>>, RunError>,
        halt: &impl Fn(&str),
    ) -> Result<(), RunError> {
        let threads = threads.inspect_err(|_| halt("a reader could not be started"))?;
        let mut result = Ok(());
        let mut waiting = threads;
        while !waiting.is_empty() {
            if waiting.iter().any(ScopedJoinHandle::is_finished) {
                halt("a reader has ended");
            } else if self.queue.sink_gone() {
                halt("the output takes no more");
            }
            let finished: Vec<_>;
            (finished, waiting) = waiting.into_iter().partition(ScopedJoinHandle::is_finished);
            for thread in finished {
                let ended = thread.join().map_or(Err(RunError::ReaderPanicked), |ended| {
                    ended.map_err(RunError::from)
                });
                if result.is_ok() {
                    result = ended;
                }
            }
            sleep(WATCH);
        }
        // A reader that goes away is how a pipe ends; a full disk is not.
        match self.queue.sink_error() {
            Some(kind) if kind != ErrorKind::BrokenPipe => result.and(Err(RunError::Output { kind })),
            _ => result,
        }
    }

    fn places(&self) -> String {
        if self.args.netns.is_empty() {
            HERE.to_owned()
        } else {
            self.args.netns.join(", ")
        }
    }

    /// The account, on standard error.
    fn summary(&self, delivered: bool) {
        tracing::info!("{}", self.ledger.snapshot());
        if !delivered {
            tracing::warn!("the exporter did not end in time; what it held is lost");
        }
        if let Some(probes) = self.probes {
            probes::summary(&probes.counters());
            probes::left_out(&probes.statistics());
        }
    }
}

fn start<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    readers: Vec<Reader<'env>>,
    stop: &'scope AtomicBool,
) -> Result<Vec<ScopedJoinHandle<'scope, Result<(), ReaderError>>>, RunError> {
    readers
        .into_iter()
        .map(|reader| {
            let name = format!("nflog {}", reader.stage.name);
            Ok(Builder::new()
                .name(name)
                .spawn_scoped(scope, move || reader.run(stop))?)
        })
        .collect()
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

fn list(groups: &[u16]) -> String {
    groups.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}
