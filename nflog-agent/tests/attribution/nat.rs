//! Cases of rewritten addresses: 19 and 20. Where the logged tuple is not the socket's a reason is accepted as long as no
//! second key is taken from conntrack; a wrong owner never is.

use std::net::{IpAddr, SocketAddr};

use crate::case::{Case, Expected, case};
use crate::flow::{ends, same_family};
use crate::seen::Seen;
use crate::world::{DNAT_PORT, REDIRECT_PORT, SNAT_PORT, Site, TARGET_PORT, World};

case!(19, source_nat_on_the_senders_host, snat);
case!(20, a_service_address_on_the_senders_host, dnat);
case!(20, a_redirected_port_on_the_receivers_host, redirect);

const UNTIL_CONNTRACK: &[&str] = &["no-socket", "ambiguous", "missed"];

/// Entries of a site at a hook with this port on either end, of the family of `like`.
fn at<'a>(
    entries: &'a [Seen],
    site: &'a Site,
    like: IpAddr,
    hook: &'a str,
    port: u16,
) -> impl Iterator<Item = &'a Seen> {
    entries.iter().filter(move |seen| {
        seen.number("nflog.netns.inode") == Some(site.inode.into())
            && seen.text("nflog.hook") == Some(hook)
            && seen.text("network.transport") == Some("tcp")
            && same_family(seen, like)
            && ends(seen).is_some_and(|(from, to)| from.port() == port || to.port() == port)
    })
}

/// One exchange from `c` to the server that is at `at`, which the client knows as `known`.
fn exchange(
    world: &World,
    case: &mut Case,
    known: SocketAddr,
    at_port: u16,
    judge: impl FnOnce(&mut Case, &[Seen], [Expected<'static>; 2]),
) {
    let (mut server, mut client) = (world.d.worker(), world.c.worker());
    let at = SocketAddr::new(world.d.address(case.family), at_port);
    let listener = server.socket("tcp", at);
    // The port is fixed, and its last connection may be in TIME_WAIT.
    server.ask(&format!("set {listener} reuseaddr"));
    server.bind(listener, at);
    server.ask(&format!("listen {listener}"));
    let sites = [&world.c, &world.d];
    let from = world.now(&sites);
    let (mine, _) = client.connected("tcp", known);
    let theirs = server.accept(listener);
    client.send(mine, 100);
    server.receive(theirs, 100);
    server.send(theirs, 100);
    client.receive(mine, 100);
    let entries = world.since(&from, &sites);
    let truths = [client.truth, server.truth].map(|truth| Expected::OwnerOr(truth, UNTIL_CONNTRACK));
    judge(case, &entries, truths);
}

fn snat(world: &World, case: &mut Case) {
    let like = world.d.address(case.family);
    let at_port = SNAT_PORT;
    let known = SocketAddr::new(world.d.address(case.family), at_port);
    exchange(world, case, known, at_port, |case, entries, [client, server]| {
        case.judge(
            "output",
            at(entries, &world.c, like, "output", at_port),
            3,
            &client,
        );
        case.judge(
            "postrouting",
            at(entries, &world.c, like, "postrouting", at_port),
            3,
            &client,
        );
        case.judge(
            "prerouting",
            at(entries, &world.c, like, "prerouting", at_port),
            2,
            &client,
        );
        case.judge("input", at(entries, &world.c, like, "input", at_port), 2, &client);
        case.judge("input", at(entries, &world.d, like, "input", at_port), 3, &server);
        let from_alias = at(entries, &world.d, like, "input", at_port)
            .all(|seen| ends(seen).is_some_and(|(from, _)| world.alias.contains(&from.ip())));
        assert!(from_alias, "the source was rewritten");
    });
}

/// The kernel gives the answers their old source only after the filter chains of INPUT.
fn dnat(world: &World, case: &mut Case) {
    let like = world.d.address(case.family);
    let [v4, v6] = crate::world::SERVICE;
    let known = match world.d.address(case.family) {
        IpAddr::V4(_) => SocketAddr::new(v4, DNAT_PORT),
        IpAddr::V6(_) => SocketAddr::new(v6, DNAT_PORT),
    };
    let target = TARGET_PORT;
    exchange(world, case, known, target, |case, entries, [client, server]| {
        case.judge(
            "output",
            at(entries, &world.c, like, "output", target),
            3,
            &client,
        );
        case.judge(
            "postrouting",
            at(entries, &world.c, like, "postrouting", target),
            3,
            &client,
        );
        case.judge(
            "prerouting",
            at(entries, &world.c, like, "prerouting", target),
            2,
            &client,
        );
        case.judge("input", at(entries, &world.c, like, "input", target), 2, &client);
        case.judge("input", at(entries, &world.d, like, "input", target), 3, &server);
    });
}

fn redirect(world: &World, case: &mut Case) {
    let like = world.d.address(case.family);
    let known = SocketAddr::new(world.d.address(case.family), REDIRECT_PORT);
    let target = TARGET_PORT + 1;
    exchange(world, case, known, target, |case, entries, [client, server]| {
        case.judge(
            "output",
            at(entries, &world.c, like, "output", REDIRECT_PORT),
            3,
            &client,
        );
        case.judge("input", at(entries, &world.d, like, "input", target), 3, &server);
        case.judge(
            "output",
            at(entries, &world.d, like, "output", target),
            2,
            &server,
        );
    });
}
