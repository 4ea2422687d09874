//! What a prefix says of the rule: patterns, and what was found for the prefixes seen so far.
//!
//! A pattern matches a whole prefix, without the blanks at its end. `{action}` in a template is one word of letters, `{chain}` and `{id}`
//! have no blanks in them, `{policy}` and `{*}` are any text; each takes as little as it can.
//!
//! Actions are one of few words, so that they can be asked for whatever the firewall: `accept` (ACCEPT, ACCEPTED, ALLOW, ALLOWED, PERMIT,
//! PERMITTED), `drop` (DROP, DROPPED, DISCARD), `reject` (REJECT, REJECTED), `block` (BLOCK, BLOCKED, DENY, DENIED: firewalls use these for both
//! of the former), `log` (LOG, LOGGED). Any other word stays as it is, in lower case.

use std::collections::HashMap;
use std::sync::Arc;

use regex_lite::{Regex, RegexBuilder, escape};

use super::error::PolicyProblem;
use crate::record::LoggingRule;

/// Prefixes whose meaning is remembered; more are read anew. A rule set has tens.
const REMEMBERED: usize = 1024;

/// Compiled size of a regular expression at most, bytes.
const SIZE_LIMIT: usize = 1 << 20;

const FIELDS: [&str; 4] = ["action", "chain", "id", "policy"];

#[derive(Clone, Debug)]
pub(super) struct Pattern {
    regex: Regex,
    /// What holds where the pattern gives nothing.
    otherwise: LoggingRule,
}

impl Pattern {
    /// # Errors
    /// See [`PolicyProblem`].
    pub(super) fn template(template: &str, otherwise: LoggingRule) -> Result<Self, PolicyProblem> {
        let regex = regex_of(template).map_err(|field| PolicyProblem::Template {
            value: template.to_owned(),
            field,
        })?;
        Self::new(template, &regex, otherwise)
    }

    /// # Errors
    /// See [`PolicyProblem`].
    pub(super) fn regex(regex: &str, otherwise: LoggingRule) -> Result<Self, PolicyProblem> {
        Self::new(regex, regex, otherwise)
    }

    fn new(written: &str, regex: &str, otherwise: LoggingRule) -> Result<Self, PolicyProblem> {
        // Compiled by itself first: what it lacks must not be found in what is put around it.
        let build = |regex: &str| {
            let built = RegexBuilder::new(regex).size_limit(SIZE_LIMIT).build();
            built.map_err(|error| PolicyProblem::Regex {
                value: written.to_owned(),
                error,
            })
        };
        build(regex)?;
        let regex = build(&format!("^(?s:{regex})$"))?;
        let mut groups = regex.capture_names().flatten().peekable();
        if groups.peek().is_none() && otherwise == LoggingRule::default() {
            return Err(PolicyProblem::Nothing {
                value: written.to_owned(),
            });
        }
        if let Some(group) = groups.find(|group| !FIELDS.contains(group)) {
            return Err(PolicyProblem::Group {
                value: written.to_owned(),
                group: group.to_owned(),
            });
        }
        Ok(Self { regex, otherwise })
    }

    fn read(&self, prefix: &str) -> Option<LoggingRule> {
        let captures = self.regex.captures(prefix.trim_end())?;
        let [action, chain, id, policy] = FIELDS.map(|field| {
            let found = captures.name(field).map(|found| found.as_str());
            found.filter(|text| !text.is_empty())
        });
        let or = |found: Option<&str>, otherwise: &Option<String>| {
            found.map(str::to_owned).or_else(|| otherwise.clone())
        };
        Some(LoggingRule {
            action: action.map(normalised).or_else(|| self.otherwise.action.clone()),
            chain: or(chain, &self.otherwise.chain),
            id: or(id, &self.otherwise.id),
            policy: or(policy, &self.otherwise.policy),
            severity: self.otherwise.severity,
        })
    }
}

/// The regular expression of a template, or the field that it does not know or has twice.
fn regex_of(template: &str) -> Result<String, String> {
    // A blank at the end is not in what is matched.
    let mut rest = template.trim_end();
    let (mut regex, mut seen) = (String::new(), Vec::new());
    while let Some(at) = rest.find(['{', '}']) {
        regex.push_str(&escape(&rest[..at]));
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix(brace) {
            regex.push_str(&escape(brace));
            rest = behind;
            continue;
        }
        let Some((field, behind)) = rest.split_once('}').filter(|_| brace == "{") else {
            return Err(rest.to_owned());
        };
        let text = match field {
            "*" => ".*?",
            "action" => "[A-Za-z]+",
            "chain" | "id" => r"\S+?",
            "policy" => ".+?",
            _ => return Err(field.to_owned()),
        };
        if field == "*" {
            regex.push_str(text);
        } else {
            if seen.contains(&field) {
                return Err(field.to_owned());
            }
            seen.push(field);
            regex.push_str(&format!("(?P<{field}>{text})"));
        }
        rest = behind;
    }
    regex.push_str(&escape(rest));
    Ok(regex)
}

