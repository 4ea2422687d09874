//! Health and metrics over HTTP: `/live`, `/ready`, `/metrics`.
//!
//! - It only reads. Its answers are made from memory and the kernel's counters, and no lock is held while one is sent.
//! - Everything is bounded: connections, their time, the size of a request. Who opens more connections than there may be closes the
//!   oldest, so that a probe always finds room. `/metrics` is made at most once a second: reading the probes' counters keeps probes
//!   from running for an instant.
//! - One request per connection, and no request's body is read.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener as StdListener};
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::health::{Health, Phase};
use super::metrics::{Families, prometheus};
use crate::record::Resource;

/// Where it is unless the operator says otherwise: on this host only; NFLO on a telephone's keys. Not of Prometheus' list of
/// exporters, where every number is somebody's, and below the ports that Linux and Kubernetes give out.
pub const DEFAULT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 6356));

/// Connections at once.
const CONNECTIONS: usize = 32;
/// Time for a request's head.
const HEAD: Duration = Duration::from_secs(5);
/// Time for all of a connection.
const WHOLE: Duration = Duration::from_secs(15);
/// Size of a request's head, bytes.
const HEAD_BYTES: usize = 8 << 10;
/// Number of its fields.
const FIELDS: usize = 64;
/// How long an answer to `/metrics` is good.
const FRESH: Duration = Duration::from_secs(1);
/// Pause after a connection that could not be taken: there are no descriptors, and more tries would not make one.
const PAUSE: Duration = Duration::from_millis(200);

const TEXT: &str = "text/plain; charset=utf-8";

/// Where to serve, as the operator says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// There.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

/// The value is neither an address nor `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("write an address and a port, as in {} or [::1]:{}, or off", DEFAULT, DEFAULT.port())]
pub struct ListenError;

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        match text.trim() {
            "off" => Ok(Self::Off),
            address => address
                .parse()
                .ok()
                .or_else(|| bracketed(address))
                .map(Self::At)
                .ok_or(ListenError),
        }
    }
}

/// `[10.0.0.1]:6356`: so a manifest can write the address of a pod, which it does not know the family of.
fn bracketed(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.strip_prefix('[')?.split_once("]:")?;
    Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?))
}

/// The address cannot be had.
#[derive(Debug, Error)]
#[error("cannot serve health and metrics on {address}: {source}; {}", self.remedy())]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

impl BindError {
    fn remedy(&self) -> &'static str {
        match self.source.kind() {
            ErrorKind::AddrInUse => {
                "another program has it (ss -ltnp names it): choose another with --listen, or --listen off"
            }
            ErrorKind::AddrNotAvailable => "no device here has that address: correct --listen",
            _ => "choose another with --listen, or --listen off",
        }
    }
}

/// The socket, before anything is served.
#[derive(Debug)]
pub struct Endpoint {
    listener: StdListener,
    address: SocketAddr,
}

impl Endpoint {
    /// Takes an address of this network namespace.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let bound = StdListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        });
        bound.map_err(|source| BindError { address, source })
    }

    /// The address; its port is not 0.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the runtime ends.
    ///
    /// # Errors
    /// When the runtime cannot wait for the socket.
    pub fn serve(self, site: Arc<Site>, runtime: &Handle) -> io::Result<()> {
        let listener = {
            let _runtime = runtime.enter();
            TcpListener::from_std(self.listener)?
        };
        drop(runtime.spawn(accept(listener, site)));
        Ok(())
    }
}

