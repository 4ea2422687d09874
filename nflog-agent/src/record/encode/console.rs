//! Records as lines for people: time of day in UTC, then the display line in columns. If asked for, all attributes in lines below it.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::Encoder;
use crate::export::Batch;
use crate::record::address::Ends;
use crate::record::attributes::{self, Attributes};
use crate::record::display::{self, RESET, Style};
use crate::record::semconv::Key;
use crate::record::text;
use crate::record::{Account, Loss, Record, Suppressed};
use crate::telemetry::ledger::{Ledger, Unsettled};

/// The encoder for terminals.
pub struct Console {
    style: Style,
    verbose: bool,
    out: Vec<u8>,
    reports: u32,
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
            verbose: false,
            out: Vec::new(),
            reports: 0,
            account: ledger.account(),
        }
    }

    /// With all attributes of each record below its line, or without.
    #[must_use]
    pub fn verbose(self, verbose: bool) -> Self {
        Self { verbose, ..self }
    }

    fn below(&mut self, write: impl FnOnce(&mut Below<'_>)) {
        if !self.verbose {
            return;
        }
        let (dim, reset) = if self.style.colour { (DIM, RESET) } else { ("", "") };
        self.out.extend_from_slice(dim.as_bytes());
        write(&mut Below::line(&mut self.out));
        self.out.extend_from_slice(reset.as_bytes());
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
        let ends = Ends::of(record.packet);
        display::packet_between(&mut self.out, record, &ends, self.style);
        self.below(|out| attributes::of_record(record, &ends, out));
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
        self.reports += 1;
    }

    fn push_loss(&mut self, loss: &Loss) {
        self.time(loss.observed_unix_nano);
        display::loss(&mut self.out, loss, self.style);
        self.below(|out| attributes::of_loss(loss, out));
        self.out.push(b'\n');
        self.reports += 1;
    }

    fn push_account(&mut self, account: &Account<'_>) {
        self.time(account.observed_unix_nano);
        display::account(&mut self.out, account);
        self.below(|out| attributes::of_account(account, out));
        self.out.push(b'\n');
        self.reports += 1;
    }

    fn records(&self) -> u32 {
        self.account.records() + self.reports
    }

    fn bytes(&self) -> usize {
        self.out.len()
    }

    fn take(&mut self) -> Batch {
        let payload = Bytes::copy_from_slice(&self.out);
        self.out.clear();
        Batch::new(payload, std::mem::take(&mut self.reports), self.account.take())
    }
}

const DIM: &str = "\x1b[2m";
/// What a line below the first begins with.
const INDENT: &[u8] = b"\n   ";
/// Columns after which another line begins.
const WIDTH: usize = 110;

/// Attributes as `name=value`, in lines below the first. A value with a space or quote in it is quoted.
struct Below<'a> {
    out: &'a mut Vec<u8>,
    line: usize,
}

impl<'a> Below<'a> {
    fn line(out: &'a mut Vec<u8>) -> Self {
        out.extend_from_slice(INDENT);
        let line = out.len();
        Self { out, line }
    }

    fn attribute(&mut self, key: Key, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.out.len();
        self.out.push(b' ');
        self.out.extend_from_slice(key.name().as_bytes());
        self.out.push(b'=');
        write(self.out);
        if start > self.line && self.out.len() - self.line > WIDTH {
            self.out.splice(start..start, INDENT.iter().copied());
            self.line = start + INDENT.len();
        }
    }
}

impl Attributes for Below<'_> {
    fn text(&mut self, key: Key, value: &str) {
        self.attribute(key, |out| quoted(out, value));
    }

    fn int(&mut self, key: Key, value: i64) {
        self.attribute(key, |out| {
            if value < 0 {
                out.push(b'-');
            }
            text::push_decimal(out, value.unsigned_abs());
        });
    }

    fn boolean(&mut self, key: Key, value: bool) {
        self.attribute(key, |out| {
            out.extend_from_slice(if value { b"true" } else { b"false" });
        });
    }

    fn texts<'v>(&mut self, key: Key, values: impl Iterator<Item = &'v str> + Clone) {
        self.attribute(key, |out| {
            for (at, value) in values.enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                quoted(out, value);
            }
        });
    }
}

fn quoted(out: &mut Vec<u8>, value: &str) {
    let plain = !value.is_empty() && !value.contains([' ', '"', ',', '\\']);
    if plain {
        return text::push_escaped(out, value);
    }
    out.push(b'"');
    for part in value.split_inclusive(['"', '\\']) {
        let (before, quote) = match part.strip_suffix(['"', '\\']) {
            Some(before) => (before, &part[before.len()..]),
            None => (part, ""),
        };
        text::push_escaped(out, before);
        if !quote.is_empty() {
            out.push(b'\\');
            out.extend_from_slice(quote.as_bytes());
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_where_their_end_would_not_be_seen() {
        for (value, written) in [
            ("curl", "curl"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("a\"b\\", "\"a\\\"b\\\\\""),
            ("\u{1b}[0m", "\\x1b[0m"),
        ] {
            let mut out = Vec::new();
            quoted(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), written);
        }
    }
}
