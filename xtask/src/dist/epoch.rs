//! The one time that packages have.

use std::env;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::paths;
use crate::process::output;

/// Seconds since 1970.
#[derive(Clone, Debug)]
pub(super) struct Epoch(u64);

impl Epoch {
    /// `SOURCE_DATE_EPOCH`, or when the last commit was made.
    pub(super) fn of_sources() -> Result<Self> {
        let text = match env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => text,
            Err(_) => {
                output(
                    Command::new("git")
                        .current_dir(paths::root())
                        .args(["log", "-1", "--format=%ct"]),
                )
                .context("set SOURCE_DATE_EPOCH where there is no git")?
            }
        };
        let seconds = text.trim().parse();
        seconds
            .map(Self)
            .with_context(|| format!("SOURCE_DATE_EPOCH is not a number of seconds: {text}"))
    }

    /// A command that keeps to it.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("SOURCE_DATE_EPOCH", self.0.to_string())
            .env("TZ", "UTC");
        command
    }

    /// As ISO 8601 has it.
    pub(super) fn iso(&self) -> Result<String> {
        let text = output(Command::new("date").args(["--utc", "--date", &self.at(), "+%Y-%m-%dT%H:%M:%SZ"]))?;
        Ok(text.trim().to_owned())
    }

    /// As GNU programs read it.
    pub(super) fn at(&self) -> String {
        format!("@{}", self.0)
    }
}
