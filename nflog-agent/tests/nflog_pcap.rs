//! Capture files: the fixtures say what was captured, survive reading and writing, and damaged or foreign files are read as far
//! as they go. `fixtures/README.md` says where each fixture comes from.
#![cfg(feature = "pcap")]

#[path = "nflog_pcap/files.rs"]
mod files;
#[path = "nflog_pcap/golden.rs"]
mod golden;

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use files::{BIG, Block, LITTLE, Order, foreign, pcap, pcapng};
use golden::{FIXTURES, conntrack};
use nflog_agent::nflog::pcap::{Precision, ReadError, Reader, Record, SNAPLEN_MAX, WriteError, Writer};
use nflog_agent::nflog::{Entry, EntryBuf, Family, Problems};
use proptest::prelude::*;

const TCPDUMP: &[u8] = include_bytes!("fixtures/tcpdump.pcap");
const TSHARK: &[u8] = include_bytes!("fixtures/tshark.pcapng");
const CONNTRACK: &[u8] = include_bytes!("fixtures/conntrack.pcap");
const LINKTYPE_ETHERNET: u32 = 1;
const LINKTYPE_NFLOG: u32 = 239;

/// A record that owns its bytes.
type Owned = (Duration, EntryBuf);

fn owned(record: &Record<'_>) -> Owned {
    (record.timestamp, record.entry.to_buf())
}

/// All records of a file, and how it ended.
fn read(file: &[u8]) -> (Vec<Owned>, Option<ReadError>) {
    let mut records = Vec::new();
    let mut reader = match Reader::new(file) {
        Ok(reader) => reader,
        Err(error) => return (records, Some(error)),
    };
    loop {
        match reader.next_entry() {
            Ok(Some(record)) => records.push(owned(&record)),
            Ok(None) => return (records, None),
            Err(error) => {
                assert!(
                    reader.next_entry().unwrap().is_none(),
                    "{error} did not end the file"
                );
                return (records, Some(error));
            }
        }
    }
}

#[track_caller]
fn read_whole(file: &[u8]) -> Vec<Owned> {
    let (records, error) = read(file);
    assert!(error.is_none(), "{error:?}");
    records
}

/// Reads a file and writes it again.
fn copy(file: &[u8], precision: Precision) -> Vec<u8> {
    let mut reader = Reader::new(file).unwrap();
    let mut writer = Writer::with_options(Vec::new(), precision, SNAPLEN_MAX).unwrap();
    while let Some(record) = reader.next_entry().unwrap() {
        writer.write_record(&record).unwrap();
    }
    writer.into_inner().unwrap()
}

/// A body with a payload of `length` bytes.
fn body(length: u8) -> Vec<u8> {
    let payload = (0..length).collect();
    EntryBuf {
        payload,
        ..EntryBuf::new(Family::Inet, 5)
    }
    .encode()
    .unwrap()
}

#[test]
fn every_fixture_says_what_was_captured() {
    for (name, file, expected) in FIXTURES {
        let expected = expected();
        let records = read_whole(file);
        for (number, (record, expected)) in records.iter().zip(&expected).enumerate() {
            assert_eq!(record.1, *expected, "{name}, packet {number}");
            // The kernel's time, or when it was received, which is later than the first packet.
            match expected.timestamp {
                Some(timestamp) => assert_eq!(record.0, timestamp, "{name}, packet {number}"),
                None => assert!(record.0 > Duration::from_secs(1_795_518_000), "{name}"),
            }
        }
        assert_eq!(records.len(), expected.len(), "{name}");
    }
}

#[test]
fn the_network_header_is_found_in_every_fixture() {
    for (name, file, _) in FIXTURES {
        for (_, entry) in read_whole(file) {
            let start: &[u8] = match entry.hw_protocol {
                Some(0x0800) => &[0x45],
                Some(0x86dd) => &[0x60],
                // Hardware type Ethernet, protocol IPv4.
                _ => &[0, 1, 8, 0],
            };
            assert!(entry.network_payload().starts_with(start), "{name}: {entry:?}");
        }
    }
}

