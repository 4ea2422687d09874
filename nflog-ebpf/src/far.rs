//! The network namespaces that a forwarded packet comes from and goes to, as its two devices prove them.
//!
//! - Behind one end of a veth or netkit pair is the namespace of the other end, whatever addresses it uses.
//! - Behind a bridge is that of the port whose other end has the packet's source hardware address, or its destination
//!   address.
//!   If there are two, nobody knows which.
//!
//! That a packet comes from a namespace does not make it one of its sockets': it may be a router itself, and the addresses may
//! be translated there. [`Far::is_source`] and [`Far::untranslated`] tell.
//!
//! All is read while the packet is being forwarded, under RCU: devices and list entries that it meets stay in memory.

use core::hint::black_box;

use crate::kernel::Pointer;
use crate::maps::offset;

const VETH: u64 = u64::from_le_bytes(*b"veth\0\0\0\0");
const NETKIT: u64 = u64::from_le_bytes(*b"netkit\0\0");
const BRIDGE: u64 = u64::from_le_bytes(*b"bridge\0\0");
/// The bytes of [`VETH`], and those of the others, with their NUL.
const FIVE: u64 = (1 << 40) - 1;
const SEVEN: u64 = (1 << 56) - 1;

/// `IFF_UP`, `IFF_LOOPBACK`.
const UP: u32 = 1;
const LOOPBACK: u32 = 8;

/// A bridge with more ports is not looked through.
const PORTS_MAX: usize = 128;
/// Addresses that are looked at, of each device.
const ADDRESSES_MAX: usize = 4;
/// A namespace with more devices is taken for a router.
const DEVICES_MAX: usize = 12;

/// The device at the other end of a pair, in another namespace.
#[derive(Clone, Copy)]
pub(crate) struct Far {
    device: Pointer,
    net: Pointer,
    /// Inode of its namespace.
    pub(crate) netns: u32,
}

/// What is behind a device.
pub(crate) enum Behind {
    Namespace(Far),
    /// No namespace of this host, or not as far as can be seen.
    Elsewhere,
    /// One of several namespaces.
    Several,
}

/// What a bridge's port is known by.
#[derive(Clone, Copy)]
pub(crate) enum Sought<'a> {
    /// The hardware address of its other end, 6 bytes.
    Hardware(u64),
    /// The first address of its other end.
    Address(&'a [u8; 16]),
}

/// What is behind `device`, seen from the namespace `here`.
#[inline(always)]
pub(crate) fn behind(device: Pointer, here: u32, sought: Sought<'_>, walk: &mut Walk) -> Behind {
    let operations = device.peek::<u64>(offset!(forwarding.net_device_rtnl_link_ops));
    let kind = kind(operations);
    let peer = if is_pair(kind) {
        other_end(device, operations)
    } else if kind & SEVEN == BRIDGE {
        match through_bridge(device, sought, walk) {
            Ok(peer) => peer,
            Err(TooMany) => return Behind::Several,
        }
    } else {
        0
    };
    let Some(device) = Pointer::new(peer) else {
        return Behind::Elsewhere;
    };
    let Some(net) = Pointer::new(device.peek(offset!(forwarding.net_device_nd_net))) else {
        return Behind::Elsewhere;
    };
    let netns = net.peek::<u32>(offset!(net_ns_inum));
    if netns == 0 || netns == here {
        return Behind::Elsewhere;
    }
    Behind::Namespace(Far { device, net, netns })
}

impl Far {
    /// Whether packets from it are of its own sockets: it translates no addresses, or has nobody to forward for, as this
    /// device and loopback are all that it has.
    #[inline(always)]
    pub(crate) fn is_source(self, v4: bool) -> bool {
        self.untranslated(v4) || self.is_leaf()
    }

    /// Whether nothing there can change addresses before routing: without a hook in PREROUTING there is no NAT, which needs
    /// connection tracking, and that has one.
    #[inline(always)]
    pub(crate) fn untranslated(self, v4: bool) -> bool {
        let hooks = if v4 {
            offset!(forwarding.net_hooks_ipv4)
        } else {
            offset!(forwarding.net_hooks_ipv6)
        };
        self.net.peek::<u64>(hooks) == 0
    }

    /// Whether this device has the address.
    #[inline(always)]
    pub(crate) fn has_address(self, address: &[u8; 16], v4: bool) -> bool {
        has_address(self.device, address, v4)
    }

