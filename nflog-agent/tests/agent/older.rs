//! Sockets that are older than the agent: it names their owners all the same.

mod process;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

pub(crate) use process::play;
use process::{CLIENT_PORT, ROUNDS};

use crate::has_kprobes;
use crate::program::{Agent, Ended, binary};
use crate::seen::Seen;
use crate::support::{Netns, veth, wait_for};
use crate::workload::{Truth, Workload};

/// Log all that these tests send, both ways. Group 7.
const RULES: &str = "
    table inet t {
        chain out {
            type filter hook output priority 0;
            meta l4proto { tcp, udp, 253 } counter log prefix \"out \" group 7 comment \"sent\";
            icmp type { echo-request, echo-reply } counter log prefix \"out \" group 7 comment \"sent4\";
            icmpv6 type { echo-request, echo-reply } counter log prefix \"out \" group 7 comment \"sent6\";
        }
        chain in {
            type filter hook input priority 0;
            meta l4proto { tcp, udp, 253 } counter log prefix \"in \" group 7 comment \"received\";
            icmp type { echo-request, echo-reply } counter log prefix \"in \" group 7 comment \"received4\";
            icmpv6 type { echo-request, echo-reply } counter log prefix \"in \" group 7 comment \"received6\";
        }
    }";

/// Every server's port.
const PORT: u16 = 5200;

fn start(places: &[&Netns], attribution: &str) -> Agent {
    let paths: Vec<_> = places
        .iter()
        .map(|netns| netns.path().display().to_string())
        .collect();
    let paths = paths.join(",");
    Agent::start(
        &[
            "--group",
            "7",
            "--netns",
            &paths,
            "--attribution",
            attribution,
            "--output",
            "json",
        ],
        &[],
    )
}

/// Lets the last packets pass, and stops the agent.
#[track_caller]
fn finish(agent: Agent) -> Ended {
    std::thread::sleep(Duration::from_millis(200));
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.messages());
    ended
}

fn logged(netns: &Netns) -> u64 {
    ["sent", "sent4", "sent6", "received", "received4", "received6"]
        .map(|comment| netns.counter(comment))
        .iter()
        .sum()
}

