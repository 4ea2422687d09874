//! Status bits of a connection. Pure.

use std::fmt;

/// `enum ip_conntrack_status` of `nf_conntrack_common.h` (`CTA_STATUS`): a set of bits. Bits without a name are kept.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct CtStatus(u32);

impl CtStatus {
    /// A helper expected it (`IPS_EXPECTED`).
    pub const EXPECTED: Self = Self(1);
    /// Packets of both directions were seen (`IPS_SEEN_REPLY`).
    pub const SEEN_REPLY: Self = Self(1 << 1);
    /// It is not dropped early when the table is full (`IPS_ASSURED`).
    pub const ASSURED: Self = Self(1 << 2);
    /// Its first packet has passed all rules (`IPS_CONFIRMED`).
    pub const CONFIRMED: Self = Self(1 << 3);
    /// Sources of original packets are translated (`IPS_SRC_NAT`).
    pub const SRC_NAT: Self = Self(1 << 4);
    /// Destinations of original packets are translated (`IPS_DST_NAT`).
    pub const DST_NAT: Self = Self(1 << 5);
    /// TCP sequence numbers are adjusted (`IPS_SEQ_ADJUST`).
    pub const SEQ_ADJUST: Self = Self(1 << 6);
    /// Whether to translate sources is decided (`IPS_SRC_NAT_DONE`).
    pub const SRC_NAT_DONE: Self = Self(1 << 7);
    /// Whether to translate destinations is decided (`IPS_DST_NAT_DONE`).
    pub const DST_NAT_DONE: Self = Self(1 << 8);
    /// It was taken out of the table (`IPS_DYING`).
    pub const DYING: Self = Self(1 << 9);
    /// Packets do not renew its timeout (`IPS_FIXED_TIMEOUT`).
    pub const FIXED_TIMEOUT: Self = Self(1 << 10);
    /// It is a template of rules, not a connection (`IPS_TEMPLATE`).
    pub const TEMPLATE: Self = Self(1 << 11);
    /// Not tracked; not used since Linux 4.12 (`IPS_UNTRACKED`).
    pub const UNTRACKED: Self = Self(1 << 12);
    /// Rules or ctnetlink gave it its helper (`IPS_HELPER`).
    pub const HELPER: Self = Self(1 << 13);
    /// It is in a flow table (`IPS_OFFLOAD`).
    pub const OFFLOAD: Self = Self(1 << 14);
    /// It is in a flow table of hardware (`IPS_HW_OFFLOAD`).
    pub const HW_OFFLOAD: Self = Self(1 << 15);

    const NAMES: [&'static str; 16] = [
        "EXPECTED",
        "SEEN_REPLY",
        "ASSURED",
        "CONFIRMED",
        "SRC_NAT",
        "DST_NAT",
        "SEQ_ADJUST",
        "SRC_NAT_DONE",
        "DST_NAT_DONE",
        "DYING",
        "FIXED_TIMEOUT",
        "TEMPLATE",
        "UNTRACKED",
        "HELPER",
        "OFFLOAD",
        "HW_OFFLOAD",
    ];

    /// From the bits of the uapi header.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits of the uapi header.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether sources of original packets are translated (SNAT, masquerade).
    #[must_use]
    pub const fn is_snat(self) -> bool {
        self.contains(Self::SRC_NAT)
    }

    /// Whether destinations of original packets are translated (DNAT, redirect).
    #[must_use]
    pub const fn is_dnat(self) -> bool {
        self.contains(Self::DST_NAT)
    }

    /// Names of the bits that have one, without `IPS_`, from bit 0 on.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        (0..)
            .zip(Self::NAMES)
            .filter_map(move |(bit, name)| self.contains(Self(1 << bit)).then_some(name))
    }
}

impl fmt::Debug for CtStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CtStatus({:#x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_at_its_bit() {
        let named = [
            (CtStatus::EXPECTED, 0, "EXPECTED"),
            (CtStatus::SEEN_REPLY, 1, "SEEN_REPLY"),
            (CtStatus::ASSURED, 2, "ASSURED"),
            (CtStatus::CONFIRMED, 3, "CONFIRMED"),
            (CtStatus::SRC_NAT, 4, "SRC_NAT"),
            (CtStatus::DST_NAT, 5, "DST_NAT"),
            (CtStatus::SEQ_ADJUST, 6, "SEQ_ADJUST"),
            (CtStatus::SRC_NAT_DONE, 7, "SRC_NAT_DONE"),
            (CtStatus::DST_NAT_DONE, 8, "DST_NAT_DONE"),
            (CtStatus::DYING, 9, "DYING"),
            (CtStatus::FIXED_TIMEOUT, 10, "FIXED_TIMEOUT"),
            (CtStatus::TEMPLATE, 11, "TEMPLATE"),
            (CtStatus::UNTRACKED, 12, "UNTRACKED"),
            (CtStatus::HELPER, 13, "HELPER"),
            (CtStatus::OFFLOAD, 14, "OFFLOAD"),
            (CtStatus::HW_OFFLOAD, 15, "HW_OFFLOAD"),
        ];
        for (status, bit, name) in named {
            assert_eq!(status, CtStatus::from_bits(1 << bit));
            assert_eq!(status.names().collect::<Vec<_>>(), [name]);
        }
        assert_eq!(CtStatus::from_bits(u32::MAX).names().count(), named.len());
    }

    #[test]
    fn translation_is_told_apart_by_its_side() {
        for (bits, snat, dnat) in [
            (0x18e, false, false),
            (0x19e, true, false),
            (0x1ae, false, true),
            (0x1be, true, true),
        ] {
            let status = CtStatus::from_bits(bits);
            assert_eq!((status.is_snat(), status.is_dnat()), (snat, dnat), "{status:?}");
        }
    }
}