    #[inline(always)]
    fn is_leaf(self) -> bool {
        let head = self.net.add(offset!(forwarding.net_dev_base_head) as u64);
        let mut at = head.peek::<u64>(0);
        for _ in 0..DEVICES_MAX {
            if at == head.address() {
                return true;
            }
            let Some(entry) = Pointer::new(at) else {
                return false;
            };
            let device = entry.back(offset!(forwarding.net_device_dev_list));
            let flags = device.peek::<u32>(offset!(forwarding.net_device_flags));
            if device != self.device && flags & LOOPBACK == 0 && flags & UP != 0 {
                return false;
            }
            at = entry.peek(0);
        }
        false
    }
}

/// The name of a device's kind, as far as 8 bytes go; 0 for a device without.
#[inline(always)]
fn kind(operations: u64) -> u64 {
    let name = match Pointer::new(operations) {
        Some(operations) => operations.peek::<u64>(offset!(forwarding.rtnl_link_ops_kind)),
        None => 0,
    };
    match Pointer::new(name) {
        Some(name) => name.peek(0),
        None => 0,
    }
}

#[inline(always)]
const fn is_pair(kind: u64) -> bool {
    kind & FIVE == VETH || kind & SEVEN == NETKIT
}

/// The other end of a pair, or 0. The private data of both kinds begins with it; that it leads back proves it.
#[inline(always)]
fn other_end(device: Pointer, operations: u64) -> u64 {
    let private = offset!(forwarding.net_device_priv);
    let Some(peer) = Pointer::new(device.peek(private)) else {
        return 0;
    };
    let back = peer.peek::<u64>(private);
    let same_kind = peer.peek::<u64>(offset!(forwarding.net_device_rtnl_link_ops)) == operations;
    if back == device.address() && same_kind {
        peer.address()
    } else {
        0
    }
}

/// What a walk along a bridge's ports has met. It is in a map and not in registers, so that for the verifier each round begins
/// like the one before.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Walk {
    /// The last fitting device behind a port.
    found: u64,
    hits: u64,
}

impl Walk {
    /// Takes note of `device` if `difference` is 0. Without a branch: the verifier would follow both ways of it in every round.
    #[inline(always)]
    fn note(&mut self, device: Pointer, difference: u64) {
        // All ones unless the difference is 0: then its highest bit or that of its negative is set. LLVM must not see that this
        // compares something, nor that it selects.
        let sign = black_box(difference | difference.wrapping_neg()).cast_signed() >> 63;
        let keep = black_box(sign.cast_unsigned());
        // SAFETY: valid references; volatile, so that LLVM does not keep them in registers.
        unsafe {
            let found = (&raw const self.found).read_volatile();
            (&raw mut self.found).write_volatile(found & keep | device.address() & !keep);
            let hits = (&raw const self.hits).read_volatile();
            (&raw mut self.hits).write_volatile(hits.wrapping_add(1).wrapping_add(keep));
        }
    }
}

/// More than one port fits, or there are too many to look at.
struct TooMany;

/// The other end of the one port that is sought, or 0.
#[inline(always)]
fn through_bridge(bridge: Pointer, sought: Sought<'_>, walk: &mut Walk) -> Result<u64, TooMany> {
    walk.found = 0;
    walk.hits = 0;
    let ended = match sought {
        Sought::Hardware(wanted) => each_port(bridge, walk, |device| {
            hardware_address(device.leads_to(offset!(forwarding.net_device_dev_addr))) ^ wanted
        }),
        Sought::Address(address) if is_v4(address) => {
            let &[.., a, b, c, d] = address;
            let wanted = u32::from_ne_bytes([a, b, c, d]);
            each_port(bridge, walk, |device| u64::from(first_v4(device) ^ wanted))
        }
        Sought::Address(address) => {
            let wanted = u128::from_ne_bytes(*address);
            let (wanted_low, wanted_high) = (wanted as u64, (wanted >> 64) as u64);
            each_port(bridge, walk, |device| {
                let [low, high] = first_v6(device);
                low ^ wanted_low | high ^ wanted_high
            })
        }
    };
    // SAFETY: as in `note`.
    let hits = unsafe { (&raw const walk.hits).read_volatile() };
    if !ended || hits > 1 {
        return Err(TooMany);
    }
    let Some(peer) = Pointer::new(walk.found) else {
        return Ok(0);
    };
    // Ports of other kinds have something else there, and it was only guessed at.
    let port = peer.leads_to(offset!(forwarding.net_device_priv));
    let operations = port.peek::<u64>(offset!(forwarding.net_device_rtnl_link_ops));
    if is_pair(kind(operations)) && other_end(port, operations) == peer.address() {
        Ok(peer.address())
    } else {
        Err(TooMany)
    }
}

