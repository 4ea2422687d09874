//! What the fixtures say, written down by hand from the rules, the traffic and a hex dump.

use std::time::Duration;

use nflog_agent::nflog::{EntryBuf, Family, Hook, Vlan};

type Expected = fn() -> Vec<EntryBuf>;

/// Name, file, and entries. conntrack.pcap is apart.
pub(crate) const FIXTURES: [(&str, &[u8], Expected); 6] = [
    (
        "inet-output",
        include_bytes!("../fixtures/inet-output.pcap"),
        inet_output,
    ),
    (
        "inet-input",
        include_bytes!("../fixtures/inet-input.pcap"),
        inet_input,
    ),
    ("arp", include_bytes!("../fixtures/arp.pcap"), arp),
    (
        "netdev-ingress",
        include_bytes!("../fixtures/netdev-ingress.pcap"),
        netdev_ingress,
    ),
    (
        "netdev-egress",
        include_bytes!("../fixtures/netdev-egress.pcap"),
        netdev_egress,
    ),
    ("bridge", include_bytes!("../fixtures/bridge.pcap"), bridge),
];

const UID: u32 = 1234;
const GID: u32 = 5678;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
/// Addresses of the client and the server, from the packets.
const FROM_TO: &str = "fd090000000000000000000000000001 fd090000000000000000000000000002";

/// Bytes of a hexadecimal string; blanks are for the reader.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap())
        .collect()
}

fn micros(seconds: u32, micros: u32) -> Option<Duration> {
    Some(Duration::new(1_795_519_000 + u64::from(seconds), micros * 1000))
}

/// With the numbers of the group and of the namespace.
fn entry(family: Family, hook: Hook, hw_protocol: u16, seq: u32, seq_global: u32) -> EntryBuf {
    EntryBuf {
        hook: Some(hook),
        hw_protocol: Some(hw_protocol),
        seq: Some(seq),
        seq_global: Some(seq_global),
        ..EntryBuf::new(family, 5)
    }
}

/// As of a frame that came in with this Ethernet header.
fn came_in(header: &str, from: &str) -> EntryBuf {
    EntryBuf {
        indev: Some(2),
        hwaddr: Some(hex(from)),
        hwtype: Some(1),
        hwlen: Some(14),
        hwheader: Some(hex(header)),
        ..EntryBuf::new(Family::Inet, 5)
    }
}

/// IPv4 and then IPv6: echo request by root; datagram and SYN by another user.
fn inet_output() -> Vec<EntryBuf> {
    let payloads = [
        "4500001c 5ab34000 4001cc19 0a090001 0a090002 0800b4de 43210000".to_owned(),
        "45000021 6ce34000 4011b9d4 0a090001 0a090002 045708ae 000d1433 68656c6c6f".to_owned(),
        "4500003c 58894000 4006ce1e 0a090001 0a090002 04580d05 2f768b87 00000000 a002faf0 14430000
         020405b4 0402080a f24176c3 00000000 0103030a"
            .to_owned(),
        format!("600b2b93 00083a40 {FROM_TO} 80004285 43210000"),
        format!("6005e4d7 000d1140 {FROM_TO} 045708ae 000dfa34 68656c6c6f"),
        format!(
            "600f93f6 00280640 {FROM_TO} 04580d05 1ce07cb6 00000000 a002fd20 fa440000
             020405a0 0402080a 082feb94 00000000 0103030a"
        ),
    ];
    let mut entries = Vec::new();
    for (seq, payload) in (0..).zip(&payloads) {
        let (family, protocol) = if seq < 3 {
            (Family::Inet, IPV4)
        } else {
            (Family::Inet6, IPV6)
        };
        let (uid, gid) = if seq % 3 == 0 { (0, 0) } else { (UID, GID) };
        entries.push(EntryBuf {
            prefix: b"leaves: ".to_vec(),
            outdev: Some(2),
            mark: Some(42),
            uid: Some(uid),
            gid: Some(gid),
            payload: hex(payload),
            ..entry(family, Hook::Output, protocol, seq, seq + 1)
        });
    }
    entries
}

fn inet_input() -> Vec<EntryBuf> {
    let packets = [
        (
            169_531,
            "4500001c 5ae64000 4001cbe6 0a090001 0a090002 0800b4de 43210000".to_owned(),
        ),
        (
            173_296,
            "45000021 6d2f4000 4011b988 0a090001 0a090002 045708ae 000d1433 68656c6c6f".to_owned(),
        ),
        (
            173_356,
            "4500003c 7a414000 4006ac66 0a090001 0a090002 04580d05 303387c3 00000000 a002faf0 14430000
             020405b4 0402080a f24179dc 00000000 0103030a"
                .to_owned(),
        ),
        (176_240, format!("600b2b93 00083a40 {FROM_TO} 80004285 43210000")),
        (
            182_594,
            format!("6005e4d7 000d1140 {FROM_TO} 045708ae 000dfa34 68656c6c6f"),
        ),
        (
            182_685,
            format!(
                "600b38d7 00280640 {FROM_TO} 04580d05 1d9dae2a 00000000 a002fd20 fa440000
                 020405a0 0402080a 082feead 00000000 0103030a"
            ),
        ),
    ];
    let mut entries = Vec::new();
    for (seq, (time, payload)) in (0..).zip(&packets) {
        let (family, protocol, ethertype) = if seq < 3 {
            (Family::Inet, IPV4, "0800")
        } else {
            (Family::Inet6, IPV6, "86dd")
        };
        let header = format!("020000000002 020000000001 {ethertype}");
        let EntryBuf {
            hook,
            hw_protocol,
            seq,
            seq_global,
            ..
        } = entry(family, Hook::Input, protocol, seq, seq + 1);
        entries.push(EntryBuf {
            family,
            hook,
            hw_protocol,
            seq,
            seq_global,
            prefix: b"arrives: ".to_vec(),
            timestamp: micros(52, *time),
            payload: hex(payload),
            ..came_in(&header, "020000000001")
        });
    }
    entries
}

