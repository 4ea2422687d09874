//! What becomes of packets under random rules: against a naive model, and the account closes at every step.
#![cfg(feature = "agent")]

#[path = "otlp_receiver/sample.rs"]
#[allow(dead_code, reason = "shared with the encoders' tests")]
mod sample;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nflog_agent::owner::{Attribution, Comm, End, Method, Owner, Reason};
use nflog_agent::packet::Transport;
use nflog_agent::policy::{Engine, Out, Policy, PolicyConfig, RuleCounts};
use nflog_agent::record::{Flow, Record, RecordBuf, Suppressed};
use nflog_agent::telemetry::ledger::{Ledger, Snapshot, Unsettled, Withheld};
use proptest::prelude::*;
use sample::Sample;

const RULES: &str = r#"
    [[prefix]]
    template = "{chain}-{action}"
    [[rule]]
    match = { prefix = "keep*" }
    then = "keep"
    [[rule]]
    match = { action = "drop", destination-port = "1000-1999" }
    then = "drop"
    [[rule]]
    match = { prefix = "s-*" }
    then = { sample = 3 }
    [[rule]]
    name = "limited"
    match = { prefix = "l-*" }
    then = { limit = { rate = "2/s", burst = 3, per = "source" } }
    [[rule]]
    match = { prefix = "f-*" }
    then = { aggregate = { interval = "2s", idle = "800ms", max-flows = 3 } }
"#;

/// What the rules are replaced by, and back.
const OTHERS: &str = r#"
    [[rule]]
    name = "limited"
    match = { prefix = "f-*" }
    then = "drop"
    [[rule]]
    name = "new"
    match = { prefix = "l-*" }
    then = { aggregate = { interval = "1h" } }
"#;

const INTERVAL: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_millis(800);

const PREFIXES: [&str; 6] = ["keep-drop", "x-DROP", "s-a", "l-a", "f-a", "other"];

/// A packet of the test: which prefix, which source, which port, whose, and how long after the one before, in eighths of
/// the idle time: as often idle flows are looked for, so that a model that ends them at once agrees.
type Step = (usize, u8, u16, u32, u32);

fn sample((prefix, source, port, pid, _): Step, time: u64) -> Sample {
    let mut sample = sample::varied().swap_remove(0);
    PREFIXES[prefix].clone_into(&mut sample.prefix);
    sample.time = time;
    sample.observed = time;
    sample.packet.source = Some([10, 0, 0, source].into());
    sample.packet.transport = Transport::Tcp {
        source: 1,
        destination: port,
        flags: 1 << (time % 8),
    };
    sample.packet.length = Some(40 + u32::from(source));
    sample.process = None;
    sample.attribution = if pid == 0 {
        Attribution::Unowned(Reason::NoSocket)
    } else {
        let owner = Owner {
            pid,
            start_boottime: Some(1),
            exec_id: None,
            uid: 0,
            comm: Comm::new([0; 16]),
            cgroup_id: None,
        };
        Attribution::Owned {
            owner,
            method: Method::Socket,
            end: End::Source,
        }
    };
    sample
}

/// Everything that leaves.
struct Collected {
    account: Unsettled,
    packets: Vec<(String, Option<u32>, Option<Flow>, u64)>,
    flows: Vec<(FlowKey, Flow)>,
    suppressed: u64,
}

impl Collected {
    fn new(ledger: &Arc<Ledger>) -> Self {
        Self {
            account: ledger.account(),
            packets: Vec::new(),
            flows: Vec::new(),
            suppressed: 0,
        }
    }
}

type FlowKey = (String, String, String);

fn key(record: &Record<'_>) -> FlowKey {
    let transport = match record.packet.transport {
        Transport::Tcp {
            source, destination, ..
        } => format!("{source} {destination}"),
        other => format!("{other:?}"),
    };
    (
        format!("{} {:?}", record.prefix, record.packet.source),
        transport,
        format!("{:?}", record.attribution),
    )
}

