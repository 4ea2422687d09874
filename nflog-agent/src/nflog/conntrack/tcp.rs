//! What conntrack knows of a TCP connection. Pure.

use std::fmt;

use super::uapi::{
    CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, CTA_PROTOINFO_TCP_FLAGS_REPLY, CTA_PROTOINFO_TCP_STATE,
    CTA_PROTOINFO_TCP_WSCALE_ORIGINAL, CTA_PROTOINFO_TCP_WSCALE_REPLY,
};
use super::walk::{Findings, Taken, store};

/// State of a TCP connection (`enum tcp_conntrack` of `nf_conntrack_tcp.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "SCREAMING_SNAKE_CASE"))]
pub enum TcpState {
    /// No packet was looked at yet (`TCP_CONNTRACK_NONE`).
    None,
    /// A SYN was seen (`TCP_CONNTRACK_SYN_SENT`).
    SynSent,
    /// A SYN+ACK was seen (`TCP_CONNTRACK_SYN_RECV`).
    SynRecv,
    /// The connection is open (`TCP_CONNTRACK_ESTABLISHED`).
    Established,
    /// A FIN was seen (`TCP_CONNTRACK_FIN_WAIT`).
    FinWait,
    /// An ACK after the FIN was seen (`TCP_CONNTRACK_CLOSE_WAIT`).
    CloseWait,
    /// The other side's FIN was seen (`TCP_CONNTRACK_LAST_ACK`).
    LastAck,
    /// The last ACK was seen (`TCP_CONNTRACK_TIME_WAIT`).
    TimeWait,
    /// A RST was seen (`TCP_CONNTRACK_CLOSE`).
    Close,
    /// A SYN of each side was seen (`TCP_CONNTRACK_SYN_SENT2`).
    SynSent2,
    /// Another number.
    Other(u8),
}

impl TcpState {
    /// Number of the uapi header.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::SynSent => 1,
            Self::SynRecv => 2,
            Self::Established => 3,
            Self::FinWait => 4,
            Self::CloseWait => 5,
            Self::LastAck => 6,
            Self::TimeWait => 7,
            Self::Close => 8,
            Self::SynSent2 => 9,
            Self::Other(number) => number,
        }
    }

    /// Name as `conntrack -L` shows it, or `UNKNOWN`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::SynSent2 => "SYN_SENT2",
            Self::Other(_) => "UNKNOWN",
        }
    }
}

impl From<u8> for TcpState {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::None,
            1 => Self::SynSent,
            2 => Self::SynRecv,
            3 => Self::Established,
            4 => Self::FinWait,
            5 => Self::CloseWait,
            6 => Self::LastAck,
            7 => Self::TimeWait,
            8 => Self::Close,
            9 => Self::SynSent2,
            number => Self::Other(number),
        }
    }
}

/// What conntrack noted of one side of a TCP connection: a set of bits (`IP_CT_TCP_FLAG_*`).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct TcpFlags(u8);

impl TcpFlags {
    /// It offers window scaling (`IP_CT_TCP_FLAG_WINDOW_SCALE`).
    pub const WINDOW_SCALE: Self = Self(0x01);
    /// It permits selective acknowledgement (`IP_CT_TCP_FLAG_SACK_PERM`).
    pub const SACK_PERM: Self = Self(0x02);
    /// It sent the first FIN (`IP_CT_TCP_FLAG_CLOSE_INIT`).
    pub const CLOSE_INIT: Self = Self(0x04);
    /// Its windows are not checked strictly (`IP_CT_TCP_FLAG_BE_LIBERAL`).
    pub const BE_LIBERAL: Self = Self(0x08);
    /// It has unacknowledged data (`IP_CT_TCP_FLAG_DATA_UNACKNOWLEDGED`).
    pub const DATA_UNACKNOWLEDGED: Self = Self(0x10);
    /// Its highest acknowledgement is known (`IP_CT_TCP_FLAG_MAXACK_SET`).
    pub const MAXACK_SET: Self = Self(0x20);
    /// It may answer with a challenge ACK of RFC 5961 (`IP_CT_EXP_CHALLENGE_ACK`).
    pub const EXP_CHALLENGE_ACK: Self = Self(0x40);
    /// Both sides sent a SYN (`IP_CT_TCP_SIMULTANEOUS_OPEN`).
    pub const SIMULTANEOUS_OPEN: Self = Self(0x80);

    /// From the bits of the uapi header.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The bits of the uapi header.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TcpFlags({:#x})", self.0)
    }
}

/// `CTA_PROTOINFO_TCP`. An event about the end of a connection has the state alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Tcp {
    /// State (`CTA_PROTOINFO_TCP_STATE`).
    pub state: Option<TcpState>,
    /// Window scale, 0 to 14, of the side that opened the connection (`CTA_PROTOINFO_TCP_WSCALE_ORIGINAL`).
    pub wscale_original: Option<u8>,
    /// Window scale, 0 to 14, of the other side (`CTA_PROTOINFO_TCP_WSCALE_REPLY`).
    pub wscale_reply: Option<u8>,
    /// Of the side that opened the connection (`CTA_PROTOINFO_TCP_FLAGS_ORIGINAL`).
    pub flags_original: Option<TcpFlags>,
    /// Of the other side (`CTA_PROTOINFO_TCP_FLAGS_REPLY`).
    pub flags_reply: Option<TcpFlags>,
}

impl Tcp {
    pub(super) fn read(attributes: &[u8], findings: &mut Findings) -> Self {
        let mut tcp = Self::default();
        let state = |[number]: [u8; 1]| TcpState::from(number);
        // struct nf_ct_tcp_flags: flags, and a mask that matters in requests only.
        let flags = |[flags, _mask]: [u8; 2]| TcpFlags(flags);
        findings.walk(attributes, |_, attr| match attr.kind {
            CTA_PROTOINFO_TCP_STATE => store(&mut tcp.state, attr.value, state),
            CTA_PROTOINFO_TCP_WSCALE_ORIGINAL => {
                store(&mut tcp.wscale_original, attr.value, u8::from_be_bytes)
            }
            CTA_PROTOINFO_TCP_WSCALE_REPLY => store(&mut tcp.wscale_reply, attr.value, u8::from_be_bytes),
            CTA_PROTOINFO_TCP_FLAGS_ORIGINAL => store(&mut tcp.flags_original, attr.value, flags),
            CTA_PROTOINFO_TCP_FLAGS_REPLY => store(&mut tcp.flags_reply, attr.value, flags),
            _ => Taken::Unknown,
        });
        tcp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_numbers_survive_the_way_there_and_back_and_have_names() {
        for number in 0..=u8::MAX {
            let state = TcpState::from(number);
            assert_eq!(state.number(), number);
            assert_eq!(state.name() == "UNKNOWN", number > 9, "{state:?}");
        }
        assert_eq!(TcpState::from(9).name(), "SYN_SENT2");
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_state_is_serialised_by_its_name() {
        for number in 0..10 {
            let state = TcpState::from(number);
            assert_eq!(
                serde_json::to_string(&state).unwrap(),
                format!("{:?}", state.name())
            );
        }
    }
}
