//! The token goes to a server whose certificate is from the configured authority, and to no other.

use std::io::Read as _;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use nflog_agent::workload::kubernetes::{Access, Chosen, NodePods, Pace, Pods, Watch};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::server::Server;
use crate::support::PATIENCE;

/// A server for TLS that hands out what clients say to it, or why they said nothing, and never answers.
fn listen(issuer: &Issuer<'_, KeyPair>) -> (std::net::SocketAddr, Receiver<Result<String, String>>) {
    let key = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, issuer)
        .unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (send, heard) = channel();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(tls, connection.unwrap());
            let mut first = [0; 4096];
            let said = stream.read(&mut first);
            let said = said.map(|length| String::from_utf8_lossy(&first[..length]).into_owned());
            if send.send(said.map_err(|error| error.to_string())).is_err() {
                return;
            }
        }
    });
    (address, heard)
}

fn authority() -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (pem, Issuer::new(params, key))
}

/// A kubeconfig as of the plain server, with TLS and this authority.
fn kubeconfig(address: std::net::SocketAddr, authority: &str, directory: &Path) -> Access {
    let (config, _) = Server::kubeconfig(address, directory);
    let ca = directory.join("ca.crt");
    std::fs::write(&ca, authority).unwrap();
    let server = format!(
        "server: https://{address}\n    certificate-authority: {}",
        ca.display()
    );
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        text.replace(&format!("server: http://{address}"), &server),
    )
    .unwrap();
    Access::Kubeconfig(config)
}

#[test]
fn only_a_server_of_the_configured_authority_is_told_the_token() {
    let ((ours, issuer), (strangers, _)) = (authority(), authority());
    for (trusted, is_ours) in [(&ours, true), (&strangers, false)] {
        let (address, heard) = listen(&issuer);
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let watch = Watch {
            access: kubeconfig(address, trusted, directory.path()),
            of: NodePods {
                node: "node-1".to_owned(),
                chosen: Chosen::default(),
                pods: Arc::new(Pods::default()),
            },
            pace: Pace::default(),
        };
        runtime.spawn(watch.run());
        let said = heard.recv_timeout(PATIENCE).expect("the server is asked");
        if is_ours {
            let said = said.unwrap();
            assert!(
                said.starts_with("GET /api/v1/pods?") && said.contains("Bearer first-token"),
                "{said}"
            );
        } else {
            let why = said.unwrap_err();
            // The client ends the handshake, for the certificate.
            assert!(why.contains("fatal alert"), "{why}");
        }
    }
}
