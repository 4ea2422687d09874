//! The export by TLS: the host's authorities and files of one's own, client certificates, renewal of either side's files, proxies.
#![cfg(feature = "agent")]

mod otlp_receiver;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nflog_agent::export::{
    ExportQueue, Exporter, ExporterOptions, OtlpConfig, Protocol, RetryPolicy, Transport,
};
use nflog_agent::record::{Encoder as _, Loss, Otlp, Resource};
use nflog_agent::telemetry::ledger::Ledger;
use otlp_receiver::certificates::Certificates;
use otlp_receiver::{Identity, Receiver, config};
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(30);
const BOTH: [Protocol; 2] = [Protocol::Grpc, Protocol::HttpProtobuf];

/// Tells a child what it is: the directory with the certificates.
const DIRECTORY: &str = "NFLOG_TEST_TLS_DIRECTORY";
/// Tells a child whether its `SSL_CERT_FILE` vouches for the server.
const TRUSTED: &str = "NFLOG_TEST_TLS_TRUSTED";

fn anywhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// An exporter that does not give up.
fn exporter(config: &OtlpConfig, runtime: &Runtime) -> (ExportQueue, Exporter) {
    let retry = RetryPolicy {
        initial: Duration::from_millis(5),
        max: Duration::from_millis(5),
        give_up: PATIENCE,
    };
    let options = ExporterOptions {
        retry,
        ..ExporterOptions::default()
    };
    let transport = Transport::otlp(config).unwrap_or_else(|error| panic!("{error}"));
    Exporter::start(transport, options, runtime.handle())
}

fn push(queue: &ExportQueue) {
    let mut encoder = Otlp::new(Resource::new(), &Ledger::new());
    encoder.push_loss(&Loss {
        observed_unix_nano: 1,
        netns: 2,
        group: 3,
        packets: 4,
        reason: "test",
    });
    queue.try_push(encoder.take()).unwrap();
}

fn wait(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One batch: it arrives, or is tried in vain.
fn export(config: &OtlpConfig, runtime: &Runtime, receiver: &Receiver, arrives: bool) {
    let before = receiver.accepted().len();
    let (queue, exporter) = exporter(config, runtime);
    push(&queue);
    if arrives {
        assert!(exporter.close(PATIENCE));
    } else {
        wait("a retry", || queue.stats().retries > 0);
        assert!(exporter.close(Duration::from_millis(100)));
    }
    let after = receiver.accepted().len();
    assert_eq!(after - before, usize::from(arrives), "{:?}", config.protocol);
}

#[test]
fn a_server_is_spoken_to_if_the_hosts_authorities_vouch_for_it_and_only_then() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let trusted = std::env::var(TRUSTED).as_deref() == Ok("yes");
        let read = |name: &str| std::fs::read_to_string(Path::new(&directory).join(name)).unwrap();
        for protocol in BOTH {
            let runtime = Runtime::new().unwrap();
            let identity = Identity {
                certificate: read("server.pem"),
                key: read("server.key"),
                clients: None,
            };
            let receiver = Receiver::start_tls(runtime.handle(), protocol, identity, anywhere());
            let endpoint = format!("https://localhost:{}", receiver.address.port());
            export(&config(protocol, &endpoint, &[]), &runtime, &receiver, trusted);
        }
        return;
    }
    let certificates = Certificates::new();
    for (authorities, trusted) in [("ours.pem", "yes"), ("strangers.pem", "no")] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "a_server_is_spoken_to_if_the_hosts_authorities_vouch_for_it_and_only_then",
                "--exact",
            ])
            .arg("--nocapture")
            .env(DIRECTORY, certificates.directory())
            .env(TRUSTED, trusted)
            .env("SSL_CERT_FILE", certificates.path(authorities))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{authorities}: {text}");
        assert!(text.contains("1 passed"), "the child ran nothing: {text}");
    }
}

#[test]
fn files_of_ones_own_say_whom_to_trust_and_who_we_are() {
    let certificates = Certificates::new();
    let path = |name: &str| certificates.path(name);
    for protocol in BOTH {
        let runtime = Runtime::new().unwrap();
        let identity = certificates.identity("server", Some("ours.pem"));
        let receiver = Receiver::start_tls(runtime.handle(), protocol, identity, anywhere());
        let endpoint = format!("https://localhost:{}", receiver.address.port());
        let certificate = |name| ("OTEL_EXPORTER_OTLP_CERTIFICATE", path(name));
        let client = |name: &str| {
            [
                (
                    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
                    path(&format!("{name}.pem")),
                ),
                ("OTEL_EXPORTER_OTLP_CLIENT_KEY", path(&format!("{name}.key"))),
            ]
        };
        for (authorities, who, arrives) in [
            ("ours.pem", Some("client"), true),
            ("strangers.pem", Some("client"), false),
            ("ours.pem", Some("stranger"), false),
            ("ours.pem", None, false),
        ] {
            let mut set = vec![certificate(authorities)];
            set.extend(who.into_iter().flat_map(client));
            export(&config(protocol, &endpoint, &set), &runtime, &receiver, arrives);
        }
    }
}

