//! When a process was created, by the calendar.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// The time of day of a moment given in ns since boot, as RFC 3339 in UTC to the millisecond.
///
/// By the clock as it stands now: a clock that was set right after the moment does not make it wrong.
pub(super) fn created(start_boottime: u64) -> String {
    let now = clock_gettime(ClockId::Boottime);
    let since_boot = Duration::try_from(now).unwrap_or_default();
    let age = since_boot.saturating_sub(Duration::from_nanos(start_boottime));
    let time = SystemTime::now()
        .checked_sub(age)
        .unwrap_or(SystemTime::UNIX_EPOCH);
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_moment_is_now() {
        let now = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap();
        let text = created(u64::try_from(now.as_nanos()).unwrap());
        let time = humantime::parse_rfc3339(&text).unwrap();
        let apart = match SystemTime::now().duration_since(time) {
            Ok(apart) => apart,
            Err(error) => error.duration(),
        };
        assert!(apart < Duration::from_secs(3600), "{text}");
    }
}
