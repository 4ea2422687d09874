//! Variables that cannot be honoured: each error names the variable, the value and the remedy.

use thiserror::Error;

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
    #[error("{variable}={value}: no such compression here; use gzip, zstd or none")]
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
        /// The member, without what follows its first `=`; of headers, `:` or blank.
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
    /// A certificate without its key, or the other way round.
    #[error("{variable} is set, but {missing} is not: a client certificate needs its key; set both, or none")]
    HalfIdentity {
        /// The variable.
        variable: String,
        /// The other one.
        missing: String,
    },
    /// Not a proxy that can be used. The value may hold a password, so it is not shown.
    #[error(
        "{variable} is not a proxy that can be used: write it like http://proxy:3128 or https://user:password@proxy:3128 (SOCKS is not supported), unset it, or name the endpoint's host in NO_PROXY"
    )]
    Proxy {
        /// The variable.
        variable: String,
    },
}

impl ConfigError {
    /// The variable that cannot be honoured.
    #[must_use]
    pub fn variable(&self) -> &str {
        match self {
            Self::NotUnicode { variable }
            | Self::Endpoint { variable, .. }
            | Self::Scheme { variable, .. }
            | Self::Protocol { variable, .. }
            | Self::Compression { variable, .. }
            | Self::Timeout { variable, .. }
            | Self::Member { variable, .. }
            | Self::Header { variable, .. }
            | Self::HalfIdentity { variable, .. }
            | Self::Proxy { variable } => variable,
        }
    }
}
