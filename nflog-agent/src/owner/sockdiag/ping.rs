//! Ping sockets (`SOCK_DGRAM` with `IPPROTO_ICMP`), which `inet_diag` does not know: read from `/proc/net/icmp`.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileExt;

use super::flow::Flow;

/// Longest table read: some 8000 ping sockets.
const MAX_TABLE: usize = 1024 * 1024;

/// The ping socket tables of the network namespace that they were opened in; open files stay in it.
#[derive(Debug)]
pub(super) struct PingSockets {
    v4: File,
    /// `None` if the kernel has no IPv6.
    v6: Option<File>,
    table: Vec<u8>,
}

impl PingSockets {
    /// Opens the tables of the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// `/proc/thread-self/net/icmp` does not open.
    pub(super) fn open() -> io::Result<Self> {
        let v6 = match File::open("/proc/thread-self/net/icmp6") {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            v4: File::open("/proc/thread-self/net/icmp")?,
            v6,
            table: Vec::new(),
        })
    }

    /// Inodes of the ping sockets whose echo identifier is the flow's, at its local address or at any.
    ///
    /// # Errors
    ///
    /// The table cannot be read, or is too long.
    pub(super) fn find(&mut self, flow: &Flow) -> io::Result<Vec<u32>> {
        let file = match flow.local {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => match &self.v6 {
                Some(file) => file,
                None => return Ok(Vec::new()),
            },
        };
        read(file, &mut self.table)?;
        let rows = self.table.split(|&byte| byte == b'\n').filter_map(parse_row);
        let matching = rows.filter(|row| {
            row.echo_id == flow.local_port && (row.local == flow.local || row.local.is_unspecified())
        });
        Ok(matching.map(|row| row.inode).collect())
    }
}

fn read(file: &File, table: &mut Vec<u8>) -> io::Result<()> {
    table.clear();
    let mut chunk = [0; 8192];
    loop {
        match file.read_at(&mut chunk, table.len() as u64)? {
            0 => return Ok(()),
            length => table.extend_from_slice(&chunk[..length]),
        }
        if table.len() > MAX_TABLE {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    local: IpAddr,
    echo_id: u16,
    inode: u32,
}

/// `sl: LOCAL:ID REMOTE:PORT st tx:rx tr:when retrnsmt uid timeout inode …`, addresses as host-order 32-bit words.
fn parse_row(line: &[u8]) -> Option<Row> {
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let (address, id) = fields.nth(1)?.split_once(':')?;
    let inode = fields.nth(7)?.parse().ok()?;
    Some(Row {
        local: parse_address(address)?,
        echo_id: u16::from_str_radix(id, 16).ok()?,
        inode,
    })
}

fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut octets = [0; 16];
            for (index, chunk) in octets.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index * 8)?);
            }
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn rows_of_both_families_are_read() {
        let v4 = b"   54: 0100007F:BEEF 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 31877 2 0 0";
        let row = parse_row(v4).unwrap();
        assert_eq!(
            row,
            Row {
                local: "127.0.0.1".parse().unwrap(),
                echo_id: 0xbeef,
                inode: 31877
            }
        );
        let v6 = b"   54: 000000FD000000000000000001000000:0007 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 9 2 0 0";
        assert_eq!(parse_row(v6).unwrap().local, "fd00::1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn the_heading_and_short_rows_are_skipped() {
        let heading = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref";
        assert_eq!(parse_row(heading), None);
        assert_eq!(parse_row(b""), None);
        assert_eq!(parse_row(b"1: 0100007F:BEEF"), None);
    }
}
