//! Which socket of its namespace a packet is for or from, as its conntrack entry tells: where addresses are translated, the
//! logged tuple is not the socket's, but one of the connection's two tuples is. Pure.
//!
//! The initiator's socket has the ends of the original tuple, which never changes. The responder's socket has those of the
//! reply tuple, which is known when the destination's translation is decided: for the first packet that is in PREROUTING, at
//! the latest, and the packet may be logged before.

use std::net::IpAddr;

use nflog_common::{PacketKey, SocketTuple};

use super::End;
use super::key::address;
use crate::nflog::{Conntrack, CtState, CtStatus, TcpState, Tuple, TupleProto};
use crate::packet::Packet;

/// `NF_INET_PRE_ROUTING`.
const PREROUTING: u8 = 0;
/// `NF_INET_LOCAL_IN`.
const INPUT: u8 = 1;
/// `NF_INET_LOCAL_OUT`.
const OUTPUT: u8 = 3;
/// `NF_INET_POST_ROUTING`.
const POSTROUTING: u8 = 4;

/// `IPPROTO_TCP`.
pub(super) const TCP: u8 = 6;

/// A packet's conntrack entry, and the packet's place in it.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// The entry at the time of the log call.
    pub entry: Conntrack<'a>,
    /// Direction of the packet, and whether it begins the connection.
    pub state: CtState,
}

/// What a packet's connection says about its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// If the packet has a socket in its namespace, the socket has these ends.
    Socket {
        ends: SocketTuple,
        /// TCP: an end of the connection has been seen, so the socket may be gone since.
        closing: bool,
    },
    /// The destination may yet be translated, so the receiver is not known.
    Undecided,
    /// Nothing.
    Silent,
}

/// What a connection was made to, before any translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    /// Who made it.
    pub(crate) by: IpAddr,
    /// Where to.
    pub(crate) address: IpAddr,
    /// Protocol and port there.
    pub(crate) port: Option<(u8, u16)>,
}

/// One of a connection's two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Initiator,
    Responder,
}

/// The end of a packet that is asked about at a hook: its sender where packets leave, its receiver where they arrive. Forwarded
/// packets have neither here.
const fn end(hook: u8) -> Option<End> {
    match hook {
        PREROUTING | INPUT => Some(End::Destination),
        OUTPUT | POSTROUTING => Some(End::Source),
        _ => None,
    }
}

/// Which side of its connection an end of a packet is.
const fn side(end: End, reply: bool) -> Side {
    match (end, reply) {
        (End::Destination, false) | (End::Source, true) => Side::Responder,
        (End::Destination, true) | (End::Source, false) => Side::Initiator,
    }
}

