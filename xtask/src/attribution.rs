//! `cargo xtask attribution`: the matrix of hard cases on every kernel, as the table in RELIABILITY.md.
//!
//! The tests in `nflog-agent/tests/attribution` print what they judged, a line for each case, family and direction; this sums
//! the lines up by case and kernel.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::paths;
use crate::vm::{self, Line, MATRIX, Outcome};

const BEGIN: &str = "<!-- attribution matrix, begin: written by `cargo xtask attribution` -->";
const END: &str = "<!-- attribution matrix, end -->";

/// Cases that no test makes, and why.
const NOT_RUN: [(u8, &str, &str); 2] = [
    (
        14,
        "AF_PACKET",
        "passes no IP hook: NFLOG rules of the IP families never see it",
    ),
    (
        30,
        "vhost-net",
        "would need a virtual machine; its thread writes the same frames into the same tap device, which is tested",
    ),
];

/// At most one of so many entries may be `missed`.
const MISSED_MAX: u64 = 50;

/// Options of `cargo xtask attribution`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Kernel lines; with fewer than all, RELIABILITY.md stays as it is [default: all]
    #[arg(long, value_enum, num_args = 1.., value_name = "LINE")]
    kernel: Vec<Line>,
}

/// Runs the verb; an error if a test failed.
pub(crate) fn main(options: &Options) -> Result<()> {
    let lines = if options.kernel.is_empty() {
        Line::ALL.to_vec()
    } else {
        options.kernel.clone()
    };
    let all = lines.len() == Line::ALL.len();
    let outcomes = vm::test_some(lines, "^attribution::")?;
    let table = table(&outcomes)?;
    println!("{table}");
    for outcome in &outcomes {
        bound_missed(outcome)?;
    }
    let failed: usize = outcomes.iter().map(Outcome::failed).sum();
    ensure!(failed == 0, "{failed} tests of the matrix failed");
    if !all {
        println!("RELIABILITY.md stays as it is: not all kernels ran");
        return Ok(());
    }
    let path = paths::root().join("RELIABILITY.md");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    fs::write(&path, replaced(&text, &table)?).with_context(|| format!("cannot write {}", path.display()))
}

/// The tests let an entry pass one of whose probes did not run, since that can befall any packet; but only so many.
fn bound_missed(outcome: &Outcome) -> Result<()> {
    let mut total = Tally::default();
    for (_, tally) in outcome.matrix.iter().filter_map(|line| parse(line)) {
        total.add(tally);
    }
    let missed: u64 = ["missed", "older-than-agent"]
        .iter()
        .filter_map(|reason| total.reasons.get(*reason))
        .sum();
    let entries = total.right + total.reason + total.wrong;
    ensure!(
        missed * MISSED_MAX <= entries,
        "{}: the probes missed {missed} of {entries} packets",
        outcome.release
    );
    Ok(())
}

/// The text with the table between the markers.
fn replaced(text: &str, table: &str) -> Result<String> {
    let (Some((before, rest)), Some((_, after))) = (text.split_once(BEGIN), text.split_once(END)) else {
        bail!("RELIABILITY.md lacks the lines `{BEGIN}` and `{END}`");
    };
    ensure!(rest.contains(END), "RELIABILITY.md has its markers in reverse");
    Ok(format!("{before}{BEGIN}\n{table}\n{END}{after}"))
}

/// What one kernel answered in one case.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    right: u64,
    reason: u64,
    wrong: u64,
    reasons: BTreeMap<String, u64>,
    absent: Option<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.right += other.right;
        self.reason += other.reason;
        self.wrong += other.wrong;
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
        self.absent = self.absent.take().or(other.absent);
    }

    fn cell(&self) -> String {
        match &self.absent {
            Some(why) => why.clone(),
            None => format!("{} / {} / {}", self.right, self.reason, self.wrong),
        }
    }
}

/// Case number, name and figures of a line that a test printed.
fn parse(line: &str) -> Option<((u8, String), Tally)> {
    let words: BTreeMap<_, _> = line
        .strip_prefix(MATRIX)?
        .split(' ')
        .filter_map(|word| word.split_once('='))
        .collect();
    let case = (
        words.get("case")?.parse().ok()?,
        words.get("name")?.replace('_', " "),
    );
    if let Some(why) = words.get("absent") {
        let absent = Some(why.replace('-', " "));
        return Some((
            case,
            Tally {
                absent,
                ..Tally::default()
            },
        ));
    }
    let number = |name: &str| words.get(name)?.parse().ok();
    let reasons = words.get("reasons")?;
    let reasons = reasons
        .split(',')
        .filter_map(|pair| pair.split_once(':'))
        .map(|(reason, count)| Some((reason.to_owned(), count.parse().ok()?)))
        .collect::<Option<_>>()?;
    let tally = Tally {
        right: number("right")?,
        reason: number("reason")?,
        wrong: number("wrong")?,
        reasons,
        absent: None,
    };
    Some((case, tally))
}

