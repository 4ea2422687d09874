//! Capture files through the stages behind the socket: what `run` would have made of their packets, without owners.
//!
//! Unlike a reader of the socket, this waits for the output: a file does not overflow. Time is the capture's, so that limits and flows are
//! what they would have been.

use std::fs::File;
use std::io::{self, ErrorKind, Read, stdin};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::entry::{Known, record};
use super::output::Output;
use super::{RunError, nonzero};
use crate::cli::ReplayArgs;
use crate::exit_codes;
use crate::export::{Batcher, ExportQueue, Exporter, ExporterOptions};
use crate::nflog::pcap::{ReadError, Reader, Record as Captured};
use crate::owner::{Attribution, Reason};
use crate::packet::dissect;
use crate::policy::Engine;
use crate::settings::Settings;
use crate::telemetry::ledger::Ledger;

/// How long to wait for room in the queue.
const WAIT: Duration = Duration::from_millis(2);

/// Why a replay did not go through.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The output cannot be set up, or not be written.
    #[error(transparent)]
    Output(Box<RunError>),
    /// A file cannot be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A file is no capture, or damaged. What was read before is replayed.
    #[error("{}: {source}", path.display())]
    Capture {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: ReadError,
    },
    /// The collector did not take everything.
    #[error("{lost} packets were not delivered: see the messages above")]
    NotDelivered {
        /// How many.
        lost: u64,
    },
}

impl From<RunError> for ReplayError {
    fn from(error: RunError) -> Self {
        Self::Output(Box::new(error))
    }
}

impl ReplayError {
    /// Exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Output(error) => error.exit_code(),
            Self::Open { .. } => exit_codes::NO_INPUT,
            Self::Capture { .. } => exit_codes::DATA,
            Self::NotDelivered { .. } => exit_codes::IO,
        }
    }
}

/// Replays capture files.
///
/// # Errors
/// See [`ReplayError`]. What was read before an error has been delivered. That nobody reads the output any more is none.
pub fn replay(settings: &Settings<ReplayArgs>) -> Result<(), ReplayError> {
    let args = &settings.args;
    let output = Output::choose(&args.output, |name| settings.variable(name))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(RunError::from)?;
    let _entered = runtime.enter();
    let ledger = Ledger::new();
    let (queue, exporter) =
        Exporter::start(output.transport()?, ExporterOptions::default(), runtime.handle());
    let counts = settings.policy.counts();
    let start = Instant::now();
    let mut replay = Replay {
        policy: Engine::new(&settings.policy, &counts, &ledger, 0, start),
        batcher: Batcher::new(output.encoder(&ledger)?, output.policy(), queue.clone()),
        queue: &queue,
        clock: Clock {
            start,
            first: None,
            now: start,
        },
        odd: Odd::default(),
    };
    let read = args.files.iter().try_for_each(|path| replay.file(path));
    replay.finish();
    let delivered = exporter.close(args.drain_timeout);
    let account = ledger.snapshot();
    tracing::info!("{account}");
    runtime.shutdown_background();
    read?;
    match queue.sink_error() {
        None if delivered && account.lost_total() == 0 => Ok(()),
        None => Err(ReplayError::NotDelivered {
            lost: account.lost_total() + account.in_flight(),
        }),
        Some(ErrorKind::BrokenPipe) => Ok(()),
        Some(kind) => Err(RunError::Output { kind }.into()),
    }
}

struct Replay<'a> {
    policy: Engine,
    batcher: Batcher,
    queue: &'a ExportQueue,
    clock: Clock,
    odd: Odd,
}

/// What is in a file beside packets.
#[derive(Default)]
struct Odd {
    other_link_type: u64,
    no_entry: u64,
    damaged_block: u64,
}

impl Replay<'_> {
    fn file(&mut self, path: &Path) -> Result<(), ReplayError> {
        let failed = |source| ReplayError::Capture {
            path: path.into(),
            source,
        };
        let mut reader = Reader::new(open(path)?).map_err(failed)?;
        while !self.queue.sink_gone() {
            match reader.next_entry() {
                Ok(Some(captured)) => self.packet(&captured),
                Ok(None) => break,
                Err(ReadError::LinkType { .. }) => self.odd.other_link_type += 1,
                Err(ReadError::NotAnEntry { .. }) => self.odd.no_entry += 1,
                Err(ReadError::PacketBlock { .. }) => self.odd.damaged_block += 1,
                Err(error) => return Err(failed(error)),
            }
        }
        let odd = std::mem::take(&mut self.odd);
        let odd = nonzero([
            ("of another link type", odd.other_link_type),
            ("no NFLOG message", odd.no_entry),
            ("damaged", odd.damaged_block),
        ]);
        if !odd.is_empty() {
            tracing::warn!("{}: left out records: {odd}", path.display());
        }
        Ok(())
    }

    fn packet(&mut self, captured: &Captured<'_>) {
        while self.queue.is_crowded() && !self.queue.sink_gone() {
            std::thread::sleep(WAIT);
        }
        let entry = &captured.entry;
        let packet = dissect(
            entry.hw_protocol(),
            entry.family().number(),
            entry.network_payload(),
        );
        let prefix = entry.prefix_lossy();
        let rule = self.policy.logging_rule(&prefix);
        let known = Known {
            observed: u64::try_from(captured.timestamp.as_nanos()).unwrap_or(u64::MAX),
            netns: 0,
            prefix: &prefix,
            packet: &packet,
            attribution: &Attribution::Unowned(Reason::Replayed),
            process: None,
            peer: None,
            peer_service: None,
            rule: rule.as_deref(),
        };
        let now = self.clock.at(captured.timestamp);
        self.policy.tick(now, &mut self.batcher);
        let record = record(entry, &known, |_| None);
        self.policy.take(&record, now, &mut self.batcher);
    }

    fn finish(mut self) {
        self.policy.close(self.clock.now, &mut self.batcher);
        self.batcher.flush();
    }
}

/// The capture's time, which never runs back.
struct Clock {
    start: Instant,
    first: Option<Duration>,
    now: Instant,
}

impl Clock {
    fn at(&mut self, timestamp: Duration) -> Instant {
        let first = *self.first.get_or_insert(timestamp);
        let at = self.start.checked_add(timestamp.saturating_sub(first));
        self.now = at.map_or(self.now, |at| at.max(self.now));
        self.now
    }
}

fn open(path: &Path) -> Result<Box<dyn Read>, ReplayError> {
    if path == Path::new("-") {
        return Ok(Box::new(stdin()));
    }
    match File::open(path) {
        Ok(file) => Ok(Box::new(file)),
        Err(source) => Err(ReplayError::Open {
            path: path.into(),
            source,
        }),
    }
}
