//! One case of the matrix: judges entries, prints its lines, and fails when an entry is wrong or unowned without excuse.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::has_kprobes;
use crate::seen::Seen;
use crate::worker::Truth;
use crate::world::Stage;

/// The IP version of a case's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    const fn name(self) -> &'static str {
        match self {
            Self::V4 => "inet",
            Self::V6 => "inet6",
        }
    }

    /// The unspecified address.
    pub(crate) const fn any(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }

    /// The loopback address.
    pub(crate) const fn loopback(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Self::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
        }
    }
}

/// The reasons for a packet whose log probe, or whose connection's handshake probe, did not run, because another program was
/// running on that CPU. It can befall any packet; `cargo xtask attribution` bounds how many.
const MISSED: [&str; 2] = ["missed", "older-than-agent"];

/// What the entries of one direction must say.
pub(crate) enum Expected<'a> {
    /// This process, without exception.
    Owner(Truth),
    /// This process, or one of these reasons: who it is can change, or is not known yet, when the packet is logged.
    OwnerOr(Truth, &'a [&'a str]),
    /// No process: one of these reasons, or method `kernel` where the list has it.
    Nobody(&'a [&'a str]),
}

/// A case over one address family.
pub(crate) struct Case {
    number: u8,
    name: &'static str,
    pub(crate) family: Family,
    failures: Vec<String>,
    judged: usize,
}

/// Runs one case; the body of every test of the matrix.
pub(crate) fn run<S: Stage>(number: u8, name: &'static str, family: Family, body: fn(&S, &mut Case)) {
    if !has_kprobes() {
        return;
    }
    let stage = S::shared();
    let mut case = Case {
        number,
        name,
        family,
        failures: Vec::new(),
        judged: 0,
    };
    body(&stage, &mut case);
    S::release(stage);
    assert!(case.judged > 0, "the case judged nothing");
    assert!(case.failures.is_empty(), "{}", case.failures.join("\n"));
}

#[derive(Default)]
struct Tally {
    right: usize,
    reason: usize,
    wrong: usize,
    methods: BTreeMap<String, usize>,
    reasons: BTreeMap<String, usize>,
}

impl Case {
    /// Judges the entries of one direction; `at_least` of them must be there.
    pub(crate) fn judge<'a>(
        &mut self,
        direction: &str,
        entries: impl IntoIterator<Item = &'a Seen>,
        at_least: usize,
        expected: &Expected<'_>,
    ) {
        let mut tally = Tally::default();
        let mut count = 0;
        for entry in entries {
            count += 1;
            if let Some(complaint) = tally.add(entry, expected) {
                self.failures.push(format!("{direction}: {complaint}: {entry:?}"));
            }
        }
        if count < at_least {
            self.failures
                .push(format!("{direction}: {count} entries, not {at_least}"));
        }
        self.judged += 1;
        println!(
            "MATRIX case={} name={} family={} direction={direction} entries={count} right={} reason={} wrong={} \
             methods={} reasons={}",
            self.number,
            self.name,
            self.family.name(),
            tally.right,
            tally.reason,
            tally.wrong,
            list(&tally.methods),
            list(&tally.reasons)
        );
    }

    /// The case does not exist on this kernel.
    pub(crate) fn absent(&mut self, why: &str) {
        self.judged += 1;
        println!(
            "MATRIX case={} name={} family={} absent={}",
            self.number,
            self.name,
            self.family.name(),
            why.replace(' ', "-")
        );
    }
}

impl Tally {
    /// Counts an entry; a complaint if it fails the test.
    fn add(&mut self, entry: &Seen, expected: &Expected<'_>) -> Option<String> {
        let method = entry.text("nflog.owner.method").unwrap_or("absent").to_owned();
        let reason = entry.text("nflog.owner.reason").unwrap_or("-").to_owned();
        let pid = entry.number("process.pid");
        *self.methods.entry(method).or_default() += 1;
        let Some(pid) = pid else {
            self.reason += 1;
            let allowed = match expected {
                Expected::Owner(_) => &[][..],
                Expected::OwnerOr(_, reasons) | Expected::Nobody(reasons) => reasons,
            };
            let excused = MISSED.contains(&&*reason) || allowed.contains(&&*reason);
            let complaint = (!excused).then(|| format!("no owner because {reason}, allowed {allowed:?}"));
            *self.reasons.entry(reason).or_default() += 1;
            return complaint;
        };
        let truth = match expected {
            Expected::Owner(truth) | Expected::OwnerOr(truth, _) => Some(truth),
            Expected::Nobody(_) => None,
        };
        let owner = (pid, entry.number("nflog.cgroup.id"));
        if truth.is_some_and(|truth| owner == (truth.pid, Some(truth.cgroup))) {
            self.right += 1;
            return None;
        }
        self.wrong += 1;
        Some(format!("WRONG owner {owner:?}, the truth is {truth:?}"))
    }
}

fn list(counts: &BTreeMap<String, usize>) -> String {
    if counts.is_empty() {
        return "-".to_owned();
    }
    let parts: Vec<_> = counts
        .iter()
        .map(|(name, count)| format!("{name}:{count}"))
        .collect();
    parts.join(",")
}

/// Declares a case as two tests, one for each family.
macro_rules! case {
    ($number:literal, $name:ident, $body:ident) => {
        mod $name {
            #[test]
            fn ipv4() {
                $crate::case::run(
                    $number,
                    stringify!($name),
                    $crate::case::Family::V4,
                    super::$body,
                );
            }

            #[test]
            fn ipv6() {
                $crate::case::run(
                    $number,
                    stringify!($name),
                    $crate::case::Family::V6,
                    super::$body,
                );
            }
        }
    };
}
pub(crate) use case;