/// The table: a row for each case, a column for each kernel, the reasons, and what was not run.
fn table(outcomes: &[Outcome]) -> Result<String> {
    let mut rows: BTreeMap<(u8, String), Vec<Tally>> = BTreeMap::new();
    for (column, outcome) in outcomes.iter().enumerate() {
        for line in &outcome.matrix {
            let (case, tally) = parse(line).with_context(|| format!("not a line of the matrix: {line}"))?;
            let row = rows.entry(case).or_default();
            row.resize_with(outcomes.len(), Tally::default);
            row[column].add(tally);
        }
    }
    ensure!(!rows.is_empty(), "no test of the matrix printed anything");
    let releases: Vec<_> = outcomes.iter().map(|outcome| outcome.release.as_str()).collect();
    let mut text = format!(
        "| case | what | {} | reasons |\n|---|---|{}---|\n",
        releases.join(" | "),
        "---|".repeat(releases.len())
    );
    let mut totals: Vec<Tally> = releases.iter().map(|_| Tally::default()).collect();
    for ((number, name), row) in rows {
        let cells: Vec<_> = row.iter().map(Tally::cell).collect();
        let mut reasons = Tally::default();
        for (total, tally) in totals.iter_mut().zip(row) {
            reasons.add(Tally {
                reasons: tally.reasons.clone(),
                ..Tally::default()
            });
            total.add(Tally {
                absent: None,
                ..tally
            });
        }
        let reasons: Vec<_> = reasons.reasons.into_keys().collect();
        text += &format!(
            "| {number} | {name} | {} | {} |\n",
            cells.join(" | "),
            reasons.join(", ")
        );
    }
    let totals: Vec<_> = totals.iter().map(Tally::cell).collect();
    text += &format!("| | all | {} | |\n\nNot run:\n", totals.join(" | "));
    for (number, name, why) in NOT_RUN {
        text += &format!("- {number}, {name}: {why}.\n");
    }
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "MATRIX case=25 name=two_processes family=inet direction=input entries=4 right=3 reason=1 wrong=0 \
                        methods=accepted:2,listener:1,none:1 reasons=ambiguous:1";

    fn outcome(release: &str, matrix: &[&str]) -> Outcome {
        let matrix = matrix.iter().map(|&line| line.to_owned()).collect();
        Outcome {
            matrix,
            ..Outcome::empty(Line::Linux6_12, release)
        }
    }

    #[test]
    fn a_line_is_read_back() {
        let ((number, name), tally) = parse(LINE).unwrap();
        assert_eq!((number, name.as_str()), (25, "two processes"));
        assert_eq!((tally.right, tally.reason, tally.wrong), (3, 1, 0));
        assert_eq!(tally.reasons, [("ambiguous".to_owned(), 1)].into());
        assert_eq!(parse("MATRIX case=25 name=x family=inet right=x"), None);
        assert_eq!(parse("something else"), None);
    }

    #[test]
    fn directions_and_families_are_summed_up_and_an_absent_case_says_why() {
        let absent = "MATRIX case=29 name=mptcp family=inet absent=this-kernel-has-no-MPTCP";
        let table = table(&[outcome("5.10", &[LINE, absent]), outcome("6.12", &[LINE, LINE])]).unwrap();
        assert!(
            table.contains("| 25 | two processes | 3 / 1 / 0 | 6 / 2 / 0 | ambiguous |"),
            "{table}"
        );
        assert!(
            table.contains("| 29 | mptcp | this kernel has no MPTCP | 0 / 0 / 0 |  |"),
            "{table}"
        );
        assert!(table.contains("| | all | 3 / 1 / 0 | 6 / 2 / 0 | |"), "{table}");
        assert!(super::table(&[outcome("5.10", &["MATRIX case=x"])]).is_err());
    }

    #[test]
    fn reliability_has_the_markers_and_a_table_of_every_kernel_without_a_wrong_owner() {
        let text = fs::read_to_string(paths::root().join("RELIABILITY.md")).unwrap();
        let again = replaced(&text, "new table").unwrap();
        assert!(again.contains(&format!("{BEGIN}\nnew table\n{END}")));
        let (_, rest) = text.split_once(BEGIN).unwrap();
        let (table, _) = rest.split_once(END).unwrap();
        let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| ")).collect();
        assert!(rows.len() > 32, "{} rows", rows.len());
        for row in &rows[1..] {
            let cells: Vec<_> = row.split(" | ").collect();
            assert_eq!(cells.len(), 3 + Line::ALL.len(), "{row}");
            for cell in &cells[2..2 + Line::ALL.len()] {
                assert!(!cell.contains(" / ") || cell.ends_with(" / 0"), "{row}");
            }
        }
    }
}
