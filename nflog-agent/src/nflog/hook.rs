//! Protocol families and hooks of netfilter, by number and by name. Pure.

/// `nfgen_family` of an entry. Rules of `inet` tables report [`Family::Inet`] or [`Family::Inet6`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum Family {
    /// IPv4 (`NFPROTO_IPV4`).
    Inet,
    /// ARP (`NFPROTO_ARP`).
    Arp,
    /// Ingress or egress of a device (`NFPROTO_NETDEV`).
    Netdev,
    /// Bridge (`NFPROTO_BRIDGE`).
    Bridge,
    /// IPv6 (`NFPROTO_IPV6`).
    Inet6,
    /// Another number.
    Other(u8),
}

impl Family {
    /// `NFPROTO_*` number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Inet => 2,
            Self::Arp => 3,
            Self::Netdev => 5,
            Self::Bridge => 7,
            Self::Inet6 => 10,
            Self::Other(number) => number,
        }
    }

    /// Name: `inet`, `arp`, `netdev`, `bridge`, `inet6` or `unknown`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Arp => "arp",
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
            Self::Inet6 => "inet6",
            Self::Other(_) => "unknown",
        }
    }
}

impl From<u8> for Family {
    fn from(number: u8) -> Self {
        match number {
            2 => Self::Inet,
            3 => Self::Arp,
            5 => Self::Netdev,
            7 => Self::Bridge,
            10 => Self::Inet6,
            number => Self::Other(number),
        }
    }
}

/// Where in the stack a packet was logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To a local process.
    Input,
    /// Routed through.
    Forward,
    /// From a local process.
    Output,
    /// After routing.
    Postrouting,
    /// As received by a device.
    Ingress,
    /// As sent by a device.
    Egress,
    /// Another number for this family.
    Other(u8),
}

impl Hook {
    /// What `number` means in `family`: the numbers of arp, netdev and the IP families differ.
    #[must_use]
    pub const fn new(family: Family, number: u8) -> Self {
        match (family, number) {
            (Family::Inet | Family::Inet6 | Family::Bridge, 0) => Self::Prerouting,
            (Family::Inet | Family::Inet6 | Family::Bridge, 1) | (Family::Arp, 0) => Self::Input,
            (Family::Inet | Family::Inet6 | Family::Bridge | Family::Arp, 2) => Self::Forward,
            (Family::Inet | Family::Inet6 | Family::Bridge, 3) | (Family::Arp, 1) => Self::Output,
            (Family::Inet | Family::Inet6 | Family::Bridge, 4) => Self::Postrouting,
            // NF_INET_INGRESS, since Linux 5.10; 5 is BROUTING for bridges.
            (Family::Inet | Family::Inet6, 5) | (Family::Netdev, 0) => Self::Ingress,
            (Family::Netdev, 1) => Self::Egress,
            (_, number) => Self::Other(number),
        }
    }

    /// The hook's number in `family`; `None` if the family has no such hook, or names the number of [`Hook::Other`].
    #[must_use]
    pub fn number(self, family: Family) -> Option<u8> {
        let mut candidates = match self {
            Self::Other(number) => number..=number,
            _ => 0..=5,
        };
        candidates.find(|&number| Self::new(family, number) == self)
    }

    /// Name in nft's spelling, or `unknown`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Other(_) => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn family_numbers_survive_the_way_there_and_back() {
        for number in 0..=u8::MAX {
            assert_eq!(Family::from(number).number(), number);
        }
    }

    #[test]
    fn hook_numbers_survive_the_way_there_and_back() {
        for family in (0..=u8::MAX).map(Family::from) {
            for number in 0..=u8::MAX {
                assert_eq!(Hook::new(family, number).number(family), Some(number));
            }
        }
        assert_eq!(Hook::Egress.number(Family::Inet), None);
        assert_eq!(Hook::Other(3).number(Family::Inet), None);
    }

    #[test]
    fn hook_numbers_depend_on_the_family() {
        let names = |family| {
            (0..6)
                .map(|number| Hook::new(family, number).name())
                .collect::<Vec<_>>()
        };
        let ip = [
            "prerouting",
            "input",
            "forward",
            "output",
            "postrouting",
            "ingress",
        ];
        assert_eq!(names(Family::Inet), ip);
        assert_eq!(names(Family::Inet6), ip);
        assert_eq!(names(Family::Bridge)[..5], ip[..5]);
        assert_eq!(Hook::new(Family::Bridge, 5), Hook::Other(5));
        assert_eq!(names(Family::Arp)[..4], ["input", "output", "forward", "unknown"]);
        assert_eq!(names(Family::Netdev)[..3], ["ingress", "egress", "unknown"]);
    }
}
