//! Where and how to send, from the environment variables of the OTLP exporter specification.
//!
//! Same rules as opentelemetry-otlp 0.33: the signal's variable beats the general one; empty means unset; the default
//! protocol is `http/protobuf`; a gRPC endpoint without a scheme is `https` unless `…_INSECURE=true`; the general HTTP
//! endpoint gets `/v1/logs` appended, the signal's is taken as it is. Unlike there, a value that cannot be honoured is an
//! error, not a warning.
//!
//! The values come from a getter, so that nothing here reads the environment.
//!
//! | variable | values | unset |
//! |---|---|---|
//! | `OTEL_EXPORTER_OTLP_ENDPOINT` | URI; HTTP gets `/v1/logs` or `/v1/metrics` appended | lines on standard output (`--output otlp`: port 4318, or 4317 for gRPC, on localhost) |
//! | `…_PROTOCOL` | `http/protobuf`, `grpc` | `http/protobuf` |
//! | `…_INSECURE` | `true`: a gRPC endpoint without a scheme is `http` | `false` |
//! | `…_HEADERS` | `key=value,…`, percent-encoded | none |
//! | `…_TIMEOUT` | milliseconds for a request, and for a connection | 10000 |
//! | `…_COMPRESSION` | `none`, `gzip`, `zstd` (the last beyond the specification) | `none` |
//! | `…_CERTIFICATE` | PEM file: the certificate authorities to trust, and no others | those of the host (`SSL_CERT_FILE`, `SSL_CERT_DIR`) |
//! | `…_CLIENT_CERTIFICATE`, `…_CLIENT_KEY` | PEM files, both or none: the agent's own certificate chain and key | none |
//! | `HTTPS_PROXY`, `HTTP_PROXY`, else `ALL_PROXY` | `http://` or `https://`, user and password, host and port; by the endpoint's scheme | direct |
//! | `NO_PROXY` | names with all below them, addresses, networks, `*` | no exception |
//!
//! `…` is `OTEL_EXPORTER_OTLP`; each of these also with `_LOGS` or `_METRICS` after it, which counts for that signal alone. The proxy
//! variables count in lower case, too, after the upper case. TLS files are read again for each connection, so renewed ones need no
//! restart; a host's own authorities are read once.
//!
//! Not honoured: `http/json` (an error: nothing here encodes it); SOCKS proxies (an error); the SDK's `OTEL_BLRP_*` and `OTEL_BSP_*`
//! (there is no SDK on the way of the packets); `OTEL_SDK_DISABLED`; `OTEL_EXPORTER_OTLP_TRACES_*` (there are no traces).

mod endpoint;
mod error;
mod proxy;
mod tls;
mod variables;

use std::ffi::OsString;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

pub use error::ConfigError;
pub use proxy::Proxy;
pub(super) use tls::NamedFile;
pub use tls::TlsFiles;
use variables::Variables;
pub(super) use variables::{not_a_member, read};

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Log records: the packets.
    Logs,
    /// The agent's own metrics.
    Metrics,
}

impl Signal {
    const fn name(self) -> &'static str {
        match self {
            Self::Logs => "LOGS",
            Self::Metrics => "METRICS",
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::Logs => "v1/logs",
            Self::Metrics => "v1/metrics",
        }
    }
}

/// OTLP transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `grpc`.
    Grpc,
    /// `http/protobuf`.
    HttpProtobuf,
}

/// Compression of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// `none`.
    None,
    /// `gzip`.
    Gzip,
    /// `zstd`: not in the specification, but collectors take it.
    Zstd,
}

/// A collector and how to talk to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpConfig {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Absolute `http` or `https` URI; for HTTP with the full path.
    pub endpoint: Uri,
    /// Sent with every request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long a request may take, and making a connection.
    pub timeout: Duration,
    /// Compression of requests.
    pub compression: Compression,
    /// Files for TLS; of no use for an `http` endpoint.
    pub tls: TlsFiles,
    /// The proxy on the way.
    pub proxy: Option<Proxy>,
}

/// Time that a request may take unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

impl OtlpConfig {
    /// An endpoint with the specification's defaults for all else. `endpoint` is taken as it is.
    #[must_use]
    pub fn new(protocol: Protocol, endpoint: Uri) -> Self {
        Self {
            protocol,
            endpoint,
            headers: Vec::new(),
            timeout: DEFAULT_TIMEOUT,
            compression: Compression::None,
            tls: TlsFiles::default(),
            proxy: None,
        }
    }

