//! One thread per network namespace: entries in, records into the open batch.
//!
//! The thread waits for the socket and for nothing else: lookups do not sleep, and a batch that the export queue does not
//! take is lost and counted.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::attributions::Attributions;
use super::devices::Devices;
use super::entry::{Known, near, record};
use super::gaps::Gaps;
use super::owners::{Owners, connection};
use super::sockets::Orders;
use crate::export::Batcher;
use crate::nflog::{Batch, CloseError, Entry, Loss, Nflog, RecvError};
use crate::owner::{Attribution, LogTime, Reason};
use crate::packet::dissect;
use crate::policy::{Engine, InForce, Out};
use crate::record::{Record, Suppressed};
use crate::service::Note;
use crate::telemetry::health::Beat;
use crate::telemetry::ledger::{Ledger, Unsettled};
use crate::workload::{Peers, Resolver};

/// Longest sleep in `recv` while a loss is not reported yet: bounds how late the report goes out when nothing arrives.
const IDLE: Duration = Duration::from_millis(500);

/// Longest sleep otherwise: with hundreds of namespaces most readers have nothing to do.
const QUIET: Duration = Duration::from_secs(5);

/// On top of the flush timeout: the kernel's timer runs on jiffies (10 ms at HZ=100) and may be late by some.
const FLUSH_SLACK: Duration = Duration::from_millis(40);

/// How long a reader that has not seen a single packet waits before it says so.
const SILENCE: Duration = Duration::from_secs(10);

/// What a reader thread works with.
pub(super) struct Reader<'a> {
    pub(super) nflog: Nflog,
    pub(super) stage: Stage<'a>,
    note: Option<Note>,
    longest_rest: Duration,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        nflog: Nflog,
        note: Option<Note>,
        stage: Stage<'a>,
        longest_rest: Option<Duration>,
    ) -> Self {
        Self {
            nflog,
            stage,
            note,
            longest_rest: longest_rest.unwrap_or(QUIET),
        }
    }

    /// Reads until it is told to stop, then hands over what the kernel still holds. Touches `beat` in each round.
    ///
    /// # Errors
    /// When the socket fails for another reason than lost packets.
    pub(super) fn run(mut self, orders: &Orders, beat: &Beat) -> Result<(), ReaderError> {
        let started = Instant::now();
        let mut silent = true;
        while !orders.stop() {
            let now = Instant::now();
            beat.beat(now);
            let wait = self.stage.tick(now).min(self.longest_rest);
            let Some(mut batch) = self.nflog.recv(Some(wait))? else {
                self.stage.socket_loss(&self.nflog.loss()?);
                if silent && now.duration_since(started) >= SILENCE {
                    silent = false;
                    if self.stage.expected {
                        hint_at_silence(&self.stage.name);
                    }
                }
                continue;
            };
            silent = false;
            self.stage.batch(&mut batch);
            drop(batch);
            if let Some(note) = &mut self.note {
                note.write(&self.nflog);
            }
        }
        self.finish(orders.leaves())
    }

    /// Takes what was still queued, and reports the last gaps. Unbinds, unless the next process goes on with the socket.
    fn finish(self, leave: bool) -> Result<(), ReaderError> {
        let Self {
            nflog,
            mut stage,
            note,
            ..
        } = self;
        let closed = match note {
            Some(note) if leave => nflog
                .leave(|batch| stage.batch(batch))
                .map(|(handover, loss)| {
                    note.finish(handover);
                    loss
                })
                .map_err(ReaderError::from),
            _ => nflog.close(|batch| stage.batch(batch)).map_err(ReaderError::from),
        };
        if let Ok(loss) = &closed {
            stage.socket_loss(loss);
        }
        stage.policy.close(Instant::now(), &mut stage.batcher);
        stage.gaps.report_all(&mut stage.batcher);
        stage.batcher.flush();
        closed?;
        Ok(())
    }
}

/// Everything that an entry passes through.
pub(super) struct Stage<'a> {
    pub(super) name: String,
    pub(super) netns: u32,
    pub(super) owners: Owners<'a>,
    pub(super) resolver: Resolver,
    pub(super) peers: Peers,
    pub(super) devices: Devices,
    pub(super) policy: Engine,
    pub(super) policy_in_force: Arc<InForce>,
    /// Of what is in `policy`.
    pub(super) policy_generation: u64,
    pub(super) batcher: Batcher,
    pub(super) ledger: Arc<Ledger>,
    pub(super) attributions: Arc<Attributions>,
    pub(super) gaps: Gaps,
    pub(super) seen: Loss,
    pub(super) flush_timeout: Duration,
    /// When the groups were not bound yet, or by a former process; the probes were attached: `CLOCK_MONOTONIC` ns.
    pub(super) opened_ns: u64,
    /// They were bound by a former process.
    pub(super) adopted: bool,
    /// Somebody asked for this very namespace.
    pub(super) expected: bool,
}

