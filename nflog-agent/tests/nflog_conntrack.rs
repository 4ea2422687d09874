//! What entries say about connections: plain, translated, marked, in zones, over their lives; IPv4 and IPv6, UDP, TCP and
//! ICMP through a router. Needs root, and a kernel that attaches conntrack entries; without one, that reading works.
#![cfg(feature = "agent")]

mod support;

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nflog_agent::nflog::{
    Config, ConntrackBuf, Counters, CtState, CtStatus, Entry, Flags, Nflog, ProtoInfo, Tcp, TcpFlags,
    TcpState, Tuple, TupleProto, Warning,
};
use nflog_agent::packet::{Packet, Transport, dissect};
use socket2::{Domain, Protocol, Socket, Type};
use support::{Netns, PATIENCE, Port, kernel, veth};

const GROUP: u16 = 6;
const TCP: u8 = 6;
const UDP: u8 = 17;
const CLIENT: u16 = 1111;
const SERVER: u16 = 2222;
const ECHO_ID: u16 = 0x4321;
/// Where the router logs: after DNAT, and after SNAT but before conntrack confirms the entry.
const RULES: &str = r#"table inet watch {
    chain prerouting { type filter hook prerouting priority 200; log prefix "comes" group 6; }
    chain postrouting { type filter hook postrouting priority 200; log prefix "goes" group 6; }
}"#;

/// An entry, copied out of the buffer.
#[derive(Clone, Debug)]
struct Seen {
    prefix: String,
    state: Option<CtState>,
    ct: Option<ConntrackBuf>,
    packet: Packet,
    label_bits: Vec<u8>,
}

impl Seen {
    fn new(entry: &Entry<'_>) -> Self {
        assert!(entry.problems().is_empty(), "{entry:?}");
        let ct = entry.conntrack();
        if let Some(ct) = &ct {
            assert!(ct.problems().is_empty(), "{ct:?} of {:02x?}", entry.ct());
            assert_eq!(ct.unknown_attributes(), 0, "{ct:?} of {:02x?}", entry.ct());
            for always in [ct.original(), ct.reply()] {
                assert!(always.is_some(), "{ct:?}");
            }
            assert!(ct.id().is_some() && ct.status().is_some() && ct.timeout().is_some());
            // For dumps of ctnetlink only.
            assert_eq!(ct.use_count(), None);
        }
        assert_eq!(ct.is_some(), entry.ct_state().is_some());
        Self {
            prefix: entry.prefix_lossy().into_owned(),
            state: entry.ct_state(),
            ct: ct.as_ref().map(ConntrackBuf::from),
            packet: dissect(
                entry.hw_protocol(),
                entry.family().number(),
                entry.network_payload(),
            ),
            label_bits: ct.map_or_else(Vec::new, |ct| {
                (0..=u8::MAX).filter(|&bit| ct.label_bit(bit)).collect()
            }),
        }
    }

    #[track_caller]
    fn ct(&self) -> &ConntrackBuf {
        self.ct.as_ref().expect("the entry has conntrack")
    }

    #[track_caller]
    fn status(&self) -> CtStatus {
        self.ct().status.expect("conntrack has a status")
    }

    #[track_caller]
    fn tuples(&self) -> (Tuple, Tuple) {
        let ct = self.ct();
        (
            ct.original.expect("original tuple"),
            ct.reply.expect("reply tuple"),
        )
    }

    #[track_caller]
    fn tcp(&self) -> Tcp {
        match self.ct().protoinfo {
            Some(ProtoInfo::Tcp(tcp)) => tcp,
            other => panic!("not TCP: {other:?}"),
        }
    }

    fn is_of(&self, original: Tuple) -> bool {
        self.ct.as_ref().and_then(|ct| ct.original) == Some(original)
    }
}

/// A client and a server on both sides of a router, which logs what it forwards.
struct Lab {
    client: Netns,
    router: Netns,
    server: Netns,
    /// The client's end of its link to the router.
    near: Port,
    /// The router's end of it.
    gate: Port,
    /// The router's end of its link to the server.
    exit: Port,
    /// The server's end of it.
    far: Port,
    nflog: Nflog,
    seen: Vec<Seen>,
}

