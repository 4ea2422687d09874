//! Rules in nftables' language: a table of its own, put in place of the one before in a single transaction.

use std::fmt::Write as _;

use super::RulesError;
use super::arguments::{Family, Wanted};
use super::cgroup;
use super::rule::{Hook, Match, Rule, family_of, prefix_of, rules};

/// Family and name of the table.
pub(super) const TABLE: &str = "inet nflog-agent";

/// An empty chain of this name says whose the table is. A comment would be lost on kernels before 5.10.
pub(super) const MARK: &str = "made-by-nflog-agent";

/// Before the filter chains, which are at 0.
const DEFAULT_PRIORITY: i32 = -10;

/// Longest comment that nft takes.
const LONGEST_COMMENT: usize = 127;

/// The script that puts the table in place, whether or not there is one: adding it makes deleting it work.
pub(super) fn script(wanted: &Wanted) -> Result<String, RulesError> {
    let rules = rules(wanted);
    let mut text = format!(
        "add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n\tcomment \"nflog-agent rules; remove: nflog-agent rules remove\"\n\
         \tchain {MARK} {{\n\t}}\n"
    );
    for hook in Hook::ALL {
        let mut of_hook = rules.iter().filter(|rule| rule.hook == hook).peekable();
        if of_hook.peek().is_none() {
            continue;
        }
        let priority = wanted.priority.unwrap_or(DEFAULT_PRIORITY);
        let name = hook.name();
        push(
            &mut text,
            format_args!(
                "\tchain {name} {{\n\t\ttype filter hook {name} priority {priority}; policy accept;\n"
            ),
        );
        for rule in of_hook {
            push(&mut text, format_args!("\t\t{}\n", line(rule, wanted)?));
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    Ok(text)
}

fn line(rule: &Rule, wanted: &Wanted) -> Result<String, RulesError> {
    let mut text = String::new();
    for matching in &rule.matches {
        text.push_str(&expression(matching)?);
        text.push(' ');
    }
    text.push_str(&statement(wanted, &rule.prefix));
    let comment = &rule.wish[..rule.wish.len().min(LONGEST_COMMENT)];
    push(&mut text, format_args!(" comment \"{comment}\""));
    Ok(text)
}

/// `log`, with what comes before it.
fn statement(wanted: &Wanted, prefix: &str) -> String {
    let mut text = String::new();
    if let Some(rate) = wanted.limit {
        let (packets, unit, burst) = (rate.packets, rate.unit, wanted.burst);
        push(
            &mut text,
            format_args!("limit rate {packets}/{unit} burst {burst} packets "),
        );
    }
    if !wanted.no_counter {
        text.push_str("counter ");
    }
    let (group, snaplen) = (wanted.group, wanted.snaplen);
    push(
        &mut text,
        format_args!("log prefix \"{prefix}\" group {group} snaplen {snaplen}"),
    );
    text
}

fn expression(matching: &Match) -> Result<String, RulesError> {
    Ok(match matching {
        Match::Family(Family::Ipv4) => "meta nfproto ipv4".to_owned(),
        Match::Family(Family::Ipv6) => "meta nfproto ipv6".to_owned(),
        Match::Source(address, length) => match family_of(address) {
            Family::Ipv4 => format!("ip saddr {address}/{length}"),
            Family::Ipv6 => format!("ip6 saddr {address}/{length}"),
        },
        Match::InDevice(name) => format!("iifname \"{name}\""),
        Match::Cgroup(path) => {
            let (level, path) = cgroup::for_nft(path)?;
            format!("socket cgroupv2 level {level} \"{path}\"")
        }
        Match::Port(protocol, ports) => {
            let protocols = protocol.map_or("{ tcp, udp }", |protocol| protocol.name());
            let (first, last) = (ports.start(), ports.end());
            if first == last {
                format!("meta l4proto {protocols} th dport {first}")
            } else {
                format!("meta l4proto {protocols} th dport {first}-{last}")
            }
        }
        Match::NotLoopback(Hook::Output) => "oifname != \"lo\"".to_owned(),
        Match::NotLoopback(_) => "iifname != \"lo\"".to_owned(),
        Match::New => "ct state new".to_owned(),
    })
}

/// What is to be put into the chains that drop, as comments.
pub(super) fn drops(wanted: &Wanted) -> String {
    let statement = statement(wanted, &prefix_of(wanted, "drop"));
    let quoted = statement.replace('\'', "'\\''");
    format!(
        "# drops: what a chain drops no later chain sees, in whatever table, and an earlier one cannot know it. So the chain that\n\
         # drops has to log. Where it has a rule like `tcp dport 23 drop`, put before that\n\
         #     tcp dport 23 {statement}\n\
         # and if its policy is drop, put as its last rule\n\
         #     {statement}\n\
         # The latter in a running firewall, until it is loaded again: nft add rule FAMILY TABLE CHAIN '{quoted}'\n"
    )
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments)
        .expect("writing to a String does not fail");
}
