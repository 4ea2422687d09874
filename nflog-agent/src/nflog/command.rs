//! Requests to the kernel: one message binds a group with all its settings, one unbinds it. Pure.
//!
//! Invariant: settings travel with the bind in one message. Separate messages would leave a window of milliseconds with the
//! kernel's defaults. One of microseconds remains (seen on Linux 6.18): the kernel lets other CPUs log to the group just
//! before it applies the settings. Packets of that window come whole and without number, before all others.

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
    Nla,
};

use super::config::Config;
use super::flags::{CopyMode, Flags};
use super::uapi;

/// Bytes of a `struct nfgenmsg`.
const NFGENMSG: usize = 4;
/// A protocol family that cannot exist (`NFPROTO_NUMPROTO` is 13).
const NO_FAMILY: u8 = 255;

/// Binds `group` with everything that `config` asks for, but with `flags`.
pub(super) fn bind(config: &Config, group: u16, flags: Flags, sequence: u32) -> Vec<u8> {
    let mut attributes = vec![ConfigAttr::Command(uapi::NFULNL_CFG_CMD_BIND)];
    attributes.extend(settings(config, flags));
    encode(uapi::AF_UNSPEC, group, attributes, sequence)
}

/// The same settings for a group that is bound already.
pub(super) fn configure(config: &Config, group: u16, flags: Flags, sequence: u32) -> Vec<u8> {
    encode(uapi::AF_UNSPEC, group, settings(config, flags).into(), sequence)
}

fn settings(config: &Config, flags: Flags) -> [ConfigAttr; 5] {
    [
        ConfigAttr::Mode {
            range: match config.copy_mode {
                CopyMode::Packet => config.copy_range,
                CopyMode::None | CopyMode::Meta => 0,
            },
            mode: config.copy_mode,
        },
        ConfigAttr::NlBufSiz(config.nlbufsiz),
        ConfigAttr::Timeout(config.timeout_hundredths()),
        ConfigAttr::QThresh(config.qthresh),
        ConfigAttr::Flags(flags),
    ]
}

/// Unbinds `group`; the kernel first delivers what it holds.
pub(super) fn unbind(group: u16, sequence: u32) -> Vec<u8> {
    let command = ConfigAttr::Command(uapi::NFULNL_CFG_CMD_UNBIND);
    encode(uapi::AF_UNSPEC, group, vec![command], sequence)
}

/// Makes NFLOG the logger of a protocol family in the whole namespace. The kernel looks at nothing else in such a message.
pub(super) fn bind_family(family: u8, sequence: u32) -> Vec<u8> {
    let command = ConfigAttr::Command(uapi::NFULNL_CFG_CMD_PF_BIND);
    encode(family, 0, vec![command], sequence)
}

/// Leaves a protocol family without a logger, whatever logger it has.
pub(super) fn unbind_family(family: u8, sequence: u32) -> Vec<u8> {
    let command = ConfigAttr::Command(uapi::NFULNL_CFG_CMD_PF_UNBIND);
    encode(family, 0, vec![command], sequence)
}

/// Asks nothing, but is refused with EPERM only for want of CAP_NET_ADMIN: with it, the kernel finds the protocol family
/// invalid. Tells a missing capability from a group that another socket reads.
pub(super) fn probe_permission(sequence: u32) -> Vec<u8> {
    bind_family(NO_FAMILY, sequence)
}

fn encode(family: u8, group: u16, attributes: Vec<ConfigAttr>, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK;
    header.sequence_number = sequence;
    let request = Request {
        family,
        group,
        attributes,
    };
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// `struct nfgenmsg` and attributes.
struct Request {
    family: u8,
    group: u16,
    attributes: Vec<ConfigAttr>,
}

impl NetlinkSerializable for Request {
    fn message_type(&self) -> u16 {
        uapi::MSG_CONFIG
    }

    fn buffer_len(&self) -> usize {
        NFGENMSG + self.attributes.as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, attributes) = buffer.split_at_mut(NFGENMSG);
        let [high, low] = self.group.to_be_bytes();
        header.copy_from_slice(&[self.family, uapi::NFNETLINK_V0, high, low]);
        self.attributes.as_slice().emit(attributes);
    }
}

/// `NFULA_CFG_*`.
enum ConfigAttr {
    Command(u8),
    Mode { range: u32, mode: CopyMode },
    NlBufSiz(u32),
    Timeout(u32),
    QThresh(u32),
    Flags(Flags),
}

impl Nla for ConfigAttr {
    fn value_len(&self) -> usize {
        match self {
            Self::Command(_) => 1,
            // struct nfulnl_msg_config_mode is packed.
            Self::Mode { .. } => 6,
            Self::NlBufSiz(_) | Self::Timeout(_) | Self::QThresh(_) => 4,
            Self::Flags(_) => 2,
        }
    }

