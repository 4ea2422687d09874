//! SIGINT and SIGTERM: the first asks for an orderly stop, the second ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

/// Installs the handlers. Must come before the threads that the signals shall stop.
///
/// # Errors
/// When the kernel refuses a handler.
pub(super) fn watch() -> io::Result<Signals> {
    // Order matters: the shutdown handler runs first and finds the flag still unset the first time.
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))?;
        flag::register(signal, Arc::clone(&asked))?;
    }
    Signals::new([SIGINT, SIGTERM])
}

/// Name for messages.
pub(super) fn name(signal: i32) -> &'static str {
    low_level::signal_name(signal).unwrap_or("signal")
}
