//! The main loop: runs the readers to their end, and looks which namespaces come and go.

use std::io::ErrorKind;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::scope;
use std::time::{Duration, Instant};

use signal_hook::iterator::Signals;

use super::account::Accounts;
use super::netns::{Change, Event, Fleet, Hints, Named, Namespace, Scanner, Schedule};
use super::notices::Notices;
use super::reader::Reader;
use super::{Agent, RunError, reloads, signals};
use crate::settings::Given;
use crate::telemetry::messages;

/// How often to look whether the output is still there, and for signs of change.
const WATCH: Duration = Duration::from_millis(50);

/// The main loop hangs if it does not move for so long. It sleeps for [`WATCH`]; opening a thousand namespaces takes seconds.
const STILL: Duration = Duration::from_secs(60);

/// A namespace of the configuration, with its reader.
pub(super) struct Opened<'a> {
    pub(super) reader: Reader<'a>,
    /// `None`: the agent's own.
    pub(super) namespace: Option<Namespace>,
}

impl Agent<'_> {
    /// Runs the readers to their end. `named` has also the names that share a reader with another one.
    pub(super) fn serve<'env>(
        &'env self,
        named: Vec<Named>,
        opened: Vec<Opened<'env>>,
        mut signals: Signals,
    ) -> Result<(), RunError> {
        let accounts = self.accounts(self.args.account_interval)?;
        let (send, events) = channel();
        let handle = signals.handle();
        scope(|scope| {
            let (asks, reloads) = (send.clone(), reloads(self.args, self.output));
            let signal_thread = scope.spawn(move || {
                for signal in signals.forever() {
                    let event = signals::event(signal, reloads);
                    if matches!(event, Event::Reload) && !self.reloads.ask() {
                        continue;
                    }
                    // Nobody listens once the main loop has ended.
                    let _ = asks.send(event);
                }
            });
            let mut main = Main::new(self, named, Fleet::new(self, scope, send), accounts);
            let started = main.start(opened);
            let ended = main.run(&events, started);
            handle.close();
            // Ends when the handle is closed; it cannot panic.
            let _ = signal_thread.join();
            ended
        })
    }
}

pub(super) struct Main<'scope, 'env> {
    pub(super) agent: &'env Agent<'env>,
    /// The settings as far as they are in force; `agent` has those of the start.
    pub(super) in_force: Given,
    named: Vec<Named>,
    scanner: Option<Scanner>,
    pub(super) fleet: Fleet<'scope, 'env>,
    hints: Option<Hints>,
    pub(super) schedule: Schedule,
    pub(super) accounts: Option<Accounts>,
    pub(super) notices: Notices<'env>,
    told_hidden: bool,
    told_blind: bool,
}

impl<'scope, 'env> Main<'scope, 'env> {
    fn new(
        agent: &'env Agent<'env>,
        named: Vec<Named>,
        fleet: Fleet<'scope, 'env>,
        accounts: Option<Accounts>,
    ) -> Self {
        Self {
            scanner: Scanner::new(&agent.args.netns_of_cgroup),
            hints: None,
            schedule: Schedule::new(agent.args.netns_interval, Instant::now()),
            accounts,
            in_force: agent.settings.given.clone(),
            notices: Notices::new(agent, Instant::now()),
            agent,
            named,
            fleet,
            told_hidden: false,
            told_blind: false,
        }
    }

    /// Starts the readers of the configuration, and those of the namespaces found at once.
    fn start(&mut self, opened: Vec<Opened<'env>>) -> Result<(), RunError> {
        for Opened { reader, namespace } in opened {
            self.fleet.start_named(reader, namespace)?;
        }
        if !self.changes() {
            return Ok(());
        }
        // Before the first look: what changes during it is a sign.
        self.hints = Hints::watch(self.named.iter().filter_map(Named::file), self.scanner.is_some())
            .inspect_err(|error| {
                let interval = humantime::format_duration(self.agent.args.netns_interval);
                tracing::warn!(
                    "namespaces that come and go are seen only every {interval}: no inotify: {error}"
                );
            })
            .ok();
        self.look();
        Ok(())
    }

    /// Whether there is anything that can come or go.
    fn changes(&self) -> bool {
        self.scanner.is_some() || self.named.iter().any(|named| !named.is_here())
    }

