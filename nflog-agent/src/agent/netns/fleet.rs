//! The readers, one for each namespace: started, retired, tried again.
//!
//! - A namespace that the configuration names must be readable at start. Whatever happens later to one that comes or goes is said and
//!   never stops the agent.
//! - A reader that is retired unbinds, drains, and closes everything it had open; only then is its namespace a stranger again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::{Builder, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::scan::{Found, Scan};
use super::{Counts, Namespace};
use crate::agent::reader::{Reader, ReaderError};
use crate::agent::sockets::Orders;
use crate::agent::{Agent, RunError};
use crate::nflog::Waker;
use crate::telemetry::health::Phase;

/// How often in a row a walk must miss a namespace before it is let go: a walk is no snapshot.
const PATIENCE: u8 = 2;
/// Pauses between attempts at a namespace that cannot be read: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A reader that does not move for so long hangs: it sleeps for a quarter of it at most.
const STILL: Duration = Duration::from_secs(20);
/// Namespaces named in one message.
const NAMED: usize = 5;

/// What the main loop waits for.
#[derive(Debug)]
pub(in crate::agent) enum Event {
    /// Stop, and why.
    Stop(&'static str),
    /// Read the configuration again.
    Reload,
    /// The reader of the namespace with this number has ended.
    Ended(u32),
}

/// Why a namespace is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Named,
    /// A process in a matching cgroup; so many walks in a row have found none.
    Found {
        missed: u8,
    },
}

struct Member<'scope> {
    name: String,
    why: Why,
    /// `None`: the agent's own.
    namespace: Option<Namespace>,
    state: State<'scope>,
}

enum State<'scope> {
    Reading(Running<'scope>),
    /// Told to stop.
    Leaving(Running<'scope>),
    /// Cannot be read for now.
    Refused {
        retry_at: Instant,
        pause: Duration,
    },
}

struct Running<'scope> {
    orders: Arc<Orders>,
    waker: Waker,
    thread: ScopedJoinHandle<'scope, Result<(), ReaderError>>,
}

/// All readers.
pub(in crate::agent) struct Fleet<'scope, 'env> {
    agent: &'env Agent<'env>,
    scope: &'scope Scope<'scope, 'env>,
    events: Sender<Event>,
    counts: Arc<Counts>,
    members: HashMap<u32, Member<'scope>>,
    /// Said to have no room.
    over_limit: HashSet<u32>,
    /// How many may be read.
    limit: u32,
    halted: bool,
}

impl<'scope, 'env> Fleet<'scope, 'env> {
    pub(in crate::agent) fn new(
        agent: &'env Agent<'env>,
        scope: &'scope Scope<'scope, 'env>,
        events: Sender<Event>,
    ) -> Self {
        Self {
            agent,
            scope,
            events,
            counts: Arc::clone(agent.counts()),
            members: HashMap::new(),
            over_limit: HashSet::new(),
            limit: agent.args.max_netns,
            halted: false,
        }
    }

    /// Whether every reader has ended.
    pub(in crate::agent) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(in crate::agent) const fn halted(&self) -> bool {
        self.halted
    }

    /// How many namespaces are read.
    pub(in crate::agent) fn reading(&self) -> usize {
        let reading = self.members.values();
        reading
            .filter(|member| matches!(member.state, State::Reading(_)))
            .count()
    }

    /// Lets so many be read from now on; those that are stay.
    pub(in crate::agent) const fn allow(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Lets readers look at once whether there is anything to do.
    pub(in crate::agent) fn wake(&self) {
        for member in self.members.values() {
            if let State::Reading(running) = &member.state {
                running.wake();
            }
        }
    }

    /// Starts a reader that the configuration asks for.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(in crate::agent) fn start_named(
        &mut self,
        reader: Reader<'env>,
        namespace: Option<Namespace>,
    ) -> Result<(), RunError> {
        let (inode, name) = (reader.stage.netns, reader.stage.name.clone());
        let running = self.start(reader)?;
        let member = Member {
            name,
            why: Why::Named,
            namespace,
            state: State::Reading(running),
        };
        self.members.insert(inode, member);
        Ok(())
    }

