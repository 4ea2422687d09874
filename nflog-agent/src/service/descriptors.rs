//! The descriptors that the service manager passes to the process (`LISTEN_FDS`).
//!
//! Invariant: they are taken once, before the process opens anything, so each has one owner.
#![expect(
    unsafe_code,
    reason = "a number from the environment becomes an owned descriptor"
)]

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Takes what was passed, with the names. Empty the second time.
///
/// # Errors
/// If the variables are not understood, or name descriptors that are not open.
pub(super) fn take() -> io::Result<Vec<(String, OwnedFd)>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let passed = sd_notify::listen_fds_with_names()?;
    Ok(passed
        .map(|(fd, name)| {
            // SAFETY: the manager opened it for this process, as the variables say, which name this process's id; that it is open was
            // just seen. Nobody else takes it: see above.
            (name, unsafe { OwnedFd::from_raw_fd(fd) })
        })
        .collect())
}
