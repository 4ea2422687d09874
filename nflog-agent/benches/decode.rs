//! Decoding one entry of a datagram: ours beside netlink-packet-netfilter, on the same bytes.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use netlink_packet_core::NetlinkMessage;
use netlink_packet_netfilter::NetfilterMessage;
use nflog_agent::nflog::{Entry, Frame, Frames};

/// Appends an attribute.
fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("short values");
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// What the kernel writes for a packet in the output hook, with 96 bytes of payload.
fn message() -> Vec<u8> {
    let mut message = vec![0; 4];
    message.extend(0x0400_u16.to_ne_bytes());
    message.extend([0; 10]);
    message.extend([2, 0, 0, 5]);
    attribute(&mut message, 1, &[0x08, 0x00, 3, 0]);
    attribute(&mut message, 10, b"accept web\0");
    attribute(&mut message, 5, &[0, 0, 0, 2]);
    attribute(&mut message, 2, &[0, 0, 0, 42]);
    attribute(&mut message, 11, &[0, 0, 0x03, 0xe8]);
    attribute(&mut message, 14, &[0, 0, 0x03, 0xe8]);
    attribute(&mut message, 12, &[0, 0, 0, 7]);
    attribute(&mut message, 13, &[0, 0, 0, 8]);
    attribute(&mut message, 9, &[0x45; 96]);
    let length = u32::try_from(message.len()).expect("a short message");
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message
}

fn ours(datagram: &[u8]) -> Option<Entry<'_>> {
    match Frames::new(datagram).next() {
        Some(Frame::Packet(body)) => Entry::decode(body),
        _ => None,
    }
}

fn decode(criterion: &mut Criterion) {
    let message = message();
    // Both must understand it, or the comparison means nothing.
    let entry = ours(&message).expect("a packet");
    assert!(entry.problems().is_empty() && entry.payload().len() == 96);
    NetlinkMessage::<NetfilterMessage>::deserialize(&message).expect("a packet");

    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(1));
    group.bench_function("nflog-agent", |bencher| {
        bencher.iter(|| ours(black_box(&message)));
    });
    group.bench_function("netlink-packet-netfilter", |bencher| {
        bencher.iter(|| NetlinkMessage::<NetfilterMessage>::deserialize(black_box(&message)));
    });
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
