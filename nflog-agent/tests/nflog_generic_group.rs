//! What the kernel itself logs, sent to group 0 on request: in namespaces of the test. Needs root.

mod support;

use std::fs;
use std::io;

use nflog_agent::nflog::{Config, Nflog};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use support::{Netns, PATIENCE};

const FAMILIES: [u8; 2] = [2, 10];

fn path(family: u8) -> String {
    format!("/proc/sys/net/netfilter/nf_log/{family}")
}

/// Loggers of IPv4 and IPv6 in a namespace.
fn loggers(netns: &Netns) -> [String; 2] {
    let read = |family| fs::read_to_string(path(family)).unwrap().trim_end().to_owned();
    netns.run(|| FAMILIES.map(read))
}

fn open(netns: &Netns, generic_group: bool) -> Nflog {
    let builder = Config::builder().netns(netns.netns()).group(0);
    Nflog::open(&builder.generic_group(generic_group).build().unwrap()).unwrap()
}

#[test]
fn only_on_request_nflog_is_the_logger_and_only_until_the_end() {
    let netns = Netns::new("generic");
    let before = loggers(&netns);
    assert!(!before.contains(&"nfnetlink_log".to_owned()), "{before:?}");

    let nflog = open(&netns, false);
    assert_eq!(loggers(&netns), before);
    nflog.close(|_| ()).unwrap();
    assert_eq!(loggers(&netns), before);

    let nflog = open(&netns, true);
    assert_eq!(loggers(&netns), ["nfnetlink_log"; 2]);
    nflog.close(|_| ()).unwrap();
    assert_eq!(loggers(&netns), before);

    // Dropped instead of closed.
    let nflog = open(&netns, true);
    assert_eq!(loggers(&netns), ["nfnetlink_log"; 2]);
    drop(nflog);
    assert_eq!(loggers(&netns), before);
}

#[test]
fn a_logger_of_another_name_is_brought_back_and_one_set_meanwhile_is_left_alone() {
    let netns = Netns::new("generic-other");
    let set = |family, logger| netns.run(|| fs::write(path(family), logger));
    // A kernel without nf_log_ipv4 has one logger only: then NONE is what there is to bring back.
    let text = "nf_log_ipv4";
    let other = match set(2, text) {
        Ok(()) => text,
        Err(error) => {
            eprintln!("NOTE: no logger {text} here ({error}); only NONE is brought back");
            "NONE"
        }
    };
    set(10, "nfnetlink_log").unwrap();
    let nflog = open(&netns, true);
    assert_eq!(loggers(&netns), ["nfnetlink_log"; 2]);
    nflog.close(|_| ()).unwrap();
    // What was NFLOG before stays so.
    assert_eq!(loggers(&netns), [other, "nfnetlink_log"]);

    let nflog = open(&netns, true);
    set(2, "NONE").unwrap();
    nflog.close(|_| ()).unwrap();
    assert_eq!(loggers(&netns), ["NONE", "nfnetlink_log"]);
}

#[test]
fn what_conntrack_finds_invalid_arrives_in_group_0() {
    let netns = Netns::new("generic-invalid");
    let conntrack = netns.try_nft(
        "table inet track { chain output { type filter hook output priority 0\n ct state invalid counter\n }\n}",
    );
    if let Err(error) = conntrack {
        println!("SKIPPED: this kernel has no conntrack: {error}");
        return;
    }
    match netns.run(|| fs::write("/proc/sys/net/netfilter/nf_conntrack_log_invalid", "255")) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!("SKIPPED: this kernel has no nf_conntrack_log_invalid in a namespace");
            return;
        }
        Err(error) => panic!("nf_conntrack_log_invalid: {error}"),
    }
    let mut nflog = open(&netns, true);
    netns.run(send_invalid);
    let mut batch = nflog
        .recv(Some(PATIENCE))
        .unwrap()
        .expect("conntrack logs the packet");
    let entry = batch.next().unwrap();
    assert_eq!(entry.group(), 0);
    assert!(entry.prefix_lossy().contains("nf_ct"), "{entry:?}");
    drop(batch);
    nflog.close(|_| ()).unwrap();
}

/// Sends a TCP segment that wants to begin and to end a connection at once.
fn send_invalid() {
    const SYN_FIN: u8 = 3;
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).unwrap();
    let mut segment = [0_u8; 20];
    segment[..4].copy_from_slice(&[0x10, 0, 0x20, 0]);
    segment[12] = 5 << 4;
    segment[13] = SYN_FIN;
    let address: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.send_to(&segment, &SockAddr::from(address)).unwrap();
}
