//! What entries say about frames: the hooks of a device, ARP, VLAN tags, bridges; IPv4 and IPv6. Needs root.
#![cfg(feature = "agent")]

mod seen;
mod support;

use std::net::{IpAddr, Ipv4Addr};

use nflog_agent::nflog::{Family, Hook, Vlan};
use nflog_agent::packet::{Problem, Transport, dissect};
use seen::{ECHO_ID, Flow, GROUP, Log, MARK, Seen, addresses, ethernet, send_echo};
use support::{Netns, Port, kernel, veth};

/// 802.1Q and 802.1ad.
const CTAG: u16 = 0x8100;
const STAG: u16 = 0x88a8;

/// Whether this is the echo request to `to` that a rule with this prefix logged.
fn is_request(seen: &Seen, prefix: &str, to: IpAddr) -> bool {
    seen.prefix == prefix && Flow::Echo.matches(&seen.packet) && seen.packet.destination == Some(to)
}

const fn hw_protocol(v6: bool) -> u16 {
    if v6 { 0x86dd } else { 0x0800 }
}

/// Loads a chain of a device's egress hook; false if the kernel has none.
fn log_egress(netns: &Netns, device: &str) -> bool {
    let loaded = netns.try_nft(&format!(
        r#"table netdev test {{
            chain egress {{
                type filter hook egress device "{device}" priority 0
                meta mark set {MARK} log prefix "egress" group {GROUP}
            }}
        }}"#
    ));
    match loaded {
        Ok(()) => true,
        Err(error) if kernel() < (5, 16) => {
            eprintln!("NOTE: this kernel has no egress hook, which is NOT tested: {error}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

fn log_ingress(netns: &Netns, device: &str) {
    netns.nft(&format!(
        r#"table netdev test {{
            chain ingress {{
                type filter hook ingress device "{device}" priority 0
                meta mark set {MARK} log prefix "ingress" group {GROUP}
            }}
        }}"#
    ));
}

#[test]
fn frames_in_the_hooks_of_a_device() {
    let (client, server) = (Netns::new("client"), Netns::new("server"));
    let (near, far) = veth(&client, &server);
    log_ingress(&server, &far.device);
    let egress = log_egress(&server, &far.device);
    let mut log = Log::open(&server);
    for (from, to) in addresses(&near).into_iter().zip(addresses(&far)) {
        let v6 = from.is_ipv6();
        send_echo(&client, to);
        let request = log.find("request", |seen| is_request(seen, "ingress", to));
        assert_eq!(
            (request.family, request.hook),
            (Family::Netdev, Some(Hook::Ingress))
        );
        assert_eq!((request.indev, request.outdev), (Some(far.index), None));
        assert_eq!((request.physindev, request.physoutdev), (None, None));
        assert_eq!(request.mark, Some(MARK));
        assert_eq!(request.hwaddr.as_deref(), Some(&near.mac[..]));
        assert_eq!(request.hw_protocol, Some(hw_protocol(v6)));
        assert_eq!(request.l2hdr, Some(ethernet(&far, &near, v6)));
        assert_eq!(request.vlan, None);
        assert_eq!(request.payload[0] >> 4, if v6 { 6 } else { 4 });
        if egress {
            check_reply(&mut log, from, &near, &far);
        }
    }
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
    assert_eq!(reply.mark, Some(MARK));
    assert_eq!(reply.vlan, None);
    let header = ethernet(near, far, to.is_ipv6());
    assert_eq!(reply.payload[..14], header);
    assert_eq!(reply.l2hdr, Some(header));
    // Without knowing the hook, the dissector finds the IP header as well.
    let hw_protocol = hw_protocol(to.is_ipv6());
    assert_eq!(reply.hw_protocol, Some(hw_protocol));
    assert_eq!(dissect(Some(hw_protocol), 5, &reply.payload), reply.packet);
}

#[test]
fn the_egress_hook_of_a_device_without_link_layer_header() {
    let netns = Netns::new("tun");
    if let Err(error) = try_link(&netns, "tuntap add dev tun0 mode tun") {
        return eprintln!("SKIPPED: this kernel has no tun devices: {error}");
    }
    netns.ip("address add 10.96.0.1/24 dev tun0");
    netns.ip("address add fd96::1/64 dev tun0 nodad");
    netns.ip("link set tun0 up");
    if !log_egress(&netns, "tun0") {
        return eprintln!("SKIPPED: this kernel has no egress hook");
    }
    let index = netns.ifindex("tun0");
    let mut log = Log::open(&netns);
    for to in ["10.96.0.2", "fd96::2"].map(|text| text.parse::<IpAddr>().expect("an address")) {
        send_echo(&netns, to);
        let request = log.find("request", |seen| is_request(seen, "egress", to));
        assert_eq!(
            (request.family, request.hook),
            (Family::Netdev, Some(Hook::Egress))
        );
        assert_eq!((request.indev, request.outdev), (None, Some(index)));
        assert_eq!(request.hw_protocol, Some(hw_protocol(to.is_ipv6())));
        assert_eq!(request.l2hdr, None);
        assert_eq!(request.payload[0] >> 4, if to.is_ipv6() { 6 } else { 4 });
        assert_eq!(request.network_payload, request.payload);
    }
}

#[test]
fn the_ingress_hook_of_an_inet_table_reports_the_ip_families() {
    let (client, server) = (Netns::new("client"), Netns::new("server"));
    let (near, far) = veth(&client, &server);
    server.nft(&format!(
        r#"table inet test {{
            chain ingress {{
                type filter hook ingress device "{}" priority 0
                meta mark set {MARK} log prefix "inet" group {GROUP}
            }}
        }}"#,
        far.device
    ));
    let mut log = Log::open(&server);
    for (from, to) in addresses(&near).into_iter().zip(addresses(&far)) {
        let v6 = from.is_ipv6();
        send_echo(&client, to);
        let request = log.find("request", |seen| is_request(seen, "inet", to));
        let family = if v6 { Family::Inet6 } else { Family::Inet };
        assert_eq!((request.family, request.hook), (family, Some(Hook::Ingress)));
        assert_eq!((request.indev, request.outdev), (Some(far.index), None));
        assert_eq!(request.mark, Some(MARK));
        assert_eq!(request.hw_protocol, Some(hw_protocol(v6)));
        assert_eq!(request.packet.source, Some(from));
        assert_eq!(request.hwaddr.as_deref(), Some(&near.mac[..]));
        assert_eq!(request.hwheader, Some(ethernet(&far, &near, v6)));
        // Of families netdev and bridge only.
        assert_eq!((request.l2hdr, request.vlan), (None, None));
    }
}