#[test]
fn an_expired_server_is_not_spoken_to_and_a_renewed_one_gets_all_that_waited() {
    let certificates = Certificates::new();
    for protocol in BOTH {
        let runtime = Runtime::new().unwrap();
        let expired = Receiver::start_tls(
            runtime.handle(),
            protocol,
            certificates.identity("expired", None),
            anywhere(),
        );
        let address = expired.address;
        let set = [("OTEL_EXPORTER_OTLP_CERTIFICATE", certificates.path("ours.pem"))];
        let endpoint = format!("https://localhost:{}", address.port());
        let (queue, exporter) = exporter(&config(protocol, &endpoint, &set), &runtime);
        for _ in 0..10 {
            push(&queue);
        }
        wait("retries", || queue.stats().retries > 5);
        assert_eq!(expired.requests(), 0);
        drop(expired);
        let identity = certificates.identity("server", None);
        let renewed = Receiver::start_tls(runtime.handle(), protocol, identity, address);
        wait("the delivery", || renewed.accepted().len() == 10);
        assert!(exporter.close(PATIENCE));
        assert_eq!(renewed.accepted().len(), 10, "{protocol:?}");
    }
}

#[test]
fn files_that_are_renewed_on_disk_count_from_the_next_connection_on() {
    for protocol in BOTH {
        let certificates = Certificates::new();
        let runtime = Runtime::new().unwrap();
        certificates.renew("mounted", "stranger");
        let identity = certificates.identity("server", Some("ours.pem"));
        let receiver = Receiver::start_tls(runtime.handle(), protocol, identity, anywhere());
        let set = [
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", certificates.path("ours.pem")),
            (
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
                certificates.path("mounted.pem"),
            ),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", certificates.path("mounted.key")),
        ];
        let endpoint = format!("https://localhost:{}", receiver.address.port());
        let (queue, exporter) = exporter(&config(protocol, &endpoint, &set), &runtime);
        push(&queue);
        wait("retries", || queue.stats().retries > 3);
        assert_eq!(receiver.requests(), 0);
        certificates.renew("mounted", "client");
        wait("the delivery", || receiver.accepted().len() == 1);
        assert!(exporter.close(PATIENCE));
    }
}

/// A proxy: takes CONNECT, and requests for whole URIs. Remembers the heads that it was sent.
struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start() -> Self {
        let listener = TcpListener::bind(anywhere()).unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let known = Arc::clone(&heads);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let known = Arc::clone(&known);
                std::thread::spawn(move || relay(client.unwrap(), &known));
            }
        });
        Self { address, heads }
    }
}

fn relay(client: TcpStream, heads: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    heads.lock().unwrap().push(head.clone());
    let target = head.split(' ').nth(1).unwrap();
    let authority = target.trim_start_matches("http://").split('/').next().unwrap();
    let mut server = TcpStream::connect(authority).unwrap();
    let mut answers = server.try_clone().unwrap();
    let mut to_client = client;
    if head.starts_with("CONNECT ") {
        to_client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    } else {
        // As a proxy does: the server is asked for the path.
        let origin = format!("http://{authority}");
        server.write_all(head.replace(&origin, "").as_bytes()).unwrap();
    }
    let back = std::thread::spawn(move || {
        // Either side may end it.
        let _ = std::io::copy(&mut answers, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = reader.read(&mut buffer) {
        if server.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
    back.join().unwrap();
}

#[test]
fn a_proxy_is_gone_through_by_a_tunnel_or_with_the_whole_uri() {
    let certificates = Certificates::new();
    let runtime = Runtime::new().unwrap();
    for protocol in BOTH {
        for tls in [false, true] {
            let proxy = Proxy::start();
            let (receiver, scheme) = if tls {
                let identity = certificates.identity("server", None);
                let started = Receiver::start_tls(runtime.handle(), protocol, identity, anywhere());
                (started, "https")
            } else {
                (Receiver::start(runtime.handle(), protocol, &[]), "http")
            };
            let authority = format!("localhost:{}", receiver.address.port());
            let set = [
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", certificates.path("ours.pem")),
                ("ALL_PROXY", format!("http://user:s3cret@{}", proxy.address)),
            ];
            let config = config(protocol, &format!("{scheme}://{authority}"), &set);
            export(&config, &runtime, &receiver, true);
            let heads = proxy.heads.lock().unwrap().clone();
            let expected = if protocol == Protocol::HttpProtobuf && !tls {
                format!("POST http://{authority}/v1/logs HTTP/1.1\r\n")
            } else {
                format!("CONNECT {authority} HTTP/1.1\r\n")
            };
            assert!(!heads.is_empty(), "{protocol:?} {scheme}: not by the proxy");
            for head in heads {
                assert!(head.starts_with(&expected), "{head}");
                assert!(
                    head.to_lowercase()
                        .contains("proxy-authorization: basic dxnlcjpzm2nyzxq="),
                    "{head}"
                );
            }
            // No message shows the password.
            assert!(!format!("{config:?}").contains("s3cret"));
        }
    }
}