impl Lab {
    /// `None`, after saying so, if the kernel cannot attach conntrack entries.
    fn new(name: &str, rules: impl FnOnce(&Port, &Port) -> String) -> Option<Self> {
        let (client, router, server) = (Netns::new(name), Netns::new(name), Netns::new(name));
        let (near, gate) = veth(&client, &router);
        let (exit, far) = veth(&router, &server);
        for (host, gateway) in [(&client, &gate), (&server, &exit)] {
            host.ip(&format!("route add default via {}", gateway.v4));
            host.ip(&format!("-6 route add default via {}", gateway.v6));
        }
        set(&router, "net/ipv4/ip_forward");
        set(&router, "net/ipv6/conf/all/forwarding");
        let rules = rules(&exit, &far);
        router.nft(RULES);
        router.nft(&format!(
            "{rules}
            table inet track {{ chain forward {{ type filter hook forward priority 0; ct state invalid drop; }}
            }}"
        ));
        let config = Config::builder()
            .netns(router.netns())
            .group(GROUP)
            .flags(Flags::SEQ | Flags::CONNTRACK)
            .build()
            .unwrap();
        let nflog = Nflog::open(&config).unwrap_or_else(|error| panic!("{error}"));
        let attached = match nflog.effective().warnings.as_slice() {
            [] => true,
            [Warning::ConntrackRefused] => false,
            warnings => panic!("{warnings:?}"),
        };
        assert_eq!(nflog.effective().flags.contains(Flags::CONNTRACK), attached);
        let mut lab = Self {
            client,
            router,
            server,
            near,
            gate,
            exit,
            far,
            nflog,
            seen: Vec::new(),
        };
        if attached {
            return Some(lab);
        }
        let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
        assert!(
            !modules.contains("nf_conntrack_netlink "),
            "nf_conntrack_netlink is loaded, but conntrack is refused"
        );
        lab.check_reading_without();
        println!(
            "SKIPPED: this kernel cannot attach conntrack entries ({name}: only reading without was tested)"
        );
        None
    }

    fn check_reading_without(&mut self) {
        for [from, to] in self.ends() {
            let _server = self.server.run(|| UdpSocket::bind(to).unwrap());
            let client = self.client.run(|| UdpSocket::bind(from).unwrap());
            client.send_to(b"hello", to).unwrap();
            let seen = self.find("packet without conntrack", |seen| {
                seen.packet.source == Some(from.ip()) && is_udp(&seen.packet, SERVER)
            });
            assert_eq!((seen.ct, seen.state), (None, None));
        }
    }

    /// Client's and server's socket address, of each family.
    fn ends(&self) -> [[SocketAddr; 2]; 2] {
        [
            [(self.near.v4, CLIENT).into(), (self.far.v4, SERVER).into()],
            [(self.near.v6, CLIENT).into(), (self.far.v6, SERVER).into()],
        ]
    }

    /// The router's addresses of `port`, of the family of `like`.
    fn address(port: &Port, like: SocketAddr) -> IpAddr {
        if like.is_ipv6() {
            port.v6.into()
        } else {
            port.v4.into()
        }
    }

    /// Reads what is there, waiting a little for it.
    fn read(&mut self) {
        if let Some(batch) = self.nflog.recv(Some(Duration::from_millis(100))).unwrap() {
            self.seen.extend(batch.map(|entry| Seen::new(&entry)));
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
            self.read();
        }
    }

    /// The first packet of a connection and the first one that answers it.
    #[track_caller]
    fn first_and_reply(&mut self, prefix: &str, original: Tuple) -> (Seen, Seen) {
        let first = self.find("first packet", |seen| {
            seen.prefix == prefix && seen.is_of(original) && seen.state == Some(CtState::New)
        });
        let reply = self.find("reply", |seen| {
            seen.prefix == prefix && seen.is_of(original) && seen.state == Some(CtState::EstablishedReply)
        });
        assert_eq!(first.ct().id, reply.ct().id);
        assert_eq!(first.tuples(), reply.tuples());
        assert!(!first.status().contains(CtStatus::SEEN_REPLY));
        // Logged before the end of postrouting.
        assert!(!first.status().contains(CtStatus::CONFIRMED));
        assert!(
            reply.status().contains(CtStatus::from_bits(
                CtStatus::SEEN_REPLY.bits() | CtStatus::CONFIRMED.bits()
            )),
            "{reply:?}"
        );
        assert!(reply.ct().timeout_seconds > Some(0), "{reply:?}");
        (first, reply)
    }

