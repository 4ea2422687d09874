//! A sender whose packets are numbered: the number is in the destination address, so that each record shows it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use crate::seen::Seen;
use crate::support::{Netns, wait_for};

/// Logs what the sender sends.
pub(crate) const RULES: &str = "
    table inet t {
        chain out {
            type filter hook output priority 0
            ip daddr 127.64.0.0/10 udp dport 4242 counter log prefix \"flood \" group 7 comment \"sent\"
        }
    }";

/// Numbers below 2^22 from here on are addresses of the loopback device.
const FIRST: u32 = 0x7f40_0000;

fn address(number: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(FIRST + number), 4242)
}

/// The number of a record's packet.
pub(crate) fn number(record: &Seen) -> u32 {
    let address: Ipv4Addr = record.text("destination.address").unwrap().parse().unwrap();
    u32::from(address) - FIRST
}

/// The numbers of records, each of which must be there once.
#[track_caller]
pub(crate) fn numbers<'a>(records: impl IntoIterator<Item = &'a Seen>) -> BTreeSet<u32> {
    let mut numbers = BTreeSet::new();
    for record in records {
        let number = number(record);
        assert!(numbers.insert(number), "packet {number} came out twice");
    }
    numbers
}

/// Sends about four thousand packets per second until it is told to stop.
pub(crate) struct Sender {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    thread: JoinHandle<()>,
}

impl Sender {
    pub(crate) fn start(netns: &Netns) -> Self {
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let thread = {
            let (stop, sent, netns) = (Arc::clone(&stop), Arc::clone(&sent), netns.netns());
            spawn(move || {
                let flood = || {
                    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                    while !stop.load(Ordering::Acquire) {
                        for _ in 0..5 {
                            send(&socket, &sent);
                        }
                        sleep(Duration::from_millis(1));
                    }
                };
                netns.run(flood).unwrap();
            })
        };
        Self { stop, sent, thread }
    }

    /// Packets sent so far.
    pub(crate) fn sent(&self) -> u32 {
        self.sent.load(Ordering::Acquire)
    }

    /// Waits until so many more are sent; returns how many there are then.
    #[track_caller]
    pub(crate) fn wait_for_more(&self, packets: u32) -> u32 {
        let wanted = self.sent() + packets;
        wait_for("packets to be sent", || {
            (self.sent() >= wanted).then(|| self.sent())
        })
    }

    /// Ends it; returns how many it has sent.
    pub(crate) fn stop(self) -> u32 {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap();
        self.sent.load(Ordering::Acquire)
    }
}

/// Sends so many at once, the first with number `from`.
pub(crate) fn burst(netns: &Netns, from: u32, packets: u32) {
    netns.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sent = AtomicU32::new(from);
        for _ in 0..packets {
            send(&socket, &sent);
        }
    });
}

fn send(socket: &UdpSocket, sent: &AtomicU32) {
    let next = sent.load(Ordering::Relaxed);
    socket.send_to(b"numbered", address(next)).unwrap();
    sent.store(next + 1, Ordering::Release);
}
