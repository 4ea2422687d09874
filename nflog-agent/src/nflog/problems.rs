//! What can be wrong with an entry or its conntrack entry. Pure.

use std::fmt;

/// What was wrong with an [`Entry`](super::Entry), or with a [`Conntrack`](super::Conntrack) entry: a set of bits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Problems(u16);

impl Problems {
    /// Nothing was wrong.
    pub const NONE: Self = Self(0);
    /// An attribute length contradicts the message; the attributes after it are missing.
    pub const BAD_LENGTH: Self = Self(1);
    /// An attribute is shorter than its type, and was left out.
    pub const SHORT_VALUE: Self = Self(2);
    /// There is no `NFULA_PACKET_HDR`, which the kernel always writes: hook and protocol are unknown.
    pub const NO_PACKET_HDR: Self = Self(4);
    /// The prefix has no NUL at its end.
    pub const PREFIX_NOT_TERMINATED: Self = Self(8);
    /// The hardware address claims to be longer than its field.
    pub const HWADDR_TOO_LONG: Self = Self(16);
    /// The timestamp does not fit 64 bits of nanoseconds, and was left out.
    pub const BAD_TIMESTAMP: Self = Self(32);
    /// A name of a conntrack entry (helper, security context) has no NUL at its end.
    pub const NAME_NOT_TERMINATED: Self = Self(64);
    /// A nested attribute of a conntrack entry lacks a part that the kernel always writes (a tuple: its addresses, of one
    /// family, protocol number, ports or ICMP fields), and was left out.
    pub const CT_INCOMPLETE: Self = Self(128);

    #[cfg(feature = "serde")]
    pub(super) const NAMES: [(Self, &'static str); 8] = [
        (Self::BAD_LENGTH, "BAD_LENGTH"),
        (Self::SHORT_VALUE, "SHORT_VALUE"),
        (Self::NO_PACKET_HDR, "NO_PACKET_HDR"),
        (Self::PREFIX_NOT_TERMINATED, "PREFIX_NOT_TERMINATED"),
        (Self::HWADDR_TOO_LONG, "HWADDR_TOO_LONG"),
        (Self::BAD_TIMESTAMP, "BAD_TIMESTAMP"),
        (Self::NAME_NOT_TERMINATED, "NAME_NOT_TERMINATED"),
        (Self::CT_INCOMPLETE, "CT_INCOMPLETE"),
    ];
    const ALL: Self = Self(255);

    /// From the bits; `None` if other bits than the known ones are set.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Option<Self> {
        if bits & !Self::ALL.0 == 0 {
            Some(Self(bits))
        } else {
            None
        }
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(super) const fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Problems({:#x})", self.0)
    }
}