/// Takes connections.
async fn accept(listener: TcpListener, site: Arc<Site>) {
    let mut open = Open::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => open.add(tokio::spawn(converse(stream, Arc::clone(&site))).abort_handle()),
            Err(error) => {
                tracing::warn!("cannot take a connection for health and metrics: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The connections, oldest first.
#[derive(Default)]
struct Open(VecDeque<AbortHandle>);

impl Open {
    fn add(&mut self, connection: AbortHandle) {
        self.0.retain(|other| !other.is_finished());
        if self.0.len() >= CONNECTIONS
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        self.0.push_back(connection);
    }
}

/// Answers one request.
async fn converse(stream: TcpStream, site: Arc<Site>) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = site.answer(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEAD)
        .max_headers(FIELDS)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(2 * HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // Who is too slow, or goes away, wants no answer; nobody else is to be told.
    let _ = tokio::time::timeout(WHOLE, connection).await;
}

/// What is served.
pub struct Site {
    health: Arc<Health>,
    measured: OnceLock<(Families, Resource)>,
    /// The last answer to `/metrics`.
    last: Mutex<Option<(Instant, Bytes)>>,
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site")
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

impl Site {
    /// Of a process that has no metrics yet.
    #[must_use]
    pub fn new(health: Arc<Health>) -> Arc<Self> {
        Arc::new(Self {
            health,
            measured: OnceLock::new(),
            last: Mutex::new(None),
        })
    }

    /// From now on there are metrics. The first ones count.
    pub fn measure(&self, families: Families, resource: Resource) {
        // A second one would be a bug without consequences.
        let _ = self.measured.set((families, resource));
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut answer = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET and HEAD only\n");
            answer
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match path {
            "/live" => self.live(Instant::now()),
            "/ready" => self.ready(),
            "/metrics" => self.metrics(Instant::now()),
            _ => respond(
                StatusCode::NOT_FOUND,
                TEXT,
                "there are /live, /ready and /metrics\n",
            ),
        }
    }

    fn live(&self, now: Instant) -> Response<Full<Bytes>> {
        let stalled = self.health.stalled(now);
        if stalled.is_empty() {
            return respond(StatusCode::OK, TEXT, "live\n");
        }
        let lines: Vec<_> = stalled.iter().map(|each| format!("{each}\n")).collect();
        respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, lines.concat())
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let (status, mut text) = match self.health.phase() {
            Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n".to_owned()),
            Phase::Reading(what) => (StatusCode::OK, format!("ready: reading {what}\n")),
            Phase::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned()),
        };
        for (what, why) in self.health.shortcomings() {
            text.push_str(&format!("degraded: {}: {why}\n", what.name()));
        }
        respond(status, TEXT, text)
    }

    fn metrics(&self, now: Instant) -> Response<Full<Bytes>> {
        let Some((families, resource)) = self.measured.get() else {
            return respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "starting\n");
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let body = match &*last {
            Some((made, body)) if now.saturating_duration_since(*made) < FRESH => body.clone(),
            _ => {
                let body = Bytes::from(prometheus::text(families, resource));
                *last = Some((now, body.clone()));
                body
            }
        };
        respond(StatusCode::OK, prometheus::CONTENT_TYPE, body)
    }
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_off() {
        assert_eq!("off".parse(), Ok(Listen::Off));
        assert_eq!("127.0.0.1:6356".parse(), Ok(Listen::At(DEFAULT)));
        assert_eq!("[::1]:9".parse(), Ok(Listen::At("[::1]:9".parse().unwrap())));
        assert_eq!("[127.0.0.1]:6356".parse(), Ok(Listen::At(DEFAULT)));
        for wrong in [
            "",
            "on",
            "localhost:6356",
            "127.0.0.1",
            "6356",
            ":6356",
            "[127.0.0.1]",
            "[x]:1",
        ] {
            let error = wrong.parse::<Listen>().unwrap_err().to_string();
            assert!(
                error.contains("127.0.0.1:6356") && error.contains("off"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_cannot_be_had_is_named_with_the_remedy() {
        let taken = StdListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = Endpoint::bind(address).unwrap_err().to_string();
        assert!(
            error.contains(&address.to_string()) && error.contains("--listen off"),
            "{error}"
        );
        let error = Endpoint::bind("192.0.2.1:1".parse().unwrap())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("192.0.2.1:1") && error.contains("no device"),
            "{error}"
        );
    }

    #[test]
    fn the_oldest_connections_make_room_for_new_ones() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut open = Open::default();
            let silent = (0..CONNECTIONS + 5).map(|_| tokio::spawn(std::future::pending::<()>()));
            let silent: Vec<_> = silent.collect();
            silent
                .iter()
                .for_each(|connection| open.add(connection.abort_handle()));
            assert_eq!(open.0.len(), CONNECTIONS);
            for (at, connection) in silent.into_iter().enumerate() {
                if at < 5 {
                    assert!(connection.await.unwrap_err().is_cancelled());
                } else {
                    assert!(!connection.is_finished());
                }
            }
        });
    }

    fn status(site: &Site, path: &str) -> StatusCode {
        site.answer(&Method::GET, path).status()
    }

    #[test]
    fn ready_is_between_start_and_stop_and_metrics_once_there_are_any() {
        let health = Health::new(Instant::now());
        let site = Site::new(Arc::clone(&health));
        assert_eq!(status(&site, "/live"), StatusCode::OK);
        assert_eq!(status(&site, "/ready"), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status(&site, "/metrics"), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status(&site, "/"), StatusCode::NOT_FOUND);
        let refused = site.answer(&Method::POST, "/metrics");
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refused.headers()[ALLOW], "GET, HEAD");
        health.set_phase(Phase::Reading("group 7".to_owned()));
        let families = Families::new(&crate::telemetry::ledger::Ledger::new(), None, Vec::new());
        site.measure(families, Resource::new());
        assert_eq!(status(&site, "/ready"), StatusCode::OK);
        assert_eq!(status(&site, "/metrics"), StatusCode::OK);
        health.set_phase(Phase::Stopping);
        assert_eq!(status(&site, "/ready"), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status(&site, "/live"), StatusCode::OK);
    }

    #[test]
    fn live_fails_when_a_loop_stands_still() {
        let start = Instant::now();
        let health = Health::new(start);
        let site = Site::new(Arc::clone(&health));
        let limit = Duration::from_secs(1);
        let beat = health.beat("a loop".to_owned(), limit, start);
        assert_eq!(site.live(start).status(), StatusCode::OK);
        assert_eq!(site.live(start + limit).status(), StatusCode::SERVICE_UNAVAILABLE);
        beat.beat(start + limit);
        assert_eq!(site.live(start + limit).status(), StatusCode::OK);
    }
}
