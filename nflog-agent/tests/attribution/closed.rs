//! Cases of what comes after a socket's end: 22, 24 and 26.

use std::mem::swap;
use std::net::SocketAddr;

use crate::case::{Case, Expected, case};
use crate::worker::{Slot, Worker};
use crate::world::World;

case!(22, the_close_and_time_wait, close);
case!(24, a_tcp_port_used_again_by_another_process, tcp_port);
case!(24, a_udp_port_used_again_by_another_process, udp_port);
case!(24, a_listener_that_is_replaced_at_once, listener);
case!(24, a_udp_server_that_is_replaced_at_once, udp_server);
case!(26, processes_that_end_with_their_connection, short_lived);

/// The client closes first and ends: FIN, last ACK and TIME_WAIT are the kernel's work for a process that is gone.
fn close(world: &World, case: &mut Case) {
    let from = world.now(&[&world.a, &world.b]);
    let (mut server, mut client) = (world.b.worker(), world.a.worker());
    let (listener, at) = server.listener("tcp", world.b.any_port(case.family));
    let (mine, local) = client.connected("tcp", at);
    let theirs = server.accept(listener);
    client.close(mine);
    let (client_truth, server_truth) = (client.truth, server.truth);
    client.end();
    server.receive(theirs, 1);
    server.close(theirs);
    server.end();
    let entries = world.since(&from, &[&world.a, &world.b]);
    let flow = world.a.flow("tcp", local, at);
    case.judge("output", flow.output(&entries), 4, &Expected::Owner(client_truth));
    case.judge("input", flow.input(&entries), 2, &Expected::Owner(client_truth));
    let flow = world.b.flow("tcp", at, local);
    case.judge("output", flow.output(&entries), 2, &Expected::Owner(server_truth));
    case.judge("input", flow.input(&entries), 4, &Expected::Owner(server_truth));
}

/// One process after the other connects from the same port to the same server: the same tuple.
fn tcp_port(world: &World, case: &mut Case) {
    let mut server = world.b.worker();
    let (listener, at) = server.listener("tcp", world.b.any_port(case.family));
    let mut local = world.a.any_port(case.family);
    for _ in 0..3 {
        let from = world.now(&[&world.a]);
        let mut client = world.a.worker();
        let slot = client.socket("tcp", at);
        local = client.bind(slot, local);
        client.ask(&format!("connect {slot} {at}"));
        let theirs = server.accept(listener);
        client.send(slot, 100);
        server.receive(theirs, 100);
        // A reset instead of TIME_WAIT, so that the port is free at once.
        client.ask(&format!("set {slot} no-linger"));
        client.close(slot);
        server.close(theirs);
        let truth = client.truth;
        client.end();
        let entries = world.since(&from, &[&world.a]);
        let flow = world.a.flow("tcp", local, at);
        case.judge("output", flow.output(&entries), 4, &Expected::Owner(truth));
        case.judge("input", flow.input(&entries), 1, &Expected::Owner(truth));
    }
}

fn udp_port(world: &World, case: &mut Case) {
    let mut peer = world.b.worker();
    let (theirs, at) = peer.bound("udp", world.b.any_port(case.family));
    let mut local = SocketAddr::new(world.a.address(case.family), 0);
    for _ in 0..3 {
        let mut owner = world.a.worker();
        let slot = owner.socket("udp", local);
        local = owner.bind(slot, local);
        let from = world.now(&[&world.a]);
        owner.send_to(slot, 10, at);
        peer.receive(theirs, 10);
        peer.send_to(theirs, 10, local);
        owner.receive(slot, 10);
        let truth = owner.truth;
        owner.end();
        let entries = world.since(&from, &[&world.a]);
        let flow = world.a.flow("udp", local, at);
        case.judge("output", flow.output(&entries), 1, &Expected::Owner(truth));
        case.judge("input", flow.input(&entries), 1, &Expected::Owner(truth));
    }
}

fn listener(world: &World, case: &mut Case) {
    let mut client = world.a.worker();
    replaced(world, case, "tcp", 3, |server, listener, at| {
        let (mine, local) = client.connected("tcp", at);
        let theirs = server.accept(listener);
        client.close(mine);
        server.close(theirs);
        local
    });
}

fn udp_server(world: &World, case: &mut Case) {
    let mut client = world.a.worker();
    let (mine, local) = client.bound("udp", world.a.any_port(case.family));
    replaced(world, case, "udp", 1, |server, slot, at| {
        client.send_to(mine, 10, at);
        server.receive(slot, 10);
        local
    });
}

/// A server closes its socket, and another process takes the port before the kernel has freed the closed one. `exchange` answers the
/// client's address.
fn replaced(
    world: &World,
    case: &mut Case,
    transport: &'static str,
    at_least: usize,
    mut exchange: impl FnMut(&mut Worker, Slot, SocketAddr) -> SocketAddr,
) {
    let listens = transport == "tcp";
    let mut at = world.b.any_port(case.family);
    let (mut server, mut last) = (world.b.worker(), world.b.worker());
    let mut before = None;
    for _ in 0..6 {
        let slot = server.socket(transport, at);
        if listens {
            server.ask(&format!("set {slot} reuseaddr"));
        }
        if let Some(slot) = before {
            last.close(slot);
        }
        server.ask(&format!("bind {slot} {at}"));
        if listens {
            server.ask(&format!("listen {slot}"));
        }
        at = server.local(slot);
        let from = world.now(&[&world.b]);
        let local = exchange(&mut server, slot, at);
        let entries = world.since(&from, &[&world.b]);
        let flow = world.b.flow(transport, at, local);
        let expected = Expected::Owner(server.truth);
        case.judge("input", flow.input(&entries), at_least, &expected);
        before = Some(slot);
        swap(&mut server, &mut last);
    }
}

/// Both ends are gone before the agent reads a single entry.
fn short_lived(world: &World, case: &mut Case) {
    let from = world.now(&[&world.a, &world.b]);
    let (mut server, mut client) = (world.b.worker(), world.a.worker());
    let (listener, at) = server.listener("tcp", world.b.any_port(case.family));
    let (mine, local) = client.connected("tcp", at);
    let theirs = server.accept(listener);
    client.send(mine, 10);
    server.receive(theirs, 10);
    let (client_truth, server_truth) = (client.truth, server.truth);
    client.end();
    server.end();
    let entries = world.since(&from, &[&world.a, &world.b]);
    let flow = world.a.flow("tcp", local, at);
    case.judge("output", flow.output(&entries), 4, &Expected::Owner(client_truth));
    case.judge("input", flow.input(&entries), 2, &Expected::Owner(client_truth));
    let flow = world.b.flow("tcp", at, local);
    case.judge("input", flow.input(&entries), 4, &Expected::Owner(server_truth));
}
