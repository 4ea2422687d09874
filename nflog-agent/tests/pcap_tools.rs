//! Capture files beside tcpdump and tshark: they open what we write, we open what they write, and all say the same. Needs root,
//! tcpdump and tshark (`cargo xtask setup`); guests have neither, so that this is not named as a test for them.
#![cfg(feature = "pcap")]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime};

use nflog_agent::nflog::pcap::{Reader, Writer};
use nflog_agent::nflog::{Config, EntryBuf, Family, Hook, Nflog};
use support::{Netns, PATIENCE};

const GROUP: u16 = 7;
/// Fields of tshark that [`ours`] knows as well.
const FIELDS: [&str; 13] = [
    "nflog.family",
    "nflog.res_id",
    "nflog.protocol",
    "nflog.hook",
    "nflog.prefix",
    "nflog.ifindex_indev",
    "nflog.ifindex_outdev",
    "nflog.ifindex_physindev",
    "nflog.ifindex_physoutdev",
    "nflog.uid",
    "nflog.gid",
    "ip.src",
    "ipv6.src",
];

fn fixtures() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| matches!(path.extension(), Some(kind) if kind == "pcap" || kind == "pcapng"))
        .collect();
    files.sort();
    assert!(files.len() >= 9, "{files:?}");
    files
}

#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run `cargo xtask setup`"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

fn entries(file: &Path) -> Vec<EntryBuf> {
    let mut reader = Reader::new(fs::File::open(file).unwrap()).unwrap();
    let mut entries = Vec::new();
    while let Some(record) = reader.next_entry().unwrap() {
        entries.push(record.entry.to_buf());
    }
    entries
}

/// What tshark prints of each packet.
fn tshark(file: &Path) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-T", "fields"]);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    output(&mut command)
        .lines()
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect()
}

/// The same of one of our entries. tshark looks for the network header at the start of the payload, whatever comes first.
fn ours(entry: &EntryBuf) -> Vec<String> {
    let number = |value: Option<u32>| value.map_or_else(String::new, |value| value.to_string());
    let hook = entry.hook.and_then(|hook| hook.number(entry.family));
    let protocol = entry.hw_protocol.unwrap();
    let (mut v4, mut v6) = (String::new(), String::new());
    match (&entry.payload[..], protocol) {
        ([0x45, ..], 0x0800) => {
            v4 = entry.payload[12..16]
                .iter()
                .map(u8::to_string)
                .collect::<Vec<_>>()
                .join(".");
        }
        ([0x60, ..], 0x86dd) => v6 = format!("fd09::{}", entry.payload[23]),
        _ => {}
    }
    vec![
        entry.family.number().to_string(),
        entry.group.to_string(),
        format!("0x{protocol:04x}"),
        number(hook.map(u32::from)),
        entry.prefix_lossy().into_owned(),
        number(entry.indev),
        number(entry.outdev),
        number(entry.physindev),
        number(entry.physoutdev),
        number(entry.uid),
        number(entry.gid),
        v4,
        v6,
    ]
}

#[test]
fn tshark_reads_the_same_from_every_fixture() {
    for file in fixtures() {
        let expected: Vec<_> = entries(&file).iter().map(ours).collect();
        assert!(!expected.is_empty());
        assert_eq!(tshark(&file), expected, "{}", file.display());
    }
}

#[test]
fn tcpdump_prints_every_packet_of_every_fixture() {
    for file in fixtures() {
        let text = output(Command::new("tcpdump").args(["-n", "-t", "-e", "-r"]).arg(&file));
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('\t')).collect();
        let entries = entries(&file);
        assert_eq!(lines.len(), entries.len(), "{text}");
        for (line, entry) in lines.iter().zip(&entries) {
            let family = match entry.family {
                Family::Inet => "family IPv4 (2)".to_owned(),
                Family::Inet6 => "family IPv6 (10)".to_owned(),
                other => format!("({})", other.number()),
            };
            assert!(
                line.contains(&family) && line.contains("resource ID 5"),
                "{line}: not {family}"
            );
            let address = match (entry.family, &entry.payload[..]) {
                (Family::Inet, payload) => format!("10.9.0.{}", payload[15]),
                (Family::Inet6, payload) => format!("fd09::{}", payload[23]),
                _ => continue,
            };
            assert!(line.contains(&address), "{line}: not from {address}");
        }
    }
}

/// A namespace with a rule that logs datagrams to port 2222.
fn namespace() -> Netns {
    let netns = Netns::new("pcap");
    netns.nft(&format!(
        r#"table inet test {{
            chain output {{
                type filter hook output priority 0
                udp dport 2222 log prefix "tools: " group {GROUP}
            }}
        }}"#
    ));
    netns
}

fn send(netns: &Netns) {
    netns.run(|| {
        for (from, to) in [("127.0.0.1:0", "127.0.0.1:2222"), ("[::1]:0", "[::1]:2222")] {
            let socket = UdpSocket::bind(from).unwrap();
            socket.send_to(b"hello", to).unwrap();
        }
    });
}

#[track_caller]
fn check(entries: &[EntryBuf]) {
    let seen: Vec<_> = entries
        .iter()
        .map(|entry| {
            assert!(entry.problems.is_empty(), "{entry:?}");
            assert!(entry.payload.ends_with(b"hello"));
            (
                entry.family,
                entry.hook,
                entry.group,
                &entry.prefix[..],
                entry.uid,
            )
        })
        .collect();
    let expected = |family| (family, Some(Hook::Output), GROUP, &b"tools: "[..], Some(0));
    assert_eq!(seen, [Family::Inet, Family::Inet6].map(expected));
}

#[test]
fn what_tcpdump_captures_is_read() {
    let netns = namespace();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tcpdump.pcap");
    let mut command = netns.command("tcpdump");
    command
        .args(["--immediate-mode", "-U", "-Z", "root", "-c", "2", "-i"])
        .arg(format!("nflog:{GROUP}"))
        .arg("-w")
        .arg(&file)
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("tcpdump runs; see `cargo xtask setup`");
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap().contains("listening on")),
        "tcpdump does not listen"
    );
    send(&netns);
    assert!(child.wait().unwrap().success());
    check(&entries(&file));
}

#[test]
fn what_we_capture_is_read_by_tshark_and_as_pcapng_again_by_us() {
    let netns = namespace();
    let config = Config::builder()
        .netns(netns.netns())
        .group(GROUP)
        .build()
        .unwrap();
    let mut nflog = Nflog::open(&config).unwrap();
    send(&netns);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ours.pcap");
    let mut writer = Writer::new(fs::File::create(&file).unwrap()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut written = 0;
    while written < 2 {
        assert!(Instant::now() < deadline, "{written} packets");
        for entry in nflog.recv(Some(PATIENCE)).unwrap().into_iter().flatten() {
            writer.write(&entry, SystemTime::now()).unwrap();
            written += 1;
        }
    }
    writer.flush().unwrap();
    let text = tshark(&file);
    let prefixes: Vec<_> = text.iter().map(|fields| fields[4].as_str()).collect();
    assert_eq!(prefixes, ["tools: "; 2]);
    assert_eq!([&text[0][11], &text[1][12]], ["127.0.0.1", "::1"]);
    let converted = directory.path().join("ours.pcapng");
    output(
        Command::new("tshark")
            .arg("-r")
            .arg(&file)
            .args(["-F", "pcapng", "-w"])
            .arg(&converted),
    );
    check(&entries(&converted));
    assert_eq!(entries(&converted), entries(&file));
}