#[test]
fn arp_requests_and_replies() {
    let (client, server) = (Netns::new("client"), Netns::new("server"));
    let (near, far) = veth(&client, &server);
    server.nft(&format!(
        r#"table arp test {{
            chain input {{
                type filter hook input priority 0
                meta mark set {MARK} log prefix "arp" group {GROUP}
            }}
            chain output {{
                type filter hook output priority 0
                meta mark set {MARK} log prefix "arp" group {GROUP}
            }}
        }}"#
    ));
    let mut log = Log::open(&server);
    send_echo(&client, far.v4.into());
    let asked = arp(1, (near.mac, near.v4), ([0; 6], far.v4));
    let request = log.find("ARP request", |seen| seen.payload.starts_with(&asked));
    assert_eq!((request.family, request.hook), (Family::Arp, Some(Hook::Input)));
    assert_eq!((request.indev, request.outdev), (Some(far.index), None));
    assert_eq!(request.hwaddr.as_deref(), Some(&near.mac[..]));
    assert_eq!(request.network_payload, request.payload);
    // ARPHRD_ETHER.
    assert_eq!((request.hwtype, request.hwlen), (Some(1), Some(14)));
    let answer = arp(2, (far.mac, far.v4), (near.mac, near.v4));
    // As in the egress hook, the frame's header is there already.
    let header = [&near.mac[..], &far.mac, &[0x08, 0x06]].concat();
    let reply = log.find("ARP reply", |seen| {
        seen.payload.strip_prefix(&header[..]) == Some(&answer)
    });
    assert_eq!(reply.network_payload, answer);
    assert_eq!((reply.family, reply.hook), (Family::Arp, Some(Hook::Output)));
    assert_eq!((reply.indev, reply.outdev), (None, Some(far.index)));
    for seen in [request, reply] {
        assert_eq!((seen.group, seen.prefix.as_str()), (GROUP, "arp"));
        assert_eq!((seen.hw_protocol, seen.mark), (Some(0x0806), Some(MARK)));
        assert_eq!((seen.l2hdr, seen.vlan), (None, None));
        assert_eq!(seen.packet.problem, Some(Problem::NotIp));
    }
}

