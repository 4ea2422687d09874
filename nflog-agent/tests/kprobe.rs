//! The kernel probes load and attach on this kernel. Skips, loudly, only on a kernel built without kprobes.

use nflog_agent::owner::{Probes, ProbesError};

/// The probes, or `None` on a kernel that provably has no kprobes.
fn open(groups: &[u16]) -> Option<Probes> {
    match Probes::open(groups, None) {
        Ok(probes) => Some(probes),
        Err(ProbesError::NoKprobes) => {
            eprintln!("SKIPPED: {}", ProbesError::NoKprobes);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn every_probe_attaches() {
    let Some(probes) = open(&[7]) else { return };
    let missing: Vec<_> = probes.missing().iter().map(ToString::to_string).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn sockets_that_are_there_already_are_seeded_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let _again = listener.try_clone().unwrap();
    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let _server = listener.accept().unwrap();
    let _receiver = std::net::UdpSocket::bind("[::1]:0").unwrap();
    let Some(probes) = open(&[7]) else { return };
    let seeded = probes.seeded().unwrap_or_else(|error| panic!("{error}"));
    assert!(seeded.sockets >= 4, "{seeded:?}");
    let counts = probes.counters().read().unwrap().map(|(_, count)| count);
    assert_eq!(counts[nflog_common::Stat::Seeded as usize], seeded.sockets);
    for failure in [
        nflog_common::Stat::SocketMapError,
        nflog_common::Stat::TupleMapError,
        nflog_common::Stat::PortMapError,
        nflog_common::Stat::ReadError,
    ] {
        assert_eq!(counts[failure as usize], 0, "{}: {counts:?}", failure.name());
    }
}

#[test]
fn probes_count_the_sockets_they_see() {
    let Some(probes) = open(&[7]) else { return };
    let before = probes.counters().read().unwrap().map(|(_, count)| count);
    let stamped = nflog_common::Stat::Stamped as usize;
    let died = nflog_common::Stat::Died as usize;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let now = probes.counters().read().unwrap().map(|(_, count)| count);
    assert!(
        now[stamped] >= before[stamped] + 3,
        "listener, client and child: {before:?} {now:?}"
    );
    drop((client, server, listener));
    let after = probes.counters().read().unwrap().map(|(_, count)| count);
    assert!(after[died] > before[died], "{before:?} {after:?}");
    assert_eq!(after[nflog_common::Stat::ReadError as usize], 0, "{after:?}");
}
