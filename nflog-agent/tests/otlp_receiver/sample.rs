//! Records that own what they show, for tests.

use std::net::IpAddr;
use std::sync::Arc;

use nflog_agent::owner::{Attribution, Comm, End, Method, Owner, Reason};
use nflog_agent::packet::{Packet, Problem, Transport};
use nflog_agent::process::{Arguments, Parent};
use nflog_agent::record::{Device, Direction, Flow, LoggingRule, Record, TimeSource};
use nflog_agent::workload::kubernetes::{Peer, Pod, Service};
use nflog_agent::workload::{Process, Workload};

/// A record that owns what it shows.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) time: u64,
    pub(crate) kernel_time: bool,
    pub(crate) observed: u64,
    pub(crate) netns: u32,
    pub(crate) group: u16,
    pub(crate) direction: Option<Direction>,
    pub(crate) prefix: String,
    pub(crate) seq: Option<u32>,
    pub(crate) seq_global: Option<u32>,
    pub(crate) mark: Option<u32>,
    pub(crate) devices: [Option<(u32, Option<String>)>; 4],
    pub(crate) socket: (Option<u32>, Option<u32>),
    pub(crate) hwaddr: Option<Vec<u8>>,
    pub(crate) packet: Packet,
    pub(crate) attribution: Attribution,
    pub(crate) process: Option<Process>,
    pub(crate) peer: Option<Peer>,
    pub(crate) peer_service: Option<Service>,
    pub(crate) rule: Option<LoggingRule>,
    pub(crate) sample_rate: Option<u32>,
    pub(crate) flow: Option<Flow>,
}

impl Sample {
    pub(crate) fn device(&self, at: usize) -> Option<Device<'_>> {
        self.devices[at].as_ref().map(|(index, name)| Device {
            index: *index,
            name: name.as_deref(),
        })
    }

    pub(crate) fn record(&self) -> Record<'_> {
        Record {
            time_unix_nano: self.time,
            time_source: if self.kernel_time {
                TimeSource::Kernel
            } else {
                TimeSource::Agent
            },
            observed_unix_nano: self.observed,
            netns: self.netns,
            group: self.group,
            family: "inet",
            hook: "output",
            direction: self.direction,
            prefix: &self.prefix,
            seq: self.seq,
            seq_global: self.seq_global,
            mark: self.mark,
            indev: self.device(0),
            outdev: self.device(1),
            physindev: self.device(2),
            physoutdev: self.device(3),
            socket_uid: self.socket.0,
            socket_gid: self.socket.1,
            hwaddr: self.hwaddr.as_deref(),
            packet: &self.packet,
            attribution: &self.attribution,
            process: self.process.as_ref(),
            peer: self.peer.as_ref(),
            peer_service: self.peer_service.as_ref(),
            rule: self.rule.as_ref(),
            sample_rate: self.sample_rate,
            flow: self.flow,
        }
    }

    pub(crate) fn workload(&self) -> Arc<Workload> {
        self.process
            .as_ref()
            .map(|process| Arc::clone(&process.workload))
            .unwrap_or_default()
    }
}

/// A sample in which everything that may be unknown is.
pub(crate) fn bare() -> Sample {
    Sample {
        time: 0,
        kernel_time: false,
        observed: 0,
        netns: 0,
        group: 0,
        direction: None,
        prefix: String::new(),
        seq: None,
        seq_global: None,
        mark: None,
        devices: [None, None, None, None],
        socket: (None, None),
        hwaddr: None,
        packet: Packet {
            source: None,
            destination: None,
            protocol: None,
            transport: Transport::Absent,
            length: None,
            captured: 0,
            ttl: None,
            fragment: false,
            problem: Some(Problem::NotIp),
        },
        attribution: Attribution::Unowned(Reason::Unparsable),
        process: None,
        peer: None,
        peer_service: None,
        rule: None,
        sample_rate: None,
        flow: None,
    }
}

