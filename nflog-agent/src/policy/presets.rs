//! The prefixes of common firewalls. Each says where they come from.
//!
//! Not here: Docker, which writes no rules that log; Cilium, which does not use NFLOG; and rules whose prefix their author chooses.

use std::fmt;

use super::error::PolicyProblem;
use super::prefix::Pattern;
use crate::record::{LoggingRule, Severity};

/// A firewall whose prefixes are known.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Where its prefixes are defined.
    pub source: &'static str,
    /// Regular expressions; with the action where a letter stands for it.
    patterns: &'static [(&'static str, Option<&'static str>)],
}

/// All of them.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "calico",
        source: "https://github.com/projectcalico/calico/blob/77509300c29c70a22377de220340930ea4ac1e38/felix/rules/nflogprefix.go: action (A, D, P or \
                 N), owner (P or R), direction (I or E), index, |, name; without index at the end of a tier, with neither where no profile matches",
        patterns: &[
            (r"A[PR][IE](?P<id>\d+)?\|(?P<policy>.+)", Some("accept")),
            (r"D[PR][IE](?P<id>\d+)?\|(?P<policy>.+)", Some("block")),
            (r"DR[IE]", Some("block")),
            (r"[PN][PR][IE](?P<id>\d+)?\|(?P<policy>.+)", Some("pass")),
        ],
    },
    Preset {
        name: "firewalld",
        source: "LogDenied in firewalld.conf(5), prefixes CHAIN_TARGET: \
                 https://github.com/firewalld/firewalld/blob/95d2c2e7a4f0eb371291bc81c899ba33d2da460b/src/firewall/core/nftables.py",
        patterns: &[
            (
                r"(?P<chain>filter_(?:IN|OUT|FWD|FWDI|FWDO)_(?P<policy>.+))_(?P<action>ACCEPT|DROP|REJECT): ?",
                None,
            ),
            (
                r"(?P<chain>FINAL|STATE_INVALID|rpfilter)_(?P<action>DROP|REJECT): ?",
                None,
            ),
        ],
    },
    Preset {
        name: "fwbuilder",
        source: "Firewall Builder User's Guide, log prefix of iptables: RULE %N -- %A",
        patterns: &[(r"RULE (?P<id>-?\d+) -- (?P<action>[A-Za-z]+)", None)],
    },
    Preset {
        name: "kube-router",
        source: "k3s's kube-router, \"DROP by policy NAMESPACE/NAME\": https://github.com/k3s-io/k3s/issues/6351. kube-router itself gives no prefix: \
                 https://github.com/cloudnativelabs/kube-router/blob/ac3d5df9fc5129e66d91d023c902bf51ee44258c/pkg/controllers/netpol/pod.go",
        patterns: &[(r"(?P<action>ACCEPT|DROP|REJECT) by policy (?P<policy>\S+)", None)],
    },
    Preset {
        name: "openwrt",
        source: "verdict, zone, in or out or forward: https://github.com/openwrt/firewall4/blob/597dc90fb71419c42c13c27fe24e3d350e6e33dc/\
                 root/usr/share/firewall4/templates/zone-verdict.uc",
        patterns: &[(
            r"(?P<action>accept|drop|reject) (?P<chain>\S+) (?:in|out|forward): ?",
            None,
        )],
    },
    Preset {
        name: "proxmox",
        source: "--nflog-prefix \":VMID:LEVEL:CHAIN: MESSAGE\", get_log_rule_base in \
                 https://github.com/proxmox/pve-firewall/blob/fc1f1de97e005b3d84dca3c4723708b24ba2219f/src/PVE/Firewall.pm",
        patterns: &[(
            r":\d+:\d+:(?P<chain>[^:\s]+): (?:policy )?(?P<action>[A-Za-z]+):?(?: .*)?",
            None,
        )],
    },
    Preset {
        name: "shorewall",
        source: "shorewall.conf(5), LOGFORMAT \"Shorewall:%s:%s:\" and, with LOGRULENUMBERS, \"Shorewall:%s:%d:%s:\": chain, number, disposition",
        patterns: &[(
            r"Shorewall:(?P<chain>[^:\s]+):(?:(?P<id>\d+):)?(?P<action>[A-Za-z]+):(?:.*)",
            None,
        )],
    },
    Preset {
        name: "ufw",
        source: "Debian's ufw 0.36.2-1, ufw/backend_iptables.py and iptables/user.rules: --log-prefix \"[UFW BLOCK] \" and the like",
        patterns: &[
            (r"\[UFW (?P<action>ALLOW|BLOCK|AUDIT)(?: INVALID)?\]", None),
            (r"\[UFW LIMIT (?P<action>BLOCK)\]", None),
        ],
    },
    Preset {
        name: "vyos",
        source: "[FAMILY-HOOK-NAME-RULE-ACTION], the action by its first letter; R stands for reject and for return, so it gives no action: parse_rule in \
                 https://github.com/vyos/vyos-1x/blob/e846d2c1500df83742eb803684980396857cc0f1/python/vyos/firewall.py",
        patterns: &[
            (
                r"\[(?:ipv4|ipv6|bri)-(?P<chain>.+)-(?P<id>\d+|default)-A\]",
                Some("accept"),
            ),
            (
                r"\[(?:ipv4|ipv6|bri)-(?P<chain>.+)-(?P<id>\d+|default)-D\]",
                Some("drop"),
            ),
            (
                r"\[(?:ipv4|ipv6|bri)-(?P<chain>.+)-(?P<id>\d+|default)-[A-Z]\]",
                None,
            ),
        ],
    },
    Preset {
        name: "words",
        source: "what people write by hand: an action, or a chain and an action (DROP:, INPUT-DROP:, fw_reject)",
        patterns: &[
            (
                r"(?i)(?P<action>accept|accepted|allow|allowed|block|blocked|deny|denied|drop|dropped|log|reject|rejected)\s*:?",
                None,
            ),
            (
                r"(?i)(?P<chain>[\w.-]+?)[-_:. ]\s*(?P<action>accept|accepted|allow|allowed|block|blocked|deny|denied|drop|dropped|log|reject|rejected)\s*:?",
                None,
            ),
        ],
    },
];

