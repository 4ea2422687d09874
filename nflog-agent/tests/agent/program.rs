//! The agent's process under test.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Netns, wait_for};

/// The binary: in a guest where the harness says, else the one cargo built.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("NFLOG_TEST_AGENT")
        .map_or_else(|| env!("CARGO_BIN_EXE_nflog-agent").into(), PathBuf::from)
}

/// A running agent; killed on drop.
pub(crate) struct Agent {
    child: Child,
    stdout: Lines,
    stderr: Lines,
    readers: Vec<JoinHandle<()>>,
}

type Lines = Arc<Mutex<Vec<String>>>;

/// How an agent ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: Vec<String>,
}

impl Ended {
    /// All of standard error.
    pub(crate) fn messages(&self) -> String {
        self.stderr.join("\n")
    }

    /// A number before a word in the summary, such as `12` of `12 received`.
    #[track_caller]
    pub(crate) fn count(&self, word: &str) -> u64 {
        let summary = self
            .stderr
            .iter()
            .find(|line| line.contains(" received ") && line.contains(" exported"));
        let summary = summary.unwrap_or_else(|| panic!("no summary in:\n{}", self.messages()));
        let words: Vec<_> = summary
            .split([' ', '(', ')', ',', ';'])
            .filter(|word| !word.is_empty())
            .collect();
        let at = words.iter().position(|other| *other == word);
        at.and_then(|at| words[at - 1].parse().ok())
            .unwrap_or_else(|| panic!("no number before `{word}` in: {summary}"))
    }
}

/// One of the probes' counters, from the account at the end among an agent's messages.
pub(crate) fn counted(messages: &str, name: &str) -> u64 {
    let line = messages.lines().find(|line| line.contains("probes: "));
    line.unwrap_or_default()
        .split([',', ':'])
        .find_map(|part| part.trim().strip_prefix(name)?.trim().parse().ok())
        .unwrap_or(0)
}

impl Agent {
    /// Starts `nflog-agent run` with `arguments`, and waits until it reads.
    #[track_caller]
    pub(crate) fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut agent = Self::spawn(arguments, environment);
        agent.wait_until_said("reading group");
        agent
    }

    /// The same for group 7 of a namespace.
    #[track_caller]
    pub(crate) fn on(netns: &Netns, more: &[&str], environment: &[(&str, &str)]) -> Self {
        let path = netns.path().display().to_string();
        Self::start(&[&["--group", "7", "--netns", &path], more].concat(), environment)
    }

    /// Starts it, whatever becomes of it.
    #[track_caller]
    pub(crate) fn spawn(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary());
        command
            .arg("run")
            .args(arguments)
            .env("RUST_LOG", "info")
            // Only one could have the default address.
            .env("NFLOG_AGENT_LISTEN", "off")
            .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
        Self::from(command.envs(environment.iter().copied()))
    }

    #[track_caller]
    pub(crate) fn from(command: &mut Command) -> Self {
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the agent starts");
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let readers = vec![
            collect(child.stdout.take().expect("piped"), &stdout),
            collect(child.stderr.take().expect("piped"), &stderr),
        ];
        Self {
            child,
            stdout,
            stderr,
            readers,
        }
    }

    /// Whether a line of standard error contains `text`.
    pub(crate) fn said(&self, text: &str) -> bool {
        self.stderr.lock().unwrap().iter().any(|line| line.contains(text))
    }

    /// What follows `text` in the last line of standard error that has it.
    #[track_caller]
    pub(crate) fn last_said(&self, text: &str) -> String {
        let lines = self.stderr.lock().unwrap();
        let mut rest = lines.iter().rev().filter_map(|line| line.split_once(text));
        rest.next().expect("it was said").1.to_owned()
    }

    /// Lines of standard error with `text`.
    pub(crate) fn count_said(&self, text: &str) -> usize {
        let lines = self.stderr.lock().unwrap();
        lines.iter().filter(|line| line.contains(text)).count()
    }

    /// Waits until a line of standard error contains `text`.
    #[track_caller]
    pub(crate) fn wait_until_said(&mut self, text: &str) {
        wait_for("the agent to speak", || {
            let ended = self.child.try_wait().unwrap();
            if self.said(text) {
                return Some(());
            }
            if let Some(status) = ended {
                let lines = self.stderr.lock().unwrap().join("\n");
                panic!("the agent ended with {status} before it said `{text}`:\n{lines}");
            }
            None
        });
    }

    /// Lines on standard output so far.
    pub(crate) fn output(&self) -> Vec<String> {
        self.stdout.lock().unwrap().clone()
    }

    /// Lines on standard output since the last time.
    pub(crate) fn take_output(&self) -> Vec<String> {
        std::mem::take(&mut self.stdout.lock().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the agent runs");
    }

    /// SIGTERM, and the end.
    #[track_caller]
    pub(crate) fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Ended {
        let status = wait_for("the agent to end", || self.child.try_wait().unwrap());
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        Ended {
            code: status
                .code()
                .or_else(|| status.signal().map(|signal| 128 + signal)),
            stdout: std::mem::take(&mut self.stdout.lock().unwrap()),
            stderr: std::mem::take(&mut self.stderr.lock().unwrap()),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Ended already after `wait`; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(stream: impl std::io::Read + Send + 'static, lines: &Lines) -> JoinHandle<()> {
    let lines = Arc::clone(lines);
    spawn(move || {
        for line in BufReader::new(stream).lines() {
            lines.lock().unwrap().push(line.expect("the agent writes UTF-8"));
        }
    })
}
