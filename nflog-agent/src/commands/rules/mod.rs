//! `rules`: firewall rules that feed the agent, printed, or put into a table of their own and removed again.
//!
//! Only table `inet nflog-agent` is ever changed, and only if it is ours: it has a chain `nftables::MARK`. It is replaced in one
//! transaction, so no packet sees half of it.

mod arguments;
mod cgroup;
mod iptables;
mod nftables;
mod program;
mod rule;
mod wish;

use std::io::{self, Write as _, stdout};
use std::path::PathBuf;

use thiserror::Error;

pub use arguments::{Action, Family, Format, Place, Prefix, PrefixError, Rate, RateError, RulesArgs, Wanted};
pub use wish::{Protocol, Source, Wish, WishError};

use super::CommandError;
use crate::agent::netns_exit_code;
use crate::exit_codes;
use crate::nflog::NetnsError;
use nftables::{MARK, TABLE};
use program::Nft;

/// Why rules could not be made, put in place, or removed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RulesError {
    /// Nothing would be logged.
    #[error(
        "drops cannot be logged from a table of its own, which never sees what other chains drop: nflog-agent rules print drops \
         says what to put into those chains"
    )]
    Drops,
    /// The wishes and `--family` exclude each other.
    #[error("no rule is left of the wishes: --family {0} excludes all their addresses")]
    Nothing(&'static str),
    /// iptables has fixed ones.
    #[error("--priority is for nftables: iptables' chains have fixed priorities; leave it out")]
    Priority,
    /// Not there.
    #[error("no cgroup {}: a rule is for a cgroup that is there, and has to be made again when that is", .path.display())]
    NoCgroup {
        /// Where it should be.
        path: PathBuf,
    },
    /// Seen by nobody here.
    #[error(
        "cgroup version 2 is not mounted here, and the cgroup cannot be looked up; ip netns exec hides it: use --netns instead"
    )]
    CgroupsHidden,
    /// Not where nft looks.
    #[error("cgroup version 2 is mounted at {}, and nft looks below /sys/fs/cgroup: mount it there", .root.display())]
    CgroupRoot {
        /// Where it is.
        root: PathBuf,
    },
    /// /proc cannot be read.
    #[error("cannot read where cgroups are mounted: {0}; mount /proc")]
    Mounts(String),
    /// The program is missing.
    #[error(
        "there is no program nft: install it (package nftables), or load what nflog-agent rules print prints"
    )]
    NoNft,
    /// The program cannot be run.
    #[error("cannot run nft: {0}")]
    Nft(io::Error),
    /// Not root.
    #[error(
        "no permission to change or read firewall rules: CAP_NET_ADMIN is missing; run as root (sudo nflog-agent ...)"
    )]
    NotPrivileged,
    /// A table of that name is somebody else's.
    #[error(
        "there is a table {TABLE} that is not of nflog-agent rules (no chain {MARK} in it): rename or delete it first"
    )]
    Foreign,
    /// nft, or the kernel, does not take them.
    #[error("nft refuses: {said}")]
    Refused {
        /// Its words.
        said: String,
    },
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

impl RulesError {
    /// Exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Drops
            | Self::Nothing(_)
            | Self::Priority
            | Self::NoCgroup { .. }
            | Self::CgroupRoot { .. } => exit_codes::USAGE,
            Self::Netns(error) => netns_exit_code(error),
            Self::NoNft | Self::Refused { .. } | Self::Mounts(_) | Self::CgroupsHidden => {
                exit_codes::UNAVAILABLE
            }
            Self::Foreign => exit_codes::BUSY,
            Self::NotPrivileged => exit_codes::PERMISSION,
            Self::Nft(_) => exit_codes::FAILED,
        }
    }
}

/// Examples and what has to be known, for `--help`.
pub(crate) const EXAMPLES: &str = "\
Wishes:
  new-in, new-out, new   what opens a connection to this host, from it, or both
  forward                what opens a connection through this host
  port:443               what opens a connection to a TCP or UDP port, here or elsewhere;
                         also port:udp/53, port:8000-8010
  egress:10.42.0.7       what opens a connection from an address or network: in the host's
                         network namespace that is a pod or container
  egress:cali12345       the same by device; behind a bridge that is the bridge: use the address
  egress:/system.slice/web.service
                         the same by the cgroup of processes in this network namespace. It must
                         exist, and when it is made again (the service is restarted) the rules
                         have to be installed again. For a container with a network namespace of
                         its own use its address, or --netns with its pid
  drops                  what the firewall drops. No table sees what another one drops, so it
                         cannot be installed: print says what to put into the chain that drops