fn netns(name: &str) -> Netns {
    let netns = Netns::new(name);
    netns.nft(RULES);
    netns
        .run(|| std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"))
        .expect("ping sockets can be allowed");
    netns
}

#[track_caller]
fn assert_owner(seen: &Seen, truth: &Truth) {
    assert_eq!(seen.number("process.pid"), Some(truth.pid), "{truth:?}\n{seen:?}");
    assert_eq!(
        seen.number("nflog.cgroup.id"),
        Some(truth.cgroup),
        "{truth:?}\n{seen:?}"
    );
}

#[track_caller]
fn assert_nobody(seen: &Seen, reasons: &[&str]) {
    assert_eq!(seen.text("process.pid"), None, "{seen:?}");
    let reason = seen.text("nflog.owner.reason").expect("a reason");
    assert!(reasons.contains(&reason), "{seen:?}");
}

fn method(seen: &Seen) -> &str {
    seen.text("nflog.owner.method").expect("a method")
}

/// A client's and a server's namespace. Every pair has the same addresses, and its sockets the same ports.
struct Pair {
    client: Netns,
    server: Netns,
    /// The server's addresses.
    addresses: [IpAddr; 2],
}

impl Pair {
    fn new(name: &str) -> Self {
        let (client, server) = (netns(&format!("{name}c")), netns(&format!("{name}s")));
        let (port, _) = veth(&client, &server);
        for (netns, host) in [(&client, 1), (&server, 2)] {
            netns.ip(&format!("address add 10.99.0.{host}/24 dev {}", port.device));
            netns.ip(&format!("address add fd99::{host}/64 dev {} nodad", port.device));
        }
        Self {
            client,
            server,
            addresses: ["10.99.0.2", "fd99::2"].map(|address| address.parse().unwrap()),
        }
    }
}

/// A namespace's inode and `network.type`: one process each.
type Place = (u64, &'static str);

/// The processes of all pairs, with all sockets open.
#[derive(Default)]
struct Processes {
    servers: Vec<Workload>,
    clients: Vec<Workload>,
    owners: HashMap<Place, Truth>,
}

impl Processes {
    fn open(&mut self, pair: &Pair) {
        for (address, family) in pair.addresses.into_iter().zip(["ipv4", "ipv6"]) {
            let address = SocketAddr::new(address, PORT);
            let server = Workload::start(&pair.server, "older-server", address);
            let client = Workload::start(&pair.client, "older-client", address);
            self.owners
                .insert((pair.server.inode().into(), family), server.truth);
            self.owners
                .insert((pair.client.inode().into(), family), client.truth);
            self.servers.push(server);
            self.clients.push(client);
        }
    }
}

/// Whether the record belongs to a connection that was opened after the agent started.
fn is_later(seen: &Seen) -> bool {
    seen.text("network.transport") == Some("tcp")
        && ["source.port", "destination.port"]
            .iter()
            .all(|port| seen.number(port) != Some(CLIENT_PORT.into()))
}

#[test]
fn every_kind_of_socket_is_named_in_namespaces_with_the_same_addresses() {
    if !has_kprobes() {
        return;
    }
    let pairs = ["a", "b"].map(Pair::new);
    let mut processes = Processes::default();
    pairs.iter().for_each(|pair| processes.open(pair));
    let places = pairs.each_ref().map(|pair| [&pair.client, &pair.server]).concat();
    let before: u64 = places.iter().map(|netns| logged(netns)).sum();
    let agent = start(&places, "probes");
    assert!(agent.said("sockets are older than the agent and known now"));
    let Processes {
        servers,
        mut clients,
        owners,
    } = processes;
    clients.iter_mut().for_each(Workload::act);
    clients.into_iter().chain(servers).for_each(Workload::release);
    std::thread::sleep(Duration::from_millis(200));
    let after: u64 = places.iter().map(|netns| logged(netns)).sum();
    let ended = finish(agent);
    let records = Seen::from_json(&ended.stdout);
    assert_eq!(records.len() as u64, after - before, "{}", ended.messages());

    // The kernel runs no probe while it interrupts another one, or a lookup of the agent's.
    let (missed, answered): (Vec<_>, Vec<_>) = records.iter().partition(|seen| seen.is_missed());
    assert!(missed.len() * 20 <= records.len(), "{missed:?}");
    let mut seeded: HashMap<(Place, &str), usize> = HashMap::new();
    for seen in answered {
        let netns = seen.number("nflog.netns.inode").expect("a namespace");
        let family = if seen.text("network.type") == Some("ipv4") {
            "ipv4"
        } else {
            "ipv6"
        };
        let transport = seen.text("network.transport").expect("a transport");
        let serves = pairs.iter().any(|pair| u64::from(pair.server.inode()) == netns);
        if serves && !["tcp", "udp"].contains(&transport) {
            // The kernel itself answers pings, and no socket there takes the raw packets.
            assert_nobody(seen, &["no-socket", "kernel-socket", "kernel-icmp"]);
            continue;
        }
        assert_owner(seen, &owners[&(netns, family)]);
        let allowed: &[_] = match (is_later(seen), serves) {
            (false, _) => &["seeded", "tombstone"],
            (true, true) => &["seeded", "inherited", "accepted", "tombstone"],
            (true, false) => &["socket", "tombstone"],
        };
        assert!(allowed.contains(&method(seen)), "{seen:?}");
        *seeded.entry(((netns, family), transport)).or_default() += usize::from(method(seen) == "seeded");
    }
    // TCP and UDP of all processes, ICMP and raw of the clients.
    assert_eq!(seeded.len(), 2 * 8 + 2 * 4, "{seeded:?}");
    assert!(
        seeded.values().all(|count| *count + missed.len() >= ROUNDS),
        "{seeded:?}"
    );
}

#[test]
fn a_process_that_dies_after_the_start_is_named_for_its_last_packets() {
    if !has_kprobes() {
        return;
    }
    let netns = netns("dies");
    let server = Workload::start(&netns, "older-server", "127.0.0.1:5200".parse().unwrap());
    let client = Workload::start(&netns, "older-client", server.truth.address);
    let truth = client.truth;
    let agent = start(&[&netns], "probes");
    // Killed.
    drop(client);
    wait_for("the end of the connection", || {
        (agent.output().len() >= 2).then_some(())
    });
    drop(server);
    let records = Seen::from_json(&finish(agent).stdout);
    let last_words: Vec<_> = records
        .iter()
        .filter(|seen| {
            seen.number("source.port") == Some(CLIENT_PORT.into())
                && seen.text("nflog.hook") == Some("output")
        })
        .collect();
    assert!(!last_words.is_empty(), "{records:?}");
    for seen in last_words {
        assert_owner(seen, &truth);
        assert!(["seeded", "tombstone"].contains(&method(seen)), "{seen:?}");
    }
}

/// Exchanges `ROUNDS` datagrams with the socket at `address`.
fn ask(netns: &Netns, address: SocketAddr) {
    netns.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        for _ in 0..ROUNDS {
            socket.send_to(b"question", address).unwrap();
            socket.recv(&mut [0; 16]).unwrap();
        }
    });
}

