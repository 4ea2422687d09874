//! OTLP over HTTP/1.1 with protobuf bodies.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, PROXY_AUTHORIZATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::aged::{Aged, MAX_AGE};
use super::compress::{compress, encoding};
use super::config::{Compression, OtlpConfig};
use super::connect::Connector;
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

/// Sends requests over connections that are kept for a while.
#[derive(Debug)]
pub(crate) struct Client {
    connector: Connector,
    pool: Aged<Pool>,
    /// For a proxy that takes the requests itself.
    proxy_authorization: Option<HeaderValue>,
}

type Pool = legacy::Client<Connector, Full<Bytes>>;

impl Client {
    /// Connects when it is used. Reads the TLS files.
    pub(crate) fn new(config: &OtlpConfig) -> Result<Self, TransportError> {
        Ok(Self::over(config, Connector::new(config)?, MAX_AGE))
    }

    pub(super) fn over(config: &OtlpConfig, connector: Connector, max_age: Duration) -> Self {
        let proxy = config.proxy.as_ref().filter(|proxy| proxy.forwards);
        Self {
            connector,
            pool: Aged::new(max_age),
            proxy_authorization: proxy.and_then(|proxy| proxy.authorization.clone()),
        }
    }

    /// One request and the head of its answer. Needs a runtime.
    pub(crate) async fn request(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, legacy::Error> {
        if let Some(authorization) = &self.proxy_authorization {
            request
                .headers_mut()
                .insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        let pool = self.pool.get(Instant::now(), || {
            legacy::Client::builder(TokioExecutor::new())
                .pool_idle_timeout(IDLE)
                .pool_timer(TokioTimer::new())
                .build(self.connector.clone())
        });
        pool.request(request).await
    }
}

#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    endpoint: Uri,
    headers: HeaderMap,
    compression: Compression,
    timeout: Duration,
}

impl Http {
    pub(super) fn new(config: &OtlpConfig) -> Result<Self, TransportError> {
        Ok(Self::over(config, Client::new(config)?))
    }

    pub(super) fn over(config: &OtlpConfig, client: Client) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(transport::USER_AGENT));
        headers.extend(config.headers.iter().cloned());
        headers.insert(CONTENT_TYPE, PROTOBUF);
        if let Some(encoding) = encoding(config.compression) {
            headers.insert(CONTENT_ENCODING, encoding);
        }
        Self {
            client,
            endpoint: config.endpoint.clone(),
            headers,
            compression: config.compression,
            timeout: config.timeout,
        }
    }

    /// Compresses once for all attempts.
    pub(super) fn prepare(&self, payload: &Bytes) -> Bytes {
        compress(self.compression, payload)
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
