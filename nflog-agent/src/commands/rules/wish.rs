//! What people want to see logged, as words of the command line.
//!
//! A wish's text is safe to quote in nft and iptables: printable ASCII without quotation marks.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use thiserror::Error;

/// Something to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// What the firewall drops. Only its own chains can log that.
    Drops,
    /// What opens a connection to this host.
    NewIn,
    /// What opens a connection from this host.
    NewOut,
    /// Both.
    New,
    /// What opens a connection through this host.
    Forward,
    /// What one source sends.
    Egress(Source),
    /// What is sent to ports.
    Port(Option<Protocol>, RangeInclusive<u16>),
}

/// Who sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Processes in a cgroup and below it: the path below the root of cgroup v2, without a leading `/`.
    Cgroup(String),
    /// An address, or a network of them by the length of its prefix.
    Address(IpAddr, u8),
    /// Whatever is behind a device.
    Device(String),
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Why a word is no wish.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum WishError {
    /// None of those there are.
    #[error(
        "no such wish; write new-in, new-out, new, forward, port:443, port:udp/53, port:8000-8010, egress:ADDRESS, egress:DEVICE, egress:/CGROUP or drops"
    )]
    Unknown,
    /// Not a port.
    #[error("ports are 1 to 65535: write port:443, port:tcp/443 or port:8000-8010")]
    Port,
    /// Not a network.
    #[error("'/{0}' is no length of a network of such addresses: write 10.42.0.0/24 or fd00::/64")]
    Network(String),
    /// No device can have that name.
    #[error(
        "no device has such a name (1 to 15 characters, the last may be * for any rest), and it is no address, and no cgroup, which begins with /"
    )]
    Device,
    /// Not a cgroup.
    #[error(
        "write a cgroup's path below the root of cgroup v2, without . and .., as in /proc/PID/cgroup after 0::"
    )]
    Cgroup,
    /// Could not be quoted.
    #[error("only printable ASCII without quotation marks can be in a rule")]
    Characters,
}

impl FromStr for Wish {
    type Err = WishError;

    fn from_str(text: &str) -> Result<Self, WishError> {
        let text = text.trim();
        if !text
            .bytes()
            .all(|byte| matches!(byte, b' '..=b'~') && byte != b'"')
        {
            return Err(WishError::Characters);
        }
        match text {
            "drops" => return Ok(Self::Drops),
            "new-in" => return Ok(Self::NewIn),
            "new-out" => return Ok(Self::NewOut),
            "new" => return Ok(Self::New),
            "forward" => return Ok(Self::Forward),
            _ => {}
        }
        match text.split_once(':') {
            Some(("port", ports)) => port(ports),
            Some(("egress", source)) => Ok(Self::Egress(source.parse()?)),
            _ => Err(WishError::Unknown),
        }
    }
}

fn port(text: &str) -> Result<Wish, WishError> {
    let (protocol, ports) = match text.split_once('/') {
        Some(("tcp", ports)) => (Some(Protocol::Tcp), ports),
        Some(("udp", ports)) => (Some(Protocol::Udp), ports),
        Some(_) => return Err(WishError::Port),
        None => (None, text),
    };
    let number = |text: &str| match text.parse() {
        Ok(0) | Err(_) => Err(WishError::Port),
        Ok(number) => Ok(number),
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let range = number(first)?..=number(last)?;
    if range.is_empty() {
        return Err(WishError::Port);
    }
    Ok(Wish::Port(protocol, range))
}

impl FromStr for Source {
    type Err = WishError;

    fn from_str(text: &str) -> Result<Self, WishError> {
        if let Some(path) = text.strip_prefix('/') {
            let path = path.trim_end_matches('/');
            if path.split('/').any(|name| matches!(name, "" | "." | "..")) {
                return Err(WishError::Cgroup);
            }
            return Ok(Self::Cgroup(path.to_owned()));
        }
        let (address, length) = text
            .split_once('/')
            .map_or((text, None), |(address, length)| (address, Some(length)));
        let Ok(address) = address.parse::<IpAddr>() else {
            return device(text);
        };
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => longest,
            Some(text) => match text.parse() {
                Ok(length) if length <= longest => length,
                _ => return Err(WishError::Network(text.to_owned())),
            },
        };
        Ok(Self::Address(address, length))
    }
}

/// As the kernel's `dev_valid_name`, and nothing that nft would read as a pattern but a last `*`.
fn device(name: &str) -> Result<Source, WishError> {
    let stem = name.strip_suffix('*').unwrap_or(name);
    let fits = (1..=15).contains(&name.len()) && !matches!(stem, "" | "." | "..");
    if fits && !stem.contains(['/', ':', ' ', '*', '\\']) {
        Ok(Source::Device(name.to_owned()))
    } else {
        Err(WishError::Device)
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drops => f.write_str("drops"),
            Self::NewIn => f.write_str("new-in"),
            Self::NewOut => f.write_str("new-out"),
            Self::New => f.write_str("new"),
            Self::Forward => f.write_str("forward"),
            Self::Egress(Source::Cgroup(path)) => write!(f, "egress:/{path}"),
            Self::Egress(Source::Address(address, length)) => write!(f, "egress:{address}/{length}"),
            Self::Egress(Source::Device(name)) => write!(f, "egress:{name}"),
            Self::Port(protocol, ports) => {
                f.write_str("port:")?;
                if let Some(protocol) = protocol {
                    write!(f, "{}/", protocol.name())?;
                }
                write!(f, "{}", ports.start())?;
                if ports.start() == ports.end() {
                    Ok(())
                } else {
                    write!(f, "-{}", ports.end())
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_reads_as_it_is_written() {
        for text in [
            "drops",
            "new-in",
            "new-out",
            "new",
            "forward",
            "port:443",
            "port:udp/53",
            "port:tcp/8000-8010",
            "egress:10.42.0.0/24",
            "egress:fd00::7/128",
            "egress:cali*",
            "egress:eth0.100",
            "egress:/system.slice/app\\x2da.service",
        ] {
            assert_eq!(text.parse::<Wish>().unwrap().to_string(), text);
        }
        assert_eq!(
            "egress:10.0.0.7".parse::<Wish>().unwrap().to_string(),
            "egress:10.0.0.7/32"
        );
    }

    #[test]
    fn what_is_no_wish_is_refused_with_the_way_to_write_it() {
        for (text, error) in [
            ("everything", WishError::Unknown),
            ("port:0", WishError::Port),
            ("port:80-79", WishError::Port),
            ("port:sctp/80", WishError::Port),
            ("egress:10.0.0.0/33", WishError::Network("33".to_owned())),
            ("egress:a-name-that-is-too-long", WishError::Device),
            ("egress:*", WishError::Device),
            ("egress:..", WishError::Device),
            ("egress:a*b", WishError::Device),
            ("egress:", WishError::Device),
            ("egress:/", WishError::Cgroup),
            ("egress:/a/../b", WishError::Cgroup),
            ("egress:a\" drop", WishError::Characters),
            ("egress:ü", WishError::Characters),
        ] {
            assert_eq!(text.parse::<Wish>(), Err(error), "{text}");
        }
    }
}
