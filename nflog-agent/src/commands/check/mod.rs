//! `check`: every prerequisite of `run` with the same configuration, a line and a remedy each; or what a running agent can still do.
//!
//! What `run` would do is done, not guessed, where that leaves no trace: the probes are loaded, the groups bound, an empty request is
//! sent to the collector.

mod clock;
mod collector;
mod finding;
mod group;
mod kernel;
mod log_rules;
mod pods;
mod privileges;
mod rules;
mod running;
mod spool;
mod surroundings;

use std::ffi::OsString;
use std::io::{Write as _, stdout};

use clap::error::ErrorKind;

use self::finding::{Cause, Finding, exit_code};
use super::CommandError;
use crate::agent::{Output, nflog_config};
use crate::cli::{AttributionArg, CheckArgs, ReportArg, usage_parts};
use crate::nflog::Netns;
use crate::settings::{self, Asked, Settings, SettingsError};

/// What there is to check.
struct Subject {
    settings: Settings,
    output: Output,
    /// Without a group in the configuration, what is about groups is left out.
    groups: Vec<u16>,
}

impl Subject {
    /// Of what the probes need: as bad as the configuration makes it.
    fn for_probes(&self, finding: Finding) -> Finding {
        if self.settings.args.attribution == AttributionArg::Probes {
            finding
        } else {
            finding.soften()
        }
    }
}

/// Checks, and prints the report. Returns the exit code.
pub(super) fn report(args: &CheckArgs) -> Result<u8, CommandError> {
    let mut report = Report {
        format: args.output,
        findings: Vec::new(),
    };
    if let Some(pid) = args.running {
        report.add(running::check(pid, namespaces(args)))?;
    } else {
        check(args, &mut report)?;
    }
    report.end()
}

fn check(args: &CheckArgs, report: &mut Report) -> Result<(), CommandError> {
    let subject = match configuration(args) {
        Ok((subject, finding)) => {
            report.add([finding])?;
            subject
        }
        Err(findings) => return report.add(findings),
    };
    report.add(environment())?;
    report.add(kernel::check(&subject))?;
    report.add(privileges::check(&subject))?;
    report.add(surroundings::check())?;
    report.add(group::check(&subject))?;
    report.add(rules::check(&subject))?;
    report.add(collector::check(&subject))?;
    report.add(spool::check(&subject))?;
    report.add(pods::check(&subject))?;
    report.add([clock::check()])
}

/// The settings of `run`, checked as far as that goes without looking at anything else.
fn configuration(args: &CheckArgs) -> Result<(Subject, Finding), Vec<Finding>> {
    let wrong = |error: &dyn std::fmt::Display| vec![Finding::error("configuration", Cause::Usage, error)];
    let (settings, complete) = match read(args) {
        Ok(read) => read,
        Err(SettingsError::File(errors)) => {
            return Err(errors.0.iter().flat_map(|error| wrong(error)).collect());
        }
        Err(SettingsError::Arguments(error)) => return Err(wrong(&usage_parts(&error))),
    };
    let output = Output::choose(&settings.args.output, |name| settings.variable(name));
    let output = output.map_err(|error| wrong(&error))?;
    if let Err(error) = nflog_config(&settings.args, Netns::Current, false) {
        return Err(wrong(&error));
    }
    let finding = if complete {
        let groups: Vec<_> = settings.args.groups.iter().map(u16::to_string).collect();
        let found = format!("group {}; {}", groups.join(", "), output.describe());
        Finding::ok("configuration", found)
    } else {
        let remedy = "name one with --group, or a file with --config";
        Finding::warning(
            "configuration",
            "no group is named: what is about groups is not checked",
            remedy,
        )
    };
    let groups = if complete {
        settings.args.groups.clone()
    } else {
        Vec::new()
    };
    let subject = Subject {
        settings,
        output,
        groups,
    };
    Ok((subject, finding))
}

/// Variables that mean nothing.
fn environment() -> Vec<Finding> {
    let unknown = settings::unknown_variables().into_iter();
    unknown
        .map(|variable| Finding::error("environment", Cause::Usage, &variable).soften())
        .collect()
}

/// The settings that `run` would have, and whether they name a group.
fn read(args: &CheckArgs) -> Result<(Settings, bool), SettingsError> {
    let mut line: Vec<OsString> = vec!["nflog-agent".into(), "run".into()];
    let mut flag = |name: &str, value: OsString| line.extend([name.into(), value]);
    if let Some(file) = &args.file {
        flag("--config", file.into());
    }
    for group in &args.groups {
        flag("--group", group.into());
    }
    for netns in &args.netns {
        flag("--netns", netns.into());
    }
    line.extend(args.run.iter().cloned());
    match run_settings(&line) {
        Err(SettingsError::Arguments(error)) if lacks_group(&error) => {
            line.extend(["--group".into(), "0".into()]);
            Ok((run_settings(&line)?, false))
        }
        other => Ok((other?, true)),
    }
}

fn run_settings(line: &[OsString]) -> Result<Settings, SettingsError> {
    match settings::read(line.iter().cloned())? {
        Asked::Run(settings) => Ok(*settings),
        Asked::Replay(_) | Asked::Top(..) | Asked::Tool(_) => {
            Err(clap::Error::new(ErrorKind::InvalidSubcommand).into())
        }
    }
}

fn lacks_group(error: &clap::Error) -> bool {
    error.kind() == ErrorKind::MissingRequiredArgument && error.to_string().contains("--group")
}

/// Whether the configuration has the agent enter namespaces later; `None` without a configuration.
fn namespaces(args: &CheckArgs) -> Option<bool> {
    let (settings, complete) = read(args).ok()?;
    let later = !settings.args.netns.is_empty() || !settings.args.netns_of_cgroup.is_empty();
    complete.then_some(later)
}

/// Lines as they come, JSON at the end.
struct Report {
    format: ReportArg,
    findings: Vec<Finding>,
}

impl Report {
    fn add(&mut self, findings: impl IntoIterator<Item = Finding>) -> Result<(), CommandError> {
        for finding in findings {
            if self.format == ReportArg::Text {
                writeln!(stdout(), "{finding}")?;
            }
            self.findings.push(finding);
        }
        Ok(())
    }

    fn end(self) -> Result<u8, CommandError> {
        if self.format == ReportArg::Json {
            let text = serde_json::to_string_pretty(&self.findings).map_err(std::io::Error::from)?;
            writeln!(stdout(), "{text}")?;
        }
        Ok(exit_code(&self.findings))
    }
}
