//! The fallback owner source against the running kernel: real sockets of real processes in network namespaces.
//!
//! Needs root and iproute2. No packet is logged here: the lookup is given what NFLOG would have logged.

mod namespace;
mod worker;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use namespace::{Namespace, pair};
use nflog_agent::owner::{Attribution, DiagError as OpenError, End, Method, Place, Reason, SockDiag};
use nflog_agent::packet::{Packet, Transport};
use worker::Worker;

const PREROUTING: u8 = 0;
const INPUT: u8 = 1;
const FORWARD: u8 = 2;
const OUTPUT: u8 = 3;
const POSTROUTING: u8 = 4;

const FIN_ACK: u8 = 0x11;
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;

fn diag(namespace: &Namespace) -> SockDiag {
    SockDiag::open(Some(&namespace.path())).expect("open sock_diag")
}

fn packet(source: IpAddr, destination: IpAddr, protocol: u8, transport: Transport) -> Packet {
    Packet {
        source: Some(source.to_canonical()),
        destination: Some(destination.to_canonical()),
        protocol: Some(protocol),
        transport,
        length: Some(60),
        captured: 60,
        ttl: Some(64),
        fragment: false,
        problem: None,
    }
}

fn tcp(from: SocketAddr, to: SocketAddr, flags: u8) -> Packet {
    packet(
        from.ip(),
        to.ip(),
        6,
        Transport::Tcp {
            source: from.port(),
            destination: to.port(),
            flags,
        },
    )
}

fn udp(from: SocketAddr, to: SocketAddr) -> Packet {
    packet(
        from.ip(),
        to.ip(),
        17,
        Transport::Ports {
            source: from.port(),
            destination: to.port(),
        },
    )
}

