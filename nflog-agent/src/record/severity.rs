//! How severe a record is.

/// A severity, as the OpenTelemetry log data model has them; the first of each range of four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// 1
    Trace,
    /// 5
    Debug,
    /// 9
    Info,
    /// 13
    Warn,
    /// 17
    Error,
    /// 21
    Fatal,
}

impl Severity {
    /// All of them, ascending.
    pub const ALL: [Self; 6] = [
        Self::Trace,
        Self::Debug,
        Self::Info,
        Self::Warn,
        Self::Error,
        Self::Fatal,
    ];

    /// `severity_number`.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8 * 4 + 1
    }

    /// `severity_text`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }

    /// By its name, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let fits = |severity: &Self| severity.name().eq_ignore_ascii_case(name);
        Self::ALL.into_iter().find(fits)
    }

    /// Of a packet whose rule does this with it: what is stopped deserves more attention.
    #[must_use]
    pub fn of_action(action: Option<&str>) -> Self {
        match action {
            Some("drop" | "reject" | "block") => Self::Warn,
            _ => Self::Info,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_data_model() {
        assert_eq!(Severity::ALL.map(Severity::number), [1, 5, 9, 13, 17, 21]);
        for severity in Severity::ALL {
            assert_eq!(Severity::named(&severity.name().to_lowercase()), Some(severity));
        }
        assert_eq!(Severity::named("notice"), None);
    }
}
