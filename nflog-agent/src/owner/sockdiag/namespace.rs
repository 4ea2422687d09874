//! Runs code in another network namespace.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::error::OpenError;

/// Runs `body` in the network namespace of `path`, or in the caller's if `None`.
///
/// Another namespace is entered by a thread of its own, which ends afterwards: the calling thread never changes.
///
/// # Errors
///
/// [`OpenError`] of the namespace, or of `body`.
///
/// # Panics
///
/// If `body` panics.
pub(super) fn within<T: Send>(
    path: Option<&Path>,
    body: impl FnOnce() -> Result<T, OpenError> + Send,
) -> Result<T, OpenError> {
    let Some(path) = path else { return body() };
    let namespace = File::open(path).map_err(|source| OpenError::Namespace {
        path: path.to_owned(),
        source,
    })?;
    thread::scope(|scope| {
        let enter = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).map_err(
                |error| OpenError::Enter {
                    path: path.to_owned(),
                    source: error.into(),
                },
            )?;
            body()
        };
        let thread = thread::Builder::new()
            .name("nflog-setns".to_owned())
            .spawn_scoped(scope, enter)
            .map_err(|source| OpenError::Thread { source })?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