/// Records of the server's side of loopback traffic: sent and received by the socket on `port`.
fn of_server(records: &[Seen], port: u16) -> (Vec<&Seen>, Vec<&Seen>) {
    let side = |port_name, hook| {
        records
            .iter()
            .filter(|seen| {
                seen.number(port_name) == Some(port.into()) && seen.text("nflog.hook") == Some(hook)
            })
            .collect()
    };
    (side("source.port", "output"), side("destination.port", "input"))
}

/// A UDP socket that this process opened and another one got, as by `SCM_RIGHTS` or from an activator.
fn handed_over(netns: &Netns) -> (UdpSocket, Workload) {
    let socket = netns.run(|| UdpSocket::bind("127.0.0.1:5200").unwrap());
    let fd = OwnedFd::from(socket.try_clone().unwrap());
    let heir = Workload::start_with(
        netns,
        "older-udp-heir",
        socket.local_addr().unwrap(),
        Stdio::from(fd),
    );
    (socket, heir)
}

#[test]
fn a_socket_that_was_handed_over_is_its_holders() {
    if !has_kprobes() {
        return;
    }
    let netns = netns("heir");
    let (socket, heir) = handed_over(&netns);
    drop(socket);
    let agent = start(&[&netns], "probes");
    ask(&netns, heir.truth.address);
    let records = Seen::from_json(&finish(agent).stdout);
    let (sent, received) = of_server(&records, PORT);
    assert_eq!((sent.len(), received.len()), (ROUNDS, ROUNDS));
    for seen in sent.into_iter().chain(received) {
        assert_owner(seen, &heir.truth);
        assert_eq!(method(seen), "seeded", "{seen:?}");
    }
}

#[test]
fn a_datagram_socket_of_two_processes_is_nobodys_until_one_sends() {
    if !has_kprobes() {
        return;
    }
    let netns = netns("shared");
    let (socket, heir) = handed_over(&netns);
    let agent = start(&[&netns], "probes");
    ask(&netns, heir.truth.address);
    let records = Seen::from_json(&finish(agent).stdout);
    drop(socket);
    let (sent, received) = of_server(&records, PORT);
    assert_eq!((sent.len(), received.len()), (ROUNDS, ROUNDS));
    for seen in received {
        assert_nobody(seen, &["ambiguous"]);
    }
    for seen in sent {
        assert_owner(seen, &heir.truth);
        assert_eq!(method(seen), "sender", "{seen:?}");
    }
}

/// Connects, lets one of the server's processes accept once the agent has read the whole handshake, learns which it is, and
/// exchanges some bytes when the agent cannot take the handshake and them for one batch any more.
fn visit(netns: &Netns, agent: &Agent, server: &Workload) -> u64 {
    server.freeze(true);
    let mut connection = netns.run(|| TcpStream::connect(server.truth.address).unwrap());
    // SYN, SYN-ACK and ACK, each sent and received.
    wait_for("the handshake", || (agent.output().len() >= 6).then_some(()));
    server.freeze(false);
    let mut pid = [0; 4];
    connection.read_exact(&mut pid).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    for _ in 0..ROUNDS {
        connection.write_all(b"?").unwrap();
        connection.read_exact(&mut [0]).unwrap();
    }
    u32::from_be_bytes(pid).into()
}

/// The server's side of the handshake. Asserts that what follows is the worker's.
#[track_caller]
fn handshake(records: &[Seen], worker: u64) -> Vec<&Seen> {
    let (sent, received) = of_server(records, PORT);
    let (accepted, rest): (Vec<_>, Vec<_>) = sent
        .into_iter()
        .chain(received)
        .partition(|seen| ["accepted", "tombstone"].contains(&method(seen)));
    assert!(accepted.len() >= 2 * ROUNDS, "{records:?}");
    for seen in accepted {
        assert_eq!(seen.number("process.pid"), Some(worker), "{seen:?}");
    }
    let first_seen =
        |seen: &&Seen| ["SYN", "SYN,ACK"].contains(&seen.text("nflog.tcp.flags").expect("flags"));
    let (handshake, between): (Vec<_>, Vec<_>) = rest.into_iter().partition(first_seen);
    // Around the accept the owner of the tuple changes: a batch that may hold packets of before and after is nobody's.
    for seen in between.iter().filter(|seen| method(seen) == "none") {
        assert_nobody(seen, &["ambiguous"]);
    }
    assert_eq!(handshake.len(), 2, "{records:?}");
    handshake
}

