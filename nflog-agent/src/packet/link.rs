//! Where the network header is in a payload: behind VLAN tags, or behind an Ethernet header.

use etherparse::ether_type::{IPV4, IPV6, PROVIDER_BRIDGING, VLAN_DOUBLE_TAGGED_FRAME, VLAN_TAGGED_FRAME};
use etherparse::{EtherType, SingleVlanSlice};

use super::be16;

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_NETDEV: u8 = 5;
const NFPROTO_IPV6: u8 = 10;

/// Bytes of an Ethernet header; the ethertype is its last two.
const ETHERNET_HEADER: usize = 14;
/// Tags that are looked behind: more are not IP for our purpose.
const TAGS_MAX: usize = 4;

/// The network header and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network<'a> {
    /// Said to be IPv4.
    Ipv4(&'a [u8]),
    /// Said to be IPv6.
    Ipv6(&'a [u8]),
    /// Something else.
    Other(&'a [u8]),
    /// The capture ends before the network header.
    Cut,
}

impl Network<'_> {
    /// Whether the IP version in the header is the one that was said, as far as it was captured.
    fn plausible(self) -> bool {
        let version = |bytes: &[u8], version| bytes.first().is_none_or(|byte| byte >> 4 == version);
        match self {
            Self::Ipv4(bytes) => version(bytes, 4),
            Self::Ipv6(bytes) => version(bytes, 6),
            Self::Cut => true,
            Self::Other(_) => false,
        }
    }
}

/// Finds the network header.
pub(super) fn network(hw_protocol: Option<u16>, family: u8, payload: &[u8]) -> Network<'_> {
    match (family, hw_protocol) {
        // The family is that of the hook, which is certain.
        (NFPROTO_IPV4, _) => Network::Ipv4(payload),
        (NFPROTO_IPV6, _) => Network::Ipv6(payload),
        (NFPROTO_NETDEV, Some(ethertype)) => netdev(EtherType(ethertype), payload),
        (_, Some(ethertype)) => untag(EtherType(ethertype), payload),
        (_, None) => Network::Other(payload),
    }
}

/// The ingress hook gives packets without, the egress hook with their Ethernet header.
fn netdev(ethertype: EtherType, payload: &[u8]) -> Network<'_> {
    let bare = untag(ethertype, payload);
    if bare.plausible() {
        return bare;
    }
    let Some((header, framed)) = payload.split_at_checked(ETHERNET_HEADER) else {
        return Network::Cut;
    };
    if be16(header, ETHERNET_HEADER - 2) != Some(ethertype.0) {
        return bare;
    }
    let framed = untag(ethertype, framed);
    if framed.plausible() { framed } else { bare }
}

/// Looks behind VLAN tags.
fn untag(mut ethertype: EtherType, mut bytes: &[u8]) -> Network<'_> {
    for _ in 0..=TAGS_MAX {
        match ethertype {
            IPV4 => return Network::Ipv4(bytes),
            IPV6 => return Network::Ipv6(bytes),
            VLAN_TAGGED_FRAME | PROVIDER_BRIDGING | VLAN_DOUBLE_TAGGED_FRAME => {
                let Ok(tag) = SingleVlanSlice::from_slice(bytes) else {
                    return Network::Cut;
                };
                ethertype = tag.ether_type();
                bytes = tag.payload_slice();
            }
            _ => break,
        }
    }
    Network::Other(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: [u8; 3] = [0x45, 1, 2];
    const V6: [u8; 3] = [0x60, 1, 2];
    const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

    #[test]
    fn the_family_decides_for_ip_hooks() {
        assert_eq!(network(None, 2, &V4), Network::Ipv4(&V4));
        assert_eq!(network(Some(0x0800), 10, &V6), Network::Ipv6(&V6));
    }

    #[test]
    fn the_ethertype_decides_for_the_others() {
        for family in [5, 7] {
            assert_eq!(network(Some(0x0800), family, &V4), Network::Ipv4(&V4));
            assert_eq!(network(Some(0x86dd), family, &V6), Network::Ipv6(&V6));
        }
        assert_eq!(network(Some(0x0806), 3, &[0, 1]), Network::Other(&[0, 1]));
        assert_eq!(network(None, 7, &V4), Network::Other(&V4));
    }

    #[test]
    fn vlan_tags_are_skipped() {
        let once = [&[0, 7, 0x08, 0x00][..], &V4].concat();
        assert_eq!(network(Some(0x8100), 7, &once), Network::Ipv4(&V4));
        let twice = [&[0, 7, 0x81, 0x00, 0, 8, 0x86, 0xdd][..], &V6].concat();
        assert_eq!(network(Some(0x88a8), 7, &twice), Network::Ipv6(&V6));
        assert_eq!(network(Some(0x88a8), 7, &twice[..6]), Network::Cut);
        let endless = [0, 7, 0x81, 0x00].repeat(10);
        assert!(matches!(network(Some(0x8100), 7, &endless), Network::Other(_)));
    }

    #[test]
    fn an_ethernet_header_of_the_egress_hook_is_skipped() {
        let frame = [&MACS[..], &[0x08, 0x00], &V4].concat();
        assert_eq!(network(Some(0x0800), 5, &frame), Network::Ipv4(&V4));
        let tagged = [&MACS[..], &[0x81, 0x00, 0, 7, 0x86, 0xdd], &V6].concat();
        assert_eq!(network(Some(0x8100), 5, &tagged), Network::Ipv6(&V6));
        // Cut before it is clear.
        assert_eq!(network(Some(0x0800), 5, &frame[..10]), Network::Cut);
        // Only in the netdev family.
        assert_eq!(network(Some(0x0800), 7, &frame), Network::Ipv4(&frame));
    }

    #[test]
    fn a_contradiction_is_left_to_the_ip_dissector() {
        let frame = [&MACS[..], &[0x08, 0x00], &V6].concat();
        assert_eq!(network(Some(0x0800), 5, &frame), Network::Ipv4(&frame));
    }
}
