//! The agent's own messages, limited: whatever happens to each packet or with each attempt does not fill the disk.
//!
//! - Each place in the program that speaks has a bucket of [`BURST`] messages, and gets one more every [`REFILL`]. What is held back is
//!   counted, and said by the same level a minute later or at the end: `… and 120 more like this in 60 s: …`.
//! - DEBUG and TRACE are not limited: they are shown only to who asks for them.
//! - The lock is held for memory operations only; nothing is written under it.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::metrics::{CounterFamily, Instrument};
use super::standard_error;

/// Messages of one place that are shown without a pause.
pub const BURST: u32 = 50;
/// And then one in this time.
pub const REFILL: Duration = Duration::from_secs(10);
/// How often what was held back is summed up.
const SUM_UP: Duration = Duration::from_secs(60);
/// Places that are told apart; the others share a bucket. The program has about a hundred.
const PLACES: usize = 1024;
/// Bytes of a message that are kept as an example.
const EXAMPLE: usize = 200;
/// Target of records of the `log` crate, which all have the same few places as far as tracing knows.
const LOG: &str = "log";

/// The levels that are limited.
const LEVELS: [(Level, &str); 3] = [
    (Level::ERROR, "error"),
    (Level::WARN, "warn"),
    (Level::INFO, "info"),
];

/// The process's limits; the subscriber is the process's, too.
static LIMITS: OnceLock<Limits> = OnceLock::new();

/// The process's limits, to be put in front of what writes.
#[must_use]
pub fn limits() -> Limits {
    LIMITS.get_or_init(Limits::default).clone()
}

/// Says what was held back, if it is time.
pub fn tick(now: Instant) {
    if let Some(limits) = LIMITS.get() {
        limits.sum_up(now, false);
    }
}

/// Says what was held back.
pub fn finish() {
    if let Some(limits) = LIMITS.get() {
        limits.sum_up(Instant::now(), true);
    }
}

/// Messages as metrics: all, those held back, and those that got nowhere.
#[must_use]
pub fn metrics() -> [CounterFamily; 3] {
    let (all, held) = (limits(), limits());
    let label = Some("nflog_agent.message.level");
    [
        CounterFamily {
            name: "nflog_agent.messages",
            instrument: Instrument::Counter,
            unit: "{message}",
            description: "The agent's own messages, those that were held back included.",
            label,
            read: Box::new(move |observe| all.count(observe, |counts| &counts.all)),
        },
        CounterFamily {
            name: "nflog_agent.messages.suppressed",
            instrument: Instrument::Counter,
            unit: "{message}",
            description: "The agent's own messages that were held back because their place said too many.",
            label,
            read: Box::new(move |observe| held.count(observe, |counts| &counts.suppressed)),
        },
        CounterFamily {
            name: "nflog_agent.messages.unwritten",
            instrument: Instrument::Counter,
            unit: "{message}",
            description: "The agent's own messages that are missing because standard error took no more.",
            label: None,
            read: Box::new(|observe| observe("", standard_error::unwritten())),
        },
    ]
}

/// Holds messages back. Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Limits(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    places: Mutex<HashMap<u64, Place>>,
    /// Messages that were held back and not summed up.
    unsaid: AtomicU64,
    counts: [Counts; LEVELS.len()],
}

#[derive(Debug, Default)]
struct Counts {
    all: AtomicU64,
    suppressed: AtomicU64,
}

/// A place in the program.
#[derive(Debug)]
struct Place {
    level: Level,
    /// Full at this time; every message takes [`REFILL`] from it.
    full_at: Instant,
    held: Option<Held>,
}

/// What was held back and not summed up.
#[derive(Debug)]
struct Held {
    since: Instant,
    messages: u64,
    example: String,
}

