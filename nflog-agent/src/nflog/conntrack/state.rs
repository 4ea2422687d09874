//! How a logged packet relates to its connection. Pure.

/// `enum ip_conntrack_info` of `nf_conntrack_common.h` (`NFULA_CT_INFO`): of the packet, not of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum CtState {
    /// Original packet of a connection that was answered (`IP_CT_ESTABLISHED`).
    Established,
    /// An ICMP error about reply packets, or the start of an expected connection (`IP_CT_RELATED`).
    Related,
    /// Original packet of a connection that was not answered yet (`IP_CT_NEW`).
    New,
    /// Reply packet (`IP_CT_ESTABLISHED_REPLY`).
    EstablishedReply,
    /// An ICMP error about original packets (`IP_CT_RELATED_REPLY`).
    RelatedReply,
    /// The kernel keeps the number for old programs (`IP_CT_NEW_REPLY`).
    NewReply,
    /// Another number.
    Other(u32),
}

impl CtState {
    /// Number of the uapi header.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Established => 0,
            Self::Related => 1,
            Self::New => 2,
            Self::EstablishedReply => 3,
            Self::RelatedReply => 4,
            Self::NewReply => 5,
            Self::Other(number) => number,
        }
    }

    /// Name of nft's `ct state`: `established`, `related`, `new`, or `unknown`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established | Self::EstablishedReply => "established",
            Self::Related | Self::RelatedReply => "related",
            Self::New | Self::NewReply => "new",
            Self::Other(_) => "unknown",
        }
    }

    /// Whether the packet goes in the reply direction. False for unknown numbers.
    #[must_use]
    pub const fn is_reply(self) -> bool {
        matches!(self, Self::EstablishedReply | Self::RelatedReply | Self::NewReply)
    }
}

impl From<u32> for CtState {
    fn from(number: u32) -> Self {
        match number {
            0 => Self::Established,
            1 => Self::Related,
            2 => Self::New,
            3 => Self::EstablishedReply,
            4 => Self::RelatedReply,
            5 => Self::NewReply,
            number => Self::Other(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_way_there_and_back() {
        for number in (0..9).chain([u32::MAX]) {
            let state = CtState::from(number);
            assert_eq!(state.number(), number);
            // The reply direction is the original one, plus IP_CT_IS_REPLY.
            assert_eq!(state.is_reply(), (3..6).contains(&number), "{state:?}");
            if number < 3 {
                assert_eq!(state.name(), CtState::from(number + 3).name());
            }
        }
        assert_eq!(CtState::from(6).name(), "unknown");
    }
}
