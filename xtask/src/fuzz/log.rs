//! What libFuzzer writes on standard error.

use std::fmt;

/// How much of a program was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coverage {
    /// Counters that the compiler put into the program.
    counters: u64,
    /// Counters that were reached.
    reached: u64,
    /// Inputs tried.
    executions: u64,
}

impl Coverage {
    /// From the first line and the last; `None` if one is missing, as it is when a program has no counters.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let counters = text
            .lines()
            .find_map(|line| after(line, "inline 8-bit counters): "))?;
        let done = text.lines().rev().find(|line| line.contains("DONE"))?;
        Some(Self {
            counters,
            reached: after(done, "cov: ")?,
            executions: after(done, "#")?,
        })
    }

    /// Whether the program was instrumented and ran.
    pub(super) const fn is_real(self) -> bool {
        self.counters > 0 && self.reached > 1 && self.executions > 0
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            counters,
            reached,
            executions,
        } = self;
        write!(
            formatter,
            "{executions} inputs, cov: {reached} of {counters} counters"
        )
    }
}

/// The number that follows `word`.
fn after(line: &str, word: &str) -> Option<u64> {
    let (_, rest) = line.split_once(word)?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// Path of the input that fails.
pub(super) fn written(text: &str) -> Option<&str> {
    text.lines()
        .find_map(|line| Some(line.split_once("Test unit written to ")?.1.trim()))
}

/// What the target said: from the panic on to libFuzzer's own words, else the last lines.
pub(super) fn message(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let panic = lines.iter().position(|line| line.contains("panicked at"));
    let said = panic.map_or_else(
        || &lines[lines.len().saturating_sub(20)..],
        |start| {
            let end = lines[start..]
                .iter()
                .position(|line| line.starts_with("note: run with") || line.starts_with("=="));
            &lines[start..end.map_or(lines.len(), |end| start + end)]
        },
    );
    said.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: &str = "\
INFO: Running with entropic power schedule (0xFF, 100).
INFO: Loaded 1 modules   (246 inline 8-bit counters): 246 [0x55eb55e0fbf8, 0x55eb55e0fcee),
#67\tINITED cov: 120 ft: 708 corp: 60/5872b exec/s: 0 rss: 28Mb
#1183600\tDONE   cov: 135 ft: 1601 corp: 417/132Kb lim: 4096 exec/s: 131511 rss: 28Mb
Done 1183600 runs in 9 second(s)";

    const CRASH: &str = "\
#5\tNEW    cov: 12 ft: 1
thread '<unnamed>' (1) panicked at a.rs:5:5:
assertion failed
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
==28596== ERROR: libFuzzer: deadly signal
artifact_prefix='/t/'; Test unit written to /t/crash-1";

    #[test]
    fn coverage_is_read_from_the_first_and_the_last_line() {
        let coverage = Coverage::parse(CLEAN).expect("both lines are there");
        assert_eq!(coverage.to_string(), "1183600 inputs, cov: 135 of 246 counters");
        assert!(coverage.is_real());
        assert_eq!(written(CLEAN), None);
    }

    #[test]
    fn a_program_without_counters_has_no_coverage() {
        let without = CLEAN.replace("INFO: Loaded", "WARNING: no counters");
        let without = without.replace("inline 8-bit counters): 246", "");
        assert_eq!(Coverage::parse(&without), None);
        let idle = CLEAN.replace("DONE   cov: 135", "DONE   cov: 0");
        assert!(!Coverage::parse(&idle).expect("both lines are there").is_real());
    }

    #[test]
    fn a_failing_input_is_named_with_what_the_target_said() {
        assert_eq!(written(CRASH), Some("/t/crash-1"));
        assert_eq!(
            message(CRASH),
            "thread '<unnamed>' (1) panicked at a.rs:5:5:\nassertion failed"
        );
    }
}
