//! SIGINT and SIGTERM: the first asks for an orderly stop, the second ends the process at once. SIGHUP: the configuration is read
//! again. Where there is no configuration file it is the end of a terminal, so a stop; under nohup it stays ignored.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

use super::netns::Event;

/// Installs the handlers. Must come before the threads that the signals shall stop.
///
/// # Errors
/// When the kernel refuses a handler.
pub(super) fn watch(reloads: bool) -> io::Result<Signals> {
    let mut stops = vec![SIGINT, SIGTERM];
    if !reloads && !is_ignored(SIGHUP) {
        stops.push(SIGHUP);
    }
    // Order matters: the shutdown handler runs first and finds the flag still unset the first time.
    let asked = Arc::new(AtomicBool::new(false));
    for signal in &stops {
        flag::register_conditional_shutdown(*signal, 128 + signal, Arc::clone(&asked))?;
        flag::register(*signal, Arc::clone(&asked))?;
    }
    if reloads {
        stops.push(SIGHUP);
    }
    Signals::new(stops)
}

/// What a signal asks for.
pub(super) fn event(signal: i32, reloads: bool) -> Event {
    if signal == SIGHUP && reloads {
        Event::Reload
    } else {
        Event::Stop(low_level::signal_name(signal).unwrap_or("signal"))
    }
}

/// Whether whoever started the agent wants it to survive the signal.
fn is_ignored(signal: i32) -> bool {
    let status = procfs::process::Process::myself().and_then(|myself| myself.status());
    status.is_ok_and(|status| status.sigign & (1 << (signal - 1)) != 0)
}
