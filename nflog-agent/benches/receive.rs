//! What a logged packet costs its sender and its reader, by the settings of the group; and `recvmmsg` beside `recv`. Needs root.
//!
//! Single-threaded, so that nothing else is measured: packets are sent until a backlog waits at the socket, which is then read to
//! the end. A backlog is the best case of `recvmmsg`: a reader that keeps up finds one datagram at a time.

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nflog_agent::nflog::{Config, Entry, Frame, Frames, Nflog};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, NetlinkAddr, recv, recvmmsg};
use support::Netns;

const GROUP: u16 = 5;
const PORT: u16 = 7777;
/// Larger than the longest datagram of any setting here.
const BUFFER: usize = 256 * 1024;
/// Datagrams that one `recvmmsg` takes.
const AT_ONCE: usize = 16;
/// A round's figures are those of its fastest repetition: what is slower was disturbed.
const REPETITIONS: usize = 5;

/// Settings of a group.
#[derive(Clone, Copy)]
struct Setting {
    name: &'static str,
    nlbufsiz: u32,
    qthresh: u32,
}

/// The first is what the others are compared with.
const SETTINGS: [Setting; 4] = [
    Setting {
        name: "about the kernel's defaults",
        nlbufsiz: 4096,
        qthresh: 100,
    },
    Setting {
        name: "each packet at once",
        nlbufsiz: 4096,
        qthresh: 1,
    },
    Setting {
        name: "65216 bytes, 500 packets",
        nlbufsiz: 65_216,
        qthresh: 500,
    },
    Setting {
        name: "defaults of this library",
        nlbufsiz: 130_752,
        qthresh: 1000,
    },
];

/// How a backlog is read.
type Drain = fn(&mut Nflog) -> Read;

const DRAINS: [(&str, Drain); 3] = [
    ("Nflog::recv", library),
    ("recv", one_by_one),
    ("recvmmsg", many_at_once),
];

/// What was read.
#[derive(Clone, Copy, Default)]
struct Read {
    packets: u32,
    datagrams: u32,
}

impl Read {
    fn datagram(&mut self, bytes: &[u8]) {
        self.datagrams += 1;
        for frame in Frames::new(bytes) {
            if let Frame::Packet(body) = frame {
                self.packets += 1;
                black_box(Entry::decode(body));
            }
        }
    }
}

fn library(nflog: &mut Nflog) -> Read {
    let mut read = Read::default();
    while let Some(batch) = nflog.recv(Some(Duration::ZERO)).expect("the socket can be read") {
        read.datagrams += 1;
        for entry in batch {
            read.packets += 1;
            black_box(entry);
        }
    }
    read
}

fn one_by_one(nflog: &mut Nflog) -> Read {
    let mut buffer = vec![0; BUFFER];
    let mut read = Read::default();
    loop {
        match recv(nflog.as_fd().as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => read.datagram(&buffer[..length]),
            Err(Errno::EAGAIN) => return read,
            Err(error) => panic!("recv: {error}"),
        }
    }
}

fn many_at_once(nflog: &mut Nflog) -> Read {
    let mut buffers = vec![vec![0; BUFFER]; AT_ONCE];
    let mut headers = MultiHeaders::<NetlinkAddr>::preallocate(AT_ONCE, None);
    let mut read = Read::default();
    loop {
        let mut lengths = [0; AT_ONCE];
        {
            let mut slices: Vec<_> = buffers
                .iter_mut()
                .map(|buffer| [IoSliceMut::new(buffer)])
                .collect();
            let received = recvmmsg(
                nflog.as_fd().as_raw_fd(),
                &mut headers,
                slices.iter_mut(),
                MsgFlags::MSG_DONTWAIT,
                None,
            );
            match received {
                Ok(messages) => {
                    for (length, message) in lengths.iter_mut().zip(messages) {
                        *length = message.bytes;
                    }
                }
                Err(Errno::EAGAIN) => return read,
                Err(error) => panic!("recvmmsg: {error}"),
            }
        }
        for (buffer, length) in buffers.iter().zip(lengths).filter(|(_, length)| *length > 0) {
            read.datagram(&buffer[..length]);
        }
    }
}

/// Nanoseconds per packet.
#[derive(Clone, Copy)]
struct Cost {
    sender: f64,
    reader: f64,
    packets_per_datagram: f64,
}

/// Sends `count` packets and reads them.
fn round(netns: &Netns, setting: Setting, count: u32, drain: Drain) -> Cost {
    let config = Config::builder()
        .netns(netns.netns())
        .group(GROUP)
        .nlbufsiz(setting.nlbufsiz)
        .qthresh(setting.qthresh)
        .receive_buffer(256 << 20)
        .build()
        .expect("valid settings");
    let mut nflog = Nflog::open(&config).unwrap_or_else(|error| panic!("{error}"));
    let sender = netns.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback is up");
        let start = Instant::now();
        for _ in 0..count {
            socket
                .send_to(&[0; 64], ("127.0.0.1", PORT))
                .expect("loopback takes it");
        }
        start.elapsed()
    });
    // The last batch is flushed after 10 ms.
    std::thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    let read = drain(&mut nflog);
    let reader = start.elapsed();
    assert_eq!(
        read.packets, count,
        "packets were lost: the figures would mean nothing"
    );
    let per_packet = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(count);
    Cost {
        sender: per_packet(sender),
        reader: per_packet(reader),
        packets_per_datagram: f64::from(count) / f64::from(read.datagrams),
    }
}

fn fastest(costs: impl Iterator<Item = Cost>) -> Cost {
    costs
        .reduce(|best, cost| Cost {
            sender: best.sender.min(cost.sender),
            reader: best.reader.min(cost.reader),
            ..best
        })
        .expect("at least one repetition")
}

fn main() {
    // `cargo bench` says so; `cargo test --benches` only wants to see it run.
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let (count, repetitions) = if measuring {
        (100_000, REPETITIONS)
    } else {
        (2000, 1)
    };
    let netns = Netns::new("bench");
    netns.nft(&format!(
        "table inet bench {{
            chain output {{
                type filter hook output priority 0
                udp dport {PORT} log group {GROUP}
            }}
        }}"
    ));
    println!(
        "{:28} {:>9} {:>16} {:>22} {:>22} {:>22}",
        "setting",
        "packets",
        "sender ns/packet",
        "Nflog::recv ns/packet",
        "recv ns/packet",
        "recvmmsg ns/packet"
    );
    let mut first: Option<[f64; 4]> = None;
    for setting in SETTINGS {
        let costs =
            DRAINS.map(|(_, drain)| fastest((0..repetitions).map(|_| round(&netns, setting, count, drain))));
        let sender = costs.iter().map(|cost| cost.sender).fold(f64::INFINITY, f64::min);
        let [library, single, many] = costs.map(|cost| cost.reader);
        let row = [sender, library, single, many];
        let base = *first.get_or_insert(row);
        let cells: Vec<_> = row
            .iter()
            .zip(base)
            .map(|(value, base)| format!("{value:.0} (x{:.2})", value / base))
            .collect();
        println!(
            "{:28} {:>9.1} {:>16} {:>22} {:>22} {:>22}",
            setting.name, costs[0].packets_per_datagram, cells[0], cells[1], cells[2], cells[3]
        );
    }
    println!("packets: per datagram. (xN): ratio to the first row.");
}
