//! Cases of forwarded packets that processes on this host send or receive, in namespaces that log nothing: 18 to 20.
//!
//! In FORWARD a packet has the sender's own address and the receiver's: destinations are translated before, sources after.

use std::net::SocketAddr;

use crate::case::{Case, Expected, case};
use crate::flow::ends;
use crate::node::{INSIDE, Node, OUTSIDE, PUBLISHED, SERVICE, TARGET};
use crate::seen::Seen;
use crate::worker::{Truth, Worker};
use crate::world::Site;

case!(18, from_a_routed_pod_to_another, routed_to_routed);
case!(18, from_a_routed_pod_to_one_on_a_bridge, routed_to_bridged);
case!(18, from_a_pod_on_a_bridge_to_a_routed_one, bridged_to_routed);
case!(18, two_pods_with_the_same_addresses, overlapping);
case!(18, two_pods_with_the_same_hardware_address, twins);
case!(18, a_pod_that_masquerades_for_another, nested);
case!(19, a_routed_pod_masqueraded, routed_to_outside);
case!(19, a_pod_on_a_bridge_masqueraded, bridged_to_outside);
case!(20, a_published_port_of_a_pod_on_a_bridge, published);
case!(20, a_service_address_of_a_pod, service_inside);
case!(20, a_service_address_of_a_server_outside, service_outside);

/// Longer than the agent holds an answer back as ambiguous after a change.
const CHANGE: std::time::Duration = std::time::Duration::from_millis(400);

/// Who speaks with whom.
struct Talk<'a> {
    node: &'a Node,
    client: &'a Site,
    server: &'a Site,
    /// The server's port; 0 for any.
    port: u16,
    /// The server's address as the client knows it, if that is not its own.
    known: Option<SocketAddr>,
}

/// What the node forwarded of it, and who it was.
struct Heard {
    entries: Vec<Seen>,
    local: SocketAddr,
    at: SocketAddr,
    client: Truth,
    server: Truth,
    _workers: [Worker; 2],
}

impl Talk<'_> {
    /// A question and an answer.
    fn hold(&self, case: &Case, transport: &str) -> Heard {
        let (mut server, mut client) = (self.server.worker(), self.client.worker());
        let at = SocketAddr::new(self.server.address(case.family), self.port);
        let mine = server.socket(transport, at);
        // The port may be fixed, and its last connection be in TIME_WAIT.
        server.ask(&format!("set {mine} reuseaddr"));
        let at = server.bind(mine, at);
        let sites = [&self.node.n];
        let known = self.known.unwrap_or(at);
        let (theirs, local, from) = if transport == "tcp" {
            server.ask(&format!("listen {mine}"));
            let from = self.node.now(&sites);
            let (slot, local) = client.connected("tcp", known);
            let accepted = server.accept(mine);
            client.send(slot, 100);
            server.receive(accepted, 100);
            server.send(accepted, 100);
            (slot, local, from)
        } else {
            let from = self.node.now(&sites);
            let (slot, local) = client.connected("udp", known);
            client.send(slot, 100);
            server.answer(mine, 100);
            (slot, local, from)
        };
        client.receive(theirs, 100);
        let entries = self.node.since(&from, &sites);
        Heard {
            entries,
            local,
            at,
            client: client.truth,
            server: server.truth,
            _workers: [client, server],
        }
    }
}

impl Heard {
    fn questions(&self, transport: &str) -> Vec<&Seen> {
        self.forwarded(transport, self.local, self.at)
    }

    fn answers(&self, transport: &str) -> Vec<&Seen> {
        self.forwarded(transport, self.at, self.local)
    }

    fn forwarded(&self, transport: &str, from: SocketAddr, to: SocketAddr) -> Vec<&Seen> {
        self.entries
            .iter()
            .filter(|seen| {
                seen.text("nflog.hook") == Some("forward")
                    && seen.text("network.transport") == Some(transport)
                    && ends(seen) == Some((from, to))
            })
            .collect()
    }
}

/// Which end the owner is, of all that have one.
#[track_caller]
fn assert_end(entries: &[&Seen], end: &str) {
    for seen in entries {
        let owned = seen.number("process.pid").is_some();
        let expected = owned.then_some(end);
        assert_eq!(seen.text("nflog.owner.end"), expected, "{seen:?}");
    }
}

/// Who is the owner of questions and of answers.
#[derive(Clone, Copy)]
enum Owners {
    /// Each is its sender's.
    Senders,
    /// The client is on this host alone.
    Client,
    /// The server is.
    Server,
}

fn judge(case: &mut Case, talk: &Talk<'_>, owners: Owners) {
    for transport in ["tcp", "udp"] {
        let heard = talk.hold(case, transport);
        let ((asks, asking), (answers, answering)) = match owners {
            Owners::Senders => ((heard.client, "source"), (heard.server, "source")),
            Owners::Client => ((heard.client, "source"), (heard.client, "destination")),
            Owners::Server => ((heard.server, "destination"), (heard.server, "source")),
        };
        let at_least = if transport == "tcp" { 3 } else { 1 };
        let entries = heard.questions(transport);
        assert_end(&entries, asking);
        case.judge(
            &format!("{transport}-there"),
            entries,
            at_least,
            &Expected::Owner(asks),
        );
        let entries = heard.answers(transport);
        assert_end(&entries, answering);
        let at_least = if transport == "tcp" { 2 } else { 1 };
        case.judge(
            &format!("{transport}-back"),
            entries,
            at_least,
            &Expected::Owner(answers),
        );
    }
}

