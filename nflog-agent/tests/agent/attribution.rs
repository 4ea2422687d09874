//! Every logged packet names the process that sent it or is to receive it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::has_kprobes;
use crate::otlp::Collector;
use crate::program::{Agent, Ended};
use crate::seen::Seen;
use crate::support::{Netns, veth, wait_for};
use crate::workload::{Truth, Workload};

/// Log everything of TCP and UDP, both ways. Group 7.
const RULES: &str = "
    table inet t {
        chain out { type filter hook output priority 0; meta l4proto { tcp, udp } counter log prefix \"out \" group 7 comment \"sent\"; }
        chain in { type filter hook input priority 0; meta l4proto { tcp, udp } counter log prefix \"in \" group 7 comment \"received\"; }
    }";

/// Two namespaces with rules, joined by a veth pair.
struct Wire {
    client: Netns,
    server: Netns,
    server_v4: IpAddr,
    server_v6: IpAddr,
}

impl Wire {
    fn new() -> Self {
        let (client, server) = (Netns::new("client"), Netns::new("server"));
        let (_, port) = veth(&client, &server);
        client.nft(RULES);
        server.nft(RULES);
        Self {
            client,
            server,
            server_v4: port.v4.into(),
            server_v6: port.v6.into(),
        }
    }

    fn logged(&self) -> u64 {
        [&self.client, &self.server]
            .iter()
            .map(|netns| netns.counter("sent") + netns.counter("received"))
            .sum()
    }

    fn arguments(&self) -> Vec<String> {
        let paths = [&self.client, &self.server].map(|netns| netns.path().display().to_string());
        ["--group", "7", "--netns", &paths.join(",")]
            .map(str::to_owned)
            .to_vec()
    }
}

/// The two processes of one exchange.
struct Exchange {
    client: Workload,
    server: Workload,
}

impl Exchange {
    #[track_caller]
    fn run(client: &Netns, server: &Netns, kind: &str, address: IpAddr) -> Self {
        let server = Workload::start(server, &format!("{kind}-server"), SocketAddr::new(address, 0));
        let client = Workload::start(client, &format!("{kind}-client"), server.truth.address);
        Self { client, server }
    }

    /// The client closes first, then the server.
    fn close(self) {
        self.client.release();
        self.server.release();
    }
}

/// What the exchange between two namespaces is expected to look like: which process owns a record.
struct Expectation {
    client: Truth,
    server: Truth,
}

impl Expectation {
    fn of(exchange: &Exchange) -> Self {
        Self {
            client: exchange.client.truth,
            server: exchange.server.truth,
        }
    }

    /// The truth about a record of this exchange; `None` if it is another's.
    fn owner(&self, seen: &Seen) -> Option<Truth> {
        let (source, destination) = (seen.number("source.port")?, seen.number("destination.port")?);
        let (client, server) = (
            u64::from(self.client.address.port()),
            u64::from(self.server.address.port()),
        );
        let sent_by_client = match (source, destination) {
            (from, to) if (from, to) == (client, server) => true,
            (from, to) if (from, to) == (server, client) => false,
            _ => return None,
        };
        let transmits = seen.text("network.io.direction")? == "transmit";
        Some(if sent_by_client == transmits {
            self.client
        } else {
            self.server
        })
    }
}

/// How a record may have been answered.
struct Allowed {
    methods: &'static [&'static str],
    /// Reasons that are no failure in place of an owner.
    reasons: &'static [&'static str],
    /// How many records may have one, in per cent.
    percent: usize,
}

/// Every packet has an owner, but for those whose log call, or whose connection's handshake, the kernel did not show to a probe: it
/// runs none that interrupts another one. An emulated machine is slow to finish one.
const PROBES: Allowed = Allowed {
    methods: &["socket", "accepted", "inherited", "listener", "tombstone"],
    reasons: &["missed", "older-than-agent"],
    percent: 5,
};

/// The fallback bounds what it spends on looking; on a machine that is busy with something else it may say `missed`.
const SOCKDIAG: Allowed = Allowed {
    methods: &["sockdiag"],
    reasons: &["missed"],
    percent: 100,
};

