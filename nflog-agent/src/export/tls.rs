//! TLS settings from PEM files, read again for each new connection: certificates that are renewed on disk need no restart.
//!
//! A file that cannot be used is an error at start. Later it fails the connection, which is tried again: a renewal that
//! replaces certificate and key one after the other is unusable for an instant.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, InconsistentKeys, RootCertStore};
use thiserror::Error;

use super::config::{NamedFile, TlsFiles};

/// Why TLS cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// No certificate authority to trust, and no file that names one.
    #[error(
        "no certificate authorities on this host ({reason}); install ca-certificates, set SSL_CERT_FILE, or set OTEL_EXPORTER_OTLP_CERTIFICATE"
    )]
    NoAuthorities {
        /// What was tried.
        reason: String,
    },
    /// A file that cannot be read.
    #[error("{variable}={}: {error}; check the path and that the agent may read the file", .path.display())]
    Read {
        /// The variable.
        variable: String,
        /// Its value.
        path: PathBuf,
        /// What the kernel says.
        error: std::io::Error,
    },
    /// A file without what it should hold.
    #[error("{variable}={}: no {wanted} in it; it must be PEM, with a line -----BEGIN {label}-----", .path.display())]
    Missing {
        /// The variable.
        variable: String,
        /// Its value.
        path: PathBuf,
        /// What is not there.
        wanted: &'static str,
        /// What its PEM block is called.
        label: &'static str,
    },
    /// A file whose content cannot be used.
    #[error("{variable}={}: {reason}; write the file again", .path.display())]
    Content {
        /// The variable.
        variable: String,
        /// Its value.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// Certificate and key are not a pair.
    #[error(
        "{key_variable}={} is not the key of the certificate in {certificate_variable}={}; give the two that were made together",
        .key.display(), .certificate.display()
    )]
    Mismatch {
        /// The key's variable.
        key_variable: String,
        /// Its value.
        key: PathBuf,
        /// The certificate's variable.
        certificate_variable: String,
        /// Its value.
        certificate: PathBuf,
    },
}

/// The content of the files: authorities, certificate, key.
type Contents = [Option<Vec<u8>>; 3];

/// Settings for connections to one endpoint.
pub(super) struct Tls {
    files: TlsFiles,
    /// What to offer by ALPN.
    protocols: Vec<Vec<u8>>,
    /// The last ones. Used as long as the files do not change, so that sessions resume.
    last: Mutex<Option<(Contents, Arc<ClientConfig>)>>,
}

/// Shows no key.
impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files for the first time.
    pub(super) fn new(files: TlsFiles, protocols: &[&[u8]]) -> Result<Self, TlsError> {
        let tls = Self {
            files,
            protocols: protocols.iter().map(|name| name.to_vec()).collect(),
            last: Mutex::new(None),
        };
        tls.current()?;
        Ok(tls)
    }

    /// The settings that the files have now. Reads files.
    pub(super) fn current(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let identity = self.files.identity.as_ref();
        let contents = [
            self.files.authorities.as_ref(),
            identity.map(|(certificate, _)| certificate),
            identity.map(|(_, key)| key),
        ];
        let [authorities, certificate, key] = contents.map(|file| file.map(read).transpose());
        let contents = [authorities?, certificate?, key?];
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, config)) = &*last
            && *known == contents
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.build(&contents)?);
        *last = Some((contents, Arc::clone(&config)));
        Ok(config)
    }

    fn build(&self, [authorities, certificate, key]: &Contents) -> Result<ClientConfig, TlsError> {
        let roots = match (&self.files.authorities, authorities) {
            (Some(file), Some(content)) => roots(file, content)?,
            _ => native_roots()?,
        };
        let builder = builder(roots);
        let mut config = match (&self.files.identity, certificate, key) {
            (Some(files), Some(certificate), Some(key)) => identify(builder, files, certificate, key)?,
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.protocols);
        Ok(config)
    }
}

fn builder(roots: RootCertStore) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_root_certificates(roots)
}

fn read(file: &NamedFile) -> Result<Vec<u8>, TlsError> {
    std::fs::read(&file.path).map_err(|error| TlsError::Read {
        variable: file.variable.clone(),
        path: file.path.clone(),
        error,
    })
}

fn content(file: &NamedFile, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::Content {
        variable: file.variable.clone(),
        path: file.path.clone(),
        reason: reason.to_string(),
    }
}

fn certificates(file: &NamedFile, content_of: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(content_of).collect();
    let found = found.map_err(|error| content(file, &error))?;
    if found.is_empty() {
        return Err(TlsError::Missing {
            variable: file.variable.clone(),
            path: file.path.clone(),
            wanted: "certificate",
            label: "CERTIFICATE",
        });
    }
    Ok(found)
}

fn roots(file: &NamedFile, content_of: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, content_of)? {
        roots.add(certificate).map_err(|error| content(file, &error))?;
    }
    Ok(roots)
}

