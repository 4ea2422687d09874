//! Reading allocates nothing per packet: measured, with real packets. Needs root.
#![cfg(feature = "agent")]

mod support;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use nflog_agent::nflog::{Config, Conntrack, Flags, Nflog, TcpState, Warning};
use nflog_agent::packet::{Transport, dissect};
use support::{Netns, PATIENCE};

#[test]
fn receiving_decoding_and_dissecting_allocate_nothing() {
    const PACKETS: u32 = 5000;
    // The measure itself works.
    let boxed = measure(|| drop(std::hint::black_box(Box::new(1))));
    assert_eq!(boxed.count_total, 1);

    let netns = Netns::new("allocations");
    netns.nft(
        r#"table inet test {
            chain output {
                type filter hook output priority 0
                udp dport 7777 log prefix "counted" group 5
            }
        }"#,
    );
    let config = Config::builder().netns(netns.netns()).group(5).build().unwrap();
    let mut nflog = Nflog::open(&config).unwrap();
    netns.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..PACKETS {
            socket.send_to(b"payload", "127.0.0.1:7777").unwrap();
        }
    });
    let deadline = Instant::now() + PATIENCE;
    let mut read = 0;
    let allocations = measure(|| {
        while read < PACKETS && Instant::now() < deadline {
            let Some(batch) = nflog.recv(Some(Duration::from_millis(100))).unwrap() else {
                continue;
            };
            for entry in batch {
                let packet = dissect(
                    entry.hw_protocol(),
                    entry.family().number(),
                    entry.network_payload(),
                );
                assert!(matches!(
                    packet.transport,
                    Transport::Ports {
                        destination: 7777,
                        ..
                    }
                ));
                assert_eq!(&*entry.prefix_lossy(), "counted");
                read += 1;
            }
        }
        assert!(!nflog.loss().unwrap().pending);
    });
    assert_eq!(read, PACKETS);
    assert_eq!(allocations.count_total, 0, "{allocations:?}");
}

/// `CTA_*` attributes: a nested one has its parts as a value.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[test]
fn decoding_conntrack_allocates_nothing() {
    let addresses = [attribute(1, &[10, 0, 0, 1]), attribute(2, &[10, 0, 0, 2])];
    let proto = [attribute(1, &[6]), attribute(2, &[0, 1]), attribute(3, &[0, 2])];
    let tuple = [attribute(1, &addresses.concat()), attribute(2, &proto.concat())].concat();
    let counters = [attribute(1, &[0; 8]), attribute(2, &[0; 8])].concat();
    let tcp = attribute(1, &attribute(1, &[3]));
    let helper = attribute(1, b"ftp\0");
    let good = [
        attribute(1, &tuple),
        attribute(2, &tuple),
        attribute(3, &[0; 4]),
        attribute(4, &tcp),
        attribute(5, &helper),
        attribute(9, &counters),
        attribute(22, &[1; 16]),
    ]
    .concat();
    let bad = [
        attribute(1, &addresses.concat()),
        attribute(3, &[0]),
        attribute(99, &[]),
    ]
    .concat();
    let allocations = measure(|| {
        let entry = Conntrack::decode(&good);
        assert!(entry.problems().is_empty() && entry.original() == entry.reply());
        assert_eq!(entry.tcp_state(), Some(TcpState::Established));
        assert_eq!(entry.helper(), Some(&b"ftp"[..]));
        assert!(entry.original().is_some() && entry.original_counters().is_some() && entry.label_bit(0));
        assert!(!Conntrack::decode(&bad).problems().is_empty());
    });
    assert_eq!(allocations.count_total, 0, "{allocations:?}");
}

#[test]
fn reading_conntrack_of_real_packets_allocates_nothing() {
    const PACKETS: u32 = 500;
    let netns = Netns::new("conntrack-allocations");
    netns.nft(
        "table inet test {
            chain output {
                type filter hook output priority 0
                udp dport 7777 ct state new,established log group 5
            }
        }",
    );
    let config = Config::builder()
        .netns(netns.netns())
        .group(5)
        .flags(Flags::SEQ | Flags::CONNTRACK);
    let mut nflog = Nflog::open(&config.build().unwrap()).unwrap();
    if let [Warning::ConntrackRefused] = nflog.effective().warnings.as_slice() {
        println!("SKIPPED: this kernel cannot attach conntrack entries");
        return;
    }
    netns.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..PACKETS {
            socket.send_to(b"payload", "127.0.0.1:7777").unwrap();
        }
    });
    let deadline = Instant::now() + PATIENCE;
    let mut read = 0;
    let allocations = measure(|| {
        while read < PACKETS && Instant::now() < deadline {
            let Some(batch) = nflog.recv(Some(Duration::from_millis(100))).unwrap() else {
                continue;
            };
            for entry in batch {
                let original = entry.conntrack().and_then(|ct| ct.original());
                let ports = original.and_then(|tuple| tuple.ports());
                assert_eq!(ports.map(|(_, to)| to), Some(7777));
                assert!(entry.ct_state().is_some());
                read += 1;
            }
        }
    });
    assert_eq!(read, PACKETS);
    assert_eq!(allocations.count_total, 0, "{allocations:?}");
}