/// An ARP packet for IPv4 on Ethernet: operation, sender, target.
fn arp(operation: u8, sender: ([u8; 6], Ipv4Addr), target: ([u8; 6], Ipv4Addr)) -> Vec<u8> {
    [
        &[0, 1, 0x08, 0x00, 6, 4, 0, operation][..],
        &sender.0,
        &sender.1.octets(),
        &target.0,
        &target.1.octets(),
    ]
    .concat()
}

/// A tag that a device puts on what is sent through it.
#[derive(Clone, Copy, Debug)]
struct Tag {
    proto: u16,
    id: u16,
    priority: u16,
}

impl Tag {
    fn vlan(self) -> Vlan {
        Vlan {
            proto: self.proto,
            tci: self.priority << 13 | self.id,
        }
    }
}

/// The tags that the tests send, outermost first. Priorities and ids differ in every byte, so that no byte order fits another.
const TAGS: [&[Tag]; 3] = [
    &[Tag {
        proto: CTAG,
        id: 0x107,
        priority: 5,
    }],
    &[Tag {
        proto: STAG,
        id: 0x208,
        priority: 3,
    }],
    &[
        Tag {
            proto: STAG,
            id: 0x309,
            priority: 2,
        },
        Tag {
            proto: CTAG,
            id: 0x40a,
            priority: 6,
        },
    ],
];

/// Makes a device, or returns what the kernel without such devices says.
#[track_caller]
fn try_link(netns: &Netns, arguments: &str) -> Result<(), String> {
    match netns.try_ip(arguments) {
        Ok(_) => Ok(()),
        Err(error)
            if ["Unknown device type", "not supported"]
                .iter()
                .any(|words| error.contains(words)) =>
        {
            Err(error)
        }
        Err(error) => panic!("{error}"),
    }
}

/// Stacks VLAN devices on `port`, with addresses of their own and a peer at `mac`. Returns the two ends' addresses, or what
/// a kernel without VLAN devices says.
fn tagged(netns: &Netns, port: &Port, tags: &[Tag], mac: [u8; 6]) -> Result<[(IpAddr, IpAddr); 2], String> {
    let mut device = port.device.clone();
    for Tag { proto, id, priority } in tags {
        let name = format!("{device}.{id}");
        let proto = if *proto == CTAG { "802.1Q" } else { "802.1ad" };
        let link = format!("link add link {device} name {name} type vlan protocol {proto} id {id}");
        try_link(netns, &format!("{link} egress-qos-map 0:{priority}"))?;
        netns.ip(&format!("link set {name} up"));
        device = name;
    }
    let number = tags.last().map_or(0, |tag| tag.id >> 8);
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    let ends = [
        (format!("10.98.{number}.1"), format!("10.98.{number}.2")),
        (format!("fd98::{number}:1"), format!("fd98::{number}:2")),
    ];
    Ok(ends.map(|(from, to)| {
        let v6 = from.contains(':');
        let (length, nodad) = if v6 { (112, "nodad") } else { (24, "") };
        netns.ip(&format!("address add {from}/{length} dev {device} {nodad}"));
        // So that no question goes before it.
        netns.ip(&format!("neighbour add {to} lladdr {mac} dev {device}"));
        (from.parse().expect("an address"), to.parse().expect("an address"))
    }))
}

