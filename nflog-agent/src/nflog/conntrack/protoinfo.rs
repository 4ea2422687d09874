//! What conntrack knows of a connection of a protocol with states: TCP, DCCP, SCTP. Pure.

use super::tcp::Tcp;
use super::uapi::{
    CTA_PROTOINFO_DCCP, CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ, CTA_PROTOINFO_DCCP_PAD, CTA_PROTOINFO_DCCP_ROLE,
    CTA_PROTOINFO_DCCP_STATE, CTA_PROTOINFO_SCTP, CTA_PROTOINFO_SCTP_STATE, CTA_PROTOINFO_SCTP_VTAG_ORIGINAL,
    CTA_PROTOINFO_SCTP_VTAG_REPLY, CTA_PROTOINFO_TCP,
};
use super::walk::{Findings, Taken, store};

/// Protocol state of a connection (`CTA_PROTOINFO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ProtoInfo {
    /// `CTA_PROTOINFO_TCP`.
    Tcp(Tcp),
    /// `CTA_PROTOINFO_DCCP`, until Linux 6.16.
    Dccp(Dccp),
    /// `CTA_PROTOINFO_SCTP`.
    Sctp(Sctp),
}

/// `CTA_PROTOINFO_DCCP`. An event about the end of a connection has the state alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Dccp {
    /// `enum ct_dccp_states` (`CTA_PROTOINFO_DCCP_STATE`).
    pub state: Option<u8>,
    /// Which direction is the client's: 0 the original one, 1 the other (`CTA_PROTOINFO_DCCP_ROLE`).
    pub role: Option<u8>,
    /// Sequence number of the handshake, 48 bits (`CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ`).
    pub handshake_seq: Option<u64>,
}

/// `CTA_PROTOINFO_SCTP`. An event about the end of a connection has the state alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Sctp {
    /// `enum sctp_conntrack` of `nf_conntrack_sctp.h` (`CTA_PROTOINFO_SCTP_STATE`).
    pub state: Option<u8>,
    /// Verification tag of the original direction (`CTA_PROTOINFO_SCTP_VTAG_ORIGINAL`).
    pub vtag_original: Option<u32>,
    /// Verification tag of the reply direction (`CTA_PROTOINFO_SCTP_VTAG_REPLY`).
    pub vtag_reply: Option<u32>,
}

impl ProtoInfo {
    /// `None` if there is none that is known.
    pub(super) fn read(attributes: &[u8], findings: &mut Findings) -> Option<Self> {
        let mut info = None;
        findings.walk(attributes, |findings, attr| {
            let read = match attr.kind {
                CTA_PROTOINFO_TCP => Self::Tcp(Tcp::read(attr.value, findings)),
                CTA_PROTOINFO_DCCP => Self::Dccp(Dccp::read(attr.value, findings)),
                CTA_PROTOINFO_SCTP => Self::Sctp(Sctp::read(attr.value, findings)),
                _ => return Taken::Unknown,
            };
            info = Some(read);
            Taken::Known
        });
        info
    }
}

impl Dccp {
    fn read(attributes: &[u8], findings: &mut Findings) -> Self {
        let mut dccp = Self::default();
        findings.walk(attributes, |_, attr| match attr.kind {
            CTA_PROTOINFO_DCCP_STATE => store(&mut dccp.state, attr.value, u8::from_be_bytes),
            CTA_PROTOINFO_DCCP_ROLE => store(&mut dccp.role, attr.value, u8::from_be_bytes),
            CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ => {
                store(&mut dccp.handshake_seq, attr.value, u64::from_be_bytes)
            }
            CTA_PROTOINFO_DCCP_PAD => Taken::Known,
            _ => Taken::Unknown,
        });
        dccp
    }
}

impl Sctp {
    fn read(attributes: &[u8], findings: &mut Findings) -> Self {
        let mut sctp = Self::default();
        findings.walk(attributes, |_, attr| match attr.kind {
            CTA_PROTOINFO_SCTP_STATE => store(&mut sctp.state, attr.value, u8::from_be_bytes),
            CTA_PROTOINFO_SCTP_VTAG_ORIGINAL => {
                store(&mut sctp.vtag_original, attr.value, u32::from_be_bytes)
            }
            CTA_PROTOINFO_SCTP_VTAG_REPLY => store(&mut sctp.vtag_reply, attr.value, u32::from_be_bytes),
            _ => Taken::Unknown,
        });
        sctp
    }
}
