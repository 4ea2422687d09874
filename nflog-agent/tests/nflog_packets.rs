//! What entries say about real packets: each family and hook, IPv4 and IPv6, TCP, UDP and ICMP. Needs root.
#![cfg(feature = "agent")]

mod support;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nflog_agent::nflog::{Config, Entry, Family, Hook, Nflog};
use nflog_agent::packet::{Packet, Problem, Transport, dissect};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use socket2::{Domain, Protocol, Socket, Type};
use support::{Netns, PATIENCE, Port, kernel, veth};

const GROUP: u16 = 6;
const UID: u32 = 1234;
const GID: u32 = 5678;
const MARK: u32 = 42;
const UDP_FROM: u16 = 1111;
const UDP_TO: u16 = 2222;
const TCP_TO: u16 = 3333;
const ECHO_ID: u16 = 0x4321;
/// The SYN flag alone.
const SYN: u8 = 2;

/// An entry, copied out of the buffer.
#[derive(Clone, Debug)]
struct Seen {
    family: Family,
    hook: Option<Hook>,
    group: u16,
    prefix: String,
    mark: Option<u32>,
    indev: Option<u32>,
    outdev: Option<u32>,
    physindev: Option<u32>,
    physoutdev: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    seq: Option<u32>,
    seq_global: Option<u32>,
    timestamp: Option<Duration>,
    hwaddr: Option<Vec<u8>>,
    hwtype: Option<u16>,
    hwlen: Option<u16>,
    hwheader: Option<Vec<u8>>,
    l2hdr: Option<Vec<u8>>,
    payload: Vec<u8>,
    packet: Packet,
}

impl Seen {
    fn new(entry: &Entry<'_>) -> Self {
        assert!(entry.problems().is_empty(), "{entry:?}");
        assert_eq!(entry.unknown_attributes(), 0, "{entry:?}");
        Self {
            family: entry.family(),
            hook: entry.hook(),
            group: entry.group(),
            prefix: entry.prefix_lossy().into_owned(),
            mark: entry.mark(),
            indev: entry.indev(),
            outdev: entry.outdev(),
            physindev: entry.physindev(),
            physoutdev: entry.physoutdev(),
            uid: entry.uid(),
            gid: entry.gid(),
            seq: entry.seq(),
            seq_global: entry.seq_global(),
            timestamp: entry.timestamp(),
            hwaddr: entry.hwaddr().map(<[u8]>::to_vec),
            hwtype: entry.hwtype(),
            hwlen: entry.hwlen(),
            hwheader: entry.hwheader().map(<[u8]>::to_vec),
            l2hdr: entry.l2hdr().map(<[u8]>::to_vec),
            payload: entry.payload().to_vec(),
            packet: dissect(
                entry.hw_protocol(),
                entry.family().number(),
                entry.network_payload(),
            ),
        }
    }
}

/// A reader, and everything it has read.
struct Log {
    nflog: Nflog,
    seen: Vec<Seen>,
}

impl Log {
    fn open(netns: &Netns) -> Self {
        let config = Config::builder()
            .netns(netns.netns())
            .group(GROUP)
            .build()
            .unwrap();
        Self {
            nflog: Nflog::open(&config).unwrap_or_else(|error| panic!("{error}")),
            seen: Vec::new(),
        }
    }

    /// The first entry that `wanted` accepts; reads on until there is one.
    #[track_caller]
    fn find(&mut self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(seen) = self.seen.iter().find(|seen| wanted(seen)) {
                return seen.clone();
            }
            assert!(Instant::now() < deadline, "no {what} among {:#?}", self.seen);
            if let Some(batch) = self.nflog.recv(Some(Duration::from_millis(100))).unwrap() {
                self.seen.extend(batch.map(|entry| Seen::new(&entry)));
            }
        }
    }
}

/// A flow of the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Tcp,
    Udp,
    Echo,
}

impl Flow {
    /// Whether this is its first packet.
    fn matches(self, packet: &Packet) -> bool {
        match (self, packet.transport) {
            (
                Self::Tcp,
                Transport::Tcp {
                    destination: TCP_TO,
                    flags,
                    ..
                },
            ) => flags & 0x3f == SYN,
            (
                Self::Udp,
                Transport::Ports {
                    source: UDP_FROM,
                    destination: UDP_TO,
                },
            ) => true,
            (Self::Echo, Transport::Icmp { kind, echo_id, .. }) => {
                matches!(kind, 8 | 128) && echo_id == Some(ECHO_ID)
            }
            _ => false,
        }
    }

