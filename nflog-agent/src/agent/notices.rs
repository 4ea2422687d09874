//! What the main loop tells the service manager: ready, a status line, signs of life, the end.

use std::time::{Duration, Instant};

use super::Agent;
use crate::service::{Life, Manager, Watchdog};
use crate::telemetry::health::Health;
use crate::telemetry::ledger::Ledger;

/// How often the status line changes.
const STATUS: Duration = Duration::from_secs(5);

pub(super) struct Notices<'a> {
    manager: &'a Manager,
    ledger: &'a Ledger,
    health: &'a Health,
    watchdog: Option<Watchdog>,
    status_said: Instant,
    received: u64,
    stopping: bool,
}

impl<'a> Notices<'a> {
    pub(super) fn new(agent: &Agent<'a>, now: Instant) -> Self {
        Self {
            manager: agent.manager,
            ledger: agent.ledger,
            health: agent.health,
            watchdog: agent
                .manager
                .watchdog()
                .map(|interval| Watchdog::new(interval, now)),
            status_said: now,
            received: 0,
            stopping: false,
        }
    }

    /// All that is to be read is.
    pub(super) fn ready(&self) {
        self.manager.ready();
    }

    /// The configuration is read again; `ready` is the end of that.
    pub(super) fn reloading(&self) {
        self.manager.reloading();
    }

    pub(super) fn stopping(&mut self) {
        if !self.stopping {
            self.stopping = true;
            self.manager.stopping();
        }
    }

    /// Tells what is due. `readers`: how many network namespaces are read.
    pub(super) fn tick(&mut self, now: Instant, readers: usize) {
        if self.manager.listens() && now.duration_since(self.status_said) >= STATUS {
            self.say_status(now, readers);
        }
        let Some(watchdog) = &mut self.watchdog else {
            return;
        };
        match watchdog.look(now, |most| self.health.stalled_for(now, most).pop()) {
            Life::Sign => self.manager.alive(),
            Life::Stuck(stalled) => tracing::error!("{stalled}: no signs of life"),
            Life::Early | Life::StillStuck => {}
        }
    }

    fn say_status(&mut self, now: Instant, readers: usize) {
        let account = self.ledger.snapshot();
        let span = now.duration_since(self.status_said);
        let packets = account.received.saturating_sub(self.received);
        let rate = u128::from(packets) * 1000 / span.as_millis().max(1);
        self.manager.status(&format!(
            "{readers} network namespaces, {rate} packets/s; {} received, {} lost in the kernel, {} lost later, {} spooled",
            account.received,
            account.gaps,
            account.lost_total(),
            account.spooled
        ));
        self.received = account.received;
        self.status_said = now;
    }
}
