//! Checks a configuration, and says all that is wrong with it at once.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::bucket::Rate;
use super::config::{
    AggregateConfig, LimitConfig, MatchConfig, PolicyConfig, PrefixConfig, RuleConfig, Then, Values,
};
use super::error::{Place, PolicyError, PolicyErrors, PolicyProblem};
use super::flows::FlowLimits;
use super::glob::Glob;
use super::limit::LimitSpec;
use super::matches::{Matches, Network};
use super::prefix::{Pattern, normalised};
use super::{Decision, Policy, Rule, presets};
use crate::owner::{Method, Reason};
use crate::record::{Direction, LoggingRule, Severity, protocol_number};

pub(super) const HOOKS: [&str; 8] = [
    "prerouting",
    "input",
    "forward",
    "output",
    "postrouting",
    "ingress",
    "egress",
    "unknown",
];
pub(super) const FAMILIES: [&str; 6] = ["inet", "inet6", "arp", "netdev", "bridge", "unknown"];
const MAX_BURST: u32 = 1_000_000;
const MAX_KEYS: u32 = 1 << 20;
const MAX_FLOWS: u32 = 1 << 20;

impl PolicyConfig {
    /// Checks it.
    ///
    /// # Errors
    /// All that is wrong with it, in its order.
    pub fn compile(&self) -> Result<Policy, PolicyErrors> {
        let mut errors = Vec::new();
        let mut policy = Policy::default();
        for (at, config) in self.prefix.iter().enumerate() {
            let place = Place::Prefix(at + 1);
            match patterns(config) {
                Ok(patterns) => policy.patterns.extend(patterns),
                Err(problem) => errors.push(PolicyError { place, problem }),
            }
        }
        for (at, config) in self.rule.iter().enumerate() {
            let mut checker = Checker {
                place: Place::Rule(at + 1, config.name.clone()),
                errors: &mut errors,
            };
            let named = |other: &RuleConfig| config.name.is_some() && other.name == config.name;
            if let Some(other) = self.rule[..at].iter().position(named) {
                checker.error(PolicyProblem::SameName { other: other + 1 });
            }
            let name = config.name.clone().unwrap_or_else(|| format!("rule {}", at + 1));
            policy.rules.push(Rule {
                name: name.into(),
                matches: checker.matches(&config.matches),
                decision: checker.decision(&config.then),
            });
        }
        if errors.is_empty() {
            Ok(policy)
        } else {
            Err(PolicyErrors(errors))
        }
    }
}

fn patterns(config: &PrefixConfig) -> Result<Vec<Pattern>, PolicyProblem> {
    let severity = config.severity.as_deref().map(severity).transpose()?;
    let otherwise = LoggingRule {
        action: config.action.as_deref().map(normalised),
        chain: config.chain.clone(),
        id: config.id.clone(),
        policy: config.policy.clone(),
        severity: None,
    };
    let more = LoggingRule {
        severity,
        ..otherwise.clone()
    };
    match (&config.preset, &config.template, &config.regex) {
        (Some(preset), None, None) if otherwise != LoggingRule::default() => {
            Err(PolicyProblem::PresetWithAttributes {
                preset: preset.clone(),
            })
        }
        (Some(preset), None, None) => presets::patterns(preset, severity),
        (None, Some(template), None) => Pattern::template(template, more).map(|pattern| vec![pattern]),
        (None, None, Some(regex)) => Pattern::regex(regex, more).map(|pattern| vec![pattern]),
        (preset, template, regex) => {
            let given = [preset, template, regex].into_iter().flatten().count();
            Err(PolicyProblem::Patterns { given })
        }
    }
}

fn severity(value: &str) -> Result<Severity, PolicyProblem> {
    Severity::named(value).ok_or_else(|| PolicyProblem::Value {
        key: "severity",
        value: value.to_owned(),
        wanted: "trace, debug, info, warn, error or fatal",
    })
}

/// Collects what is wrong with one rule.
struct Checker<'a> {
    place: Place,
    errors: &'a mut Vec<PolicyError>,
}

