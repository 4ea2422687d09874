//! Cases of a socket that changes hands: 6, 7, 8 and 25.

use crate::case::{Case, Expected, case};
use crate::world::World;

case!(6, a_worker_accepts_from_its_masters_listener, prefork);
case!(7, a_child_serves_the_accepted_connection, accept_then_fork);
case!(8, a_connection_passed_by_scm_rights, passed_connection);
case!(8, a_listener_passed_by_scm_rights, passed_listener);
case!(8, a_datagram_socket_passed_by_scm_rights, passed_datagrams);
case!(25, two_processes_on_one_reuseport_port, reuseport);

fn prefork(world: &World, case: &mut Case) {
    let (mut master, mut client) = (world.b.worker(), world.a.worker());
    let (listener, at) = master.listener("tcp", world.b.any_port(case.family));
    let mut worker = master.heir(listener);
    let before = world.now(&[&world.b]);
    let (mine, local) = client.connected("tcp", at);
    let flow = world.b.flow("tcp", at, local);
    let entries = world.since(&before, &[&world.b]);
    // Until one of them accepts, the connection is the master's, who listens.
    case.judge("input", flow.input(&entries), 2, &Expected::Owner(master.truth));
    let accepted = world.now(&[&world.b]);
    let theirs = worker.accept(0);
    client.send(mine, 100);
    worker.receive(theirs, 100);
    worker.send(theirs, 100);
    client.receive(mine, 100);
    worker.close(theirs);
    let entries = world.since(&accepted, &[&world.b]);
    case.judge("input", flow.input(&entries), 2, &Expected::Owner(worker.truth));
    case.judge("output", flow.output(&entries), 2, &Expected::Owner(worker.truth));
}

fn accept_then_fork(world: &World, case: &mut Case) {
    let (mut master, mut client) = (world.b.worker(), world.a.worker());
    let (listener, at) = master.listener("tcp", world.b.any_port(case.family));
    let (mine, local) = client.connected("tcp", at);
    let theirs = master.accept(listener);
    let mut child = master.heir(theirs);
    master.close(theirs);
    let from = world.now(&[&world.b]);
    let flow = world.b.flow("tcp", at, local);
    child.send(0, 100);
    client.receive(mine, 100);
    client.send(mine, 100);
    child.receive(0, 100);
    child.send(0, 60_000);
    client.receive(mine, 60_000);
    let entries = world.since(&from, &[&world.b]);
    case.judge("output", flow.output(&entries), 3, &Expected::Owner(child.truth));
    case.judge("input", flow.input(&entries), 3, &Expected::Owner(child.truth));
}

fn passed_connection(world: &World, case: &mut Case) {
    let (mut server, mut giver, mut taker) = (world.b.worker(), world.a.worker(), world.a.worker());
    let (listener, at) = server.listener("tcp", world.b.any_port(case.family));
    let (mine, local) = giver.connected("tcp", at);
    let theirs = server.accept(listener);
    let mine = giver.pass(mine, &mut taker);
    let from = world.now(&[&world.a]);
    taker.send(mine, 100);
    server.receive(theirs, 100);
    server.send(theirs, 100);
    taker.receive(mine, 100);
    let entries = world.since(&from, &[&world.a]);
    let flow = world.a.flow("tcp", local, at);
    case.judge("output", flow.output(&entries), 1, &Expected::Owner(taker.truth));
    case.judge("input", flow.input(&entries), 1, &Expected::Owner(taker.truth));
}

/// As systemd does: one process binds and listens, another one accepts.
fn passed_listener(world: &World, case: &mut Case) {
    let (mut init, mut service, mut client) = (world.b.worker(), world.b.worker(), world.a.worker());
    let (listener, at) = init.listener("tcp", world.b.any_port(case.family));
    let listener = init.pass(listener, &mut service);
    let (mine, local) = client.connected("tcp", at);
    let theirs = service.accept(listener);
    let from = world.now(&[&world.b]);
    client.send(mine, 100);
    service.receive(theirs, 100);
    service.send(theirs, 100);
    client.receive(mine, 100);
    let entries = world.since(&from, &[&world.b]);
    let flow = world.b.flow("tcp", at, local);
    case.judge(
        "output",
        flow.output(&entries),
        1,
        &Expected::Owner(service.truth),
    );
    case.judge("input", flow.input(&entries), 1, &Expected::Owner(service.truth));
}

fn passed_datagrams(world: &World, case: &mut Case) {
    let (mut peer, mut giver, mut taker) = (world.b.worker(), world.a.worker(), world.a.worker());
    let (theirs, at) = peer.bound("udp", world.b.any_port(case.family));
    let (mine, local) = giver.bound("udp", world.a.any_port(case.family));
    giver.send_to(mine, 10, at);
    peer.receive(theirs, 10);
    let mine = giver.pass(mine, &mut taker);
    let from = world.now(&[&world.a]);
    taker.send_to(mine, 10, at);
    peer.receive(theirs, 10);
    let entries = world.since(&from, &[&world.a]);
    let flow = world.a.flow("udp", local, at);
    case.judge("output", flow.output(&entries), 1, &Expected::Owner(taker.truth));
    let from = world.now(&[&world.a]);
    taker.send_to(mine, 10, at);
    peer.receive(theirs, 10);
    peer.send_to(theirs, 10, local);
    taker.receive(mine, 10);
    let entries = world.since(&from, &[&world.a]);
    case.judge("output", flow.output(&entries), 1, &Expected::Owner(taker.truth));
    case.judge("input", flow.input(&entries), 1, &Expected::Owner(taker.truth));
}

fn reuseport(world: &World, case: &mut Case) {
    let (mut one, mut other, mut client) = (world.b.worker(), world.b.worker(), world.a.worker());
    let first = one.socket("tcp", world.b.any_port(case.family));
    one.ask(&format!("set {first} reuseport"));
    let at = one.bind(first, world.b.any_port(case.family));
    one.ask(&format!("listen {first}"));
    let second = other.socket("tcp", at);
    other.ask(&format!("set {second} reuseport"));
    other.bind(second, at);
    other.ask(&format!("listen {second}"));
    one.ask(&format!("set {first} impatient"));
    let from = world.now(&[&world.b]);
    let (mine, local) = client.connected("tcp", at);
    let flow = world.b.flow("tcp", at, local);
    // The kernel's hash chose one of them; only that one has a connection to accept.
    let accepted = one.attempt(&format!("accept {first}"));
    let (chosen, theirs) = match accepted {
        Ok(slot) => (&mut one, slot.parse().expect("a slot")),
        Err(_) => {
            let slot = other.accept(second);
            (&mut other, slot)
        }
    };
    client.send(mine, 100);
    chosen.receive(theirs, 100);
    chosen.send(theirs, 100);
    client.receive(mine, 100);
    let entries = world.since(&from, &[&world.b]);
    // Before the kernel has chosen, that is for the SYN, any of them could be meant.
    let expected = Expected::OwnerOr(chosen.truth, &["ambiguous"]);
    case.judge("input", flow.input(&entries), 3, &expected);
    case.judge("output", flow.output(&entries), 3, &Expected::Owner(chosen.truth));
}
