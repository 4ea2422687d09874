//! OTLP over gRPC: tonic with a codec that passes bytes through.

use std::error::Error as _;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Uri};
use tonic::codec::{BufferSettings, Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::aged::{Aged, MAX_AGE};
use super::config::{Compression, OtlpConfig};
use super::connect::Connector;
use super::reply::{self, PartialSuccess};
use super::retry::Failure;
use super::transport::{TransportError, USER_AGENT};
use crate::causes::causes;

const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

#[derive(Debug)]
pub(super) struct Grpc {
    endpoint: Endpoint,
    connector: Connector,
    /// Made when needed, because making it needs a runtime.
    channel: Aged<Channel>,
    metadata: MetadataMap,
    compression: Compression,
    timeout: Duration,
}

impl Grpc {
    pub(super) fn new(config: &OtlpConfig) -> Result<Self, TransportError> {
        Ok(Self::over(config, Connector::new(config)?, MAX_AGE))
    }

    pub(super) fn over(config: &OtlpConfig, connector: Connector, max_age: Duration) -> Self {
        Self {
            endpoint: endpoint(config),
            connector,
            channel: Aged::new(max_age),
            metadata: MetadataMap::from_headers(config.headers.iter().cloned().collect::<HeaderMap>()),
            compression: config.compression,
            timeout: config.timeout,
        }
    }

    pub(super) async fn send(&self, body: Bytes) -> Result<PartialSuccess, Failure> {
        let Ok(outcome) = tokio::time::timeout(self.timeout, self.request(body)).await else {
            // The peer may be gone for good without a word: connect, and resolve its name, anew.
            self.channel.forget();
            return Err(Failure::Timeout { after: self.timeout });
        };
        outcome
    }

    async fn request(&self, body: Bytes) -> Result<PartialSuccess, Failure> {
        let mut client = tonic::client::Grpc::new(self.channel());
        match self.compression {
            Compression::None => {}
            Compression::Gzip => client = client.send_compressed(CompressionEncoding::Gzip),
            Compression::Zstd => client = client.send_compressed(CompressionEncoding::Zstd),
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
        let connector = || self.connector.clone();
        let make = || self.endpoint.connect_with_connector_lazy(connector());
        self.channel.get(Instant::now(), make)
    }
}

/// A connection for another signal; connects when it is used. Needs a runtime.
pub(crate) fn channel(config: &OtlpConfig, connector: Connector) -> Channel {
    endpoint(config).connect_with_connector_lazy(connector)
}

/// The connection's settings, as far as they are HTTP/2's. The connector does TLS by itself, of which tonic must not know: it
/// gets the scheme for its requests, and a URI without TLS to connect to.
fn endpoint(config: &OtlpConfig) -> Endpoint {
    let mut parts = config.endpoint.clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    let plain = Uri::from_parts(parts).expect("the endpoint has a host and a path");
    Endpoint::from(plain)
        .origin(config.endpoint.clone())
        .user_agent(USER_AGENT)
        .expect("the name and version are a valid header")
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
