//! Whether an address belongs to this network namespace: `RTM_GETROUTE` of one address.
//!
//! Uapi: `linux/rtnetlink.h`. Needs no capability.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::error::QueryError;
use super::netlink::{Extent, Requests};

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_BROADCAST: u8 = 3;
const RTN_MULTICAST: u8 = 5;
/// Offset of `rtmsg.rtm_type`.
const TYPE_OFFSET: usize = 7;
const RTMSG_LEN: usize = 12;

/// How long an answer is kept: an address added or removed is noticed this late.
const LIFETIME: Duration = Duration::from_secs(1);
const MAX_ADDRESSES: usize = 4096;

/// A `NETLINK_ROUTE` socket with a short memory.
#[derive(Debug)]
pub(super) struct LocalAddresses {
    requests: Requests,
    known: HashMap<IpAddr, (bool, Instant)>,
}

impl LocalAddresses {
    pub(super) fn new(requests: Requests) -> Self {
        Self {
            requests,
            known: HashMap::new(),
        }
    }

    /// Whether packets to `address` are for this namespace; broadcast and multicast addresses count.
    ///
    /// # Errors
    ///
    /// [`QueryError`], except "no route", which is `false`.
    pub(super) fn contains(&mut self, address: IpAddr) -> Result<bool, QueryError> {
        if address.is_multicast() {
            return Ok(true);
        }
        let now = Instant::now();
        if let Some(&(local, at)) = self.known.get(&address)
            && now.duration_since(at) < LIFETIME
        {
            return Ok(local);
        }
        let local = self.ask(address)?;
        if self.known.len() == MAX_ADDRESSES {
            self.known.clear();
        }
        self.known.insert(address, (local, now));
        Ok(local)
    }

    fn ask(&mut self, address: IpAddr) -> Result<bool, QueryError> {
        let mut local = false;
        let asked = self
            .requests
            .ask(RTM_GETROUTE, Extent::One, &request(address), |kind, payload| {
                let route = payload
                    .first_chunk::<RTMSG_LEN>()
                    .filter(|_| kind == RTM_NEWROUTE);
                let route_type = route.ok_or(QueryError::Malformed)?[TYPE_OFFSET];
                local = matches!(route_type, RTN_LOCAL | RTN_BROADCAST | RTN_MULTICAST);
                Ok(())
            });
        match asked {
            Ok(()) => Ok(local),
            Err(QueryError::Refused(error)) if is_unroutable(error.raw_os_error()) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Errno values of blackhole, unreachable and prohibit routes and of no route at all.
fn is_unroutable(errno: Option<i32>) -> bool {
    matches!(
        errno,
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
    )
}

fn request(address: IpAddr) -> Vec<u8> {
    let (family, octets): (u8, &[u8]) = match &address {
        IpAddr::V4(v4) => (2, &v4.octets()),
        IpAddr::V6(v6) => (10, &v6.octets()),
    };
    let (bits, attribute_len): (u8, u16) = if family == 2 { (32, 8) } else { (128, 20) };
    let mut bytes = vec![0; RTMSG_LEN];
    bytes[0] = family;
    bytes[1] = bits;
    bytes.extend(attribute_len.to_ne_bytes());
    bytes.extend(RTA_DST.to_ne_bytes());
    bytes.extend(octets);
    bytes
}