impl Stage<'_> {
    /// Does what is due, and tells how long nothing else will be.
    fn tick(&mut self, now: Instant) -> Duration {
        self.follow_policy(now);
        self.gaps.report(&mut self.batcher, now);
        self.policy.tick(now, &mut self.batcher);
        self.batcher.tick(now);
        let idle = if self.gaps.is_empty() && !self.seen.pending {
            QUIET
        } else {
            IDLE
        };
        let due = [self.batcher.deadline(), self.policy.deadline()];
        let due = due.into_iter().flatten().min();
        due.map_or(idle, |due| due.saturating_duration_since(now).min(idle))
    }

    /// Goes on with the policy in force, if that is another one by now.
    fn follow_policy(&mut self, now: Instant) {
        if let Some((generation, policy)) = self.policy_in_force.newer(self.policy_generation) {
            self.policy.replace(&policy, now, &mut self.batcher);
            self.policy_generation = generation;
        }
    }

    /// Passes on what the socket counted since the last time.
    fn socket_loss(&mut self, loss: &Loss) {
        self.ledger.socket(loss, &self.seen);
        self.seen = *loss;
    }

    fn batch(&mut self, batch: &mut Batch<'_>) {
        self.resolver.refresh();
        let now = Instant::now();
        self.follow_policy(now);
        let observed = unix_nano(SystemTime::now());
        let after = self.logged_after(batch.last_empty_ns());
        // What a former process's socket had queued was logged when nobody watched: whoever has its addresses now may not have had them.
        let logged = (!self.adopted || after >= self.opened_ns).then(|| LogTime {
            after: after.max(self.opened_ns),
            before: batch.received_ns(),
        });
        for entry in batch {
            let lost = u64::from(entry.lost_before());
            if lost > 0 {
                self.ledger.gap(lost);
                self.gaps.add(entry.group(), lost, observed);
            }
            self.entry(&entry, logged, observed, now);
        }
    }

    /// Lower bound of the time at which any packet of a datagram was logged, `CLOCK_MONOTONIC` ns: when the socket was last
    /// empty, less the time that the kernel may have held the packet back.
    fn logged_after(&self, last_empty_ns: Option<u64>) -> u64 {
        let held = u64::try_from((self.flush_timeout + FLUSH_SLACK).as_nanos()).unwrap_or(u64::MAX);
        last_empty_ns.unwrap_or(0).saturating_sub(held)
    }

    /// `logged`: `None` if that was perhaps before the start.
    fn entry(&mut self, entry: &Entry<'_>, logged: Option<LogTime>, observed: u64, now: Instant) {
        let packet = dissect(
            entry.hw_protocol(),
            entry.family().number(),
            entry.network_payload(),
        );
        let attribution = match logged {
            Some(logged) => self.owners.find(entry, &packet, logged),
            None => Attribution::Unowned(Reason::BeforeStart),
        };
        self.attributions.count(&attribution);
        let process = attribution.owner().and_then(|owner| self.resolver.resolve(owner));
        let near = attribution.end().or_else(|| entry.hook().and_then(near));
        let workload = process.as_deref().map(|process| &*process.workload);
        let other = self.peers.find(&packet, near, workload, || connection(entry));
        for index in [
            entry.indev(),
            entry.outdev(),
            entry.physindev(),
            entry.physoutdev(),
        ]
        .into_iter()
        .flatten()
        {
            self.devices.refresh(index, now);
        }
        let prefix = entry.prefix_lossy();
        let rule = self.policy.logging_rule(&prefix);
        let known = Known {
            observed,
            netns: self.netns,
            prefix: &prefix,
            packet: &packet,
            attribution: &attribution,
            process: process.as_deref(),
            peer: other.pod,
            peer_service: other.service.as_deref(),
            rule: rule.as_deref(),
        };
        let record = record(entry, &known, |index| self.devices.name(index));
        self.policy.take(&record, now, &mut self.batcher);
    }
}

impl Out for Batcher {
    fn packet(&mut self, record: &Record<'_>, now: Instant) {
        self.push(record, now);
    }

    fn held(&mut self, record: &Record<'_>, held: &mut Unsettled, now: Instant) {
        self.push_held(record, held, now);
    }

    fn suppressed(&mut self, suppressed: &Suppressed<'_>, now: Instant) {
        self.push_suppressed(suppressed, now);
    }
}

pub(super) fn unix_nano(time: SystemTime) -> u64 {
    // A clock before 1970 is a clock that is not set.
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn hint_at_silence(name: &str) {
    tracing::warn!(
        "{name}: nothing logged for {} s; is there a rule with `log group N` (nft) or `-j NFLOG --nflog-group N` \
         (iptables) in this network namespace?",
        SILENCE.as_secs()
    );
}

/// Why a reader stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// Receiving failed.
    #[error(transparent)]
    Recv(#[from] RecvError),
    /// The groups could not be left cleanly.
    #[error(transparent)]
    Close(#[from] CloseError),
}
