//! The kernel probes load and attach on this kernel. Skips, loudly, only on a kernel built without kprobes.

mod support;

use nflog_agent::nflog::Netns;
use nflog_agent::owner::{MapSizes, Probes, ProbesError};
use nflog_common::Stat;

/// The probes, or `None` on a kernel that provably has no kprobes.
fn open(groups: &[u16]) -> Option<Probes> {
    open_with(groups, MapSizes::default())
}

fn open_with(groups: &[u16], sizes: MapSizes) -> Option<Probes> {
    match Probes::open_with(groups, None, sizes) {
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
    assert_eq!(counts[Stat::Seeded as usize], seeded.sockets);
    for failure in [
        Stat::SocketMapError,
        Stat::TupleMapError,
        Stat::PortMapError,
        Stat::ReadError,
    ] {
        assert_eq!(counts[failure as usize], 0, "{}: {counts:?}", failure.name());
    }
}

#[test]
fn probes_count_the_sockets_they_see() {
    let Some(probes) = open(&[7]) else { return };
    let before = probes.counters().read().unwrap().map(|(_, count)| count);
    let stamped = Stat::Stamped as usize;
    let died = Stat::Died as usize;
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
    assert_eq!(after[Stat::ReadError as usize], 0, "{after:?}");
}

fn counted(probes: &Probes, stat: Stat) -> u64 {
    probes.counters().read().unwrap()[stat as usize].1
}

/// Sends datagrams over a rule that logs each of them once.
fn log(netns: &support::Netns, datagrams: u32) {
    netns.run(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        for _ in 0..datagrams {
            socket.send_to(b"answer", to).unwrap();
        }
    });
}

fn logging() -> support::Netns {
    let netns = support::Netns::new("answers");
    netns.nft(
        "table ip t {
            chain out {
                type filter hook output priority 0
                udp dport > 0 log group 7
            }
        }",
    );
    netns
}

#[test]
fn answers_that_nobody_reads_are_lost_and_counted() {
    const ROOM: u32 = 4096;
    const SENT: u32 = 200;
    let sizes = MapSizes {
        answers: ROOM,
        ..MapSizes::default()
    };
    let Some(probes) = open_with(&[7], sizes) else {
        return;
    };
    let netns = logging();
    let inode = Netns::Path(netns.path()).inode().unwrap();
    let _lookup = probes.lookup(inode).unwrap();
    log(&netns, SENT);
    assert_eq!(counted(&probes, Stat::Logged), u64::from(SENT));
    let kept = ROOM / 152;
    assert_eq!(counted(&probes, Stat::AnswerLost), u64::from(SENT - kept));
}

#[test]
fn only_namespaces_that_are_read_are_answered_for() {
    let Some(probes) = open(&[7]) else { return };
    let netns = logging();
    let inode = Netns::Path(netns.path()).inode().unwrap();
    log(&netns, 10);
    assert_eq!(counted(&probes, Stat::Logged), 0);
    let lookup = probes.lookup(inode).unwrap();
    log(&netns, 10);
    assert_eq!(counted(&probes, Stat::Logged), 10);
    drop(lookup);
    log(&netns, 10);
    assert_eq!(counted(&probes, Stat::Logged), 10);
}
