//! Which cgroups are meant: `--netns-of-cgroup`.
//!
//! Invariant: what a pattern means does not depend on the hierarchy (v1 or v2) that the path is from.

use std::path::Path;
use std::str::FromStr;

use glob::{MatchOptions, Pattern, PatternError};
use thiserror::Error;

/// `*` stays within one name; only `**` crosses `/`.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// A shell pattern over cgroup paths. It stands for each cgroup that it matches and everything below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupPattern(Pattern);

impl CgroupPattern {
    /// Whether `path`, as in `/proc/PID/cgroup`, or a cgroup above it matches.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        Path::new(path)
            .ancestors()
            .any(|path| self.0.matches_path_with(path, OPTIONS))
    }

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for CgroupPattern {
    type Err = CgroupPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if !text.starts_with('/') && !text.starts_with("**/") {
            return Err(CgroupPatternError::Relative);
        }
        let whole = text.trim_end_matches('/');
        Ok(Self(Pattern::new(if whole.is_empty() { "/" } else { whole })?))
    }
}

/// Why a value is not a cgroup pattern.
#[derive(Debug, Error)]
pub enum CgroupPatternError {
    /// It would match nothing: all paths begin with `/`.
    #[error(
        "cgroup paths begin with /: give the path as in /proc/PID/cgroup, for example /kubepods*, or **/NAME for any depth"
    )]
    Relative,
    /// Not a pattern.
    #[error("{0}; it may have *, ?, [...] and, as a whole name, **")]
    Pattern(#[from] PatternError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, covered: &[&str], others: &[&str]) {
        let pattern: CgroupPattern = pattern.parse().unwrap();
        for path in covered {
            assert!(pattern.covers(path), "{} covers {path}", pattern.as_str());
        }
        for path in others {
            assert!(
                !pattern.covers(path),
                "{} does not cover {path}",
                pattern.as_str()
            );
        }
    }

    #[test]
    fn a_path_covers_itself_and_what_is_below() {
        let others = ["/", "/kubepods", "/kubepods.slices", "/x/kubepods.slice"];
        for pattern in ["/kubepods.slice", "/kubepods.slice/"] {
            check(
                pattern,
                &["/kubepods.slice", "/kubepods.slice/pod1/container"],
                &others,
            );
        }
    }

    #[test]
    fn a_star_is_one_name_and_two_are_any_depth() {
        check(
            "/kubepods*/**",
            &["/kubepods/burstable/pod1/c", "/kubepods.slice/x"],
            &["/system.slice/kubepods/x"],
        );
        check(
            "/system.slice/docker-*.scope",
            &[
                "/system.slice/docker-1.scope",
                "/system.slice/docker-1.scope/child",
            ],
            &[
                "/system.slice",
                "/system.slice/ssh.service",
                "/system.slice/a/docker-1.scope",
            ],
        );
        check(
            "**/*pod*",
            &["/kubepods", "/../../kubepods-pod1.slice/c", "/a/b/pod7/c"],
            &["/system.slice/ssh.service"],
        );
    }

    #[test]
    fn the_root_covers_all() {
        check("/", &["/", "/a", "/a/b"], &[]);
    }

    #[test]
    fn what_can_match_nothing_is_refused_with_the_remedy() {
        for (text, word) in [("kubepods", "/kubepods*"), ("/a/[", "[...]"), ("/a/x**", "**")] {
            let error = text.parse::<CgroupPattern>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
