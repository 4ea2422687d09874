//! An OTLP receiver that answers as a script says, over gRPC or HTTP, and remembers what it accepted.

#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod certificates;
pub(crate) mod expected;
pub(crate) mod sample;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::ffi::OsString;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use nflog_agent::export::{OtlpConfig, Protocol, Signal};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value;
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{SockRef, Socket};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt as _;
use tonic::codec::CompressionEncoding;
use tonic::transport::ServerTlsConfig;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What the environment says for an endpoint, and more.
pub(crate) fn config(protocol: Protocol, endpoint: &str, more: &[(&str, String)]) -> OtlpConfig {
    let name = match protocol {
        Protocol::Grpc => "grpc",
        Protocol::HttpProtobuf => "http/protobuf",
    };
    let mut set = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.to_owned()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", name.to_owned()),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "30000".to_owned()),
    ];
    set.extend_from_slice(more);
    let get = |variable: &str| {
        let found = set.iter().find(|(name, _)| *name == variable);
        found.map(|(_, value)| OsString::from(value))
    };
    OtlpConfig::from_env(Signal::Logs, get).unwrap().unwrap()
}

/// What to answer to one request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Accept,
    /// Accept all but so many records.
    Partial(i64, &'static str),
    /// Only gRPC: a status, and a `RetryInfo`.
    Grpc(Code, Option<Duration>),
    /// Only HTTP: a status, and a `Retry-After`.
    Http(u16, Option<&'static str>),
    /// Only HTTP: close the connection instead of answering.
    Reset,
    /// Only HTTP: 200, but not from an OTLP server.
    Html,
    /// Do not answer.
    Hang,
}

#[derive(Default)]
struct State {
    script: Mutex<VecDeque<Answer>>,
    /// Instead of accepting when the script has ended.
    then: Mutex<Option<Answer>>,
    accepted: Mutex<Vec<ExportLogsServiceRequest>>,
    headers: Mutex<Vec<(String, String)>>,
    requests: AtomicUsize,
    /// Of gRPC: tonic's tasks outlive the server's.
    connections: Mutex<Vec<Socket>>,
}

impl State {
    fn next(&self, headers: &http::HeaderMap) -> Answer {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let headers = headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("").to_owned()));
        *self.headers.lock().unwrap() = headers.collect();
        let next = self.script.lock().unwrap().pop_front();
        next.or_else(|| *self.then.lock().unwrap())
            .unwrap_or(Answer::Accept)
    }

    fn accept(&self, request: ExportLogsServiceRequest) {
        self.accepted.lock().unwrap().push(request);
    }
}

/// A server's certificate and key, PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
    /// Clients must have a certificate of this authority.
    pub(crate) clients: Option<String>,
}