    /// Sends a datagram to `to`, which is answered by a socket bound to `at` in `place`.
    fn exchange_udp(&self, place: &Netns, from: SocketAddr, to: SocketAddr, at: SocketAddr) {
        let server = place.run(|| bound(at));
        let client = self.client.run(|| bound(from));
        client.send_to(b"hello", to).unwrap();
        let mut buffer = [0; 16];
        let (length, peer) = server.recv_from(&mut buffer).expect("the request arrives");
        assert_eq!(&buffer[..length], b"hello");
        server.send_to(b"world!", peer).unwrap();
        let (length, peer) = client.recv_from(&mut buffer).expect("the reply arrives");
        assert_eq!((&buffer[..length], peer), (&b"world!"[..], to));
    }

    /// Connects to `to` from `from`; answered by a listener at `at` in `place`.
    fn connect(
        &self,
        place: &Netns,
        from: SocketAddr,
        to: SocketAddr,
        at: SocketAddr,
    ) -> (TcpStream, TcpStream) {
        let listener = place.run(|| TcpListener::bind(at).unwrap());
        let client = self
            .client
            .run(|| connect(from, to))
            .expect("the connection opens");
        let (server, _) = listener.accept().unwrap();
        (client, server)
    }

    /// Sends an echo request from the client; a raw socket needs root.
    fn send_echo(&self, to: IpAddr) {
        let (domain, protocol, kind) = if to.is_ipv6() {
            (Domain::IPV6, Protocol::ICMPV6, 128)
        } else {
            (Domain::IPV4, Protocol::ICMPV4, 8)
        };
        let [high, low] = ECHO_ID.to_be_bytes();
        // Sequence number 0 and no data, so that the checksum is the complement of two words. For ICMPv6 the kernel fills
        // it in.
        let [sum_high, sum_low] = (!(u16::from_be_bytes([kind, 0]) + ECHO_ID)).to_be_bytes();
        self.client.run(|| {
            let socket = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
            let message = [kind, 0, sum_high, sum_low, high, low, 0, 0];
            socket.send_to(&message, &SocketAddr::new(to, 0).into()).unwrap();
        });
    }
}

/// Turns a sysctl on.
fn set(netns: &Netns, sysctl: &str) {
    let path = format!("/proc/sys/{sysctl}");
    let written = netns.run(|| fs::write(&path, "1"));
    written.unwrap_or_else(|error| panic!("cannot write {path}: {error}"));
}