    fn protocol(self, v6: bool) -> u8 {
        match (self, v6) {
            (Self::Tcp, _) => 6,
            (Self::Udp, _) => 17,
            (Self::Echo, false) => 1,
            (Self::Echo, true) => 58,
        }
    }
}

/// Sends a datagram and opens a connection as another user, inside `netns`.
fn send_as_user(netns: &Netns, from: IpAddr, to: IpAddr) {
    netns.run(|| {
        // Of this thread only, which ends with the closure.
        let (uid, gid) = (Uid::from_raw(UID), Gid::from_raw(GID));
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
        let udp = UdpSocket::bind((from, UDP_FROM)).unwrap();
        udp.send_to(b"hello", (to, UDP_TO)).unwrap();
        TcpStream::connect((to, TCP_TO)).unwrap();
    });
}

/// Sends an echo request; a raw socket needs root.
fn send_echo(netns: &Netns, to: IpAddr) {
    let (domain, protocol, kind) = if to.is_ipv6() {
        (Domain::IPV6, Protocol::ICMPV6, 128)
    } else {
        (Domain::IPV4, Protocol::ICMPV4, 8)
    };
    let [high, low] = ECHO_ID.to_be_bytes();
    // Sequence number 0 and no data, so that the checksum is the complement of two words. For ICMPv6 the kernel fills it in.
    let checksum = !(u16::from_be_bytes([kind, 0]) + ECHO_ID);
    let [sum_high, sum_low] = checksum.to_be_bytes();
    netns.run(|| {
        let socket = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
        let message = [kind, 0, sum_high, sum_low, high, low, 0, 0];
        socket.send_to(&message, &SocketAddr::new(to, 0).into()).unwrap();
    });
}

fn addresses(port: &Port) -> [IpAddr; 2] {
    [port.v4.into(), port.v6.into()]
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Since 6.1 every packet that comes in has a timestamp; before, only while some socket on the machine asks for them.
#[track_caller]
fn check_timestamp(timestamp: Option<Duration>, start: Duration) {
    match timestamp {
        // Whole microseconds.
        Some(timestamp) => assert!(
            timestamp + Duration::from_micros(1) >= start && timestamp <= unix_now(),
            "{timestamp:?} is not between {start:?} and now"
        ),
        // Seen without one: 5.10, 6.1. Seen with one on every packet: 6.12 and later.
        None if kernel() < (6, 12) => eprintln!("NOTE: this kernel gave a packet no timestamp"),
        None => panic!("no timestamp"),
    }
}

#[test]
fn tcp_udp_and_icmp_over_ipv4_and_ipv6_where_they_leave_and_where_they_arrive() {
    let (client, server) = (Netns::new("client"), Netns::new("server"));
    let (near, far) = veth(&client, &server);
    client.nft(&format!(
        r#"table inet test {{
            chain output {{
                type filter hook output priority 0
                meta mark set {MARK} log prefix "leaves: " group {GROUP}
            }}
        }}"#
    ));
    server.nft(&format!(
        r#"table inet test {{
            chain input {{
                type filter hook input priority 0
                log prefix "arrives: " group {GROUP}
            }}
        }}"#
    ));
    let start = unix_now();
    let (mut leaving, mut arriving) = (Log::open(&client), Log::open(&server));
    for (from, to) in addresses(&near).into_iter().zip(addresses(&far)) {
        let (_udp, _tcp) = server.run(|| {
            let udp = UdpSocket::bind((to, UDP_TO)).unwrap();
            (udp, TcpListener::bind((to, TCP_TO)).unwrap())
        });
        send_as_user(&client, from, to);
        send_echo(&client, to);
        for flow in [Flow::Tcp, Flow::Udp, Flow::Echo] {
            let is_flow = |seen: &Seen| flow.matches(&seen.packet) && seen.packet.destination == Some(to);
            let left = leaving.find("packet leaving", is_flow);
            check_leaving(&left, flow, from, &near);
            let arrived = arriving.find("packet arriving", is_flow);
            check_arriving(&arrived, flow, from, &near, &far);
            check_timestamp(arrived.timestamp, start);
            // Routing counts down only in routers: it is the same packet.
            assert_eq!(left.packet, arrived.packet);
        }
    }
    for log in [&leaving, &arriving] {
        for (number, seen) in (0..).zip(&log.seen) {
            assert_eq!(seen.seq, Some(number));
            assert_eq!(seen.seq_global, Some(number + 1));
        }
    }
}

