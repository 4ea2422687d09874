//! Endpoints: scheme and path rules of the two protocols.

use http::Uri;
use http::uri::{PathAndQuery, Scheme};

use super::variables::Value;
use super::{ConfigError, Signal};

/// Without a scheme it is `https`, or `http` if `insecure`.
pub(super) fn grpc(from: Value, insecure: bool) -> Result<Uri, ConfigError> {
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

/// The general endpoint gets the signal's path appended.
pub(super) fn http(from: Value, signal: Signal) -> Result<Uri, ConfigError> {
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