fn bound(at: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(at).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Opens a TCP connection from a given address and port.
fn connect(from: SocketAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    // The port may be waiting for a connection before.
    socket.set_reuse_address(true)?;
    socket.bind(&from.into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

fn is_udp(packet: &Packet, port: u16) -> bool {
    packet.protocol == Some(UDP)
        && matches!(packet.transport, Transport::Ports { destination, .. } if destination == port)
}

fn tuple(protocol: u8, src: SocketAddr, dst: SocketAddr) -> Tuple {
    Tuple {
        src: src.ip(),
        dst: dst.ip(),
        protocol,
        proto: TupleProto::Ports {
            src: src.port(),
            dst: dst.port(),
        },
    }
}

fn echo(src: IpAddr, dst: IpAddr) -> Tuple {
    let (protocol, kind) = if src.is_ipv6() { (58, 128) } else { (1, 8) };
    Tuple {
        src,
        dst,
        protocol,
        proto: TupleProto::Icmp {
            id: ECHO_ID,
            kind,
            code: 0,
        },
    }
}

fn no_rules(_: &Port, _: &Port) -> String {
    String::new()
}

#[test]
fn a_plain_flow_has_its_packets_of_both_directions() {
    let Some(mut lab) = Lab::new("plain", no_rules) else {
        return;
    };
    for [from, to] in lab.ends() {
        lab.exchange_udp(&lab.server, from, to, to);
        let (_client, _server) = lab.connect(&lab.server, from, to, to);
        lab.send_echo(to.ip());
        for original in [
            tuple(UDP, from, to),
            tuple(TCP, from, to),
            echo(from.ip(), to.ip()),
        ] {
            let (first, reply) = lab.first_and_reply("comes", original);
            assert_eq!(first.tuples(), (original, original.inverted().unwrap()));
            assert_eq!(
                (first.packet.source, reply.packet.source),
                (Some(from.ip()), Some(to.ip()))
            );
            let nat = CtStatus::from_bits(CtStatus::SRC_NAT.bits() | CtStatus::DST_NAT.bits());
            assert_eq!(reply.status().bits() & nat.bits(), 0, "{reply:?}");
            let ct = reply.ct();
            assert_eq!((ct.zone, ct.original_zone, ct.reply_zone), (None, None, None));
            assert_eq!((ct.mark.unwrap_or(0), &ct.labels), (0, &None));
            assert_eq!((ct.master, &ct.helper, &ct.secctx), (None, &None, &None));
            assert_eq!(ct.protoinfo.is_some(), original.protocol == TCP);
        }
    }
}

#[test]
fn a_tcp_connection_goes_through_its_states() {
    let Some(mut lab) = Lab::new("life", no_rules) else {
        return;
    };
    for [from, to] in lab.ends() {
        let (mut client, mut server) = lab.connect(&lab.server, from, to, to);
        client.shutdown(Shutdown::Write).unwrap();
        // Each side reads the other's FIN.
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        let original = tuple(TCP, from, to);
        let last = lab.find("end of the connection", |seen| {
            seen.is_of(original) && seen.tcp().state == Some(TcpState::TimeWait)
        });
        let life: Vec<_> = lab
            .seen
            .iter()
            .filter(|seen| seen.prefix == "comes" && seen.is_of(original))
            .collect();
        let mut states: Vec<_> = life.iter().filter_map(|seen| seen.tcp().state).collect();
        states.dedup();
        // The server may send its ACK of the FIN with its own FIN.
        states.retain(|&state| state != TcpState::CloseWait);
        let names: Vec<_> = states.iter().map(|state| state.name()).collect();
        let expected = [
            "SYN_SENT",
            "SYN_RECV",
            "ESTABLISHED",
            "FIN_WAIT",
            "LAST_ACK",
            "TIME_WAIT",
        ];
        assert_eq!(names, expected);
        for seen in &life {
            assert_eq!(seen.ct().id, last.ct().id);
            let assured = seen.tcp().state.map(TcpState::number) >= Some(TcpState::Established.number());
            assert_eq!(seen.status().contains(CtStatus::ASSURED), assured, "{seen:?}");
        }
        check_options(&last);
    }
}

/// Both ends are Linux and offer the same; the client sent the first FIN.
#[track_caller]
fn check_options(last: &Seen) {
    let tcp = last.tcp();
    assert!(matches!(tcp.wscale_original, Some(1..=14)), "{tcp:?}");
    assert_eq!(tcp.wscale_original, tcp.wscale_reply);
    for flags in [tcp.flags_original, tcp.flags_reply] {
        let flags = flags.expect("flags of a side");
        assert!(
            flags.contains(TcpFlags::WINDOW_SCALE) && flags.contains(TcpFlags::SACK_PERM),
            "{tcp:?}"
        );
    }
    let closes = |flags: Option<TcpFlags>| flags.is_some_and(|flags| flags.contains(TcpFlags::CLOSE_INIT));
    assert_eq!(
        (closes(tcp.flags_original), closes(tcp.flags_reply)),
        (true, false),
        "{tcp:?}"
    );
}

#[test]
fn a_refused_connection_is_closed() {
    let Some(mut lab) = Lab::new("refused", no_rules) else {
        return;
    };
    for [from, to] in lab.ends() {
        let refused = lab.client.run(|| connect(from, to)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let original = tuple(TCP, from, to);
        let reset = lab.find("RST", |seen| {
            seen.is_of(original) && seen.state == Some(CtState::EstablishedReply)
        });
        assert_eq!(reset.tcp().state, Some(TcpState::Close));
        let syn = lab.find("SYN", |seen| {
            seen.is_of(original) && seen.state == Some(CtState::New)
        });
        assert_eq!(syn.tcp().state, Some(TcpState::SynSent));
    }
}

#[test]
fn a_translated_source_is_in_the_reply_tuple() {
    let rules = |exit: &Port, _: &Port| {
        format!(
            "table inet translate {{
                chain postrouting {{
                    type nat hook postrouting priority 100
                    meta l4proto {{ tcp, icmp, icmpv6 }} masquerade
                    meta l4proto udp snat ip to {}
                    meta l4proto udp snat ip6 to {}
                }}
            }}",
            exit.v4, exit.v6
        )
    };
    let Some(mut lab) = Lab::new("snat", rules) else {
        return;
    };
    for [from, to] in lab.ends() {
        lab.exchange_udp(&lab.server, from, to, to);
        let (_client, _server) = lab.connect(&lab.server, from, to, to);
        lab.send_echo(to.ip());
        let exit = Lab::address(&lab.exit, to);
        for original in [
            tuple(UDP, from, to),
            tuple(TCP, from, to),
            echo(from.ip(), to.ip()),
        ] {
            let (first, reply) = lab.first_and_reply("goes", original);
            let expected = Tuple {
                dst: exit,
                ..original.inverted().unwrap()
            };
            assert_eq!(first.tuples(), (original, expected));
            // The packet itself has the address that the tuples translate.
            assert_eq!(first.packet.source, Some(exit));
            assert_eq!(reply.packet.destination, Some(from.ip()));
            for seen in [first, reply] {
                assert!(seen.status().is_snat() && !seen.status().is_dnat(), "{seen:?}");
            }
        }
    }
}

#[test]
fn a_translated_destination_is_in_the_reply_tuple() {
    const FORWARDED: u16 = 2003;
    const REDIRECTED: u16 = 2004;
    let rules = |_: &Port, far: &Port| {
        format!(
            "table inet translate {{
                chain prerouting {{
                    type nat hook prerouting priority -100
                    meta l4proto {{ tcp, udp }} th dport {FORWARDED} dnat ip to {}:{SERVER}
                    meta l4proto {{ tcp, udp }} th dport {FORWARDED} dnat ip6 to [{}]:{SERVER}
                    meta l4proto {{ tcp, udp }} th dport {REDIRECTED} redirect to :{SERVER}
                }}
            }}",
            far.v4, far.v6
        )
    };
    let Some(mut lab) = Lab::new("dnat", rules) else {
        return;
    };
    for [from, far] in lab.ends() {
        let gate = Lab::address(&lab.gate, far);
        let local = SocketAddr::new(gate, SERVER);
        for (port, end) in [(FORWARDED, far), (REDIRECTED, local)] {
            let place = if end == far { &lab.server } else { &lab.router };
            let to = SocketAddr::new(gate, port);
            lab.exchange_udp(place, from, to, end);
            let (_client, _server) = lab.connect(place, from, to, end);
            for protocol in [UDP, TCP] {
                let original = tuple(protocol, from, to);
                let expected = tuple(protocol, end, from);
                let first = lab.find("first packet", |seen| {
                    seen.prefix == "comes" && seen.is_of(original) && seen.state == Some(CtState::New)
                });
                assert_eq!(first.tuples(), (original, expected));
                assert_eq!(first.packet.destination, Some(end.ip()));
                let reply = lab.find("reply", |seen| {
                    seen.is_of(original) && seen.state == Some(CtState::EstablishedReply)
                });
                assert_eq!((reply.tuples(), reply.ct().id), (first.tuples(), first.ct().id));
                for seen in [first, reply] {
                    assert!(seen.status().is_dnat() && !seen.status().is_snat(), "{seen:?}");
                }
            }
        }
    }
}

