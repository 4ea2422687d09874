//! Owned entries: encoding and decoding them, and their forms in serde's formats, over any values. Pure, so that guests need
//! not run it.

use std::time::Duration;

use netlink_packet_core::ParseableParametrized as _;
use netlink_packet_netfilter::nflog::{PacketNla, ULogMessage};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use nflog_agent::nflog::{EncodeError, Entry, EntryBuf, Family, Hook, Problems, Vlan};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Message type of a logged packet.
const MSG_PACKET: u16 = 0x0400;
/// Attributes that are not known: 0, those that only config messages have, and the far end.
const UNKNOWN: [u16; 4] = [0, 22, 99, 0x3fff];

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=most)
}

fn vlan() -> impl Strategy<Value = Vlan> {
    any::<(u16, u16)>().prop_map(|(proto, tci)| Vlan { proto, tci })
}

/// Whole microseconds below 2^64 ns.
fn timestamp() -> impl Strategy<Value = Duration> {
    (0..=u64::MAX / 1000).prop_map(Duration::from_micros)
}

prop_compose! {
    fn devices()(
        indev in any::<Option<u32>>(), outdev in any::<Option<u32>>(),
        physindev in any::<Option<u32>>(), physoutdev in any::<Option<u32>>(),
        hwaddr in option::of(bytes(8)), hwtype in any::<Option<u16>>(),
        hwheader in option::of(bytes(32)), hwlen in any::<Option<u16>>(),
        vlan in option::of(vlan()), l2hdr in option::of(bytes(22)),
    ) -> EntryBuf {
        EntryBuf {
            indev, outdev, physindev, physoutdev, hwaddr, hwtype, hwheader, hwlen, vlan, l2hdr,
            ..EntryBuf::new(Family::Inet, 0)
        }
    }
}

prop_compose! {
    /// Any entry that a message can say, in full.
    fn entry()(
        devices in devices(), family in any::<u8>(), group in any::<u16>(), header in any::<Option<(u8, u16)>>(),
        numbers in any::<[Option<u32>; 6]>(), ct in option::of(bytes(64)), prefix in bytes(64),
        timestamp in option::of(timestamp()), payload in bytes(200),
    ) -> EntryBuf {
        let family = Family::from(family);
        let [mark, uid, gid, seq, seq_global, ct_info] = numbers;
        EntryBuf {
            family, group, mark, uid, gid, seq, seq_global, ct_info, ct, prefix, payload, timestamp,
            hook: header.map(|(hook, _)| Hook::new(family, hook)),
            hw_protocol: header.map(|(_, protocol)| protocol),
            problems: if header.is_some() { Problems::NONE } else { Problems::NO_PACKET_HDR },
            ..devices
        }
    }
}

fn decode(body: &[u8]) -> EntryBuf {
    Entry::decode(body).expect("an nfgenmsg is there").to_buf()
}

/// The attributes of a body, each with its header and padding.
fn attributes(body: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = &body[4..];
    let mut attributes = Vec::new();
    while let Some(&length) = rest.first_chunk() {
        let length = usize::from(u16::from_ne_bytes(length)).next_multiple_of(4);
        let (attribute, after) = rest.split_at(length);
        attributes.push(attribute.to_vec());
        rest = after;
    }
    attributes
}

fn unknown() -> impl Strategy<Value = Vec<u8>> {
    (prop::sample::select(&UNKNOWN[..]), bytes(9)).prop_map(|(kind, value)| {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut attribute = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        attribute.extend(value);
        attribute.resize(attribute.len().next_multiple_of(4), 0xee);
        attribute
    })
}