    /// The endpoint for messages: without credentials, which may be in its user part or its query.
    #[must_use]
    pub fn target(&self) -> String {
        let authority = self
            .endpoint
            .authority()
            .map_or("", |authority| authority.as_str());
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let path = match self.protocol {
            Protocol::Grpc => "",
            Protocol::HttpProtobuf => self.endpoint.path(),
        };
        format!("{}://{host}{path}", self.endpoint.scheme_str().unwrap_or("http"))
    }

    /// What the variables say; `None` when no endpoint is set.
    ///
    /// # Errors
    /// The first variable that cannot be honoured.
    pub fn from_env(
        signal: Signal,
        get: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Self>, ConfigError> {
        let variables = Variables { signal, get };
        let Some(endpoint) = variables.find("ENDPOINT")? else {
            return Ok(None);
        };
        let protocol = variables.protocol()?;
        let endpoint = match protocol {
            Protocol::Grpc => endpoint::grpc(endpoint, variables.insecure()?)?,
            Protocol::HttpProtobuf => endpoint::http(endpoint, signal)?,
        };
        Ok(Some(Self {
            proxy: Proxy::for_endpoint(&endpoint, protocol, &variables.get)?,
            headers: variables.headers()?,
            timeout: variables.timeout()?,
            compression: variables.compression()?,
            tls: TlsFiles::from_variables(&variables)?,
            ..Self::new(protocol, endpoint)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |variable| {
            set.iter()
                .find(|(name, _)| *name == variable)
                .map(|(_, value)| OsString::from(value))
        }
    }

    fn logs(set: &[(&str, &str)]) -> Result<Option<OtlpConfig>, ConfigError> {
        OtlpConfig::from_env(Signal::Logs, env(set))
    }

    fn endpoint(set: &[(&str, &str)]) -> String {
        logs(set).unwrap().unwrap().endpoint.to_string()
    }

    const GRPC: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");

    #[test]
    fn without_an_endpoint_there_is_nothing_to_do() {
        assert_eq!(logs(&[GRPC]), Ok(None));
        assert_eq!(logs(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(None));
        assert_eq!(
            logs(&[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://c:1")]),
            Ok(None)
        );
    }

    #[test]
    fn defaults_are_those_of_the_specification() {
        let config = logs(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")])
            .unwrap()
            .unwrap();
        assert_eq!(config.protocol, Protocol::HttpProtobuf);
        assert_eq!(config.timeout, Duration::from_secs(10));
        assert_eq!(config.compression, Compression::None);
        assert!(config.headers.is_empty());
    }

    #[test]
    fn the_general_http_endpoint_gets_the_path_and_the_signals_own_does_not() {
        let general = |value| endpoint(&[("OTEL_EXPORTER_OTLP_ENDPOINT", value)]);
        assert_eq!(general("http://c:4318"), "http://c:4318/v1/logs");
        assert_eq!(general("http://c:4318/"), "http://c:4318/v1/logs");
        assert_eq!(general("https://c/otlp?key=1"), "https://c/otlp/v1/logs?key=1");
        assert_eq!(
            endpoint(&[("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://c:4318/x")]),
            "http://c:4318/x"
        );
        let metrics = OtlpConfig::from_env(
            Signal::Metrics,
            env(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")]),
        );
        assert_eq!(metrics.unwrap().unwrap().endpoint, "http://c:4318/v1/metrics");
    }

    #[test]
    fn a_grpc_endpoint_without_a_scheme_is_https_unless_insecure() {
        let endpoint = |set: &[(&str, &str)]| endpoint(&[set, &[GRPC]].concat());
        assert_eq!(
            endpoint(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317")]),
            "https://c:4317/"
        );
        assert_eq!(
            endpoint(&[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317"),
                ("OTEL_EXPORTER_OTLP_INSECURE", "True")
            ]),
            "http://c:4317/"
        );
        assert_eq!(
            endpoint(&[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:4317"),
                ("OTEL_EXPORTER_OTLP_INSECURE", "true")
            ]),
            "https://c:4317/"
        );
        assert_eq!(
            endpoint(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1]:4317")]),
            "http://[::1]:4317/"
        );
    }

    #[test]
    fn the_signals_own_variable_wins() {
        let config = logs(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:1"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://own:1/v1/logs"),
            GRPC,
            ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "HTTP/protobuf"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
            ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x=general"),
            (
                "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
                "authorization=Bearer%20a,X-Tenant=1",
            ),
        ])
        .unwrap()
        .unwrap();
        assert_eq!(config.endpoint, "http://own:1/v1/logs");
        assert_eq!(config.protocol, Protocol::HttpProtobuf);
        assert_eq!(config.timeout, Duration::from_millis(2500));
        assert_eq!(config.compression, Compression::Gzip);
        let headers: Vec<_> = config
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(headers, [("authorization", "Bearer a"), ("x-tenant", "1")]);
    }

    #[test]
    fn errors_name_the_variable_the_value_and_the_remedy() {
        let http = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        for (set, parts) in [
            (
                vec![http, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
                ["PROTOCOL", "http/json", "grpc"],
            ),
            (
                vec![http, ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli")],
                ["COMPRESSION", "brotli", "gzip"],
            ),
            (
                vec![http, ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s")],
                ["TIMEOUT", "10s", "milliseconds"],
            ),
            (
                vec![http, ("OTEL_EXPORTER_OTLP_TIMEOUT", "0")],
                ["TIMEOUT", "0", "milliseconds"],
            ),
            (
                vec![http, ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,b")],
                ["HEADERS", "a member", "key=value"],
            ),
            (
                vec![http, ("OTEL_EXPORTER_OTLP_HEADERS", "a b=1")],
                ["HEADERS", "a b", "letters"],
            ),
            (
                vec![http, ("OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE", "/cert")],
                [
                    "LOGS_CLIENT_CERTIFICATE is set",
                    "LOGS_CLIENT_KEY is not",
                    "set both",
                ],
            ),
            (
                vec![http, ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key")],
                ["CLIENT_KEY is set", "CLIENT_CERTIFICATE is not", "set both"],
            ),
            (
                vec![http, ("HTTP_PROXY", "socks5://user:s3cret@proxy")],
                ["HTTP_PROXY", "not a proxy", "http://"],
            ),
            (
                vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4318")],
                ["ENDPOINT", "c:4318", "http://"],
            ),
            (
                vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://c")],
                ["ENDPOINT", "ftp://c", "http://"],
            ),
            (
                vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:port")],
                ["ENDPOINT", "http://c:port", "http://"],
            ),
            (
                vec![GRPC, ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://c")],
                ["ENDPOINT", "ftp://c", "http://"],
            ),
            (
                vec![GRPC, ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[c")],
                ["ENDPOINT", "http://[c", "http://"],
            ),
        ] {
            let message = logs(&set).unwrap_err().to_string();
            for part in parts {
                assert!(message.contains(part), "{message:?} does not say {part:?}");
            }
        }
    }

    #[test]
    fn tls_files_and_proxies_are_of_the_signal() {
        let set = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:4318"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/cert.pem"),
            ("OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE", "/logs.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("https_proxy", "http://proxy:3128"),
        ];
        let certificate = |signal| {
            let config = OtlpConfig::from_env(signal, env(&set)).unwrap().unwrap();
            assert_eq!(config.compression, Compression::Zstd);
            assert_eq!(config.proxy.unwrap().target(), "http://proxy:3128");
            let authorities = config.tls.authorities.unwrap();
            assert_eq!(authorities.variable, "OTEL_EXPORTER_OTLP_CERTIFICATE");
            config.tls.identity.unwrap().0.path
        };
        assert_eq!(certificate(Signal::Logs).to_str(), Some("/logs.pem"));
        assert_eq!(certificate(Signal::Metrics).to_str(), Some("/cert.pem"));
        assert_eq!(logs(&set[..1]).unwrap().unwrap().tls, TlsFiles::default());
    }

    #[test]
    fn secrets_stay_out_of_the_targets_name() {
        let target = |set: &[(&str, &str)]| logs(set).unwrap().unwrap().target();
        let endpoint = (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "https://user:s3cret@[::1]:4317?key=s3cret",
        );
        assert_eq!(target(&[endpoint]), "https://[::1]:4317/v1/logs");
        assert_eq!(target(&[endpoint, GRPC]), "https://[::1]:4317");
    }

    #[test]
    fn secrets_stay_out_of_error_messages() {
        for (headers, shown) in [
            ("authorization=s3cret%", "authorization"),
            ("authorization: Bearer s3cret", "authorization"),
            ("s3cret", "HEADERS"),
        ] {
            let message = logs(&[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
                ("OTEL_EXPORTER_OTLP_HEADERS", headers),
            ])
            .unwrap_err()
            .to_string();
            assert!(
                message.contains(shown) && !message.contains("s3cret"),
                "{message}"
            );
        }
    }

    #[test]
    fn values_that_are_not_text_are_named() {
        use std::os::unix::ffi::OsStringExt as _;
        let get = |variable: &str| {
            (variable == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| OsString::from_vec(vec![0xff]))
        };
        assert_eq!(
            OtlpConfig::from_env(Signal::Logs, get),
            Err(ConfigError::NotUnicode {
                variable: "OTEL_EXPORTER_OTLP_ENDPOINT".to_owned()
            })
        );
    }
}