    fn kind(&self) -> u16 {
        match self {
            Self::Command(_) => uapi::NFULA_CFG_CMD,
            Self::Mode { .. } => uapi::NFULA_CFG_MODE,
            Self::NlBufSiz(_) => uapi::NFULA_CFG_NLBUFSIZ,
            Self::Timeout(_) => uapi::NFULA_CFG_TIMEOUT,
            Self::QThresh(_) => uapi::NFULA_CFG_QTHRESH,
            Self::Flags(_) => uapi::NFULA_CFG_FLAGS,
        }
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        match self {
            Self::Command(command) => buffer.copy_from_slice(&[*command]),
            Self::Mode { range, mode } => {
                buffer[..4].copy_from_slice(&range.to_be_bytes());
                buffer[4..].copy_from_slice(&[*mode as u8, 0]);
            }
            Self::NlBufSiz(value) | Self::Timeout(value) | Self::QThresh(value) => {
                buffer.copy_from_slice(&value.to_be_bytes());
            }
            Self::Flags(flags) => buffer.copy_from_slice(&flags.bits().to_be_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::NetlinkMessage as Oracle;
    use netlink_packet_netfilter::nflog::{
        ConfigCmd, ConfigFlags, ConfigMode, ConfigNla, ULogMessage, config_request,
    };
    use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
    use std::time::Duration;

    fn config() -> Config {
        Config::builder()
            .group(0x0102)
            .copy_range(128)
            .nlbufsiz(0x1_0000)
            .qthresh(500)
            .timeout(Duration::from_millis(50))
            .build()
            .unwrap()
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_bind_is_these_bytes() {
        let bytes = bind(&config(), 0x0102, Flags::SEQ | Flags::CONNTRACK, 0x11);
        #[rustfmt::skip]
        let expected = [
            72, 0, 0, 0, 1, 4, 5, 0, 0x11, 0, 0, 0, 0, 0, 0, 0, // length, ULOG CONFIG, REQUEST|ACK, sequence, port
            0, 0, 1, 2, // AF_UNSPEC, version 0, group
            5, 0, 1, 0, 1, 0, 0, 0, // CMD = BIND
            10, 0, 2, 0, 0, 0, 0, 128, 2, 0, 0, 0, // MODE = range 128, packet
            8, 0, 3, 0, 0, 1, 0, 0, // NLBUFSIZ
            8, 0, 4, 0, 0, 0, 0, 5, // TIMEOUT in 1/100 s
            8, 0, 5, 0, 0, 0, 1, 0xf4, // QTHRESH
            6, 0, 6, 0, 0, 5, 0, 0, // FLAGS
        ];
        assert_eq!(bytes, expected);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn an_unbind_is_these_bytes() {
        let bytes = unbind(7, 3);
        let expected = [
            28, 0, 0, 0, 1, 4, 5, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 5, 0, 1, 0, 2, 0, 0, 0,
        ];
        assert_eq!(bytes, expected);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn the_probe_binds_a_family_that_does_not_exist() {
        let bytes = probe_permission(3);
        let expected = [
            28, 0, 0, 0, 1, 4, 5, 0, 3, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 0, 5, 0, 1, 0, 3, 0, 0, 0,
        ];
        assert_eq!(bytes, expected);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn families_are_bound_and_unbound_by_these_bytes() {
        let mut expected = [
            28, 0, 0, 0, 1, 4, 5, 0, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 5, 0, 1, 0, 3, 0, 0, 0,
        ];
        assert_eq!(bind_family(uapi::AF_INET, 3), expected);
        (expected[16], expected[24]) = (10, 4);
        assert_eq!(unbind_family(uapi::AF_INET6, 3), expected);
    }

    #[test]
    fn another_implementation_writes_the_same_bind() {
        let flags = Flags::SEQ | Flags::SEQ_GLOBAL;
        let attributes = vec![
            ConfigNla::Cmd(ConfigCmd::Bind),
            ConfigNla::Mode(ConfigMode::new_packet(128)),
            ConfigNla::NlBufSiz(0x1_0000),
            ConfigNla::Timeout(Duration::from_millis(50).into()),
            ConfigNla::QThresh(500),
            ConfigNla::Flags(ConfigFlags::SEQ | ConfigFlags::SEQ_GLOBAL),
        ];
        let mut message = config_request(NetfilterProtoFamily::Unspec, 0x0102, attributes);
        message.header.sequence_number = 9;
        let mut expected = vec![0; message.buffer_len()];
        message.serialize(&mut expected);
        assert_eq!(bind(&config(), 0x0102, flags, 9), expected);
    }

    #[test]
    fn another_implementation_reads_our_bind_back() {
        for copy_mode in [CopyMode::None, CopyMode::Meta, CopyMode::Packet] {
            let config = Config::builder()
                .group(65_535)
                .copy_mode(copy_mode)
                .build()
                .unwrap();
            let bytes = bind(&config, 65_535, Flags::CONNTRACK, 1);
            let message = Oracle::<NetfilterMessage>::deserialize(&bytes).unwrap();
            let NetlinkPayload::InnerMessage(message) = message.payload else {
                panic!("not a netfilter message: {message:?}");
            };
            assert_eq!(message.header.res_id, 65_535);
            let NetfilterMessageInner::ULog(ULogMessage::Config(attributes)) = message.inner else {
                panic!("not a configuration: {message:?}");
            };
            let mode = match copy_mode {
                CopyMode::None => ConfigMode::NONE,
                CopyMode::Meta => ConfigMode::META,
                CopyMode::Packet => ConfigMode::new_packet(128),
            };
            assert_eq!(
                attributes,
                [
                    ConfigNla::Cmd(ConfigCmd::Bind),
                    ConfigNla::Mode(mode),
                    ConfigNla::NlBufSiz(130_752),
                    ConfigNla::Timeout(Duration::from_millis(10).into()),
                    ConfigNla::QThresh(1000),
                    ConfigNla::Flags(ConfigFlags::CONNTRACK),
                ]
            );
        }
    }
}