/// Compares what netlink-packet-netfilter reads with `entry`; the number of attributes that it could compare.
#[track_caller]
fn compare(entry: &EntryBuf, body: &[u8]) -> u32 {
    let message = NetfilterMessage::parse_with_param(body, MSG_PACKET).unwrap();
    let NetfilterMessageInner::ULog(ULogMessage::Packet(attributes)) = message.inner else {
        panic!("not a packet: {message:?}");
    };
    assert_eq!(
        (message.header.family, message.header.res_id),
        (entry.family.number().into(), entry.group)
    );
    let mut compared = 0;
    for attribute in attributes {
        compared += 1;
        match attribute {
            PacketNla::Mark(value) => assert_eq!(entry.mark, Some(value)),
            PacketNla::IfIndexInDev(value) => assert_eq!(entry.indev, Some(value)),
            PacketNla::IfIndexOutDev(value) => assert_eq!(entry.outdev, Some(value)),
            PacketNla::IfIndexPhysInDev(value) => assert_eq!(entry.physindev, Some(value)),
            PacketNla::IfIndexPhysOutDev(value) => assert_eq!(entry.physoutdev, Some(value)),
            PacketNla::Payload(value) => assert_eq!(entry.payload, value),
            PacketNla::Prefix(value) => assert_eq!(entry.prefix, value.as_bytes()),
            PacketNla::Uid(value) => assert_eq!(entry.uid, Some(value)),
            PacketNla::Gid(value) => assert_eq!(entry.gid, Some(value)),
            PacketNla::Seq(value) => assert_eq!(entry.seq, Some(value)),
            PacketNla::SeqGlobal(value) => assert_eq!(entry.seq_global, Some(value)),
            PacketNla::HwType(value) => assert_eq!(entry.hwtype, Some(value)),
            PacketNla::HwHeader(value) => assert_eq!(entry.hwheader, Some(value)),
            PacketNla::HwHeaderLen(value) => assert_eq!(entry.hwlen, Some(value)),
            // It hides or does not know the rest.
            _ => compared -= 1,
        }
    }
    compared
}

proptest! {
    #[test]
    fn an_entry_survives_encoding_and_decoding(entry in entry()) {
        let body = entry.encode().unwrap();
        prop_assert_eq!(body.len() % 4, 0);
        prop_assert_eq!(Entry::decode(&body).unwrap().as_bytes(), &body[..]);
        prop_assert_eq!(decode(&body), entry);
    }

    #[test]
    fn the_order_of_attributes_does_not_matter_and_unknown_ones_are_counted(
        (entry, shuffled, unknown) in (entry(), vec(unknown(), 0..4)).prop_flat_map(|(entry, unknown)| {
            let mut attributes = attributes(&entry.encode().unwrap());
            attributes.extend(unknown.clone());
            (Just(entry), Just(attributes).prop_shuffle(), Just(unknown.len()))
        })
    ) {
        let head = [&[entry.family.number(), 0], &entry.group.to_be_bytes()[..]].concat();
        let body = [head, shuffled.concat()].concat();
        let unknown_attributes = u32::try_from(unknown).unwrap();
        prop_assert_eq!(decode(&body), EntryBuf { unknown_attributes, ..entry });
    }

    #[test]
    fn of_an_attribute_that_is_there_twice_the_last_counts(entry in entry(), first in any::<u32>(), last in any::<u32>()) {
        let mark = |mark| EntryBuf { mark: Some(mark), ..EntryBuf::new(Family::Inet, 0) }.encode().unwrap();
        let body = [&entry.encode().unwrap()[..], &attributes(&mark(first)).concat(), &attributes(&mark(last)).concat()].concat();
        let read = decode(&body);
        prop_assert_eq!(read.mark, Some(last));
        // The two empty prefixes replace the entry's, all else stays.
        prop_assert_eq!(read, EntryBuf { mark: Some(last), prefix: vec![], ..entry });
    }

    #[test]
    fn another_implementation_reads_what_is_encoded(
        entry in entry(), text in "[ -~]{1,32}", known in prop::sample::select(&[2_u8, 3, 5, 7, 10][..])
    ) {
        let family = Family::from(known);
        let hook = entry.hook.map(|_| Hook::new(family, 1));
        // Attributes that it refuses when empty, and a prefix that it refuses when it is not text.
        let entry = EntryBuf { family, hook, prefix: text.into_bytes(), hwheader: Some(vec![1]), ..entry };
        let compared = compare(&entry, &entry.encode().unwrap());
        let present = [entry.mark, entry.indev, entry.outdev, entry.physindev, entry.physoutdev, entry.uid, entry.gid, entry.seq, entry.seq_global];
        let present = present.into_iter().flatten().count() + usize::from(!entry.payload.is_empty())
            + usize::from(entry.hwtype.is_some()) + usize::from(entry.hwlen.is_some());
        prop_assert_eq!(compared as usize, present + 2);
    }
}

