//! Runs each test of each binary as a process of its own, one at a time: its exit code is the verdict, whatever it printed, and
//! what it leaves behind (processes, network namespaces, rules) is removed before the next.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, wait};

use crate::events::Events;
use crate::kernel_log::KernelLog;
use crate::protocol::{Event, TESTS_DIRECTORY, Verdict};
use crate::{command, run};

mod together;

/// Test binaries that run as one process, because their tests share what takes long to set up.
const TOGETHER: [&str; 1] = ["attribution"];
/// How lines begin with figures that a test prints for people to read, also when it passes.
const FIGURES: [&str; 3] = ["VERIFIER ", "COST ", "STORM "];
/// How often to look whether a test has ended.
const POLL: Duration = Duration::from_millis(5);
/// How long a dead test's output may still be held open by a process it left behind.
const OUTPUT_GRACE: Duration = Duration::from_secs(2);

/// How to run tests.
pub(crate) struct Runner<'a> {
    environment: &'a [(String, String)],
    directory: &'a str,
    deadline: Duration,
    filters: &'a [String],
}

impl<'a> Runner<'a> {
    /// `deadline` is in seconds and for each test; `binary::test` must contain one of `filters`, or begin
    /// with it after a `^`, if there are any, and none of those after a `!`.
    pub(crate) fn new(
        environment: &'a [(String, String)],
        directory: &'a str,
        deadline: u64,
        filters: &'a [String],
    ) -> Self {
        Self {
            environment,
            directory,
            deadline: Duration::from_secs(deadline),
            filters,
        }
    }

    /// Runs everything and returns the number of tests.
    pub(crate) fn run_all(&self, log: &mut KernelLog, events: &mut Events) -> Result<usize> {
        fs::create_dir_all(self.directory).with_context(|| format!("cannot create {}", self.directory))?;
        let mut binaries: Vec<_> = fs::read_dir(TESTS_DIRECTORY)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        binaries.sort_unstable();
        let mut count = 0;
        for binary in &binaries {
            let ignored = self.list(binary, &["--ignored"])?;
            if TOGETHER.contains(&binary.as_str()) {
                let names = &self.list(binary, &[])? - &ignored;
                count += together::Binary::new(self, binary, names).run(log, events)?;
                continue;
            }
            for name in self.list(binary, &[])? {
                let start = Instant::now();
                let verdict = if ignored.contains(&name) {
                    Verdict::Ignored
                } else {
                    match self.run_one(binary, &name)? {
                        (Verdict::Failed(reason), true) => self.run_again(binary, &name, reason)?,
                        (verdict, _) => verdict,
                    }
                };
                let millis = u64::try_from(start.elapsed().as_millis())?;
                println!("vm_init: {binary}::{name} {verdict:?} {millis} ms");
                log.report(&format!("{binary}::{name}"), events)?;
                events.send(&Event::Test {
                    binary: binary.clone(),
                    name,
                    verdict,
                    millis,
                })?;
                count += 1;
            }
        }
        Ok(count)
    }

    fn list(&self, binary: &str, arguments: &[&str]) -> Result<BTreeSet<String>> {
        let output = self
            .command(binary)
            .args(["--list", "--format", "terse"])
            .args(arguments)
            .output()?;
        ensure!(
            output.status.success(),
            "{binary} --list failed with {}",
            output.status
        );
        let text = String::from_utf8(output.stdout)
            .with_context(|| format!("{binary} --list did not write UTF-8"))?;
        let wanted = |name: &&str| {
            let name = format!("{binary}::{name}");
            let matches = |filter: &str| match filter.strip_prefix('^') {
                Some(start) => name.starts_with(start),
                None => name.contains(filter),
            };
            let without = |filter: &String| filter.strip_prefix('!').is_some_and(matches);
            let mut wanted = self
                .filters
                .iter()
                .filter(|filter| !filter.starts_with('!'))
                .peekable();
            let selected = wanted.peek().is_none() || wanted.any(|filter| matches(filter));
            selected && !self.filters.iter().any(without)
        };
        Ok(text
            .lines()
            .filter_map(|line| line.strip_suffix(": test"))
            .filter(wanted)
            .map(str::to_owned)
            .collect())
    }

    /// Gives a test that ran out of time another chance: an emulated guest on a busy machine can be starved. What a test found to
    /// be wrong is never asked again.
    fn run_again(&self, binary: &str, name: &str, first: String) -> Result<Verdict> {
        println!("vm_init: {binary}::{name} ran out of time ({first}); once more");
        Ok(match self.run_one(binary, name)? {
            (Verdict::Passed, _) => Verdict::PassedAgain(first),
            (verdict, _) => verdict,
        })
    }