/// Asserts that every record is owned as expected, and that each exchange has records of both ends.
#[track_caller]
fn assert_owned(records: &[Seen], expectations: &[Expectation], allowed: &Allowed) {
    let mut owned = vec![(0, 0); expectations.len()];
    let mut unowned = 0_usize;
    for seen in records {
        let found = expectations
            .iter()
            .enumerate()
            .find_map(|(at, each)| each.owner(seen).map(|truth| (at, truth)));
        let (at, truth) = found.unwrap_or_else(|| panic!("a record of no exchange: {seen:?}"));
        if let Some(reason) = seen.text("nflog.owner.reason")
            && allowed.reasons.contains(&reason)
        {
            assert_eq!(seen.text("process.pid"), None, "{seen:?}");
            unowned += 1;
            continue;
        }
        assert_eq!(seen.number("process.pid"), Some(truth.pid), "{truth:?}\n{seen:?}");
        assert_eq!(
            seen.number("nflog.cgroup.id"),
            Some(truth.cgroup),
            "{truth:?}\n{seen:?}"
        );
        let method = seen.text("nflog.owner.method").expect("a method");
        assert!(allowed.methods.contains(&method), "method {method}: {seen:?}");
        let (client, server) = &mut owned[at];
        *(if truth == expectations[at].client {
            client
        } else {
            server
        }) += 1;
    }
    assert!(
        unowned * 100 <= allowed.percent * records.len(),
        "{unowned} of {} records have no owner",
        records.len()
    );
    if allowed.percent == 100 {
        // Bounded looking may leave an end without an answer, not most of them.
        let ends = owned.iter().flat_map(|(client, server)| [client, server]);
        let named = ends.filter(|count| **count > 0).count();
        assert!(named > owned.len(), "{named} ends are named: {owned:?}");
        return;
    }
    let enough = 6_usize.saturating_sub(unowned);
    for (at, (client, server)) in owned.iter().enumerate() {
        assert!(
            *client >= enough && *server >= enough,
            "exchange {at}: {client} records of the client, {server} of the server"
        );
    }
}

fn exchanges(wire: &Wire) -> Vec<Exchange> {
    let Wire {
        client,
        server,
        server_v4,
        server_v6,
    } = wire;
    let kinds = [
        ("tcp", server_v4),
        ("tcp", server_v6),
        ("udp", server_v4),
        ("udp", server_v6),
    ];
    kinds
        .into_iter()
        .map(|(kind, address)| Exchange::run(client, server, kind, *address))
        .collect()
}

/// What a watched set of exchanges left behind.
struct Watched {
    ended: Ended,
    expectations: Vec<Expectation>,
    /// Packets that the rules counted.
    logged: u64,
}

/// Closes the exchanges, lets their last packets pass, and stops the agent.
#[track_caller]
fn finish(agent: Agent, exchanges: Vec<Exchange>, logged: impl Fn() -> u64) -> Watched {
    let expectations = exchanges.iter().map(Expectation::of).collect();
    exchanges.into_iter().for_each(Exchange::close);
    // The last ACKs are under way when the processes have ended.
    std::thread::sleep(Duration::from_millis(200));
    let logged = logged();
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.messages());
    Watched {
        ended,
        expectations,
        logged,
    }
}

#[test]
fn probes_name_every_owner_between_two_namespaces() {
    if !has_kprobes() {
        return;
    }
    let wire = Wire::new();
    let arguments = wire.arguments();
    let mut arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["--attribution", "probes", "--output", "json"]);
    let agent = Agent::start(&arguments, &[]);
    let watched = finish(agent, exchanges(&wire), || wire.logged());
    let Watched {
        ended,
        expectations,
        logged,
    } = watched;
    let records = Seen::from_json(&ended.stdout);
    assert_eq!(records.len() as u64, logged, "{}", ended.messages());
    assert_owned(&records, &expectations, &PROBES);
    let prefixes = ["in ", "out "].map(|prefix| {
        records
            .iter()
            .filter(|seen| seen.text("nflog.prefix") == Some(prefix))
            .count()
    });
    assert_eq!(prefixes[0] + prefixes[1], records.len());
}

#[test]
fn a_collector_receives_every_owner_over_otlp() {
    if !has_kprobes() {
        return;
    }
    let wire = Wire::new();
    let collector = Collector::start();
    let arguments = wire.arguments();
    let arguments: Vec<_> = arguments
        .iter()
        .map(String::as_str)
        .chain(["--attribution", "probes"])
        .collect();
    let endpoint = collector.endpoint();
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        // In a starved guest an answer may be late; asked again, the records would come twice.
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "60000"),
    ];
    let agent = Agent::start(&arguments, &environment);
    let watched = finish(agent, exchanges(&wire), || wire.logged());
    let Watched {
        ended,
        expectations,
        logged,
    } = watched;
    let records = Seen::from_otlp(&collector.requests());
    assert_eq!(records.len() as u64, logged, "{}", ended.messages());
    assert_owned(&records, &expectations, &PROBES);
}

#[test]
fn a_loopback_packet_has_a_sender_and_a_receiver() {
    if !has_kprobes() {
        return;
    }
    let netns = Netns::new("loopback");
    netns.nft(RULES);
    let path = netns.path().display().to_string();
    let agent = Agent::start(
        &[
            "--group",
            "7",
            "--netns",
            &path,
            "--attribution",
            "probes",
            "--output",
            "json",
        ],
        &[],
    );
    let addresses = ["127.0.0.1", "::1"].map(|address| address.parse::<IpAddr>().unwrap());
    let exchanges: Vec<_> = ["tcp", "udp"]
        .into_iter()
        .flat_map(|kind| addresses.map(|address| Exchange::run(&netns, &netns, kind, address)))
        .collect();
    let logged = || netns.counter("sent") + netns.counter("received");
    let Watched {
        ended,
        expectations,
        logged,
    } = finish(agent, exchanges, logged);
    let records = Seen::from_json(&ended.stdout);
    assert_eq!(records.len() as u64, logged, "{}", ended.messages());
    assert_owned(&records, &expectations, &PROBES);
}

