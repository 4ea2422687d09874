//! Certificates on disk, made for a test.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

use super::Identity;

/// Authorities `ours` and `strangers`, and what they signed: each name is a `.pem` and, but for the authorities, a `.key`.
pub(crate) struct Certificates(tempfile::TempDir);

impl Certificates {
    /// Of `ours`: `server`, `expired` and `client`; of `strangers`: `stranger`.
    pub(crate) fn new() -> Self {
        let all = Self(tempfile::tempdir().unwrap());
        let (ours, strangers) = (all.authority("ours"), all.authority("strangers"));
        all.sign("server", &ours, 2999);
        all.sign("expired", &ours, 2001);
        all.sign("client", &ours, 2999);
        all.sign("stranger", &strangers, 2999);
        all
    }

    pub(crate) fn directory(&self) -> &std::path::Path {
        self.0.path()
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    pub(crate) fn identity(&self, name: &str, clients: Option<&str>) -> Identity {
        Identity {
            certificate: self.read(&format!("{name}.pem")),
            key: self.read(&format!("{name}.key")),
            clients: clients.map(|authority| self.read(authority)),
        }
    }

    /// One of these becomes another one's content, as when a file is renewed.
    pub(crate) fn renew(&self, name: &str, from: &str) {
        for extension in ["pem", "key"] {
            let content = self.read(&format!("{from}.{extension}"));
            self.write(&format!("{name}.{extension}"), &content);
        }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path().join(name)).unwrap()
    }

    fn authority(&self, name: &str) -> Issuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        self.write(&format!("{name}.pem"), &params.self_signed(&key).unwrap().pem());
        Issuer::new(params, key)
    }

    fn sign(&self, name: &str, by: &Issuer<'static, KeyPair>, last_year: i32) {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(last_year, 1, 1);
        let certificate = params.signed_by(&key, by).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }
}
