//! OTLP over HTTP/1.1 with protobuf bodies.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::config::{Compression, OtlpConfig};
use super::reply::{self, PartialSuccess};
use super::retry::{Failure, retry_after};
use super::transport::{self, TransportError};
use crate::causes::causes;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 1 << 20;

/// Bytes of an error document that a message shows.
const MAX_MESSAGE: usize = 200;

/// Connections that idle longer are closed: many proxies close theirs after 60 s.
const IDLE: Duration = Duration::from_secs(45);

#[derive(Debug)]
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    endpoint: Uri,
    headers: HeaderMap,
    compression: Compression,
    timeout: Duration,
}

impl Http {
    pub(super) fn new(config: &OtlpConfig) -> Result<Self, TransportError> {
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector(config)?);
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(transport::USER_AGENT));
        headers.extend(config.headers.iter().cloned());
        headers.insert(CONTENT_TYPE, PROTOBUF);
        if config.compression == Compression::Gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(Self {
            client,
            endpoint: config.endpoint.clone(),
            headers,
            compression: config.compression,
            timeout: config.timeout,
        })
    }

    /// Compresses once for all attempts.
    pub(super) fn prepare(&self, payload: &Bytes) -> Bytes {
        match self.compression {
            Compression::None => payload.clone(),
            Compression::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
                let written = encoder.write_all(payload).and_then(|()| encoder.finish());
                Bytes::from(written.expect("writing to a Vec does not fail"))
            }
        }
    }

    pub(super) async fn send(&self, body: Bytes) -> Result<PartialSuccess, Failure> {
        tokio::time::timeout(self.timeout, self.request(body))
            .await
            .unwrap_or(Err(Failure::Timeout { after: self.timeout }))
    }

    async fn request(&self, body: Bytes) -> Result<PartialSuccess, Failure> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.clone();
        *request.headers_mut() = self.headers.clone();
        let response = self.client.request(request).await;
        answer(response.map_err(|error| Failure::Connection {
            reason: causes(&error),
        })?)
        .await
    }
}

/// Connects in the clear or by TLS, as the endpoint's scheme says.
pub(crate) fn connector(config: &OtlpConfig) -> Result<HttpsConnector<HttpConnector>, TransportError> {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(config.timeout));
    tcp.enforce_http(false);
    let provider = rustls::crypto::ring::default_provider();
    let builder = HttpsConnectorBuilder::new();
    let builder = if config.endpoint.scheme_str() == Some("https") {
        let with_roots = builder.with_provider_and_native_roots(provider);
        with_roots.map_err(|error| TransportError::Roots {
            endpoint: config.target(),
            reason: error.to_string(),
        })?
    } else {
        // Reading the host's certificates would be for nothing.
        builder.with_tls_config(
            rustls::ClientConfig::builder_with_provider(provider.into())
                .with_safe_default_protocol_versions()
                .expect("ring has the default versions")
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth(),
        )
    };
    Ok(builder.https_or_http().enable_http1().wrap_connector(tcp))
}

async fn answer(response: Response<Incoming>) -> Result<PartialSuccess, Failure> {
    let (head, body) = response.into_parts();
    let body = match Limited::new(body, MAX_ANSWER).collect().await {
        Ok(body) => body.to_bytes(),
        // No answer of this protocol is that long; the status counts.
        Err(error) if error.is::<LengthLimitError>() => Bytes::new(),
        Err(error) => {
            return Err(Failure::Connection {
                reason: causes(&*error),
            });
        }
    };
    let content_type = head.headers.get(CONTENT_TYPE);
    if head.status.is_success() {
        if let Some(content_type) = content_type.and_then(|value| value.to_str().ok())
            && content_type.starts_with("text/html")
        {
            return Err(Failure::NotOtlp {
                content_type: content_type.to_owned(),
            });
        }
        let partial = (content_type == Some(&PROTOBUF)).then(|| reply::partial_success(&body));
        return Ok(partial.flatten().unwrap_or_default());
    }
    let retry_after = head
        .headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| retry_after(value, SystemTime::now()));
    let message = message(content_type, &body);
    Err(Failure::Http {
        status: head.status,
        message,
        retry_after,
    })
}

/// `: ` and `google.rpc.Status.message`, as the specification wants, else the beginning of what is there.
fn message(content_type: Option<&HeaderValue>, body: &[u8]) -> String {
    let status_message = (content_type == Some(&PROTOBUF))
        .then(|| reply::rpc_status(body))
        .flatten();
    let text = match status_message {
        Some(rpc_status) => rpc_status.message,
        None => String::from_utf8_lossy(&body[..body.len().min(MAX_MESSAGE)]).into_owned(),
    };
    let text = text.trim();
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    }
}
