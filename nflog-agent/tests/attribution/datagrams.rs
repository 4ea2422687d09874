//! Cases of sockets without connections: 9 to 14, 26 and 31.

use std::net::SocketAddr;

use crate::case::{Case, Expected, Family, case};
use crate::flow::{address_of, same_family};
use crate::seen::Seen;
use crate::world::{Site, World};

case!(9, an_unconnected_udp_client, unconnected);
case!(10, a_udp_server, server);
case!(11, a_connected_udp_client, connected);
case!(12, a_quic_like_server_with_one_socket_for_all_peers, many_peers);
case!(13, a_ping_socket, ping);
case!(14, a_raw_icmp_socket, raw_icmp);
case!(14, a_raw_socket_of_its_own_protocol, raw_protocol);
case!(26, a_process_that_lives_for_one_datagram, short_lived);
case!(31, datagrams_in_fragments, fragments);

fn unconnected(world: &World, case: &mut Case) {
    let from = world.now(&[&world.a]);
    let (mut server, mut client) = (world.b.worker(), world.a.worker());
    let (theirs, at) = server.bound("udp", world.b.any_port(case.family));
    // No bind: the kernel chooses the port at the first send, and the address by the route.
    let mine = client.socket("udp", at);
    client.send_to(mine, 10, at);
    server.receive(theirs, 10);
    let local = SocketAddr::new(world.a.address(case.family), client.local(mine).port());
    server.send_to(theirs, 10, local);
    client.receive(mine, 10);
    let entries = world.since(&from, &[&world.a]);
    let flow = world.a.flow("udp", local, at);
    case.judge("output", flow.output(&entries), 1, &Expected::Owner(client.truth));
    case.judge("input", flow.input(&entries), 1, &Expected::Owner(client.truth));
}

fn server(world: &World, case: &mut Case) {
    let from = world.now(&[&world.b]);
    let (mut server, mut client) = (world.b.worker(), world.a.worker());
    let (theirs, any) = server.bound("udp", SocketAddr::new(case.family.any(), 0));
    let at = SocketAddr::new(world.b.address(case.family), any.port());
    let (mine, local) = client.connected("udp", at);
    client.send(mine, 10);
    server.receive(theirs, 10);
    server.send_to(theirs, 10, local);
    client.receive(mine, 10);
    let entries = world.since(&from, &[&world.b]);
    let flow = world.b.flow("udp", at, local);
    case.judge("input", flow.input(&entries), 1, &Expected::Owner(server.truth));
    case.judge("output", flow.output(&entries), 1, &Expected::Owner(server.truth));
}

fn connected(world: &World, case: &mut Case) {
    let from = world.now(&[&world.a]);
    let (mut server, mut client) = (world.b.worker(), world.a.worker());
    let (theirs, at) = server.bound("udp", world.b.any_port(case.family));
    let (mine, local) = client.connected("udp", at);
    client.send(mine, 10);
    server.receive(theirs, 10);
    server.send_to(theirs, 10, local);
    client.receive(mine, 10);
    let entries = world.since(&from, &[&world.a]);
    let flow = world.a.flow("udp", local, at);
    case.judge("output", flow.output(&entries), 1, &Expected::Owner(client.truth));
    case.judge("input", flow.input(&entries), 1, &Expected::Owner(client.truth));
}

fn many_peers(world: &World, case: &mut Case) {
    let from = world.now(&[&world.b]);
    let (mut server, mut client) = (world.b.worker(), world.a.worker());
    let (theirs, at) = server.bound("udp", world.b.any_port(case.family));
    let peers: Vec<_> = (0..4).map(|_| client.connected("udp", at)).collect();
    for (mine, local) in &peers {
        client.send(*mine, 1200);
        server.receive(theirs, 1500);
        server.send_to(theirs, 1200, *local);
        client.receive(*mine, 1500);
    }
    let entries = world.since(&from, &[&world.b]);
    let flows: Vec<_> = peers
        .iter()
        .map(|(_, local)| world.b.flow("udp", at, *local))
        .collect();
    let truth = Expected::Owner(server.truth);
    case.judge(
        "input",
        flows.iter().flat_map(|flow| flow.input(&entries)),
        4,
        &truth,
    );
    case.judge(
        "output",
        flows.iter().flat_map(|flow| flow.output(&entries)),
        4,
        &truth,
    );
}

/// ICMP echo request's type.
const fn echo_request(family: Family) -> u8 {
    match family {
        Family::V4 => 8,
        Family::V6 => 128,
    }
}

/// Entries of echoes with this identifier at a hook of a site.
fn echoes<'a>(entries: &'a [Seen], site: &'a Site, hook: &'a str, id: u16) -> impl Iterator<Item = &'a Seen> {
    entries.iter().filter(move |seen| {
        seen.number("nflog.netns.inode") == Some(site.inode.into())
            && seen.text("nflog.hook") == Some(hook)
            && seen.number("nflog.icmp.echo_id") == Some(id.into())
    })
}