#[test]
fn conntrack_entries_come_whole_and_raw() {
    let records = read_whole(CONNTRACK);
    assert_eq!(records.len(), 6);
    for ((_, entry), (prefix, info, ct)) in records.iter().zip(conntrack()) {
        assert_eq!(entry.prefix_lossy(), prefix);
        assert_eq!(entry.ct_info, Some(info));
        let found = entry.ct.as_ref().unwrap();
        assert!(found.starts_with(&ct), "{found:02x?}");
        assert_eq!(entry.problems, Problems::NONE);
    }
}

#[test]
fn every_fixture_is_encoded_to_the_bytes_that_the_kernel_wrote() {
    let files = FIXTURES.iter().map(|(_, file, _)| *file);
    for file in files.chain([CONNTRACK, TCPDUMP, TSHARK]) {
        let mut reader = Reader::new(file).unwrap();
        let mut count = 0;
        while let Some(record) = reader.next_entry().unwrap() {
            assert!(!record.truncated());
            assert_eq!(record.entry.to_buf().encode().unwrap(), record.entry.as_bytes());
            count += 1;
        }
        assert!(count > 0);
    }
}

#[test]
fn every_fixture_is_written_as_it_was_read() {
    let files = FIXTURES.iter().map(|(_, file, _)| *file);
    for file in files.chain([CONNTRACK]) {
        assert_eq!(copy(file, Precision::Nanos), file);
    }
    assert_eq!(copy(TCPDUMP, Precision::Micros), TCPDUMP);
    // The same packets as pcapng.
    assert_eq!(copy(TSHARK, Precision::Micros), TCPDUMP);
}

#[test]
fn files_of_the_other_byte_order_say_the_same() {
    let files = FIXTURES.iter().map(|(_, file, _)| *file);
    for file in files.chain([CONNTRACK]) {
        let foreign = foreign(file);
        assert_ne!(foreign, file);
        assert_eq!(read_whole(&foreign), read_whole(file));
        assert_eq!(copy(&foreign, Precision::Nanos), file);
    }
    assert_eq!(read_whole(&foreign(TCPDUMP)), read_whole(TCPDUMP));
}

#[test]
fn a_file_cut_anywhere_gives_every_whole_record_and_then_an_error() {
    for file in [CONNTRACK, TCPDUMP, TSHARK] {
        let whole = read_whole(file);
        let mut ends = 0;
        for length in 0..file.len() {
            let (records, error) = read(&file[..length]);
            assert_eq!(records, whole[..records.len()], "at {length}");
            match error {
                Some(ReadError::Truncated { offset }) => assert!(offset <= length as u64),
                None => ends += 1,
                Some(error) => panic!("at {length}: {error}"),
            }
        }
        // It may end only where a record begins, or another block.
        assert!(ends >= whole.len() && ends < whole.len() + 4, "{ends}");
    }
}

#[test]
fn other_files_are_refused_with_what_they_are() {
    let error = |file: &[u8]| read(file).1.unwrap();
    assert!(matches!(error(b"<xml>"), ReadError::Format { magic } if &magic == b"<xml"));
    let ethernet = pcap(LITTLE, LINKTYPE_ETHERNET, &[]);
    let refused = error(&ethernet);
    assert!(matches!(
        refused,
        ReadError::LinkType {
            offset: 0,
            link_type: 1
        }
    ));
    assert!(
        refused
            .to_string()
            .contains("link type 1 at byte 0 is not 239 (NFLOG)")
    );
    let mut version = pcap(BIG, LINKTYPE_NFLOG, &[]);
    version[7] = 3;
    assert!(matches!(
        error(&version),
        ReadError::Version { major: 2, minor: 3 }
    ));
    let mut long = pcap(BIG, LINKTYPE_NFLOG, &[&body(4)]);
    long[24 + 8..24 + 12].copy_from_slice(&(SNAPLEN_MAX + 1).to_be_bytes());
    assert!(matches!(
        error(&long),
        ReadError::TooLong {
            offset: 24,
            length: 262_145,
            ..
        }
    ));
    let short = pcap(LITTLE, LINKTYPE_NFLOG, &[&[2, 0, 0]]);
    let mut reader = Reader::new(&short[..]).unwrap();
    assert!(matches!(
        reader.next_entry(),
        Err(ReadError::NotAnEntry {
            offset: 24,
            length: 3
        })
    ));
}

