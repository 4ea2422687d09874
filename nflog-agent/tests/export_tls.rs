//! The export by TLS. The trusted certificate authorities come from `SSL_CERT_FILE`, so each case runs this test again
//! as a process of its own with that variable set.

mod otlp_receiver;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nflog_agent::export::{
    Compression, Exporter, ExporterOptions, OtlpConfig, Protocol, RetryPolicy, Transport,
};
use nflog_agent::record::{Encoder as _, Loss, Otlp, Resource};
use nflog_agent::telemetry::ledger::Ledger;
use otlp_receiver::{Identity, Receiver};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(30);

/// Tells a child what it is: the directory with the server's certificate and key.
const DIRECTORY: &str = "NFLOG_TEST_TLS_DIRECTORY";
/// Tells a child whether its `SSL_CERT_FILE` vouches for the server.
const TRUSTED: &str = "NFLOG_TEST_TLS_TRUSTED";

#[test]
fn a_server_is_spoken_to_if_the_hosts_authorities_vouch_for_it_and_only_then() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let trusted = std::env::var(TRUSTED).as_deref() == Ok("yes");
        for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
            export(protocol, Path::new(&directory), trusted);
        }
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text).unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        write(name, params.self_signed(&key).unwrap().pem());
        Issuer::new(params, key)
    };
    let (ours, _) = (authority("ours.pem"), authority("strangers.pem"));
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &ours)
        .unwrap();
    write("server.pem", certificate.pem());
    write("server.key", key.serialize_pem());

    for (authorities, trusted) in [("ours.pem", "yes"), ("strangers.pem", "no")] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "a_server_is_spoken_to_if_the_hosts_authorities_vouch_for_it_and_only_then",
                "--exact",
            ])
            .arg("--nocapture")
            .env(DIRECTORY, directory.path())
            .env(TRUSTED, trusted)
            .env("SSL_CERT_FILE", directory.path().join(authorities))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{authorities}: {text}");
        assert!(text.contains("1 passed"), "the child ran nothing: {text}");
    }
}

fn export(protocol: Protocol, directory: &Path, trusted: bool) {
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    let identity = Identity {
        certificate: read("server.pem"),
        key: read("server.key"),
    };
    let runtime = Runtime::new().unwrap();
    let receiver = Receiver::start_tls(runtime.handle(), protocol, identity);
    let config = OtlpConfig {
        protocol,
        endpoint: format!("https://localhost:{}/v1/logs", receiver.address.port())
            .parse()
            .unwrap(),
        headers: Vec::new(),
        timeout: PATIENCE,
        compression: Compression::None,
    };
    let retry = RetryPolicy {
        initial: Duration::from_millis(5),
        max: Duration::from_millis(5),
        give_up: if trusted {
            PATIENCE
        } else {
            Duration::from_millis(100)
        },
    };
    let options = ExporterOptions {
        retry,
        ..ExporterOptions::default()
    };
    let transport = Transport::otlp(&config).unwrap();
    let (queue, exporter) = Exporter::start(transport, options, runtime.handle());
    let mut encoder = Otlp::new(Resource::new(), &Ledger::new());
    encoder.push_loss(&Loss {
        observed_unix_nano: 1,
        netns: 2,
        group: 3,
        packets: 4,
        reason: "test",
    });
    queue.try_push(encoder.take()).unwrap();
    if !trusted {
        let start = Instant::now();
        while queue.stats().retries == 0 {
            assert!(start.elapsed() < PATIENCE, "{protocol:?}: no retry");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    assert!(exporter.close(PATIENCE));
    assert_eq!(receiver.accepted().len(), usize::from(trusted), "{protocol:?}");
}
