//! What the kernel tells about NFLOG in `/proc`: the bound groups of the calling thread's namespace, and who owns a socket.
//!
//! Invariant: only read at open, never per packet; a process that is not visible is `None`, not an error.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::error::{GroupOwner, OwnerProcess};

/// `NETLINK_NETFILTER`, the Eth column of `/proc/net/netlink`.
const NETFILTER: &str = "12";

/// A bound group, as `/proc/net/netfilter/nfnetlink_log` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The group.
    pub group: u16,
    /// Netlink port id of its reader.
    pub port_id: u32,
    /// Packets that wait for their batch to fill.
    pub queued: u32,
    /// Copy mode by number: see [`CopyMode`](super::CopyMode).
    pub copy_mode: u8,
    /// Bytes copied of each packet.
    pub copy_range: u32,
    /// Flush timeout.
    pub timeout: Duration,
}

/// The groups bound in the namespace of the calling thread.
///
/// # Errors
/// If the file cannot be read: no nfnetlink_log, no `/proc`, or not root.
pub(super) fn instances() -> io::Result<Vec<Instance>> {
    let text = fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_log")?;
    Ok(text.lines().filter_map(parse_instance).collect())
}

/// group, portid, queued, copy mode, copy range, timeout in 1/100 s, reference count.
fn parse_instance(line: &str) -> Option<Instance> {
    let mut fields = line.split_ascii_whitespace();
    let mut next = || fields.next();
    Some(Instance {
        group: next()?.parse().ok()?,
        port_id: next()?.parse().ok()?,
        queued: next()?.parse().ok()?,
        copy_mode: next()?.parse().ok()?,
        copy_range: next()?.parse().ok()?,
        timeout: Duration::from_millis(next()?.parse::<u64>().ok()?.checked_mul(10)?),
    })
}

/// Who reads `group` in the namespace of the calling thread.
pub(super) fn owner(group: u16) -> Option<GroupOwner> {
    let instance = instances()
        .ok()?
        .into_iter()
        .find(|instance| instance.group == group)?;
    Some(GroupOwner {
        port_id: instance.port_id,
        process: process(instance.port_id),
    })
}

/// The process that holds the netfilter netlink socket with this port id.
fn process(port_id: u32) -> Option<OwnerProcess> {
    let sockets = fs::read_to_string("/proc/thread-self/net/netlink").ok()?;
    let inode = sockets.lines().find_map(|line| parse_socket(line, port_id))?;
    let link = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        holds(&entry.path().join("fd"), &link).then(|| OwnerProcess {
            pid,
            comm: comm(&entry.path()),
        })
    })
}

/// Inode of the socket, if this line of `/proc/net/netlink` is about it. Columns: sk, Eth, Pid, …, Inode.
fn parse_socket(line: &str, port_id: u32) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let ours = fields.next()? == NETFILTER && fields.next()?.parse() == Ok(port_id);
    if ours { fields.last()?.parse().ok() } else { None }
}

/// Whether a directory of descriptors holds the file `link`.
fn holds(fd: &Path, link: &str) -> bool {
    // Unreadable: another user's process, or one that is gone.
    fs::read_dir(fd).is_ok_and(|fds| {
        fds.flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == link))
    })
}

fn comm(process: &Path) -> String {
    let bytes = fs::read(process.join("comm")).unwrap_or_default();
    String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::socket::NetlinkSocket;
    use super::*;

    #[test]
    fn a_line_of_the_instance_list_is_read() {
        let expected = Instance {
            group: 5,
            port_id: 4_294_963_200,
            queued: 17,
            copy_mode: 2,
            copy_range: 65_531,
            timeout: Duration::from_secs(1),
        };
        assert_eq!(
            parse_instance("    5 4294963200    17 2 65531    100  1"),
            Some(expected)
        );
        assert_eq!(parse_instance("    5 4294963200    17 2"), None);
        assert_eq!(parse_instance(""), None);
    }

    #[test]
    fn a_netlink_socket_is_found_by_protocol_and_port() {
        let line =
            "00000000e8a3d7a1 12  4711       00000000 0        0        0     2        0        21988   ";
        assert_eq!(parse_socket(line, 4711), Some(21_988));
        assert_eq!(parse_socket(line, 4712), None);
        assert_eq!(parse_socket(&line.replace(" 12 ", " 16 "), 4711), None);
        assert_eq!(
            parse_socket("sk               Eth Pid        Groups   Rmem", 4711),
            None
        );
    }

    #[test]
    fn our_own_socket_belongs_to_us() {
        let socket = NetlinkSocket::open().unwrap();
        let owner = process(socket.port_id()).unwrap();
        assert_eq!(owner.pid, std::process::id());
        assert!(!owner.comm.is_empty());
        drop(socket);
    }
}
