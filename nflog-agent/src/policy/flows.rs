//! Packets of one flow put together: the record of the first one, with counts.
//!
//! - One flow: the same namespace, group, hook, family, devices, prefix, ends (addresses, protocol, ports, ICMP type and code) and
//!   attribution. So a record never has packets of two owners in it.
//! - A flow ends `interval` after its first packet, once it had no packet for `idle`, when the table is full and it is the oldest, or with
//!   the reader. It can be late by an eighth of `idle`, and packets that come meanwhile begin another one.
//! - Its first packet is on this table's account, in flight; each further one is counted as aggregated at once.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::time::{Duration, Instant};

use super::engine::Out;
use crate::owner::Attribution;
use crate::packet::{Packet, Transport};
use crate::record::{Device, Flow, Record, RecordBuf};
use crate::telemetry::ledger::Unsettled;

#[derive(Clone, Copy, Debug)]
pub(super) struct FlowLimits {
    pub(super) interval: Duration,
    pub(super) idle: Option<Duration>,
    pub(super) max_flows: usize,
}

/// The open flows of one rule.
#[derive(Debug)]
pub(super) struct Flows {
    limits: FlowLimits,
    /// By a keyed hash of what they have in common.
    open: HashMap<u64, OpenFlow>,
    /// Hash, number and first packet of the flows in the order of their beginning; some have ended since.
    order: VecDeque<(u64, u64, Instant)>,
    begun: u64,
    swept: Instant,
    hasher: RandomState,
    held: Unsettled,
    /// Hashes of flows that are to end; kept for its memory.
    ending: Vec<u64>,
}

#[derive(Debug)]
struct OpenFlow {
    number: u64,
    first: RecordBuf,
    counts: Flow,
    began: Instant,
    last: Instant,
}

impl OpenFlow {
    fn add(&mut self, record: &Record<'_>, now: Instant) {
        let counts = &mut self.counts;
        counts.packets += 1;
        counts.bytes += bytes(record.packet);
        counts.start_unix_nano = counts.start_unix_nano.min(record.time_unix_nano);
        counts.end_unix_nano = counts.end_unix_nano.max(record.time_unix_nano);
        self.last = self.last.max(now);
        if let Transport::Tcp { flags: more, .. } = record.packet.transport
            && let Transport::Tcp { flags, .. } = &mut self.first.packet_mut().transport
        {
            *flags |= more;
        }
    }

    fn is_over(&self, limits: &FlowLimits, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= limits.interval
            || limits
                .idle
                .is_some_and(|idle| now.saturating_duration_since(self.last) >= idle)
    }
}

impl Flows {
    pub(super) fn new(limits: FlowLimits, held: Unsettled, now: Instant) -> Self {
        Self {
            limits,
            open: HashMap::new(),
            order: VecDeque::new(),
            begun: 0,
            swept: now,
            hasher: RandomState::new(),
            held,
            ending: Vec::new(),
        }
    }

    /// Takes a packet in. Returns whether it is in the flow's count only, beside another one's record.
    pub(super) fn add(&mut self, record: &Record<'_>, now: Instant, out: &mut impl Out) -> bool {
        let hash = self.hash(record);
        if let Some(flow) = self.open.get_mut(&hash) {
            if !flow.is_over(&self.limits, now) && same(&flow.first.as_record(), record) {
                flow.add(record, now);
                return true;
            }
            self.end(hash, now, out);
        }
        while self.open.len() >= self.limits.max_flows {
            self.end_oldest(now, out);
        }
        self.begin(hash, record, now);
        false
    }

    /// Ends what is over.
    pub(super) fn tick(&mut self, now: Instant, out: &mut impl Out) {
        while let Some(&(hash, number, began)) = self.order.front() {
            let open = self.is_open(hash, number);
            if open && now.saturating_duration_since(began) < self.limits.interval {
                break;
            }
            self.order.pop_front();
            if open {
                self.end(hash, now, out);
            }
        }
        if self.sweep_at().is_some_and(|at| now >= at) {
            self.swept = now;
            let mut ending = std::mem::take(&mut self.ending);
            let over = self
                .open
                .iter()
                .filter(|(_, flow)| flow.is_over(&self.limits, now));
            ending.extend(over.map(|(hash, _)| *hash));
            ending.drain(..).for_each(|hash| self.end(hash, now, out));
            self.ending = ending;
        }
    }

