//! Runs all tests of one binary in one process, and reads the verdicts from what libtest prints.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{Runner, ran_out_of_time, reader, skip_reason};
use crate::events::Events;
use crate::kernel_log::KernelLog;
use crate::protocol::{Event, MATRIX, Verdict};

/// The whole binary gets so many times the time of one test.
const PATIENCE: u32 = 4;

/// The tests of one binary.
pub(super) struct Binary<'a> {
    runner: &'a Runner<'a>,
    name: &'a str,
    tests: BTreeSet<String>,
    failed: Vec<(String, Duration)>,
}

impl<'a> Binary<'a> {
    pub(super) const fn new(runner: &'a Runner<'a>, name: &'a str, tests: BTreeSet<String>) -> Self {
        Self {
            runner,
            name,
            tests,
            failed: Vec::new(),
        }
    }

    /// Runs the tests and returns their number.
    pub(super) fn run(mut self, log: &mut KernelLog, events: &mut Events) -> Result<usize> {
        let count = self.tests.len();
        if count == 0 {
            return Ok(0);
        }
        let mut command = self.runner.command(self.name);
        command
            .args(&self.tests)
            .args(["--exact", "--show-output", "--test-threads=2"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        let (sender, lines) = mpsc::channel();
        let stdout = child.stdout.take().context("standard output is a pipe")?;
        let thread = reader(stdout, sender);
        let end = Instant::now() + self.runner.deadline * PATIENCE;
        let mut output = Vec::new();
        let mut since = Instant::now();
        loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some((test, verdict)) = result(&line) {
                        self.verdict(test, &verdict, since.elapsed());
                        since = Instant::now();
                    }
                    output.push(line);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    child.kill()?;
                    break;
                }
            }
        }
        let status = child.wait()?;
        self.runner.clean_up();
        if thread.join().is_err() {
            anyhow::bail!("reading the output of {} panicked", self.name);
        }
        log.report(self.name, events)?;
        for line in output.iter().filter(|line| line.starts_with(MATRIX)) {
            events.send(&Event::Matrix { line: line.clone() })?;
        }
        if !status.success() {
            output.iter().for_each(|line| println!("    {line}"));
        }
        self.rest(&output, &status.to_string(), events)?;
        Ok(count)
    }

    /// Whether a test was skipped, or ran out of time, is known only at the end, when libtest prints what the tests printed.
    fn verdict(&mut self, test: &str, verdict: &Verdict, took: Duration) {
        if *verdict == Verdict::Passed {
            println!("vm_init: {}::{test} passed", self.name);
            return;
        }
        println!("vm_init: {}::{test} failed", self.name);
        self.tests.remove(test);
        self.failed.push((test.to_owned(), took));
    }

    /// Those that passed, were skipped, or have no verdict.
    fn rest(&self, output: &[String], status: &str, events: &mut Events) -> Result<()> {
        for (test, took) in &self.failed {
            let verdict = if ran_out_of_time(section(output, test)) {
                self.runner.run_again(self.name, test, "it panicked".to_owned())?
            } else {
                Verdict::Failed("it panicked".to_owned())
            };
            self.send(test, verdict, *took, events)?;
        }
        for test in &self.tests {
            let passed = output
                .iter()
                .any(|line| result(line) == Some((test, Verdict::Passed)));
            let verdict = if passed {
                skip_reason(section(output, test)).map_or(Verdict::Passed, Verdict::Skipped)
            } else {
                Verdict::Failed(format!("no verdict: {status}"))
            };
            self.send(test, verdict, Duration::ZERO, events)?;
        }
        Ok(())
    }

    fn send(&self, test: &str, verdict: Verdict, took: Duration, events: &mut Events) -> Result<()> {
        println!("vm_init: {}::{test} {verdict:?}", self.name);
        events.send(&Event::Test {
            binary: self.name.to_owned(),
            name: test.to_owned(),
            verdict,
            millis: u64::try_from(took.as_millis())?,
        })
    }
}

/// Name and verdict in libtest's line `test NAME ... ok`.
fn result(line: &str) -> Option<(&str, Verdict)> {
    let (test, word) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    match word {
        "ok" => Some((test, Verdict::Passed)),
        "FAILED" => Some((test, Verdict::Failed("it panicked".to_owned()))),
        _ => None,
    }
}

/// What libtest shows of a test's own output.
fn section<'a>(output: &'a [String], test: &str) -> &'a [String] {
    let head = format!("---- {test} stdout ----");
    let Some(start) = output.iter().position(|line| *line == head) else {
        return &[];
    };
    let body = &output[start + 1..];
    let length = body
        .iter()
        .position(|line| line.starts_with("---- "))
        .unwrap_or(body.len());
    &body[..length]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_and_sections_are_found_in_the_output_of_libtest() {
        let output = [
            "running 2 tests",
            "test a::b ... ok",
            "test c ... FAILED",
            "successes:",
            "---- a::b stdout ----",
            "SKIPPED: no kprobes",
            "---- c stdout ----",
            "other",
        ];
        let output = output.map(str::to_owned);
        let results: Vec<_> = output.iter().filter_map(|line| result(line)).collect();
        assert_eq!(results[0], ("a::b", Verdict::Passed));
        assert!(matches!(results[1], ("c", Verdict::Failed(_))));
        assert_eq!(section(&output, "a::b"), ["SKIPPED: no kprobes"]);
        assert_eq!(section(&output, "absent"), [""; 0]);
    }
}