#[test]
fn without_probes_open_sockets_are_still_named() {
    let wire = Wire::new();
    let arguments = wire.arguments();
    let mut arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["--attribution", "sockdiag", "--output", "json"]);
    let agent = Agent::start(&arguments, &[]);
    assert!(agent.said("degraded attribution"));
    let exchanges = exchanges(&wire);
    let expectations: Vec<_> = exchanges.iter().map(Expectation::of).collect();
    // The sockets stay open until the agent has read all of it.
    wait_for("all records", || {
        (agent.output().len() as u64 >= wire.logged()).then_some(())
    });
    let ended = agent.stop();
    exchanges.into_iter().for_each(Exchange::close);
    assert_owned(&Seen::from_json(&ended.stdout), &expectations, &SOCKDIAG);
}

#[test]
fn rust_log_shows_the_messages_of_the_probes() {
    if !has_kprobes() {
        return;
    }
    let wire = Wire::new();
    let arguments = wire.arguments();
    let arguments: Vec<_> = arguments
        .iter()
        .map(String::as_str)
        .chain(["--output", "json"])
        .collect();
    let mut agent = Agent::start(&arguments, &[("RUST_LOG", "info,nflog_ebpf=debug")]);
    Exchange::run(&wire.client, &wire.server, "tcp", wire.server_v4).close();
    agent.wait_until_said("tcp_connect by");
    agent.wait_until_said("accept by");
    assert_eq!(agent.stop().code, Some(0));
}

/// Log what passes a router, at every hook it passes.
const ROUTER_RULES: &str = "
    table ip t {
        chain before { type filter hook prerouting priority 0; meta l4proto udp log prefix \"pre \" group 7; }
        chain through { type filter hook forward priority 0; meta l4proto udp log prefix \"fwd \" group 7; }
        chain after { type filter hook postrouting priority 0; meta l4proto udp log prefix \"post \" group 7; }
    }";

/// What a router forwards that itself listens on that port, on every address: records, and the pids of those who sent it.
fn forwarded_traffic(attribution: &str) -> (Vec<Seen>, [u64; 2]) {
    let (client, router, server) = (Netns::new("left"), Netns::new("router"), Netns::new("right"));
    let (_, router_left) = veth(&client, &router);
    let (router_right, server_port) = veth(&router, &server);
    client.ip(&format!("route add default via {}", router_left.v4));
    server.ip(&format!("route add default via {}", router_right.v4));
    router
        .run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
        .expect("forwarding can be switched on");
    router.nft(ROUTER_RULES);
    let path = router.path().display().to_string();
    let arguments = [
        "--group",
        "7",
        "--netns",
        &path,
        "--attribution",
        attribution,
        "--output",
        "json",
    ];
    let agent = Agent::start(&arguments, &[]);

    let bystander = Workload::start(&router, "udp-server", "0.0.0.0:0".parse().unwrap());
    let address = SocketAddr::new(server_port.v4.into(), bystander.truth.address.port());
    let receiver = Workload::start(&server, "udp-server", address);
    let sender = Workload::start(&client, "udp-client", address);
    // Three questions and three answers, at three hooks each.
    wait_for("all records", || (agent.output().len() >= 18).then_some(()));
    let ended = agent.stop();
    let senders = [&sender, &receiver].map(|workload| workload.truth.pid);
    sender.release();
    receiver.release();
    drop(bystander);
    let records = Seen::from_json(&ended.stdout);
    assert_eq!(records.len(), 18, "{}", ended.messages());
    (records, senders)
}

#[track_caller]
fn assert_nobodys(seen: &Seen) {
    assert_eq!(seen.text("process.pid"), None, "{seen:?}");
    assert_eq!(seen.text("nflog.owner.method"), Some("none"), "{seen:?}");
    let reason = seen.text("nflog.owner.reason").expect("a reason");
    assert!(["forwarded", "no-socket"].contains(&reason), "{seen:?}");
}

#[test]
fn probes_give_forwarded_traffic_to_who_sent_it_and_never_to_the_router() {
    if !has_kprobes() {
        return;
    }
    let (records, [sender, receiver]) = forwarded_traffic("probes");
    for seen in &records {
        if seen.text("nflog.hook") != Some("forward") {
            assert_nobodys(seen);
            continue;
        }
        let expected = if is_question(seen, &records) {
            sender
        } else {
            receiver
        };
        assert_eq!(seen.number("process.pid"), Some(expected), "{seen:?}");
        assert_eq!(seen.text("nflog.owner.end"), Some("source"), "{seen:?}");
    }
}

/// Whether it goes the way of the first of them.
fn is_question(seen: &Seen, records: &[Seen]) -> bool {
    seen.text("source.address") == records[0].text("source.address")
}

#[test]
fn without_probes_forwarded_traffic_is_nobodys() {
    let (records, _) = forwarded_traffic("sockdiag");
    records.iter().for_each(assert_nobodys);
}