impl Limits {
    /// Whether a message is shown. If not it is counted.
    fn admit(&self, place: u64, level: Level, now: Instant, text: impl FnOnce() -> String) -> bool {
        let at = LEVELS.iter().position(|(known, _)| *known == level);
        let counts = at.map(|at| &self.0.counts[at]);
        if let Some(counts) = counts {
            counts.all.fetch_add(1, Ordering::Relaxed);
        }
        let mut places = self.places();
        let place = if places.len() < PLACES || places.contains_key(&place) {
            place
        } else {
            0
        };
        let place = places.entry(place).or_insert_with(|| Place {
            level,
            full_at: now,
            held: None,
        });
        if place.take(now) {
            return true;
        }
        place.hold(now, text);
        if let Some(counts) = counts {
            counts.suppressed.fetch_add(1, Ordering::Relaxed);
        }
        self.0.unsaid.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Says what has been held back for a minute, or all of it.
    fn sum_up(&self, now: Instant, all: bool) {
        if self.0.unsaid.load(Ordering::Relaxed) == 0 {
            return;
        }
        for (level, held) in self.due(now, all) {
            held.say(level, now);
        }
    }

    fn due(&self, now: Instant, all: bool) -> Vec<(Level, Held)> {
        let mut due = Vec::new();
        for place in self.places().values_mut() {
            let ripe = |held: &mut Held| all || now.saturating_duration_since(held.since) >= SUM_UP;
            if let Some(held) = place.held.take_if(ripe) {
                self.0.unsaid.fetch_sub(held.messages, Ordering::Relaxed);
                due.push((place.level, held));
            }
        }
        due
    }

    fn count(&self, observe: &mut dyn FnMut(&str, u64), which: fn(&Counts) -> &AtomicU64) {
        for ((_, name), counts) in LEVELS.iter().zip(&self.0.counts) {
            observe(name, which(counts).load(Ordering::Relaxed));
        }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<u64, Place>> {
        self.0.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Takes a message from the bucket, if there is one.
    fn take(&mut self, now: Instant) -> bool {
        let next = self.full_at.max(now) + REFILL;
        let has = next <= now + REFILL * BURST;
        if has {
            self.full_at = next;
        }
        has
    }

    fn hold(&mut self, now: Instant, text: impl FnOnce() -> String) {
        let held = self.held.get_or_insert_with(|| Held {
            since: now,
            messages: 0,
            example: text(),
        });
        held.messages += 1;
    }
}

impl Held {
    fn say(&self, level: Level, now: Instant) {
        let (messages, example) = (self.messages, &self.example);
        let seconds = now.saturating_duration_since(self.since).as_secs().max(1);
        match level {
            Level::ERROR => tracing::error!("… and {messages} more like this in {seconds} s: {example}"),
            Level::WARN => tracing::warn!("… and {messages} more like this in {seconds} s: {example}"),
            _ => tracing::info!("… and {messages} more like this in {seconds} s: {example}"),
        }
    }
}

impl<S: Subscriber> Layer<S> for Limits {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let level = *metadata.level();
        // One summary a minute for each place is little enough.
        if level > Level::INFO || metadata.target() == module_path!() {
            return true;
        }
        self.admit(place(event), level, Instant::now(), || example(event))
    }
}

/// Which place in the program an event comes from.
fn place(event: &Event<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    event.metadata().callsite().hash(&mut hasher);
    if event.metadata().target() == LOG {
        event.record(&mut Origin(&mut hasher));
    }
    hasher.finish()
}

/// Where a record of the `log` crate comes from.
struct Origin<'a>(&'a mut DefaultHasher);

impl Visit for Origin<'_> {
    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}

    fn record_str(&mut self, field: &Field, value: &str) {
        if matches!(field.name(), "log.target" | "log.file") {
            value.hash(self.0);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "log.line" {
            value.hash(self.0);
        }
    }
}