fn ping(world: &World, case: &mut Case) {
    world
        .a
        .netns
        .run(|| std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"))
        .expect("ping sockets can be allowed");
    let from = world.now(&[&world.a]);
    let mut client = world.a.worker();
    let to = world.b.any_port(case.family);
    let mine = client.socket("ping", to);
    client.send_to_as(mine, echo_request(case.family), 16, to);
    client.receive(mine, 64);
    let id = client.local(mine).port();
    let entries = world.since(&from, &[&world.a]);
    let truth = Expected::Owner(client.truth);
    case.judge("output", echoes(&entries, &world.a, "output", id), 1, &truth);
    case.judge("input", echoes(&entries, &world.a, "input", id), 1, &truth);
}

/// As the classic ping: it chooses the identifier itself and sees every ICMP message of the host.
fn raw_icmp(world: &World, case: &mut Case) {
    let from = world.now(&[&world.a]);
    let mut client = world.a.worker();
    let to = world.b.any_port(case.family);
    let protocol = if to.is_ipv4() { 1 } else { 58 };
    let mine = client.socket(&format!("raw {protocol}"), to);
    // The identifier is the 5th and 6th byte, which are 0 in our messages; length tells ours from others'.
    client.send_to_as(mine, echo_request(case.family), 77, to);
    client.receive(mine, 200);
    let entries = world.since(&from, &[&world.a]);
    let length = if to.is_ipv4() { 20 + 77 } else { 40 + 77 };
    let ours = |seen: &&Seen| seen.number("nflog.packet.length") == Some(length);
    let output = echoes(&entries, &world.a, "output", 0).filter(ours);
    case.judge("output", output, 1, &Expected::Owner(client.truth));
    // A reply belongs to every raw socket that is there: the kernel gives each a copy.
    let input = echoes(&entries, &world.a, "input", 0).filter(ours);
    case.judge(
        "input",
        input,
        1,
        &Expected::OwnerOr(client.truth, &["no-socket"]),
    );
}

/// Protocol 253, which is for experiments.
fn raw_protocol(world: &World, case: &mut Case) {
    let from = world.now(&[&world.a, &world.b]);
    let (mut server, mut client) = (world.b.worker(), world.a.worker());
    let at = world.b.any_port(case.family);
    let theirs = server.socket("raw 253", at);
    let mine = client.socket("raw 253", at);
    client.send_to(mine, 32, at);
    server.receive(theirs, 100);
    let entries = world.since(&from, &[&world.a, &world.b]);
    let ours = |site: &Site, hook: &str, seen: &Seen| {
        seen.number("nflog.netns.inode") == Some(site.inode.into())
            && seen.text("nflog.hook") == Some(hook)
            && seen.text("network.transport") == Some("proto-253")
            && address_of(seen, "destination.address") == Some(at.ip())
    };
    let sent = entries.iter().filter(|seen| ours(&world.a, "output", seen));
    case.judge("output", sent, 1, &Expected::Owner(client.truth));
    let received = entries.iter().filter(|seen| ours(&world.b, "input", seen));
    case.judge(
        "input",
        received,
        1,
        &Expected::OwnerOr(server.truth, &["no-socket"]),
    );
}

fn short_lived(world: &World, case: &mut Case) {
    let (mut server, mut client) = (world.b.worker(), world.a.worker());
    let (theirs, at) = server.bound("udp", world.b.any_port(case.family));
    let from = world.now(&[&world.a, &world.b]);
    let truth = client.truth;
    let mine = client.socket("udp", at);
    client.send_to(mine, 10, at);
    let local = SocketAddr::new(world.a.address(case.family), client.local(mine).port());
    client.end();
    server.receive(theirs, 10);
    let server_truth = server.truth;
    server.end();
    let entries = world.since(&from, &[&world.a, &world.b]);
    let flow = world.a.flow("udp", local, at);
    case.judge("output", flow.output(&entries), 1, &Expected::Owner(truth));
    let flow = world.b.flow("udp", at, local);
    case.judge("input", flow.input(&entries), 1, &Expected::Owner(server_truth));
}

/// Larger than the wire's MTU. IPv4 is put together before INPUT, IPv6 after it.
fn fragments(world: &World, case: &mut Case) {
    let (mut server, mut client) = (world.b.worker(), world.a.worker());
    let (theirs, at) = server.bound("udp", world.b.any_port(case.family));
    let (mine, local) = client.connected("udp", at);
    let from = world.now(&[&world.a, &world.b]);
    client.send(mine, 4000);
    server.receive(theirs, 5000);
    let entries = world.since(&from, &[&world.a, &world.b]);
    let flow = world.a.flow("udp", local, at);
    case.judge("output", flow.output(&entries), 1, &Expected::Owner(client.truth));
    let flow = world.b.flow("udp", at, local);
    case.judge("input", flow.input(&entries), 1, &Expected::Owner(server.truth));
    let later = entries.iter().filter(|seen| {
        seen.number("nflog.netns.inode") == Some(world.b.inode.into())
            && same_family(seen, at.ip())
            && seen.text("nflog.ip.fragment").is_some()
            && seen.text("source.port").is_none()
    });
    let at_least = if at.is_ipv4() { 0 } else { 2 };
    case.judge("input", later, at_least, &Expected::Nobody(&["fragment"]));
}