    fn run(&mut self, events: &Receiver<Event>, started: Result<(), RunError>) -> Result<(), RunError> {
        let mut result = started.inspect_err(|_| self.fleet.halt("a reader could not be started"));
        if result.is_ok() {
            self.agent.store.forget_rest();
            self.agent.say_reading();
            self.agent.output.begin(self.agent.ledger);
            self.notices.ready();
        }
        let beat = (self.agent.health).beat("the main loop".to_owned(), STILL, Instant::now());
        while !(self.fleet.halted() && self.fleet.is_empty()) {
            beat.beat(Instant::now());
            match events.recv_timeout(WATCH) {
                Ok(Event::Stop(why)) => self.fleet.halt(why),
                Ok(Event::Reload) => self.reload(),
                Ok(Event::Ended(inode)) => {
                    // There is room for another one, or it was found again meanwhile.
                    self.schedule.hint(Instant::now());
                    if let Err(error) = self.fleet.ended(inode) {
                        self.fleet.halt("a reader has ended");
                        result = result.and(Err(error));
                    }
                }
                // The fleet holds a sender.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if let Some(accounts) = &mut self.accounts {
                accounts.tick(Instant::now());
            }
            messages::tick(Instant::now());
            if self.agent.queue.sink_gone() {
                self.fleet.halt("the output takes no more");
            }
            if self.agent.output.is_done() {
                self.fleet.halt("the view has ended");
            }
            if !self.fleet.halted() && self.changes() {
                self.follow(Instant::now());
            }
            if self.fleet.halted() {
                self.notices.stopping();
            }
            self.notices.tick(Instant::now(), self.fleet.reading());
        }
        if let Some(accounts) = self.accounts.take() {
            accounts.finish(Instant::now());
        }
        // A reader that goes away is how a pipe ends; a full disk is not.
        match self.agent.queue.sink_error() {
            Some(kind) if kind != ErrorKind::BrokenPipe => result.and(Err(RunError::Output { kind })),
            _ => result,
        }
    }

    /// Looks if it is time, and tries again what could not be read.
    fn follow(&mut self, now: Instant) {
        if self.hints.as_mut().is_some_and(Hints::take) {
            self.schedule.hint(now);
        }
        if self.schedule.due(now) {
            self.look();
        }
        self.fleet.retry(now);
        let future = self.scanner.is_some() || self.named.iter().any(Named::has_future);
        if !future && self.fleet.is_empty() {
            self.fleet.halt("every process that --netns names has ended");
        }
    }

    fn look(&mut self) {
        let began = Instant::now();
        let mut again = false;
        for at in 0..self.named.len() {
            again |= self.look_at_name(at);
        }
        if let Some(scanner) = &self.scanner {
            let (named, found) = self.fleet.known();
            match scanner.scan(&found, &named) {
                Ok(scan) => {
                    if scan.hidden > 0 && !self.told_hidden {
                        self.told_hidden = true;
                        tracing::warn!(
                            "the network namespaces of {} processes are hidden: CAP_SYS_PTRACE is needed",
                            scan.hidden
                        );
                    }
                    again |= self.fleet.take_found(scan);
                }
                Err(error) if !self.told_blind => {
                    self.told_blind = true;
                    tracing::warn!("cannot look for namespaces: {error}; trying again, silently");
                }
                Err(error) => tracing::debug!("cannot look for namespaces: {error}"),
            }
        }
        let now = Instant::now();
        tracing::debug!("looked for namespaces in {:?}", now - began);
        self.schedule.looked(began, now);
        if again {
            self.schedule.hint(now);
        }
    }

    /// Follows a name to the namespace that it stands for now. Returns whether to look again soon.
    fn look_at_name(&mut self, at: usize) -> bool {
        let change = self.named[at].look();
        let name = self.named[at].name();
        let next = match change {
            Change::Same => return false,
            Change::Missing => return true,
            Change::Gone => {
                tracing::info!("{name} is gone");
                None
            }
            Change::Moved(namespace) => Some(namespace),
        };
        let before = self.named[at].reading();
        self.named[at].read(None);
        if let Some(inode) = before
            && self.named.iter().all(|named| named.reading() != Some(inode))
        {
            self.fleet.release_named(inode, self.scanner.is_some());
        }
        let Some(namespace) = next else { return false };
        let inode = namespace.inode();
        if !self.fleet.take_named(self.named[at].name(), namespace) {
            return true;
        }
        self.named[at].read(Some(inode));
        false
    }
}
