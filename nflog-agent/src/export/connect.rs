//! A connection to the collector: name, TCP, proxy, TLS. The same for both protocols and both signals.
//!
//! - Nothing is kept between connections but TLS sessions: the name is resolved and the TLS files are read for each.
//! - TCP keep-alive finds a peer that is gone while nothing is sent, `TCP_USER_TIMEOUT` one that does not acknowledge.
//!   HTTP/2 pings are not used. gRPC servers allow one in five minutes by default, none without a request in flight, and
//!   answer more by `GOAWAY too_many_pings`; a request without an answer ends by its own timeout much sooner.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::config::{OtlpConfig, Protocol, Proxy, TlsFiles};
use super::names::Names;
use super::tls::Tls;
use super::transport::TransportError;

/// Silence before TCP asks whether the peer is there; also keeps the entries of NAT alive.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Time between such questions; the third without an answer ends the connection.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
/// Sent data that is not acknowledged for so long ends the connection.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

type BoxError = Box<dyn Error + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Why there is no connection, beyond what TCP and TLS say themselves.
#[derive(Debug, Error)]
enum ConnectError {
    #[error("not connected within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("the server does not speak HTTP/2 by TLS (ALPN), which gRPC needs")]
    NotHttp2,
    #[error("by the proxy {proxy}")]
    Proxy { proxy: String, source: BoxError },
}

/// Connects to the endpoint of one configuration, whatever URI it is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Connector(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tcp: HttpConnector<Names>,
    /// With a port.
    destination: Uri,
    tls: Option<Tls>,
    http2: bool,
    proxy: Option<(Proxy, Option<Tls>)>,
    timeout: Duration,
}

impl Connector {
    /// Reads the TLS files.
    pub(crate) fn new(config: &OtlpConfig) -> Result<Self, TransportError> {
        Self::with_names(config, Names::system())
    }

    pub(super) fn with_names(config: &OtlpConfig, names: Names) -> Result<Self, TransportError> {
        let mut tcp = HttpConnector::new_with_resolver(names);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(config.timeout));
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
        tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let tls = |wanted: bool, files: &TlsFiles, protocols: &[&[u8]]| {
            let made = wanted.then(|| Tls::new(files.clone(), protocols)).transpose();
            made.map_err(|error| TransportError::Tls {
                endpoint: config.target(),
                error,
            })
        };
        let http2 = config.protocol == Protocol::Grpc;
        let protocols: &[&[u8]] = if http2 { &[b"h2"] } else { &[] };
        let https = |uri: &Uri| uri.scheme() == Some(&Scheme::HTTPS);
        let proxy = match &config.proxy {
            None => None,
            // The variables speak of the collector, not of the proxy: that one is judged by the host's authorities.
            Some(proxy) => Some((proxy.clone(), tls(https(&proxy.uri), &TlsFiles::default(), &[])?)),
        };
        Ok(Self(Arc::new(Inner {
            tcp,
            destination: with_port(&config.endpoint),
            tls: tls(https(&config.endpoint), &config.tls, protocols)?,
            http2,
            proxy,
            timeout: config.timeout,
        })))
    }

    async fn connect(self) -> Result<Stream, BoxError> {
        let timeout = self.0.timeout;
        let connecting = self.connect_in_its_time();
        let connected = tokio::time::timeout(timeout, connecting).await;
        connected.unwrap_or_else(|_| Err(ConnectError::Timeout(timeout).into()))
    }

    async fn connect_in_its_time(self) -> Result<Stream, BoxError> {
        let inner = &*self.0;
        let tls = match inner.tls {
            Some(_) => Some(self.clone().settings(|inner| inner.tls.as_ref()).await?),
            None => None,
        };
        let mut forwarded = false;
        let io = match &inner.proxy {
            None => Hop::to(&inner.tcp, None).call(inner.destination.clone()).await?,
            Some((proxy, proxy_tls)) => {
                let proxy_tls = match proxy_tls {
                    Some(_) => Some(self.clone().settings(Inner::proxy_tls).await?),
                    None => None,
                };
                forwarded = proxy.forwards;
                let hop = Hop::to(&inner.tcp, proxy_tls);
                let through = through(proxy, hop, inner.destination.clone()).await;
                through.map_err(|source| ConnectError::Proxy {
                    proxy: proxy.target(),
                    source,
                })?
            }
        };
        let Some(tls) = tls else {
            return Ok(Stream { io, forwarded });
        };
        let io = handshake(tls, &inner.destination, io).await?;
        if inner.http2 && io.inner().get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(ConnectError::NotHttp2.into());
        }
        Ok(Stream {
            io: Box::new(io),
            forwarded,
        })
    }

    /// Reads files, which may be on a slow disk.
    async fn settings(self, which: fn(&Inner) -> Option<&Tls>) -> Result<Arc<ClientConfig>, BoxError> {
        let read = move || which(&self.0).map(Tls::current).transpose();
        let settings = tokio::task::spawn_blocking(read).await??;
        settings.ok_or_else(|| io::Error::other("no TLS settings").into())
    }
}