/// The question of the client, and the server's answer with its Ethernet header.
fn arp() -> Vec<EntryBuf> {
    let question = came_in("ffffffffffff 020000000001 0806", "020000000001");
    let head = |hook, seq| entry(Family::Arp, hook, ARP, seq, seq + 7);
    vec![
        EntryBuf {
            prefix: b"arp in".to_vec(),
            timestamp: micros(52, 721_311),
            indev: Some(2),
            hwaddr: question.hwaddr,
            hwtype: Some(1),
            hwlen: Some(14),
            hwheader: question.hwheader,
            payload: hex("0001 0800 06 04 0001 020000000001 0a090001 000000000000 0a090002"),
            ..head(Hook::Input, 0)
        },
        EntryBuf {
            prefix: b"arp out".to_vec(),
            timestamp: micros(52, 721_317),
            outdev: Some(2),
            payload: hex("020000000001 020000000002 0806
                 0001 0800 06 04 0002 020000000002 0a090002 020000000001 0a090001"),
            ..head(Hook::Output, 1)
        },
    ]
}

/// The datagram in the frames without and with a tag.
const DATAGRAM: &str = "4500001c 00010000 401166bc 0a090002 0a090001 00630063 00080000";
/// VLAN 7 with priority 5.
const TAG: Vlan = Vlan {
    proto: 0x8100,
    tci: 0xa007,
};

fn netdev_ingress() -> Vec<EntryBuf> {
    let header = "020000000002 020000000001 0800";
    [(179_211, None), (179_225, Some(TAG))]
        .into_iter()
        .zip(0..)
        .map(|((time, vlan), seq)| {
            let frame = came_in(header, "020000000001");
            EntryBuf {
                prefix: b"in".to_vec(),
                timestamp: micros(53, time),
                indev: frame.indev,
                hwaddr: frame.hwaddr,
                hwtype: frame.hwtype,
                hwlen: frame.hwlen,
                hwheader: frame.hwheader,
                // The veth pair does not take the sender's socket off the packet.
                uid: Some(0),
                gid: Some(0),
                vlan,
                l2hdr: Some(hex(header)),
                payload: hex(DATAGRAM),
                ..entry(Family::Netdev, Hook::Ingress, IPV4, seq, seq + 9)
            }
        })
        .collect()
}

fn netdev_egress() -> Vec<EntryBuf> {
    let (v4, v6) = ("020000000002 020000000001 0800", "020000000002 020000000001 86dd");
    let datagram = "45000021 6e234000 4011b894 0a090001 0a090002 045708ae 000d1433 68656c6c6f";
    let frames = [
        (607_604, IPV4, v4, format!("{v4} {datagram}")),
        (
            610_055,
            IPV6,
            v6,
            format!("{v6} 6005e4d7 000d1140 {FROM_TO} 045708ae 000dfa34 68656c6c6f"),
        ),
    ];
    frames
        .into_iter()
        .zip(0..)
        .map(|((time, protocol, header, payload), seq)| EntryBuf {
            prefix: b"eg".to_vec(),
            timestamp: micros(53, time),
            outdev: Some(2),
            uid: Some(UID),
            gid: Some(GID),
            l2hdr: Some(hex(header)),
            payload: hex(&payload),
            ..entry(Family::Netdev, Hook::Egress, protocol, seq, seq + 7)
        })
        .collect()
}

fn bridge() -> Vec<EntryBuf> {
    let header = "020000000004 020000000003 0800";
    // br_netfilter took the sender's socket off the packet without a tag.
    [(8_936, None, None), (10_369, Some(TAG), Some(0))]
        .into_iter()
        .zip(0..)
        .map(|((time, vlan, user), seq)| EntryBuf {
            prefix: b"bridged".to_vec(),
            timestamp: micros(54, time),
            indev: Some(2),
            outdev: Some(2),
            physindev: Some(3),
            physoutdev: Some(4),
            hwaddr: Some(hex("020000000003")),
            hwtype: Some(1),
            hwlen: Some(14),
            hwheader: Some(hex(header)),
            uid: user,
            gid: user,
            vlan,
            l2hdr: Some(hex(header)),
            payload: hex(DATAGRAM),
            ..entry(Family::Bridge, Hook::Forward, IPV4, seq, seq + 1)
        })
        .collect()
}

/// Of each packet of conntrack.pcap the prefix, `enum ip_conntrack_info` (2 new, 3 reply of an established one) and how `NFULA_CT`
/// begins: the original tuple, before its destination 10.9.0.9 was translated to 10.9.0.2.
#[cfg(target_endian = "little")]
pub(crate) fn conntrack() -> [(&'static str, u32, Vec<u8>); 6] {
    let ping = "3c000180 14000180 08000100 0a090001 08000200 0a090009 24000280 05000100 01000000";
    let tcp = "34000180 14000180 08000100 0a090001 08000200 0a090009 1c000280 05000100 06000000
               06000200 bd880000 06000300 0d050000";
    let ping6 = "54000180 2c000180 14000300 fd090000000000000000000000000001
                 14000400 fd090000000000000000000000000002";
    [
        ("ct out", 2, hex(ping)),
        ("ct in", 3, hex(ping)),
        ("ct out", 2, hex(tcp)),
        ("ct in", 3, hex(tcp)),
        ("ct out", 2, hex(ping6)),
        ("ct out", 2, hex(ping6)),
    ]
}
