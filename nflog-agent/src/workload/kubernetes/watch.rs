//! Keeps a store true: lists the objects of a kind, then follows their changes, for as long as the agent runs.
//!
//! - A list is read in pages. A watch goes on from its version, is renewed before the server ends it, and from the last bookmark when
//!   it breaks. Where the server has no history from there (410), they are listed anew.
//! - While anything fails the store keeps what it has. What fails is said once for each cause, and when it is over.
//! - Tries are [`Pace::first`] apart, then twice as long each time, up to [`Pace::longest`], each by up to a half less at random.

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_core::Stream as _;
use kube::Client;
use kube::core::params::{ListParams, WatchParams};
use kube::core::{Request, WatchEvent};
use tokio::time::{sleep, timeout};

use super::failure::Failure;
use super::page::Page;
use super::{Access, Followed};

/// From the server's cache, as kubelets and client-go ask at first: a restart of all agents does not reach etcd. Old servers answer it
/// in one page. kube's own parameter is left out beside a limit.
const CACHED: &str = "&resourceVersion=0&resourceVersionMatch=NotOlderThan";
/// Most pages: more than a store holds.
const PAGES: usize = 200;

/// How often things are tried.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Pause after the first failure.
    pub first: Duration,
    /// Longest pause.
    pub longest: Duration,
    /// Longest time to wait for an answer, except for the changes of a watch.
    pub answer: Duration,
    /// Whole seconds after which a watch is renewed.
    pub renew: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
            answer: Duration::from_secs(30),
            renew: 290,
        }
    }
}

/// What is followed, and where it is kept.
pub struct Watch<F> {
    /// How the API server is reached.
    pub access: Access,
    /// Of what, and where it is kept.
    pub of: F,
    /// How often things are tried.
    pub pace: Pace,
}

/// Where the watch stands.
#[derive(Default)]
struct Standing {
    client: Option<Client>,
    /// Version to go on from; `None`: list first.
    version: Option<String>,
    /// The history was gone: a cached list may be as old.
    expired: bool,
    /// The kind of failure that was said last.
    told: Option<u16>,
    welcomed: bool,
    failures: u32,
    full: bool,
}

impl<F: Followed> Watch<F> {
    /// Runs until it is dropped.
    pub async fn run(self) {
        let mut standing = Standing::default();
        loop {
            let began = Instant::now();
            match self.advance(&mut standing).await {
                // A watch that ends at once, again and again, must not become a storm.
                Ok(()) if began.elapsed() >= self.pace.first => continue,
                Ok(()) => {}
                Err(failure) => self.fail(&mut standing, &failure),
            }
            sleep(self.pause(standing.failures)).await;
        }
    }

    /// Lists if needed, then follows one watch to its end.
    async fn advance(&self, standing: &mut Standing) -> Result<(), Failure> {
        let client = match standing.client.take() {
            Some(client) => client,
            None => self.answer(self.access.client()).await?,
        };
        standing.client = Some(client.clone());
        let version = match standing.version.take() {
            Some(version) => version,
            None => self.list(&client, standing).await?,
        };
        standing.version = Some(version.clone());
        self.follow(&client, version, standing).await
    }

    fn fail(&self, standing: &mut Standing, failure: &Failure) {
        if failure.needs_client() {
            standing.client = None;
        }
        if matches!(failure, Failure::Expired(_)) {
            // Nothing is wrong: the history is shorter than the interruption was.
            tracing::debug!("{failure}");
            (standing.version, standing.expired) = (None, true);
            standing.failures = 0;
            return;
        }
        if matches!(failure, Failure::Unreadable(_)) {
            standing.version = None;
        }
        standing.failures = standing.failures.saturating_add(1);
        // Connections break now and then; the next try tells whether it is more than that.
        let passing = standing.welcomed && standing.failures == 1 && failure.may_pass();
        if passing || standing.told == Some(failure.kind()) {
            tracing::debug!("{}: {failure}", self.of.name());
            return;
        }
        standing.told = Some(failure.kind());
        let new = if standing.welcomed { "new " } else { "" };
        tracing::warn!(
            "{new}{} {}: {}",
            self.of.name(),
            self.of.lack(),
            failure.told::<F>()
        );
    }

