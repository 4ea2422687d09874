//! Cases of the kernel's own packets: 21 to 23.

use std::net::SocketAddr;

use crate::case::{Case, Expected, Family, case};
use crate::flow::{Flow, ends, has_flag};
use crate::seen::Seen;
use crate::world::World;

case!(21, a_vxlan_tunnel, vxlan);
case!(21, an_answered_echo_request, echo);
case!(22, a_reset_for_a_closed_port, closed_port);
case!(23, syn_cookies, syn_cookies);

const VXLAN_PORT: u16 = 4789;

/// The outer packet leaves with the socket of the inner one, and is not that socket's.
fn vxlan(world: &World, case: &mut Case) {
    let number = match case.family {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    let ends_of_tunnel = [(&world.a, &world.b, 1), (&world.b, &world.a, 2)];
    for (site, peer, host) in ends_of_tunnel {
        let (local, remote) = (site.address(case.family), peer.address(case.family));
        site.netns.ip(&format!(
            "link add vx{number} type vxlan id {number} local {local} remote {remote} dstport {VXLAN_PORT}"
        ));
        site.netns
            .ip(&format!("address add 10.88.{number}.{host}/24 dev vx{number}"));
        site.netns.ip(&format!("link set vx{number} up"));
    }
    let (mut server, mut client) = (world.b.worker(), world.a.worker());
    let inner: SocketAddr = format!("10.88.{number}.2:0").parse().expect("an address");
    let (theirs, at) = server.bound("udp", inner);
    let from = world.now(&[&world.a, &world.b]);
    let (mine, local) = client.connected("udp", at);
    client.send(mine, 10);
    server.receive(theirs, 10);
    let entries = world.since(&from, &[&world.a, &world.b]);
    let outer = |site: &crate::world::Site, hook: &'static str| {
        let (inode, family) = (site.inode, case.family);
        let address = world.b.address(family);
        entries.iter().filter(move |seen: &&Seen| {
            seen.number("nflog.netns.inode") == Some(inode.into())
                && seen.text("nflog.hook") == Some(hook)
                && ends(seen).is_some_and(|(_, to)| to == SocketAddr::new(address, VXLAN_PORT))
        })
    };
    let (sent, received) = (outer(&world.a, "output"), outer(&world.b, "input"));
    let kernel = Expected::Nobody(&["kernel-tunnel", "kernel-socket", "no-socket"]);
    let (sent, received): (Vec<_>, Vec<_>) = (sent.collect(), received.collect());
    case.judge("output", sent, 1, &kernel);
    case.judge("input", received, 1, &kernel);
    let flow = world.a.flow("udp", local, at);
    case.judge("output", flow.output(&entries), 1, &Expected::Owner(client.truth));
    let flow = world.b.flow("udp", at, local);
    case.judge("input", flow.input(&entries), 1, &Expected::Owner(server.truth));
}

/// The host that is pinged answers without any process.
fn echo(world: &World, case: &mut Case) {
    let mut client = world.a.worker();
    let to = world.b.any_port(case.family);
    let (protocol, request) = match case.family {
        Family::V4 => (1, 8),
        Family::V6 => (58, 128),
    };
    let mine = client.socket(&format!("raw {protocol}"), to);
    let from = world.now(&[&world.b]);
    client.send_to_as(mine, request, 99, to);
    client.receive(mine, 200);
    let entries = world.since(&from, &[&world.b]);
    let length = 99 + if to.is_ipv4() { 20 } else { 40 };
    let echoes = |hook: &'static str| {
        entries.iter().filter(move |seen: &&Seen| {
            seen.number("nflog.netns.inode") == Some(world.b.inode.into())
                && seen.text("nflog.hook") == Some(hook)
                && seen.number("nflog.packet.length") == Some(length)
                && seen.text("nflog.icmp.type").is_some()
        })
    };
    let kernel = Expected::Nobody(&["kernel-icmp"]);
    case.judge("input", echoes("input"), 1, &kernel);
    case.judge("output", echoes("output"), 1, &kernel);
}

fn closed_port(world: &World, case: &mut Case) {
    let (mut holder, mut client) = (world.b.worker(), world.a.worker());
    // A port that is certainly closed: bound, but nobody listens.
    let (_, at) = holder.bound("tcp", world.b.any_port(case.family));
    let from = world.now(&[&world.a, &world.b]);
    let slot = client.socket("tcp", at);
    let local = client.bind(slot, world.a.any_port(case.family));
    let refused = client.attempt(&format!("connect {slot} {at}"));
    assert!(refused.is_err(), "the port is closed: {refused:?}");
    let entries = world.since(&from, &[&world.a, &world.b]);
    let flow = world.a.flow("tcp", local, at);
    case.judge("output", flow.output(&entries), 1, &Expected::Owner(client.truth));
    case.judge("input", flow.input(&entries), 1, &Expected::Owner(client.truth));
    let flow = world.b.flow("tcp", at, local);
    case.judge(
        "input",
        flow.input(&entries),
        1,
        &Expected::Nobody(&["no-socket"]),
    );
    case.judge(
        "output",
        flow.output(&entries),
        1,
        &Expected::Nobody(&["kernel-tcp"]),
    );
}

/// `d` answers every SYN with a cookie and keeps nothing of it.
fn syn_cookies(world: &World, case: &mut Case) {
    world
        .d
        .netns
        .run(|| std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2"))
        .expect("SYN cookies can be switched on");
    let (mut server, mut client) = (world.d.worker(), world.c.worker());
    let (listener, at) = server.listener("tcp", world.d.any_port(case.family));
    let from = world.now(&[&world.d]);
    let (mine, local) = client.connected("tcp", at);
    let theirs = server.accept(listener);
    client.send(mine, 100);
    server.receive(theirs, 100);
    let entries = world.since(&from, &[&world.d]);
    let flow: Flow = world.d.flow("tcp", at, local);
    let truth = Expected::Owner(server.truth);
    case.judge("input", flow.input(&entries), 3, &truth);
    let syn_acks = flow.output(&entries).filter(|seen| has_flag(seen, "SYN"));
    case.judge("output", syn_acks, 1, &truth);
}
