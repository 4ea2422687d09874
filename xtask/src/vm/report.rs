//! Judges a boot and prints the table of tests and kernels.

use std::collections::{BTreeMap, BTreeSet};

use crate::vm::kernel::Line;
use crate::vm::protocol::{Event, Verdict};
use crate::vm::qemu::{Boot, splats};

/// What one kernel did.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The kernel's line.
    pub(crate) line: Line,
    /// `uname -r`, from the guest itself if it came that far.
    pub(crate) release: String,
    /// How each test ended, by `binary::test`.
    pub(crate) tests: BTreeMap<String, Verdict>,
    /// What the tests of the attribution matrix judged.
    pub(crate) matrix: Vec<String>,
    /// Everything wrong with the guest other than a failed test.
    pub(crate) faults: Vec<String>,
    /// From power-on to power-off, in seconds.
    pub(crate) seconds: f64,
}

impl Outcome {
    /// Nothing yet.
    pub(crate) fn empty(line: Line, release: &str) -> Self {
        Self {
            line,
            release: release.to_owned(),
            tests: BTreeMap::new(),
            matrix: Vec::new(),
            faults: Vec::new(),
            seconds: 0.0,
        }
    }

    /// Judges a boot that was to run tests.
    pub(crate) fn judge(line: Line, release: &str, boot: &Boot, seconds: f64) -> Self {
        let mut outcome = Self {
            seconds,
            ..Self::empty(line, release)
        };
        outcome.faults.extend(boot.failure.clone());
        let mut announced = Vec::new();
        for event in &boot.events {
            match event {
                Event::Ready { kernel } => outcome.release.clone_from(kernel),
                Event::Test {
                    binary,
                    name,
                    verdict,
                    ..
                } => {
                    outcome.tests.insert(format!("{binary}::{name}"), verdict.clone());
                }
                Event::Matrix { line } => outcome.matrix.push(line.clone()),
                Event::Splat { during, line } => {
                    outcome.faults.push(format!("kernel during {during}: {line}"));
                }
                Event::Broken { reason } => outcome.faults.push(reason.clone()),
                Event::End { tests } => announced.push(*tests),
            }
        }
        match announced.as_slice() {
            [count] if *count == outcome.tests.len() => {}
            [count] => outcome.faults.push(format!(
                "{count} tests were run but {} verdicts came",
                outcome.tests.len()
            )),
            [] => outcome.faults.push("no final verdict".to_owned()),
            _ => outcome.faults.push("more than one final verdict".to_owned()),
        }
        if !outcome
            .faults
            .iter()
            .any(|fault| fault.starts_with("kernel during"))
        {
            outcome
                .faults
                .extend(splats(&boot.console).map(|line| format!("kernel: {line}")));
        }
        outcome
    }

    /// Number of tests with exit code 0.
    pub(crate) fn passed(&self) -> usize {
        self.tests
            .values()
            .filter(|verdict| matches!(verdict, Verdict::Passed | Verdict::PassedAgain(_)))
            .count()
    }

    /// Number of failed tests and other faults.
    pub(crate) fn failed(&self) -> usize {
        let failed = self
            .tests
            .values()
            .filter(|verdict| matches!(verdict, Verdict::Failed(_)))
            .count();
        failed + self.faults.len()
    }
}