/// The running receiver; stops when dropped.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    /// Afterwards the port is free, and the connections are closed.
    fn drop(&mut self) {
        self.task.abort();
        for connection in self.state.connections.lock().unwrap().drain(..) {
            // The client may have closed it.
            let _ = connection.shutdown(Shutdown::Both);
        }
        // The listener goes with the task; a runtime that is gone has dropped both.
        for _ in 0..1000 {
            if self.task.is_finished() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Receiver {
    /// Answers as `script` says, then accepts.
    pub(crate) fn start(runtime: &Handle, protocol: Protocol, script: &[Answer]) -> Self {
        Self::start_at(
            runtime,
            protocol,
            script,
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        )
    }

    pub(crate) fn start_at(
        runtime: &Handle,
        protocol: Protocol,
        script: &[Answer],
        address: SocketAddr,
    ) -> Self {
        Self::serve(runtime, protocol, script, address, None)
    }

    /// Accepts everything, by TLS.
    pub(crate) fn start_tls(
        runtime: &Handle,
        protocol: Protocol,
        identity: Identity,
        address: SocketAddr,
    ) -> Self {
        Self::serve(runtime, protocol, &[], address, Some(identity))
    }

    fn serve(
        runtime: &Handle,
        protocol: Protocol,
        script: &[Answer],
        address: SocketAddr,
        identity: Option<Identity>,
    ) -> Self {
        let state = Arc::new(State {
            script: Mutex::new(script.iter().copied().collect()),
            ..State::default()
        });
        let listener = runtime
            .block_on(TcpListener::bind(address))
            .expect("a free port on loopback");
        let address = listener.local_addr().unwrap();
        let task = match protocol {
            Protocol::Grpc => runtime.spawn(serve_grpc(listener, Arc::clone(&state), identity)),
            Protocol::HttpProtobuf => runtime.spawn(serve_http(listener, Arc::clone(&state), identity)),
        };
        Self { address, state, task }
    }

    /// Answers like this from now on, after the script.
    pub(crate) fn then(&self, answer: Answer) {
        *self.state.then.lock().unwrap() = Some(answer);
    }

    /// Requests that arrived, whatever the answer.
    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Requests that were accepted.
    pub(crate) fn accepted(&self) -> Vec<ExportLogsServiceRequest> {
        self.state.accepted.lock().unwrap().clone()
    }

    /// A header of the last request.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let headers = self.state.headers.lock().unwrap();
        headers
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.clone())
    }

    /// `nflog.seq` of every accepted packet, sorted.
    pub(crate) fn sequence_numbers(&self) -> Vec<i64> {
        let mut numbers: Vec<_> = self.attributes("nflog.seq").map(number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// The ids under which each sequence number has arrived.
    pub(crate) fn ids(&self) -> BTreeMap<i64, BTreeSet<String>> {
        let ids = self.attributes("log.record.uid").map(|id| match id {
            any_value::Value::StringValue(id) => id,
            other => panic!("an id is {other:?}"),
        });
        let mut of_numbers = BTreeMap::<_, BTreeSet<_>>::new();
        for (seq, id) in self.attributes("nflog.seq").map(number).zip(ids) {
            of_numbers.entry(seq).or_default().insert(id);
        }
        of_numbers
    }

    /// The values of an attribute, one for each record that has it.
    fn attributes(&self, key: &'static str) -> impl Iterator<Item = any_value::Value> {
        self.accepted()
            .into_iter()
            .flat_map(|request| request.resource_logs)
            .flat_map(|resource| resource.scope_logs)
            .flat_map(|scope| scope.log_records)
            .flat_map(|record| record.attributes)
            .filter(move |attribute| attribute.key == key)
            .map(|attribute| {
                let value = attribute.value.and_then(|value| value.value);
                value.expect("a value")
            })
    }
}

fn number(value: any_value::Value) -> i64 {
    match value {
        any_value::Value::IntValue(number) => number,
        other => panic!("nflog.seq is {other:?}"),
    }
}

fn partial(rejected: i64, message: &str) -> ExportLogsServiceResponse {
    ExportLogsServiceResponse {
        partial_success: Some(ExportLogsPartialSuccess {
            rejected_log_records: rejected,
            error_message: message.to_owned(),
        }),
    }
}

struct GrpcLogs(Arc<State>);

#[tonic::async_trait]
impl LogsService for GrpcLogs {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let response = match self.0.next(&metadata.into_headers()) {
            Answer::Accept => {
                self.0.accept(request);
                ExportLogsServiceResponse::default()
            }
            Answer::Partial(rejected, message) => {
                self.0.accept(request);
                partial(rejected, message)
            }
            Answer::Grpc(code, Some(delay)) => {
                let details = ErrorDetails::with_retry_info(Some(delay));
                return Err(Status::with_error_details(code, "scripted", details));
            }
            Answer::Grpc(code, None) => return Err(Status::new(code, "scripted")),
            Answer::Hang => std::future::pending().await,
            answer @ (Answer::Http(..) | Answer::Reset | Answer::Html) => {
                panic!("{answer:?} is not for gRPC")
            }
        };
        Ok(tonic::Response::new(response))
    }
}

async fn serve_grpc(listener: TcpListener, state: Arc<State>, identity: Option<Identity>) {
    let known = Arc::clone(&state);
    let service = LogsServiceServer::new(GrpcLogs(state))
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd);
    let incoming = tonic::transport::server::TcpIncoming::from(listener).map(move |accepted| {
        let stream = accepted?;
        let connection = SockRef::from(&stream).try_clone()?;
        known.connections.lock().unwrap().push(connection);
        Ok::<_, std::io::Error>(stream)
    });
    let mut server = tonic::transport::Server::builder();
    if let Some(Identity {
        certificate,
        key,
        clients,
    }) = identity
    {
        let identity = tonic::transport::Identity::from_pem(certificate, key);
        let mut tls = ServerTlsConfig::new().identity(identity);
        if let Some(clients) = clients {
            tls = tls.client_ca_root(tonic::transport::Certificate::from_pem(clients));
        }
        server = server.tls_config(tls).expect("a valid certificate");
    }
    server
        .add_service(service)
        .serve_with_incoming(incoming)
        .await
        .expect("the gRPC receiver serves");
}