    /// Also tells whether it ran out of time.
    fn run_one(&self, binary: &str, name: &str) -> Result<(Verdict, bool)> {
        let mut command = self.command(binary);
        command.args([name, "--exact", "--nocapture", "--test-threads=1"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {binary}"))?;
        let (sender, lines) = mpsc::channel();
        let readers = [
            reader(
                child.stdout.take().context("standard output is a pipe")?,
                sender.clone(),
            ),
            reader(child.stderr.take().context("standard error is a pipe")?, sender),
        ];
        let status = self.wait(&mut child)?;
        self.clean_up();
        let mut output = Vec::new();
        // A process in uninterruptible sleep could keep the pipes open, so this wait is bounded.
        let end = Instant::now() + OUTPUT_GRACE;
        loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => output.push(line),
                Err(RecvTimeoutError::Disconnected) => {
                    for reader in readers {
                        reader
                            .join()
                            .map_err(|_| anyhow::anyhow!("reading the output of {name} panicked"))?;
                    }
                    break;
                }
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        let late = status.is_none() || ran_out_of_time(&output);
        Ok((self.judge(status, &output), late))
    }

    /// Waits for a test's end; `None` if it had to be killed.
    fn wait(&self, child: &mut Child) -> Result<Option<ExitStatus>> {
        let end = Instant::now() + self.deadline;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() > end {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
            thread::sleep(POLL);
        }
    }

    fn judge(&self, status: Option<ExitStatus>, output: &[String]) -> Verdict {
        let verdict = match status {
            None => Verdict::Failed(format!("killed after {} s", self.deadline.as_secs())),
            Some(status) if !status.success() => Verdict::Failed(status.to_string()),
            Some(_) => skip_reason(output).map_or(Verdict::Passed, Verdict::Skipped),
        };
        let failed = matches!(verdict, Verdict::Failed(_));
        for line in output {
            if failed || FIGURES.iter().any(|start| line.starts_with(start)) {
                println!("    {line}");
            }
        }
        verdict
    }

    /// Kills every process but us, and removes rules and network namespaces.
    fn clean_up(&self) {
        // Process group 1 is, to kill(2), every process but the caller's own.
        let everybody = Pid::INIT;
        if kill_process_group(everybody, Signal::KILL).is_ok() {
            while let Ok(Some(_)) = wait(WaitOptions::empty()) {}
        }
        let mut failures = Vec::new();
        failures.extend(run(&mut command("/bin/nft", self.environment, &["flush", "ruleset"])).err());
        for namespace in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = namespace.file_name();
            let delete = &mut command(
                "/bin/ip",
                self.environment,
                &["netns", "delete", &name.to_string_lossy()],
            );
            failures.extend(run(delete).err());
        }
        for failure in failures {
            println!("vm_init: cannot clean up: {failure:#}");
        }
    }

    fn command(&self, binary: &str) -> Command {
        let mut command = command(&format!("{TESTS_DIRECTORY}/{binary}"), self.environment, &[]);
        command.current_dir(self.directory);
        command
    }
}

/// Whether a test says that it waited in vain. `EAGAIN` is how a socket's time-out ends.
fn ran_out_of_time(output: &[String]) -> bool {
    const SIGNS: [&str; 2] = [" in vain for ", "Resource temporarily unavailable (os error 11)"];
    output
        .iter()
        .any(|line| SIGNS.iter().any(|sign| line.contains(sign)))
}

/// The reason in a line `SKIPPED: reason`, by which a test says that this kernel lacks what it needs.
fn skip_reason(output: &[String]) -> Option<String> {
    output.iter().find_map(|line| {
        // libtest writes `test name ... ` in front of the first line that a test prints on standard output.
        let printed = line
            .rsplit_once(" ... ")
            .map_or(line.as_str(), |(_, printed)| printed);
        printed.strip_prefix("SKIPPED: ").map(str::to_owned)
    })
}

fn reader(pipe: impl Read + Send + 'static, lines: Sender<String>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            if lines
                .send(String::from_utf8_lossy(&line).trim_end().to_owned())
                .is_err()
            {
                return;
            }
            line.clear();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_is_the_start_of_what_a_test_prints_on_a_line() {
        let output = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            skip_reason(&output(&["running 1 test", "SKIPPED: no kprobes"])),
            Some("no kprobes".to_owned())
        );
        assert_eq!(
            skip_reason(&output(&["test a::b ... SKIPPED: no kprobes"])),
            Some("no kprobes".to_owned())
        );
        assert_eq!(
            skip_reason(&output(&["not SKIPPED: this", "test a ... ok"])),
            None
        );
    }

    #[test]
    fn only_waiting_in_vain_is_running_out_of_time() {
        let output = |line: &str| vec!["running 1 test".to_owned(), line.to_owned()];
        assert!(ran_out_of_time(&output(
            "waited 60s in vain for the agent to speak"
        )));
        assert!(ran_out_of_time(&output(
            "receive 0 10: Resource temporarily unavailable (os error 11)"
        )));
        assert!(!ran_out_of_time(&output(
            "assertion `left == right` failed: WRONG owner"
        )));
    }
}
