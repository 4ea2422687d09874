//! Arguments of `rules`.

use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use thiserror::Error;

use super::wish::Wish;

/// Arguments of `rules`.
#[derive(Clone, Debug, Args)]
pub struct RulesArgs {
    /// What to do with the rules.
    #[command(subcommand)]
    pub action: Action,
}

const PRINT_EXAMPLES: &str = "Examples:
  # Look, then load it yourself
  nflog-agent rules print new --limit 100/second | sudo nft -f -
  # For iptables
  nflog-agent rules print new --format iptables | sudo iptables-restore --noflush

What can be wished: nflog-agent rules --help";

const INSTALL_EXAMPLES: &str = "Examples:
  # What opens a connection to or from this host
  sudo nflog-agent rules install new
  # In the network namespace of a container, by the pid of one of its processes
  sudo nflog-agent rules install new-out --netns 4711

What can be wished: nflog-agent rules --help";

const REMOVE_EXAMPLES: &str = "Examples:
  sudo nflog-agent rules remove";

const LIST_EXAMPLES: &str = "Examples:
  sudo nflog-agent rules list";

/// What to do with rules.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Print rules, and change nothing.
    #[command(after_help = PRINT_EXAMPLES)]
    Print {
        /// In which language.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// What to log, and how.
        #[command(flatten)]
        rules: Wanted,
    },
    /// Put rules into table inet nflog-agent, in place of what is in it; all of them or none.
    #[command(after_help = INSTALL_EXAMPLES)]
    Install {
        /// What to log, and how.
        #[command(flatten)]
        rules: Wanted,
        /// Where.
        #[command(flatten)]
        place: Place,
    },
    /// Remove table inet nflog-agent.
    #[command(after_help = REMOVE_EXAMPLES)]
    Remove {
        /// Where.
        #[command(flatten)]
        place: Place,
    },
    /// Print table inet nflog-agent, with its counters.
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// Where.
        #[command(flatten)]
        place: Place,
    },
}

/// `--format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A script for nft -f.
    #[default]
    Nft,
    /// Input for iptables-restore --noflush and ip6tables-restore --noflush.
    Iptables,
}

/// `--netns`.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// Network namespace of the rules: a name (/run/netns/NAME), a path, or a pid. Default: this one.
    #[arg(long, value_name = "NAME|PATH|PID")]
    pub netns: Option<String>,
}

/// What to log, and how.
#[derive(Clone, Debug, Args)]
pub struct Wanted {
    /// What to log: new-in, new-out, new (both), forward, port:443, port:udp/53, port:8000-8010, egress:ADDRESS, egress:DEVICE,
    /// egress:/CGROUP, drops.
    #[arg(value_name = "WISH", required = true)]
    pub wishes: Vec<Wish>,

    /// NFLOG group, as in `run --group`.
    #[arg(short, long, value_name = "N", default_value_t = 7)]
    pub group: u16,

    /// Prefix of every rule. Default: one for each wish, as "new-in ".
    #[arg(short, long, value_name = "TEXT")]
    pub prefix: Option<Prefix>,

    /// Log every packet, not only those that open a connection (ct state new).
    #[arg(short, long)]
    pub every_packet: bool,

    /// Leave out what is sent over lo, where each packet goes out and comes in.
    #[arg(long)]
    pub no_loopback: bool,

    /// Log at most so much by each rule, as 100/second or 10/minute.
    #[arg(short, long, value_name = "N/UNIT")]
    pub limit: Option<Rate>,

    /// Packets of a burst beyond the limit.
    #[arg(long, value_name = "PACKETS", default_value_t = 5, requires = "limit", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub burst: u16,

    /// Only IPv4 or only IPv6.
    #[arg(short, long, value_enum)]
    pub family: Option<Family>,

    /// No counter in each rule.
    #[arg(long)]
    pub no_counter: bool,

    /// Bytes of each packet that the kernel copies.
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65_531))]
    pub snaplen: u32,

    /// Where in the hook the rules are. -10 is before the usual filter chains (0): they also see what those drop. 10 is behind:
    /// they see what those accept.
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub priority: Option<i32>,
}

/// `--family`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// `--prefix`: what both nft and iptables take between quotation marks as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(pub(super) String);

/// Longest prefix that iptables takes; nft takes twice as much.
const LONGEST_PREFIX: usize = 63;

/// Why a text is no prefix.
#[derive(Debug, Error)]
pub enum PrefixError {
    /// Has none, or too many.
    #[error("a prefix has 1 to 63 characters")]
    Length,
    /// Has others.
    #[error("a prefix is printable ASCII without \" \\ and $")]
    Characters,
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        if !(1..=LONGEST_PREFIX).contains(&text.len()) {
            return Err(PrefixError::Length);
        }
        let plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\' | b'$');
        if !text.bytes().all(plain) {
            return Err(PrefixError::Characters);
        }
        Ok(Self(text.to_owned()))
    }
}

/// `--limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub(super) packets: u32,
    pub(super) unit: &'static str,
}

/// Why a text is no rate.
#[derive(Debug, Error)]
#[error("write a rate as 100/second, with second, minute, hour or day, and 1 to 10000 packets")]
pub struct RateError;

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (packets, unit) = text.split_once('/').ok_or(RateError)?;
        let units = ["second", "minute", "hour", "day"];
        let unit = units.into_iter().find(|known| *known == unit).ok_or(RateError)?;
        match packets.parse() {
            Ok(packets @ 1..=10_000) => Ok(Self { packets, unit }),
            _ => Err(RateError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_a_unit_and_prefixes_need_no_escapes() {
        let rate = Rate {
            packets: 10,
            unit: "minute",
        };
        assert_eq!("10/minute".parse::<Rate>().unwrap(), rate);
        for text in ["10", "0/second", "10/week", "-1/day", "20000/second"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        assert!("web [new] ".parse::<Prefix>().is_ok());
        for text in ["", "a\"b", "a\\", "$x", "a\nb", "ü", &"x".repeat(64)] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }
}