/// For messages.
pub(super) struct Names;

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, preset) in PRESETS.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { ", " }, preset.name)?;
        }
        Ok(())
    }
}

/// The patterns of a preset.
///
/// # Errors
/// When there is none of that name.
pub(super) fn patterns(name: &str, severity: Option<Severity>) -> Result<Vec<Pattern>, PolicyProblem> {
    let Some(preset) = PRESETS.iter().find(|preset| preset.name == name) else {
        return Err(PolicyProblem::Preset {
            value: name.to_owned(),
        });
    };
    let pattern = |(regex, action): &(&str, Option<&str>)| {
        let otherwise = LoggingRule {
            action: action.map(str::to_owned),
            severity,
            ..LoggingRule::default()
        };
        Pattern::regex(regex, otherwise)
    };
    preset.patterns.iter().map(pattern).collect()
}

#[cfg(test)]
mod tests {
    use super::super::prefix::Known;
    use super::*;

    /// Preset, prefix, action, chain, id, policy; `""` for none.
    const SEEN: &[(&str, &str, [&str; 4])] = &[
        (
            "calico",
            "API0|namespace1/default.policy",
            ["accept", "", "0", "namespace1/default.policy"],
        ),
        (
            "calico",
            "DPE12|gnp/deny-all",
            ["block", "", "12", "gnp/deny-all"],
        ),
        ("calico", "PRE999|kns.default", ["pass", "", "999", "kns.default"]),
        ("calico", "DPI|default", ["block", "", "", "default"]),
        ("calico", "PPE|platform", ["pass", "", "", "platform"]),
        ("calico", "DRE", ["block", "", "", ""]),
        (
            "firewalld",
            "filter_IN_public_REJECT: ",
            ["reject", "filter_IN_public", "", "public"],
        ),
        (
            "firewalld",
            "filter_FWD_docker_DROP: ",
            ["drop", "filter_FWD_docker", "", "docker"],
        ),
        ("firewalld", "FINAL_REJECT: ", ["reject", "FINAL", "", ""]),
        (
            "firewalld",
            "STATE_INVALID_DROP: ",
            ["drop", "STATE_INVALID", "", ""],
        ),
        ("fwbuilder", "RULE 5 -- DENY ", ["block", "", "5", ""]),
        (
            "kube-router",
            "DROP by policy sandbox/default-deny-all",
            ["drop", "", "", "sandbox/default-deny-all"],
        ),
        ("openwrt", "reject wan in: ", ["reject", "wan", "", ""]),
        ("openwrt", "drop wan forward: ", ["drop", "wan", "", ""]),
        (
            "proxmox",
            ":100:6:tap100i0-IN: policy DROP: ",
            ["drop", "tap100i0-IN", "", ""],
        ),
        (
            "proxmox",
            ":0:6:PVEFW-HOST-IN: ACCEPT: ",
            ["accept", "PVEFW-HOST-IN", "", ""],
        ),
        ("shorewall", "Shorewall:net2fw:DROP:", ["drop", "net2fw", "", ""]),
        (
            "shorewall",
            "Shorewall:net-fw:3:REJECT:",
            ["reject", "net-fw", "3", ""],
        ),
        ("ufw", "[UFW BLOCK] ", ["block", "", "", ""]),
        ("ufw", "[UFW ALLOW] ", ["accept", "", "", ""]),
        ("ufw", "[UFW AUDIT INVALID] ", ["audit", "", "", ""]),
        ("ufw", "[UFW LIMIT BLOCK] ", ["block", "", "", ""]),
        ("vyos", "[ipv4-FWD-filter-10-D]", ["drop", "FWD-filter", "10", ""]),
        (
            "vyos",
            "[ipv6-NAM-WAN-IN-default-A]",
            ["accept", "NAM-WAN-IN", "default", ""],
        ),
        ("vyos", "[ipv4-INP-filter-20-R]", ["", "INP-filter", "20", ""]),
        ("words", "DROP: ", ["drop", "", "", ""]),
        ("words", "INPUT-denied ", ["block", "INPUT", "", ""]),
        ("words", "iptables FORWARD", [""; 4]),
        ("ufw", "[UFW BLOCK] x", [""; 4]),
        ("firewalld", "filter_IN_public_: ", [""; 4]),
    ];

    #[test]
    fn prefixes_as_seen_say_what_their_firewall_means() {
        for (preset, prefix, expected) in SEEN {
            let found = Known::default().read(&patterns(preset, None).unwrap(), prefix);
            let found = found.as_deref().cloned().unwrap_or_default();
            let found = [found.action, found.chain, found.id, found.policy].map(Option::unwrap_or_default);
            assert_eq!(
                found.each_ref().map(String::as_str),
                *expected,
                "{preset}: {prefix}"
            );
        }
    }

    #[test]
    fn each_preset_is_tested_and_takes_no_other_firewalls_prefixes() {
        for preset in PRESETS {
            assert!(
                SEEN.iter().any(|(name, ..)| *name == preset.name),
                "{}",
                preset.name
            );
            let own = patterns(preset.name, None).unwrap();
            let others = SEEN
                .iter()
                .filter(|(name, ..)| *name != preset.name && *name != "words");
            for (name, prefix, _) in others.filter(|_| preset.name != "words") {
                let found = Known::default().read(&own, prefix);
                assert_eq!(found, None, "{} takes {name}'s {prefix}", preset.name);
            }
        }
    }
}
