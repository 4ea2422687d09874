//! Reading allocates nothing per packet: measured, with real packets. Needs root.
#![cfg(feature = "agent")]

mod support;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use nflog_agent::nflog::{Config, Nflog};
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
