//! The single variables: which of two counts, and what its text means.

use std::ffi::OsString;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::{Compression, ConfigError, DEFAULT_TIMEOUT, Protocol, Signal};
use crate::export::percent;

/// A variable that is set.
pub(super) struct Value {
    pub(super) variable: String,
    pub(super) value: String,
    /// It is the signal's own, not the general one.
    pub(super) own: bool,
}

/// Reads the variables of one signal.
pub(super) struct Variables<G> {
    pub(super) signal: Signal,
    pub(super) get: G,
}

impl<G: Fn(&str) -> Option<OsString>> Variables<G> {
    /// The signal's variable, else the general one.
    pub(super) fn find(&self, suffix: &str) -> Result<Option<Value>, ConfigError> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_{suffix}", self.signal.name());
        let general = format!("OTEL_EXPORTER_OTLP_{suffix}");
        for (variable, own) in [(own, true), (general, false)] {
            if let Some(value) = read(&self.get, &variable)? {
                return Ok(Some(Value { variable, value, own }));
            }
        }
        Ok(None)
    }

    pub(super) fn protocol(&self) -> Result<Protocol, ConfigError> {
        let Some(Value { variable, value, .. }) = self.find("PROTOCOL")? else {
            return Ok(Protocol::HttpProtobuf);
        };
        match value.to_ascii_lowercase().as_str() {
            "grpc" => Ok(Protocol::Grpc),
            "http/protobuf" => Ok(Protocol::HttpProtobuf),
            _ => Err(ConfigError::Protocol { variable, value }),
        }
    }

    pub(super) fn compression(&self) -> Result<Compression, ConfigError> {
        let Some(Value { variable, value, .. }) = self.find("COMPRESSION")? else {
            return Ok(Compression::None);
        };
        match value.to_ascii_lowercase().as_str() {
            "none" => Ok(Compression::None),
            "gzip" => Ok(Compression::Gzip),
            "zstd" => Ok(Compression::Zstd),
            _ => Err(ConfigError::Compression { variable, value }),
        }
    }

    pub(super) fn timeout(&self) -> Result<Duration, ConfigError> {
        let Some(Value { variable, value, .. }) = self.find("TIMEOUT")? else {
            return Ok(DEFAULT_TIMEOUT);
        };
        match value.trim().parse() {
            Ok(millis) if millis > 0 => Ok(Duration::from_millis(millis)),
            _ => Err(ConfigError::Timeout { variable, value }),
        }
    }

    /// As the specification asks of booleans: anything but `true` is false.
    pub(super) fn insecure(&self) -> Result<bool, ConfigError> {
        Ok(self
            .find("INSECURE")?
            .is_some_and(|found| found.value.eq_ignore_ascii_case("true")))
    }

    pub(super) fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, ConfigError> {
        let Some(Value { variable, value, .. }) = self.find("HEADERS")? else {
            return Ok(Vec::new());
        };
        let members = percent::list(&value).map_err(|member| not_a_member(&variable, header(member)))?;
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
pub(in crate::export) fn read(
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

/// What may be shown of a member that should be a header: what is before the value, if that can be told.
fn header(member: &str) -> &str {
    member
        .split_once(['=', ':', ' '])
        .map_or("a member", |(name, _)| name)
}

/// The error for a member of a list; its value stays out of the message.
pub(in crate::export) fn not_a_member(variable: &str, member: &str) -> ConfigError {
    let key = member.split_once('=').map_or(member, |(key, _)| key);
    ConfigError::Member {
        variable: variable.to_owned(),
        member: key.to_owned(),
    }
}