impl Connection<'_> {
    /// What it says about the socket of a packet of `protocol`, logged in `netns` at `hook`.
    pub(super) fn claim(&self, netns: u32, hook: u8, protocol: u8) -> Claim {
        let Some(end) = end(hook) else {
            return Claim::Silent;
        };
        if self.is_zoned() || matches!(self.state, CtState::Other(_)) {
            return Claim::Silent;
        }
        let side = side(end, self.state.is_reply());
        if side == Side::Responder && hook == PREROUTING && !self.is_decided() {
            return Claim::Undecided;
        }
        self.of(side, netns, protocol)
    }

    /// What it says about the socket at one end of a forwarded packet, if that is in `netns`. The packet is of this entry and the
    /// namespace is known, so zones do not matter.
    pub(super) fn claim_of(&self, end: End, netns: u32, protocol: u8) -> Claim {
        if matches!(self.state, CtState::Other(_)) {
            return Claim::Silent;
        }
        self.of(side(end, self.state.is_reply()), netns, protocol)
    }

    /// Where the connection was made to, if the `near` end of the packet made it. `None`, too, if the packet's far end is not the other
    /// side, as of an ICMP error on the way.
    pub(crate) fn destination(&self, near: End, packet: &Packet) -> Option<Destination> {
        let is_known = !self.is_zoned() && !matches!(self.state, CtState::Other(_));
        if !is_known || side(near, self.state.is_reply()) != Side::Initiator {
            return None;
        }
        let (original, reply) = (self.entry.original()?, self.entry.reply()?);
        let far = match near {
            End::Source => packet.destination?,
            End::Destination => packet.source?,
        };
        let is_other_side = far == original.dst || far == reply.src;
        if !is_other_side || packet.protocol? != original.protocol {
            return None;
        }
        Some(Destination {
            by: original.src,
            address: original.dst,
            port: original.ports().map(|(_, port)| (original.protocol, port)),
        })
    }

    fn of(&self, side: Side, netns: u32, protocol: u8) -> Claim {
        let tuple = match side {
            Side::Initiator => self.entry.original(),
            Side::Responder => self.entry.reply(),
        };
        // An ICMP error has the entry of the connection that it is about, and is not of it.
        tuple
            .filter(|tuple| tuple.protocol == protocol)
            .and_then(|tuple| ends(netns, &tuple))
            .map_or(Claim::Silent, |ends| Claim::Socket {
                ends,
                closing: self.entry.tcp_state().is_some_and(is_closing),
            })
    }

    /// Zones are there to keep equal tuples of different networks apart; sockets have none.
    fn is_zoned(&self) -> bool {
        let zones = [
            self.entry.zone(),
            self.entry.original_zone(),
            self.entry.reply_zone(),
        ];
        zones.into_iter().flatten().any(|zone| zone != 0)
    }

    /// Whether the reply tuple is final as to the responder's address.
    fn is_decided(&self) -> bool {
        let first = matches!(self.state, CtState::New | CtState::Related);
        let status = self.entry.status().unwrap_or_default();
        !first || status.contains(CtStatus::DST_NAT_DONE)
    }
}

/// The ends of the socket that sends packets of this tuple. An echo's identifier is the socket's port, both ways.
fn ends(netns: u32, tuple: &Tuple) -> Option<SocketTuple> {
    let (local_port, remote_port) = match tuple.proto {
        TupleProto::Ports { src, dst } => (src, dst),
        TupleProto::Icmp { id, .. } => (id, 0),
        TupleProto::None => return None,
    };
    Some(SocketTuple {
        netns,
        protocol: tuple.protocol,
        pad: 0,
        pad2: 0,
        local_port,
        remote_port,
        local: address(tuple.src),
        remote: address(tuple.dst),
    })
}

const fn is_closing(state: TcpState) -> bool {
    matches!(
        state,
        TcpState::FinWait | TcpState::CloseWait | TcpState::LastAck | TcpState::TimeWait | TcpState::Close
    )
}

/// Whether a packet as it was logged is certainly not of the socket that its own addresses lead to, because the one it belongs
/// to has `ends`. Where packets leave, only what was found without the packet's own socket can be (`by_address`).
///
/// A datagram socket without peer takes packets of any; there only the local end counts.
pub(super) fn contradicts(ends: &SocketTuple, key: &PacketKey, by_address: bool) -> bool {
    let arrives = matches!(key.hook, PREROUTING | INPUT);
    if !arrives && !by_address {
        return false;
    }
    differs(ends, key, if arrives { End::Destination } else { End::Source })
}