impl Out for Collected {
    fn packet(&mut self, record: &Record<'_>, _: Instant) {
        self.account.receive();
        let prefix = record.prefix.to_owned();
        self.packets
            .push((prefix, record.sample_rate, record.flow, record.time_unix_nano));
    }

    fn held(&mut self, record: &Record<'_>, held: &mut Unsettled, _: Instant) {
        self.account.adopt(held);
        assert_eq!((record.seq, record.seq_global), (None, None));
        self.flows
            .push((key(record), record.flow.expect("only flows are held")));
    }

    fn suppressed(&mut self, suppressed: &Suppressed<'_>, _: Instant) {
        assert_eq!(suppressed.rule, "limited");
        self.suppressed += suppressed.packets;
    }
}

/// Open flows of the naive model: key, count, when it began, when it had its last packet.
#[derive(Default)]
struct Model {
    packets: u64,
    filtered: u64,
    sampled: u64,
    passed: HashMap<u8, Vec<Instant>>,
    open: Vec<(FlowKey, Flow, Instant, Instant)>,
    ended: Vec<(FlowKey, Flow)>,
    limited: u64,
}

impl Model {
    fn take(&mut self, step: Step, record: &Record<'_>, now: Instant) {
        match PREFIXES[step.0] {
            "x-DROP" if (1000..2000).contains(&step.2) => self.filtered += 1,
            "s-a" => self.sampled += 1,
            "l-a" => self.limit(step.1, now),
            "f-a" => self.flow(record, now),
            _ => self.packets += 1,
        }
    }

    /// A bucket of three tokens that gets two a second, in milliseconds by hand: 2000 is one token.
    fn limit(&mut self, source: u8, now: Instant) {
        let passed = self.passed.entry(source).or_default();
        let (mut level, mut last) = (3 * 500_u128, None::<Instant>);
        for at in passed.iter() {
            level += last.map_or(0, |last| at.duration_since(last).as_millis());
            level = level.min(1500) - 500;
            last = Some(*at);
        }
        level += last.map_or(0, |last| now.duration_since(last).as_millis());
        if level.min(1500) >= 500 {
            passed.push(now);
            self.packets += 1;
        } else {
            self.limited += 1;
        }
    }

    fn flow(&mut self, record: &Record<'_>, now: Instant) {
        let bytes = record.packet.length.unwrap().into();
        if let Some((_, flow, _, last)) = self.open.iter_mut().find(|(other, ..)| *other == key(record)) {
            flow.packets += 1;
            flow.bytes += bytes;
            flow.end_unix_nano = record.time_unix_nano;
            *last = now;
            return;
        }
        if self.open.len() == 3 {
            let (key, flow, ..) = self.open.remove(0);
            self.ended.push((key, flow));
        }
        let flow = Flow {
            packets: 1,
            bytes,
            start_unix_nano: record.time_unix_nano,
            end_unix_nano: record.time_unix_nano,
        };
        self.open.push((key(record), flow, now, now));
    }

    fn expire(&mut self, over: impl Fn(&(FlowKey, Flow, Instant, Instant)) -> bool) {
        let (ended, open) = std::mem::take(&mut self.open).into_iter().partition(over);
        self.open = open;
        let ended: Vec<_> = ended;
        self.ended
            .extend(ended.into_iter().map(|(key, flow, ..)| (key, flow)));
    }
}

fn policy(rules: &str) -> Arc<Policy> {
    let policy: PolicyConfig = toml::from_str(rules).unwrap();
    Arc::new(policy.compile().unwrap())
}

fn engine(ledger: &Arc<Ledger>, now: Instant) -> (Engine, Arc<RuleCounts>) {
    let policy = policy(RULES);
    let counts = policy.counts();
    (Engine::new(&policy, &counts, ledger, 3, now), counts)
}

/// The account of all packets so far.
fn assert_closed(now: &Snapshot, packets: u64, in_flight: u64) {
    let withheld: u64 = Withheld::ALL.iter().map(|why| now.withheld(*why)).sum();
    assert_eq!(now.received, packets, "{now}");
    assert_eq!(now.received, now.exported + now.in_flight() + withheld, "{now}");
    assert_eq!(now.in_flight(), in_flight, "{now}");
}