#[test]
fn an_entry_that_no_message_says_is_refused_and_nothing_is_written() {
    let new = || EntryBuf::new(Family::Inet, 5);
    let family = Family::Other(2);
    let (hook, hw_protocol) = (Some(Hook::Egress), Some(0x0800));
    let timestamp = Duration::new(1, 1);
    let late = Duration::from_micros(u64::MAX / 1000 + 1);
    let cases = [
        (EntryBuf { family, ..new() }, EncodeError::NamedFamily { family }),
        (
            EntryBuf {
                hook,
                hw_protocol,
                ..new()
            },
            EncodeError::Hook {
                family: Family::Inet,
                hook: Hook::Egress,
            },
        ),
        (
            EntryBuf {
                hook: Some(Hook::Other(3)),
                hw_protocol,
                ..new()
            },
            EncodeError::Hook {
                family: Family::Inet,
                hook: Hook::Other(3),
            },
        ),
        (
            EntryBuf { hw_protocol, ..new() },
            EncodeError::HalfPacketHdr {
                hook: None,
                hw_protocol,
            },
        ),
        (
            EntryBuf {
                timestamp: Some(timestamp),
                ..new()
            },
            EncodeError::Timestamp { timestamp },
        ),
        (
            EntryBuf {
                timestamp: Some(late),
                ..new()
            },
            EncodeError::Timestamp { timestamp: late },
        ),
        (
            EntryBuf {
                payload: vec![0; 65_532],
                ..new()
            },
            EncodeError::TooLong {
                kind: 9,
                length: 65_532,
            },
        ),
        (
            EntryBuf {
                prefix: vec![0; 65_531],
                ..new()
            },
            EncodeError::TooLong {
                kind: 10,
                length: 65_532,
            },
        ),
        (
            EntryBuf {
                ct: Some(vec![0; 70_000]),
                ..new()
            },
            EncodeError::TooLong {
                kind: 18,
                length: 70_000,
            },
        ),
        (
            EntryBuf {
                hwaddr: Some(vec![0; 9]),
                ..new()
            },
            EncodeError::HardwareAddress { length: 9 },
        ),
    ];
    for (entry, error) in cases {
        let mut body = b"before".to_vec();
        assert_eq!(entry.encode_into(&mut body), Err(error));
        assert_eq!(body, b"before");
    }
    let longest = EntryBuf {
        payload: vec![7; 65_531],
        problems: Problems::NO_PACKET_HDR,
        ..new()
    };
    assert_eq!(decode(&longest.encode().unwrap()), longest);
}

#[test]
fn the_network_header_is_found_in_owned_entries_as_in_borrowed_ones() {
    let mut entry = EntryBuf {
        hook: Some(Hook::Egress),
        hw_protocol: Some(0x0800),
        payload: (0..40).collect(),
        ..EntryBuf::new(Family::Netdev, 5)
    };
    let borrowed = |entry: &EntryBuf| {
        let body = entry.encode().unwrap();
        Entry::decode(&body).unwrap().network_payload().to_vec()
    };
    // The header is what the kernel says it is.
    assert_eq!(entry.network_payload()[0], 0);
    assert_eq!(entry.network_payload(), borrowed(&entry));
    entry.l2hdr = Some(vec![0; 18]);
    assert_eq!(entry.network_payload()[0], 18);
    assert_eq!(entry.network_payload(), borrowed(&entry));
    entry.hook = Some(Hook::Ingress);
    assert_eq!(entry.network_payload()[0], 0);
    // ARP packets that leave have their header, too.
    entry.family = Family::Arp;
    entry.hook = Some(Hook::Output);
    assert_eq!(entry.network_payload()[0], 18);
    assert_eq!(entry.network_payload(), borrowed(&entry));
    entry.hook = Some(Hook::Input);
    assert_eq!(entry.network_payload()[0], 0);
    entry.prefix = b"a\xff".to_vec();
    assert_eq!(entry.prefix_lossy(), "a\u{fffd}");
}