#[track_caller]
fn check_leaving(seen: &Seen, flow: Flow, from: IpAddr, near: &Port) {
    let v6 = from.is_ipv6();
    assert_eq!(seen.family, if v6 { Family::Inet6 } else { Family::Inet });
    assert_eq!(seen.hook, Some(Hook::Output));
    assert_eq!((seen.group, seen.prefix.as_str()), (GROUP, "leaves: "));
    assert_eq!(seen.mark, Some(MARK));
    assert_eq!((seen.indev, seen.outdev), (None, Some(near.index)));
    let owner = if flow == Flow::Echo { (0, 0) } else { (UID, GID) };
    assert_eq!((seen.uid, seen.gid), (Some(owner.0), Some(owner.1)));
    assert_eq!((seen.timestamp, &seen.hwaddr), (None, &None));
    check_packet(&seen.packet, flow, from);
}

#[track_caller]
fn check_arriving(seen: &Seen, flow: Flow, from: IpAddr, near: &Port, far: &Port) {
    let v6 = from.is_ipv6();
    assert_eq!(seen.family, if v6 { Family::Inet6 } else { Family::Inet });
    assert_eq!(seen.hook, Some(Hook::Input));
    assert_eq!((seen.group, seen.prefix.as_str()), (GROUP, "arrives: "));
    // Marks do not cross namespaces.
    assert_eq!(seen.mark, None);
    assert_eq!((seen.indev, seen.outdev), (Some(far.index), None));
    assert_eq!(seen.hwaddr.as_deref(), Some(&near.mac[..]));
    // ARPHRD_ETHER.
    assert_eq!((seen.hwtype, seen.hwlen), (Some(1), Some(14)));
    assert_eq!(seen.hwheader, Some(ethernet(far, near, v6)));
    check_packet(&seen.packet, flow, from);
}

#[track_caller]
fn check_packet(packet: &Packet, flow: Flow, from: IpAddr) {
    let v6 = from.is_ipv6();
    assert_eq!(packet.source, Some(from));
    assert_eq!(packet.protocol, Some(flow.protocol(v6)));
    assert_eq!((packet.ttl, packet.fragment), (Some(64), false));
    assert_eq!(packet.problem, None);
    let header = if v6 { 40 } else { 20 };
    match flow {
        Flow::Udp => assert_eq!(packet.length, Some(header + 8 + 5)),
        Flow::Echo => assert_eq!(packet.length, Some(header + 8)),
        Flow::Tcp => assert!(packet.length > Some(header + 20), "{packet:?}"),
    }
    assert_eq!(Some(packet.captured), packet.length);
}

