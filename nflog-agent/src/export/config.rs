//! Where and how to send, from the environment variables of the OTLP exporter specification.
//!
//! Same rules as opentelemetry-otlp 0.33: the signal's variable beats the general one; empty means unset; the default
//! protocol is `http/protobuf`; a gRPC endpoint without a scheme is `https` unless `…_INSECURE=true`; the general HTTP
//! endpoint gets `/v1/logs` appended, the signal's is taken as it is. Unlike there, a value that cannot be honoured is an
//! error, not a warning.
//!
//! The values come from a getter, so that nothing here reads the environment.

use std::ffi::OsString;
use std::time::Duration;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Uri};
use thiserror::Error;

use super::percent;

/// Time that a request may take unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// How long a request may take.
    pub timeout: Duration,
    /// Compression of requests.
    pub compression: Compression,
}

/// A variable that cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Not text.
    #[error("{variable} is not valid UTF-8: set it again in UTF-8, or unset it")]
    NotUnicode {
        /// The variable.
        variable: String,
    },
    /// Not a URI.
    #[error("{variable}={value}: not a URI ({reason}); write it like http://collector:4317")]
    Endpoint {
        /// The variable.
        variable: String,
        /// Its value.
        value: String,
        /// What the parser says.
        reason: &'static str,
    },
    /// A URI without a host, or with a scheme that the protocol cannot use.
    #[error("{variable}={value}: {protocol} needs {wanted}; write it like {example}")]
    Scheme {
        /// The variable.
        variable: String,
        /// Its value.
        value: String,
        /// The protocol in use.
        protocol: &'static str,
        /// The schemes that it takes.
        wanted: &'static str,
        /// An endpoint that would do.
        example: &'static str,
    },
    /// Unknown or unsupported protocol.
    #[error("{variable}={value}: no such protocol here; use grpc or http/protobuf")]
    Protocol {
        /// The variable.
        variable: String,
        /// Its value.
        value: String,
    },
    /// Unknown or unsupported compression.
    #[error("{variable}={value}: no such compression here; use gzip or none")]
    Compression {
        /// The variable.
        variable: String,
        /// Its value.
        value: String,
    },
    /// Not a number of milliseconds, or 0.
    #[error("{variable}={value}: not a time; write whole milliseconds, for example 10000")]
    Timeout {
        /// The variable.
        variable: String,
        /// Its value.
        value: String,
    },
    /// A list member that is not `key=value`, percent-encoded. The value may be a secret, so only the key is shown.
    #[error(
        "{variable}: {member} is not key=value; separate members by commas and write special characters as %XX"
    )]
    Member {
        /// The variable.
        variable: String,
        /// The member, without what follows its first `=`.
        member: String,
    },
    /// A header that HTTP does not allow.
    #[error(
        "{variable}: {name} is not a valid HTTP header, or its value is not; use letters, digits and - in names"
    )]
    Header {
        /// The variable.
        variable: String,
        /// The header's name.
        name: String,
    },
    /// A variable of the specification that this version does not honour.
    #[error("{variable} is set, but {feature} is not supported yet; unset it")]
    Unsupported {
        /// The variable.
        variable: String,
        /// What it asks for.
        feature: &'static str,
    },
}

/// The process's own environment; an argument for [`OtlpConfig::from_env`].
#[must_use]
pub fn environment(variable: &str) -> Option<OsString> {
    std::env::var_os(variable)
}

impl OtlpConfig {
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
        for (suffix, feature) in [
            ("CERTIFICATE", "a certificate authority of your own"),
            ("CLIENT_CERTIFICATE", "mutual TLS"),
            ("CLIENT_KEY", "mutual TLS"),
        ] {
            if let Some(Value { variable, .. }) = variables.find(suffix)? {
                return Err(ConfigError::Unsupported { variable, feature });
            }
        }
        Ok(Some(Self {
            protocol,
            endpoint: match protocol {
                Protocol::Grpc => grpc_endpoint(endpoint, variables.insecure()?)?,
                Protocol::HttpProtobuf => http_endpoint(endpoint, signal)?,
            },
            headers: variables.headers()?,
            timeout: variables.timeout()?,
            compression: variables.compression()?,
        }))
    }
}

