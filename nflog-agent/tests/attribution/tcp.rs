//! Cases of one TCP connection between two hosts: 1 to 5, 27 and 32.

use std::net::SocketAddr;

use crate::case::{Case, Expected, case};
use crate::flow::{Flow, has_flag};
use crate::seen::Seen;
use crate::world::World;

case!(1, a_syn_that_is_dropped_on_its_way_out, dropped);
case!(2, what_softirq_sends_for_a_connection, softirq);
case!(3, a_syn_to_a_listener, handshake);
case!(4, a_syn_ack, syn_ack);
case!(5, a_connection_before_accept, before_accept);
case!(27, threads_of_one_process, threads);
case!(32, both_ends_on_loopback, loopback);

fn dropped(world: &World, case: &mut Case) {
    let from = world.now(&[&world.a]);
    let mut client = world.a.worker();
    let slot = client.socket("tcp", world.a.any_port(case.family));
    let remote = SocketAddr::new(world.b.address(case.family), 4001);
    let local = client.bind(slot, world.a.any_port(case.family));
    // A rule behind the log rule drops it: logged in OUTPUT, it goes no further.
    client.ask(&format!("set {slot} user-timeout"));
    let refused = client.attempt(&format!("connect {slot} {remote}"));
    assert!(refused.is_err(), "the SYN was dropped: {refused:?}");
    let entries = world.since(&from, &[&world.a]);
    let flow = world.a.flow("tcp", local, remote);
    let truth = Expected::Owner(client.truth);
    // The SYN and at least one retransmission by the timer.
    case.judge("output", flow.output(&entries), 2, &truth);
}

/// Data both ways, one retransmission, and the close, all seen from both ends.
fn softirq(world: &World, case: &mut Case) {
    let from = world.now(&[&world.a, &world.b]);
    let (mut server, mut client) = (world.b.worker(), world.a.worker());
    let (listener, at) = server.listener("tcp", world.b.any_port(case.family));
    let (mine, local) = client.connected("tcp", at);
    let theirs = server.accept(listener);
    // Larger than the first window: most of it is sent when ACKs arrive, in softirq.
    client.send(mine, 60_000);
    server.receive(theirs, 60_000);
    server.send(theirs, 60_000);
    client.receive(mine, 60_000);
    client.close(mine);
    server.close(theirs);
    let entries = world.since(&from, &[&world.a, &world.b]);
    let flow = world.a.flow("tcp", local, at);
    case.judge("output", flow.output(&entries), 8, &Expected::Owner(client.truth));
    case.judge("input", flow.input(&entries), 8, &Expected::Owner(client.truth));
    let flow = world.b.flow("tcp", at, local);
    case.judge("output", flow.output(&entries), 8, &Expected::Owner(server.truth));
    case.judge("input", flow.input(&entries), 8, &Expected::Owner(server.truth));
}

fn handshake(world: &World, case: &mut Case) {
    let (flow, entries, truth) = opened(world, case, false);
    let syns = flow.input(&entries).filter(|seen| has_flag(seen, "SYN"));
    case.judge("input", syns, 1, &truth);
}

fn syn_ack(world: &World, case: &mut Case) {
    let (flow, entries, truth) = opened(world, case, false);
    let syn_acks = flow.output(&entries).filter(|seen| has_flag(seen, "SYN"));
    case.judge("output", syn_acks, 1, &truth);
}

fn before_accept(world: &World, case: &mut Case) {
    let (flow, entries, truth) = opened(world, case, true);
    let connection = |seen: &&Seen| !has_flag(seen, "SYN");
    case.judge("input", flow.input(&entries).filter(connection), 2, &truth);
    case.judge("output", flow.output(&entries).filter(connection), 1, &truth);
}

/// A connection that nobody accepts, with data if asked: the server's end, the entries, and who listens.
fn opened(world: &World, case: &Case, with_data: bool) -> (Flow, Vec<Seen>, Expected<'static>) {
    let (mut server, mut client) = (world.b.worker(), world.a.worker());
    let (_, at) = server.listener("tcp", world.b.any_port(case.family));
    let from = world.now(&[&world.b]);
    let (mine, local) = client.connected("tcp", at);
    if with_data {
        client.send(mine, 1000);
    }
    let entries = world.since(&from, &[&world.b]);
    (
        world.b.flow("tcp", at, local),
        entries,
        Expected::Owner(server.truth),
    )
}

fn threads(world: &World, case: &mut Case) {
    let from = world.now(&[&world.a, &world.b]);
    let (mut server, mut client) = (world.b.worker(), world.a.worker());
    let (listener, at) = server.listener("tcp", world.b.any_port(case.family));
    let mine = client.socket("tcp", at);
    client.ask(&format!("thread connect {mine} {at}"));
    let local = client.local(mine);
    let theirs: usize = server.ask(&format!("thread accept {listener}")).parse().unwrap();
    client.ask(&format!("thread send {mine} 100"));
    server.receive(theirs, 100);
    let entries = world.since(&from, &[&world.a, &world.b]);
    let flow = world.a.flow("tcp", local, at);
    case.judge("output", flow.output(&entries), 3, &Expected::Owner(client.truth));
    let flow = world.b.flow("tcp", at, local);
    case.judge("input", flow.input(&entries), 3, &Expected::Owner(server.truth));
    let named = |seen: &&Seen| seen.number("process.pid") == Some(client.truth.pid);
    let name = entries
        .iter()
        .find(named)
        .and_then(|seen| seen.text("process.executable.name"));
    assert!(
        name.is_some_and(|name| !name.contains("thread")),
        "the thread's name instead of the process's: {name:?}"
    );
}

fn loopback(world: &World, case: &mut Case) {
    let from = world.now(&[&world.a]);
    let (mut server, mut client) = (world.a.worker(), world.a.worker());
    let (listener, at) = server.listener("tcp", SocketAddr::new(case.family.loopback(), 0));
    let (mine, local) = client.connected("tcp", at);
    let theirs = server.accept(listener);
    client.send(mine, 100);
    server.receive(theirs, 100);
    server.send(theirs, 100);
    client.receive(mine, 100);
    client.close(mine);
    server.close(theirs);
    let entries = world.since(&from, &[&world.a]);
    for (local, remote, truth) in [(local, at, client.truth), (at, local, server.truth)] {
        let flow = world.a.flow("tcp", local, remote);
        case.judge("output", flow.output(&entries), 4, &Expected::Owner(truth));
        case.judge("input", flow.input(&entries), 4, &Expected::Owner(truth));
    }
}
