//! The name of every attribute that leaves the agent: one constant each.
//!
//! - Names without `nflog.` come from the OpenTelemetry semantic conventions, version [`VERSION`]; no name of our own is
//!   put under a namespace of theirs.
//! - What is unknown is absent, never `""` or 0.
//! - A key's type never changes; ints are OTLP `int_value` (i64).
//!
#![doc = include_str!("attributes.md")]

/// Version of the OpenTelemetry semantic conventions that the names and meanings are taken from.
pub const VERSION: &str = "1.42.0";

/// `schema_url` of resources and scopes.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.42.0";

/// Instrumentation scope, and `service.name` of records whose workload has no name.
pub const SCOPE: &str = "nflog-agent";

/// Version of the agent, in the Resource of its own metrics.
pub const SERVICE_VERSION: &str = "service.version";

/// `event_name` of a packet's record.
pub const EVENT_PACKET: &str = "nflog.packet";

/// `event_name` of a flow's record.
pub const EVENT_FLOW: &str = "nflog.flow";

/// `event_name` of a record about packets that a limit held back.
pub const EVENT_SUPPRESSED: &str = "nflog.suppressed";

/// `event_name` of a record about lost packets.
pub const EVENT_LOSS: &str = "nflog.loss";

/// `event_name` of a record about what became of all records.
pub const EVENT_ACCOUNT: &str = "nflog.account";

/// All event names, with the severity and what such a record is about.
pub const EVENTS: &[(&str, &str, &str)] = &[
    (
        EVENT_PACKET,
        "as the prefix says (WARN: drop, reject, block), else INFO",
        "a packet that was logged",
    ),
    (
        EVENT_FLOW,
        "as of its packets",
        "packets of one flow, put together: all as in the first of them, but for the TCP flags, which are those of any",
    ),
    (
        EVENT_SUPPRESSED,
        "INFO",
        "packets that a limit in the configuration held back, at most every ten seconds",
    ),
    (
        EVENT_LOSS,
        "WARN",
        "packets that were lost before they were received: how many of which group, and why",
    ),
    (
        EVENT_ACCOUNT,
        "INFO, or WARN if more has been lost since the last one",
        "what became of all records since the agent started: received + recovered = exported + spooled + in flight + lost",
    ),
];

/// Type of an attribute's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `string_value`.
    Text,
    /// `int_value`.
    Int,
    /// `bool_value`.
    Bool,
    /// `array_value` of `string_value`s.
    Texts,
}

/// Where an attribute stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the OTLP Resource: holds for the life of a workload.
    Resource,
    /// In the log record.
    Record,
}

/// An attribute's name and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    name: &'static str,
    kind: Kind,
    place: Place,
    head: Head,
}

impl Key {
    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// The type of its values.
    #[must_use]
    pub const fn kind(self) -> Kind {
        self.kind
    }

    /// Where it stands.
    #[must_use]
    pub const fn place(self) -> Place {
        self.place
    }

    pub(super) const fn head(self) -> Head {
        self.head
    }
}

/// The part of an OTLP `LogRecord.attributes` field that is the same in every record: tag, room for the length of the
/// `KeyValue`, the name as its field 1, and the tag of its field 2. At a fixed size it is copied without a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) bytes: [u8; Self::SIZE],
    pub(super) len: usize,
}

impl Head {
    pub(super) const SIZE: usize = 40;

    const fn new(name: &str) -> Self {
        let name = name.as_bytes();
        let len = name.len() + 5;
        assert!(len <= Self::SIZE, "the name is too long for a Head");
        let mut bytes = [0; Self::SIZE];
        bytes[0] = 0x32;
        bytes[2] = 0x0a;
        #[expect(clippy::cast_possible_truncation, reason = "asserted to be less than SIZE")]
        {
            bytes[3] = name.len() as u8;
        }
        let mut at = 0;
        while at < name.len() {
            bytes[at + 4] = name[at];
            at += 1;
        }
        bytes[len - 1] = 0x12;
        Self { bytes, len }
    }
}