impl Checker<'_> {
    fn error(&mut self, problem: PolicyProblem) {
        self.errors.push(PolicyError {
            place: self.place.clone(),
            problem,
        });
    }

    fn matches(&mut self, config: &MatchConfig) -> Matches {
        const GLOB: &str = "text, with * and ? in it";
        const ADDRESS: &str = "an address or a network, like 10.0.0.0/8 or fd00::/8";
        const PORT: &str = "a port or a range, like 443 or 8000-8999";
        const NUMBER: &str = "a number up to 4294967295";
        let glob = |text: &str| Some(Glob::new(text));
        let mut globs = |key, values| self.list(key, values, GLOB, glob);
        let mut all = Matches {
            chain: globs("chain", &config.chain),
            id: globs("id", &config.id),
            policy: globs("policy", &config.policy),
            in_interface: globs("in-interface", &config.in_interface),
            out_interface: globs("out-interface", &config.out_interface),
            process_name: globs("process-name", &config.process_name),
            executable: globs("executable", &config.executable),
            cgroup: globs("cgroup", &config.cgroup),
            container_id: globs("container-id", &config.container_id),
            pod_uid: globs("pod-uid", &config.pod_uid),
            unit: globs("unit", &config.unit),
            ..Matches::default()
        };
        all.prefix = self.list("prefix", &config.prefix, GLOB, |text| {
            Some(Glob::new(text.trim_end()))
        });
        all.action = self.list("action", &config.action, "a word", |text| Some(normalised(text)));
        all.group = self.list("group", &config.group, "a number up to 65535", number);
        all.uid = self.list("uid", &config.uid, NUMBER, number);
        all.netns = self.list("netns", &config.netns, NUMBER, number);
        let hooks = "prerouting, input, forward, output, postrouting, ingress, egress or unknown";
        all.hook = self.list("hook", &config.hook, hooks, |text| word(&HOOKS, text));
        let families = "inet, inet6, arp, netdev, bridge or unknown";
        all.family = self.list("family", &config.family, families, |text| word(&FAMILIES, text));
        all.direction = self.list("direction", &config.direction, "receive or transmit", direction);
        let protocols = "a name in lower case, like tcp, or a number up to 255";
        all.protocol = self.list("protocol", &config.protocol, protocols, |text| {
            number(text).or_else(|| protocol_number(text))
        });
        all.source = self.list("source-address", &config.source_address, ADDRESS, network);
        all.destination = self.list(
            "destination-address",
            &config.destination_address,
            ADDRESS,
            network,
        );
        all.source_port = self.list("source-port", &config.source_port, PORT, ports);
        all.destination_port = self.list("destination-port", &config.destination_port, PORT, ports);
        let methods = "a value of nflog.owner.method, like socket, kernel or none";
        all.owner_method = self.list("owner-method", &config.owner_method, methods, |text| {
            let known = Method::ALL.iter().map(|method| method.name());
            let known: Vec<_> = known.chain(["kernel", "none"]).collect();
            word(&known, text)
        });
        let reasons = "a value of nflog.owner.reason, like forwarded or no-socket";
        all.owner_reason = self.list("owner-reason", &config.owner_reason, reasons, |text| {
            word(&Reason::ALL.map(Reason::name), text)
        });
        all
    }

    /// Each value, or an error for it.
    fn list<T>(
        &mut self,
        key: &'static str,
        values: &Values,
        wanted: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let mut all = Vec::new();
        for value in &values.0 {
            match parse(value) {
                Some(parsed) => all.push(parsed),
                None => self.value(key, value, wanted),
            }
        }
        all
    }

    fn value(&mut self, key: &'static str, value: &str, wanted: &'static str) {
        let value = value.to_owned();
        self.error(PolicyProblem::Value { key, value, wanted });
    }

    /// A number from 1 to `most`.
    fn range(&mut self, key: &'static str, value: u32, most: u32, wanted: &'static str) -> u32 {
        if !(1..=most).contains(&value) {
            let value = value.into();
            self.error(PolicyProblem::Range { key, value, wanted });
        }
        value
    }

    fn decision(&mut self, then: &Then) -> Decision {
        match then {
            Then::Keep => Decision::Keep,
            Then::Drop => Decision::Drop,
            Then::Sample(n) => Decision::Sample(self.range("sample", *n, u32::MAX, "1 or more")),
            Then::Limit(limit) => Decision::Limit(self.limit(limit)),
            Then::Aggregate(aggregate) => Decision::Aggregate(self.aggregate(aggregate)),
        }
    }

    fn limit(&mut self, config: &LimitConfig) -> LimitSpec {
        let (count, period) = rate(&config.rate).unwrap_or_else(|| {
            let wanted = "a number from 1 up, and /s, /m or /h, like 100/s";
            self.value("rate", &config.rate, wanted);
            (1, 1)
        });
        let burst = config.burst.unwrap_or_else(|| count.min(MAX_BURST));
        let max_keys = config.max_keys.unwrap_or(4096);
        LimitSpec {
            rate: Rate {
                count,
                period,
                burst: self.range("burst", burst, MAX_BURST, "1 to 1000000"),
            },
            per: config.per,
            max_keys: self.range("max-keys", max_keys, MAX_KEYS, "1 to 1048576"),
        }
    }

    fn aggregate(&mut self, config: &AggregateConfig) -> FlowLimits {
        const INTERVAL: Duration = Duration::from_secs(10);
        let interval = config
            .interval
            .as_deref()
            .map_or(INTERVAL, |text| self.duration("interval", text));
        let idle = config.idle.as_deref().map(|text| self.duration("idle", text));
        if let Some(text) = &config.idle
            && idle.is_some_and(|idle| idle >= interval)
        {
            self.error(PolicyProblem::IdleTooLong {
                idle: text.clone(),
                interval: config.interval.clone().unwrap_or_else(|| "10s".to_owned()),
            });
        }
        let max_flows = config.max_flows.unwrap_or(16_384);
        FlowLimits {
            interval,
            idle,
            max_flows: self.range("max-flows", max_flows, MAX_FLOWS, "1 to 1048576") as usize,
        }
    }

    fn duration(&mut self, key: &'static str, text: &str) -> Duration {
        const LEAST: Duration = Duration::from_millis(100);
        const MOST: Duration = Duration::from_secs(86_400);
        match humantime::parse_duration(text) {
            Ok(duration) if (LEAST..=MOST).contains(&duration) => duration,
            _ => {
                self.value(key, text, "a time from 100ms to 1day, like 10s");
                LEAST
            }
        }
    }
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn word(known: &[&str], text: &str) -> Option<String> {
    known.contains(&text).then(|| text.to_owned())
}