/// What an event says.
fn example(event: &Event<'_>) -> String {
    let mut text = Message(String::new());
    event.record(&mut text);
    text.0
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
            if self.0.len() > EXAMPLE {
                self.0.truncate(self.0.floor_char_boundary(EXAMPLE));
                self.0.push('…');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing::subscriber::with_default;
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::{EnvFilter, fmt as subscriber, registry};

    use super::*;

    /// Lines that were written.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Written {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    impl Written {
        fn lines(&self, with: &str) -> Vec<String> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            let lines = text.lines().filter(|line| line.contains(with));
            lines.map(str::to_owned).collect()
        }
    }

    /// Runs with a subscriber of its own, as the program has it; the real clock, in which nothing is refilled meanwhile.
    fn with_limits(body: impl FnOnce(&Limits)) -> Written {
        let (limits, written) = (Limits::default(), Written::default());
        let subscriber = registry()
            .with(EnvFilter::new("debug"))
            .with(limits.clone())
            .with(subscriber::layer().with_writer(written.clone()).with_ansi(false));
        with_default(subscriber, || body(&limits));
        written
    }

    #[test]
    fn a_place_that_says_too_much_is_cut_and_what_it_said_is_counted() {
        let written = with_limits(|limits| {
            for packet in 0..BURST + 120 {
                tracing::warn!("packet {packet} is odd");
            }
            tracing::warn!("another place");
            limits.sum_up(Instant::now(), false);
            limits.sum_up(Instant::now(), true);
            limits.sum_up(Instant::now(), true);
        });
        let shown = written.lines("is odd");
        assert_eq!(shown.len(), BURST as usize + 1, "{shown:?}");
        let last = &shown[BURST as usize];
        assert!(
            last.contains("WARN") && last.ends_with("… and 120 more like this in 1 s: packet 50 is odd"),
            "{last}"
        );
        assert_eq!(written.lines("another place").len(), 1);
    }

    #[test]
    fn places_behind_the_log_crate_are_told_apart() {
        let written = with_limits(|_| {
            for at in 0..BURST * 4 {
                // As tracing-log passes records on: one place for all of them.
                tracing::warn!(target: "log", { log.file = "a.rs", log.line = u64::from(at % 4) }, "from afar");
            }
        });
        assert_eq!(written.lines("from afar").len(), BURST as usize * 4);
    }

    #[test]
    fn each_place_has_its_own_bucket() {
        let limits = Limits::default();
        let now = Instant::now();
        let texts = ["one", "two"];
        for _ in 0..BURST {
            for place in [1, 2] {
                assert!(limits.admit(place, Level::INFO, now, || unreachable!("it is shown")));
            }
        }
        for (place, text) in (1..).zip(texts) {
            assert!(!limits.admit(place, Level::INFO, now, || text.to_owned()));
        }
        let mut due: Vec<_> = limits
            .due(now, true)
            .into_iter()
            .map(|(_, held)| held.example)
            .collect();
        due.sort_unstable();
        assert_eq!(due, texts);
    }

    #[test]
    fn a_place_gets_one_message_more_in_each_pause_and_never_more_than_the_burst() {
        let limits = Limits::default();
        let start = Instant::now();
        let shown = |at: Instant, tries: u32| {
            (0..tries)
                .filter(|_| limits.admit(1, Level::WARN, at, String::new))
                .count()
        };
        assert_eq!(shown(start, BURST * 2), BURST as usize);
        assert_eq!(shown(start + REFILL - Duration::from_millis(1), 9), 0);
        assert_eq!(shown(start + REFILL, 9), 1);
        assert_eq!(shown(start + REFILL * 4, 9), 3);
        assert_eq!(shown(start + REFILL * 1000, BURST * 2), BURST as usize);
    }

    #[test]
    fn what_is_held_back_is_summed_up_after_a_minute_and_counted_by_level() {
        let limits = Limits::default();
        let start = Instant::now();
        for _ in 0..BURST + 7 {
            limits.admit(1, Level::ERROR, start, || "bad".to_owned());
        }
        assert!(
            limits
                .due(start + SUM_UP - Duration::from_millis(1), false)
                .is_empty()
        );
        let due = limits.due(start + SUM_UP, false);
        assert_eq!((due.len(), due[0].0, due[0].1.messages), (1, Level::ERROR, 7));
        assert!(limits.due(start + SUM_UP * 2, true).is_empty());
        let mut counts = Vec::new();
        limits.count(
            &mut |name, count| counts.push((name.to_owned(), count)),
            |counts| &counts.all,
        );
        limits.count(
            &mut |name, count| counts.push((name.to_owned(), count)),
            |counts| &counts.suppressed,
        );
        let expected = [
            ("error", 57),
            ("warn", 0),
            ("info", 0),
            ("error", 7),
            ("warn", 0),
            ("info", 0),
        ];
        assert_eq!(counts, expected.map(|(name, count)| (name.to_owned(), count)));
    }

    #[test]
    fn debug_messages_are_for_who_asks_for_them_and_are_not_cut() {
        let written = with_limits(|_| (0..BURST * 3).for_each(|at| tracing::debug!("step {at}")));
        assert_eq!(written.lines("step").len(), BURST as usize * 3);
    }

    #[test]
    fn more_places_than_there_may_be_share_a_bucket() {
        let limits = Limits::default();
        let now = Instant::now();
        let shown = (1..=PLACES as u64 + 1000)
            .filter(|place| limits.admit(*place, Level::WARN, now, String::new))
            .count();
        assert_eq!(shown, PLACES + BURST as usize);
    }
}
