//! What can be wrong with the API server, and what is to be done about it.

use thiserror::Error;

use super::{AccessError, Followed};

/// Why what is followed is not known at the moment.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(
        "the Kubernetes API does not take the agent's token (401); trying again with the token as it is in its file then"
    )]
    Unauthorized,
    #[error("the Kubernetes API forbids it: {0}")]
    Forbidden(String),
    /// The version that a watch or a further page begins at is too old: all is listed anew.
    #[error("the Kubernetes API has no history from where the agent was: {0}")]
    Expired(String),
    #[error("the Kubernetes API answers {code}: {message}")]
    Status { code: u16, message: String },
    #[error("the Kubernetes API cannot be reached: {0}")]
    Unreachable(String),
    /// All is listed anew, so that one event is not read again and again.
    #[error("the Kubernetes API sends what cannot be read: {0}")]
    Unreadable(String),
    #[error("the Kubernetes API has not answered for {0} s")]
    Silent(u64),
}

/// Longest message of the server that is passed on.
const MESSAGE: usize = 300;

impl Failure {
    /// The server's own word.
    pub(super) fn of_status(code: u16, message: &str) -> Self {
        let message = message[..message.floor_char_boundary(MESSAGE)].to_owned();
        match code {
            // An event that cannot be read: kube takes any object for a Status, with nothing in it.
            0 => Self::Unreadable("an event that is neither an object nor an error".to_owned()),
            401 => Self::Unauthorized,
            403 => Self::Forbidden(message),
            410 => Self::Expired(message),
            _ => Self::Status { code, message },
        }
    }

    /// In words, with the remedy, for who follows this.
    pub(super) fn told<F: Followed>(&self) -> String {
        match self {
            Self::Forbidden(_) => format!(
                "{self}; give the agent's account get, list and watch of {}, as in {}",
                F::RESOURCE,
                F::ROLE
            ),
            _ => self.to_string(),
        }
    }

    /// Failures of the same kind are said once.
    pub(super) const fn kind(&self) -> u16 {
        match self {
            Self::Access(_) => 1,
            Self::Unauthorized => 401,
            Self::Forbidden(_) => 403,
            Self::Expired(_) => 410,
            Self::Unreadable(_) => 3,
            Self::Status { code, .. } => *code,
            // One cause shows itself now as the one, now as the other.
            Self::Unreachable(_) | Self::Silent(_) => 2,
        }
    }

    /// Whether it may be over at the next try.
    pub(super) const fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Silent(_) | Self::Status { .. })
    }

    /// Whether the connection and the credentials are no good any more.
    pub(super) const fn needs_client(&self) -> bool {
        matches!(
            self,
            Self::Access(_) | Self::Unauthorized | Self::Unreachable(_) | Self::Silent(_)
        )
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status.code, &status.message),
            kube::Error::SerdeError(error) => Self::Unreadable(error.to_string()),
            other => Self::Unreachable(chain(&other)),
        }
    }
}

/// The innermost cause, which says most; the outer ones only say that something failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