/// The host's, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
fn native_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Hosts have old ones that rustls cannot use among the good ones.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let reasons: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
    Err(TlsError::NoAuthorities {
        reason: if reasons.is_empty() {
            "none found".to_owned()
        } else {
            reasons.join(", ")
        },
    })
}

fn identify(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    (certificate_file, key_file): &(NamedFile, NamedFile),
    certificate: &[u8],
    key: &[u8],
) -> Result<ClientConfig, TlsError> {
    let chain = certificates(certificate_file, certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::Missing {
            variable: key_file.variable.clone(),
            path: key_file.path.clone(),
            wanted: "unencrypted private key",
            label: "PRIVATE KEY",
        },
        error => content(key_file, &error),
    })?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::Mismatch {
                key_variable: key_file.variable.clone(),
                key: key_file.path.clone(),
                certificate_variable: certificate_file.variable.clone(),
                certificate: certificate_file.path.clone(),
            },
            rustls::Error::InvalidCertificate(_) => content(certificate_file, &error),
            _ => content(key_file, &error),
        })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    struct Directory(tempfile::TempDir);

    impl Directory {
        fn new() -> Self {
            let directory = Self(tempfile::tempdir().unwrap());
            directory.pair("");
            directory.pair("other-");
            directory.write("text.pem", "no PEM at all\n");
            directory.write(
                "broken.pem",
                "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
            );
            directory
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.0.path().join(name), text).unwrap();
        }

        fn pair(&self, prefix: &str) {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(vec!["localhost".to_owned()])
                .unwrap()
                .self_signed(&key)
                .unwrap();
            self.write(&format!("{prefix}cert.pem"), &certificate.pem());
            self.write(&format!("{prefix}key.pem"), &key.serialize_pem());
        }

        fn file(&self, variable: &str, name: &str) -> NamedFile {
            NamedFile {
                variable: variable.to_owned(),
                path: self.0.path().join(name),
            }
        }

        fn files(&self, authorities: &str, certificate: &str, key: &str) -> TlsFiles {
            TlsFiles {
                authorities: Some(self.file("CERTIFICATE", authorities)),
                identity: Some((
                    self.file("CLIENT_CERTIFICATE", certificate),
                    self.file("CLIENT_KEY", key),
                )),
            }
        }
    }

    #[test]
    fn errors_name_the_variable_the_file_and_the_remedy() {
        let directory = Directory::new();
        for (files, parts) in [
            (
                ("none.pem", "cert.pem", "key.pem"),
                ["CERTIFICATE=", "none.pem: No such file", "check the path"],
            ),
            (
                ("text.pem", "cert.pem", "key.pem"),
                ["CERTIFICATE=", "text.pem: no certificate in it", "must be PEM"],
            ),
            (
                ("broken.pem", "cert.pem", "key.pem"),
                ["CERTIFICATE=", "broken.pem: ", "write the file again"],
            ),
            (
                ("cert.pem", "key.pem", "key.pem"),
                [
                    "CLIENT_CERTIFICATE=",
                    "key.pem: no certificate in it",
                    "must be PEM",
                ],
            ),
            (
                ("cert.pem", "cert.pem", "cert.pem"),
                [
                    "CLIENT_KEY=",
                    "cert.pem: no unencrypted private key in it",
                    "must be PEM",
                ],
            ),
            (
                ("cert.pem", "cert.pem", "other-key.pem"),
                [
                    "CLIENT_KEY=",
                    "other-key.pem is not the key of the certificate in CLIENT_CERTIFICATE=",
                    "made together",
                ],
            ),
        ] {
            let (authorities, certificate, key) = files;
            let message = Tls::new(directory.files(authorities, certificate, key), &[])
                .unwrap_err()
                .to_string();
            for part in parts {
                assert!(message.contains(part), "{message:?} does not say {part:?}");
            }
        }
    }

    #[test]
    fn settings_stay_until_a_file_changes_and_survive_a_change_that_fails() {
        let directory = Directory::new();
        let tls = Tls::new(directory.files("cert.pem", "cert.pem", "key.pem"), &[b"h2"]).unwrap();
        let first = tls.current().unwrap();
        assert_eq!(first.alpn_protocols, [b"h2"]);
        assert!(Arc::ptr_eq(&first, &tls.current().unwrap()));
        // The new key has come, its certificate not yet.
        std::fs::copy(
            directory.0.path().join("other-key.pem"),
            directory.0.path().join("key.pem"),
        )
        .unwrap();
        assert!(matches!(tls.current(), Err(TlsError::Mismatch { .. })));
        std::fs::copy(
            directory.0.path().join("other-cert.pem"),
            directory.0.path().join("cert.pem"),
        )
        .unwrap();
        assert!(!Arc::ptr_eq(&first, &tls.current().unwrap()));
    }
}
