//! What to do after a failed request. Pure: no clock, no I/O, randomness from a seed.
//!
//! The retryable codes are those of the OTLP specification and no others: a server that says anything else would say it
//! again.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use thiserror::Error;
use tonic::Code;

use crate::named::named;

named! {
    /// How a request failed, for metrics.
    pub enum FailureKind {
        /// The server answered with a status that is not success.
        Status = "status",
        /// There is no connection, or it broke.
        Connection = "connection",
        /// No answer in time.
        Timeout = "timeout",
        /// The answer is not OTLP.
        Answer = "answer",
        /// The output cannot be written to.
        Output = "output",
    }
}

/// How a request failed.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The server answered with a gRPC status.
    #[error("gRPC status {code:?}: {message}")]
    Grpc {
        /// Its code.
        code: Code,
        /// Its message.
        message: String,
        /// `RetryInfo`, if the server sent one.
        retry_after: Option<Duration>,
    },
    /// The server answered with an HTTP status.
    #[error("HTTP status {status}{message}")]
    Http {
        /// Its status.
        status: StatusCode,
        /// Its message after `: `, or nothing.
        message: String,
        /// `Retry-After`, if the server sent one.
        retry_after: Option<Duration>,
    },
    /// There is no connection, or it broke.
    #[error("no connection: {reason}")]
    Connection {
        /// The whole chain of causes.
        reason: String,
    },
    /// No answer in time.
    #[error("no answer within {} ms", .after.as_millis())]
    Timeout {
        /// The time that was allowed.
        after: Duration,
    },
    /// The server took the request, but what it answered is not OTLP.
    #[error("the answer is a {content_type} document, not OTLP")]
    NotOtlp {
        /// Its content type.
        content_type: String,
    },
    /// The reader of the output went away, or the output cannot be written to.
    #[error("cannot write the output: {0}")]
    Output(std::io::ErrorKind),
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send it again.
    Retry {
        /// Not before this time has passed, says the server.
        after: Option<Duration>,
    },
    /// Sending it again would not help.
    GiveUp,
}

impl Failure {
    /// Which kind of failure it is.
    pub(super) const fn kind(&self) -> FailureKind {
        match self {
            Self::Grpc { .. } | Self::Http { .. } => FailureKind::Status,
            Self::Connection { .. } => FailureKind::Connection,
            Self::Timeout { .. } => FailureKind::Timeout,
            Self::NotOtlp { .. } => FailureKind::Answer,
            Self::Output(_) => FailureKind::Output,
        }
    }

    /// What the OTLP specification says about it.
    #[must_use]
    pub(super) const fn verdict(&self) -> Verdict {
        match self {
            Self::Grpc {
                code, retry_after, ..
            } => match code {
                Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::OutOfRange
                | Code::Unavailable
                | Code::DataLoss => Verdict::Retry { after: *retry_after },
                // Only the server knows whether it will recover, and only RetryInfo says that it will.
                Code::ResourceExhausted if retry_after.is_some() => Verdict::Retry { after: *retry_after },
                _ => Verdict::GiveUp,
            },
            Self::Http {
                status, retry_after, ..
            } => match status.as_u16() {
                429 | 502..=504 => Verdict::Retry { after: *retry_after },
                _ => Verdict::GiveUp,
            },
            Self::Connection { .. } | Self::Timeout { .. } => Verdict::Retry { after: None },
            Self::NotOtlp { .. } | Self::Output(_) => Verdict::GiveUp,
        }
    }
}

/// How long and how often to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Wait before the first retry; doubles with each.
    pub initial: Duration,
    /// Longest wait, unless the server asks for a longer one.
    pub max: Duration,
    /// A batch is lost when this time has passed since its first failure.
    pub give_up: Duration,
}

impl Default for RetryPolicy {
    /// As the OpenTelemetry collector's exporters: 30 s at most between attempts, 5 minutes in all; but a first retry
    /// after 1 s instead of 5.
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(30),
            give_up: Duration::from_secs(300),
        }
    }
}

/// The waits of one batch.
#[derive(Debug)]
pub(super) struct Backoff {
    policy: RetryPolicy,
    next: Duration,
    random: u64,
}

impl Backoff {
    pub(super) const fn new(policy: RetryPolicy, seed: u64) -> Self {
        Self {
            policy,
            next: policy.initial,
            random: seed,
        }
    }