/// Whether all ports were walked through. What is at the place of a pair's other end is taken for a device. `difference` is 0 for
/// the device that is sought.
#[inline(always)]
fn each_port(bridge: Pointer, walk: &mut Walk, difference: impl Fn(Pointer) -> u64) -> bool {
    let head = bridge.add(offset!(forwarding.net_device_lower) as u64);
    let mut at = head.leads_to(0);
    for _ in 0..PORTS_MAX {
        if at == head {
            return true;
        }
        let adjacent = at.back(offset!(forwarding.netdev_adjacent_list));
        let port = adjacent.leads_to(offset!(forwarding.netdev_adjacent_dev));
        let device = port.leads_to(offset!(forwarding.net_device_priv));
        walk.note(device, difference(device));
        at = at.leads_to(0);
    }
    false
}

/// The first IPv4 address of a device.
#[inline(always)]
fn first_v4(device: Pointer) -> u32 {
    device
        .leads_to(offset!(forwarding.net_device_ip_ptr))
        .leads_to(offset!(forwarding.in_device_ifa_list))
        .peek(offset!(forwarding.in_ifaddr_ifa_local))
}

/// The first IPv6 address of a device: the list is ordered by scope, the widest first.
#[inline(always)]
fn first_v6(device: Pointer) -> [u64; 2] {
    device
        .leads_to(offset!(forwarding.net_device_ip6_ptr))
        .leads_to(offset!(forwarding.inet6_dev_addr_list))
        .back(offset!(forwarding.inet6_ifaddr_if_list))
        .peek_pair(offset!(forwarding.inet6_ifaddr_addr))
}

/// The 6 bytes at `address`.
#[inline(always)]
pub(crate) fn hardware_address(address: Pointer) -> u64 {
    address.peek::<u32>(0) as u64 | (address.peek::<u16>(4) as u64) << 32
}

/// Whether an address is an IPv4 one, as `::ffff:a.b.c.d`.
#[inline(always)]
pub(crate) const fn is_v4(address: &[u8; 16]) -> bool {
    matches!(address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..])
}

#[inline(always)]
fn has_address(device: Pointer, address: &[u8; 16], v4: bool) -> bool {
    if v4 {
        has_v4(device, address)
    } else {
        has_v6(device, address)
    }
}

#[inline(always)]
fn has_v4(device: Pointer, address: &[u8; 16]) -> bool {
    let &[.., a, b, c, d] = address;
    let wanted = u32::from_ne_bytes([a, b, c, d]);
    let Some(state) = Pointer::new(device.peek(offset!(forwarding.net_device_ip_ptr))) else {
        return false;
    };
    let mut at = state.peek::<u64>(offset!(forwarding.in_device_ifa_list));
    for _ in 0..ADDRESSES_MAX {
        let Some(entry) = Pointer::new(at) else {
            return false;
        };
        if entry.peek::<u32>(offset!(forwarding.in_ifaddr_ifa_local)) == wanted {
            return true;
        }
        at = entry.peek(offset!(forwarding.in_ifaddr_ifa_next));
    }
    false
}

#[inline(always)]
fn has_v6(device: Pointer, address: &[u8; 16]) -> bool {
    let wanted = u128::from_ne_bytes(*address);
    let (wanted_low, wanted_high) = (wanted as u64, (wanted >> 64) as u64);
    let Some(state) = Pointer::new(device.peek(offset!(forwarding.net_device_ip6_ptr))) else {
        return false;
    };
    let head = state.add(offset!(forwarding.inet6_dev_addr_list) as u64);
    let mut at = head.peek::<u64>(0);
    for _ in 0..ADDRESSES_MAX {
        if at == head.address() {
            return false;
        }
        let Some(link) = Pointer::new(at) else {
            return false;
        };
        let entry = link.back(offset!(forwarding.inet6_ifaddr_if_list));
        let [low, high] = entry.peek_pair(offset!(forwarding.inet6_ifaddr_addr));
        if low == wanted_low && high == wanted_high {
            return true;
        }
        at = link.peek(0);
    }
    false
}
