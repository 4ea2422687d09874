//! Events for the host, one a line on the serial port that is not the console.

use std::fs::{File, OpenOptions};
use std::io::Write as _;

use anyhow::{Context as _, Result};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::protocol::Event;

/// On arm64 the console is no 8250, and this is the only one.
const PORT: &str = if cfg!(target_arch = "aarch64") {
    "/dev/ttyS0"
} else {
    "/dev/ttyS1"
};

/// The open port.
pub(crate) struct Events(File);

impl Events {
    /// Opens the port and turns off everything a terminal does to text.
    pub(crate) fn open() -> Result<Self> {
        let port = OpenOptions::new()
            .read(true)
            .write(true)
            .open(PORT)
            .with_context(|| format!("cannot open {PORT}"))?;
        let mut settings = tcgetattr(&port).context("cannot read the port's settings")?;
        settings.make_raw();
        tcsetattr(&port, OptionalActions::Now, &settings).context("cannot set the port to raw")?;
        Ok(Self(port))
    }

    /// Sends an event.
    pub(crate) fn send(&mut self, event: &Event) -> Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.0.write_all(&line).context("cannot write an event")
    }
}
