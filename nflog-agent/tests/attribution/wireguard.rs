//! Case 21: packets in a WireGuard tunnel are their processes', those that carry them the kernel's.
//!
//! Encryption and decryption run in threads of the kernel, which send the outer packets.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::case::{Case, Expected, Family, case};
use crate::world::{Site, World};

case!(21, a_wireguard_tunnel, wireguard);

/// One end of a tunnel.
struct Tunnel<'a> {
    site: &'a Site,
    device: String,
    private: String,
    public: String,
    /// Of the packets that carry others.
    outer: SocketAddr,
    /// Of the packets inside.
    inner: [SocketAddr; 2],
}

impl<'a> Tunnel<'a> {
    /// Makes the device; `None` on a kernel without WireGuard.
    fn begin(site: &'a Site, family: Family, host: u8) -> Option<Self> {
        let net: u16 = match family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        let device = format!("wg{net}");
        if let Err(error) = site.netns.try_ip(&format!("link add {device} type wireguard")) {
            println!("SKIPPED: {error}");
            // Any other refusal would be the test's own mistake.
            assert!(error.contains("Unknown device type"), "{error}");
            return None;
        }
        let (v4, v6) = (format!("10.86.{net}.{host}"), format!("fd86:{net}::{host}"));
        site.netns.ip(&format!("address add {v4}/24 dev {device}"));
        site.netns.ip(&format!("address add {v6}/64 dev {device} nodad"));
        let private = wg(&["genkey"], "");
        let public = wg(&["pubkey"], &private);
        let at = |address: &str| SocketAddr::new(address.parse().expect("an address"), 0);
        Some(Self {
            site,
            device,
            private,
            public,
            outer: SocketAddr::new(site.address(family), 51820 + net),
            inner: [at(&v4), at(&v6)],
        })
    }

    fn lead_to(&self, peer: &Self) {
        let port = self.outer.port().to_string();
        let endpoint = peer.outer.to_string();
        let arguments = [
            "set",
            &self.device,
            "private-key",
            "/proc/self/fd/0",
            "listen-port",
            &port,
        ];
        let peer = [
            "peer",
            &peer.public,
            "allowed-ips",
            "0.0.0.0/0,::/0",
            "endpoint",
            &endpoint,
        ];
        let arguments = [&arguments[..], &peer].concat();
        self.site.netns.run(|| wg(&arguments, &self.private));
        self.site.netns.ip(&format!("link set {} up", self.device));
    }
}

/// What `wg` answers.
#[track_caller]
fn wg(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("wg")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("wg is in PATH (Debian package wireguard-tools)");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("wg reads its input");
    drop(stdin);
    let output = child.wait_with_output().expect("wg ends");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "wg {arguments:?}: {error}");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn wireguard(world: &World, case: &mut Case) {
    let tunnels = (
        Tunnel::begin(&world.a, case.family, 1),
        Tunnel::begin(&world.b, case.family, 2),
    );
    let (Some(near), Some(far)) = tunnels else {
        case.absent("this kernel has no WireGuard");
        return;
    };
    near.lead_to(&far);
    far.lead_to(&near);
    let sites = [&world.a, &world.b];
    let (mut server, mut client) = (world.b.worker(), world.a.worker());
    let from = world.now(&sites);
    let mut flows = Vec::new();
    for at in far.inner {
        let (datagrams, udp) = server.bound("udp", at);
        let (listener, tcp) = server.listener("tcp", at);
        let (mine, local) = client.connected("udp", udp);
        client.send(mine, 10);
        server.answer(datagrams, 10);
        client.receive(mine, 10);
        flows.push(("udp", local, udp, 1));
        let (mine, local) = client.connected("tcp", tcp);
        let theirs = server.accept(listener);
        client.send(mine, 100);
        server.receive(theirs, 100);
        server.send(theirs, 100);
        client.receive(mine, 100);
        flows.push(("tcp", local, tcp, 2));
    }
    let entries = world.since(&from, &sites);
    for (transport, local, remote, at_least) in flows {
        for (flow, truth) in [
            (world.a.flow(transport, local, remote), client.truth),
            (world.b.flow(transport, remote, local), server.truth),
        ] {
            let owner = Expected::Owner(truth);
            case.judge("inner-output", flow.output(&entries), at_least, &owner);
            case.judge("inner-input", flow.input(&entries), at_least, &owner);
        }
    }
    let (wrapped, taken) = (
        Expected::Nobody(&["kernel-tunnel"]),
        Expected::Nobody(&["kernel-socket"]),
    );
    for (site, local, remote) in [
        (&world.a, near.outer, far.outer),
        (&world.b, far.outer, near.outer),
    ] {
        let flow = site.flow("udp", local, remote);
        // A handshake and what went through it.
        case.judge("outer-output", flow.output(&entries), 2, &wrapped);
        case.judge("outer-input", flow.input(&entries), 2, &taken);
    }
}
