//! How much a record takes on its way: what the guide to many nodes says, measured on real packets and real requests.
#![cfg(feature = "agent")]

#[allow(dead_code, reason = "shared with the agent's tests")]
#[path = "agent/program.rs"]
mod program;
mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use program::Agent;
use support::Netns;

const PACKETS: u32 = 20_000;

/// The rows of the guide's table: its words, the settings that they stand for.
const ROWS: [(&str, &str, &str); 4] = [
    ("none", "none", "ulid"),
    ("gzip", "gzip", "ulid"),
    ("zstd", "zstd", "ulid"),
    ("zstd, `--record-id off`", "zstd", "off"),
];

/// Takes every request, and counts the bytes of those with logs.
fn collector() -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let bytes = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&bytes);
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let count = Arc::clone(&count);
            thread::spawn(move || serve(&connection, &count));
        }
    });
    (port, bytes)
}

fn serve(connection: &TcpStream, count: &AtomicU64) {
    let mut reader = BufReader::new(connection);
    let mut writer = connection;
    loop {
        let (mut length, mut logs) = (0, false);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim().to_lowercase();
            logs |= line.contains("/v1/logs");
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        if logs {
            count.fetch_add(length as u64, Ordering::Relaxed);
        }
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Datagrams of different sockets to different addresses and ports, as they would be on a busy host.
fn send(netns: &Netns) {
    netns.run(|| {
        let sockets: Vec<_> = (0..32)
            .map(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap())
            .collect();
        let mut random = 1_u32;
        for number in 0..PACKETS {
            // Numerical Recipes' generator: the same packets each time.
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [_, b, c, d] = random.to_be_bytes();
            let port = u16::from_be_bytes([b, c]).max(1);
            let socket = &sockets[number as usize % sockets.len()];
            // Nobody listens there.
            let _ = socket.send_to(&vec![0; d.into()], (Ipv4Addr::new(127, b, c, d.max(1)), port));
            if number % 500 == 0 {
                thread::sleep(Duration::from_millis(20));
            }
        }
    });
}

/// Bytes on the wire for each record.
fn measure(compression: &str, record_id: &str) -> f64 {
    let netns = Netns::new("scale");
    netns.nft(
        "table inet t { chain out { type filter hook output priority 0; meta l4proto udp log prefix \"egress-accept \" group 7; }; }",
    );
    let (port, bytes) = collector();
    let (place, endpoint) = (
        netns.path().display().to_string(),
        format!("http://127.0.0.1:{port}"),
    );
    let agent = Agent::start(
        &[
            "--group",
            "7",
            "--netns",
            &place,
            "--record-id",
            record_id,
            "--account-interval",
            "0s",
        ],
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", compression),
        ],
    );
    send(&netns);
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.messages());
    let records = ended.count("exported");
    assert_eq!(records, u64::from(PACKETS), "{}", ended.messages());
    let each = bytes.load(Ordering::Relaxed) as f64 / f64::from(PACKETS);
    println!("SIZE compression={compression} record-id={record_id} bytes-per-record={each:.0}");
    each
}

#[test]
fn a_record_takes_the_room_that_the_guide_says() {
    let guide = include_str!("../docs/scale.md");
    for (words, compression, record_id) in ROWS {
        let row = format!("| {words} | ");
        let said = guide.lines().find_map(|line| line.strip_prefix(&row));
        let said: f64 = said
            .and_then(|rest| rest.split(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("no row for {words}"));
        let measured = measure(compression, record_id);
        assert!(
            (0.8..1.25).contains(&(measured / said)),
            "{words}: {measured:.0} bytes a record, and the guide says {said}"
        );
    }
}
