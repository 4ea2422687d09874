//! OTLP over gRPC: tonic with a codec that passes bytes through.

use std::error::Error as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::HeaderMap;
use http::uri::PathAndQuery;
use tonic::codec::{BufferSettings, Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use super::config::{Compression, OtlpConfig};
use super::reply::{self, PartialSuccess};
use super::retry::Failure;
use super::transport::{TransportError, USER_AGENT};
use crate::causes::causes;

const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// Keeps NAT entries alive and notices dead peers. HTTP/2 pings would do it too, but gRPC servers close connections
/// that ping more often than every 5 minutes.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Grpc {
    endpoint: Endpoint,
    /// Made when needed, because making it needs a runtime.
    channel: Mutex<Option<Channel>>,
    metadata: MetadataMap,
    compression: Compression,
    timeout: Duration,
}

impl Grpc {
    pub(super) fn new(config: &OtlpConfig) -> Result<Self, TransportError> {
        Ok(Self {
            endpoint: endpoint(config)?,
            channel: Mutex::new(None),
            metadata: MetadataMap::from_headers(config.headers.iter().cloned().collect::<HeaderMap>()),
            compression: config.compression,
            timeout: config.timeout,
        })
    }

    pub(super) async fn send(&self, body: Bytes) -> Result<PartialSuccess, Failure> {
        let Ok(outcome) = tokio::time::timeout(self.timeout, self.request(body)).await else {
            // The peer may be gone for good without a word: connect, and resolve its name, anew.
            *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return Err(Failure::Timeout { after: self.timeout });
        };
        outcome
    }

    async fn request(&self, body: Bytes) -> Result<PartialSuccess, Failure> {
        let mut client = tonic::client::Grpc::new(self.channel());
        if self.compression == Compression::Gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        client.ready().await.map_err(|error| Failure::Connection {
            reason: causes(&error),
        })?;
        let codec = Raw { len: body.len() };
        let mut request = Request::new(body);
        *request.metadata_mut() = self.metadata.clone();
        let response = client
            .unary(request, PathAndQuery::from_static(EXPORT), codec)
            .await;
        let answer = response.map_err(|status| failure(&status))?.into_inner();
        // The server said OK. An answer that cannot be read does not take that back.
        Ok(reply::partial_success(&answer).unwrap_or_default())
    }

    fn channel(&self) -> Channel {
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        channel
            .get_or_insert_with(|| self.endpoint.connect_lazy())
            .clone()
    }
}

/// A connection for another signal; connects when it is used. Needs a runtime.
pub(crate) fn channel(config: &OtlpConfig) -> Result<Channel, TransportError> {
    Ok(endpoint(config)?.connect_lazy())
}

/// The connection's settings.
fn endpoint(config: &OtlpConfig) -> Result<Endpoint, TransportError> {
    let endpoint = Endpoint::from(config.endpoint.clone())
        .connect_timeout(config.timeout)
        .tcp_keepalive(Some(TCP_KEEPALIVE))
        .user_agent(USER_AGENT)
        .expect("the name and version are a valid header");
    if config.endpoint.scheme_str() != Some("https") {
        return Ok(endpoint);
    }
    let tls = ClientTlsConfig::new().with_native_roots();
    endpoint.tls_config(tls).map_err(|error| TransportError::Roots {
        endpoint: config.target(),
        reason: causes(&error),
    })
}

/// A status with a source was made on this side: the server never said it.
fn failure(status: &Status) -> Failure {
    if let Some(source) = status.source() {
        return Failure::Connection {
            reason: causes(source),
        };
    }
    let details = reply::rpc_status(status.details()).unwrap_or_default();
    Failure::Grpc {
        code: status.code(),
        message: status.message().to_owned(),
        retry_after: details.retry_delay,
    }
}

/// Passes messages through as bytes.
struct Raw {
    len: usize,
}

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = RawAnswer;

    fn encoder(&mut self) -> Self {
        Self { len: self.len }
    }

    fn decoder(&mut self) -> RawAnswer {
        RawAnswer
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }

    /// One buffer of the right size instead of many of 8 KiB.
    fn buffer_settings(&self) -> BufferSettings {
        let framed = self.len + 64;
        BufferSettings::new(framed, framed)
    }
}

struct RawAnswer;

impl Decoder for RawAnswer {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let len = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(len)))
    }
}