/// See the top of this file.
pub(super) fn normalised(word: &str) -> String {
    let word = word.to_lowercase();
    let one = match word.as_str() {
        "accepted" | "allow" | "allowed" | "permit" | "permitted" => "accept",
        "dropped" | "discard" => "drop",
        "rejected" => "reject",
        "blocked" | "deny" | "denied" => "block",
        "logged" => "log",
        _ => return word,
    };
    one.to_owned()
}

/// What was found for prefixes: one look-up per packet.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<Box<str>, Option<Arc<LoggingRule>>>);

impl Known {
    /// What the first pattern that matches says.
    pub(super) fn read(&mut self, patterns: &[Pattern], prefix: &str) -> Option<Arc<LoggingRule>> {
        if patterns.is_empty() || prefix.is_empty() {
            return None;
        }
        if let Some(known) = self.0.get(prefix) {
            return known.clone();
        }
        let found = patterns.iter().find_map(|pattern| pattern.read(prefix));
        let found = found.map(Arc::new);
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(prefix.into(), found.clone());
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(template: &str, prefix: &str) -> Option<[Option<String>; 4]> {
        let pattern = Pattern::template(template, LoggingRule::default()).unwrap();
        pattern
            .read(prefix)
            .map(|rule| [rule.action, rule.chain, rule.id, rule.policy])
    }

    fn fields<const N: usize>(texts: [&str; N]) -> Option<[Option<String>; N]> {
        Some(texts.map(|text| (!text.is_empty()).then(|| text.to_owned())))
    }

    #[test]
    fn fields_are_what_stands_in_their_place() {
        let found = read("{chain}_{action}: ", "IN_public_REJECT: ");
        assert_eq!(found, fields(["reject", "IN_public", "", ""]));
        assert_eq!(
            read("[UFW {action}] ", "[UFW BLOCK] "),
            fields(["block", "", "", ""])
        );
        assert_eq!(
            read("{action} by policy {policy}", "DROP by policy a/b c"),
            fields(["drop", "", "", "a/b c"])
        );
        assert_eq!(read("{*}rule {id}", "fw: rule 17  "), fields(["", "", "17", ""]));
        assert_eq!(read("{{{id}}}", "{7}"), fields(["", "", "7", ""]));
    }

    #[test]
    fn what_does_not_match_as_a_whole_says_nothing() {
        assert_eq!(read("{action}: ", "x DROP: "), None);
        assert_eq!(read("{action}: ", "DROP: x"), None);
        assert_eq!(read("a.{id}", "ab7"), None);
    }

    #[test]
    fn what_is_fixed_holds_where_nothing_is_captured() {
        let otherwise = LoggingRule {
            action: Some("drop".to_owned()),
            policy: Some("egress".to_owned()),
            ..LoggingRule::default()
        };
        let pattern = Pattern::regex("egress(?: (?P<action>[a-z]+))?", otherwise).unwrap();
        let action = |prefix| pattern.read(prefix).unwrap().action;
        assert_eq!(action("egress").as_deref(), Some("drop"));
        assert_eq!(action("egress allow").as_deref(), Some("accept"));
    }

    #[test]
    fn wrong_patterns_are_refused() {
        let refused = |pattern: Result<Pattern, PolicyProblem>| pattern.unwrap_err().to_string();
        let none = LoggingRule::default;
        for template in ["{acton}", "{id} {id}", "{id", "id}"] {
            let message = refused(Pattern::template(template, none()));
            assert!(message.contains("{action}"), "{template}: {message}");
        }
        for (regex, word) in [
            ("(?P<name>x)", "group 'name'"),
            ("(", "(?P<action>...)"),
            ("a)(b", "not one"),
            ("plain", "says nothing"),
            ("(?P<id>(a{1000}){1000})", "not one"),
        ] {
            let message = refused(Pattern::regex(regex, none()));
            assert!(message.contains(word), "{regex}: {message}");
        }
    }

    proptest! {
        #[test]
        fn no_prefix_and_no_template_panics(template in ".{0,40}", prefix in ".{0,127}") {
            if let Ok(pattern) = Pattern::template(&template, LoggingRule { id: Some("1".to_owned()), ..LoggingRule::default() }) {
                pattern.read(&prefix);
            }
        }

        #[test]
        fn a_text_in_place_of_a_field_is_found_again(chain in "[A-Za-z0-9.-]{1,20}", id in "[0-9]{1,5}") {
            let found = read("<{chain}|{id}>", &format!("<{chain}|{id}>"));
            prop_assert_eq!(found, fields(["", &chain, &id, ""]));
        }

        #[test]
        fn what_is_remembered_is_what_is_read(prefixes in prop::collection::vec("[ab]{0,3}(DROP|x)?", 1..50)) {
            let patterns = [Pattern::template("{chain}DROP", LoggingRule::default()).unwrap()];
            let mut known = Known::default();
            for prefix in &prefixes {
                let fresh = (!prefix.is_empty()).then(|| patterns[0].read(prefix)).flatten();
                let found = known.read(&patterns, prefix);
                prop_assert_eq!(found.as_deref(), fresh.as_ref());
            }
        }
    }
}
