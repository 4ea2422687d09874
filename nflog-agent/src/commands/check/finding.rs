//! One line of the report.

use crate::exit_codes;
use std::fmt;

use serde::Serialize;

/// How a prerequisite is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Status {
    Ok,
    /// The agent runs, with less.
    Warning,
    /// The agent does not run, or not as it was asked to.
    Failed,
}

/// Why something failed: the exit code of the agent for it, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// Wrong configuration (`EX_USAGE`).
    Usage,
    /// Missing privileges (`EX_NOPERM`).
    Permission,
    /// The kernel, or what the agent talks to, lacks something (`EX_UNAVAILABLE`).
    Unavailable,
    /// Something else holds what is needed (`EX_TEMPFAIL`).
    Busy,
    /// Files cannot be written (`EX_IOERR`).
    Io,
}

impl Cause {
    pub(super) const fn exit_code(self) -> u8 {
        match self {
            Self::Usage => exit_codes::USAGE,
            Self::Permission => exit_codes::PERMISSION,
            Self::Unavailable => exit_codes::UNAVAILABLE,
            Self::Busy => exit_codes::BUSY,
            Self::Io => exit_codes::IO,
        }
    }

    /// That of an exit code of `run`.
    pub(super) const fn of_exit_code(code: u8) -> Self {
        match code {
            64 => Self::Usage,
            77 => Self::Permission,
            75 => Self::Busy,
            74 => Self::Io,
            _ => Self::Unavailable,
        }
    }
}

/// What was found about one prerequisite.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    /// Which one; stays the same between versions.
    pub(super) check: String,
    pub(super) status: Status,
    pub(super) found: String,
    /// What to do; none where nothing needs to be done.
    pub(super) remedy: Option<String>,
    #[serde(skip)]
    pub(super) cause: Option<Cause>,
}

impl Finding {
    pub(super) fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            status: Status::Ok,
            found: found.into(),
            remedy: None,
            cause: None,
        }
    }

    pub(super) fn warning(
        check: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            status: Status::Warning,
            remedy: Some(remedy.into()),
            ..Self::ok(check, found)
        }
    }

    pub(super) fn failed(
        check: impl Into<String>,
        cause: Cause,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            status: Status::Failed,
            cause: Some(cause),
            ..Self::warning(check, found, remedy)
        }
    }

    /// Of an error whose text has the remedy after its last semicolon, or colon.
    pub(super) fn error(check: impl Into<String>, cause: Cause, error: &dyn fmt::Display) -> Self {
        let text = error.to_string();
        // What the system says of a cause is no remedy.
        let behind_colon = || {
            text.rsplit_once(": ")
                .filter(|(_, end)| !end.contains("(os error"))
        };
        match text.rsplit_once("; ").or_else(behind_colon) {
            Some((found, remedy)) => Self::failed(check, cause, found, remedy),
            None => Self::failed(check, cause, &*text, "see the message"),
        }
    }

    /// The same, but the agent runs with less.
    pub(super) fn soften(mut self) -> Self {
        if self.status == Status::Failed {
            self.status = Status::Warning;
            self.cause = None;
        }
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Failed => "FAILED",
        };
        // One line, whatever the texts are.
        let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        write!(f, "{status:<8} {:<27} {}", self.check, line(&self.found))?;
        match &self.remedy {
            Some(remedy) => write!(f, " => {}", line(remedy)),
            None => Ok(()),
        }
    }
}

/// The exit code for all of them: that of the worst cause.
pub(super) fn exit_code(findings: &[Finding]) -> u8 {
    let worst = findings.iter().filter_map(|finding| finding.cause).min();
    worst.map_or(0, Cause::exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_cause_decides_and_warnings_do_not() {
        let failed = |cause| Finding::failed("x", cause, "f", "r");
        assert_eq!(
            exit_code(&[Finding::ok("x", "f"), Finding::warning("x", "f", "r")]),
            0
        );
        assert_eq!(exit_code(&[failed(Cause::Io), failed(Cause::Unavailable)]), 69);
        assert_eq!(exit_code(&[failed(Cause::Permission), failed(Cause::Usage)]), 64);
        assert_eq!(exit_code(&[failed(Cause::Io).soften()]), 0);
    }

    #[test]
    fn a_finding_is_one_line_with_its_remedy() {
        let finding = Finding::failed("spool", Cause::Io, "/x is\nfull", "make room");
        assert_eq!(
            finding.to_string(),
            "FAILED   spool                       /x is full => make room"
        );
    }
}
