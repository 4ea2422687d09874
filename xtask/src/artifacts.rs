//! The one build of the workspace that tests use: for an explicit target and statically linked, so that the very same
//! binaries run on this kernel and in guests that have no C library.
//!
//! Every cargo command of `cargo xtask test` uses this configuration: the dependencies are compiled once.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::arch::Arch;
use crate::paths;
use crate::process::{self, output, render};

/// The target of the static build. An explicit target keeps the flags away from build scripts and procedural macros,
/// which must be dynamic.
pub(crate) const TARGET: &str = Arch::X86_64.target();

/// What to select in commands that act on everything plain cargo can build.
pub(crate) const WORKSPACE: [&str; 3] = ["--workspace", "--exclude", "nflog-ebpf"];

/// `cargo <verb>` in the test configuration.
pub(crate) fn cargo(verb: &str) -> Command {
    let mut command = process::cargo();
    command
        .args([verb, "--locked", "--target", TARGET])
        .env(
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            "-C target-feature=+crt-static",
        )
        .env("NFLOG_TEST_VENV", paths::tools().join("venv"))
        .env("NFLOG_TEST_PROMETHEUS", crate::setup::prometheus::directory())
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    command
}

/// The programs and integration tests of the workspace.
#[derive(Debug, Default)]
pub(crate) struct Artifacts {
    executables: Vec<Executable>,
}

#[derive(Debug)]
struct Executable {
    name: String,
    kind: Kind,
    path: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Program,
    IntegrationTest,
}

impl Artifacts {
    /// Builds the programs, the examples and all tests.
    pub(crate) fn build() -> Result<Self> {
        // Tests are selected even where only a program is needed: with them the features of the dependencies, and so
        // the compiled dependencies, are those of `cargo test`.
        let mut command = cargo("build");
        command.args(WORKSPACE).args(["--bins", "--examples", "--tests"]);
        println!("building the programs and tests: {}", render(&command));
        Self::of(&mut command)
    }

    /// Carries out a build and takes what it made.
    pub(crate) fn of(build: &mut Command) -> Result<Self> {
        build.arg("--message-format=json-render-diagnostics");
        Self::parse(&output(build)?)
    }

    /// Names and paths of the programs, in order of their names.
    pub(crate) fn programs(&self) -> Vec<(&str, &PathBuf)> {
        let mut programs: Vec<_> = self.of_kind(Kind::Program).collect();
        programs.sort_unstable();
        programs
    }

    /// A program by name.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        let found: Vec<_> = self
            .of_kind(Kind::Program)
            .filter(|(other, _)| *other == name)
            .collect();
        ensure!(
            found.len() == 1,
            "the workspace builds {} programs called {name} instead of one",
            found.len()
        );
        Ok(found[0].1.clone())
    }

    /// Names and paths of the integration tests whose name begins with one of `prefixes`, in order of their names.
    pub(crate) fn integration_tests(&self, prefixes: &[&str]) -> Vec<(&str, &PathBuf)> {
        let selected = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let mut tests: Vec<_> = self
            .of_kind(Kind::IntegrationTest)
            .filter(|(name, _)| selected(name))
            .collect();
        tests.sort_unstable();
        tests
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&str, &PathBuf)> {
        self.executables
            .iter()
            .filter(move |executable| executable.kind == kind)
            .map(|executable| (executable.name.as_str(), &executable.path))
    }

    fn parse(messages: &str) -> Result<Self> {
        let mut artifacts = Self::default();
        for line in messages.lines() {
            let message: Message =
                serde_json::from_str(line).with_context(|| format!("unexpected message of cargo: {line}"))?;
            let Message {
                reason,
                target: Some(target),
                profile: Some(profile),
                executable: Some(path),
            } = message
            else {
                continue;
            };
            let kind = match target.kind.first().map(String::as_str) {
                Some("bin") if !profile.test => Kind::Program,
                Some("test") => Kind::IntegrationTest,
                _ => continue,
            };
            if reason == "compiler-artifact" {
                artifacts.executables.push(Executable {
                    name: target.name,
                    kind,
                    path,
                });
            }
        }
        Ok(artifacts)
    }
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: &str = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"serde"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"nflog-agent"},"profile":{"test":false},"executable":"/t/nflog-agent"}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"nflog-agent"},"profile":{"test":true},"executable":"/t/nflog_agent-1"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"nflog_socket"},"profile":{"test":true},"executable":"/t/nflog_socket-1"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"export"},"profile":{"test":true},"executable":"/t/export-1"}
{"reason":"build-finished","success":true}"#;

    #[test]
    fn programs_and_integration_tests_are_told_apart_from_unit_tests() {
        let artifacts = Artifacts::parse(MESSAGES).expect("messages of cargo");
        assert_eq!(
            artifacts.program("nflog-agent").expect("is there"),
            PathBuf::from("/t/nflog-agent")
        );
        assert_eq!(
            artifacts.integration_tests(&["nflog"]),
            [("nflog_socket", &PathBuf::from("/t/nflog_socket-1"))]
        );
        assert!(artifacts.program("absent").is_err());
    }
}