#[test]
fn zones_marks_and_labels_are_those_that_rules_set() {
    const BOTH: u16 = 2005;
    const ORIGINAL: u16 = 2006;
    const REPLY: u16 = 2007;
    let rules = |_: &Port, _: &Port| {
        format!(
            "table inet tag {{
                chain before {{
                    type filter hook prerouting priority -300
                    udp dport {BOTH} ct zone set 7
                    udp sport {BOTH} ct zone set 7
                    udp dport {ORIGINAL} ct original zone set 9
                    udp dport {REPLY} ct reply zone set 11
                }}
                chain after {{
                    type filter hook prerouting priority -150
                    udp dport {BOTH} ct mark set 0xdeadbeef
                    udp dport {ORIGINAL} ct label set 5
                    udp dport {REPLY} ct label set 127
                }}
            }}"
        )
    };
    let Some(mut lab) = Lab::new("tags", rules) else {
        return;
    };
    for [from, to] in lab.ends() {
        let mut tagged = |port| {
            let to = SocketAddr::new(to.ip(), port);
            let client = lab.client.run(|| bound(from));
            client.send_to(b"hello", to).unwrap();
            let original = tuple(UDP, from, to);
            lab.find("tagged packet", |seen| {
                seen.is_of(original) && seen.state == Some(CtState::New)
            })
        };
        let zones = |seen: &Seen| {
            let ct = seen.ct();
            (ct.zone, ct.original_zone, ct.reply_zone)
        };
        let both = tagged(BOTH);
        assert_eq!(zones(&both), (Some(7), None, None));
        assert_eq!(both.ct().mark, Some(0xdead_beef));
        assert_eq!(both.ct().labels, None);
        let original = tagged(ORIGINAL);
        assert_eq!(zones(&original), (None, Some(9), None));
        assert_eq!(original.label_bits, [5]);
        assert_eq!(original.ct().mark.unwrap_or(0), 0);
        let reply = tagged(REPLY);
        assert_eq!(zones(&reply), (None, None, Some(11)));
        assert_eq!(reply.label_bits, [127]);
        assert_eq!(reply.ct().labels.as_ref().map(Vec::len), Some(16));
        // A reply finds the connection in its zone.
        let at = SocketAddr::new(to.ip(), BOTH);
        lab.exchange_udp(&lab.server, from, at, at);
        let answer = lab.find("reply in the zone", |seen| {
            seen.is_of(tuple(UDP, from, at)) && seen.state == Some(CtState::EstablishedReply)
        });
        assert_eq!(zones(&answer), (Some(7), None, None));
        assert_eq!(answer.ct().mark, Some(0xdead_beef));
    }
}