fn sorted(mut flows: Vec<(FlowKey, Flow)>) -> Vec<(FlowKey, Flow)> {
    flows.sort_by_key(|(key, flow)| (key.clone(), flow.start_unix_nano));
    flows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn rules_do_what_a_naive_model_does_and_the_account_closes_at_every_step(
        steps in prop::collection::vec((0..PREFIXES.len(), 0_u8..3, 998_u16..1003, 0_u32..3, 0_u32..5), 1..150)
    ) {
        let ledger = Ledger::new();
        let start = Instant::now();
        let (mut engine, counts) = engine(&ledger, start);
        let mut out = Collected::new(&ledger);
        let mut model = Model::default();
        let mut now = start;
        for (at, step) in (1..).zip(steps.iter().copied()) {
            now += IDLE / 8 * step.4;
            // All that is due at a time is done before the packets of that time.
            engine.tick(now, &mut out);
            model.expire(|(.., began, last)| {
                now.duration_since(*began) >= INTERVAL || now.duration_since(*last) >= IDLE
            });
            let sample = sample(step, u64::try_from(now.duration_since(start).as_nanos()).unwrap());
            let rule = engine.logging_rule(&sample.prefix);
            let record = Record { rule: rule.as_deref(), ..sample.record() };
            engine.take(&record, now, &mut out);
            model.take(step, &record, now);
            let open = at - out.packets.len() as u64 - out.flows.len() as u64
                - Withheld::ALL.iter().map(|why| ledger.snapshot().withheld(*why)).sum::<u64>();
            assert_closed(&ledger.snapshot(), at, u64::from(out.account.records()) + open);
        }
        engine.close(now, &mut out);
        model.expire(|_| true);
        let kept = out.packets.iter().filter(|(_, rate, ..)| *rate == Some(3)).count() as u64;

        out.account.exported();
        let end = ledger.snapshot();
        assert_closed(&end, steps.len() as u64, 0);
        prop_assert_eq!(sorted(out.flows.clone()), sorted(model.ended.clone()));
        let in_flows: u64 = out.flows.iter().map(|(_, flow)| flow.packets).sum();
        prop_assert_eq!(end.withheld(Withheld::Aggregated), in_flows - out.flows.len() as u64);
        prop_assert_eq!(end.withheld(Withheld::Filtered), model.filtered);
        prop_assert_eq!(end.withheld(Withheld::Limited), model.limited);
        prop_assert_eq!(out.suppressed, model.limited, "what is held back is reported");
        prop_assert!(model.sampled.abs_diff(kept * 3) < 3);
        prop_assert_eq!(end.withheld(Withheld::SampledOut), model.sampled - kept);
        prop_assert_eq!(out.packets.len() as u64, model.packets + kept);
        prop_assert!(out.packets.iter().all(|(.., flow, _)| flow.is_none()));
        prop_assert_eq!(engine.deadline(), None, "nothing waits after the end");
        prop_assert!(counts.to_string().contains("limited: "));
    }

    #[test]
    fn a_policy_that_is_replaced_leaves_nothing_behind_and_counts_go_on_by_name(
        steps in prop::collection::vec((0..PREFIXES.len(), 0_u8..3, 998_u16..1003, 0_u32..3, 0_u32..5), 1..150),
        replaced in prop::collection::vec(0_usize..150, 0..6)
    ) {
        let ledger = Ledger::new();
        let start = Instant::now();
        let (mut engine, counts) = engine(&ledger, start);
        let policies = [policy(OTHERS), policy(RULES)];
        let mut out = Collected::new(&ledger);
        let mut now = start;
        for (at, step) in steps.iter().copied().enumerate() {
            now += IDLE / 8 * step.4;
            for (times, _) in replaced.iter().filter(|replace| **replace == at).enumerate() {
                let before = replaced.iter().filter(|replace| **replace < at).count();
                engine.replace(&policies[(before + times) % 2], now, &mut out);
                prop_assert_eq!(ledger.snapshot().in_flight(), u64::from(out.account.records()), "nothing waits");
                prop_assert_eq!(out.suppressed, ledger.snapshot().withheld(Withheld::Limited));
                prop_assert_eq!(engine.deadline(), None);
            }
            let sample = sample(step, u64::try_from(now.duration_since(start).as_nanos()).unwrap());
            let rule = engine.logging_rule(&sample.prefix);
            engine.take(&Record { rule: rule.as_deref(), ..sample.record() }, now, &mut out);
        }
        engine.close(now, &mut out);
        let records = out.account.records();
        out.account.exported();
        let end = ledger.snapshot();
        assert_closed(&end, steps.len() as u64, 0);
        let withheld: u64 = Withheld::ALL.iter().map(|why| end.withheld(*why)).sum();
        prop_assert_eq!(u64::from(records) + withheld, steps.len() as u64);
        let of_rules: u64 = counts
            .to_string()
            .split([' ', ','])
            .zip(counts.to_string().split([' ', ',']).skip(1))
            .filter(|(_, word)| word.starts_with("withheld"))
            .map(|(number, _)| number.parse::<u64>().unwrap())
            .sum();
        prop_assert_eq!(of_rules, withheld, "{}", counts);
    }
}

