//! The account as a record, at most once per interval and only if it has changed: so the backend itself can tell whether it has
//! everything. Pure: time is an argument.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::reader::unix_nano;
use crate::export::Batcher;
use crate::record::Account;
use crate::telemetry::ledger::{Ledger, Snapshot};

/// Reports what became of all records.
pub(super) struct Accounts {
    batcher: Batcher,
    ledger: Arc<Ledger>,
    interval: Duration,
    due: Instant,
    last: Snapshot,
}

impl Accounts {
    pub(super) fn new(batcher: Batcher, ledger: &Arc<Ledger>, interval: Duration, now: Instant) -> Self {
        Self {
            batcher,
            ledger: Arc::clone(ledger),
            interval,
            due: now + interval,
            last: ledger.snapshot(),
        }
    }

    /// The next report is due so long after `now`, and so on.
    pub(super) fn set_interval(&mut self, interval: Duration, now: Instant) {
        self.interval = interval;
        self.due = now + interval;
    }

    /// Reports if it is time.
    pub(super) fn tick(&mut self, now: Instant) {
        if now >= self.due {
            self.due = now + self.interval;
            self.report(now);
        }
        self.batcher.tick(now);
    }

    /// Reports if anything has changed.
    fn report(&mut self, now: Instant) {
        let snapshot = self.ledger.snapshot();
        if snapshot == self.last {
            return;
        }
        let account = Account {
            observed_unix_nano: unix_nano(SystemTime::now()),
            snapshot: &snapshot,
            worse: snapshot.lost_total() > self.last.lost_total() || snapshot.gaps > self.last.gaps,
        };
        self.batcher.push_account(&account, now);
        self.last = snapshot;
    }

    /// The last report.
    pub(super) fn finish(mut self, now: Instant) {
        self.report(now);
        self.batcher.flush();
    }
}