    /// When [`tick`](Self::tick) has something to do at the earliest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let interval = self
            .order
            .front()
            .map(|(.., began)| *began + self.limits.interval);
        [interval, self.sweep_at()].into_iter().flatten().min()
    }

    /// Ends all.
    pub(super) fn close(&mut self, now: Instant, out: &mut impl Out) {
        while !self.open.is_empty() {
            self.end_oldest(now, out);
        }
        self.order.clear();
    }

    /// When idle flows are looked for next. Looking costs as much as there are flows.
    fn sweep_at(&self) -> Option<Instant> {
        let idle = self.limits.idle.filter(|_| !self.open.is_empty())?;
        Some(self.swept + idle / 8)
    }

    fn begin(&mut self, hash: u64, record: &Record<'_>, now: Instant) {
        let number = self.begun;
        self.begun += 1;
        self.held.receive();
        let counts = Flow {
            packets: 1,
            bytes: bytes(record.packet),
            start_unix_nano: record.time_unix_nano,
            end_unix_nano: record.time_unix_nano,
        };
        // Numbers of a packet say nothing of a flow.
        let first = RecordBuf::new(&Record {
            seq: None,
            seq_global: None,
            ..*record
        });
        let flow = OpenFlow {
            number,
            first,
            counts,
            began: now,
            last: now,
        };
        self.open.insert(hash, flow);
        if self.order.len() >= 2 * self.limits.max_flows {
            let open = &self.open;
            self.order
                .retain(|(hash, number, _)| open.get(hash).is_some_and(|flow| flow.number == *number));
        }
        self.order.push_back((hash, number, now));
    }

    fn is_open(&self, hash: u64, number: u64) -> bool {
        self.open.get(&hash).is_some_and(|flow| flow.number == number)
    }

    fn end_oldest(&mut self, now: Instant, out: &mut impl Out) {
        while let Some((hash, number, _)) = self.order.pop_front() {
            if self.is_open(hash, number) {
                return self.end(hash, now, out);
            }
        }
        debug_assert!(self.open.is_empty(), "each open flow is in the order");
    }

    fn end(&mut self, hash: u64, now: Instant, out: &mut impl Out) {
        if let Some(flow) = self.open.remove(&hash) {
            let record = Record {
                flow: Some(flow.counts),
                ..flow.first.as_record()
            };
            out.held(&record, &mut self.held, now);
        }
    }

    fn hash(&self, record: &Record<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        let packet = record.packet;
        (record.group, record.hook, record.prefix).hash(&mut hasher);
        (packet.source, packet.destination, packet.protocol).hash(&mut hasher);
        ends(packet.transport).hash(&mut hasher);
        match record.attribution {
            Attribution::Owned { owner, method, end } => {
                (owner.pid, owner.start_boottime, owner.exec_id, method, end).hash(&mut hasher);
            }
            Attribution::Unowned(reason) => reason.hash(&mut hasher),
        }
        hasher.finish()
    }
}

/// What two packets of one flow have in common.
fn same(one: &Record<'_>, other: &Record<'_>) -> bool {
    let index = |device: Option<Device<'_>>| device.map(|device| device.index);
    one.netns == other.netns
        && one.group == other.group
        && one.hook == other.hook
        && one.family == other.family
        && one.prefix == other.prefix
        && index(one.indev) == index(other.indev)
        && index(one.outdev) == index(other.outdev)
        && index(one.physindev) == index(other.physindev)
        && index(one.physoutdev) == index(other.physoutdev)
        && one.packet.source == other.packet.source
        && one.packet.destination == other.packet.destination
        && one.packet.protocol == other.packet.protocol
        && one.packet.problem == other.packet.problem
        && ends(one.packet.transport) == ends(other.packet.transport)
        && one.attribution == other.attribution
}

/// Ports, or type, code and identifier; what kind of them.
fn ends(transport: Transport) -> (u8, u16, u16, Option<u16>) {
    match transport {
        Transport::Absent => (0, 0, 0, None),
        Transport::Other => (1, 0, 0, None),
        Transport::Tcp {
            source, destination, ..
        } => (2, source, destination, None),
        Transport::Ports { source, destination } => (3, source, destination, None),
        Transport::Icmp { kind, code, echo_id } => (4, kind.into(), code.into(), echo_id),
    }
}

fn bytes(packet: &Packet) -> u64 {
    packet.length.unwrap_or(packet.captured).into()
}
