//! Which files hold the trust and the identity for TLS; they are read by `export::tls`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::ConfigError;
use super::variables::{Value, Variables};

/// A file, and the variable that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::export) struct NamedFile {
    pub(in crate::export) variable: String,
    pub(in crate::export) path: PathBuf,
}

/// PEM files for TLS: `…_CERTIFICATE`, and `…_CLIENT_CERTIFICATE` with `…_CLIENT_KEY`. Without the first the host's
/// certificate authorities are trusted, with it only those in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    pub(in crate::export) authorities: Option<NamedFile>,
    /// Certificate chain and key.
    pub(in crate::export) identity: Option<(NamedFile, NamedFile)>,
}

impl TlsFiles {
    /// Where they are.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let identity = self
            .identity
            .iter()
            .flat_map(|(certificate, key)| [certificate, key]);
        self.authorities
            .iter()
            .chain(identity)
            .map(|file| file.path.as_path())
    }

    pub(super) fn from_variables<G: Fn(&str) -> Option<OsString>>(
        variables: &Variables<G>,
    ) -> Result<Self, ConfigError> {
        let file = |suffix| -> Result<_, ConfigError> {
            let found = variables.find(suffix)?;
            Ok(found.map(|Value { variable, value, .. }| NamedFile {
                variable,
                path: PathBuf::from(value),
            }))
        };
        let half = |present: NamedFile, from: &str, to: &str| ConfigError::HalfIdentity {
            missing: present.variable.replace(from, to),
            variable: present.variable,
        };
        let identity = match (file("CLIENT_CERTIFICATE")?, file("CLIENT_KEY")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(certificate), None) => {
                return Err(half(certificate, "CLIENT_CERTIFICATE", "CLIENT_KEY"));
            }
            (None, Some(key)) => return Err(half(key, "CLIENT_KEY", "CLIENT_CERTIFICATE")),
        };
        Ok(Self {
            authorities: file("CERTIFICATE")?,
            identity,
        })
    }
}
