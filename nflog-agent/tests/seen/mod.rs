//! What entries said about real packets, copied out of the receive buffer, and the flows that make them.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nflog_agent::nflog::{Config, Entry, Family, Hook, Nflog, Vlan};
use nflog_agent::packet::{Packet, Transport, dissect};
use socket2::{Domain, Protocol, Socket, Type};

use crate::support::{Netns, PATIENCE, Port};

/// NFLOG group of the tests' rules.
pub(crate) const GROUP: u16 = 6;
/// Mark that the tests' rules set.
pub(crate) const MARK: u32 = 42;
pub(crate) const UDP_FROM: u16 = 1111;
pub(crate) const UDP_TO: u16 = 2222;
pub(crate) const TCP_TO: u16 = 3333;
pub(crate) const ECHO_ID: u16 = 0x4321;
/// The SYN flag alone.
const SYN: u8 = 2;

/// An entry, copied out of the buffer.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) family: Family,
    pub(crate) hook: Option<Hook>,
    pub(crate) group: u16,
    pub(crate) prefix: String,
    pub(crate) mark: Option<u32>,
    pub(crate) indev: Option<u32>,
    pub(crate) outdev: Option<u32>,
    pub(crate) physindev: Option<u32>,
    pub(crate) physoutdev: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) seq: Option<u32>,
    pub(crate) seq_global: Option<u32>,
    pub(crate) timestamp: Option<Duration>,
    pub(crate) hwaddr: Option<Vec<u8>>,
    pub(crate) hwtype: Option<u16>,
    pub(crate) hwlen: Option<u16>,
    pub(crate) hwheader: Option<Vec<u8>>,
    pub(crate) hw_protocol: Option<u16>,
    pub(crate) vlan: Option<Vlan>,
    pub(crate) l2hdr: Option<Vec<u8>>,
    pub(crate) payload: Vec<u8>,
    pub(crate) network_payload: Vec<u8>,
    pub(crate) packet: Packet,
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
            hw_protocol: entry.hw_protocol(),
            vlan: entry.vlan(),
            l2hdr: entry.l2hdr().map(<[u8]>::to_vec),
            payload: entry.payload().to_vec(),
            network_payload: entry.network_payload().to_vec(),
            packet: dissect(
                entry.hw_protocol(),
                entry.family().number(),
                entry.network_payload(),
            ),
        }
    }
}

/// A reader, and everything it has read.
pub(crate) struct Log {
    nflog: Nflog,
    pub(crate) seen: Vec<Seen>,
}

impl Log {
    pub(crate) fn open(netns: &Netns) -> Self {
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
    pub(crate) fn find(&mut self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
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
pub(crate) enum Flow {
    Tcp,
    Udp,
    Echo,
}

impl Flow {
    /// Whether this is its first packet.
    pub(crate) fn matches(self, packet: &Packet) -> bool {
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

    pub(crate) fn protocol(self, v6: bool) -> u8 {
        match (self, v6) {
            (Self::Tcp, _) => 6,
            (Self::Udp, _) => 17,
            (Self::Echo, false) => 1,
            (Self::Echo, true) => 58,
        }
    }
}

/// Sends an echo request; a raw socket needs root.
pub(crate) fn send_echo(netns: &Netns, to: IpAddr) {
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

pub(crate) fn addresses(port: &Port) -> [IpAddr; 2] {
    [port.v4.into(), port.v6.into()]
}

/// Ethernet header of a frame between two ports.
pub(crate) fn ethernet(to: &Port, from: &Port, v6: bool) -> Vec<u8> {
    let ethertype: [u8; 2] = if v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
    [&to.mac[..], &from.mac[..], &ethertype[..]].concat()
}
