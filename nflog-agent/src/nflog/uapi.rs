//! Numbers of the uapi headers `nfnetlink.h` and `nfnetlink_log.h`, in the width that they have on the wire.

/// Flag of an attribute type: the value is attributes.
pub(super) const NLA_F_NESTED: u16 = wide(libc::NLA_F_NESTED);

/// An attribute or message type.
const fn wide(number: libc::c_int) -> u16 {
    let [low, high, 0, 0] = number.to_le_bytes() else {
        panic!("does not fit 16 bits")
    };
    u16::from_le_bytes([low, high])
}

/// A command, version or subsystem.
const fn narrow(number: libc::c_int) -> u8 {
    let [low, 0, 0, 0] = number.to_le_bytes() else {
        panic!("does not fit 8 bits")
    };
    low
}

/// Message type of a logged packet: subsystem and `NFULNL_MSG_PACKET`.
pub(super) const MSG_PACKET: u16 =
    u16::from_be_bytes([narrow(libc::NFNL_SUBSYS_ULOG), narrow(libc::NFULNL_MSG_PACKET)]);
/// Message type of a request: subsystem and `NFULNL_MSG_CONFIG`.
pub(super) const MSG_CONFIG: u16 =
    u16::from_be_bytes([narrow(libc::NFNL_SUBSYS_ULOG), narrow(libc::NFULNL_MSG_CONFIG)]);

pub(super) const NFNETLINK_V0: u8 = narrow(libc::NFNETLINK_V0);
pub(super) const NFULNL_CFG_CMD_BIND: u8 = narrow(libc::NFULNL_CFG_CMD_BIND);
pub(super) const NFULNL_CFG_CMD_UNBIND: u8 = narrow(libc::NFULNL_CFG_CMD_UNBIND);
pub(super) const NFULNL_CFG_CMD_PF_BIND: u8 = narrow(libc::NFULNL_CFG_CMD_PF_BIND);
pub(super) const NFULNL_CFG_CMD_PF_UNBIND: u8 = narrow(libc::NFULNL_CFG_CMD_PF_UNBIND);
pub(super) const AF_UNSPEC: u8 = narrow(libc::AF_UNSPEC);
pub(super) const AF_INET: u8 = narrow(libc::AF_INET);
pub(super) const AF_INET6: u8 = narrow(libc::AF_INET6);

pub(super) const NFULA_CFG_CMD: u16 = wide(libc::NFULA_CFG_CMD);
pub(super) const NFULA_CFG_MODE: u16 = wide(libc::NFULA_CFG_MODE);
pub(super) const NFULA_CFG_NLBUFSIZ: u16 = wide(libc::NFULA_CFG_NLBUFSIZ);
pub(super) const NFULA_CFG_TIMEOUT: u16 = wide(libc::NFULA_CFG_TIMEOUT);
pub(super) const NFULA_CFG_QTHRESH: u16 = wide(libc::NFULA_CFG_QTHRESH);
pub(super) const NFULA_CFG_FLAGS: u16 = wide(libc::NFULA_CFG_FLAGS);

pub(super) const NFULA_PACKET_HDR: u16 = wide(libc::NFULA_PACKET_HDR);
pub(super) const NFULA_MARK: u16 = wide(libc::NFULA_MARK);
pub(super) const NFULA_TIMESTAMP: u16 = wide(libc::NFULA_TIMESTAMP);
pub(super) const NFULA_IFINDEX_INDEV: u16 = wide(libc::NFULA_IFINDEX_INDEV);
pub(super) const NFULA_IFINDEX_OUTDEV: u16 = wide(libc::NFULA_IFINDEX_OUTDEV);
pub(super) const NFULA_IFINDEX_PHYSINDEV: u16 = wide(libc::NFULA_IFINDEX_PHYSINDEV);
pub(super) const NFULA_IFINDEX_PHYSOUTDEV: u16 = wide(libc::NFULA_IFINDEX_PHYSOUTDEV);
pub(super) const NFULA_HWADDR: u16 = wide(libc::NFULA_HWADDR);
pub(super) const NFULA_PAYLOAD: u16 = wide(libc::NFULA_PAYLOAD);
pub(super) const NFULA_PREFIX: u16 = wide(libc::NFULA_PREFIX);
pub(super) const NFULA_UID: u16 = wide(libc::NFULA_UID);
pub(super) const NFULA_SEQ: u16 = wide(libc::NFULA_SEQ);
pub(super) const NFULA_SEQ_GLOBAL: u16 = wide(libc::NFULA_SEQ_GLOBAL);
pub(super) const NFULA_GID: u16 = wide(libc::NFULA_GID);
pub(super) const NFULA_HWTYPE: u16 = wide(libc::NFULA_HWTYPE);
pub(super) const NFULA_HWHEADER: u16 = wide(libc::NFULA_HWHEADER);
pub(super) const NFULA_HWLEN: u16 = wide(libc::NFULA_HWLEN);
pub(super) const NFULA_CT: u16 = wide(libc::NFULA_CT);
pub(super) const NFULA_CT_INFO: u16 = wide(libc::NFULA_CT_INFO);
pub(super) const NFULA_VLAN: u16 = wide(libc::NFULA_VLAN);
pub(super) const NFULA_L2HDR: u16 = wide(libc::NFULA_L2HDR);
pub(super) const NFULA_VLAN_PROTO: u16 = wide(libc::NFULA_VLAN_PROTO);
pub(super) const NFULA_VLAN_TCI: u16 = wide(libc::NFULA_VLAN_TCI);
