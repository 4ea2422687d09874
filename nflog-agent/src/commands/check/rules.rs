//! Whether rules log to the groups: asked of `nft` and `iptables-save`, where they are installed.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use super::Subject;
use super::finding::Finding;
use super::group::places;
use crate::nflog::Netns;

/// Group of an iptables rule that names none.
const DEFAULT_GROUP: u64 = 0;

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    if subject.groups.is_empty() {
        return Vec::new();
    }
    let places = places(subject).into_iter();
    places
        .map(|(place, netns)| in_place(&subject.groups, &place, &netns))
        .collect()
}

fn in_place(groups: &[u16], place: &str, netns: &Netns) -> Finding {
    let check = format!("rules{place}");
    let asked = match netns.run(Asked::now) {
        Ok(asked) => asked,
        Err(error) => return Finding::warning(check, error.to_string(), "see the message"),
    };
    if asked.answered.is_empty() {
        let remedy = "install nft, or look yourself for `log group N` or `-j NFLOG --nflog-group N`";
        return Finding::warning(
            check,
            format!("cannot be looked at: {}", asked.failed.join(", ")),
            remedy,
        );
    }
    let (with, without): (Vec<_>, Vec<_>) = groups
        .iter()
        .partition(|group| asked.groups.contains(&u64::from(**group)));
    let list = |groups: &[&u16]| {
        groups
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    if without.is_empty() {
        return Finding::ok(
            check,
            format!("log to group {} ({})", list(&with), asked.answered.join(", ")),
        );
    }
    let others = if asked.groups.is_empty() {
        "none logs to any group".to_owned()
    } else {
        let others: Vec<_> = asked.groups.iter().map(u64::to_string).collect();
        format!("there are rules for group {}", others.join(", "))
    };
    Finding::warning(
        check,
        format!("none logs to group {}; {others}", list(&without)),
        format!(
            "add one: nft add rule inet filter output ct state new log prefix \\\"new \\\" group {}",
            without[0]
        ),
    )
}

/// What the programs said.
#[derive(Default)]
struct Asked {
    groups: BTreeSet<u64>,
    answered: Vec<&'static str>,
    failed: Vec<String>,
}

impl Asked {
    /// In the namespace of this thread.
    fn now() -> Self {
        let mut asked = Self::default();
        asked.ask("nft", &["-j", "list", "ruleset"], of_nft);
        for program in ["iptables-save", "ip6tables-save"] {
            asked.ask(program, &[], of_iptables);
        }
        asked
    }

    fn ask(&mut self, program: &'static str, arguments: &[&str], read: fn(&str, &mut BTreeSet<u64>)) {
        match Command::new(program).args(arguments).output() {
            Ok(output) if output.status.success() => {
                read(&String::from_utf8_lossy(&output.stdout), &mut self.groups);
                self.answered.push(program);
            }
            Ok(output) => {
                let complaint = String::from_utf8_lossy(&output.stderr);
                let first = complaint.lines().next().unwrap_or_default();
                self.failed.push(format!("{program}: {first}"));
            }
            Err(error) => self.failed.push(format!("{program}: {error}")),
        }
    }
}

/// Groups of `log` statements, however deep they are.
fn of_nft(text: &str, groups: &mut BTreeSet<u64>) {
    fn walk(value: &Value, groups: &mut BTreeSet<u64>) {
        match value {
            Value::Object(object) => {
                let log = object.get("log").and_then(|log| log.get("group"));
                groups.extend(log.and_then(Value::as_u64));
                object.values().for_each(|value| walk(value, groups));
            }
            Value::Array(values) => values.iter().for_each(|value| walk(value, groups)),
            _ => {}
        }
    }
    if let Ok(ruleset) = serde_json::from_str(text) {
        walk(&ruleset, groups);
    }
}

/// Groups of `-j NFLOG`.
fn of_iptables(text: &str, groups: &mut BTreeSet<u64>) {
    for line in text.lines() {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        if !words.windows(2).any(|pair| pair == ["-j", "NFLOG"]) {
            continue;
        }
        let named = words.windows(2).find(|pair| pair[0] == "--nflog-group");
        groups.insert(
            named
                .and_then(|pair| pair[1].parse().ok())
                .unwrap_or(DEFAULT_GROUP),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_statements_of_nft_are_found_at_any_depth() {
        let mut groups = BTreeSet::new();
        let text = r#"{"nftables": [{"metainfo": {}}, {"rule": {"expr": [{"log": {"prefix": "a", "group": 7}}]}},
            {"rule": {"expr": [{"vmap": {"data": {"set": [[1, {"log": {"group": 9}}]]}}}]}}, {"rule": {"expr": [{"log": null}]}}]}"#;
        of_nft(text, &mut groups);
        assert_eq!(groups, [7, 9].into());
    }

    #[test]
    fn iptables_rules_without_a_group_log_to_group_0() {
        let mut groups = BTreeSet::new();
        let text = "-A INPUT -j NFLOG --nflog-prefix \"x\" --nflog-group 12\n-A INPUT -j NFLOG\n-A INPUT -j LOG --nflog-group 3";
        of_iptables(text, &mut groups);
        assert_eq!(groups, [0, 12].into());
    }
}