#[test]
fn an_owned_record_is_the_record() {
    for sample in sample::varied() {
        let record = sample.record();
        let copy = RecordBuf::new(&record);
        assert_eq!(format!("{:?}", copy.as_record()), format!("{record:?}"));
    }
}

/// The flags of the last flow.
struct Flags(u8, Unsettled);

impl Out for Flags {
    fn packet(&mut self, _: &Record<'_>, _: Instant) {
        panic!("all packets are of a flow");
    }
    fn held(&mut self, record: &Record<'_>, held: &mut Unsettled, _: Instant) {
        self.1.adopt(held);
        if let Transport::Tcp { flags, .. } = record.packet.transport {
            self.0 = flags;
        }
    }
    fn suppressed(&mut self, _: &Suppressed<'_>, _: Instant) {}
}

#[test]
fn flags_of_all_packets_are_in_a_flows_record() {
    let ledger = Ledger::new();
    let now = Instant::now();
    let (mut engine, _) = engine(&ledger, now);
    let mut out = Flags(0, ledger.account());
    for time in [1, 4, 7] {
        engine.take(&sample((4, 1, 1, 1, 0), time).record(), now, &mut out);
    }
    engine.close(now, &mut out);
    assert_eq!(out.0, 0b1001_0010);
    out.1.exported();
}

/// Takes everything, and writes nothing down.
struct Nowhere(Unsettled);

impl Out for Nowhere {
    fn packet(&mut self, _: &Record<'_>, _: Instant) {
        self.0.receive();
    }
    fn held(&mut self, _: &Record<'_>, held: &mut Unsettled, _: Instant) {
        self.0.adopt(held);
    }
    fn suppressed(&mut self, _: &Suppressed<'_>, _: Instant) {}
}

#[test]
fn a_packet_costs_no_allocation_unless_it_begins_a_flow() {
    let ledger = Ledger::new();
    let now = Instant::now();
    let (mut engine, _) = engine(&ledger, now);
    let mut out = Nowhere(ledger.account());
    let samples: Vec<_> = (0..PREFIXES.len())
        .map(|prefix| sample((prefix, 1, 1000, 1, 0), 1))
        .collect();
    let mut all = || {
        for sample in &samples {
            let rule = engine.logging_rule(&sample.prefix);
            let record = Record {
                rule: rule.as_deref(),
                ..sample.record()
            };
            engine.take(&record, now, &mut out);
        }
        engine.tick(now, &mut out);
    };
    all();
    let warm = allocation_counter::measure(|| (0..100).for_each(|_| all()));
    assert_eq!(warm.count_total, 0, "600 packets: {warm:?}");
    engine.close(now, &mut out);
    out.0.exported();
    assert_eq!(ledger.snapshot().in_flight(), 0);
    assert_eq!(ledger.snapshot().received, 606);
}
