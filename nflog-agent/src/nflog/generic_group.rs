//! Sending what the kernel itself logs to group 0, and undoing it.
//!
//! Each protocol family has one logger per network namespace, for messages that name none; the sysctls
//! `net.netfilter.nf_log.<family>` show and set it. `PF_BIND` replaces it whatever it is, and `PF_UNBIND` leaves none: so it is
//! read before, and brought back at the end if it still is NFLOG.
//!
//! Requests go through a socket of their own, where no logged packets crowd out the answers.

use std::fs;
use std::io;
use std::mem::take;

use super::command;
use super::error::{CloseError, ExchangeError, OpenError};
use super::exchange::exchange;
use super::netns::Home;
use super::socket::NetlinkSocket;
use super::uapi;

/// NFLOG's name in the sysctls.
const NFLOG: &str = "nfnetlink_log";
/// What they show if there is no logger.
const NONE: &str = "NONE";
/// `AF_INET` and `AF_INET6`.
const FAMILIES: [u8; 2] = [uapi::AF_INET, uapi::AF_INET6];

/// Loggers that were replaced. Dropping it brings them back, if that is possible; only [`GenericGroup::restore`] tells.
#[derive(Debug)]
pub(super) struct GenericGroup {
    home: Home,
    /// Protocol family and the logger it had.
    replaced: Vec<(u8, String)>,
}

impl GenericGroup {
    /// Makes NFLOG the logger of both families. Runs in the namespace of `home`.
    pub(super) fn bind(home: Home) -> Result<Self, OpenError> {
        let mut bound = Self {
            home,
            replaced: Vec::new(),
        };
        for family in FAMILIES {
            let refused = |source| OpenError::GenericGroup { family, source };
            let logger = read(family).map_err(refused)?;
            if logger != NFLOG {
                request(|sequence| command::bind_family(family, sequence)).map_err(refused)?;
                bound.replaced.push((family, logger));
            }
        }
        Ok(bound)
    }

    /// Brings back what was there before; tries every family, and returns the first failure.
    pub(super) fn restore(&mut self) -> Result<(), CloseError> {
        let mut first = Ok(());
        for (family, logger) in take(&mut self.replaced) {
            let restored = self.home.run(|| bring_back(family, &logger));
            let result = restored.map_err(io::Error::other).flatten();
            if let Err(source) = result
                && first.is_ok()
            {
                first = Err(CloseError::GenericGroup {
                    family,
                    logger,
                    source,
                });
            }
        }
        first
    }
}

impl Drop for GenericGroup {
    fn drop(&mut self) {
        // Nobody to tell: who wants to know closes the reader instead of dropping it.
        drop(self.restore());
    }
}

fn bring_back(family: u8, logger: &str) -> io::Result<()> {
    if read(family)? != NFLOG {
        // Someone has set another one since.
        return Ok(());
    }
    if logger == NONE {
        // Works where /proc/sys is read-only as well.
        return request(|sequence| command::unbind_family(family, sequence));
    }
    fs::write(path(family), logger)
}

fn path(family: u8) -> String {
    format!("/proc/sys/net/netfilter/nf_log/{family}")
}

/// The logger of a family in the namespace of the calling thread.
fn read(family: u8) -> io::Result<String> {
    Ok(fs::read_to_string(path(family))?.trim_end().to_owned())
}

/// Sends a request and waits for its answer, in the namespace of the calling thread.
fn request(request: impl Fn(u32) -> Vec<u8>) -> io::Result<()> {
    let socket = NetlinkSocket::open()?;
    let answer = exchange(&socket, &mut 0, &mut [0; 256], request, &mut |_| ());
    match answer {
        Ok(answer) if answer.errno == 0 => Ok(()),
        Ok(answer) => Err(io::Error::from_raw_os_error(answer.errno)),
        Err(ExchangeError::Send(source) | ExchangeError::Receive(source)) => Err(source),
        Err(error @ ExchangeError::NoAnswer) => Err(io::Error::other(error)),
    }
}