/// Records of each kind: four workloads, both address families, TCP, UDP, ICMP and ARP, owned and not. `seq` counts them.
pub(crate) fn varied() -> Vec<Sample> {
    let workload = |container: Option<&str>, pod: Option<&str>, unit: Option<&str>| {
        Arc::new(Workload {
            container_id: container.map(str::to_owned),
            runtime: container.map(|_| "containerd"),
            pod_uid: pod.map(str::to_owned),
            unit: unit.map(str::to_owned),
            ..Workload::default()
        })
    };
    let workloads = [
        workload(
            Some(&"4f5e6d7c".repeat(8)),
            Some("0b1c2d3e-aaaa-bbbb-cccc-0123456789ab"),
            None,
        ),
        workload(Some(&"99aabbcc".repeat(8)), None, None),
        workload(None, None, Some("ssh.service")),
        workload(None, None, None),
    ];
    let tcp = Packet {
        source: Some(IpAddr::from([10, 1, 2, 3])),
        destination: Some(IpAddr::from([192, 0, 2, 44])),
        protocol: Some(6),
        transport: Transport::Tcp {
            source: 44321,
            destination: 443,
            flags: 0x12,
        },
        length: Some(60),
        captured: 60,
        ttl: Some(64),
        fragment: false,
        problem: None,
    };
    let udp = Packet {
        source: Some("2001:db8::1".parse().unwrap()),
        destination: Some("2001:db8::53".parse().unwrap()),
        protocol: Some(17),
        transport: Transport::Ports {
            source: 5353,
            destination: 53,
        },
        length: Some(1400),
        captured: 128,
        fragment: true,
        ..tcp
    };
    let icmp = Packet {
        protocol: Some(1),
        transport: Transport::Icmp {
            kind: 8,
            code: 0,
            echo_id: Some(77),
        },
        ..tcp
    };
    let prefixes = [
        "egress-drop: ",
        "\u{43f}\u{440}\u{435}\u{444}\u{438}\u{43a}\u{441} \"\\\"",
        "tab\there\u{1b}[0m",
        "",
    ];
    let owner = |pid: u32| Attribution::Owned {
        owner: Owner {
            pid,
            start_boottime: Some(1),
            exec_id: Some(2),
            uid: 1000,
            comm: Comm::new(*b"curl\0\0\0\0\0\0\0\0\0\0\0\0"),
            cgroup_id: Some(4_294_967_301),
        },
        method: Method::Accepted,
        end: End::Destination,
    };
    let peer = Arc::new(Pod {
        namespace: "shop".to_owned(),
        name: "db-0".to_owned(),
        ..Pod::default()
    });
    let sample = |at: u32| {
        let index = at as usize;
        let owned = at % 5 != 4;
        Sample {
            time: 1_767_323_045_000_000_000 + u64::from(at),
            kernel_time: at.is_multiple_of(2),
            observed: 1_767_323_046_000_000_000 + u64::from(at),
            netns: 4_026_531_840,
            group: 5,
            direction: [Some(Direction::Transmit), Some(Direction::Receive), None][index % 3],
            prefix: prefixes[index % 4].to_owned(),
            seq: Some(at),
            seq_global: Some(at + 1000),
            mark: (at % 3 == 1).then_some(0xdead_beef),
            devices: [
                (at % 3 == 1).then_some((3, None)),
                Some((2, Some("eth0".to_owned()))),
                None,
                (at % 7 == 1).then(|| (9, Some("veth1".to_owned()))),
            ],
            socket: (Some(0), Some(u32::MAX)),
            hwaddr: (at % 2 == 1).then(|| vec![2, 0x42, 0xac, 0x11, 0, 0x0f]),
            packet: match at % 4 {
                0 => tcp,
                1 => udp,
                2 => icmp,
                _ => Packet {
                    captured: 28,
                    ..bare().packet
                },
            },
            attribution: if owned {
                owner(4242 + at)
            } else {
                Attribution::Unowned(Reason::ALL[index % 9])
            },
            process: owned.then(|| Process {
                workload: Arc::clone(&workloads[index % 4]),
                cgroup_path: Some("/system.slice/a.scope".to_owned()),
                executable: at.is_multiple_of(2).then(|| "/usr/bin/curl (deleted)".to_owned()),
                parent: at.is_multiple_of(3).then(|| Parent {
                    pid: 77,
                    comm: Comm::new(*b"cron\0\0\0\0\0\0\0\0\0\0\0\0"),
                }),
                arguments: at
                    .is_multiple_of(4)
                    .then(|| Arc::new(Arguments::new(b"curl\0-s\0", at.is_multiple_of(8)))),
                created: (at % 3 == 1).then(|| "2026-01-02T03:04:05.678Z".to_owned()),
            }),
            peer: (at % 3 == 2).then(|| Peer::new("0b1c2d3e-9999-bbbb-cccc-0123456789ab", &peer)),
            peer_service: (at % 2 == 1).then(|| Service {
                uid: "0b1c2d3e-7777-bbbb-cccc-0123456789ab".into(),
                namespace: "shop".into(),
                name: "db".into(),
            }),
            rule: None,
            sample_rate: None,
            flow: None,
        }
    };
    (0..40).map(sample).collect()
}
