//! Wishes as rules, in no language yet: which hook, what must match, which prefix.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::arguments::{Family, Wanted};
use super::wish::{Protocol, Source, Wish};

/// Where packets meet rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    Input,
    Output,
    Forward,
}

impl Hook {
    pub(super) const ALL: [Self; 3] = [Self::Input, Self::Output, Self::Forward];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::Forward => "forward",
        }
    }
}

/// What a packet must have. All of a rule's must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Match {
    Family(Family),
    Source(IpAddr, u8),
    InDevice(String),
    Cgroup(String),
    /// With none, TCP or UDP.
    Port(Option<Protocol>, RangeInclusive<u16>),
    /// Not over `lo`: in, or out.
    NotLoopback(Hook),
    New,
}

/// A rule that logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) hook: Hook,
    pub(super) matches: Vec<Match>,
    pub(super) prefix: String,
    /// The wish that it is for.
    pub(super) wish: String,
}

impl Rule {
    /// Logs the same packets.
    fn is_like(&self, other: &Self) -> bool {
        self.hook == other.hook && self.matches == other.matches
    }

    /// The family that its addresses, or the operator, confine it to.
    pub(super) fn family(&self) -> Option<Family> {
        self.matches.iter().find_map(|matching| match matching {
            Match::Family(family) => Some(*family),
            Match::Source(address, _) => Some(family_of(address)),
            _ => None,
        })
    }
}

pub(super) const fn family_of(address: &IpAddr) -> Family {
    if address.is_ipv4() {
        Family::Ipv4
    } else {
        Family::Ipv6
    }
}

/// The rules of all wishes, none twice, in the order of the hooks. Those of [`Wish::Drops`] are not among them: no chain sees
/// what another one drops.
pub(super) fn rules(wanted: &Wanted) -> Vec<Rule> {
    let mut rules = Vec::new();
    for wish in &wanted.wishes {
        match wish {
            Wish::Drops => {}
            Wish::NewIn => rules.push(rule(wanted, Hook::Input, "new-in", None, wish)),
            Wish::NewOut => rules.push(rule(wanted, Hook::Output, "new-out", None, wish)),
            Wish::New => {
                rules.push(rule(wanted, Hook::Input, "new-in", None, wish));
                rules.push(rule(wanted, Hook::Output, "new-out", None, wish));
            }
            Wish::Forward => rules.push(rule(wanted, Hook::Forward, "forward", None, wish)),
            Wish::Egress(source) => {
                let (hooks, matching): (&[_], _) = match source {
                    Source::Cgroup(path) => (&[Hook::Output], Match::Cgroup(path.clone())),
                    // What a pod sends to others is forwarded, what it sends to its node comes in.
                    Source::Address(address, length) => {
                        (&[Hook::Input, Hook::Forward], Match::Source(*address, *length))
                    }
                    Source::Device(name) => (&[Hook::Input, Hook::Forward], Match::InDevice(name.clone())),
                };
                for hook in hooks {
                    rules.push(rule(wanted, *hook, "egress", Some(matching.clone()), wish));
                }
            }
            Wish::Port(protocol, ports) => {
                let prefix = format!("port-{}", ports.start());
                for hook in Hook::ALL {
                    let matching = Match::Port(*protocol, ports.clone());
                    rules.push(rule(wanted, hook, &prefix, Some(matching), wish));
                }
            }
        }
    }
    rules.retain(|rule| wanted.family.is_none() || rule.family() == wanted.family);
    rules.sort_by_key(|rule| rule.hook as u8);
    let mut at = 0;
    while at < rules.len() {
        let again = rules[..at].iter().any(|rule| rule.is_like(&rules[at]));
        if again {
            rules.remove(at);
        } else {
            at += 1;
        }
    }
    rules
}

fn rule(wanted: &Wanted, hook: Hook, prefix: &str, matching: Option<Match>, wish: &Wish) -> Rule {
    let mut matches = Vec::new();
    if !matches!(matching, Some(Match::Source(..))) {
        matches.extend(wanted.family.map(Match::Family));
    }
    matches.extend(matching);
    let leaves_out = wanted.no_loopback && hook != Hook::Forward;
    if leaves_out && !matches!(matches.last(), Some(Match::InDevice(_))) {
        matches.push(Match::NotLoopback(hook));
    }
    if !wanted.every_packet {
        matches.push(Match::New);
    }
    Rule {
        hook,
        matches,
        prefix: prefix_of(wanted, prefix),
        wish: wish.to_string(),
    }
}

/// The operator's, else one that ends with a blank, as is the custom.
pub(super) fn prefix_of(wanted: &Wanted, default: &str) -> String {
    wanted
        .prefix
        .as_ref()
        .map_or_else(|| format!("{default} "), |prefix| prefix.0.clone())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        wanted: Wanted,
    }

    fn wanted(arguments: &[&str]) -> Wanted {
        Line::try_parse_from(["x"].iter().chain(arguments))
            .unwrap()
            .wanted
    }

    fn hooks(arguments: &[&str]) -> Vec<(&'static str, String)> {
        let rules = rules(&wanted(arguments));
        rules
            .into_iter()
            .map(|rule| (rule.hook.name(), rule.prefix))
            .collect()
    }

    #[test]
    fn a_wish_made_twice_is_one_rule_and_drops_are_none() {
        let both = [("input", "new-in ".to_owned()), ("output", "new-out ".to_owned())];
        assert_eq!(hooks(&["new-in", "drops", "new-in"]), both[..1]);
        assert_eq!(hooks(&["new-in", "new"]), both);
    }

    #[test]
    fn a_pod_reaches_its_node_by_input_and_all_else_by_forward() {
        let prefix = || "pod ".to_owned();
        let expected = [("input", prefix()), ("forward", prefix())];
        assert_eq!(hooks(&["egress:10.0.0.7", "--prefix", "pod "]), expected);
        assert_eq!(hooks(&["egress:veth1", "--prefix", "pod "]), expected);
    }

    #[test]
    fn the_other_family_has_no_rule_for_an_address() {
        assert!(hooks(&["egress:10.0.0.7", "--family", "ipv6"]).is_empty());
        assert_eq!(hooks(&["egress:10.0.0.7", "--family", "ipv4"]).len(), 2);
        let both = rules(&wanted(&["new-in", "--family", "ipv6"]));
        assert_eq!(both[0].family(), Some(Family::Ipv6));
    }

    #[test]
    fn only_what_opens_a_connection_is_logged_unless_every_packet_is_wanted() {
        assert_eq!(rules(&wanted(&["forward"]))[0].matches, [Match::New]);
        assert!(
            rules(&wanted(&["forward", "-e", "--no-loopback"]))[0]
                .matches
                .is_empty()
        );
        let input = rules(&wanted(&["new-in", "-e", "--no-loopback"]));
        assert_eq!(input[0].matches, [Match::NotLoopback(Hook::Input)]);
    }
}