impl Inner {
    fn proxy_tls(&self) -> Option<&Tls> {
        self.proxy.as_ref()?.1.as_ref()
    }
}

/// To the proxy, and on through a tunnel unless the proxy itself takes the requests.
async fn through(proxy: &Proxy, mut hop: Hop, destination: Uri) -> Result<BoxedIo, BoxError> {
    if proxy.forwards {
        return hop.call(with_port(&proxy.uri)).await;
    }
    let mut tunnel = Tunnel::new(with_port(&proxy.uri), hop);
    if let Some(authorization) = &proxy.authorization {
        tunnel = tunnel.with_auth(authorization.clone());
    }
    Ok(tunnel.call(destination).await?)
}

type TlsIo = TokioIo<tokio_rustls::client::TlsStream<TokioIo<BoxedIo>>>;

async fn handshake(tls: Arc<ClientConfig>, to: &Uri, io: BoxedIo) -> Result<TlsIo, BoxError> {
    let host = to.host().unwrap_or_default();
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
    let stream = TlsConnector::from(tls).connect(name, TokioIo::new(io)).await?;
    Ok(TokioIo::new(stream))
}

/// The tunnel's default port is 443 and TCP's depends on the scheme.
fn with_port(uri: &Uri) -> Uri {
    let default = if uri.scheme() == Some(&Scheme::HTTPS) {
        443
    } else {
        80
    };
    let mut parts = http::uri::Parts::default();
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(default);
    parts.scheme = uri.scheme().cloned();
    parts.authority = Authority::try_from(format!("{host}:{port}")).ok();
    parts.path_and_query = Some(PathAndQuery::from_static("/"));
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Connecting<Stream>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

/// TCP, and TLS if there are settings for it.
#[derive(Clone)]
struct Hop {
    tcp: HttpConnector<Names>,
    tls: Option<Arc<ClientConfig>>,
}

impl Hop {
    fn to(tcp: &HttpConnector<Names>, tls: Option<Arc<ClientConfig>>) -> Self {
        Self {
            tcp: tcp.clone(),
            tls,
        }
    }
}

impl Service<Uri> for Hop {
    type Response = BoxedIo;
    type Error = BoxError;
    type Future = Connecting<BoxedIo>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let Self { mut tcp, tls } = self.clone();
        Box::pin(async move {
            let io: BoxedIo = Box::new(tcp.call(to.clone()).await?);
            Ok(match tls {
                None => io,
                Some(tls) => Box::new(handshake(tls, &to, io).await?),
            })
        })
    }
}

trait Io: Read + Write + Send + Unpin {}

impl<T: Read + Write + Send + Unpin> Io for T {}

type BoxedIo = Box<dyn Io>;

/// A connection.
pub(crate) struct Stream {
    io: BoxedIo,
    /// It ends at a proxy, which wants whole URIs.
    forwarded: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.forwarded)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }
}
