//! The tests of the workspace on this kernel, counted from what libtest prints.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use super::Counts;
use crate::artifacts::{self, Artifacts};
use crate::process::render;

/// Runs every test, one at a time in each binary: they make namespaces and kernel state of their own, and the machine may have
/// few cores.
pub(super) fn run_all() -> Result<Counts> {
    // `cargo test` builds examples only as tests of their own, and the test of the examples runs them as programs.
    Artifacts::build()?;
    let mut command = artifacts::cargo("test");
    command.args(artifacts::WORKSPACE).args([
        "--bins",
        "--lib",
        "--tests",
        "--no-fail-fast",
        "--",
        "--test-threads=2",
    ]);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| render(&command))?;
    let stdout = child.stdout.take().context("standard output is piped")?;
    let mut counts = Counts::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("the tests write UTF-8")?;
        println!("{line}");
        if let Some(more) = Counts::parse(&line) {
            counts.passed += more.passed;
            counts.failed += more.failed;
        }
    }
    let status = child.wait().with_context(|| render(&command))?;
    ensure!(counts.passed > 0, "`{}` ran no test: {status}", render(&command));
    ensure!(
        status.success() || counts.failed > 0,
        "`{}` ended with {status} without a failed test",
        render(&command)
    );
    Ok(counts)
}

impl Counts {
    /// From `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
    fn parse(line: &str) -> Option<Self> {
        let result = line.strip_prefix("test result: ")?;
        let number = |word: &str| {
            let before = result.split_once(word)?.0;
            before
                .rsplit([' ', ';'])
                .find(|part| !part.is_empty())?
                .parse()
                .ok()
        };
        Some(Self {
            passed: number(" passed")?,
            failed: number(" failed")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_lines_are_counted_and_others_are_not() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s";
        assert_eq!(
            Counts::parse(line),
            Some(Counts {
                passed: 12,
                failed: 3
            })
        );
        assert_eq!(Counts::parse("running 3 tests"), None);
    }
}