#[test]
fn a_record_that_is_no_entry_does_not_hide_the_next() {
    let file = pcap(LITTLE, LINKTYPE_NFLOG, &[&[2, 0, 0], &body(4)]);
    let mut reader = Reader::new(&file[..]).unwrap();
    assert!(reader.next_entry().is_err());
    assert_eq!(
        reader.next_entry().unwrap().unwrap().entry.payload(),
        [0, 1, 2, 3]
    );
    assert!(reader.next_entry().unwrap().is_none());
}

#[test]
fn pcapng_packets_that_cannot_be_read_are_reported_and_do_not_hide_the_next() {
    for order in [LITTLE, BIG] {
        let file = pcapng(
            order,
            &[
                Block::Interface(LINKTYPE_ETHERNET, None, None),
                Block::Interface(LINKTYPE_NFLOG, None, None),
                Block::Packet(0, 1, &[0; 60]),
                Block::Other(3, &[0; 20]),
                Block::Other(0x0bad, &[0; 600_000]),
                Block::Other(2, &[0; 40]),
                Block::Packet(1, 2_000_001, &body_of(order)),
            ],
        );
        let mut reader = Reader::new(&file[..]).unwrap();
        assert!(matches!(
            reader.next_entry(),
            Err(ReadError::LinkType { link_type: 1, .. })
        ));
        assert!(matches!(
            reader.next_entry(),
            Err(ReadError::PacketBlock { kind: 3, .. })
        ));
        assert!(matches!(
            reader.next_entry(),
            Err(ReadError::PacketBlock { kind: 2, .. })
        ));
        let record = reader.next_entry().unwrap().unwrap();
        assert_eq!(record.entry.payload(), [0, 1, 2, 3, 4]);
        assert_eq!(record.timestamp, Duration::from_micros(2_000_001));
        assert!(reader.next_entry().unwrap().is_none());
    }
}

fn body_of(order: Order) -> Vec<u8> {
    let mut body = body(5);
    if order != Order::NATIVE {
        files::turn(&mut body[4..], false);
    }
    body
}

#[test]
fn pcapng_interfaces_say_what_their_times_mean() {
    let second = 1_u64 << 20;
    for order in [LITTLE, BIG] {
        for (resolution, offset, units, expected) in [
            (None, None, 1_500_000, Duration::new(1, 500_000_000)),
            (Some(9), None, 1_500_000_001, Duration::new(1, 500_000_001)),
            (Some(0), Some(10), 7, Duration::from_secs(17)),
            (
                Some(0x80 | 20),
                None,
                second + second / 2,
                Duration::new(1, 500_000_000),
            ),
            (Some(12), Some(-1), 2_000_000_000_999, Duration::from_secs(1)),
            (Some(38), None, u64::MAX, Duration::ZERO),
        ] {
            let interface = Block::Interface(LINKTYPE_NFLOG, resolution, offset);
            let file = pcapng(order, &[interface, Block::Packet(0, units, &body_of(order))]);
            assert_eq!(read_whole(&file)[0].0, expected, "{resolution:?}");
        }
        // No number of units a second, and a time before the epoch.
        for (resolution, offset) in [(39, 0), (0, -8)] {
            let interface = Block::Interface(LINKTYPE_NFLOG, Some(resolution), Some(offset));
            let file = pcapng(order, &[interface, Block::Packet(0, 7, &body_of(order))]);
            assert!(matches!(read(&file).1, Some(ReadError::Block { .. })));
        }
    }
}