/// Logs in the ingress and egress hooks of `device` and in the input hook of ARP; false if there is no egress hook.
fn log_frames(netns: &Netns, device: &str) -> bool {
    netns.nft(&format!(
        r#"table netdev test {{
            chain ingress {{
                type filter hook ingress device "{device}" priority 0
                log prefix "ingress" group {GROUP}
            }}
        }}
        table arp test {{
            chain input {{
                type filter hook input priority 0
                log prefix "arp" group {GROUP}
            }}
        }}"#
    ));
    let egress = netns.try_nft(&format!(
        r#"table netdev test {{
            chain egress {{
                type filter hook egress device "{device}" priority 0
                log prefix "egress" group {GROUP}
            }}
        }}"#
    ));
    match egress {
        Ok(()) => true,
        Err(error) if kernel() < (5, 16) => {
            eprintln!("NOTE: this kernel has no egress hook, which is NOT tested: {error}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// Ethernet header of a frame between two ports.
fn ethernet(to: &Port, from: &Port, v6: bool) -> Vec<u8> {
    let ethertype: [u8; 2] = if v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
    [&to.mac[..], &from.mac[..], &ethertype[..]].concat()
}

#[test]
fn frames_in_the_hooks_of_a_device_and_arp() {
    let (client, server) = (Netns::new("client"), Netns::new("server"));
    let (near, far) = veth(&client, &server);
    let egress = log_frames(&server, &far.device);
    let mut log = Log::open(&server);
    for (from, to) in addresses(&near).into_iter().zip(addresses(&far)) {
        let v6 = from.is_ipv6();
        send_echo(&client, to);
        let request = log.find("request", |seen| {
            seen.prefix == "ingress" && Flow::Echo.matches(&seen.packet) && seen.packet.source == Some(from)
        });
        assert_eq!(
            (request.family, request.hook),
            (Family::Netdev, Some(Hook::Ingress))
        );
        assert_eq!((request.indev, request.outdev), (Some(far.index), None));
        assert_eq!(request.l2hdr, Some(ethernet(&far, &near, v6)));
        assert_eq!(request.payload[0] >> 4, if v6 { 6 } else { 4 });
        if egress {
            check_reply(&mut log, from, &near, &far);
        }
    }
    let arp = log.find("ARP packet", |seen| seen.family == Family::Arp);
    assert_eq!((arp.hook, arp.prefix.as_str()), (Some(Hook::Input), "arp"));
    assert_eq!(arp.indev, Some(far.index));
    assert_eq!(arp.packet.problem, Some(Problem::NotIp));
}

/// The echo reply of the server's own kernel, in the egress hook.
#[track_caller]
fn check_reply(log: &mut Log, to: IpAddr, near: &Port, far: &Port) {
    let reply = log.find("reply", |seen| {
        let is_reply = matches!(
            seen.packet.transport,
            Transport::Icmp {
                kind: 0 | 129,
                echo_id: Some(ECHO_ID),
                ..
            }
        );
        is_reply && seen.prefix == "egress" && seen.packet.destination == Some(to)
    });
    assert_eq!((reply.family, reply.hook), (Family::Netdev, Some(Hook::Egress)));
    assert_eq!((reply.indev, reply.outdev), (None, Some(far.index)));
    let header = ethernet(near, far, to.is_ipv6());
    assert_eq!(reply.payload[..14], header);
    assert_eq!(reply.l2hdr, Some(header));
    // Without knowing the hook, the dissector finds the IP header as well.
    let hw_protocol = if to.is_ipv6() { 0x86dd } else { 0x0800 };
    assert_eq!(dissect(Some(hw_protocol), 5, &reply.payload), reply.packet);
}

#[test]
fn frames_that_a_bridge_forwards() {
    let (client, server, middle) = (Netns::new("client"), Netns::new("server"), Netns::new("bridge"));
    if let Err(error) = middle.try_ip("link add br0 type bridge") {
        eprintln!("NOTE: this kernel has no bridges, the test is SKIPPED: {error}");
        return;
    }
    let (client_port, to_client) = veth(&client, &middle);
    let (server_port, to_server) = veth(&server, &middle);
    for device in [&to_client.device, &to_server.device] {
        middle.ip(&format!("link set {device} master br0"));
    }
    middle.ip("link set br0 up");
    client.ip(&format!("address add 10.99.0.1/24 dev {}", client_port.device));
    server.ip(&format!("address add 10.99.0.2/24 dev {}", server_port.device));
    let rules = format!(
        r#"table bridge test {{
            chain forward {{
                type filter hook forward priority 0
                log prefix "bridged" group {GROUP}
            }}
        }}"#
    );
    if let Err(error) = middle.try_nft(&rules) {
        eprintln!("NOTE: this kernel has no bridge tables, the test is SKIPPED: {error}");
        return;
    }
    let mut log = Log::open(&middle);
    send_echo(&client, [10, 99, 0, 2].into());
    let request = log.find("echo request", |seen| Flow::Echo.matches(&seen.packet));
    let bridge = middle.ifindex("br0");
    assert_eq!(
        (request.family, request.hook),
        (Family::Bridge, Some(Hook::Forward))
    );
    assert_eq!((request.indev, request.outdev), (Some(bridge), Some(bridge)));
    assert_eq!(
        (request.physindev, request.physoutdev),
        (Some(to_client.index), Some(to_server.index))
    );
    assert_eq!(request.packet.source, Some([10, 99, 0, 1].into()));
    assert_eq!(request.hwaddr.as_deref(), Some(&client_port.mac[..]));
    assert_eq!(request.l2hdr, Some(ethernet(&server_port, &client_port, false)));
}