    fn start(&self, reader: Reader<'env>) -> Result<Running<'scope>, RunError> {
        let orders = Arc::new(Orders::default());
        let waker = reader.nflog.waker();
        let thread = Builder::new().name(format!("nflog {}", reader.stage.netns));
        let beat = self.agent.health.beat(
            format!("the reader of {}", reader.stage.name),
            STILL,
            Instant::now(),
        );
        let farewell = Farewell {
            events: self.events.clone(),
            inode: reader.stage.netns,
        };
        let body = {
            let orders = Arc::clone(&orders);
            move || {
                let _farewell = farewell;
                reader.run(&orders, &beat)
            }
        };
        let thread = thread.spawn_scoped(self.scope, body)?;
        self.counts.appeared();
        Ok(Running {
            orders,
            waker,
            thread,
        })
    }

    /// Reads a namespace that a name stands for now. Returns whether it is, or will be when it can be; not while its previous
    /// reader is still leaving.
    pub(in crate::agent) fn take_named(&mut self, name: &str, namespace: Namespace) -> bool {
        let inode = namespace.inode();
        match self.members.get_mut(&inode) {
            Some(Member {
                state: State::Leaving(_),
                ..
            }) => false,
            Some(member) => {
                member.why = Why::Named;
                true
            }
            None => {
                self.attempt(
                    format!("{name} (network namespace {inode})"),
                    Why::Named,
                    namespace,
                    None,
                );
                true
            }
        }
    }

    /// No name stands for the namespace any more. It is still read if a process in a matching cgroup is in it, which the next walk
    /// finds out: `walks`.
    pub(in crate::agent) fn release_named(&mut self, inode: u32, walks: bool) {
        if walks && let Some(member) = self.members.get_mut(&inode) {
            member.why = Why::Found { missed: PATIENCE - 1 };
        } else {
            self.retire(inode);
        }
    }

    /// Numbers of the namespaces that need no process to be read, and of those that are known otherwise.
    pub(in crate::agent) fn known(&self) -> (HashSet<u32>, HashSet<u32>) {
        let (named, found): (Vec<_>, Vec<_>) = self
            .members
            .iter()
            .partition(|(_, member)| member.why == Why::Named);
        let numbers = |members: Vec<(&u32, _)>| members.into_iter().map(|(inode, _)| *inode).collect();
        (numbers(named), numbers(found))
    }

    /// Reads what a walk found, and lets go what it did not find. Returns whether another walk should follow soon.
    pub(in crate::agent) fn take_found(&mut self, scan: Scan) -> bool {
        let mut missing = Vec::new();
        for (inode, member) in &mut self.members {
            if let Why::Found { missed } = &mut member.why {
                if scan.found.contains_key(inode) {
                    *missed = 0;
                } else {
                    *missed = missed.saturating_add(1);
                    missing.push((*inode, *missed));
                }
            }
        }
        let mut again = false;
        for (inode, missed) in missing {
            if missed < PATIENCE {
                again = true;
            } else {
                self.retire(inode);
            }
        }
        self.over_limit.retain(|inode| scan.found.contains_key(inode));
        let mut refused = Vec::new();
        for (inode, found) in scan.found {
            if self.members.contains_key(&inode) {
                continue;
            }
            let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
            if self.members.len() < limit {
                self.over_limit.remove(&inode);
                self.take(inode, found);
            } else if self.over_limit.insert(inode) {
                refused.push(place(inode, &found));
            }
        }
        self.say_over_limit(&refused);
        again
    }

    fn take(&mut self, inode: u32, found: Found) {
        let name = place(inode, &found);
        if let Some(namespace) = found.namespace {
            self.attempt(name, Why::Found { missed: 0 }, namespace, None);
        }
    }

    fn say_over_limit(&self, places: &[String]) {
        if places.is_empty() {
            return;
        }
        self.counts.over_limit(places.len());
        let more = places.len().saturating_sub(NAMED);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        tracing::warn!(
            "not read, as --max-netns {} are: {}{more}",
            self.limit,
            places[..places.len().min(NAMED)].join(", ")
        );
    }

    /// Opens and starts a reader. `pause`: it was refused before, and waited so long.
    fn attempt(&mut self, name: String, why: Why, namespace: Namespace, pause: Option<Duration>) {
        let inode = namespace.inode();
        let opened = self
            .agent
            .open_reader(name.clone(), Some(&namespace), false)
            .and_then(|reader| self.start(reader));
        let state = match opened {
            Ok(running) => {
                tracing::info!("reading {name}");
                State::Reading(running)
            }
            Err(error) => {
                self.say_refused(&name, &error, pause.is_none());
                refused(pause)
            }
        };
        self.members.insert(
            inode,
            Member {
                name,
                why,
                namespace: Some(namespace),
                state,
            },
        );
    }

    fn say_refused(&self, name: &str, error: &RunError, first: bool) {
        if first {
            self.counts.refused();
            tracing::warn!("{name} is not read for now: {error}; trying again, silently");
        } else {
            tracing::debug!("{name} is still not read: {error}");
        }
    }

    /// Tries those again that could not be read, when it is time.
    pub(in crate::agent) fn retry(&mut self, now: Instant) {
        let due: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| matches!(member.state, State::Refused { retry_at, .. } if retry_at <= now))
            .map(|(inode, _)| *inode)
            .collect();
        for inode in due {
            if let Some(Member {
                name,
                why,
                namespace: Some(namespace),
                state: State::Refused { pause, .. },
            }) = self.members.remove(&inode)
            {
                self.attempt(name, why, namespace, Some(pause));
            }
        }
    }

