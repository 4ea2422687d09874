//! Numbers of the uapi header `linux/netfilter/nfnetlink_conntrack.h`, which libc does not have.
//!
//! Those that only end a range are known and not decoded: they must not count as unknown.

/// `enum ctattr_type`.
pub(super) const CTA_TUPLE_ORIG: u16 = 1;
pub(super) const CTA_TUPLE_REPLY: u16 = 2;
pub(super) const CTA_STATUS: u16 = 3;
pub(super) const CTA_PROTOINFO: u16 = 4;
pub(super) const CTA_HELP: u16 = 5;
pub(super) const CTA_NAT_SRC: u16 = 6;
pub(super) const CTA_TIMEOUT: u16 = 7;
pub(super) const CTA_MARK: u16 = 8;
pub(super) const CTA_COUNTERS_ORIG: u16 = 9;
pub(super) const CTA_COUNTERS_REPLY: u16 = 10;
pub(super) const CTA_USE: u16 = 11;
pub(super) const CTA_ID: u16 = 12;
pub(super) const CTA_NAT_DST: u16 = 13;
pub(super) const CTA_TUPLE_MASTER: u16 = 14;
pub(super) const CTA_SEQ_ADJ_ORIG: u16 = 15;
/// Last of the consecutive numbers `CTA_SEQ_ADJ_ORIG`, `CTA_SEQ_ADJ_REPLY` and `CTA_SECMARK`.
pub(super) const CTA_SECMARK: u16 = 17;
pub(super) const CTA_ZONE: u16 = 18;
pub(super) const CTA_SECCTX: u16 = 19;
pub(super) const CTA_TIMESTAMP: u16 = 20;
pub(super) const CTA_MARK_MASK: u16 = 21;
pub(super) const CTA_LABELS: u16 = 22;
pub(super) const CTA_LABELS_MASK: u16 = 23;
/// Last of the consecutive numbers `CTA_LABELS_MASK`, `CTA_SYNPROXY`, `CTA_FILTER`, `CTA_STATUS_MASK` and
/// `CTA_TIMESTAMP_EVENT`.
pub(super) const CTA_TIMESTAMP_EVENT: u16 = 27;

/// `enum ctattr_tuple`.
pub(super) const CTA_TUPLE_IP: u16 = 1;
pub(super) const CTA_TUPLE_PROTO: u16 = 2;
pub(super) const CTA_TUPLE_ZONE: u16 = 3;

/// `enum ctattr_ip`.
pub(super) const CTA_IP_V4_SRC: u16 = 1;
pub(super) const CTA_IP_V4_DST: u16 = 2;
pub(super) const CTA_IP_V6_SRC: u16 = 3;
pub(super) const CTA_IP_V6_DST: u16 = 4;

/// `enum ctattr_l4proto`.
pub(super) const CTA_PROTO_NUM: u16 = 1;
pub(super) const CTA_PROTO_SRC_PORT: u16 = 2;
pub(super) const CTA_PROTO_DST_PORT: u16 = 3;
pub(super) const CTA_PROTO_ICMP_ID: u16 = 4;
pub(super) const CTA_PROTO_ICMP_TYPE: u16 = 5;
pub(super) const CTA_PROTO_ICMP_CODE: u16 = 6;
pub(super) const CTA_PROTO_ICMPV6_ID: u16 = 7;
pub(super) const CTA_PROTO_ICMPV6_TYPE: u16 = 8;
pub(super) const CTA_PROTO_ICMPV6_CODE: u16 = 9;

/// `enum ctattr_protoinfo`.
pub(super) const CTA_PROTOINFO_TCP: u16 = 1;
pub(super) const CTA_PROTOINFO_DCCP: u16 = 2;
pub(super) const CTA_PROTOINFO_SCTP: u16 = 3;

/// `enum ctattr_protoinfo_tcp`.
pub(super) const CTA_PROTOINFO_TCP_STATE: u16 = 1;
pub(super) const CTA_PROTOINFO_TCP_WSCALE_ORIGINAL: u16 = 2;
pub(super) const CTA_PROTOINFO_TCP_WSCALE_REPLY: u16 = 3;
pub(super) const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
pub(super) const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;

/// `enum ctattr_protoinfo_dccp`.
pub(super) const CTA_PROTOINFO_DCCP_STATE: u16 = 1;
pub(super) const CTA_PROTOINFO_DCCP_ROLE: u16 = 2;
pub(super) const CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ: u16 = 3;
pub(super) const CTA_PROTOINFO_DCCP_PAD: u16 = 4;

/// `enum ctattr_protoinfo_sctp`.
pub(super) const CTA_PROTOINFO_SCTP_STATE: u16 = 1;
pub(super) const CTA_PROTOINFO_SCTP_VTAG_ORIGINAL: u16 = 2;
pub(super) const CTA_PROTOINFO_SCTP_VTAG_REPLY: u16 = 3;

/// `enum ctattr_counters`.
pub(super) const CTA_COUNTERS_PACKETS: u16 = 1;
pub(super) const CTA_COUNTERS_BYTES: u16 = 2;
pub(super) const CTA_COUNTERS32_PACKETS: u16 = 3;
/// Last of the consecutive numbers `CTA_COUNTERS32_PACKETS`, `CTA_COUNTERS32_BYTES` and `CTA_COUNTERS_PAD`.
pub(super) const CTA_COUNTERS_PAD: u16 = 5;

/// `enum ctattr_tstamp`.
pub(super) const CTA_TIMESTAMP_START: u16 = 1;
pub(super) const CTA_TIMESTAMP_STOP: u16 = 2;
pub(super) const CTA_TIMESTAMP_PAD: u16 = 3;

/// `enum ctattr_help`.
pub(super) const CTA_HELP_NAME: u16 = 1;
pub(super) const CTA_HELP_INFO: u16 = 2;

/// `enum ctattr_secctx`.
pub(super) const CTA_SECCTX_NAME: u16 = 1;
