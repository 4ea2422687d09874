//! Rules in the language of iptables-restore: chains of their own in table filter. One text for IPv4 and IPv6: `-4` and `-6` mark
//! what only one of the two programs takes.

use std::fmt::Write as _;

use super::arguments::{Family, Wanted};
use super::rule::{Hook, Match, Rule, prefix_of, rules};
use super::wish::Protocol;

const HOOKS: [(Hook, &str, &str); 3] = [
    (Hook::Input, "INPUT", "NFLOG-AGENT-IN"),
    (Hook::Output, "OUTPUT", "NFLOG-AGENT-OUT"),
    (Hook::Forward, "FORWARD", "NFLOG-AGENT-FWD"),
];

/// Longest comment that iptables takes.
const LONGEST_COMMENT: usize = 255;

/// The input of iptables-restore, with how to use it.
pub(super) fn script(wanted: &Wanted) -> String {
    let rules = rules(wanted);
    let used: Vec<_> = HOOKS
        .into_iter()
        .filter(|(hook, ..)| rules.iter().any(|rule| rule.hook == *hook))
        .collect();
    let mut text = String::from(
        "# Load: iptables-restore --noflush < FILE, and ip6tables-restore --noflush < FILE. Loading it again adds the jumps again:\n\
         # remove first. The same with ip6tables to remove:\n",
    );
    for (_, builtin, chain) in &used {
        push(
            &mut text,
            format_args!(
                "#     iptables -D {builtin} -j {chain}; iptables -F {chain}; iptables -X {chain}\n"
            ),
        );
    }
    text.push_str("*filter\n");
    for (_, _, chain) in &used {
        push(&mut text, format_args!(":{chain} - [0:0]\n"));
    }
    for (_, builtin, chain) in &used {
        push(&mut text, format_args!("-I {builtin} 1 -j {chain}\n"));
    }
    for (hook, _, chain) in &used {
        for rule in rules.iter().filter(|rule| rule.hook == *hook) {
            lines(&mut text, rule, chain, wanted);
        }
    }
    text.push_str("COMMIT\n");
    text
}

/// One rule; two if it is about the ports of two protocols.
fn lines(text: &mut String, rule: &Rule, chain: &str, wanted: &Wanted) {
    let both = rule
        .matches
        .iter()
        .any(|matching| matches!(matching, Match::Port(None, _)));
    let protocols: &[_] = if both {
        &[Some(Protocol::Tcp), Some(Protocol::Udp)]
    } else {
        &[None]
    };
    for protocol in protocols {
        match rule.family() {
            Some(Family::Ipv4) => text.push_str("-4 "),
            Some(Family::Ipv6) => text.push_str("-6 "),
            None => {}
        }
        push(text, format_args!("-A {chain}"));
        for matching in &rule.matches {
            expression(text, matching, *protocol);
        }
        let comment = &rule.wish[..rule.wish.len().min(LONGEST_COMMENT)];
        let comment = comment.replace('\\', "\\\\");
        push(
            text,
            format_args!(
                "{} -m comment --comment \"{comment}\" {}\n",
                limit(wanted),
                target(wanted, &rule.prefix)
            ),
        );
    }
}

fn expression(text: &mut String, matching: &Match, either: Option<Protocol>) {
    match matching {
        Match::Family(_) => {}
        Match::Source(address, length) => push(text, format_args!(" -s {address}/{length}")),
        // Its wildcard is +.
        Match::InDevice(name) => push(text, format_args!(" -i {}", name.replace('*', "+"))),
        Match::Cgroup(path) => push(
            text,
            format_args!(" -m cgroup --path \"{}\"", path.replace('\\', "\\\\")),
        ),
        Match::Port(protocol, ports) => {
            let name = protocol.or(either).unwrap_or(Protocol::Tcp).name();
            let (first, last) = (ports.start(), ports.end());
            push(text, format_args!(" -p {name} -m {name} --dport {first}:{last}"));
        }
        Match::NotLoopback(Hook::Output) => text.push_str(" ! -o lo"),
        Match::NotLoopback(_) => text.push_str(" ! -i lo"),
        Match::New => text.push_str(" -m conntrack --ctstate NEW"),
    }
}

fn limit(wanted: &Wanted) -> String {
    wanted.limit.map_or_else(String::new, |rate| {
        let (packets, unit, burst) = (rate.packets, rate.unit, wanted.burst);
        format!(" -m limit --limit {packets}/{unit} --limit-burst {burst}")
    })
}

fn target(wanted: &Wanted, prefix: &str) -> String {
    let (group, snaplen) = (wanted.group, wanted.snaplen);
    format!("-j NFLOG --nflog-group {group} --nflog-prefix \"{prefix}\" --nflog-size {snaplen}")
}

/// What is to be put into the chains that drop, as comments.
pub(super) fn drops(wanted: &Wanted) -> String {
    let log = format!(
        "{}{}",
        limit(wanted),
        target(wanted, &prefix_of(wanted, "drop")).replacen("-j", " -j", 1)
    );
    format!(
        "# drops: what a rule drops no later rule sees, in whatever table, and an earlier one cannot know it. So the chain that\n\
         # drops has to log. Where it has a rule like `-A INPUT -p tcp --dport 23 -j DROP`, put before that\n\
         #     -A INPUT -p tcp --dport 23{log}\n\
         # and if the policy of INPUT is DROP, put as its last rule\n\
         #     -A INPUT{log}\n"
    )
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments)
        .expect("writing to a String does not fail");
}
