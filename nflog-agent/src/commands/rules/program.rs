//! The program nft, run in a network namespace: its words are the interface that all its versions share.

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Output, Stdio};

use super::RulesError;
use crate::cli::netns_path;
use crate::nflog::Netns;

/// Where it is, if PATH does not say: that of users often has no sbin.
const PLACES: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// nft in one network namespace.
pub(super) struct Nft {
    netns: Netns,
}

impl Nft {
    /// In the namespace that `--netns` names, or in this one.
    pub(super) fn new(netns: Option<&str>) -> Self {
        Self {
            netns: netns.map_or(Netns::Current, |value| Netns::Path(netns_path(value))),
        }
    }

    /// Standard output of a run with `script` on its standard input.
    ///
    /// # Errors
    /// When there is no nft, or it refuses.
    pub(super) fn run(&self, arguments: &[&str], script: &str) -> Result<String, RulesError> {
        let output = self.netns.run(|| start(arguments, script))??;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        // The lines behind it show the place.
        let said = said.lines().next().unwrap_or_default().to_owned();
        Err(if said.contains("Operation not permitted") {
            RulesError::NotPrivileged
        } else {
            RulesError::Refused { said }
        })
    }
}

fn start(arguments: &[&str], script: &str) -> Result<Output, RulesError> {
    for place in PLACES {
        let child = Command::new(place)
            .args(arguments)
            // Its messages are looked at.
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(RulesError::Nft(error)),
        };
        // It reads all before it does anything; if it ended before that, its message says why.
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(script.as_bytes()) {
                Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(RulesError::Nft(error)),
                _ => {}
            }
        }
        return child.wait_with_output().map_err(RulesError::Nft);
    }
    Err(RulesError::NoNft)
}
