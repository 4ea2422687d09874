//! Cases of several namespaces: 17, 18 and 30.

use std::net::SocketAddr;

use crate::case::{Case, Expected, case};
use crate::flow::{address_of, ends};
use crate::seen::Seen;
use crate::world::World;

case!(17, the_same_address_and_port_in_two_namespaces, overlap);
case!(18, traffic_through_a_router_that_listens_on_its_port, forwarded);
case!(30, a_macvlan_device, macvlan);

/// Two servers on one loopback address and port, in two namespaces, and a client of each.
fn overlap(world: &World, case: &mut Case) {
    let sites = [&world.a, &world.b];
    let from = world.now(&sites);
    let mut port = 0;
    let mut ends = Vec::new();
    for site in sites {
        let (mut server, mut client) = (site.worker(), site.worker());
        let (theirs, at) = server.bound("udp", SocketAddr::new(case.family.loopback(), port));
        port = at.port();
        let slot = client.socket("udp", at);
        // The same source port as well: only the namespace tells the two flows apart.
        let bound = client.bind(slot, SocketAddr::new(case.family.loopback(), port ^ 1));
        client.send_to(slot, 10, at);
        server.receive(theirs, 10);
        ends.push((site.flow("udp", bound, at), client));
        ends.push((site.flow("udp", at, bound), server));
    }
    let entries = world.since(&from, &sites);
    for (flow, worker) in &ends {
        let sends = flow.output(&entries).count();
        let expected = Expected::Owner(worker.truth);
        if sends > 0 {
            case.judge("output", flow.output(&entries), 1, &expected);
        } else {
            case.judge("input", flow.input(&entries), 1, &expected);
        }
    }
}

/// The bystander listens on every address of the router, on the very port of what is forwarded: it never is the owner.
fn forwarded(world: &World, case: &mut Case) {
    let (mut server, mut client, mut bystander) = (world.d.worker(), world.c.worker(), world.r.worker());
    let (_, any) = bystander.listener("tcp", SocketAddr::new(case.family.any(), 0));
    let at = SocketAddr::new(world.d.address(case.family), any.port());
    let (listener, at) = server.listener("tcp", at);
    let sites = [&world.c, &world.d, &world.r];
    let from = world.now(&sites);
    let (mine, local) = client.connected("tcp", at);
    let theirs = server.accept(listener);
    client.send(mine, 100);
    server.receive(theirs, 100);
    let entries = world.since(&from, &sites);
    let passing = |hook: &'static str| {
        entries.iter().filter(move |seen: &&Seen| {
            seen.number("nflog.netns.inode") == Some(world.r.inode.into())
                && seen.text("nflog.hook") == Some(hook)
                && (ends(seen) == Some((local, at)) || ends(seen) == Some((at, local)))
        })
    };
    let nobody = Expected::Nobody(&["forwarded", "no-socket"]);
    for hook in ["prerouting", "postrouting"] {
        case.judge(hook, passing(hook), 4, &nobody);
    }
    let (there, back): (Vec<_>, Vec<_>) =
        passing("forward").partition(|seen| ends(seen) == Some((local, at)));
    case.judge("forward-there", there, 3, &Expected::Owner(client.truth));
    case.judge("forward-back", back, 1, &Expected::Owner(server.truth));
    let flow = world.c.flow("tcp", local, at);
    case.judge("output", flow.output(&entries), 3, &Expected::Owner(client.truth));
    let flow = world.d.flow("tcp", at, local);
    case.judge("input", flow.input(&entries), 3, &Expected::Owner(server.truth));
}

fn macvlan(world: &World, case: &mut Case) {
    let (mut server, mut client) = (world.b.worker(), world.m.worker());
    let (theirs, at) = server.bound("udp", world.b.any_port(case.family));
    let sites = [&world.a, &world.b, &world.m];
    let from = world.now(&sites);
    let (mine, local) = client.connected("udp", at);
    client.send(mine, 10);
    server.receive(theirs, 10);
    server.send_to(theirs, 10, local);
    client.receive(mine, 10);
    let entries = world.since(&from, &sites);
    let flow = world.m.flow("udp", local, at);
    case.judge("output", flow.output(&entries), 1, &Expected::Owner(client.truth));
    case.judge("input", flow.input(&entries), 1, &Expected::Owner(client.truth));
    // The namespace of the device below sees nothing of it.
    let below = entries.iter().filter(|seen| {
        seen.number("nflog.netns.inode") == Some(world.a.inode.into())
            && address_of(seen, "source.address") == Some(local.ip())
    });
    case.judge("below", below, 0, &Expected::Nobody(&[]));
}