    /// The server has answered.
    fn succeed(&self, standing: &mut Standing) {
        if standing.told.take().is_some() || !standing.welcomed {
            standing.welcomed = true;
            tracing::info!("naming the {}: {} are known", self.of.name(), self.of.count());
        }
    }

    /// Takes in all that there are, a page at a time. Returns the version to watch from.
    async fn list(&self, client: &Client, standing: &mut Standing) -> Result<String, Failure> {
        let mut params = ListParams {
            field_selector: self.of.fields(),
            limit: Some(F::PAGE),
            ..ListParams::default()
        };
        let mut there = HashSet::new();
        for _ in 0..PAGES {
            let mut request = Request::new(F::URL)
                .list(&params)
                .map_err(kube::Error::BuildRequest)?;
            if params.continue_token.is_none() && !standing.expired {
                let uri = format!("{}{CACHED}", request.uri()).parse::<http::Uri>();
                *request.uri_mut() = uri.map_err(|error| kube::Error::HttpError(error.into()))?;
            }
            let page: Page<F::Object> = self.answer(client.request(request)).await?;
            for object in &page.items {
                there.insert(F::uid(object).to_owned());
                self.see(object, standing);
            }
            if page.metadata.next.is_empty() {
                self.of.keep_only(&there);
                (standing.expired, standing.failures) = (false, 0);
                self.succeed(standing);
                return Ok(page.metadata.resource_version);
            }
            params.continue_token = Some(page.metadata.next);
        }
        Err(Failure::Status {
            code: 200,
            message: format!("a list that does not end after {PAGES} pages"),
        })
    }

    async fn follow(&self, client: &Client, version: String, standing: &mut Standing) -> Result<(), Failure> {
        let params = WatchParams {
            field_selector: self.of.fields(),
            timeout: Some(self.pace.renew),
            ..WatchParams::default()
        };
        let request = Request::new(F::URL)
            .watch(&params, &version)
            .map_err(kube::Error::BuildRequest)?;
        let mut events = pin!(self.answer(client.request_events::<F::Object>(request)).await?);
        self.succeed(standing);
        // The server ends the watch by itself; a connection that died silently ends here.
        let ends = Duration::from_secs(self.pace.renew.into()) + self.pace.answer;
        while let Some(event) = timeout(ends, poll_fn(|context| events.as_mut().poll_next(context)))
            .await
            .map_err(|_| Failure::Silent(ends.as_secs()))?
        {
            match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    self.see(&object, standing);
                    standing.version = Some(F::version(&object).to_owned());
                }
                WatchEvent::Deleted(object) => {
                    self.of.delete(F::uid(&object));
                    standing.version = Some(F::version(&object).to_owned());
                }
                WatchEvent::Bookmark(bookmark) => standing.version = Some(bookmark.metadata.resource_version),
                WatchEvent::Error(status) => return Err(Failure::of_status(status.code, &status.message)),
            }
            standing.failures = 0;
        }
        Ok(())
    }

    fn see(&self, object: &F::Object, standing: &mut Standing) {
        if !self.of.see(object) && !standing.full {
            standing.full = true;
            tracing::warn!(
                "there are more {} than the agent remembers; those beyond have no names",
                self.of.name()
            );
        }
    }

    async fn answer<T, E: Into<Failure>>(
        &self,
        asked: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        match timeout(self.pace.answer, asked).await {
            Ok(answer) => answer.map_err(Into::into),
            Err(_) => Err(Failure::Silent(self.pace.answer.as_secs())),
        }
    }

    /// Between half of the time and all of it, so that agents do not come back all at once.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let full = self.pace.first.saturating_mul(doubled).min(self.pace.longest);
        let mut random = [0_u8; 2];
        // Without random bytes all of it is waited for.
        let share = match rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()) {
            Ok(2) => f64::from(u16::from_ne_bytes(random)) / f64::from(u16::MAX),
            _ => 1.0,
        };
        full.mul_f64(0.5 + share / 2.0)
    }
}
