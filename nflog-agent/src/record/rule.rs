//! What a rule's prefix says of the rule.

use super::Severity;

/// The rule that logged a packet, as far as its prefix tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LoggingRule {
    /// What the rule does with the packet: a word of `policy::prefix`'s list, or the prefix's own word in lower case.
    pub action: Option<String>,
    /// Its chain, zone or interface, as the firewall names it.
    pub chain: Option<String>,
    /// Its number or identifier.
    pub id: Option<String>,
    /// The policy that it belongs to.
    pub policy: Option<String>,
    /// How severe the operator finds it.
    pub severity: Option<Severity>,
}

impl LoggingRule {
    /// How severe its packets' records are: as the operator says, else by the action.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.severity
            .unwrap_or_else(|| Severity::of_action(self.action.as_deref()))
    }
}

/// The packets that a flow's record stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Packets, the record's own included.
    pub packets: u64,
    /// Their IP lengths, bytes; where a header does not say, what was captured.
    pub bytes: u64,
    /// The earliest time of any of them, ns since the Unix epoch.
    pub start_unix_nano: u64,
    /// The latest time of any of them, ns since the Unix epoch.
    pub end_unix_nano: u64,
}

/// Packets that a limit of the configuration held back, as a record of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suppressed<'a> {
    /// When the agent received the last of them, ns since the Unix epoch.
    pub observed_unix_nano: u64,
    /// Namespace that they were logged in.
    pub netns: u32,
    /// The configuration's name of the rule that has the limit.
    pub rule: &'a str,
    /// Packets held back since the last record of this kind.
    pub packets: u64,
}
