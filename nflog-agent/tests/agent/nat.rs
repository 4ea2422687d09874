//! Translated addresses: service addresses, SNAT, REDIRECT and published ports, logged before and after translation.
//!
//! Each case runs in two worlds at once, whose namespaces use the same addresses and ports and belong to other processes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use crate::has_kprobes;
use crate::program::Agent;
use crate::seen::Seen;
use crate::support::{Netns, kernel, veth};
use crate::workload::{Truth, Workload};

const CLIENT: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const SERVER: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
/// A second address of the client's namespace.
const MASK: [&str; 2] = ["192.0.2.3", "2001:db8::3"];
/// Nobody's address, routed to the server.
const SERVICE: [&str; 2] = ["198.51.100.1", "2001:db8:ffff::1"];
const SERVICE_PORT: u16 = 80;
const SERVER_PORT: u16 = 8080;
const CLIENT_PORT: u16 = 41_000;
const TRANSPORTS: [&str; 2] = ["tcp", "udp"];

/// Logs at every hook of local traffic, before and after it translates. Conntrack comes at -200, DNAT at -100, SNAT at 100.
const WATCH: &str = r#"table inet watch {
    chain a { type filter hook output priority -150; meta l4proto { tcp, udp } log prefix "output-before" group 7; }
    chain b { type filter hook output priority 0; meta l4proto { tcp, udp } log prefix "output-after" group 7; }
    chain c { type filter hook postrouting priority 0; meta l4proto { tcp, udp } log prefix "postrouting-before" group 7; }
    chain d { type filter hook postrouting priority 150; meta l4proto { tcp, udp } log prefix "postrouting-after" group 7; }
    chain e { type filter hook prerouting priority -150; meta l4proto { tcp, udp } log prefix "prerouting-before" group 7; }
    chain f { type filter hook prerouting priority 0; meta l4proto { tcp, udp } log prefix "prerouting-after" group 7; }
    chain g { type filter hook input priority 0; meta l4proto { tcp, udp } log prefix "input-before" group 7; }
    chain h { type filter hook input priority 150; meta l4proto { tcp, udp } log prefix "input-after" group 7; }
}"#;

/// What is translated, and where.
struct Case {
    /// Rules of the client's and of the server's namespace.
    client: String,
    server: String,
    /// Where clients connect to.
    peer: fn(usize) -> SocketAddr,
    /// Where servers listen: in the server's namespace or, if not `remote`, in the client's.
    listen: fn(usize) -> SocketAddr,
    remote: bool,
    /// Where only conntrack leads to the socket of a TCP packet, and for how many at least in each exchange.
    needs_conntrack: &'static [(&'static str, u32)],
}

fn at(addresses: [&str; 2], family: usize, port: u16) -> SocketAddr {
    SocketAddr::new(addresses[family].parse::<IpAddr>().unwrap(), port)
}

fn nat(hook: &str, priority: i16, rules: &str) -> String {
    format!(
        "table inet translate {{
            chain translate {{ type nat hook {hook} priority {priority};
                {rules}
            }}
        }}"
    )
}

/// A client and a server, joined by a veth pair, with the same addresses in every world.
struct World {
    client: Netns,
    server: Netns,
}

impl World {
    fn new(case: &Case) -> Self {
        let (client, server) = (Netns::new("client"), Netns::new("server"));
        let (near, far) = veth(&client, &server);
        for (netns, device, addresses) in [
            (&client, &near.device, &[CLIENT, MASK][..]),
            (&server, &far.device, &[SERVER]),
        ] {
            for [v4, v6] in addresses {
                netns.ip(&format!("address add {v4}/24 dev {device}"));
                netns.ip(&format!("address add {v6}/64 dev {device} nodad"));
            }
        }
        client.ip(&format!("route add {} via {}", SERVICE[0], SERVER[0]));
        client.ip(&format!("-6 route add {} via {}", SERVICE[1], SERVER[1]));
        for (netns, rules) in [(&client, &case.client), (&server, &case.server)] {
            netns.nft(rules);
            netns.nft(WATCH);
        }
        Self { client, server }
    }

    fn inodes(&self) -> [u64; 2] {
        [&self.client, &self.server].map(|netns| netns.inode().into())
    }
}