#[test]
fn pcapng_sections_forget_the_interfaces_of_those_before() {
    let section = |order, blocks: &[Block<'_>]| pcapng(order, blocks);
    let nflog = Block::Interface(LINKTYPE_NFLOG, None, None);
    let mut file = section(LITTLE, &[nflog, Block::Packet(0, 1, &body_of(LITTLE))]);
    file.extend(section(BIG, &[nflog, Block::Packet(0, 2, &body_of(BIG))]));
    assert_eq!(read_whole(&file).len(), 2);
    file.extend(section(BIG, &[Block::Packet(0, 3, &body_of(BIG))]));
    let (records, error) = read(&file);
    assert_eq!(records.len(), 2);
    assert!(matches!(error, Some(ReadError::Interface { interface: 0, .. })));
    let many = vec![nflog; 4097];
    let (_, error) = read(&section(LITTLE, &many));
    assert!(matches!(error, Some(ReadError::Interfaces { max: 4096, .. })));
}

#[test]
fn blocks_that_contradict_themselves_end_the_file() {
    let packet = body_of(LITTLE);
    let file = pcapng(
        LITTLE,
        &[
            Block::Interface(LINKTYPE_NFLOG, None, None),
            Block::Other(7, &[0; 8]),
            Block::Packet(0, 1, &packet),
        ],
    );
    let packet_at = file.len() - 32 - packet.len();
    for (at, byte) in [
        // Lengths: not a multiple of 4, below the least, of the end of a block.
        (28 + 20 + 4, 21),
        (28 + 20 + 4, 8),
        (28 + 20 + 16, 24),
        // A captured length beyond the block.
        (packet_at + 20, 0xff),
        (packet_at + 22, 0xff),
        // Byte order of the section.
        (8, 0),
    ] {
        let mut damaged = file.clone();
        damaged[at] = byte;
        let (records, error) = read(&damaged);
        assert_eq!(records, []);
        assert!(
            matches!(error, Some(ReadError::Block { .. } | ReadError::Truncated { .. })),
            "{at}: {error:?}"
        );
    }
    let mut long = file;
    long[packet_at + 6] = 0x10;
    assert!(matches!(read(&long).1, Some(ReadError::TooLong { .. })));
}

#[test]
fn records_are_cut_to_the_snapshot_length_and_say_so() {
    let body = body(40);
    let entry = Entry::decode(&body).unwrap();
    let mut writer = Writer::with_options(Vec::new(), Precision::Nanos, 32).unwrap();
    writer.write(&entry, SystemTime::now()).unwrap();
    let file = writer.into_inner().unwrap();
    assert_eq!(file.len(), 24 + 16 + 32);
    let mut reader = Reader::new(&file[..]).unwrap();
    let record = reader.next_entry().unwrap().unwrap();
    assert!(record.truncated());
    assert_eq!(record.original_length as usize, body.len());
    assert_eq!(record.entry.as_bytes(), &body[..32]);
    assert!(record.entry.problems().contains(Problems::BAD_LENGTH));
    // It is still cut after another copy, byte for byte.
    assert_eq!(copy(&file, Precision::Nanos)[24..], file[24..]);
    for value in [0, SNAPLEN_MAX + 1] {
        let refused = Writer::with_options(Vec::new(), Precision::Nanos, value).unwrap_err();
        assert!(matches!(refused, WriteError::Snaplen { value: refused } if refused == value));
    }
}

#[test]
fn a_message_whose_last_attribute_was_not_padded_is_padded() {
    let body = body(5);
    let entry = Entry::decode(&body[..body.len() - 3]).unwrap();
    let mut writer = Writer::new(Vec::new()).unwrap();
    writer.write(&entry, SystemTime::now()).unwrap();
    let file = writer.into_inner().unwrap();
    assert_eq!(file[24 + 16..], body);
    let mut reader = Reader::new(&file[..]).unwrap();
    assert!(!reader.next_entry().unwrap().unwrap().truncated());
}

#[test]
fn times_are_the_kernels_or_of_receipt_and_have_the_precision_of_the_file() {
    let stamped = EntryBuf {
        timestamp: Some(Duration::new(7, 5000)),
        ..EntryBuf::new(Family::Inet, 5)
    }
    .encode()
    .unwrap();
    let bare = body(4);
    let received = SystemTime::UNIX_EPOCH + Duration::new(u32::MAX.into(), 123_456_789);
    for (precision, fraction) in [(Precision::Micros, 123_456_000), (Precision::Nanos, 123_456_789)] {
        let mut writer = Writer::with_options(Vec::new(), precision, SNAPLEN_MAX).unwrap();
        for body in [&stamped, &bare] {
            writer.write(&Entry::decode(body).unwrap(), received).unwrap();
        }
        let times: Vec<_> = read_whole(&writer.into_inner().unwrap())
            .into_iter()
            .map(|(time, _)| time)
            .collect();
        assert_eq!(
            times,
            [Duration::new(7, 5000), Duration::new(u32::MAX.into(), fraction)]
        );
    }
    let mut writer = Writer::new(Vec::new()).unwrap();
    let entry = Entry::decode(&bare).unwrap();
    let late = writer
        .write(&entry, received + Duration::from_secs(1))
        .unwrap_err();
    assert!(matches!(late, WriteError::Time { .. }));
    let early = writer
        .write(&entry, SystemTime::UNIX_EPOCH - Duration::from_secs(3))
        .unwrap_err();
    assert!(matches!(early, WriteError::BeforeEpoch { before } if before == Duration::from_secs(3)));
    // Neither ended the file.
    writer.write(&entry, received).unwrap();
    assert_eq!(read_whole(&writer.into_inner().unwrap()).len(), 1);
}

/// Takes some bytes, then has no room.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        if taken == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn nothing_follows_a_record_that_could_not_be_written() {
    let body = body(4);
    let entry = Entry::decode(&body).unwrap();
    let mut writer = Writer::new(Full(50)).unwrap();
    let error = writer.write(&entry, SystemTime::now()).unwrap_err();
    assert!(matches!(&error, WriteError::Io { source } if source.kind() == io::ErrorKind::StorageFull));
    let again = writer.write(&entry, SystemTime::now()).unwrap_err();
    assert!(matches!(again, WriteError::Ended));
    assert!(Writer::new(Full(10)).is_err());
}