/// Whether the socket with these ends is not the one that a packet's addresses, as they were logged, lead to at this end.
pub(super) fn differs(ends: &SocketTuple, key: &PacketKey, end: End) -> bool {
    let (source, destination) = (
        (key.source, key.source_port),
        (key.destination, key.destination_port),
    );
    let (local, remote) = match end {
        End::Source => (source, destination),
        End::Destination => (destination, source),
    };
    match ends.protocol {
        TCP => (ends.local, ends.local_port) != local || (ends.remote, ends.remote_port) != remote,
        // An echo's key has the identifier as source port, both ways.
        1 | 58 => ends.local != local.0 || ends.local_port != key.source_port,
        _ => (ends.local, ends.local_port) != local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETNS: u32 = 77;
    const FORWARD: u8 = 2;
    const ICMP: u8 = 1;
    const CLIENT: ([u8; 4], u16) = ([10, 0, 0, 1], 40_000);
    const SERVICE: ([u8; 4], u16) = ([10, 96, 0, 1], 80);
    const SERVER: ([u8; 4], u16) = ([10, 0, 0, 2], 8080);
    const MASK: ([u8; 4], u16) = ([10, 0, 0, 3], 1024);
    const DECIDED: u32 = CtStatus::DST_NAT_DONE.bits();
    const ESTABLISHED: u8 = 3;

    type Place = ([u8; 4], u16);

    fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn tuple(protocol: u8, src: Place, dst: Place) -> Vec<u8> {
        let ip = [attr(1, &src.0), attr(2, &dst.0)].concat();
        let mut proto = attr(1, &[protocol]);
        if protocol == ICMP {
            proto.extend(attr(4, &src.1.to_be_bytes()));
            proto.extend([attr(5, &[8]), attr(6, &[0])].concat());
        } else {
            proto.extend(attr(2, &src.1.to_be_bytes()));
            proto.extend(attr(3, &dst.1.to_be_bytes()));
        }
        [attr(1, &ip), attr(2, &proto)].concat()
    }

    /// A client of the service address, translated to the server and masked: both tuples differ from the wire's.
    fn entry(protocol: u8, status: u32, tcp_state: u8) -> Vec<u8> {
        [
            attr(1, &tuple(protocol, CLIENT, SERVICE)),
            attr(2, &tuple(protocol, SERVER, MASK)),
            attr(3, &status.to_be_bytes()),
            attr(4, &attr(1, &attr(1, &[tcp_state]))),
        ]
        .concat()
    }

    fn socket(protocol: u8, local: Place, remote: Place) -> SocketTuple {
        SocketTuple {
            netns: NETNS,
            protocol,
            pad: 0,
            pad2: 0,
            local_port: local.1,
            remote_port: remote.1,
            local: address(local.0.into()),
            remote: address(remote.0.into()),
        }
    }

    fn claim(bytes: &[u8], state: CtState, hook: u8, protocol: u8) -> Claim {
        let entry = Conntrack::decode(bytes);
        assert!(entry.problems().is_empty(), "{entry:?}");
        Connection { entry, state }.claim(NETNS, hook, protocol)
    }

    #[test]
    fn hook_and_direction_choose_the_end() {
        use CtState::{Established, EstablishedReply, New, Other, Related, RelatedReply};
        let socket = |local, remote| Claim::Socket {
            ends: socket(TCP, local, remote),
            closing: false,
        };
        let (initiator, responder) = (socket(CLIENT, SERVICE), socket(SERVER, MASK));
        let table = [
            (PREROUTING, Established, responder),
            (PREROUTING, EstablishedReply, initiator),
            (INPUT, Established, responder),
            (INPUT, EstablishedReply, initiator),
            (FORWARD, Established, Claim::Silent),
            (FORWARD, EstablishedReply, Claim::Silent),
            (OUTPUT, Established, initiator),
            (OUTPUT, EstablishedReply, responder),
            (POSTROUTING, Established, initiator),
            (POSTROUTING, EstablishedReply, responder),
            (POSTROUTING, RelatedReply, responder),
            // The first packet.
            (PREROUTING, New, Claim::Undecided),
            (PREROUTING, Related, Claim::Undecided),
            (INPUT, New, responder),
            (FORWARD, New, Claim::Silent),
            (OUTPUT, New, initiator),
            (POSTROUTING, New, initiator),
            // Not understood.
            (OUTPUT, Other(7), Claim::Silent),
            (9, Established, Claim::Silent),
        ];
        let bytes = entry(TCP, 0, ESTABLISHED);
        for (hook, state, expected) in table {
            assert_eq!(claim(&bytes, state, hook, TCP), expected, "hook {hook} {state:?}");
        }
        let decided = entry(TCP, DECIDED, ESTABLISHED);
        assert_eq!(claim(&decided, New, PREROUTING, TCP), responder);
    }

    #[test]
    fn a_forwarded_packet_has_two_ends_which_direction_tells_apart() {
        use CtState::{Established, EstablishedReply, New, Other};
        let bytes = [entry(TCP, 0, ESTABLISHED), attr(18, &5_u16.to_be_bytes())].concat();
        let entry = Conntrack::decode(&bytes);
        let claim = |state, end| Connection { entry, state }.claim_of(end, NETNS, TCP);
        let of = |local, remote| Claim::Socket {
            ends: socket(TCP, local, remote),
            closing: false,
        };
        let (initiator, responder) = (of(CLIENT, SERVICE), of(SERVER, MASK));
        assert_eq!(claim(New, End::Source), initiator, "in a zone, too");
        assert_eq!(claim(Established, End::Source), initiator);
        assert_eq!(claim(Established, End::Destination), responder);
        assert_eq!(claim(EstablishedReply, End::Source), responder);
        assert_eq!(claim(EstablishedReply, End::Destination), initiator);
        assert_eq!(claim(Other(7), End::Source), Claim::Silent);
    }

    #[test]
    fn a_forwarded_packet_differs_where_its_other_end_is_translated() {
        let client = socket(TCP, CLIENT, SERVICE);
        assert!(!differs(
            &client,
            &key(FORWARD, TCP, CLIENT, SERVICE),
            End::Source
        ));
        assert!(differs(&client, &key(FORWARD, TCP, CLIENT, SERVER), End::Source));
        assert!(!differs(
            &client,
            &key(FORWARD, TCP, SERVICE, CLIENT),
            End::Destination
        ));
        assert!(differs(
            &client,
            &key(FORWARD, TCP, SERVER, CLIENT),
            End::Destination
        ));
    }

    #[test]
    fn what_may_be_of_another_connection_says_nothing() {
        let claim = |bytes: &[u8], protocol| claim(bytes, CtState::Established, OUTPUT, protocol);
        let plain = entry(TCP, 0, ESTABLISHED);
        assert_eq!(claim(&plain, ICMP), Claim::Silent, "an ICMP error about it");
        let zoned = [plain.clone(), attr(18, &5_u16.to_be_bytes())].concat();
        assert_eq!(claim(&zoned, TCP), Claim::Silent, "in a zone");
        let default_zone = [plain.clone(), attr(18, &0_u16.to_be_bytes())].concat();
        assert_eq!(claim(&default_zone, TCP), claim(&plain, TCP));
        assert_eq!(claim(&[], TCP), Claim::Silent, "no tuples");
    }

    #[test]
    fn the_end_of_a_connection_is_seen() {
        for state in 0..=9 {
            let bytes = entry(TCP, 0, state);
            let Claim::Socket { closing, .. } = claim(&bytes, CtState::Established, OUTPUT, TCP) else {
                panic!("no claim in state {state}");
            };
            assert_eq!(closing, (4..=8).contains(&state), "state {state}");
        }
    }

    fn key(hook: u8, protocol: u8, source: Place, destination: Place) -> PacketKey {
        PacketKey {
            netns: NETNS,
            protocol,
            hook,
            source_port: source.1,
            destination_port: destination.1,
            pad: 0,
            source: address(source.0.into()),
            destination: address(destination.0.into()),
        }
    }

    #[test]
    fn where_a_connection_was_made_to_is_known_at_the_end_that_made_it() {
        use CtState::{Established, EstablishedReply, New, Other, RelatedReply};
        let plain = entry(TCP, 0, ESTABLISHED);
        let destination = |bytes: &[u8], state, near, source: Place, destination: Place, protocol| {
            let packet = Packet {
                source: Some(source.0.into()),
                destination: Some(destination.0.into()),
                protocol: Some(protocol),
                ..crate::packet::dissect(None, 2, &[])
            };
            let entry = Conntrack::decode(bytes);
            Connection { entry, state }.destination(near, &packet)
        };
        let made = Some(Destination {
            by: CLIENT.0.into(),
            address: SERVICE.0.into(),
            port: Some((TCP, SERVICE.1)),
        });
        let (source, arrives) = (End::Source, End::Destination);
        for (state, near, from, to, expected) in [
            // Before and after translation, there and back.
            (New, source, CLIENT, SERVICE, made),
            (New, source, CLIENT, SERVER, made),
            (Established, source, MASK, SERVER, made),
            (EstablishedReply, arrives, SERVER, CLIENT, made),
            (EstablishedReply, arrives, SERVICE, CLIENT, made),
            // The server's side: its peer is the client.
            (New, arrives, CLIENT, SERVER, None),
            (EstablishedReply, source, SERVER, MASK, None),
            // A router's error about it.
            (RelatedReply, arrives, ([10, 9, 9, 9], 0), CLIENT, None),
            (Other(7), source, CLIENT, SERVICE, None),
        ] {
            let found = destination(&plain, state, near, from, to, TCP);
            assert_eq!(found, expected, "{state:?} {near:?} {from:?} {to:?}");
        }
        assert_eq!(destination(&plain, New, source, CLIENT, SERVICE, ICMP), None);
        let zoned = [plain, attr(18, &5_u16.to_be_bytes())].concat();
        assert_eq!(destination(&zoned, New, source, CLIENT, SERVICE, TCP), None);
        let undecoded = destination(&[], New, source, CLIENT, SERVICE, TCP);
        assert_eq!(undecoded, None);
    }

    #[test]
    fn an_answer_by_another_address_is_contradicted() {
        const UDP: u8 = 17;
        let client = |protocol| socket(protocol, CLIENT, SERVICE);
        // Arriving: TCP by both ends, datagrams by the local one.
        for (protocol, source, destination, expected) in [
            (TCP, SERVICE, CLIENT, false),
            (TCP, SERVER, CLIENT, true),
            (TCP, SERVICE, MASK, true),
            (UDP, SERVICE, CLIENT, false),
            (UDP, SERVER, CLIENT, false),
            (UDP, SERVICE, MASK, true),
        ] {
            for hook in [PREROUTING, INPUT] {
                for by_address in [false, true] {
                    assert_eq!(
                        contradicts(
                            &client(protocol),
                            &key(hook, protocol, source, destination),
                            by_address
                        ),
                        expected,
                        "{protocol} {source:?} {destination:?}"
                    );
                }
            }
        }
        // Leaving: the packet's own socket is believed, an address is not.
        for hook in [OUTPUT, POSTROUTING] {
            let translated = key(hook, TCP, MASK, SERVER);
            assert!(!contradicts(&client(TCP), &translated, false));
            assert!(contradicts(&client(TCP), &translated, true));
            assert!(!contradicts(&client(TCP), &key(hook, TCP, CLIENT, SERVICE), true));
        }
    }

    #[test]
    fn an_echo_is_known_by_its_identifier_both_ways() {
        let bytes = entry(ICMP, 0, 0);
        let Claim::Socket { ends, .. } = claim(&bytes, CtState::EstablishedReply, INPUT, ICMP) else {
            panic!("no claim");
        };
        assert_eq!((ends.local_port, ends.remote_port), (CLIENT.1, 0));
        let reply = |destination: Place, id| PacketKey {
            source_port: id,
            destination_port: 0,
            ..key(INPUT, ICMP, SERVER, destination)
        };
        assert!(!contradicts(&ends, &reply(CLIENT, CLIENT.1), false));
        assert!(contradicts(&ends, &reply(CLIENT, 1), false));
        assert!(contradicts(&ends, &reply(MASK, CLIENT.1), false));
    }
}
