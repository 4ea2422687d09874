//! The oracle of conntrack entries: netlink-packet-netfilter's decoder of ctnetlink messages.
//!
//! It knows addresses, protocol and ports of tuples, status, mark, timeout and TCP. Attributes that come twice are compared
//! only where both take the last one. It tells IPv4 from IPv6 by the length, ours by the type: such addresses are left out.

use std::net::IpAddr;

use netlink_packet_core::ParseableParametrized as _;
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Tuple,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use nflog_agent::nflog::{self, Conntrack, TcpState};

/// Type of the message: `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_NEW`.
const MSG_CT_NEW: u16 = 0x0100;

/// What the oracle says.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    mark: Option<u32>,
    status: Option<u32>,
    timeout: Option<u32>,
    original: Vec<Vec<Tuple>>,
    reply: Vec<Vec<Tuple>>,
    protoinfo: Vec<Vec<ProtoInfo>>,
}

/// What it knows of a tuple.
#[derive(Default)]
struct Parts {
    src: Option<IpAddr>,
    dst: Option<IpAddr>,
    protocol: Option<u8>,
    ports: (Option<u16>, Option<u16>),
    /// Fields of ICMP, which it does not know.
    others: bool,
}

impl Reading {
    /// `None` if it does not read the attributes.
    pub(crate) fn of_oracle(attributes: &[u8]) -> Option<Self> {
        let body = [&[2, 0, 0, 0], attributes].concat();
        let message = NetfilterMessage::parse_with_param(&body[..], MSG_CT_NEW).ok()?;
        let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = message.inner else {
            panic!("no conntrack entry: {message:?}");
        };
        let mut reading = Self::default();
        for attribute in attributes {
            match attribute {
                ConntrackAttribute::CtaMark(value) => reading.mark = Some(value),
                ConntrackAttribute::CtaStatus(value) => reading.status = Some(value.bits()),
                ConntrackAttribute::CtaTimeout(value) => reading.timeout = Some(value),
                ConntrackAttribute::CtaTupleOrig(parts) => reading.original.push(parts),
                ConntrackAttribute::CtaTupleReply(parts) => reading.reply.push(parts),
                ConntrackAttribute::CtaProtoInfo(infos) => reading.protoinfo.push(infos),
                _ => {}
            }
        }
        Some(reading)
    }

    /// # Panics
    /// If they differ.
    pub(crate) fn compare(&self, entry: &Conntrack<'_>) {
        assert_eq!(entry.mark(), self.mark);
        assert_eq!(entry.status().map(nflog::CtStatus::bits), self.status);
        assert_eq!(
            entry.timeout().map(|timeout| timeout.as_secs()),
            self.timeout.map(u64::from)
        );
        compare_tuple(entry.original(), &self.original);
        compare_tuple(entry.reply(), &self.reply);
        if let [infos] = &self.protoinfo[..]
            && let [ProtoInfo::TCP(tcp)] = &infos[..]
        {
            let state = tcp.iter().rev().find_map(|attribute| match attribute {
                ProtoInfoTCP::State(state) => Some(TcpState::from(*state)),
                _ => None,
            });
            assert_eq!(entry.tcp_state(), state);
        }
    }
}

fn compare_tuple(ours: Option<nflog::Tuple>, theirs: &[Vec<Tuple>]) {
    let [attributes] = theirs else {
        assert!(ours.is_none() || !theirs.is_empty(), "{ours:?} out of nothing");
        return;
    };
    let parts = Parts::read(attributes);
    let Some(ours) = ours else {
        let whole = parts.src.is_some() && parts.dst.is_some() && parts.protocol.is_some();
        let one_family = parts.src.map(|ip| ip.is_ipv4()) == parts.dst.map(|ip| ip.is_ipv4());
        let ports = parts.ports.0.is_some() == parts.ports.1.is_some();
        assert!(
            !whole || !one_family || !ports || parts.others,
            "whole, but left out: {attributes:?}"
        );
        return;
    };
    assert_eq!(parts.protocol, Some(ours.protocol));
    for (ours, theirs) in [(ours.src, parts.src), (ours.dst, parts.dst)] {
        let theirs = theirs.expect("an address is not out of nothing");
        assert!(
            ours == theirs || ours.is_ipv4() != theirs.is_ipv4(),
            "{ours} {theirs}"
        );
    }
    if let Some((src, dst)) = ours.ports() {
        assert_eq!(parts.ports, (Some(src), Some(dst)));
    }
}

impl Parts {
    fn read(attributes: &[Tuple]) -> Self {
        let mut parts = Self::default();
        for attribute in attributes {
            match attribute {
                Tuple::Ip(attributes) => attributes.iter().for_each(|attribute| parts.take_ip(attribute)),
                Tuple::Proto(attributes) => attributes
                    .iter()
                    .for_each(|attribute| parts.take_proto(attribute)),
                _ => {}
            }
        }
        parts
    }

    fn take_ip(&mut self, attribute: &IPTuple) {
        match attribute {
            IPTuple::SourceAddress(ip) => self.src = Some(*ip),
            IPTuple::DestinationAddress(ip) => self.dst = Some(*ip),
            _ => {}
        }
    }

    fn take_proto(&mut self, attribute: &ProtoTuple) {
        match attribute {
            ProtoTuple::Protocol(protocol) => self.protocol = Some((*protocol).into()),
            ProtoTuple::SourcePort(port) => self.ports.0 = Some(*port),
            ProtoTuple::DestinationPort(port) => self.ports.1 = Some(*port),
            _ => self.others = true,
        }
    }
}