#[test]
fn an_icmp_error_is_related_to_what_it_is_about() {
    let Some(mut lab) = Lab::new("related", no_rules) else {
        return;
    };
    for [from, to] in lab.ends() {
        let client = lab.client.run(|| bound(from));
        client.send_to(b"hello", to).unwrap();
        let original = tuple(UDP, from, to);
        let error = lab.find("ICMP error", |seen| {
            seen.is_of(original) && seen.packet.source == Some(to.ip())
        });
        assert_eq!(error.state, Some(CtState::RelatedReply));
        // Destination unreachable.
        let unreachable = if to.is_ipv6() { 1 } else { 3 };
        assert!(
            matches!(error.packet.transport, Transport::Icmp { kind, .. } if kind == unreachable),
            "{error:?}"
        );
        assert_eq!(error.tuples(), (original, original.inverted().unwrap()));
        // It is no answer.
        assert!(!error.status().contains(CtStatus::SEEN_REPLY), "{error:?}");
    }
}

#[test]
fn counters_and_timestamps_come_since_linux_5_15_if_they_are_on() {
    let Some(mut lab) = Lab::new("counters", no_rules) else {
        return;
    };
    set(&lab.router, "net/netfilter/nf_conntrack_acct");
    set(&lab.router, "net/netfilter/nf_conntrack_timestamp");
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    for [from, to] in lab.ends() {
        let start = now();
        lab.exchange_udp(&lab.server, from, to, to);
        let (_, reply) = lab.first_and_reply("comes", tuple(UDP, from, to));
        let ct = reply.ct();
        if kernel() < (5, 15) {
            let nothing = (ct.original_counters, ct.reply_counters, ct.timestamps);
            assert_eq!(nothing, (None, None, None));
            continue;
        }
        let headers = if to.is_ipv6() { 48 } else { 28 };
        let one = |bytes| Some(Counters { packets: 1, bytes });
        // "hello" and "world!".
        assert_eq!(
            (ct.original_counters, ct.reply_counters),
            (one(headers + 5), one(headers + 6))
        );
        let times = ct.timestamps.expect("timestamps are on");
        let began = u128::from(times.start_unix_nano);
        assert!(start <= began && began <= now(), "{start} {times:?}");
        assert_eq!(times.stop_unix_nano, None);
    }
}