/// The outermost tag is beside the packet, the others are in front of it.
#[track_caller]
fn check_tags(seen: &Seen, tags: &[Tag], to: &Port, from: &Port, v6: bool) {
    assert_eq!(seen.vlan, Some(tags[0].vlan()), "{tags:?}");
    assert_eq!(seen.vlan.map(Vlan::id), Some(tags[0].id));
    let ethertype = tags.get(1).map_or_else(|| hw_protocol(v6), |inner| inner.proto);
    let in_band = tags.get(1).map_or_else(Vec::new, |inner| {
        [inner.vlan().tci.to_be_bytes(), hw_protocol(v6).to_be_bytes()].concat()
    });
    assert_eq!(seen.hw_protocol, Some(ethertype), "{tags:?}");
    let header = [&to.mac[..], &from.mac, &ethertype.to_be_bytes()].concat();
    let payload = &seen.network_payload;
    if seen.hook == Some(Hook::Egress) {
        // The kernel counts tags in front of the packet to the header.
        assert_eq!(seen.l2hdr, Some([&header[..], &in_band].concat()), "{tags:?}");
        assert_eq!(seen.payload, [&header[..], payload].concat(), "{tags:?}");
    } else {
        assert_eq!(seen.l2hdr, Some(header), "{tags:?}");
        assert_eq!(seen.payload, *payload, "{tags:?}");
    }
    assert!(payload.starts_with(&in_band), "{tags:?}: {payload:x?}");
    assert_eq!(payload[in_band.len()] >> 4, if v6 { 6 } else { 4 });
}

#[test]
fn vlan_tags_as_a_device_sends_and_receives_them() {
    let (client, server) = (Netns::new("client"), Netns::new("server"));
    let (near, far) = veth(&client, &server);
    log_ingress(&server, &far.device);
    let egress = log_egress(&client, &near.device);
    let (mut leaving, mut arriving) = (Log::open(&client), Log::open(&server));
    for tags in TAGS {
        let ends = match tagged(&client, &near, tags, far.mac) {
            Ok(ends) => ends,
            Err(error) => return eprintln!("SKIPPED: this kernel has no VLAN devices: {error}"),
        };
        for (from, to) in ends {
            send_echo(&client, to);
            let arrived = arriving.find("request", |seen| is_request(seen, "ingress", to));
            assert_eq!(
                (arrived.family, arrived.hook),
                (Family::Netdev, Some(Hook::Ingress))
            );
            assert_eq!((arrived.mark, arrived.packet.source), (Some(MARK), Some(from)));
            check_tags(&arrived, tags, &far, &near, from.is_ipv6());
            if egress {
                let left = leaving.find("request", |seen| is_request(seen, "egress", to));
                assert_eq!((left.family, left.hook), (Family::Netdev, Some(Hook::Egress)));
                assert_eq!((left.mark, left.packet.source), (Some(MARK), Some(from)));
                check_tags(&left, tags, &far, &near, from.is_ipv6());
            }
        }
    }
}

/// A client and a server at two ports of a bridge that logs in all its hooks.
struct Bridged {
    client: Netns,
    middle: Netns,
    // Its end of the wire is gone with it.
    _server: Netns,
    client_port: Port,
    server_port: Port,
    to_client: Port,
    to_server: Port,
    bridge: u32,
}

impl Bridged {
    fn new() -> Result<Self, String> {
        let (client, server, middle) = (Netns::new("client"), Netns::new("server"), Netns::new("bridge"));
        try_link(&middle, "link add br0 type bridge mcast_snooping 0")?;
        let (client_port, to_client) = veth(&client, &middle);
        let (server_port, to_server) = veth(&server, &middle);
        for device in [&to_client.device, &to_server.device] {
            middle.ip(&format!("link set {device} master br0"));
        }
        middle.ip("address add 10.97.0.3/24 dev br0");
        middle.ip("address add fd97::3/64 dev br0 nodad");
        middle.ip("link set br0 up");
        for (netns, port, host) in [(&client, &client_port, 1), (&server, &server_port, 2)] {
            let device = &port.device;
            netns.ip(&format!("address add 10.97.0.{host}/24 dev {device}"));
            netns.ip(&format!("address add fd97::{host}/64 dev {device} nodad"));
        }
        let chains = ["prerouting", "input", "forward", "output", "postrouting"].map(|hook| {
            format!(
                r#"chain {hook} {{
                    type filter hook {hook} priority 0
                    meta mark set {MARK} log prefix "{hook}" group {GROUP}
                }}"#
            )
        });
        middle.try_nft(&format!("table bridge test {{\n{}\n}}", chains.join("\n")))?;
        let bridge = middle.ifindex("br0");
        Ok(Self {
            client,
            middle,
            _server: server,
            client_port,
            server_port,
            to_client,
            to_server,
            bridge,
        })
    }

    /// Devices of an entry: bridge and port that it came in on, bridge and port that it goes out on.
    #[track_caller]
    fn check(&self, seen: &Seen, hook: Hook, inward: Option<&Port>, outward: Option<&Port>) {
        assert_eq!((seen.family, seen.hook), (Family::Bridge, Some(hook)));
        assert_eq!(seen.indev, inward.map(|_| self.bridge), "{seen:#?}");
        assert_eq!(seen.physindev, inward.map(|port| port.index), "{seen:#?}");
        assert_eq!(seen.outdev, outward.map(|_| self.bridge), "{seen:#?}");
        assert_eq!(seen.physoutdev, outward.map(|port| port.index), "{seen:#?}");
        assert_eq!(seen.mark, Some(MARK));
    }
}

