//! A namespace with a server and an agent, and the judgement of all that the agent said.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::thread::spawn;
use std::time::Duration;

use crate::program::Agent;
use crate::seen::Seen;
use crate::support::Netns;
use crate::worker::Truth;

/// Only what is marked: the workers' side.
const RULES: &str = "
    table ip t {
        chain out { type filter hook output priority 0; meta mark != 0 counter log group 11 comment \"logged\"; }
    }";

/// Reasons that a packet of a socket younger than the agent may have none but in a storm: the kernel left out a probe, a tuple
/// changed hands within one batch, the socket did not fit into the map, or the kernel itself answers for a connection that a
/// worker has reset.
const REASONS: [&str; 7] = [
    "missed",
    "ambiguous",
    "no-socket",
    "older-than-agent",
    "map-full",
    "time-wait",
    "kernel-tcp",
];

pub(crate) struct Storm {
    pub(crate) netns: Netns,
    /// Port that takes datagrams.
    pub(crate) udp: u16,
    /// Port that takes connections.
    pub(crate) tcp: u16,
    _sink: UdpSocket,
    agent: Agent,
}

impl Storm {
    /// Starts server and agent; `None` on a kernel that provably has no kprobes.
    pub(crate) fn begin(arguments: &[&str]) -> Option<Self> {
        if !Path::new("/sys/bus/event_source/devices/kprobe/type").exists() {
            println!("SKIPPED: this kernel is built without kprobes (CONFIG_KPROBE_EVENTS)");
            return None;
        }
        let netns = Netns::new("storm");
        netns.nft(RULES);
        let (sink, listener) = netns.run(|| {
            let sink = UdpSocket::bind("127.0.0.1:0").expect("a port");
            (sink, TcpListener::bind("127.0.0.1:0").expect("a port"))
        });
        let udp = sink.local_addr().expect("bound").port();
        let tcp = listener.local_addr().expect("bound").port();
        // Ends with the process.
        spawn(move || {
            for stream in listener.incoming() {
                // The peer resets the connection, at the latest.
                let _ = stream.and_then(|mut stream| stream.read(&mut [0; 16]));
            }
        });
        let path = netns.path().display().to_string();
        let mut all = vec!["--group", "11", "--netns", &path, "--attribution", "probes"];
        all.extend(["--output", "json"]);
        all.extend(arguments);
        let agent = Agent::start(&all, &[("RUST_LOG", "info,nflog_agent=debug")]);
        Some(Self {
            netns,
            udp,
            tcp,
            _sink: sink,
            agent,
        })
    }

    /// Leaves so few ports to connect from that each comes again at once.
    pub(crate) fn few_ports(&self) {
        self.netns
            .run(|| std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "50000 50007"))
            .expect("the range can be set");
    }

    /// Stops the agent and judges.
    #[track_caller]
    pub(crate) fn end(self, truths: &[Truth]) -> Verdict {
        // What softirqs and timers still send for the workers' sockets.
        std::thread::sleep(Duration::from_millis(200));
        let logged = self.netns.counter("logged");
        let ended = self.agent.stop();
        assert_eq!(ended.code, Some(0), "{}", ended.messages());
        let seen = Seen::from_json(&ended.stdout);
        // Under overload packets are missing, but each is counted.
        assert_eq!(
            seen.len() as u64 + ended.count("missed"),
            logged,
            "{}",
            ended.messages()
        );
        let mut verdict = Verdict::of(&seen, truths);
        verdict.messages = ended.messages();
        verdict
    }
}

/// How the records of a storm were.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) entries: u64,
    pub(crate) right: u64,
    rights: BTreeMap<u32, u64>,
    wrong: Vec<String>,
    /// Records without owner, by reason.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// Source ports that more than one worker sent from.
    pub(crate) ports_shared: usize,
    /// Sockets of all workers, each from its opening to its close.
    sockets: u64,
    /// Nanoseconds from the first one's opening to the last one's close.
    took: u64,
    /// What the agent said.
    pub(crate) messages: String,
}

impl Verdict {
    fn of(seen: &[Seen], truths: &[Truth]) -> Self {
        let mut verdict = Self::default();
        let mut senders: BTreeMap<_, BTreeSet<u32>> = BTreeMap::new();
        for record in seen {
            let mark = record
                .number("nflog.mark")
                .expect("only marked packets are logged");
            let truth = truths
                .iter()
                .find(|truth| u64::from(truth.mark) == mark)
                .unwrap_or_else(|| panic!("nobody has the mark: {record:?}"));
            verdict.add(record, *truth);
            let from = (record.text("network.transport"), record.number("source.port"));
            senders.entry(from).or_default().insert(truth.mark);
        }
        verdict.sockets = truths.iter().map(|truth| truth.sockets).sum();
        let began = truths.iter().map(|truth| truth.span.0).min().unwrap_or(0);
        let ended = truths.iter().map(|truth| truth.span.1).max().unwrap_or(0);
        verdict.took = ended.saturating_sub(began);
        verdict.ports_shared = senders.values().filter(|marks| marks.len() > 1).count();
        verdict
    }

    fn add(&mut self, record: &Seen, truth: Truth) {
        self.entries += 1;
        let Some(pid) = record.number("process.pid") else {
            let reason = record.text("nflog.owner.reason").unwrap_or("none").to_owned();
            *self.reasons.entry(reason).or_default() += 1;
            return;
        };
        if pid == u64::from(truth.pid) && record.number("nflog.cgroup.id") == Some(truth.cgroup) {
            self.right += 1;
            *self.rights.entry(truth.mark).or_default() += 1;
        } else {
            self.wrong.push(format!("{truth:?}: {record:?}"));
        }
    }

    /// Right records of one worker.
    pub(crate) fn right_of(&self, mark: u32) -> u64 {
        self.rights.get(&mark).copied().unwrap_or(0)
    }

    #[track_caller]
    pub(crate) fn assert_never_wrong(&self) {
        assert!(self.entries > 0, "nothing was logged: {}", self.messages);
        assert!(
            self.wrong.is_empty(),
            "{} of {} are wrong, the first: {}",
            self.wrong.len(),
            self.entries,
            self.wrong[0]
        );
        for reason in self.reasons.keys() {
            assert!(
                REASONS.contains(&reason.as_str()),
                "reason {reason}: {:?}",
                self.reasons
            );
        }
    }

    /// The agent's line that has these words.
    pub(crate) fn message(&self, words: &str) -> Option<&str> {
        self.messages.lines().find(|line| line.contains(words))
    }

    pub(crate) fn print(&self, storm: &str) {
        println!();
        println!(
            "STORM {storm} entries={} right={} wrong={} reasons={:?} ports-shared={}",
            self.entries,
            self.right,
            self.wrong.len(),
            self.reasons,
            self.ports_shared
        );
        println!(
            "STORM {storm} sockets={} per-second={}",
            self.sockets,
            self.sockets * 1_000_000_000 / self.took.max(1)
        );
        for line in ["probes: ", "the kernel left out"].map(|words| self.message(words)) {
            println!("STORM {storm} {}", line.unwrap_or("nothing said"));
        }
    }
}