#[cfg(feature = "serde")]
mod formats {
    use super::*;

    prop_compose! {
        /// With what is not in a message, too.
        fn any_entry()(
            entry in entry(), lost_before in any::<u32>(), unknown_attributes in any::<u32>(), problems in 0_u16..256,
            timestamp in any::<Option<Duration>>(), text in option::of("\\PC*"),
        ) -> EntryBuf {
            let problems = Problems::from_bits(problems).unwrap();
            let prefix = text.map_or(entry.prefix, String::into_bytes);
            EntryBuf { lost_before, unknown_attributes, problems, timestamp, prefix, ..entry }
        }
    }

    proptest! {
        #[test]
        fn an_entry_survives_formats_for_people_and_for_machines(entry in any_entry()) {
            let json = serde_json::to_string(&entry).unwrap();
            prop_assert_eq!(&serde_json::from_str::<EntryBuf>(&json).unwrap(), &entry);
            let json = serde_json::to_value(&entry).unwrap();
            prop_assert_eq!(&serde_json::from_value::<EntryBuf>(json).unwrap(), &entry);
            // This one knows fields by their position.
            let bytes = postcard::to_stdvec(&entry).unwrap();
            prop_assert_eq!(&postcard::from_bytes::<EntryBuf>(&bytes).unwrap(), &entry);
        }
    }

    #[test]
    fn json_has_what_is_there_in_words_and_hexadecimal_digits() {
        let entry = EntryBuf {
            hook: Some(Hook::Ingress),
            hw_protocol: Some(0x0800),
            prefix: b"in \"1\"".to_vec(),
            timestamp: Some(Duration::new(1_794_451_741, 723_785_000)),
            indev: Some(2),
            hwaddr: Some(vec![2, 0, 0, 0, 0, 0xab]),
            vlan: Some(Vlan {
                proto: 0x8100,
                tci: 7,
            }),
            l2hdr: Some(vec![]),
            payload: vec![0x45, 0],
            problems: Problems::BAD_LENGTH,
            ..EntryBuf::new(Family::Netdev, 5)
        };
        let json = concat!(
            r#"{"family":"netdev","group":5,"hook":"ingress","hw_protocol":2048,"prefix":"in \"1\"","#,
            r#""timestamp":{"secs":1794451741,"nanos":723785000},"indev":2,"hwaddr":"0200000000ab","#,
            r#""vlan":{"proto":33024,"tci":7},"l2hdr":"","payload":"4500","problems":["BAD_LENGTH"]}"#,
        );
        assert_eq!(serde_json::to_string(&entry).unwrap(), json);
        assert_eq!(serde_json::from_str::<EntryBuf>(json).unwrap(), entry);
    }

    #[test]
    fn json_has_bytes_for_a_prefix_that_is_not_text_and_numbers_for_what_has_no_name() {
        let entry = EntryBuf {
            hook: Some(Hook::Other(9)),
            hw_protocol: Some(0),
            prefix: b"a\xff".to_vec(),
            ..EntryBuf::new(Family::Other(12), 0)
        };
        let json =
            r#"{"family":{"other":12},"group":0,"hook":{"other":9},"hw_protocol":0,"prefix":{"hex":"61ff"}}"#;
        assert_eq!(serde_json::to_string(&entry).unwrap(), json);
        assert_eq!(serde_json::from_str::<EntryBuf>(json).unwrap(), entry);
    }

    #[test]
    fn json_that_says_no_entry_is_refused() {
        for (json, complaint) in [
            (r#"{"family":"inet"}"#, "missing field `group`"),
            (r#"{"family":"ipv4","group":1}"#, "unknown variant `ipv4`"),
            (
                r#"{"family":"inet","group":1,"payload":"0x45"}"#,
                "expected an even number of hexadecimal digits",
            ),
            (
                r#"{"family":"inet","group":1,"prefix":[1]}"#,
                "a string, or an object whose `hex` is hexadecimal digits",
            ),
        ] {
            let error = serde_json::from_str::<EntryBuf>(json).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }
}
