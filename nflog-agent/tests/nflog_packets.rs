//! What entries say about real packets: IPv4 and IPv6, TCP, UDP and ICMP, sent and received. Needs root.
#![cfg(feature = "agent")]

mod seen;
mod support;

use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nflog_agent::nflog::{Family, Hook};
use nflog_agent::packet::Packet;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use seen::{Flow, GROUP, Log, MARK, Seen, TCP_TO, UDP_FROM, UDP_TO, addresses, ethernet, send_echo};
use support::{Netns, Port, kernel, veth};

const UID: u32 = 1234;
const GID: u32 = 5678;

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