/// A variable that is set.
struct Value {
    variable: String,
    value: String,
    /// It is the signal's own, not the general one.
    own: bool,
}

struct Variables<G> {
    signal: Signal,
    get: G,
}

impl<G: Fn(&str) -> Option<OsString>> Variables<G> {
    /// The signal's variable, else the general one.
    fn find(&self, suffix: &str) -> Result<Option<Value>, ConfigError> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_{suffix}", self.signal.name());
        let general = format!("OTEL_EXPORTER_OTLP_{suffix}");
        for (variable, own) in [(own, true), (general, false)] {
            if let Some(value) = read(&self.get, &variable)? {
                return Ok(Some(Value { variable, value, own }));
            }
        }
        Ok(None)
    }

    fn protocol(&self) -> Result<Protocol, ConfigError> {
        let Some(Value { variable, value, .. }) = self.find("PROTOCOL")? else {
            return Ok(Protocol::HttpProtobuf);
        };
        match value.to_ascii_lowercase().as_str() {
            "grpc" => Ok(Protocol::Grpc),
            "http/protobuf" => Ok(Protocol::HttpProtobuf),
            _ => Err(ConfigError::Protocol { variable, value }),
        }
    }

    fn compression(&self) -> Result<Compression, ConfigError> {
        let Some(Value { variable, value, .. }) = self.find("COMPRESSION")? else {
            return Ok(Compression::None);
        };
        match value.to_ascii_lowercase().as_str() {
            "none" => Ok(Compression::None),
            "gzip" => Ok(Compression::Gzip),
            _ => Err(ConfigError::Compression { variable, value }),
        }
    }

    fn timeout(&self) -> Result<Duration, ConfigError> {
        let Some(Value { variable, value, .. }) = self.find("TIMEOUT")? else {
            return Ok(DEFAULT_TIMEOUT);
        };
        match value.trim().parse() {
            Ok(millis) if millis > 0 => Ok(Duration::from_millis(millis)),
            _ => Err(ConfigError::Timeout { variable, value }),
        }
    }

    /// As the specification asks of booleans: anything but `true` is false.
    fn insecure(&self) -> Result<bool, ConfigError> {
        Ok(self
            .find("INSECURE")?
            .is_some_and(|found| found.value.eq_ignore_ascii_case("true")))
    }

    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, ConfigError> {
        let Some(Value { variable, value, .. }) = self.find("HEADERS")? else {
            return Ok(Vec::new());
        };
        let members = percent::list(&value).map_err(|member| not_a_member(&variable, member))?;
        let header = |(name, value): (String, String)| {
            let parsed = HeaderName::try_from(&name)
                .ok()
                .zip(HeaderValue::try_from(value).ok());
            parsed.ok_or_else(|| ConfigError::Header {
                variable: variable.clone(),
                name,
            })
        };
        members.into_iter().map(header).collect()
    }
}

/// A variable's text; empty means unset.
pub(super) fn read(
    get: &impl Fn(&str) -> Option<OsString>,
    variable: &str,
) -> Result<Option<String>, ConfigError> {
    let Some(value) = get(variable) else {
        return Ok(None);
    };
    match value.into_string() {
        Ok(value) if value.trim().is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(ConfigError::NotUnicode {
            variable: variable.to_owned(),
        }),
    }
}

/// The error for a member of a list; its value stays out of the message.
pub(super) fn not_a_member(variable: &str, member: &str) -> ConfigError {
    let key = member.split_once('=').map_or(member, |(key, _)| key);
    ConfigError::Member {
        variable: variable.to_owned(),
        member: key.to_owned(),
    }
}

