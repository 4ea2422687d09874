//! The kernel's log, read from `/dev/kmsg` after each test, so that a complaint is blamed on the test that caused it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result};
use rustix::fs::OFlags;

use crate::events::Events;
use crate::protocol::{Event, is_splat};

/// The log from where it was last read.
pub(crate) struct KernelLog(File);

impl KernelLog {
    /// Opens the log at its start.
    pub(crate) fn open() -> Result<Self> {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).context("the flag is small")?;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open("/dev/kmsg");
        Ok(Self(file.context("cannot open /dev/kmsg")?))
    }

    /// Sends an event for each complaint since the last call.
    pub(crate) fn report(&mut self, during: &str, events: &mut Events) -> Result<()> {
        // One read returns one record: `priority,sequence,time,flags;text`, then lines that begin with a space.
        let mut record = [0; 8192];
        loop {
            let length = match self.0.read(&mut record) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Records were overwritten before we read them (EPIPE): the next read goes on after them.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => continue,
                Err(error) => return Err(error).context("cannot read /dev/kmsg"),
            };
            let text = String::from_utf8_lossy(&record[..length]);
            let line = text
                .lines()
                .next()
                .and_then(|line| line.split_once(';'))
                .map_or("", |(_, line)| line);
            if is_splat(line) {
                println!("vm_init: kernel: {line}");
                events.send(&Event::Splat {
                    during: during.to_owned(),
                    line: line.to_owned(),
                })?;
            }
        }
    }
}
