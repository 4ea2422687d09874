//! Case 30: the packets of virtual machines, whose processes write them into tap devices of the router.
//!
//! A machine's process is the current one while the kernel takes its frame in, routes it and answers it, and is never the owner: the
//! packet comes from a network, and no socket here has sent it. vhost-net writes the same frames by a thread in the process's place.

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;

use crate::case::{Case, Expected, Family, case};
use crate::flow::ends;
use crate::seen::Seen;
use crate::worker::{Slot, Worker};
use crate::world::{Site, World};

case!(30, a_virtual_machine_behind_a_tap, behind_a_tap);
case!(30, a_virtual_machine_behind_a_tap_on_a_bridge, on_a_bridge);

/// Any port; the machine is no process.
const PORT: u16 = 4030;

/// A virtual machine, as the router sees it.
struct Guest {
    process: Worker,
    tap: Slot,
    hardware: [u8; 6],
    gateway_hardware: [u8; 6],
    address: IpAddr,
    /// The router's address on its side.
    gateway: IpAddr,
}

impl Guest {
    /// Starts one in the network `net`, on a bridge of its own or behind its tap alone.
    fn start(world: &World, family: Family, net: u8, bridged: bool) -> Self {
        let site = &world.r;
        let mut process = site.worker();
        let tap = process.tap(&format!("tap{net}"));
        let (hardware, gateway_hardware) = ([2, net, 0, 0, 0, 2], [2, net, 0, 0, 0, 1]);
        let device = if bridged {
            format!("br{net}")
        } else {
            format!("tap{net}")
        };
        if bridged {
            site.netns.ip(&format!("link add {device} type bridge"));
            site.netns.ip(&format!("link set tap{net} master {device} up"));
        }
        site.netns.ip(&format!(
            "link set {device} address {} up",
            text(gateway_hardware)
        ));
        let (address, gateway, rest) = match family {
            Family::V4 => (format!("10.{net}.0.2"), format!("10.{net}.0.1"), "/24"),
            Family::V6 => (format!("fd{net}::2"), format!("fd{net}::1"), "/64 nodad"),
        };
        site.netns
            .ip(&format!("address add dev {device} {gateway}{rest}"));
        site.netns.ip(&format!(
            "neighbour replace {address} lladdr {} nud permanent dev {device}",
            text(hardware)
        ));
        Self {
            process,
            tap,
            hardware,
            gateway_hardware,
            address: address.parse().expect("an address"),
            gateway: gateway.parse().expect("an address"),
        }
    }

    const fn end(&self) -> SocketAddr {
        SocketAddr::new(self.address, PORT)
    }

    fn send_datagram(&mut self, to: SocketAddr) {
        let frame = self.frame(to.ip()).udp(PORT, to.port());
        let mut bytes = Vec::new();
        frame.write(&mut bytes, b"datagram").expect("memory");
        self.process.write(self.tap, &bytes);
    }

    fn send_syn(&mut self, to: SocketAddr) {
        let frame = self.frame(to.ip()).tcp(PORT, to.port(), 1000, 1024).syn();
        let mut bytes = Vec::new();
        frame.write(&mut bytes, &[]).expect("memory");
        self.process.write(self.tap, &bytes);
    }

    fn frame(&self, to: IpAddr) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        let frame = PacketBuilder::ethernet2(self.hardware, self.gateway_hardware);
        match (self.address, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => frame.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => frame.ipv6(from.octets(), to.octets(), 64),
            _ => panic!("{to} is not of the family of {}", self.address),
        }
    }
}

fn text(hardware: [u8; 6]) -> String {
    hardware.map(|byte| format!("{byte:02x}")).join(":")
}

fn behind_a_tap(world: &World, case: &mut Case) {
    judge(world, case, false);
}

fn on_a_bridge(world: &World, case: &mut Case) {
    judge(world, case, true);
}

fn judge(world: &World, case: &mut Case, bridged: bool) {
    // Networks of their own for tests that run at the same time.
    let net = 90 + 2 * u8::from(bridged) + u8::from(case.family == Family::V6);
    let mut guest = Guest::start(world, case.family, net, bridged);
    let mut host = world.r.worker();
    let (datagrams, at) = host.bound("udp", SocketAddr::new(guest.gateway, 0));
    let (_, listens_at) = host.listener("tcp", SocketAddr::new(guest.gateway, 0));
    let mut server = world.d.worker();
    let (theirs, beyond) = server.bound("udp", world.d.any_port(case.family));
    let sites = [&world.r, &world.d];
    let from = world.now(&sites);
    guest.send_datagram(at);
    host.answer(datagrams, 10);
    guest.send_syn(listens_at);
    guest.send_datagram(beyond);
    server.answer(theirs, 10);
    let entries = world.since(&from, &sites);

    // With a process of the host.
    let (owner, remote) = (Expected::Owner(host.truth), guest.end());
    for flow in [
        world.r.flow("udp", at, remote),
        world.r.flow("tcp", listens_at, remote),
    ] {
        let direction = |hook: &str| format!("{}-{hook}", flow.transport);
        case.judge(&direction("input"), flow.input(&entries), 1, &owner);
        case.judge(&direction("output"), flow.output(&entries), 1, &owner);
    }
    // With a process behind the router: the machine has no owner, so a forwarded packet is its peer's.
    let owner = Expected::Owner(server.truth);
    let flow = world.d.flow("udp", beyond, remote);
    case.judge("beyond-input", flow.input(&entries), 1, &owner);
    case.judge("beyond-output", flow.output(&entries), 1, &owner);
    // The server's host has NAT, and so may hand it to somebody else.
    let owner_or = Expected::OwnerOr(server.truth, &["ambiguous"]);
    let there = forwarded(&world.r, &entries, remote, beyond);
    case.judge("forward-there", there, 1, &owner_or);
    let back = forwarded(&world.r, &entries, beyond, remote);
    case.judge("forward-back", back, 1, &owner);

    // With another machine: nobody's.
    let mut other = Guest::start(world, case.family, net + 4, !bridged);
    let from = world.now(&[&world.r]);
    guest.send_datagram(other.end());
    other.send_datagram(guest.end());
    let entries = world.since(&from, &[&world.r]);
    let nobody = Expected::Nobody(&["forwarded"]);
    let there = forwarded(&world.r, &entries, guest.end(), other.end());
    case.judge("guest-there", there, 1, &nobody);
    let back = forwarded(&world.r, &entries, other.end(), guest.end());
    case.judge("guest-back", back, 1, &nobody);
}

fn forwarded<'a>(
    site: &Site,
    entries: &'a [Seen],
    from: SocketAddr,
    to: SocketAddr,
) -> impl Iterator<Item = &'a Seen> + use<'a> {
    let inode = site.inode;
    entries.iter().filter(move |seen| {
        seen.number("nflog.netns.inode") == Some(inode.into())
            && seen.text("nflog.hook") == Some("forward")
            && ends(seen) == Some((from, to))
    })
}
