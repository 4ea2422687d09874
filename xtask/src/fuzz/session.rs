//! One run of one fuzz program.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::log::{self, Coverage};
use crate::process::render;

/// A program and its directories.
#[derive(Debug)]
pub(super) struct Session {
    /// The target's name.
    pub(super) name: String,
    /// The program.
    pub(super) program: PathBuf,
    /// How long it runs unless it finds something.
    pub(super) seconds: u32,
    /// Inputs that reached something new; read and written.
    pub(super) corpus: PathBuf,
    /// Directories of committed inputs; read.
    pub(super) inputs: Vec<PathBuf>,
    /// Where an input that fails is written.
    pub(super) crashes: PathBuf,
    /// More options for libFuzzer.
    pub(super) options: Vec<&'static str>,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Ran to its end.
    Clean(Coverage),
    /// An input fails: a panic, no end, or too much memory.
    Found {
        /// The file that libFuzzer wrote.
        input: PathBuf,
        /// What the target said.
        message: String,
    },
    /// It did not fuzz.
    Broken(String),
}

impl Session {
    /// Runs it to its end.
    pub(super) fn run(&self) -> Result<Outcome> {
        let mut command = Command::new(&self.program);
        command
            .arg(format!("-max_total_time={}", self.seconds))
            .arg(format!("-artifact_prefix={}/", self.crashes.display()))
            .args(&self.options)
            .arg(&self.corpus)
            .args(&self.inputs)
            // The replay has a readable one.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let output = command
            .output()
            .with_context(|| format!("cannot start `{}`", render(&command)))?;
        let text = String::from_utf8_lossy(&output.stderr);
        Ok(self.outcome(&text, output.status.success()))
    }

    fn outcome(&self, text: &str, success: bool) -> Outcome {
        if let Some(input) = log::written(text) {
            return Outcome::Found {
                input: input.into(),
                message: log::message(text),
            };
        }
        match Coverage::parse(text) {
            Some(coverage) if success && coverage.is_real() => Outcome::Clean(coverage),
            Some(coverage) => Outcome::Broken(format!(
                "{} is not instrumented, or ended early: {coverage}\n{}",
                self.program.display(),
                log::message(text)
            )),
            None => Outcome::Broken(format!(
                "{} reports no coverage\n{}",
                self.program.display(),
                log::message(text)
            )),
        }
    }
}