/// One exchange of one world.
struct Exchange {
    inodes: [u64; 2],
    transport: &'static str,
    family: usize,
    client: Workload,
    server: Workload,
}

impl Exchange {
    fn truth(&self) -> Expected {
        Expected {
            inodes: self.inodes,
            transport: self.transport,
            network: ["ipv4", "ipv6"][self.family],
            client: self.client.truth,
            server: self.server.truth,
        }
    }
}

/// Who takes part in an exchange.
struct Expected {
    inodes: [u64; 2],
    transport: &'static str,
    network: &'static str,
    client: Truth,
    server: Truth,
}

impl Expected {
    /// The truth about a record; `None` if it is another exchange's. No case translates the client's port.
    fn owner(&self, seen: &Seen) -> Option<Truth> {
        let inode = seen.number("nflog.netns.inode").expect("a namespace");
        if !self.inodes.contains(&inode)
            || seen.text("network.transport") != Some(self.transport)
            || seen.text("network.type") != Some(self.network)
        {
            return None;
        }
        let from_client = seen.number("source.port") == Some(self.client.address.port().into());
        let transmits = seen.text("network.io.direction") == Some("transmit");
        Some(if from_client == transmits {
            self.client
        } else {
            self.server
        })
    }
}

fn start_servers(worlds: &[World], case: &Case) -> Vec<Workload> {
    let mut servers = Vec::new();
    for world in worlds {
        let netns = if case.remote { &world.server } else { &world.client };
        for transport in TRANSPORTS {
            for family in 0..2 {
                let role = format!("{transport}-server");
                servers.push(Workload::start(netns, &role, (case.listen)(family)));
            }
        }
    }
    servers
}

fn start_agent(netns: &[&Netns], more: &[&str]) -> Agent {
    let paths: Vec<_> = netns
        .iter()
        .map(|netns| netns.path().display().to_string())
        .collect();
    let paths = paths.join(",");
    let fixed = [
        "--group",
        "7",
        "--netns",
        &paths,
        "--attribution",
        "probes",
        "--output",
        "json",
    ];
    Agent::start(&[&fixed, more].concat(), &[])
}

/// Runs all exchanges of a case in so many worlds; the records, and who takes part.
fn watch(case: &Case, worlds: usize, more: &[&str]) -> (Vec<Seen>, Vec<Expected>) {
    let worlds: Vec<_> = (0..worlds).map(|_| World::new(case)).collect();
    let namespaces: Vec<_> = worlds
        .iter()
        .flat_map(|world| [&world.client, &world.server])
        .collect();
    let agent = start_agent(&namespaces, more);
    let mut servers = start_servers(&worlds, case).into_iter();
    // What arrives right after a server began to listen may have been nobody's.
    sleep(Duration::from_secs(1));
    let mut exchanges = Vec::new();
    for world in &worlds {
        for transport in TRANSPORTS {
            for family in 0..2 {
                let (from, role) = (at(CLIENT, family, CLIENT_PORT), format!("{transport}-client"));
                exchanges.push(Exchange {
                    inodes: world.inodes(),
                    transport,
                    family,
                    client: Workload::start_from(&world.client, &role, from, (case.peer)(family)),
                    server: servers.next().expect("one server for each exchange"),
                });
            }
        }
    }
    let expected = exchanges.iter().map(Exchange::truth).collect();
    for exchange in exchanges {
        exchange.client.release();
        exchange.server.release();
    }
    // The last ACKs are under way when the processes have ended.
    sleep(Duration::from_millis(200));
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.messages());
    (Seen::from_json(&ended.stdout), expected)
}

/// How often each answer was given at each hook: shown when a test fails.
type Table = BTreeMap<[String; 3], u32>;

/// Asserts that no owner is wrong, and counts the answers by transport, prefix and method or reason.
#[track_caller]
fn count(records: &[Seen], expected: &[Expected]) -> Table {
    let mut table = Table::new();
    for seen in records {
        let truth = expected.iter().find_map(|each| each.owner(seen));
        let truth = truth.unwrap_or_else(|| panic!("a record of no exchange: {seen:?}"));
        let answer = match seen.number("process.pid") {
            Some(pid) => {
                assert_eq!(pid, truth.pid, "WRONG owner: {seen:?}");
                assert_eq!(seen.number("nflog.cgroup.id"), Some(truth.cgroup), "{seen:?}");
                seen.text("nflog.owner.method").expect("a method")
            }
            None => seen.text("nflog.owner.reason").expect("a reason"),
        };
        let word = |name| seen.text(name).unwrap_or_default().to_owned();
        let key = [word("network.transport"), word("nflog.prefix"), answer.to_owned()];
        *table.entry(key).or_default() += 1;
    }
    println!("{table:#?}");
    table
}