    /// Ends the reader of a namespace.
    fn retire(&mut self, inode: u32) {
        let Some(member) = self.members.remove(&inode) else {
            return;
        };
        let state = match member.state {
            State::Refused { .. } => return,
            State::Reading(running) => {
                running.end(self.halted);
                State::Leaving(running)
            }
            leaving @ State::Leaving(_) => leaving,
        };
        self.members.insert(inode, Member { state, ..member });
    }

    /// Ends all readers; they say so one by one.
    pub(in crate::agent) fn halt(&mut self, why: &str) {
        if !self.halted {
            self.agent.health.set_phase(Phase::Stopping);
            tracing::info!("stopping: {why}");
        }
        self.halted = true;
        let all: Vec<_> = self.members.keys().copied().collect();
        all.into_iter().for_each(|inode| self.retire(inode));
    }

    /// The reader of a namespace has ended.
    ///
    /// # Errors
    /// If it ended in a bug; if it failed while the agent stops; or if it is one that the configuration asks for, and was not told
    /// to end.
    pub(in crate::agent) fn ended(&mut self, inode: u32) -> Result<(), RunError> {
        let Some(member) = self.members.remove(&inode) else {
            return Ok(());
        };
        let (running, left) = match member.state {
            State::Reading(running) => (running, false),
            State::Leaving(running) => (running, true),
            State::Refused { .. } => return Ok(()),
        };
        let ended = running.thread.join().map_err(|_| RunError::ReaderPanicked)?;
        self.counts.vanished();
        if self.halted {
            return Ok(ended?);
        }
        self.agent.store.forget(inode);
        let name = &member.name;
        if left {
            match ended {
                Ok(()) => tracing::info!("no longer reading {name}"),
                Err(error) => tracing::warn!("no longer reading {name}: {error}"),
            }
            return Ok(());
        }
        match (ended, member.why) {
            (Err(error), Why::Found { .. }) => {
                let error = error.into();
                self.say_refused(name, &error, true);
                let state = refused(None);
                self.members.insert(inode, Member { state, ..member });
                Ok(())
            }
            (ended, _) => {
                self.halt("a reader has ended");
                Ok(ended?)
            }
        }
    }
}

impl Running<'_> {
    /// `halt`: the agent ends, not the namespace.
    fn end(&self, halt: bool) {
        if halt {
            self.orders.leave();
        } else {
            self.orders.close();
        }
        self.wake();
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::warn!("cannot wake a reader, it looks within seconds: {error}");
        }
    }
}

/// Says that a reader has ended, however it did.
struct Farewell {
    events: Sender<Event>,
    inode: u32,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        // Nobody listens once the main loop has failed.
        let _ = self.events.send(Event::Ended(self.inode));
    }
}

fn refused(pause: Option<Duration>) -> State<'static> {
    let pause = pause.map_or(RETRY.0, |pause| (pause * 2).min(RETRY.1));
    State::Refused {
        retry_at: Instant::now() + pause,
        pause,
    }
}

/// Name of a namespace that a process led to.
fn place(inode: u32, found: &Found) -> String {
    format!(
        "network namespace {inode} of cgroup {} (pid {})",
        found.cgroup, found.pid
    )
}