fn acceptor(identity: &Identity) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
    let provider = rustls::crypto::ring::default_provider();
    let provider = Arc::new(provider);
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match &identity.clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = rustls::RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_slice(clients.as_bytes()).expect("a certificate"))
                .expect("an authority");
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().expect("an authority"))
        }
    };
    let config = builder
        .with_single_cert(vec![certificate], key)
        .expect("a key that fits the certificate");
    TlsAcceptor::from(Arc::new(config))
}

async fn serve_http(listener: TcpListener, state: Arc<State>, identity: Option<Identity>) {
    let acceptor = identity.as_ref().map(acceptor);
    // Dropped with this task, and with them the connections.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("the HTTP receiver accepts");
        let state = Arc::clone(&state);
        let service = hyper::service::service_fn(move |request| answer_http(Arc::clone(&state), request));
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            let http = hyper::server::conn::http1::Builder::new();
            // A connection that the script resets, or whose client does not trust us, ends in an error.
            match acceptor {
                None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        drop(http.serve_connection(TokioIo::new(stream), service).await);
                    }
                }
            }
        });
    }
}

/// The script's way to close a connection.
#[derive(Debug)]
struct ResetConnection;

impl std::fmt::Display for ResetConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("reset")
    }
}

impl std::error::Error for ResetConnection {}

impl From<Infallible> for ResetConnection {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

async fn answer_http(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, ResetConnection> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| ResetConnection)?.to_bytes();
    let answer = state.next(&head.headers);
    let response = Response::builder();
    if head.method != http::Method::POST
        || head.uri.path() != "/v1/logs"
        || head
            .headers
            .get("content-type")
            .is_none_or(|value| value != "application/x-protobuf")
    {
        return Ok(response
            .status(StatusCode::NOT_FOUND)
            .body(Full::default())
            .unwrap());
    }
    let protobuf = |message: &ExportLogsServiceResponse| {
        let response = Response::builder().header("content-type", "application/x-protobuf");
        response.body(Full::from(message.encode_to_vec())).unwrap()
    };
    match answer {
        Answer::Accept => {
            state.accept(decode(&head.headers, &body));
            Ok(protobuf(&ExportLogsServiceResponse::default()))
        }
        Answer::Partial(rejected, message) => {
            state.accept(decode(&head.headers, &body));
            Ok(protobuf(&partial(rejected, message)))
        }
        Answer::Http(status, retry_after) => {
            let mut response = response.status(status);
            if let Some(retry_after) = retry_after {
                response = response.header("retry-after", retry_after);
            }
            Ok(response.body(Full::from("scripted")).unwrap())
        }
        Answer::Html => {
            let response = response.header("content-type", "text/html; charset=utf-8");
            Ok(response.body(Full::from("<html>Please log in</html>")).unwrap())
        }
        Answer::Reset => Err(ResetConnection),
        Answer::Hang => std::future::pending().await,
        Answer::Grpc(..) => panic!("{answer:?} is not for HTTP"),
    }
}

fn decode(headers: &http::HeaderMap, body: &[u8]) -> ExportLogsServiceRequest {
    let mut inflated = Vec::new();
    let encoding = headers.get("content-encoding").map(http::HeaderValue::as_bytes);
    let body = match encoding {
        None => body,
        Some(b"gzip") => {
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(body), &mut inflated)
                .expect("valid gzip");
            &inflated[..]
        }
        Some(b"zstd") => {
            inflated = zstd::stream::decode_all(body).expect("valid zstd");
            &inflated[..]
        }
        Some(other) => panic!("unexpected encoding {other:?}"),
    };
    ExportLogsServiceRequest::decode(body).expect("valid protobuf")
}
