//! Cases of other protocols and address forms: 15, 16 and 29.

use std::net::{IpAddr, SocketAddr};

use crate::case::{Case, Expected, Family, case};
use crate::world::World;

case!(15, udp_lite, udp_lite);
case!(15, sctp, sctp);
case!(16, an_ipv6_socket_that_serves_ipv4, dual_stack);
case!(16, an_ipv4_and_an_ipv6_only_socket_on_one_port, side_by_side);
case!(29, mptcp, mptcp);

fn udp_lite(world: &World, case: &mut Case) {
    let (mut server, mut client) = (world.b.worker(), world.a.worker());
    let at = world.b.any_port(case.family);
    let family = if at.is_ipv4() { "v4" } else { "v6" };
    let Ok(theirs) = server.attempt(&format!("socket {family} udplite")) else {
        case.absent("this kernel has no UDP-Lite");
        return;
    };
    let theirs = theirs.parse().expect("a slot");
    let at = server.bind(theirs, at);
    let from = world.now(&[&world.a, &world.b]);
    let (mine, local) = client.connected("udplite", at);
    client.send(mine, 10);
    server.receive(theirs, 10);
    server.send_to(theirs, 10, local);
    client.receive(mine, 10);
    let entries = world.since(&from, &[&world.a, &world.b]);
    for (flow, truth) in [
        (world.a.flow("udplite", local, at), client.truth),
        (world.b.flow("udplite", at, local), server.truth),
    ] {
        case.judge("output", flow.output(&entries), 1, &Expected::Owner(truth));
        case.judge("input", flow.input(&entries), 1, &Expected::Owner(truth));
    }
}

fn sctp(world: &World, case: &mut Case) {
    let (mut server, mut client) = (world.b.worker(), world.a.worker());
    let at = world.b.any_port(case.family);
    let family = if at.is_ipv4() { "v4" } else { "v6" };
    let Ok(listener) = server.attempt(&format!("socket {family} sctp")) else {
        case.absent("this kernel has no SCTP");
        return;
    };
    let listener = listener.parse().expect("a slot");
    let at = server.bind(listener, at);
    server.ask(&format!("listen {listener}"));
    let from = world.now(&[&world.a, &world.b]);
    let (mine, local) = client.connected("sctp", at);
    let theirs = server.accept(listener);
    client.send(mine, 100);
    server.receive(theirs, 100);
    server.send(theirs, 100);
    client.receive(mine, 100);
    let entries = world.since(&from, &[&world.a, &world.b]);
    // On the way in SCTP has no early demultiplexing, and one endpoint has many associations and addresses.
    for (site, local, remote, truth) in [
        (&world.a, local, at, client.truth),
        (&world.b, at, local, server.truth),
    ] {
        let local = SocketAddr::new(site.address(case.family), local.port());
        let flow = site.flow("sctp", local, remote);
        case.judge("output", flow.output(&entries), 2, &Expected::Owner(truth));
        let expected = Expected::OwnerOr(truth, &["no-socket", "ambiguous"]);
        case.judge("input", flow.input(&entries), 2, &expected);
    }
}

/// Wildcard IPv6 sockets, TCP and UDP, and peers of the case's family.
fn dual_stack(world: &World, case: &mut Case) {
    let from = world.now(&[&world.a, &world.b]);
    let (mut server, mut client) = (world.b.worker(), world.a.worker());
    let any = SocketAddr::new(Family::V6.any(), 0);
    let (listener, tcp) = server.listener("tcp", any);
    let (datagrams, udp) = server.bound("udp", any);
    let on_wire = |port| SocketAddr::new(world.b.address(case.family), port);
    // The client's sockets are IPv6 as well: an IPv4 peer is `::ffff:a.b.c.d` to them.
    let through_v6 = |address: SocketAddr| match address.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    let (tcp, udp) = (on_wire(tcp.port()), on_wire(udp.port()));
    let (mine, from_tcp) = client.connected("tcp", through_v6(tcp));
    let theirs = server.accept(listener);
    client.send(mine, 10);
    server.receive(theirs, 10);
    let (mine, from_udp) = client.connected("udp", through_v6(udp));
    client.send(mine, 10);
    server.receive(datagrams, 10);
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let entries = world.since(&from, &[&world.a, &world.b]);
    for (transport, local, remote, at_least) in [
        ("tcp", canonical(from_tcp), tcp, 3),
        ("udp", canonical(from_udp), udp, 1),
    ] {
        let flow = world.a.flow(transport, local, remote);
        case.judge(
            "output",
            flow.output(&entries),
            at_least,
            &Expected::Owner(client.truth),
        );
        let flow = world.b.flow(transport, remote, local);
        case.judge(
            "input",
            flow.input(&entries),
            at_least,
            &Expected::Owner(server.truth),
        );
    }
}

fn side_by_side(world: &World, case: &mut Case) {
    let from = world.now(&[&world.b]);
    let (mut four, mut six, mut client) = (world.b.worker(), world.b.worker(), world.a.worker());
    let (theirs_4, any) = four.bound("udp", SocketAddr::new(Family::V4.any(), 0));
    let wildcard = SocketAddr::new(Family::V6.any(), any.port());
    let theirs_6 = six.socket("udp", wildcard);
    six.ask(&format!("set {theirs_6} v6only"));
    six.bind(theirs_6, wildcard);
    let at = SocketAddr::new(world.b.address(case.family), any.port());
    let (mine, local) = client.connected("udp", at);
    client.send(mine, 10);
    let (truth, server, theirs) = match case.family {
        Family::V4 => (four.truth, &mut four, theirs_4),
        Family::V6 => (six.truth, &mut six, theirs_6),
    };
    server.receive(theirs, 10);
    server.send_to(theirs, 10, local);
    client.receive(mine, 10);
    let entries = world.since(&from, &[&world.b]);
    let flow = world.b.flow("udp", at, local);
    case.judge("input", flow.input(&entries), 1, &Expected::Owner(truth));
    case.judge("output", flow.output(&entries), 1, &Expected::Owner(truth));
}

fn mptcp(world: &World, case: &mut Case) {
    for site in [&world.a, &world.b] {
        // Off by default on 5.10; absent where MPTCP is.
        let _ = site
            .netns
            .run(|| std::fs::write("/proc/sys/net/mptcp/enabled", "1"));
    }
    let (mut server, mut client) = (world.b.worker(), world.a.worker());
    let at = world.b.any_port(case.family);
    let family = if at.is_ipv4() { "v4" } else { "v6" };
    let Ok(listener) = server.attempt(&format!("socket {family} mptcp")) else {
        case.absent("this kernel has no MPTCP");
        return;
    };
    let listener = listener.parse().expect("a slot");
    let at = server.bind(listener, at);
    server.ask(&format!("listen {listener}"));
    let from = world.now(&[&world.a, &world.b]);
    let (mine, local) = client.connected("mptcp", at);
    let theirs = server.accept(listener);
    client.send(mine, 1000);
    server.receive(theirs, 1000);
    server.send(theirs, 1000);
    client.receive(mine, 1000);
    let entries = world.since(&from, &[&world.a, &world.b]);
    for (flow, truth) in [
        (world.a.flow("tcp", local, at), client.truth),
        (world.b.flow("tcp", at, local), server.truth),
    ] {
        case.judge("output", flow.output(&entries), 2, &Expected::Owner(truth));
        case.judge("input", flow.input(&entries), 2, &Expected::Owner(truth));
    }
}