/// An attribute, for its page in the documentation.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Name, type and place.
    pub key: Key,
    /// What it holds. Ends in the convention's stability, if it is not a name of our own.
    pub text: &'static [&'static str],
    /// Unit of a number, UCUM; empty if it has none.
    pub unit: &'static str,
}

macro_rules! keys {
    ($($(#[doc = $text:literal])+ $constant:ident: $place:ident $kind:ident $name:literal $($unit:literal)?;)*) => {
        $(
            $(#[doc = $text])+
            pub const $constant: Key = Key {
                name: $name,
                kind: Kind::$kind,
                place: Place::$place,
                head: Head::new($name),
            };
        )*
        /// All of them, in the order of this file.
        pub const ALL: &[Key] = &[$($constant),*];

        /// All of them with their descriptions, in the order of this file.
        pub const ENTRIES: &[Entry] = &[$(
            Entry { key: $constant, text: &[$($text),+], unit: concat!($($unit)?) }
        ),*];
    };
}

keys! {
    /// Host name. Convention: development.
    HOST_NAME: Resource Text "host.name";
    /// `/etc/machine-id`. Convention: development.
    HOST_ID: Resource Text "host.id";
    /// Name of the workload: of a pod's Deployment, StatefulSet, …, else of the pod; of a systemd service; `nflog-agent` where it has none.
    /// Convention: stable.
    SERVICE_NAME: Resource Text "service.name";
    /// Full container id, without a runtime prefix. Convention: stable.
    CONTAINER_ID: Resource Text "container.id";
    /// `containerd`, `cri-o`, `docker` or `podman`. Convention: development.
    CONTAINER_RUNTIME_NAME: Resource Text "container.runtime.name";
    /// Name of the container outside of Kubernetes, by Docker's or Podman's API (`--container-sockets`). Convention: development.
    CONTAINER_NAME: Resource Text "container.name";
    /// Pod UID, with dashes. Convention: stable.
    K8S_POD_UID: Resource Text "k8s.pod.uid";
    /// Name of the image, with its registry; by the API of Kubernetes, Docker or Podman. Convention: stable.
    CONTAINER_IMAGE_NAME: Resource Text "container.image.name";
    /// Tag of the image, as the pod's specification or the engine has it; `latest` where that has neither tag nor digest. Convention: stable.
    CONTAINER_IMAGE_TAGS: Resource Texts "container.image.tags";
    /// Name of the pod. This and what follows where the Kubernetes API is watched. Convention: stable.
    K8S_POD_NAME: Resource Text "k8s.pod.name";
    /// Namespace of the pod. Convention: stable.
    K8S_NAMESPACE_NAME: Resource Text "k8s.namespace.name";
    /// Node of the pod. Convention: stable.
    K8S_NODE_NAME: Resource Text "k8s.node.name";
    /// Name of the container in the pod's specification. Convention: stable.
    K8S_CONTAINER_NAME: Resource Text "k8s.container.name";
    /// Deployment: name of the ReplicaSet less the pod's template hash. Convention: stable.
    K8S_DEPLOYMENT_NAME: Resource Text "k8s.deployment.name";
    /// ReplicaSet that controls the pod. Convention: stable.
    K8S_REPLICASET_NAME: Resource Text "k8s.replicaset.name";
    /// StatefulSet that controls the pod. Convention: stable.
    K8S_STATEFULSET_NAME: Resource Text "k8s.statefulset.name";
    /// DaemonSet that controls the pod. Convention: stable.
    K8S_DAEMONSET_NAME: Resource Text "k8s.daemonset.name";
    /// CronJob: name of the Job less the time of its schedule. Convention: stable.
    K8S_CRONJOB_NAME: Resource Text "k8s.cronjob.name";
    /// Job that controls the pod. Convention: stable.
    K8S_JOB_NAME: Resource Text "k8s.job.name";
    /// Beginning of names: `k8s.pod.label.KEY` for each label that `--kubernetes-labels` chooses. Convention: stable.
    K8S_POD_LABEL: Resource Text "k8s.pod.label";
    /// Beginning of names: `k8s.pod.annotation.KEY`, cut after 1024 bytes, for `--kubernetes-annotations`. Convention: stable.
    K8S_POD_ANNOTATION: Resource Text "k8s.pod.annotation";
    /// systemd unit, with its suffix.
    SYSTEMD_UNIT: Resource Text "nflog.systemd.unit";
    /// systemd slice of the unit, or of a process that is in no unit and no container.
    SYSTEMD_SLICE: Resource Text "nflog.systemd.slice";

    /// `ipv4` or `ipv6`. Convention: stable.
    NETWORK_TYPE: Record Text "network.type";
    /// IANA keyword in lower case (`tcp`, `udp`, `ipv6-icmp`), else `proto-N`. Convention: stable.
    NETWORK_TRANSPORT: Record Text "network.transport";
    /// `receive` or `transmit`, as this host sees it; absent for forwarded packets. Convention: release candidate.
    NETWORK_IO_DIRECTION: Record Text "network.io.direction";
    /// The device that fits the direction. Convention: release candidate.
    NETWORK_INTERFACE_NAME: Record Text "network.interface.name";
    /// Source address; IPv6 as in RFC 5952. Convention: development.
    SOURCE_ADDRESS: Record Text "source.address";
    /// Source port. Convention: development.
    SOURCE_PORT: Record Int "source.port";
    /// Destination address; IPv6 as in RFC 5952. Convention: development.
    DESTINATION_ADDRESS: Record Text "destination.address";
    /// Destination port. Convention: development.
    DESTINATION_PORT: Record Int "destination.port";

    /// Process id in the initial pid namespace. Convention: release candidate.
    PROCESS_PID: Record Int "process.pid";
    /// Last component of the executable's path; `comm` if the path is unknown. Convention: release candidate.
    PROCESS_EXECUTABLE_NAME: Record Text "process.executable.name";
    /// Target of `/proc/PID/exe`. Convention: release candidate.
    PROCESS_EXECUTABLE_PATH: Record Text "process.executable.path";
    /// Process id of the parent. Convention: release candidate.
    PROCESS_PARENT_PID: Record Int "process.parent_pid";
    /// When the process was created: RFC 3339, UTC, to the millisecond. Convention: release candidate.
    PROCESS_CREATION_TIME: Record Text "process.creation.time";
    /// Arguments of the program, its name for itself included. Only where they were asked for. Convention: release candidate.
    PROCESS_COMMAND_ARGS: Record Texts "process.command_args";
    /// Effective uid. Convention: release candidate.
    PROCESS_USER_ID: Record Int "process.user.id";
    /// cgroup path below the cgroup root. Convention: release candidate.
    PROCESS_LINUX_CGROUP: Record Text "process.linux.cgroup";

    /// `comm` of the parent.
    OWNER_PARENT_COMM: Record Text "nflog.owner.parent.comm";
    /// `true` if there are more arguments than `process.command_args` has; else absent.
    OWNER_ARGS_TRUNCATED: Record Bool "nflog.owner.args.truncated";
    /// How the owner was found, or `none`. In every packet's record.
    OWNER_METHOD: Record Text "nflog.owner.method";
    /// Why there is no owner. In every record whose method is `none`.
    OWNER_REASON: Record Text "nflog.owner.reason";
    /// `source` (the owner sent it) or `destination` (it is for the owner). In every record with an owner.
    OWNER_END: Record Text "nflog.owner.end";
    /// cgroup v2 id: inode of the cgroup directory. Absent where the process is placed by a v1 hierarchy.
    CGROUP_ID: Record Int "nflog.cgroup.id";

    /// Name of the pod at the other end: the packet's destination if the owner sent it or the packet goes out, else its source. Only pods
    /// of this node, by the Kubernetes API and the addresses that it gives them; see "The other end" in ARCHITECTURE.md.
    PEER_POD_NAME: Record Text "nflog.peer.k8s.pod.name";
    /// UID of that pod.
    PEER_POD_UID: Record Text "nflog.peer.k8s.pod.uid";
    /// Namespace of that pod, and of the Service below.
    PEER_NAMESPACE_NAME: Record Text "nflog.peer.k8s.namespace.name";
    /// Name of that pod's workload, as in `service.name`.
    PEER_SERVICE_NAME: Record Text "nflog.peer.service.name";
    /// Name of the Kubernetes Service whose address the other end has, or by whose address the connection to it was made. Only with
    /// `--kubernetes-services`; see "The other end" in ARCHITECTURE.md.
    PEER_K8S_SERVICE_NAME: Record Text "nflog.peer.k8s.service.name";
    /// UID of that Service.
    PEER_K8S_SERVICE_UID: Record Text "nflog.peer.k8s.service.uid";

    /// Inode of the network namespace that the packet was logged in.
    NETNS_INODE: Record Int "nflog.netns.inode";
    /// NFLOG group.
    GROUP: Record Int "nflog.group";
    /// The rule's prefix, as it is.
    PREFIX: Record Text "nflog.prefix";
    /// What the rule does, by its prefix: `accept`, `drop`, `reject`, `block` (one of the two), `log`, or the prefix's own word in
    /// lower case. Only where a pattern of the configuration matches the prefix, as for the three below.
    RULE_ACTION: Record Text "nflog.rule.action";
    /// The rule's chain or zone, by its prefix.
    RULE_CHAIN: Record Text "nflog.rule.chain";
    /// The rule's number or identifier, by its prefix.
    RULE_ID: Record Text "nflog.rule.id";
    /// The policy that the rule belongs to, by its prefix.
    RULE_POLICY: Record Text "nflog.rule.policy";
    /// Netfilter hook.
    HOOK: Record Text "nflog.hook";
    /// Netfilter family.
    FAMILY: Record Text "nflog.family";
    /// Sequence number in the group.
    SEQ: Record Int "nflog.seq";
    /// Sequence number in the namespace.
    SEQ_GLOBAL: Record Int "nflog.seq_global";
    /// Packet mark, if not 0.
    MARK: Record Int "nflog.mark";
    /// `kernel` (time of the log call) or `agent` (time of receipt).
    TIME_SOURCE: Record Text "nflog.time.source";
    /// Device it came in on.
    INDEV: Record Text "nflog.indev";
    /// ifindex of the device it came in on; only where the name is unknown.
    INDEV_INDEX: Record Int "nflog.indev.index";
    /// Device it goes out on.
    OUTDEV: Record Text "nflog.outdev";
    /// ifindex of the device it goes out on; only where the name is unknown.
    OUTDEV_INDEX: Record Int "nflog.outdev.index";
    /// Bridge port it came in on.
    PHYSINDEV: Record Text "nflog.physindev";
    /// ifindex of the bridge port it came in on; only where the name is unknown.
    PHYSINDEV_INDEX: Record Int "nflog.physindev.index";
    /// Bridge port it goes out on.
    PHYSOUTDEV: Record Text "nflog.physoutdev";
    /// ifindex of the bridge port it goes out on; only where the name is unknown.
    PHYSOUTDEV_INDEX: Record Int "nflog.physoutdev.index";
    /// uid that created the socket file (`NFULA_UID`); not necessarily of the running process.
    SOCKET_UID: Record Int "nflog.socket.uid";
    /// gid that created the socket file (`NFULA_GID`).
    SOCKET_GID: Record Int "nflog.socket.gid";
    /// Source hardware address: lower-case hex, colons.
    HW_ADDRESS: Record Text "nflog.hw.address";

    /// ULID, the same however often the record arrives: what has one that is known can be dropped. Convention: development.
    RECORD_UID: Record Text "log.record.uid";

    /// Length of the IP packet.
    PACKET_LENGTH: Record Int "nflog.packet.length" "By";
    /// How much of it was captured; only where that is not the whole packet.
    PACKET_CAPTURED: Record Int "nflog.packet.captured" "By";
    /// `truncated`, `malformed` or `not-ip`: why fields are missing.
    PACKET_PROBLEM: Record Text "nflog.packet.problem";
    /// Time to live, or hop limit.
    IP_TTL: Record Int "nflog.ip.ttl" "{hop}";
    /// `true` for a fragment; else absent.
    IP_FRAGMENT: Record Bool "nflog.ip.fragment";
    /// `SYN`, `SYN,ACK`, …; `NONE` if no flag is set.
    TCP_FLAGS: Record Text "nflog.tcp.flags";
    /// ICMP type.
    ICMP_TYPE: Record Int "nflog.icmp.type";
    /// ICMP code.
    ICMP_CODE: Record Int "nflog.icmp.code";
    /// Identifier of an ICMP echo.
    ICMP_ECHO_ID: Record Int "nflog.icmp.echo_id";

    /// The record is one of so many packets, the others were sampled out: counts times this are what was logged.
    SAMPLE_RATE: Record Int "nflog.sample.rate" "{packet}";
    /// Packets of the flow.
    FLOW_PACKETS: Record Int "nflog.flow.packets" "{packet}";
    /// Their IP lengths together; where a header does not say, what was captured.
    FLOW_BYTES: Record Int "nflog.flow.bytes" "By";
    /// When the first of them was logged, since the Unix epoch.
    FLOW_START: Record Int "nflog.flow.start" "ns";
    /// When the last of them was logged, since the Unix epoch.
    FLOW_END: Record Int "nflog.flow.end" "ns";

    /// The configuration's rule that has the limit: its name, or `rule N`.
    SUPPRESSED_RULE: Record Text "nflog.suppressed.rule";
    /// Packets that it held back since the last record of this kind.
    SUPPRESSED_PACKETS: Record Int "nflog.suppressed.packets" "{packet}";

    /// Packets lost since the last record of this kind.
    LOSS_PACKETS: Record Int "nflog.loss.packets" "{packet}";
    /// What lost them.
    LOSS_REASON: Record Text "nflog.loss.reason";

    /// Records of packets since the agent started.
    ACCOUNT_RECEIVED: Record Int "nflog.account.received" "{record}";
    /// What an earlier process had left in the spool.
    ACCOUNT_RECOVERED: Record Int "nflog.account.recovered" "{record}";
    /// What the collector took.
    ACCOUNT_EXPORTED: Record Int "nflog.account.exported" "{record}";
    /// What is in the spool.
    ACCOUNT_SPOOLED: Record Int "nflog.account.spooled" "{record}";
    /// Packets that the configuration's rules withheld: filtered, sampled out, limited, aggregated.
    ACCOUNT_WITHHELD: Record Int "nflog.account.withheld" "{packet}";
    /// What is neither there nor lost.
    ACCOUNT_IN_FLIGHT: Record Int "nflog.account.in_flight" "{record}";
    /// What was lost after it was received.
    ACCOUNT_LOST: Record Int "nflog.account.lost" "{record}";
    /// What lost records so far; how many each is in the metric `nflog_agent.records.lost`.
    ACCOUNT_LOST_REASONS: Record Texts "nflog.account.lost.reasons";
    /// Packets that the kernel numbered and that were never received.
    ACCOUNT_MISSED: Record Int "nflog.account.missed" "{packet}";
    /// `true` if more were missed than the kernel has told yet; else absent.
    ACCOUNT_LOSS_PENDING: Record Bool "nflog.account.loss_pending";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lower_case() {
        for (at, key) in ALL.iter().enumerate() {
            assert!(
                ALL[..at].iter().all(|other| other.name != key.name),
                "{} is there twice",
                key.name
            );
            assert!(
                key.name
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_')),
                "{}",
                key.name
            );
        }
    }

    #[test]
    fn the_schema_url_names_the_version() {
        assert!(SCHEMA_URL.ends_with(VERSION));
    }

    #[test]
    fn heads_are_the_beginning_of_an_attribute() {
        let head = MARK.head();
        assert_eq!(&head.bytes[..head.len], b"\x32\0\x0a\x0anflog.mark\x12");
    }
}