/// Fails after some bytes.
struct Broken<'a>(&'a [u8]);

impl io::Read for Broken<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        // A byte at a time, as a slow pipe.
        self.0.read(&mut buffer[..1])
    }
}

#[test]
fn errors_of_the_file_below_are_passed_on_and_short_reads_are_none() {
    let mut reader = Reader::new(Broken(TCPDUMP)).unwrap();
    for expected in read_whole(TCPDUMP) {
        assert_eq!(owned(&reader.next_entry().unwrap().unwrap()), expected);
    }
    let error = reader.next_entry().unwrap_err();
    assert!(matches!(error, ReadError::Io { source } if source.kind() == io::ErrorKind::ConnectionReset));
}

proptest! {
    #[test]
    fn no_bytes_panic(start in 0_usize..4, bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let head = [&TCPDUMP[..24], &foreign(TCPDUMP)[..24], &TSHARK[..4], &[]][start].to_vec();
        let (records, _) = read(&[head, bytes].concat());
        prop_assert!(records.len() <= 400 / 16);
    }

    #[test]
    fn damaged_files_come_to_an_end(
        number in 0_usize..4, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        let mut file = [TCPDUMP, TSHARK, CONNTRACK, FIXTURES[0].1][number].to_vec();
        for (place, byte) in changes {
            let place = place.index(file.len());
            file[place] = byte;
        }
        let Ok(mut reader) = Reader::new(&file[..]) else { return Ok(()) };
        // Every step takes bytes away.
        for _ in 0..=file.len() {
            if let Ok(None) = reader.next_entry() {
                return Ok(());
            }
        }
        prop_assert!(false, "it does not end");
    }
}
