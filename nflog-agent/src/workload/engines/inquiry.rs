//! Asks the engines, one id after the other, for as long as the agent runs.
//!
//! - The engines are asked in the order of their sockets, until one knows the container. It is unknown if one that answers does not
//!   know it, and none failed.
//! - What could not be asked waits, [`WAITING`] ids at most, and is tried again with growing pauses, [`TRIES`] times at most.
//! - What fails is said once for each cause, and when it is over.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{self, sleep_until, timeout};

use super::Engines;
use super::inspect::{Failure, inspect};
use crate::workload::kubernetes::Container;

/// Ids that wait to be tried again.
const WAITING: usize = 256;
/// How often an id is tried.
const TRIES: u32 = 8;

/// How often things are tried.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Pause after the first failure; twice as long after each further one.
    pub first: Duration,
    /// Longest pause.
    pub longest: Duration,
    /// Longest time that one engine may take for one answer.
    pub answer: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
            answer: Duration::from_secs(5),
        }
    }
}

/// Who is asked, and where the answers are kept.
pub struct Inquiry {
    /// Sockets of the engines.
    pub sockets: Vec<PathBuf>,
    /// Where the answers are kept.
    pub engines: Arc<Engines>,
    /// The ids to ask for.
    pub asked: mpsc::Receiver<String>,
    /// How often things are tried.
    pub pace: Pace,
}

/// What has failed lately.
#[derive(Default)]
struct Standing {
    /// Ids and how often they were tried.
    waiting: VecDeque<(String, u32)>,
    /// In a row.
    failures: u32,
    /// Socket and cause that were said last.
    told: Option<(usize, std::mem::Discriminant<Failure>)>,
}

impl Inquiry {
    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let mut standing = Standing::default();
        // When the next one that waits is tried, whatever else comes until then.
        let mut due = time::Instant::now();
        loop {
            let (id, tries) = tokio::select! {
                id = self.asked.recv(), if standing.waiting.len() < WAITING => match id {
                    // While nothing answers, one id is tried at a time.
                    Some(id) if standing.failures > 0 => {
                        standing.waiting.push_back((id, 0));
                        continue;
                    }
                    Some(id) => (id, 0),
                    None => return,
                },
                () = sleep_until(due), if !standing.waiting.is_empty() => {
                    match standing.waiting.pop_front() {
                        Some(first) => first,
                        None => continue,
                    }
                }
            };
            self.try_id(id, tries, &mut standing).await;
            due = time::Instant::now() + self.pause(standing.failures);
        }
    }

    async fn try_id(&self, id: String, tries: u32, standing: &mut Standing) {
        match self.ask_all(&id).await {
            Ok(container) => {
                standing.failures = 0;
                if standing.told.take().is_some() {
                    tracing::info!("names of containers: the engine answers again");
                }
                self.engines.tell(id, container, Instant::now());
            }
            Err((at, failure)) => {
                standing.failures = standing.failures.saturating_add(1);
                self.say(at, &failure, standing);
                if tries + 1 < TRIES {
                    standing.waiting.push_back((id, tries + 1));
                } else {
                    self.engines.tell(id, None, Instant::now());
                }
            }
        }
    }

    /// The answer of the first engine that knows the container, else the failure that counts most and whose it is.
    async fn ask_all(&self, id: &str) -> Result<Option<Container>, (usize, Failure)> {
        let mut lacks = false;
        let mut failed: Option<(usize, Failure)> = None;
        for (at, socket) in self.sockets.iter().enumerate() {
            let answer = match timeout(self.pace.answer, inspect(socket, id)).await {
                Ok(answer) => answer,
                Err(_) => Err(Failure::Silent(self.pace.answer.as_secs())),
            };
            match answer {
                Ok(Some(container)) => return Ok(Some(container)),
                Ok(None) => lacks = true,
                Err(failure) => {
                    if failed
                        .as_ref()
                        .is_none_or(|(_, before)| weight(&failure) > weight(before))
                    {
                        failed = Some((at, failure));
                    }
                }
            }
        }
        match failed {
            // That another engine is not there, or not for us, is the usual case.
            Some((_, failure)) if lacks && weight(&failure) < 2 => Ok(None),
            Some(failed) => Err(failed),
            None => Ok(None),
        }
    }

    fn say(&self, at: usize, failure: &Failure, standing: &mut Standing) {
        let cause = (at, std::mem::discriminant(failure));
        let socket = self.sockets[at].display();
        if standing.told == Some(cause) || matches!(failure, Failure::Away) {
            tracing::debug!("{socket}: {failure}");
            return;
        }
        standing.told = Some(cause);
        if matches!(failure, Failure::Denied) {
            tracing::info!("containers of the engine at {socket} have no names: {failure}");
            return;
        }
        tracing::warn!("containers have no names, records have their ids: the engine at {socket}: {failure}");
    }

    fn pause(&self, failures: u32) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        let doubled = 1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX);
        self.pace.first.saturating_mul(doubled).min(self.pace.longest)
    }
}

/// How much a failure says about whether the container is known.
const fn weight(failure: &Failure) -> u8 {
    match failure {
        Failure::Away => 0,
        Failure::Denied => 1,
        _ => 2,
    }
}
