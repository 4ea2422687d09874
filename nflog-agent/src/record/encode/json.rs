//! Records as JSON lines, in the shape of the OpenTelemetry log data model.
//!
//! Each line is one object: `timestamp`, `observed_timestamp` (RFC 3339, UTC, ns), `severity`, `event_name`, `body`,
//! `resource` and `attributes`, the last two with the same names and types as in OTLP.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::Encoder;
use crate::export::Batch;
use crate::record::address::Ends;
use crate::record::attributes::{self, Attributes};
use crate::record::display::{self, Style};
use crate::record::resource::{Resource, Value};
use crate::record::semconv::{self, Key};
use crate::record::text;
use crate::record::{Account, Loss, Record, RecordIds, Severity, Suppressed};
use crate::telemetry::ledger::{Ledger, Unsettled};
use crate::workload::Workload;

/// The encoder for pipes.
pub struct Json {
    resource: Resource,
    host: Workload,
    out: Vec<u8>,
    line: Vec<u8>,
    reports: u32,
    account: Unsettled,
    ids: Option<RecordIds>,
}

impl Json {
    /// Records are written with the attributes of `resource`.
    #[must_use]
    pub fn new(resource: Resource, ledger: &Arc<Ledger>) -> Self {
        Self {
            resource,
            host: Workload::default(),
            out: Vec::new(),
            line: Vec::new(),
            reports: 0,
            account: ledger.account(),
            ids: None,
        }
    }

    /// Gives each record an id, or none.
    #[must_use]
    pub fn with_ids(self, ids: Option<RecordIds>) -> Self {
        Self { ids, ..self }
    }

    fn head(&mut self, time: u64, observed: u64, severity: Severity, event_name: &str) {
        let out = &mut self.out;
        out.extend_from_slice(b"{\"timestamp\":\"");
        timestamp(out, time);
        out.extend_from_slice(b"\",\"observed_timestamp\":\"");
        timestamp(out, observed);
        out.extend_from_slice(b"\",\"severity\":");
        string(out, severity.name().as_bytes());
        out.extend_from_slice(b",\"event_name\":");
        string(out, event_name.as_bytes());
        out.extend_from_slice(b",\"body\":");
        string(out, &self.line);
    }

    fn resource(&mut self, workload: Option<&Workload>) {
        self.out.extend_from_slice(b",\"resource\":{");
        let mut members = Members {
            out: &mut self.out,
            first: true,
        };
        self.resource
            .of_workload(workload.unwrap_or(&self.host), |name, value| {
                members.name(name);
                match value {
                    Value::Text(text) => string(members.out, text.as_bytes()),
                    Value::Texts(texts) => strings(members.out, texts.iter().map(String::as_str)),
                }
            });
        self.out.extend_from_slice(b"},\"attributes\":{");
    }

    fn write(&mut self, record: &Record<'_>) {
        self.line.clear();
        let ends = Ends::of(record.packet);
        display::packet_between(&mut self.line, record, &ends, Style::default());
        self.head(
            record.time_unix_nano,
            record.observed_unix_nano,
            record.severity(),
            record.event_name(),
        );
        self.resource(record.process.map(|process| &*process.workload));
        let members = &mut Members {
            out: &mut self.out,
            first: true,
        };
        attributes::of_record(record, &ends, members);
        if let Some(ids) = &mut self.ids {
            members.text(semconv::RECORD_UID, ids.next(record.observed_unix_nano));
        }
        self.out.extend_from_slice(b"}}\n");
    }

    fn report(
        &mut self,
        observed: u64,
        severity: Severity,
        event_name: &str,
        write: impl FnOnce(&mut Members<'_>),
    ) {
        self.head(observed, observed, severity, event_name);
        self.resource(None);
        let members = &mut Members {
            out: &mut self.out,
            first: true,
        };
        write(members);
        if let Some(ids) = &mut self.ids {
            members.text(semconv::RECORD_UID, ids.next(observed));
        }
        self.out.extend_from_slice(b"}}\n");
        self.reports += 1;
    }
}

impl Encoder for Json {
    fn push(&mut self, record: &Record<'_>) {
        self.write(record);
        self.account.receive();
    }

    fn push_held(&mut self, record: &Record<'_>, held: &mut Unsettled) {
        self.write(record);
        self.account.adopt(held);
    }

    fn push_suppressed(&mut self, suppressed: &Suppressed<'_>) {
        self.line.clear();
        display::suppressed(&mut self.line, suppressed, Style::default());
        let (observed, event) = (suppressed.observed_unix_nano, semconv::EVENT_SUPPRESSED);
        self.report(observed, Severity::Info, event, |members| {
            attributes::of_suppressed(suppressed, members);
        });
    }

    fn push_loss(&mut self, loss: &Loss) {
        self.line.clear();
        display::loss(&mut self.line, loss, Style::default());
        let (observed, event) = (loss.observed_unix_nano, semconv::EVENT_LOSS);
        self.report(observed, Severity::Warn, event, |members| {
            attributes::of_loss(loss, members);
        });
    }

    fn push_account(&mut self, account: &Account<'_>) {
        self.line.clear();
        display::account(&mut self.line, account);
        let severity = account.severity();
        let (observed, event) = (account.observed_unix_nano, semconv::EVENT_ACCOUNT);
        self.report(observed, severity, event, |out| {
            attributes::of_account(account, out);
        });
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

/// The members of an open object.
struct Members<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl Members<'_> {
    fn name(&mut self, name: &str) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        string(self.out, name.as_bytes());
        self.out.push(b':');
    }
}

impl Attributes for Members<'_> {
    fn text(&mut self, key: Key, value: &str) {
        self.name(key.name());
        string(self.out, value.as_bytes());
    }

    fn int(&mut self, key: Key, value: i64) {
        self.name(key.name());
        if value < 0 {
            self.out.push(b'-');
        }
        text::push_decimal(self.out, value.unsigned_abs());
    }

    fn boolean(&mut self, key: Key, value: bool) {
        self.name(key.name());
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn texts<'a>(&mut self, key: Key, values: impl Iterator<Item = &'a str> + Clone) {
        self.name(key.name());
        strings(self.out, values);
    }
}

fn strings<'a>(out: &mut Vec<u8>, values: impl Iterator<Item = &'a str>) {
    let mut before = b'[';
    for value in values {
        out.push(before);
        string(out, value.as_bytes());
        before = b',';
    }
    out.extend_from_slice(if before == b'[' { b"[]" } else { b"]" });
}

fn timestamp(out: &mut Vec<u8>, unix_nano: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(unix_nano);
    write!(out, "{}", humantime::format_rfc3339_nanos(time)).expect("u64 nanoseconds end in the year 2554");
}

/// A JSON string. `text` is UTF-8; only what RFC 8259 asks for is escaped, and DEL, which terminals act on.
fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            0..0x20 | 0x7f => {
                write!(out, "\\u{byte:04x}").expect("writing to a Vec does not fail");
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}