fn echo(from: IpAddr, to: IpAddr, kind: u8, id: u16) -> Packet {
    let protocol = if from.is_ipv4() { 1 } else { 58 };
    packet(
        from,
        to,
        protocol,
        Transport::Icmp {
            kind,
            code: 0,
            echo_id: Some(id),
        },
    )
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// What the fallback says. Asks again while that is `missed`: what it spends on looking is bounded, and a busy or emulated machine
/// is slow to look.
fn ask<P: Into<Place> + Copy>(diag: &mut SockDiag, place: P, packet: &Packet) -> Attribution {
    let missed = Attribution::Unowned(Reason::Missed);
    for _ in 0..500 {
        let answer = diag.lookup(place, packet);
        if answer != missed {
            return answer;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    missed
}

#[track_caller]
fn assert_owner(diag: &mut SockDiag, hook: u8, packet: &Packet, pid: u32) {
    match ask(diag, hook, packet) {
        Attribution::Owned { owner, method, end } => {
            assert_eq!(
                (owner.pid, method),
                (pid, Method::SockDiag),
                "hook {hook}: {packet:?}"
            );
            assert_eq!(end, End::at_hook(hook));
            assert_eq!(owner.uid, 0);
            assert_eq!(owner.comm.as_bytes(), comm(pid).as_bytes());
            assert_eq!(
                owner.start_boottime.map(|start| start / 10_000_000),
                Some(start_ticks(pid))
            );
        }
        Attribution::Unowned(reason) => panic!("hook {hook}: {reason:?} instead of {pid}: {packet:?}"),
    }
}

#[track_caller]
fn assert_reason(diag: &mut SockDiag, hook: u8, packet: &Packet, reason: Reason) {
    let answer = if reason == Reason::Missed {
        diag.lookup(hook, packet)
    } else {
        ask(diag, hook, packet)
    };
    assert_eq!(answer, Attribution::Unowned(reason), "hook {hook}: {packet:?}");
}

fn comm(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .unwrap()
        .trim_end()
        .to_owned()
}

fn start_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')')
        .unwrap()
        .1
        .split_ascii_whitespace()
        .nth(19)
        .unwrap()
        .parse()
        .unwrap()
}

/// Addresses of the two ends by family, and the wildcard to listen on.
const FAMILIES: [[&str; 3]; 2] = [
    ["10.77.0.1", "10.77.0.2", "0.0.0.0:0"],
    ["fd77::1", "fd77::2", "[::]:0"],
];

#[test]
fn both_ends_of_a_tcp_connection_are_named() {
    for [client_ip, server_ip, wildcard] in FAMILIES {
        let (left, right) = pair();
        let (mut client, mut server) = (Worker::start(&left), Worker::start(&right));
        let (listener, bound) = server.tcp_listen(wildcard);
        let to = at(server_ip, bound.port());
        let (_, from) = client.tcp_connect(&SocketAddr::new(client_ip.parse().unwrap(), 0).to_string(), to);
        let (mut at_client, mut at_server) = (diag(&left), diag(&right));

        for (sent, received) in [(SYN, SYN_ACK), (ACK, ACK)] {
            assert_owner(&mut at_client, OUTPUT, &tcp(from, to, sent), client.pid);
            assert_owner(&mut at_client, POSTROUTING, &tcp(from, to, sent), client.pid);
            assert_owner(&mut at_client, INPUT, &tcp(to, from, received), client.pid);
            // Not accepted yet: the listener's process.
            assert_owner(&mut at_server, PREROUTING, &tcp(from, to, sent), server.pid);
            assert_owner(&mut at_server, INPUT, &tcp(from, to, sent), server.pid);
            assert_owner(&mut at_server, OUTPUT, &tcp(to, from, received), server.pid);
        }
        server.tcp_accept(listener);
        assert_owner(&mut at_server, INPUT, &tcp(from, to, ACK), server.pid);
        assert_owner(&mut at_server, OUTPUT, &tcp(to, from, ACK), server.pid);
    }
}

#[test]
fn an_ipv6_listener_owns_its_ipv4_connections() {
    let (left, right) = pair();
    let (mut client, mut server) = (Worker::start(&left), Worker::start(&right));
    let (listener, bound) = server.tcp_listen("[::]:0");
    let to = at("10.77.0.2", bound.port());
    let (_, from) = client.tcp_connect("10.77.0.1:0", to);
    let mut at_server = diag(&right);
    assert_owner(&mut at_server, INPUT, &tcp(from, to, SYN), server.pid);
    assert_owner(&mut at_server, INPUT, &tcp(from, to, ACK), server.pid);
    server.tcp_accept(listener);
    assert_owner(&mut at_server, INPUT, &tcp(from, to, ACK), server.pid);
    assert_owner(&mut at_server, OUTPUT, &tcp(to, from, ACK), server.pid);
}

#[test]
fn on_loopback_the_hook_tells_the_two_owners_of_one_tuple_apart() {
    let namespace = Namespace::new("lo");
    let (mut client, mut server) = (Worker::start(&namespace), Worker::start(&namespace));
    let mut diag = diag(&namespace);

    let (listener, to) = server.tcp_listen("127.0.0.1:0");
    let (_, from) = client.tcp_connect("127.0.0.1:0", to);
    server.tcp_accept(listener);
    assert_owner(&mut diag, OUTPUT, &tcp(from, to, ACK), client.pid);
    assert_owner(&mut diag, INPUT, &tcp(from, to, ACK), server.pid);
    assert_owner(&mut diag, OUTPUT, &tcp(to, from, ACK), server.pid);
    assert_owner(&mut diag, INPUT, &tcp(to, from, ACK), client.pid);

    let (_, to) = server.udp_bind("127.0.0.1:0");
    let (_, from) = client.udp_connect("127.0.0.1:0", to);
    assert_owner(&mut diag, OUTPUT, &udp(from, to), client.pid);
    assert_owner(&mut diag, INPUT, &udp(from, to), server.pid);
    assert_owner(&mut diag, OUTPUT, &udp(to, from), server.pid);
    assert_owner(&mut diag, INPUT, &udp(to, from), client.pid);
}

#[test]
fn both_ends_of_udp_are_named() {
    for [client_ip, server_ip, wildcard] in FAMILIES {
        let (left, right) = pair();
        let (mut client, mut server) = (Worker::start(&left), Worker::start(&right));
        let (_, bound) = server.udp_bind(wildcard);
        let to = at(server_ip, bound.port());
        let (_, connected) =
            client.udp_connect(&SocketAddr::new(client_ip.parse().unwrap(), 0).to_string(), to);
        let (_, unconnected) = client.udp_send(to);
        let (mut at_client, mut at_server) = (diag(&left), diag(&right));
        for port in [connected.port(), unconnected.port()] {
            let from = at(client_ip, port);
            assert_owner(&mut at_client, OUTPUT, &udp(from, to), client.pid);
            assert_owner(&mut at_client, INPUT, &udp(to, from), client.pid);
            assert_owner(&mut at_server, INPUT, &udp(from, to), server.pid);
            assert_owner(&mut at_server, OUTPUT, &udp(to, from), server.pid);
        }
    }
}

#[test]
fn an_ipv6_udp_server_owns_its_ipv4_packets() {
    let (left, right) = pair();
    let (mut client, mut server) = (Worker::start(&left), Worker::start(&right));
    let (_, bound) = server.udp_bind("[::]:0");
    let to = at("10.77.0.2", bound.port());
    let (_, from) = client.udp_connect("10.77.0.1:0", to);
    let mut at_server = diag(&right);
    assert_owner(&mut at_server, INPUT, &udp(from, to), server.pid);
    assert_owner(&mut at_server, OUTPUT, &udp(to, from), server.pid);
}

#[test]
fn a_udp_socket_can_send_to_another_peer_than_it_is_connected_to() {
    let namespace = Namespace::new("sendto");
    let mut client = Worker::start(&namespace);
    let (_, from) = client.udp_connect("127.0.0.1:0", at("127.0.0.1", 9));
    assert_owner(
        &mut diag(&namespace),
        OUTPUT,
        &udp(from, at("127.0.0.2", 53)),
        client.pid,
    );
}

#[test]
fn a_connection_that_was_closed_has_a_reason_instead_of_an_owner() {
    let (left, right) = pair();
    let (mut client, mut server) = (Worker::start(&left), Worker::start(&right));
    let (listener, bound) = server.tcp_listen("0.0.0.0:0");
    let to = at("10.77.0.2", bound.port());
    let (out, from) = client.tcp_connect("10.77.0.1:0", to);
    let (accepted, _) = server.tcp_accept(listener);
    let (mut at_client, mut at_server) = (diag(&left), diag(&right));

    client.close(out);
    // Until the peer acknowledges the FIN the socket is there without a process; then TIME_WAIT's small one takes over.
    let closing = ask(&mut at_client, OUTPUT, &tcp(from, to, FIN_ACK));
    let reasons = [Reason::ProcessGone, Reason::TimeWait].map(Attribution::Unowned);
    assert!(reasons.contains(&closing), "{closing:?}");
    server.close(accepted);
    // The last ACK crosses the veth in softirq; the client's end must reach TIME_WAIT, the server's must vanish.
    for _ in 0..200 {
        if at_client.lookup(OUTPUT, &tcp(from, to, ACK)) == Attribution::Unowned(Reason::TimeWait) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_reason(&mut at_client, OUTPUT, &tcp(from, to, ACK), Reason::TimeWait);
    assert_reason(&mut at_client, INPUT, &tcp(to, from, FIN_ACK), Reason::TimeWait);
    // The listener still has the port, but it is not the connection.
    assert_reason(&mut at_server, OUTPUT, &tcp(to, from, FIN_ACK), Reason::NoSocket);
    assert_reason(&mut at_server, INPUT, &tcp(from, to, ACK), Reason::NoSocket);
    assert_owner(
        &mut at_server,
        INPUT,
        &tcp(at("10.77.0.1", 1), to, SYN),
        server.pid,
    );
}

#[test]
fn a_closed_udp_socket_has_no_owner() {
    let namespace = Namespace::new("closed");
    let mut worker = Worker::start(&namespace);
    let mut diag = diag(&namespace);
    let (slot, from) = worker.udp_connect("127.0.0.1:0", at("127.0.0.1", 9));
    let sent = udp(from, at("127.0.0.1", 9));
    assert_owner(&mut diag, OUTPUT, &sent, worker.pid);
    worker.close(slot);
    let after = ask(&mut diag, OUTPUT, &sent);
    assert!(
        matches!(
            after,
            Attribution::Unowned(Reason::NoSocket | Reason::ProcessGone)
        ),
        "{after:?}"
    );
}

#[test]
fn a_reused_port_never_brings_up_the_process_before() {
    let namespace = Namespace::new("reuse");
    let mut diag = diag(&namespace);
    let peer = at("127.0.0.9", 999);
    for round in 0..10 {
        let mut first = Worker::start(&namespace);
        let (_, listening) = first.tcp_listen("127.0.0.1:7000");
        let (_, bound) = first.udp_bind("127.0.0.1:7001");
        assert_owner(&mut diag, INPUT, &tcp(peer, listening, SYN), first.pid);
        assert_owner(&mut diag, INPUT, &udp(peer, bound), first.pid);
        assert_owner(&mut diag, OUTPUT, &udp(bound, peer), first.pid);
        let gone = first.pid;
        drop(first);
        let mut second = Worker::start(&namespace);
        second.tcp_listen("127.0.0.1:7000");
        second.udp_bind("127.0.0.1:7001");
        assert_ne!(second.pid, gone, "round {round}");
        assert_owner(&mut diag, INPUT, &tcp(peer, listening, SYN), second.pid);
        assert_owner(&mut diag, INPUT, &udp(peer, bound), second.pid);
        assert_owner(&mut diag, OUTPUT, &udp(bound, peer), second.pid);
    }
}

#[test]
fn a_reused_tcp_tuple_never_brings_up_the_process_before() {
    let namespace = Namespace::new("tuple");
    let mut server = Worker::start(&namespace);
    let (listener, to) = server.tcp_listen("127.0.0.1:0");
    let mut diag = diag(&namespace);
    for _ in 0..5 {
        let mut client = Worker::start(&namespace);
        let (_, from) = client.tcp_connect("127.0.0.1:7002", to);
        let (accepted, _) = server.tcp_accept(listener);
        assert_owner(&mut diag, OUTPUT, &tcp(from, to, ACK), client.pid);
        // The server closes first, so that TIME_WAIT is on its side and the client's port is free at once.
        server.close(accepted);
        drop(client);
        let after = diag.lookup(OUTPUT, &tcp(from, to, ACK));
        assert!(after.owner().is_none(), "{after:?}");
    }
}

#[test]
fn listeners_of_two_processes_on_one_port_are_ambiguous_until_the_connection_exists() {
    let namespace = Namespace::new("group");
    let (mut first, mut second) = (Worker::start(&namespace), Worker::start(&namespace));
    let (one, to) = first.tcp_listen("127.0.0.1:7003");
    let mut diag = diag(&namespace);
    let syn = tcp(at("127.0.0.9", 999), to, SYN);
    assert_owner(&mut diag, INPUT, &syn, first.pid);

    let (other, _) = second.tcp_listen("127.0.0.1:7003");
    std::thread::sleep(std::time::Duration::from_millis(150)); // the port's sockets are remembered for 100 ms
    assert_reason(&mut diag, INPUT, &syn, Reason::Ambiguous);

    second.close(other);
    let mut client = Worker::start(&namespace);
    let (_, from) = client.tcp_connect("127.0.0.1:0", to);
    first.tcp_accept(one);
    second.tcp_listen("127.0.0.1:7003");
    assert_owner(&mut diag, INPUT, &tcp(from, to, ACK), first.pid);
}

#[test]
fn udp_sockets_of_two_processes_on_one_port_are_ambiguous() {
    let namespace = Namespace::new("udpgroup");
    let (mut first, mut second) = (Worker::start(&namespace), Worker::start(&namespace));
    let (_, to) = first.udp_bind("127.0.0.1:7004");
    second.udp_bind("0.0.0.0:7004");
    let (mut diag, peer) = (diag(&namespace), at("127.0.0.9", 999));
    // Received: the kernel prefers the bound address. Sent: either can be the sender.
    assert_owner(&mut diag, INPUT, &udp(peer, to), first.pid);
    assert_owner(&mut diag, INPUT, &udp(peer, at("127.0.0.2", 7004)), second.pid);
    assert_reason(&mut diag, OUTPUT, &udp(to, peer), Reason::Ambiguous);
    assert_owner(&mut diag, OUTPUT, &udp(at("127.0.0.2", 7004), peer), second.pid);
}

#[test]
fn a_socket_held_by_two_processes_is_ambiguous_until_one_lets_go() {
    let namespace = Namespace::new("shared");
    let mut worker = Worker::start(&namespace);
    let (slot, bound) = worker.udp_bind("127.0.0.1:0");
    worker.share(slot);
    let (mut diag, peer) = (diag(&namespace), at("127.0.0.9", 999));
    assert_reason(&mut diag, INPUT, &udp(peer, bound), Reason::Ambiguous);
    worker.unshare();
    assert_owner(&mut diag, INPUT, &udp(peer, bound), worker.pid);
}

#[test]
fn routed_packets_are_not_given_to_a_wildcard_listener() {
    let (left, _right) = pair();
    let mut server = Worker::start(&left);
    let (_, v4) = server.tcp_listen("0.0.0.0:7005");
    server.udp_bind("[::]:7005");
    let (mut diag, port) = (diag(&left), v4.port());
    let peer = at("10.77.0.2", 999);
    assert_owner(
        &mut diag,
        PREROUTING,
        &tcp(peer, at("10.77.0.1", port), SYN),
        server.pid,
    );
    assert_reason(
        &mut diag,
        PREROUTING,
        &tcp(peer, at("10.88.0.1", port), SYN),
        Reason::Forwarded,
    );
    assert_reason(
        &mut diag,
        FORWARD,
        &tcp(peer, at("10.77.0.1", port), SYN),
        Reason::Forwarded,
    );
    assert_reason(
        &mut diag,
        POSTROUTING,
        &udp(at("10.77.0.2", port), at("10.88.0.1", 9)),
        Reason::Forwarded,
    );
    let peer = at("fd77::2", 999);
    assert_owner(&mut diag, PREROUTING, &udp(peer, at("fd77::1", port)), server.pid);
    assert_reason(
        &mut diag,
        PREROUTING,
        &udp(peer, at("fd88::1", port)),
        Reason::Forwarded,
    );
    assert_owner(
        &mut diag,
        POSTROUTING,
        &udp(at("fd77::1", port), peer),
        server.pid,
    );
}

#[test]
fn ping_sockets_are_found_by_their_echo_identifier() {
    let (left, _right) = pair();
    let mut pinger = Worker::start(&left);
    let mut diag = diag(&left);
    for ([local, remote, _], (request, reply)) in FAMILIES.into_iter().zip([(8, 0), (128, 129)]) {
        let (local, remote): (IpAddr, IpAddr) = (local.parse().unwrap(), remote.parse().unwrap());
        let (_, socket) = pinger.ping(remote);
        let id = socket.port();
        assert_owner(&mut diag, OUTPUT, &echo(local, remote, request, id), pinger.pid);
        assert_owner(&mut diag, INPUT, &echo(remote, local, reply, id), pinger.pid);
        assert_reason(
            &mut diag,
            OUTPUT,
            &echo(local, remote, request, id ^ 1),
            Reason::Missed,
        );
        // Somebody else's ping: the kernel answers it.
        assert_reason(
            &mut diag,
            OUTPUT,
            &echo(local, remote, reply, id),
            Reason::KernelSocket,
        );
    }
}

#[test]
fn no_socket_is_found_for_an_unused_port() {
    let namespace = Namespace::new("unused");
    let mut diag = diag(&namespace);
    let (from, to) = (at("127.0.0.1", 7006), at("127.0.0.1", 7007));
    for hook in [INPUT, OUTPUT] {
        assert_reason(&mut diag, hook, &tcp(from, to, SYN), Reason::NoSocket);
        assert_reason(&mut diag, hook, &udp(from, to), Reason::NoSocket);
    }
    // A flood to a closed port does not use up what finding owners may cost.
    for _ in 0..20_000 {
        assert_reason(&mut diag, INPUT, &udp(from, to), Reason::NoSocket);
    }
}

#[test]
fn a_socket_of_the_kernel_is_called_that() {
    let (left, _right) = pair();
    left.ip("link add vx0 type vxlan id 7 dstport 4789 local 10.77.0.1 dev veth0");
    left.ip("link set vx0 up");
    let sent = udp(at("10.77.0.1", 4789), at("10.77.0.2", 4789));
    // Where some process may not be looked at, it may be that process's socket.
    let reason = if every_process_is_readable() {
        Reason::KernelSocket
    } else {
        Reason::Missed
    };
    assert_reason(&mut diag(&left), OUTPUT, &sent, reason);
}

fn every_process_is_readable() -> bool {
    use std::io::ErrorKind::PermissionDenied;
    let links =
        |path: std::path::PathBuf| std::fs::read_dir(path).map(|links| links.flatten().collect::<Vec<_>>());
    let readable =
        links("/proc".into())
            .unwrap()
            .into_iter()
            .all(|process| match links(process.path().join("fd")) {
                Ok(fds) => fds.iter().all(|fd| {
                    std::fs::read_link(fd.path()).map_or_else(|e| e.kind() != PermissionDenied, |_| true)
                }),
                Err(error) => error.kind() != PermissionDenied,
            });
    if !readable {
        eprintln!("some processes of this machine are not readable, even for root");
    }
    readable
}

#[test]
fn addresses_overlap_between_namespaces_without_harm() {
    let (one, other) = (Namespace::new("one"), Namespace::new("other"));
    let (mut in_one, mut in_other) = (Worker::start(&one), Worker::start(&other));
    in_one.udp_bind("127.0.0.1:7008");
    in_other.udp_bind("127.0.0.1:7008");
    let received = udp(at("127.0.0.9", 999), at("127.0.0.1", 7008));
    assert_owner(&mut diag(&one), INPUT, &received, in_one.pid);
    assert_owner(&mut diag(&other), INPUT, &received, in_other.pid);
}

#[test]
fn sockets_bound_to_a_device_are_found_when_the_device_is_known() {
    let (left, right) = pair();
    left.ip("address add fe80::77:1/64 dev veth0 nodad");
    right.ip("address add fe80::77:2/64 dev veth0 nodad");
    let (mut client, mut server) = (Worker::start(&left), Worker::start(&right));
    let (near, far) = (left.ifindex("veth0"), right.ifindex("veth0"));
    let (_, bound) = server.tcp_listen(&format!("[fe80::77:2%{far}]:0"));
    let remote = format!("[fe80::77:2%{near}]:{}", bound.port()).parse().unwrap();
    let (_, local) = client.tcp_connect(&format!("[fe80::77:1%{near}]:0"), remote);
    let sent = tcp(
        at("fe80::77:1", local.port()),
        at("fe80::77:2", bound.port()),
        ACK,
    );
    let (mut at_client, mut at_server) = (diag(&left), diag(&right));
    let out = Place {
        hook: OUTPUT,
        indev: None,
        outdev: Some(near),
    };
    let arrived = Place {
        hook: INPUT,
        indev: Some(far),
        outdev: None,
    };
    assert_eq!(
        ask(&mut at_client, out, &sent).owner().map(|owner| owner.pid),
        Some(client.pid)
    );
    assert_eq!(
        ask(&mut at_server, arrived, &sent).owner().map(|owner| owner.pid),
        Some(server.pid)
    );
    let elsewhere = Place {
        indev: Some(1),
        ..arrived
    };
    assert_eq!(
        ask(&mut at_server, elsewhere, &sent),
        Attribution::Unowned(Reason::NoSocket)
    );
}

#[test]
fn a_wrong_namespace_is_an_error_that_names_it() {
    let missing = SockDiag::open(Some(Path::new("/run/netns/no-such-namespace"))).unwrap_err();
    assert!(matches!(missing, OpenError::Namespace { .. }), "{missing}");
    assert!(missing.to_string().contains("/run/netns/no-such-namespace"));
    let other_kind = SockDiag::open(Some(Path::new("/proc/self/ns/uts"))).unwrap_err();
    assert!(matches!(other_kind, OpenError::Enter { .. }), "{other_kind}");
}
