//! Names of containers outside of Kubernetes, from Docker and Podman: `GET /containers/ID/json` over their sockets.
//!
//! [`Engines`] is the store that readers look into, [`Inquiry`] asks. Invariants:
//! - readers never wait: an id that is not known is put into a queue, and has a name later or never;
//! - an answer counts only if it is about the very id that was asked for;
//! - bounded are the ids that are remembered ([`CAPACITY`]), those that wait for an answer, its size and its time.

mod inquiry;
mod inspect;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

pub use inquiry::{Inquiry, Pace};

use super::kubernetes::Container;
use crate::lingering::Lingering;

/// Containers that are remembered, named or not.
pub const CAPACITY: usize = 1024;

/// Ids that wait to be asked for.
const QUEUE: usize = 256;

/// How long an id that no engine knows is not asked for again.
const UNKNOWN: Duration = Duration::from_secs(60);

/// What is known of containers. Lookups and changes hold a lock for operations in memory only.
pub struct Engines {
    known: Mutex<Lingering<String, Known>>,
    /// Counts the names that came.
    generation: AtomicU64,
    ask: mpsc::Sender<String>,
}

/// What is known of one container.
enum Known {
    /// It is being asked for.
    Asked,
    /// No engine knew it then.
    Unknown(Instant),
    Named(Arc<Container>),
}

/// What a lookup answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Its name and image.
    Named(Arc<Container>),
    /// Nothing yet. If something comes, [`Engines::generation`] changes.
    Nothing,
    /// Nothing, and there is no room to ask for it: look again.
    Busy,
}

impl Engines {
    /// The store, and where the ids come out that are to be asked for.
    #[must_use]
    pub fn new() -> (Arc<Self>, mpsc::Receiver<String>) {
        let (ask, asked) = mpsc::channel(QUEUE);
        let engines = Self {
            known: Mutex::new(Lingering::new(CAPACITY)),
            generation: AtomicU64::new(0),
            ask,
        };
        (Arc::new(engines), asked)
    }

    /// Changes whenever a lookup may have another answer than before.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The container with this id.
    #[must_use]
    pub fn find(&self, id: &str, now: Instant) -> Told {
        let id = id.to_owned();
        let mut known = self.lock();
        match known.get(&id) {
            Some(Known::Named(container)) => return Told::Named(Arc::clone(container)),
            Some(Known::Asked) => return Told::Nothing,
            Some(Known::Unknown(since)) if now.saturating_duration_since(*since) < UNKNOWN => {
                return Told::Nothing;
            }
            Some(Known::Unknown(_)) | None => {}
        }
        match self.ask.try_send(id.clone()) {
            Ok(()) => {
                known.insert(id, Known::Asked);
                Told::Nothing
            }
            Err(mpsc::error::TrySendError::Full(_)) => Told::Busy,
            // Nobody asks any more: the agent stops.
            Err(mpsc::error::TrySendError::Closed(_)) => Told::Nothing,
        }
    }

    /// What an engine said of it; `None`: no engine knows it.
    fn tell(&self, id: String, container: Option<Container>, now: Instant) {
        let mut known = self.lock();
        let Some(container) = container else {
            known.insert(id, Known::Unknown(now));
            return;
        };
        known.insert(id, Known::Named(Arc::new(container)));
        // While it is locked, so that whoever sees the new number sees the name.
        self.generation.fetch_add(1, Ordering::Release);
    }

    // A panic while the lock was held leaves a store that is true for each id.
    fn lock(&self) -> MutexGuard<'_, Lingering<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Container {
        Container {
            name: name.to_owned(),
            image: None,
        }
    }

    #[test]
    fn an_id_is_asked_for_once_and_again_a_while_after_nobody_knew_it() {
        let (engines, mut asked) = Engines::new();
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(engines.find("a", start), Told::Nothing);
        }
        assert_eq!(asked.try_recv().as_deref(), Ok("a"));
        assert!(asked.try_recv().is_err());
        engines.tell("a".to_owned(), None, start);
        assert_eq!(
            (engines.find("a", start), engines.generation()),
            (Told::Nothing, 0)
        );
        assert!(asked.try_recv().is_err());
        assert_eq!(engines.find("a", start + UNKNOWN), Told::Nothing);
        assert_eq!(asked.try_recv().as_deref(), Ok("a"));
        engines.tell("a".to_owned(), Some(named("web")), start);
        assert_eq!(engines.find("a", start), Told::Named(Arc::new(named("web"))));
        assert_eq!(engines.generation(), 1);
    }

    #[test]
    fn a_container_has_its_name_however_many_were_met_while_it_was_asked_for() {
        let (engines, mut asked) = Engines::new();
        let now = Instant::now();
        for id in 0..CAPACITY / 2 + 1 {
            assert_eq!(engines.find(&id.to_string(), now), Told::Nothing);
            asked.try_recv().unwrap();
        }
        engines.tell("0".to_owned(), Some(named("first")), now);
        assert_eq!(engines.find("0", now), Told::Named(Arc::new(named("first"))));
    }

    #[test]
    fn neither_the_queue_nor_the_store_grows_without_end() {
        let (engines, mut asked) = Engines::new();
        let now = Instant::now();
        let answers: Vec<_> = (0..2 * QUEUE)
            .map(|id| engines.find(&id.to_string(), now))
            .collect();
        let busy = answers.iter().filter(|answer| **answer == Told::Busy).count();
        assert_eq!(busy, QUEUE);
        for id in 0..10 * CAPACITY {
            engines.tell(id.to_string(), Some(named("x")), now);
        }
        assert!(engines.lock().len() <= CAPACITY);
        // What was refused is asked for once there is room.
        while asked.try_recv().is_ok() {}
        assert_eq!(engines.find("new", now), Told::Nothing);
        assert_eq!(asked.try_recv().as_deref(), Ok("new"));
        drop(asked);
        assert_eq!(engines.find("late", now), Told::Nothing);
    }
}
