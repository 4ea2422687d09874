//! Records as lines for people: time of day in UTC, then the display line in columns.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::Encoder;
use crate::export::Batch;
use crate::record::display::{self, Style};
use crate::record::{Loss, Record, Suppressed};
use crate::telemetry::ledger::{Ledger, Unsettled};

/// The encoder for terminals.
pub struct Console {
    style: Style,
    out: Vec<u8>,
    loss_records: u32,
    account: Unsettled,
}

impl Console {
    /// `colour`: ANSI colours; only for a terminal.
    #[must_use]
    pub fn new(colour: bool, ledger: &Arc<Ledger>) -> Self {
        let style = Style {
            colour,
            columns: true,
        };
        Self {
            style,
            out: Vec::new(),
            loss_records: 0,
            account: ledger.account(),
        }
    }

    fn time(&mut self, unix_nano: u64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(unix_nano);
        let start = self.out.len();
        write!(self.out, "{}", humantime::format_rfc3339_micros(time))
            .expect("u64 nanoseconds end in the year 2554");
        // 2026-01-02T03:04:05.123456Z: the date is left out.
        self.out.drain(start..start + "2026-01-02T".len());
        self.out.push(b' ');
    }

    fn write(&mut self, record: &Record<'_>) {
        self.time(record.time_unix_nano);
        display::packet(&mut self.out, record, self.style);
        self.out.push(b'\n');
    }
}

impl Encoder for Console {
    fn push(&mut self, record: &Record<'_>) {
        self.write(record);
        self.account.receive();
    }

    fn push_held(&mut self, record: &Record<'_>, held: &mut Unsettled) {
        self.write(record);
        self.account.adopt(held);
    }

    fn push_suppressed(&mut self, suppressed: &Suppressed<'_>) {
        self.time(suppressed.observed_unix_nano);
        display::suppressed(&mut self.out, suppressed, self.style);
        self.out.push(b'\n');
        self.loss_records += 1;
    }

    fn push_loss(&mut self, loss: &Loss) {
        self.time(loss.observed_unix_nano);
        display::loss(&mut self.out, loss, self.style);
        self.out.push(b'\n');
        self.loss_records += 1;
    }

    fn records(&self) -> u32 {
        self.account.records() + self.loss_records
    }

    fn bytes(&self) -> usize {
        self.out.len()
    }

    fn take(&mut self) -> Batch {
        let payload = Bytes::copy_from_slice(&self.out);
        self.out.clear();
        Batch::new(
            payload,
            std::mem::take(&mut self.loss_records),
            self.account.take(),
        )
    }
}