fn grpc_endpoint(from: Value, insecure: bool) -> Result<Uri, ConfigError> {
    let has_scheme = from
        .value
        .split_once("://")
        .is_some_and(|(scheme, _)| !scheme.contains(['/', '?', '#']));
    let uri = match (has_scheme, insecure) {
        (true, _) => parse(&from, &from.value)?,
        (false, true) => parse(&from, &format!("http://{}", from.value))?,
        (false, false) => parse(&from, &format!("https://{}", from.value))?,
    };
    let usable = match uri.scheme_str() {
        Some("http" | "https") => uri.host().is_some_and(|host| !host.is_empty()),
        _ => false,
    };
    if usable {
        return Ok(uri);
    }
    Err(ConfigError::Scheme {
        variable: from.variable,
        value: from.value,
        protocol: "grpc",
        wanted: "http or https and a host",
        example: "http://collector:4317",
    })
}

fn http_endpoint(from: Value, signal: Signal) -> Result<Uri, ConfigError> {
    let uri = parse(&from, &from.value)?;
    let usable = uri.scheme() == Some(&Scheme::HTTP) || uri.scheme() == Some(&Scheme::HTTPS);
    if !usable || uri.host().is_none_or(str::is_empty) {
        return Err(ConfigError::Scheme {
            variable: from.variable,
            value: from.value,
            protocol: "http/protobuf",
            wanted: "http or https and a host",
            example: "http://collector:4318",
        });
    }
    if from.own {
        return Ok(uri);
    }
    let mut parts = uri.into_parts();
    let old = parts.path_and_query.take();
    let (path, query) = old.as_ref().map_or(("/", None), |old| (old.path(), old.query()));
    let slash = if path.ends_with('/') { "" } else { "/" };
    let path = match query {
        Some(query) => format!("{path}{slash}{}?{query}", signal.path()),
        None => format!("{path}{slash}{}", signal.path()),
    };
    let faulty = |reason| ConfigError::Endpoint {
        variable: from.variable.clone(),
        value: from.value.clone(),
        reason,
    };
    parts.path_and_query = Some(PathAndQuery::try_from(path).map_err(|_| faulty("invalid path"))?);
    Uri::from_parts(parts).map_err(|_| faulty("invalid path"))
}

fn parse(from: &Value, text: &str) -> Result<Uri, ConfigError> {
    let faulty = |reason| ConfigError::Endpoint {
        variable: from.variable.clone(),
        value: from.value.clone(),
        reason,
    };
    let uri: Uri = text.trim().parse().map_err(|error| faulty(uri_reason(&error)))?;
    // The parser takes any text as a port.
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, rest)| rest);
    match host_and_port.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') && port.parse::<u16>().is_err() => {
            Err(faulty("invalid port"))
        }
        _ => Ok(uri),
    }
}

/// `InvalidUri` has no public kind; its text is one of a few constants.
fn uri_reason(error: &http::uri::InvalidUri) -> &'static str {
    match error.to_string().as_str() {
        "empty string" => "empty",
        "invalid authority" => "invalid host",
        "invalid port" => "invalid port",
        "invalid scheme" | "scheme too long" | "scheme missing" => "invalid scheme",
        "uri too long" => "too long",
        _ => "invalid character",
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
                vec![http, ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")],
                ["COMPRESSION", "zstd", "gzip"],
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
                ["HEADERS", "b", "key=value"],
            ),
            (
                vec![http, ("OTEL_EXPORTER_OTLP_HEADERS", "a b=1")],
                ["HEADERS", "a b", "letters"],
            ),
            (
                vec![http, ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca")],
                ["CERTIFICATE", "authority", "unset"],
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
    fn secrets_stay_out_of_error_messages() {
        let message = logs(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=s3cret%"),
        ])
        .unwrap_err()
        .to_string();
        assert!(
            message.contains("authorization") && !message.contains("s3cret"),
            "{message}"
        );
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