const fn talk<'a>(node: &'a Node, client: &'a Site, server: &'a Site) -> Talk<'a> {
    Talk {
        node,
        client,
        server,
        port: 0,
        known: None,
    }
}

fn routed_to_routed(node: &Node, case: &mut Case) {
    judge(case, &talk(node, &node.p, &node.q), Owners::Senders);
}

fn routed_to_bridged(node: &Node, case: &mut Case) {
    judge(case, &talk(node, &node.p, &node.s), Owners::Senders);
}

fn bridged_to_routed(node: &Node, case: &mut Case) {
    judge(case, &talk(node, &node.t, &node.q), Owners::Senders);
}

fn routed_to_outside(node: &Node, case: &mut Case) {
    judge(case, &talk(node, &node.p, &node.e), Owners::Client);
}

fn bridged_to_outside(node: &Node, case: &mut Case) {
    judge(case, &talk(node, &node.s, &node.e), Owners::Client);
}

fn published(node: &Node, case: &mut Case) {
    let talk = Talk {
        port: TARGET,
        known: Some(SocketAddr::new(node.n.address(case.family), PUBLISHED)),
        ..talk(node, &node.e, &node.s)
    };
    judge(case, &talk, Owners::Server);
}

fn service_inside(node: &Node, case: &mut Case) {
    let talk = Talk {
        port: TARGET,
        known: Some(SocketAddr::new(Node::of(case.family, INSIDE), SERVICE)),
        ..talk(node, &node.p, &node.t)
    };
    judge(case, &talk, Owners::Senders);
}

fn service_outside(node: &Node, case: &mut Case) {
    let talk = Talk {
        port: TARGET,
        known: Some(SocketAddr::new(Node::of(case.family, OUTSIDE), SERVICE)),
        ..talk(node, &node.s, &node.e)
    };
    judge(case, &talk, Owners::Client);
}

/// One after the other, from the same port to the same server: only the device tells the pods apart.
fn overlapping(node: &Node, case: &mut Case) {
    let mut server = node.e.worker();
    let (theirs, at) = server.bound("udp", node.e.any_port(case.family));
    let mut port = 0;
    for (pod, name) in [(&node.u, "u"), (&node.v, "v")] {
        node.lead_to(name, case.family);
        std::thread::sleep(CHANGE);
        let mut client = pod.worker();
        let from = node.now(&[&node.n]);
        let mine = client.socket("udp", at);
        let local = client.bind(mine, SocketAddr::new(pod.address(case.family), port));
        port = local.port();
        client.send_to(mine, 10, at);
        server.answer(theirs, 10);
        client.receive(mine, 10);
        let entries = node.since(&from, &[&node.n]);
        for (direction, end, tuple) in [
            ("there", "source", (local, at)),
            ("back", "destination", (at, local)),
        ] {
            let entries: Vec<_> = entries
                .iter()
                .filter(|seen| seen.text("nflog.hook") == Some("forward") && ends(seen) == Some(tuple))
                .collect();
            assert_end(&entries, end);
            case.judge(
                &format!("{name}-{direction}"),
                entries,
                1,
                &Expected::Owner(client.truth),
            );
        }
    }
}

/// Nothing tells them apart, so nobody is named.
fn twins(node: &Node, case: &mut Case) {
    for transport in ["tcp", "udp"] {
        let heard = talk(node, &node.x, &node.e).hold(case, transport);
        let nobody = Expected::Nobody(&["ambiguous"]);
        case.judge(
            &format!("{transport}-there"),
            heard.questions(transport),
            1,
            &nobody,
        );
        case.judge(&format!("{transport}-back"), heard.answers(transport), 1, &nobody);
    }
}

/// What `k` masquerades looks like its own, and its bystander has the same port.
fn nested(node: &Node, case: &mut Case) {
    let mut bystander = node.k.worker();
    let (_, any) = bystander.bound("udp", SocketAddr::new(case.family.any(), 0));
    let (mut server, mut client) = (node.e.worker(), node.i.worker());
    let (theirs, at) = server.bound("udp", node.e.any_port(case.family));
    let from = node.now(&[&node.n]);
    let mine = client.socket("udp", at);
    client.bind(mine, SocketAddr::new(node.i.address(case.family), any.port()));
    client.send_to(mine, 10, at);
    server.receive(theirs, 10);
    let entries = node.since(&from, &[&node.n]);
    let masqueraded = SocketAddr::new(node.k.address(case.family), any.port());
    let entries = entries
        .iter()
        .filter(|seen| seen.text("nflog.hook") == Some("forward") && ends(seen) == Some((masqueraded, at)));
    case.judge("there", entries, 1, &Expected::Nobody(&["ambiguous"]));
}
