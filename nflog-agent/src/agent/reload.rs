//! SIGHUP: reads the configuration again, and changes what can be changed while packets come in.
//!
//! - All or nothing: if anything in the file is wrong, all of that is said and everything stays as it is.
//! - A packet is decided on by the rules before or by those after, never by both: readers take over new ones between two batches. Flows
//!   of the old rules end then, and leave.
//! - What needs a restart is compared with what is in force, so that it is named each time until there was one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::serve::Main;
use crate::cli::usage_parts;
use crate::settings::{Change, Settings, SettingsError};
use crate::telemetry::metrics::{CounterFamily, Instrument};

/// What can change while the agent runs.
const LIVE: [&str; 5] = [PREFIX, RULE, ACCOUNT_INTERVAL, NETNS_INTERVAL, MAX_NETNS];
const PREFIX: &str = "prefix";
const RULE: &str = "rule";
const ACCOUNT_INTERVAL: &str = "account-interval";
const NETNS_INTERVAL: &str = "netns-interval";
const MAX_NETNS: &str = "max-netns";

/// Names of rules since the start, each of which has counts. Far more than anybody writes, and not much memory.
const MAX_RULE_NAMES: usize = 10_000;

impl Main<'_, '_> {
    /// Reads the configuration again. When it returns, the agent is as it will stay; the service manager is told.
    pub(super) fn reload(&mut self) {
        self.agent.reloads.begin();
        self.notices.reloading();
        let done = match self.agent.settings.read_again() {
            Ok(new) => self.change(&new),
            Err(SettingsError::File(errors)) => Err(errors.0.iter().map(ToString::to_string).collect()),
            Err(SettingsError::Arguments(error)) => Err(vec![usage_parts(&error)]),
        };
        self.agent.reloads.count(done.is_ok());
        for why in done.err().into_iter().flatten() {
            tracing::error!("configuration not reloaded, all stays as it is: {why}");
        }
        self.notices.ready();
    }

    fn change(&mut self, new: &Settings) -> Result<(), Vec<String>> {
        let names = self.agent.rules.names_with(&new.policy);
        if names > MAX_RULE_NAMES {
            return Err(vec![format!(
                "with it rules would have had {names} different names since the start; restart the agent"
            )]);
        }
        let changes = self.in_force.changes(&new.given);
        let (live, later): (Vec<_>, Vec<_>) = changes
            .into_iter()
            .partition(|change| LIVE.contains(&change.key.as_str()));
        self.apply(&live, new);
        for Change { key, .. } in &live {
            self.in_force.take(key, &new.given);
        }
        if live.is_empty() {
            tracing::info!("configuration read again: nothing to change at once");
        } else {
            tracing::info!("configuration reloaded: changed {}", list(&live));
        }
        if !later.is_empty() {
            tracing::warn!(
                "changed in the configuration, and not in force before a restart: {}",
                list(&later)
            );
        }
        Ok(())
    }

    fn apply(&mut self, changes: &[Change], new: &Settings) {
        let changed = |key| changes.iter().any(|change| change.key == key);
        if changed(PREFIX) || changed(RULE) {
            self.agent.policy.replace(Arc::clone(&new.policy));
            self.fleet.wake();
        }
        if changed(ACCOUNT_INTERVAL) {
            self.account_every(new.args.account_interval);
        }
        if changed(NETNS_INTERVAL) {
            self.schedule
                .set_interval(new.args.netns_interval, Instant::now());
        }
        if changed(MAX_NETNS) {
            self.fleet.allow(new.args.max_netns);
        }
    }

    fn account_every(&mut self, interval: Duration) {
        let now = Instant::now();
        match &mut self.accounts {
            Some(accounts) if !interval.is_zero() => accounts.set_interval(interval, now),
            Some(_) => {
                if let Some(accounts) = self.accounts.take() {
                    accounts.finish(now);
                }
            }
            None => match self.agent.accounts(interval) {
                Ok(accounts) => self.accounts = accounts,
                Err(error) => tracing::error!("the account does not go out as a record: {error}"),
            },
        }
    }
}

/// Who asks for the configuration to be read again, and how often it was.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    asked: AtomicBool,
    done: AtomicU64,
    refused: AtomicU64,
}

impl Reloads {
    /// Whether nobody else has asked since the last time began: one reading serves all, and a stop does not queue behind many.
    pub(super) fn ask(&self) -> bool {
        !self.asked.swap(true, Ordering::AcqRel)
    }

    fn begin(&self) {
        self.asked.store(false, Ordering::Release);
    }

    fn count(&self, done: bool) {
        let counter = if done { &self.done } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// As a metric.
    pub(super) fn metric(self: &Arc<Self>) -> CounterFamily {
        let reloads = Arc::clone(self);
        CounterFamily {
            name: "nflog_agent.configuration.reloads",
            instrument: Instrument::Counter,
            unit: "{reload}",
            description: "Times that the configuration was read again; refused: because something in it was wrong.",
            label: Some("outcome"),
            read: Box::new(move |observe| {
                observe("done", reloads.done.load(Ordering::Relaxed));
                observe("refused", reloads.refused.load(Ordering::Relaxed));
            }),
        }
    }
}

fn list(changes: &[Change]) -> String {
    let all: Vec<_> = changes.iter().map(ToString::to_string).collect();
    all.join(", ")
}