#[test]
fn frames_that_a_bridge_forwards() {
    let net = match Bridged::new() {
        Ok(net) => net,
        Err(error) => return eprintln!("SKIPPED: this kernel has no bridges or no bridge tables: {error}"),
    };
    let (inward, outward) = (Some(&net.to_client), Some(&net.to_server));
    let mut log = Log::open(&net.middle);
    for to in ["10.97.0.2", "fd97::2"].map(|text| text.parse::<IpAddr>().expect("an address")) {
        send_echo(&net.client, to);
        for (hook, inward, outward) in [
            (Hook::Prerouting, inward, None),
            (Hook::Forward, inward, outward),
            (Hook::Postrouting, None, outward),
        ] {
            let seen = log.find(hook.name(), |seen| is_request(seen, hook.name(), to));
            net.check(&seen, hook, inward, outward);
            let header = ethernet(&net.server_port, &net.client_port, to.is_ipv6());
            assert_eq!(seen.l2hdr, Some(header), "{hook:?}");
            assert_eq!(seen.hw_protocol, Some(hw_protocol(to.is_ipv6())));
            assert_eq!(seen.vlan, None);
            if inward.is_some() {
                assert_eq!(seen.hwaddr.as_deref(), Some(&net.client_port.mac[..]));
            }
        }
    }
}

#[test]
fn frames_to_and_from_the_bridge_itself() {
    let net = match Bridged::new() {
        Ok(net) => net,
        Err(error) => return eprintln!("SKIPPED: this kernel has no bridges or no bridge tables: {error}"),
    };
    let mut log = Log::open(&net.middle);
    for (from, to) in [("10.97.0.1", "10.97.0.3"), ("fd97::1", "fd97::3")] {
        let [from, to] = [from, to].map(|text| text.parse::<IpAddr>().expect("an address"));
        send_echo(&net.client, to);
        let request = log.find("request", |seen| is_request(seen, "input", to));
        net.check(&request, Hook::Input, Some(&net.to_client), None);
        let reply = log.find("reply", |seen| {
            let is_reply = matches!(seen.packet.transport, Transport::Icmp { kind: 0 | 129, .. });
            is_reply && seen.prefix == "output" && seen.packet.destination == Some(from)
        });
        net.check(&reply, Hook::Output, None, Some(&net.to_client));
    }
}

#[test]
fn vlan_tags_of_frames_that_a_bridge_forwards() {
    let net = match Bridged::new() {
        Ok(net) => net,
        Err(error) => return eprintln!("SKIPPED: this kernel has no bridges or no bridge tables: {error}"),
    };
    let mut log = Log::open(&net.middle);
    for tags in TAGS {
        let ends = match tagged(&net.client, &net.client_port, tags, net.server_port.mac) {
            Ok(ends) => ends,
            Err(error) => return eprintln!("SKIPPED: this kernel has no VLAN devices: {error}"),
        };
        for (from, to) in ends {
            send_echo(&net.client, to);
            for hook in [Hook::Prerouting, Hook::Forward, Hook::Postrouting] {
                let seen = log.find(hook.name(), |seen| is_request(seen, hook.name(), to));
                assert_eq!((seen.family, seen.hook), (Family::Bridge, Some(hook)));
                assert_eq!((seen.mark, seen.packet.source), (Some(MARK), Some(from)));
                check_tags(&seen, tags, &net.server_port, &net.client_port, from.is_ipv6());
            }
        }
    }
}
