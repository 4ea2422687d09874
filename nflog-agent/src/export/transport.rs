//! One request to the receiver, whichever kind it is.

use std::io::Write;

use bytes::Bytes;
use thiserror::Error;

use super::config::{OtlpConfig, Protocol};
use super::grpc::Grpc;
use super::http::Http;
use super::pipe::Pipe;
use super::reply::PartialSuccess;
use super::retry::Failure;
use super::tls::TlsError;

/// How we call ourselves.
pub(super) const USER_AGENT: &str = concat!("nflog-agent/", env!("CARGO_PKG_VERSION"));

/// Where batches go.
#[derive(Debug)]
pub struct Transport {
    kind: Kind,
    name: String,
    hint: Option<&'static str>,
}

#[derive(Debug)]
enum Kind {
    Grpc(Box<Grpc>),
    Http(Box<Http>),
    Pipe(Pipe),
}

/// A transport that cannot be set up.
#[derive(Debug, Error)]
pub enum TransportError {
    /// `https` without certificate authorities to trust, or with files that cannot be used.
    #[error("{endpoint}: {error}")]
    Tls {
        /// The endpoint.
        endpoint: String,
        /// What is wrong.
        error: TlsError,
    },
    /// No thread for the output.
    #[error("cannot start the output thread: {0}; raise the limit on processes (ulimit -u, TasksMax)")]
    Thread(std::io::Error),
}

impl Transport {
    /// OTLP to a collector. Connects when the first batch is sent.
    ///
    /// # Errors
    /// An `https` endpoint on a host without certificate authorities, or with TLS files that cannot be used.
    pub fn otlp(config: &OtlpConfig) -> Result<Self, TransportError> {
        Ok(Self {
            kind: match config.protocol {
                Protocol::Grpc => Kind::Grpc(Box::new(Grpc::new(config)?)),
                Protocol::HttpProtobuf => Kind::Http(Box::new(Http::new(config)?)),
            },
            name: config.target(),
            hint: hint(config),
        })
    }

    /// Console or JSON lines to `output`, which is written from a thread of its own.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn pipe(output: Box<dyn Write + Send>) -> Result<Self, TransportError> {
        let pipe = Pipe::new(output).map_err(TransportError::Thread)?;
        Ok(Self {
            kind: Kind::Pipe(pipe),
            name: "the output".to_owned(),
            hint: None,
        })
    }

    /// For messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What the operator may have meant, if every request fails.
    pub(super) const fn hint(&self) -> Option<&'static str> {
        self.hint
    }

    /// Requests that may be in flight at once, at most `wanted`. Lines must stay in order.
    pub(super) const fn in_flight(&self, wanted: usize) -> usize {
        match self.kind {
            Kind::Pipe(_) => 1,
            Kind::Grpc(_) | Kind::Http(_) => wanted,
        }
    }

    /// The body of the request, for all its attempts.
    pub(super) fn prepare(&self, payload: &Bytes) -> Bytes {
        match &self.kind {
            Kind::Http(http) => http.prepare(payload),
            Kind::Grpc(_) | Kind::Pipe(_) => payload.clone(),
        }
    }

    /// One attempt.
    pub(super) async fn send(&self, body: Bytes) -> Result<PartialSuccess, Failure> {
        match &self.kind {
            Kind::Grpc(grpc) => grpc.send(body).await,
            Kind::Http(http) => http.send(body).await,
            Kind::Pipe(pipe) => pipe.send(body).await,
        }
    }
}

/// The two ports are easily confused, and the protocols' errors do not say so.
fn hint(config: &OtlpConfig) -> Option<&'static str> {
    match (config.protocol, config.endpoint.port_u16()) {
        (Protocol::HttpProtobuf, Some(4317)) => {
            Some("port 4317 is usually gRPC: set OTEL_EXPORTER_OTLP_PROTOCOL=grpc")
        }
        (Protocol::Grpc, Some(4318)) => {
            Some("port 4318 is usually HTTP: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf")
        }
        _ => None,
    }
}
