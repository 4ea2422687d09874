//! What a running agent tells of itself: health, metrics, messages; and what is deployed to look at it, judged by a real Prometheus.
//!
//! Needs root, and Prometheus and the Python environment of `cargo xtask setup` below `target/tools` (`NFLOG_TEST_PROMETHEUS` and
//! `NFLOG_TEST_VENV` name others).
#![cfg(feature = "agent")]

#[path = "../support/mod.rs"]
mod support;

mod alerts;
mod dashboards;
mod endpoint;
mod expression;
#[path = "../service/hung.rs"]
mod hung;
mod live;
mod messages;
mod otlp;
#[path = "../agent/program.rs"]
#[expect(dead_code, reason = "the other tests' part of it")]
mod program;
mod prometheus;
mod scrape;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use program::Agent;
use support::Netns;

/// Datagrams to port 4242 are counted and logged.
const RULES: &str = "
    table inet t {
        chain out {
            type filter hook output priority 0
            udp dport 4242 counter log prefix \"sent \" group 7 comment \"sent\"
        }
    }";

/// A namespace whose rules log.
fn logging(name: &str) -> Netns {
    let netns = Netns::new(name);
    netns.nft(RULES);
    netns
}

/// Sends so many datagrams that the rules log.
fn send(netns: &Netns, datagrams: u32) {
    netns.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..datagrams {
            // Nobody listens, and nothing is connected: no error comes back.
            socket.send_to(b"x", "127.0.0.1:4242").unwrap();
        }
    });
}

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// A reading agent with an endpoint, and the endpoint's address.
#[track_caller]
fn start(netns: &Netns, more: &[&str], environment: &[(&str, &str)]) -> (Agent, SocketAddr) {
    let agent = Agent::on(netns, &[&["--listen", "127.0.0.1:0"], more].concat(), environment);
    let address = address(&agent);
    (agent, address)
}

/// Where the agent says that its endpoint is.
#[track_caller]
fn address(agent: &Agent) -> SocketAddr {
    let rest = agent.last_said("health and metrics: http://");
    rest.split('/').next().unwrap().parse().unwrap()
}
