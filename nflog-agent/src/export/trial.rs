//! One try of each step to a collector, for `check`: the same code as for records, with nothing to send.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use tokio::net::lookup_host;
use tokio::time::timeout;
use tower_service::Service as _;

use super::config::OtlpConfig;
use super::connect::Connector;
use super::transport::Transport;
use crate::causes::causes;

/// What the name of the endpoint stands for.
pub(crate) async fn addresses(config: &OtlpConfig) -> io::Result<Vec<SocketAddr>> {
    let host = config.endpoint.host().unwrap_or_default();
    let https = config.endpoint.scheme_str() == Some("https");
    let port = config.endpoint.port_u16().unwrap_or(if https { 443 } else { 80 });
    let looked = lookup_host(format!("{host}:{port}"));
    let found = timeout(config.timeout, looked).await;
    Ok(found.map_err(|_| io::ErrorKind::TimedOut)??.collect())
}

/// TCP, proxy and TLS.
pub(crate) async fn connect(config: &OtlpConfig) -> Result<(), String> {
    let mut connector = Connector::new(config).map_err(|error| error.to_string())?;
    let connected = connector.call(config.endpoint.clone()).await;
    connected.map(drop).map_err(|error| causes(&*error))
}

/// Why the receiver did not take a request.
pub(crate) struct Refused {
    /// In its words, or those of the connection.
    pub(crate) reason: String,
    /// What the operator may have meant.
    pub(crate) hint: Option<&'static str>,
}

/// A request without records.
pub(crate) async fn export(config: &OtlpConfig) -> Result<(), Refused> {
    let transport = Transport::otlp(config).map_err(|error| Refused {
        reason: error.to_string(),
        hint: None,
    })?;
    let sent = transport.send(transport.prepare(&Bytes::new())).await;
    sent.map(drop).map_err(|failure| Refused {
        reason: failure.to_string(),
        hint: transport.hint(),
    })
}