/// TCP packets without owner for which there is an excuse: the receiver of a SYN is not known before translation, and the
/// last ACK is sent by a socket of the kernel.
fn excused(seen: &Seen) -> bool {
    let flags = seen.text("nflog.tcp.flags").expect("flags");
    match seen.text("nflog.owner.reason").expect("a reason") {
        "kernel-tcp" => flags == "ACK" && seen.text("network.io.direction") == Some("transmit"),
        // The probe did not see it, and it may have been too early for conntrack to tell; `every_owner_is_named` bounds them.
        _ if is_missed(seen) => true,
        _ => flags == "SYN" && seen.text("nflog.hook") == Some("prerouting"),
    }
}

/// Whether a probe did not run: at the log call, or at the handshake, so that at the log call the connection was unknown. Then
/// conntrack leads to a connection that is younger than the packet may be, which is said to be ambiguous.
fn is_missed(seen: &Seen) -> bool {
    seen.is_missed() || seen.text("nflog.owner.reason") == Some("ambiguous")
}

fn every_owner_is_named(case: &Case) {
    if !has_kprobes() {
        return;
    }
    let (records, expected) = watch(case, 2, &[]);
    let table = count(&records, &expected);
    let missed = records.iter().filter(|seen| is_missed(seen));
    assert!(missed.count() * 20 <= records.len(), "{table:#?}");
    for seen in &records {
        let tcp = seen.text("network.transport") == Some("tcp");
        assert!(
            !tcp || seen.text("process.pid").is_some() || excused(seen),
            "no owner: {seen:?}"
        );
    }
    for (prefix, least) in case.needs_conntrack {
        let key = ["tcp", prefix, "conntrack"].map(str::to_owned);
        let (found, exchanges) = (table.get(&key).copied().unwrap_or(0), 4);
        assert!(
            found >= least * exchanges,
            "{found} owners by conntrack at {prefix}: {table:#?}"
        );
    }
}

/// As kube-proxy does it: a service address that is only in the client's rules.
fn service() -> Case {
    let rules = format!(
        "ip daddr {} meta l4proto {{ tcp, udp }} dnat ip to {}:{SERVER_PORT}
         ip6 daddr {} meta l4proto {{ tcp, udp }} dnat ip6 to [{}]:{SERVER_PORT}",
        SERVICE[0], SERVER[0], SERVICE[1], SERVER[1]
    );
    Case {
        client: nat("output", -100, &rules),
        server: String::new(),
        peer: |family| at(SERVICE, family, SERVICE_PORT),
        listen: |family| at(SERVER, family, SERVER_PORT),
        remote: true,
        // SYN,ACK and three answers.
        needs_conntrack: &[
            ("prerouting-before", 4),
            ("prerouting-after", 4),
            ("input-before", 4),
        ],
    }
}

#[test]
fn a_client_of_a_service_address_is_named_at_every_hook() {
    every_owner_is_named(&service());
}

#[test]
fn a_client_behind_snat_is_named_at_every_hook() {
    let rules = format!("snat ip to {}\nsnat ip6 to {}", MASK[0], MASK[1]);
    every_owner_is_named(&Case {
        client: nat("postrouting", 100, &rules),
        server: String::new(),
        peer: |family| at(SERVER, family, SERVER_PORT),
        listen: |family| at(SERVER, family, SERVER_PORT),
        remote: true,
        needs_conntrack: &[("prerouting-before", 3)],
    });
}

#[test]
fn both_ends_of_a_redirected_connection_are_named() {
    let rules = format!(
        "ip daddr {} meta l4proto {{ tcp, udp }} redirect to :{SERVER_PORT}
         ip6 daddr {} meta l4proto {{ tcp, udp }} redirect to :{SERVER_PORT}",
        SERVICE[0], SERVICE[1]
    );
    every_owner_is_named(&Case {
        client: nat("output", -100, &rules),
        server: String::new(),
        peer: |family| at(SERVICE, family, SERVICE_PORT),
        listen: |family| at(["127.0.0.1", "::1"], family, SERVER_PORT),
        remote: false,
        // Loopback translates both ways before the packet arrives. The SYN,ACK leaves with the service's port, at which nobody
        // listens.
        needs_conntrack: &[("postrouting-after", 1)],
    });
}