A packet that fits two wishes is logged by both. The opening packet is found by connection
tracking (ct state new); --every-packet does without.

Examples:
  nflog-agent rules print new port:udp/53 --limit 100/second
  nflog-agent rules install new --group 7 && nflog-agent run --group 7
  nflog-agent rules install egress:10.42.0.7 --every-packet --prefix 'web '
  nflog-agent rules print drops --format iptables
  nflog-agent rules list; nflog-agent rules remove";

pub(super) fn carry_out(args: &RulesArgs) -> Result<u8, CommandError> {
    let text = match &args.action {
        Action::Print { format, rules } => print(*format, rules)?,
        Action::Install { rules, place } => install(rules, &nft(place))?,
        Action::Remove { place } => remove(&nft(place))?,
        Action::List { place } => list(&nft(place))?,
    };
    stdout().write_all(text.as_bytes())?;
    Ok(0)
}

fn nft(place: &Place) -> Nft {
    Nft::new(place.netns.as_deref())
}

fn print(format: Format, wanted: &Wanted) -> Result<String, RulesError> {
    if format == Format::Iptables && wanted.priority.is_some() {
        return Err(RulesError::Priority);
    }
    let mut text = String::new();
    if wanted.wishes.contains(&Wish::Drops) {
        text += &match format {
            Format::Nft => nftables::drops(wanted),
            Format::Iptables => iptables::drops(wanted),
        };
    }
    if wanted.wishes.iter().any(|wish| *wish != Wish::Drops) {
        check(wanted)?;
        text += &match format {
            Format::Nft => nftables::script(wanted)?,
            Format::Iptables => iptables::script(wanted),
        };
    }
    Ok(text)
}

/// That there is something to log.
fn check(wanted: &Wanted) -> Result<(), RulesError> {
    match wanted.family {
        Some(family) if rule::rules(wanted).is_empty() => Err(RulesError::Nothing(match family {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        })),
        _ => Ok(()),
    }
}

fn install(wanted: &Wanted, nft: &Nft) -> Result<String, RulesError> {
    if wanted.wishes.contains(&Wish::Drops) {
        return Err(RulesError::Drops);
    }
    check(wanted)?;
    for wish in &wanted.wishes {
        if let Wish::Egress(Source::Cgroup(path)) = wish {
            cgroup::exists(path)?;
        }
    }
    let script = nftables::script(wanted)?;
    state(nft)?.refuse_foreign()?;
    nft.run(&["-c", "-f", "-"], &script)?;
    nft.run(&["-f", "-"], &script)?;
    let (rules, group) = (rule::rules(wanted).len(), wanted.group);
    let s = if rules == 1 { "" } else { "s" };
    Ok(format!(
        "{rules} rule{s} for group {group} in table {TABLE}: nflog-agent run --group {group} reads it, nflog-agent rules remove \
         removes the table\n"
    ))
}

fn remove(nft: &Nft) -> Result<String, RulesError> {
    let state = state(nft)?;
    state.refuse_foreign()?;
    if let State::Absent = state {
        return Ok(format!("there is no table {TABLE}\n"));
    }
    nft.run(&["-f", "-"], &format!("delete table {TABLE}\n"))?;
    Ok(format!("table {TABLE} is removed\n"))
}

fn list(nft: &Nft) -> Result<String, RulesError> {
    match state(nft)? {
        State::Absent => Ok(format!("there is no table {TABLE}\n")),
        State::Ours(text) => Ok(text),
        State::Foreign => Err(RulesError::Foreign),
    }
}

/// What there is under the table's name.
enum State {
    Absent,
    /// With its text.
    Ours(String),
    Foreign,
}

impl State {
    const fn refuse_foreign(&self) -> Result<(), RulesError> {
        match self {
            Self::Foreign => Err(RulesError::Foreign),
            Self::Absent | Self::Ours(_) => Ok(()),
        }
    }
}

fn state(nft: &Nft) -> Result<State, RulesError> {
    let tables = nft.run(&["list", "tables"], "")?;
    if !tables
        .lines()
        .any(|line| line.strip_prefix("table ") == Some(TABLE))
    {
        return Ok(State::Absent);
    }
    let text = nft.run(&["list", "table", "inet", "nflog-agent"], "")?;
    let mark = format!("chain {MARK} {{");
    Ok(if text.lines().any(|line| line.trim() == mark) {
        State::Ours(text)
    } else {
        State::Foreign
    })
}