/// The table of all tests and kernels, the reasons for what was skipped, and the faults.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let names: BTreeSet<&String> = outcomes.iter().flat_map(|outcome| outcome.tests.keys()).collect();
    let width = names
        .iter()
        .map(|name| name.len())
        .max()
        .unwrap_or(0)
        .max("kernel".len());
    let mut lines = vec![row(
        "kernel",
        width,
        outcomes.iter().map(|outcome| outcome.line.name()),
    )];
    for name in names {
        let cells = outcomes
            .iter()
            .map(|outcome| outcome.tests.get(name).map_or("-", word));
        lines.push(row(name, width, cells));
    }
    for outcome in outcomes {
        lines.push(summary(outcome));
        for (name, verdict) in &outcome.tests {
            match verdict {
                Verdict::PassedAgain(first) => {
                    lines.push(format!(
                        "  passed at the second attempt {name}: ran out of time first ({first})"
                    ));
                }
                Verdict::Skipped(reason) => lines.push(format!("  skipped {name}: {reason}")),
                Verdict::Failed(reason) => lines.push(format!("  FAILED {name}: {reason}")),
                Verdict::Passed | Verdict::Ignored => {}
            }
        }
        lines.extend(outcome.faults.iter().map(|fault| format!("  FAULT {fault}")));
    }
    lines.join("\n")
}

fn row<'a>(name: &str, width: usize, cells: impl Iterator<Item = &'a str>) -> String {
    let cells: String = cells.map(|cell| format!("  {cell:<8}")).collect();
    format!("{name:<width$}{cells}").trim_end().to_owned()
}

const fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "ok",
        Verdict::PassedAgain(_) => "ok (2nd)",
        Verdict::Skipped(_) => "skipped",
        Verdict::Ignored => "ignored",
        Verdict::Failed(_) => "FAILED",
    }
}

fn summary(outcome: &Outcome) -> String {
    let Outcome {
        line,
        release,
        tests: _,
        matrix: _,
        faults: _,
        seconds,
    } = outcome;
    format!(
        "{} ({release}): {} passed, {} failed in {seconds:.1} s",
        line.name(),
        outcome.passed(),
        outcome.failed()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(name: &str, verdict: Verdict) -> Event {
        Event::Test {
            binary: "nflog".to_owned(),
            name: name.to_owned(),
            verdict,
            millis: 5,
        }
    }

    fn judge(events: Vec<Event>, console: &[&str]) -> Outcome {
        let boot = Boot {
            events,
            console: console.iter().map(|&line| line.to_owned()).collect(),
            failure: None,
        };
        Outcome::judge(Line::Linux6_1, "unknown", &boot, 4.0)
    }

    #[test]
    fn a_boot_with_a_verdict_for_each_test_passes() {
        let events = vec![
            Event::Ready {
                kernel: "6.1.0".to_owned(),
            },
            test("a", Verdict::Passed),
            Event::End { tests: 1 },
        ];
        let outcome = judge(events, &["[    1.0] harmless"]);
        assert_eq!(
            (outcome.passed(), outcome.failed(), outcome.release.as_str()),
            (1, 0, "6.1.0")
        );
    }

    #[test]
    fn silence_a_lost_verdict_and_a_splat_each_fail_the_kernel() {
        assert_eq!(judge(vec![], &[]).faults, ["no final verdict"]);
        assert_eq!(judge(vec![Event::End { tests: 1 }], &[]).failed(), 1);
        assert_eq!(
            judge(vec![Event::End { tests: 0 }], &["[    3.0] WARNING: CPU: 0"]).failed(),
            1
        );
        let splat = Event::Splat {
            during: "nflog::a".to_owned(),
            line: "BUG: x".to_owned(),
        };
        assert_eq!(
            judge(vec![splat, Event::End { tests: 0 }], &["[    3.0] BUG: x"]).failed(),
            1
        );
    }

    #[test]
    fn the_table_has_a_row_for_each_test_and_says_why_one_was_skipped() {
        let events = vec![
            test("a", Verdict::Failed("exit status: 101".to_owned())),
            test("b", Verdict::Skipped("no kprobes".to_owned())),
            Event::End { tests: 2 },
        ];
        let table = table(&[judge(events, &[])]);
        assert!(table.contains("nflog::a  FAILED\nnflog::b  skipped\n"), "{table}");
        assert!(table.contains("skipped nflog::b: no kprobes"), "{table}");
        assert!(table.contains("0 passed, 1 failed in 4.0 s"), "{table}");
    }
}