#[test]
fn a_listener_shared_with_forked_workers_is_the_parents_until_accept() {
    if !has_kprobes() {
        return;
    }
    let netns = netns("prefork");
    let server = Workload::start(&netns, "older-prefork", "127.0.0.1:5200".parse().unwrap());
    let agent = start(&[&netns], "probes");
    let worker = visit(&netns, &agent, &server);
    assert_ne!(worker, server.truth.pid);
    let records = Seen::from_json(&finish(agent).stdout);
    for seen in handshake(&records, worker) {
        assert_owner(seen, &server.truth);
        assert_eq!(method(seen), "seeded", "{seen:?}");
    }
    server.release();
}

#[test]
fn a_port_shared_by_two_listeners_is_nobodys_until_accept() {
    if !has_kprobes() {
        return;
    }
    let netns = netns("reuseport");
    let address = "127.0.0.1:5200".parse::<SocketAddr>().unwrap();
    let heirs = [(), ()].map(|()| {
        let listener = netns.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.listen(8).unwrap();
            socket
        });
        Workload::start_with(
            &netns,
            "older-listener-heir",
            address,
            OwnedFd::from(listener).into(),
        )
    });
    let agent = start(&[&netns], "probes");
    // Both are in one cgroup.
    let worker = visit(&netns, &agent, &heirs[0]);
    assert!(heirs.iter().any(|heir| heir.truth.pid == worker));
    let records = Seen::from_json(&finish(agent).stdout);
    for seen in handshake(&records, worker) {
        // The kernel has chosen one of them when it answers.
        match seen.text("nflog.tcp.flags") {
            Some("SYN") => assert_nobody(seen, &["ambiguous"]),
            _ => assert_eq!(
                (seen.number("process.pid"), method(seen)),
                (Some(worker), "seeded"),
                "{seen:?}"
            ),
        }
    }
}

#[test]
fn a_listener_of_processes_that_are_no_family_is_nobodys_until_accept() {
    if !has_kprobes() {
        return;
    }
    let netns = netns("strangers");
    // This process keeps the listener; the heir, which accepts, is its child, but in another cgroup.
    let listener = netns.run(|| TcpListener::bind("127.0.0.1:5200").unwrap());
    let fd = OwnedFd::from(listener.try_clone().unwrap());
    let address = listener.local_addr().unwrap();
    let heir = Workload::start_with(&netns, "older-listener-heir", address, Stdio::from(fd));
    let agent = start(&[&netns], "probes");
    let worker = visit(&netns, &agent, &heir);
    assert_eq!(worker, heir.truth.pid);
    let records = Seen::from_json(&finish(agent).stdout);
    drop(listener);
    for seen in handshake(&records, worker) {
        assert_nobody(seen, &["ambiguous"]);
    }
}

/// The kernel's BTF without the iterator over files, as before 5.8, in a mount namespace of the agent's own.
#[test]
fn without_the_iterator_open_sockets_are_still_named() {
    if !has_kprobes() {
        return;
    }
    let netns = netns("no-iter");
    let mut btf = std::fs::read("/sys/kernel/btf/vmlinux").expect("this kernel has BTF");
    let name = b"\0bpf_iter_task_file\0";
    let at = btf.windows(name.len()).position(|window| window == name);
    btf[at.expect("this kernel has the iterator") + 1] = b'x';
    let mut hidden = tempfile::NamedTempFile::new().unwrap();
    hidden.write_all(&btf).unwrap();

    let server = Workload::start(&netns, "older-server", "127.0.0.1:5200".parse().unwrap());
    let script = format!(
        "mount --bind {} /sys/kernel/btf/vmlinux && exec {} run --group 7 --netns {} --attribution probes --output json",
        hidden.path().display(),
        binary().display(),
        netns.path().display()
    );
    let mut command = Command::new("unshare");
    let mut agent = Agent::from(command.args(["-m", "sh", "-c", &script]).env("RUST_LOG", "info"));
    agent.wait_until_said("reading group");
    assert!(agent.said("the probes do not know sockets older than the agent"));
    // Until it sends, nothing but the question after the fact can name it.
    server.freeze(true);
    let socket = netns.run(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    for _ in 0..ROUNDS {
        socket.send_to(b"question", server.truth.address).unwrap();
    }
    wait_for("all questions", || {
        (agent.output().len() >= 2 * ROUNDS).then_some(())
    });
    server.freeze(false);
    let records = Seen::from_json(&finish(agent).stdout);
    let truth = server.truth;
    drop(server);
    let (_, received) = of_server(&records, PORT);
    assert_eq!(received.len(), ROUNDS);
    // What is spent on looking is bounded.
    let (named, missed): (Vec<_>, Vec<_>) = received.into_iter().partition(|seen| method(seen) == "sockdiag");
    assert!(!named.is_empty(), "{records:?}");
    for seen in named {
        assert_owner(seen, &truth);
    }
    for seen in missed {
        assert_nobody(seen, &["no-socket"]);
    }
}
