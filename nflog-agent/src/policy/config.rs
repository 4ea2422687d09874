//! The configuration as it is written. Values are text here: [`PolicyConfig::compile`] says all that is wrong with them at once.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use super::schema;

/// The tables `[[prefix]]` and `[[rule]]`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// What prefixes mean: the first that matches.
    pub prefix: Vec<PrefixConfig>,
    /// What becomes of packets: the first that matches.
    pub rule: Vec<RuleConfig>,
}

/// A `[[prefix]]`: exactly one of `preset`, `template` and `regex`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("oneOf" = [{ "required": ["preset"] }, { "required": ["template"] }, { "required": ["regex"] }]))]
pub struct PrefixConfig {
    /// Name of a firewall whose prefixes are known.
    #[schemars(schema_with = "schema::presets")]
    pub preset: Option<String>,
    /// The prefix with `{action}`, `{chain}`, `{id}`, `{policy}` and `{*}` (anything) in it.
    pub template: Option<String>,
    /// A regular expression that matches the whole prefix, with groups of these names.
    pub regex: Option<String>,
    /// The action where the pattern gives none.
    pub action: Option<String>,
    /// The chain where the pattern gives none.
    pub chain: Option<String>,
    /// The id where the pattern gives none.
    pub id: Option<String>,
    /// The policy where the pattern gives none.
    pub policy: Option<String>,
    /// `trace`, `debug`, `info`, `warn`, `error` or `fatal`, of records whose prefix matches; without it by their action.
    #[schemars(schema_with = "schema::severities")]
    pub severity: Option<String>,
}

/// A `[[rule]]`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// Name in metrics, reports and errors.
    #[serde(default)]
    pub name: Option<String>,
    /// Which packets; all without it.
    #[serde(default, rename = "match")]
    pub matches: MatchConfig,
    /// What becomes of them.
    pub then: Then,
}

/// All that is given must match; of a list one.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct MatchConfig {
    /// NFLOG group.
    pub group: Values,
    /// The rule's prefix, without blanks at its end: `*` any text, `?` any character.
    pub prefix: Values,
    /// `nflog.rule.action`.
    pub action: Values,
    /// `nflog.rule.chain`, with `*` and `?`.
    pub chain: Values,
    /// `nflog.rule.id`, with `*` and `?`.
    pub id: Values,
    /// `nflog.rule.policy`, with `*` and `?`.
    pub policy: Values,
    /// `prerouting`, `input`, ..
    #[schemars(schema_with = "schema::hooks")]
    pub hook: Values,
    /// `receive` or `transmit`.
    #[schemars(schema_with = "schema::directions")]
    pub direction: Values,
    /// `inet`, `inet6`, ..
    #[schemars(schema_with = "schema::families")]
    pub family: Values,
    /// IANA keyword in lower case, or number.
    pub protocol: Values,
    /// Address or network.
    pub source_address: Values,
    /// Address or network.
    pub destination_address: Values,
    /// Port or range.
    pub source_port: Values,
    /// Port or range.
    pub destination_port: Values,
    /// Name of the device, or of the bridge port, it came in on, with `*` and `?`.
    pub in_interface: Values,
    /// Name of the device, or of the bridge port, it goes out on, with `*` and `?`.
    pub out_interface: Values,
    /// `nflog.owner.method`.
    #[schemars(schema_with = "schema::owner_methods")]
    pub owner_method: Values,
    /// `nflog.owner.reason`.
    #[schemars(schema_with = "schema::owner_reasons")]
    pub owner_reason: Values,
    /// `process.executable.name`, with `*` and `?`.
    pub process_name: Values,
    /// `process.executable.path`, with `*` and `?`.
    pub executable: Values,
    /// `process.linux.cgroup`, with `*` and `?`.
    pub cgroup: Values,
    /// `container.id`, with `*` and `?`.
    pub container_id: Values,
    /// `k8s.pod.uid`, with `*` and `?`.
    pub pod_uid: Values,
    /// `nflog.systemd.unit`, with `*` and `?`.
    pub unit: Values,
    /// `process.user.id`.
    pub uid: Values,
    /// `nflog.netns.inode`.
    pub netns: Values,
}

/// What becomes of a packet.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// It leaves.
    Keep,
    /// It is counted, as filtered.
    Drop,
    /// One of so many leaves.
    Sample(#[schemars(range(min = 1))] u32),
    /// It leaves unless there are too many.
    Limit(LimitConfig),
    /// It leaves together with others of its flow.
    Aggregate(AggregateConfig),
}

/// A limit.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LimitConfig {
    /// `100/s`, `20/m`, `5/h`.
    pub rate: String,
    /// How many at once; as many as the rate's number without it.
    #[serde(default)]
    pub burst: Option<u32>,
    /// What has a limit of its own.
    #[serde(default)]
    pub per: Per,
    /// How many such are told apart; 4096 without it.
    #[serde(default)]
    pub max_keys: Option<u32>,
}

/// What has a limit of its own, within one network namespace.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// The configuration's rule.
    #[default]
    Rule,
    /// Each prefix.
    Prefix,
    /// Each source address; packets without one share theirs.
    Source,
    /// Each process; packets without an owner share theirs.
    Owner,
    /// Each container, pod or unit; packets without one share the host's.
    Workload,
}

/// How packets are put together.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct AggregateConfig {
    /// A flow's record leaves at the latest so long after its first packet; `10s` without it.
    pub interval: Option<String>,
    /// And once there was no packet of it for so long; never without it.
    pub idle: Option<String>,
    /// How many flows are open at once at most, in each network namespace; beyond it the oldest leaves. 16384 without it.
    pub max_flows: Option<u32>,
}

/// One value or a list of them, each text or a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values(pub Vec<String>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValuesVisitor).map(Self)
    }
}

/// Reads one value or a list.
struct ValuesVisitor;

impl<'de> Visitor<'de> for ValuesVisitor {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number, or a list of them")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(vec![value.to_owned()])
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(vec![value.to_string()])
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(vec![value.to_string()])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Values(values)) = list.next_element()? {
            all.extend(values);
        }
        if all.is_empty() {
            return Err(A::Error::custom(
                "an empty list matches nothing; leave it out, or write what is to match",
            ));
        }
        Ok(all)
    }
}