fn direction(text: &str) -> Option<Direction> {
    match text {
        "receive" => Some(Direction::Receive),
        "transmit" => Some(Direction::Transmit),
        _ => None,
    }
}

fn network(text: &str) -> Option<Network> {
    let (address, bits) = text
        .split_once('/')
        .map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(most), number)?;
    (bits <= most).then_some(Network { address, bits })
}

fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first.trim())?, number(last.trim())?);
    (first <= last).then_some(first..=last)
}

/// How many, and in how many ns.
fn rate(text: &str) -> Option<(u32, u64)> {
    let (count, unit) = text.split_once('/')?;
    let seconds = match unit.trim() {
        "s" | "second" => 1,
        "m" | "minute" => 60,
        "h" | "hour" => 3600,
        _ => return None,
    };
    let count = number(count.trim()).filter(|count| *count > 0)?;
    Some((count, seconds * 1_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(text: &str) -> Result<Policy, PolicyErrors> {
        toml::from_str::<PolicyConfig>(text).unwrap().compile()
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_with_its_place_and_a_remedy() {
        let text = r#"
            [[prefix]]
            preset = "ufv"
            [[prefix]]
            template = "{acton}"
            [[prefix]]
            action = "drop"
            [[prefix]]
            preset = "ufw"
            action = "drop"
            [[rule]]
            name = "a"
            match = { protocol = ["tcp", "tpc"], source-address = "10.0.0.0/33", destination-port = "9-1" }
            then = { limit = { rate = "10", burst = 0 } }
            [[rule]]
            name = "a"
            match = { hook = "in", direction = "out", family = "ipv4", group = 70000, owner-method = "x" }
            then = { sample = 0 }
            [[rule]]
            then = { aggregate = { interval = "2s", idle = "3s", max-flows = 0 } }
        "#;
        let errors = compile(text).unwrap_err().0;
        let said: Vec<_> = errors.iter().map(ToString::to_string).collect();
        let expected = [
            ("prefix 1:", "calico, firewalld"),
            ("prefix 2:", "{action}"),
            ("prefix 3:", "give one"),
            ("prefix 4:", "beside preset 'ufw'"),
            ("rule 1 ('a'):", "protocol 'tpc'"),
            ("rule 1 ('a'):", "source-address '10.0.0.0/33'"),
            ("rule 1 ('a'):", "destination-port '9-1'"),
            ("rule 1 ('a'):", "rate '10'"),
            ("rule 1 ('a'):", "burst 0"),
            ("rule 2 ('a'):", "rule 1"),
            ("rule 2 ('a'):", "group '70000'"),
            ("rule 2 ('a'):", "hook 'in'"),
            ("rule 2 ('a'):", "family 'ipv4'"),
            ("rule 2 ('a'):", "direction 'out'"),
            ("rule 2 ('a'):", "owner-method 'x'"),
            ("rule 2 ('a'):", "sample 0"),
            ("rule 3:", "idle 3s"),
            ("rule 3:", "max-flows 0"),
        ];
        assert_eq!(said.len(), expected.len(), "{said:#?}");
        for (said, (place, word)) in said.iter().zip(expected) {
            assert!(said.starts_with(place) && said.contains(word), "{said}");
        }
    }

    #[test]
    fn what_is_in_the_documentation_is_valid() {
        let documentation = include_str!("mod.rs");
        let text: String = documentation
            .lines()
            .filter_map(|line| line.strip_prefix("//! "))
            .skip_while(|line| *line != "```toml")
            .skip(1)
            .take_while(|line| *line != "```")
            .map(|line| format!("{line}\n"))
            .collect();
        let policy = compile(&text).unwrap();
        assert_eq!(policy.rules.len(), 3);
        assert_eq!(&*policy.rules[1].name, "rule 2");
    }
}