#[test]
fn a_server_on_a_published_port_is_named_where_that_is_decided() {
    let rules = format!(
        "meta l4proto {{ tcp, udp }} th dport {SERVICE_PORT} dnat ip to {}:{SERVER_PORT}
         meta l4proto {{ tcp, udp }} th dport {SERVICE_PORT} dnat ip6 to [{}]:{SERVER_PORT}",
        SERVER[0], SERVER[1]
    );
    every_owner_is_named(&Case {
        client: String::new(),
        server: nat("prerouting", -100, &rules),
        peer: |family| at(SERVER, family, SERVICE_PORT),
        listen: |family| at(SERVER, family, SERVER_PORT),
        remote: true,
        needs_conntrack: &[("prerouting-before", 3)],
    });
}

#[test]
fn without_conntrack_translated_packets_have_a_reason() {
    if !has_kprobes() {
        return;
    }
    let (records, expected) = watch(&service(), 1, &["--conntrack", "off"]);
    let table = count(&records, &expected);
    assert!(
        table.keys().all(|[_, _, answer]| answer != "conntrack"),
        "{table:#?}"
    );
    let key = ["tcp", "input-before", "no-socket"].map(str::to_owned);
    assert!(table.contains_key(&key), "{table:#?}");
}

/// Two clients use one port, for the service and for the server behind it. Where the service's replies are not yet translated
/// back they look exactly like those to the other client.
#[test]
fn replies_that_look_like_another_connections_are_told_apart() {
    if !has_kprobes() {
        return;
    }
    let case = service();
    let world = World::new(&case);
    // The rules know whose a packet is; they are there before the first packet, and only in this namespace.
    let marks: String = (0..2)
        .map(|family| {
            let ip = ["ip", "ip6"][family];
            format!(
                "ct original {ip} daddr {} log prefix \"service\" group 7\n",
                SERVICE[family]
            ) + &format!(
                "ct original {ip} daddr {} log prefix \"direct\" group 7\n",
                SERVER[family]
            )
        })
        .collect();
    world.client.nft(&format!(
        "delete table inet watch
         table inet watch {{
             chain a {{ type filter hook prerouting priority 0; {marks} }}
             chain b {{ type filter hook input priority 0; {marks} }}
         }}"
    ));
    let agent = start_agent(&[&world.client], &[]);
    for family in 0..2 {
        if family == 1 && kernel() < (6, 12) {
            // It believes its guess of the socket from before translation, and the connection does not open.
            let written = world
                .client
                .run(|| std::fs::write("/proc/sys/net/ipv4/ip_early_demux", "0"));
            written.expect("early demultiplexing can be switched off");
        }
        let hub = Workload::start(&world.server, "tcp-hub", at(SERVER, family, SERVER_PORT));
        let from = at(CLIENT, family, CLIENT_PORT);
        let direct = Workload::start_from(&world.client, "tcp-client", from, at(SERVER, family, SERVER_PORT));
        let service = Workload::start_from(
            &world.client,
            "tcp-client",
            from,
            at(SERVICE, family, SERVICE_PORT),
        );
        let owners = [("direct", direct.truth.pid), ("service", service.truth.pid)];
        sleep(Duration::from_millis(200));
        let records = Seen::from_json(&agent.output());
        let network = ["ipv4", "ipv6"][family];
        for (prefix, pid) in owners {
            let of: Vec<_> = records
                .iter()
                .filter(|seen| seen.text("nflog.prefix") == Some(prefix))
                .filter(|seen| seen.text("network.type") == Some(network))
                .collect();
            for seen in &of {
                assert_eq!(seen.number("process.pid"), Some(pid), "{prefix}: {seen:?}");
            }
            // SYN,ACK and three answers at two hooks.
            assert!(of.len() >= 8, "{} records of {prefix}, {network}", of.len());
        }
        service.release();
        direct.release();
        hub.release();
    }
    assert_eq!(agent.stop().code, Some(0));
}