    /// How long to wait now; `None`: give up. `failing_for`: since the batch's first failure.
    pub(super) fn wait(&mut self, after: Option<Duration>, failing_for: Duration) -> Option<Duration> {
        let base = self.next.min(self.policy.max);
        self.next = base.saturating_mul(2);
        // Half to all of the wait, at random, so that the agents of a cluster do not return together.
        let jittered = base / 2 + (base / 2).mul_f64(self.fraction());
        let wait = after.map_or(jittered, |after| after.saturating_add(jittered / 4).max(jittered));
        (failing_for.saturating_add(wait) <= self.policy.give_up).then_some(wait)
    }

    /// In `0.0..1.0`; SplitMix64.
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let bits = u32::try_from(z >> 32).unwrap_or(u32::MAX);
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }
}

/// Value of `Retry-After`: seconds or an HTTP date.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grpc(code: Code, retry_after: Option<Duration>) -> Verdict {
        Failure::Grpc {
            code,
            message: String::new(),
            retry_after,
        }
        .verdict()
    }

    fn http(status: u16, retry_after: Option<Duration>) -> Verdict {
        let status = StatusCode::from_u16(status).unwrap();
        Failure::Http {
            status,
            message: String::new(),
            retry_after,
        }
        .verdict()
    }

    #[test]
    fn grpc_codes_are_classified_as_the_specification_says() {
        let retryable = [
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Aborted,
            Code::OutOfRange,
            Code::Unavailable,
            Code::DataLoss,
        ];
        for number in 0..=16 {
            let code = Code::from_i32(number);
            let expected = if retryable.contains(&code) {
                Verdict::Retry { after: None }
            } else {
                Verdict::GiveUp
            };
            assert_eq!(grpc(code, None), expected, "{code:?}");
        }
        let delay = Some(Duration::from_millis(300));
        assert_eq!(
            grpc(Code::ResourceExhausted, delay),
            Verdict::Retry { after: delay }
        );
        assert_eq!(grpc(Code::Unavailable, delay), Verdict::Retry { after: delay });
        assert_eq!(grpc(Code::InvalidArgument, delay), Verdict::GiveUp);
    }

    #[test]
    fn http_statuses_are_classified_as_the_specification_says() {
        for status in 300..=599 {
            let expected = match status {
                429 | 502 | 503 | 504 => Verdict::Retry { after: None },
                _ => Verdict::GiveUp,
            };
            assert_eq!(http(status, None), expected, "{status}");
        }
        let delay = Some(Duration::from_secs(3));
        assert_eq!(http(429, delay), Verdict::Retry { after: delay });
        assert_eq!(http(400, delay), Verdict::GiveUp);
    }

    #[test]
    fn waits_double_within_their_bounds_and_end() {
        let policy = RetryPolicy {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(8),
            give_up: Duration::from_secs(60),
        };
        for seed in 0..200 {
            let mut backoff = Backoff::new(policy, seed);
            let mut failing_for = Duration::ZERO;
            for base in [1, 2, 4, 8, 8, 8] {
                let wait = backoff.wait(None, failing_for).unwrap();
                let base = Duration::from_secs(base);
                assert!(base / 2 <= wait && wait <= base, "{wait:?} of {base:?}");
                failing_for += wait;
            }
            assert_eq!(backoff.wait(None, Duration::from_secs(57)), None);
        }
    }

    #[test]
    fn different_seeds_wait_differently() {
        let waits: std::collections::HashSet<_> = (0..100)
            .map(|seed| Backoff::new(RetryPolicy::default(), seed).wait(None, Duration::ZERO))
            .collect();
        assert!(waits.len() > 90, "{} different waits", waits.len());
    }

    #[test]
    fn the_servers_delay_is_a_lower_bound() {
        let mut backoff = Backoff::new(RetryPolicy::default(), 1);
        let asked = Duration::from_secs(120);
        assert!(backoff.wait(Some(asked), Duration::ZERO).unwrap() >= asked);
        assert_eq!(backoff.wait(Some(Duration::from_secs(301)), Duration::ZERO), None);
        assert_eq!(backoff.wait(Some(Duration::MAX), Duration::ZERO), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Fri, 09 Oct 2026 10:00:00 GMT").unwrap();
        assert_eq!(retry_after(" 7 ", now), Some(Duration::from_secs(7)));
        assert_eq!(
            retry_after("Fri, 09 Oct 2026 10:00:30 GMT", now),
            Some(Duration::from_secs(30))
        );
        assert_eq!(
            retry_after("Fri, 09 Oct 2026 09:00:00 GMT", now),
            Some(Duration::ZERO)
        );
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("-1", now), None);
    }
}
