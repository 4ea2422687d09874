//! Packets for the rules of a page: over loopback, or through its namespace.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::support::{Netns, veth, wait_for};

/// Neighbours of a router: a packet from `from` to `to` goes through it.
pub(crate) struct Neighbours {
    from: Netns,
    to: Netns,
    address: IpAddr,
}

impl Neighbours {
    pub(crate) fn of(router: &Netns) -> Self {
        let (from, to) = (Netns::new("docs-from"), Netns::new("docs-to"));
        let (near, _) = veth(router, &from);
        let (far, end) = veth(router, &to);
        router
            .run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
            .unwrap();
        from.ip(&format!("route add default via {}", near.v4));
        to.ip(&format!("route add default via {}", far.v4));
        Self {
            from,
            to,
            address: end.v4.into(),
        }
    }
}

/// Sends what `traffic` says, once.
pub(crate) fn send(traffic: &str, here: &Netns, neighbours: Option<&Neighbours>) -> Result<(), String> {
    for part in traffic.split(',').map(str::trim) {
        let (forward, part) = match part.strip_prefix("forward:") {
            Some(part) => (true, part),
            None => (false, part),
        };
        let (protocol, port) = part.split_once(':').ok_or(part)?;
        let port: u16 = port.parse().map_err(|_| format!("{part}: no port"))?;
        let (from, to, address) = match neighbours {
            Some(neighbours) if forward => (&neighbours.from, &neighbours.to, neighbours.address),
            _ => (here, here, [127, 0, 0, 1].into()),
        };
        let address = SocketAddr::new(address, port);
        match protocol {
            "udp" => from
                .run(|| {
                    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                    socket.send_to(b"hello", address)
                })
                .map(|_| ()),
            "tcp" => connect(from, to, address),
            _ => return Err(format!("{part}: no such traffic")),
        }
        .map_err(|error| format!("{part}: {error}"))?;
    }
    Ok(())
}

/// A connection to a listener that is there for it. Rules may drop it.
fn connect(from: &Netns, to: &Netns, address: SocketAddr) -> io::Result<()> {
    // Another test's thread that is between fork and exec holds a copy of the last one for an instant.
    let _listener = wait_for("the port", || match to.run(|| TcpListener::bind(address)) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => None,
        bound => Some(bound),
    })?;
    let connected = from.run(|| TcpStream::connect_timeout(&address, Duration::from_millis(300)));
    match connected {
        Err(error) if error.kind() != ErrorKind::TimedOut => Err(error),
        _ => Ok(()),
    }
}
