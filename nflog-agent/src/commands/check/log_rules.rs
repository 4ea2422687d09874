//! Rules that log to NFLOG groups, as the kernel has them: those of nftables, which iptables-nft and ebtables-nft make, too, over netlink; those
//! of the old iptables by its own program, where there are any. Without a program of nftables, which images of containers lack.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::process::Command;

use netlink_sys::protocols::NETLINK_NETFILTER;
use thiserror::Error;

use crate::nflog::Attrs;
use crate::owner::{Extent, QueryError, Requests};

/// `NFNL_SUBSYS_NFTABLES` and `NFT_MSG_GETRULE`.
const GET_RULE: u16 = 10 << 8 | 7;
/// `struct nfgenmsg`: rules of all families.
const OF_ALL_FAMILIES: [u8; 4] = [0; 4];
/// `NFTA_RULE_EXPRESSIONS`.
const EXPRESSIONS: u16 = 4;
/// `NFTA_EXPR_NAME`, `NFTA_TARGET_NAME`.
const NAME: u16 = 1;
/// `NFTA_EXPR_DATA`.
const DATA: u16 = 2;
/// `NFTA_LOG_GROUP`, in network byte order. A `log` without it writes to the kernel's ring buffer.
const LOG_GROUP: u16 = 1;
/// `NFTA_TARGET_INFO`: of NFLOG `struct xt_nflog_info` or `ebt_nflog_info`, which begin with a length and the group.
const TARGET_INFO: u16 = 3;

/// Where the tables are that only the old iptables shows, and the programs that print those of each file.
const OLD: [(&str, [&str; 3]); 2] = [
    (
        "/proc/thread-self/net/ip_tables_names",
        [
            "iptables-legacy-save",
            "/usr/sbin/iptables-legacy-save",
            "iptables-save",
        ],
    ),
    (
        "/proc/thread-self/net/ip6_tables_names",
        [
            "ip6tables-legacy-save",
            "/usr/sbin/ip6tables-legacy-save",
            "ip6tables-save",
        ],
    ),
];

/// Why not all rules could be seen.
#[derive(Debug, Error)]
pub(super) enum Unseen {
    /// Those of nftables.
    #[error("the kernel's nftables rules: {0}")]
    NfTables(#[from] QueryError),
    /// Those of the old iptables.
    #[error("the rules of the old iptables: {0}")]
    Old(String),
}

/// Groups that rules of this network namespace log to, and what could not be seen.
pub(super) fn groups() -> (BTreeSet<u16>, Vec<Unseen>) {
    let mut groups = BTreeSet::new();
    let mut unseen = Vec::new();
    unseen.extend(of_nftables(&mut groups).err().map(Unseen::from));
    for (names, programs) in OLD {
        // Where there is no such file, there are no such tables.
        if fs::read_to_string(names).is_ok_and(|names| !names.trim().is_empty()) {
            unseen.extend(of_old(&programs, &mut groups).err().map(Unseen::Old));
        }
    }
    (groups, unseen)
}

fn of_nftables(groups: &mut BTreeSet<u16>) -> Result<(), QueryError> {
    let mut requests = Requests::open(NETLINK_NETFILTER)?;
    requests.ask(GET_RULE, Extent::Dump, &OF_ALL_FAMILIES, |_, rule| {
        let attributes = rule.get(OF_ALL_FAMILIES.len()..).unwrap_or_default();
        if let Some(expressions) = find(attributes, EXPRESSIONS) {
            for expression in Attrs::new(expressions) {
                let expression = expression.map_err(|_| QueryError::Malformed)?;
                groups.extend(group_of(expression.value));
            }
        }
        Ok(())
    })
}

/// The group that an expression logs to, if it does.
fn group_of(expression: &[u8]) -> Option<u16> {
    let data = find(expression, DATA)?;
    match text(find(expression, NAME)?) {
        b"log" => {
            let group = find(data, LOG_GROUP)?.first_chunk()?;
            Some(u16::from_be_bytes(*group))
        }
        b"target" if text(find(data, NAME)?).eq_ignore_ascii_case(b"NFLOG") => {
            let group = find(data, TARGET_INFO)?.get(4..)?.first_chunk()?;
            Some(u16::from_ne_bytes(*group))
        }
        _ => None,
    }
}

fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let attribute = Attrs::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind == kind);
    attribute.map(|attribute| attribute.value)
}

/// Without the NUL at the end.
fn text(value: &[u8]) -> &[u8] {
    value.strip_suffix(&[0]).unwrap_or(value)
}

fn of_old(programs: &[&str], groups: &mut BTreeSet<u16>) -> Result<(), String> {
    for program in programs {
        match Command::new(program).env("LC_ALL", "C").output() {
            Ok(output) if output.status.success() => {
                groups.extend(of_saved(&String::from_utf8_lossy(&output.stdout)));
                return Ok(());
            }
            Ok(output) => {
                let complaint = String::from_utf8_lossy(&output.stderr);
                return Err(format!(
                    "{program}: {}",
                    complaint.lines().next().unwrap_or_default()
                ));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{program}: {error}")),
        }
    }
    Err(format!("no {}", programs[0]))
}

/// Groups of `-j NFLOG`; a rule that names none logs to group 0.
fn of_saved(text: &str) -> impl Iterator<Item = u16> {
    let words = text
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    words.filter_map(|words| {
        words.windows(2).find(|pair| *pair == ["-j", "NFLOG"])?;
        let named = words.windows(2).find(|pair| pair[0] == "--nflog-group");
        named.map_or(Some(0), |pair| pair[1].parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_the_old_iptables_without_a_group_log_to_group_0() {
        let text = "-A INPUT -j NFLOG --nflog-prefix \"x\" --nflog-group 12\n-A INPUT -j NFLOG\n-A INPUT -j LOG --nflog-group 3";
        assert_eq!(of_saved(text).collect::<Vec<_>>(), [12, 0]);
    }

    #[test]
    fn an_expression_that_is_cut_off_logs_nowhere() {
        let expression: &[u8] = &[
            8, 0, 1, 0, b'l', b'o', b'g', 0, 12, 0, 2, 0, 6, 0, 1, 0, 0, 7, 0, 0,
        ];
        if cfg!(target_endian = "little") {
            assert_eq!(group_of(expression), Some(7));
        }
        for length in 0..17 {
            assert_eq!(group_of(&expression[..length]), None, "{length}");
        }
    }
}
