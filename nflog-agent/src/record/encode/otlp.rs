//! Records as an OTLP `ExportLogsServiceRequest`, written directly.
//!
//! - One `ResourceLogs` per workload. Workloads are told apart by content; the pointer of the `Arc` is only a shortcut.
//! - Fields are in tag order and empty fields are left out, so the bytes equal those of a generated encoder.
//! - Buffers of workloads that log nothing for [`IDLE_BATCHES`] batches are freed.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::Encoder;
use super::protobuf as wire;
use super::scratch::Scratch;
use crate::export::Batch;
use crate::record::address::Ends;
use crate::record::attributes::{self, Attributes};
use crate::record::display::{self, Style};
use crate::record::resource::{Resource, Value};
use crate::record::semconv::{self, Key};
use crate::record::{Account, Loss, Record, RecordIds, Severity, Suppressed};
use crate::telemetry::ledger::{Ledger, Unsettled};
use crate::workload::Workload;

/// Batches after which an idle workload's buffers are freed.
const IDLE_BATCHES: u32 = 16;

/// `Arc`s remembered per workload on average; more means that workloads are resolved anew all the time.
const POINTERS_PER_GROUP: usize = 8;

/// Field numbers of `LogRecord`.
mod field {
    pub(super) const TIME: u8 = 1;
    pub(super) const SEVERITY_NUMBER: u8 = 2;
    pub(super) const SEVERITY_TEXT: u8 = 3;
    pub(super) const BODY: u8 = 5;
    // 6, attributes: see `semconv::Head`.
    pub(super) const OBSERVED_TIME: u8 = 11;
    pub(super) const EVENT_NAME: u8 = 12;
}

/// The encoder for collectors.
pub struct Otlp {
    resource: Resource,
    /// `ScopeLogs.scope`, with tag and length.
    scope: Vec<u8>,
    /// `schema_url` as field 3, with tag and length; of `ScopeLogs` and `ResourceLogs` alike.
    schema_url: Vec<u8>,
    groups: Vec<Group>,
    by_content: HashMap<Arc<Workload>, usize>,
    by_pointer: HashMap<usize, (Arc<Workload>, usize)>,
    /// Group of the host itself, and of records without a workload.
    host: usize,
    last: (usize, usize),
    scratch: Scratch,
    line: Vec<u8>,
    bytes: usize,
    reports: u32,
    account: Unsettled,
    ids: Option<RecordIds>,
}

/// The open `ResourceLogs` of one workload.
struct Group {
    workload: Arc<Workload>,
    /// `ResourceLogs.resource`, with tag and length.
    resource: Vec<u8>,
    /// `ScopeLogs.log_records`, each with tag and length.
    records: Vec<u8>,
    idle: u32,
}

impl Group {
    /// Forgets the records, and most of a buffer that was far too large for them.
    fn clear(&mut self) {
        let used = self.records.len().max(4096);
        self.records.clear();
        if self.records.capacity() > 8 * used {
            self.records.shrink_to(2 * used);
        }
        self.idle = 0;
    }
}

impl Otlp {
    /// Records go out under `resource`, and on the account of `ledger`.
    #[must_use]
    pub fn new(resource: Resource, ledger: &Arc<Ledger>) -> Self {
        let mut scope = Vec::new();
        wire::bytes(&mut scope, 1, semconv::SCOPE.as_bytes());
        wire::bytes(&mut scope, 2, env!("CARGO_PKG_VERSION").as_bytes());
        let mut framed = Vec::new();
        wire::bytes(&mut framed, 1, &scope);
        let mut schema_url = Vec::new();
        wire::bytes(&mut schema_url, 3, semconv::SCHEMA_URL.as_bytes());
        let mut encoder = Self {
            resource,
            scope: framed,
            schema_url,
            groups: Vec::new(),
            by_content: HashMap::new(),
            by_pointer: HashMap::new(),
            host: 0,
            last: (0, 0),
            scratch: Scratch::default(),
            line: Vec::new(),
            bytes: 0,
            reports: 0,
            account: ledger.account(),
            ids: None,
        };
        encoder.host = encoder.group_of(&Arc::default());
        encoder
    }

    /// Gives each record an id, or none.
    #[must_use]
    pub fn with_ids(self, ids: Option<RecordIds>) -> Self {
        Self { ids, ..self }
    }

    fn group_of(&mut self, workload: &Arc<Workload>) -> usize {
        let pointer = Arc::as_ptr(workload).addr();
        if self.last.0 == pointer {
            return self.last.1;
        }
        let group = if let Some((_, group)) = self.by_pointer.get(&pointer) {
            *group
        } else {
            let group = self.group_by_content(workload);
            if self.by_pointer.len() >= POINTERS_PER_GROUP * self.groups.len().max(64) {
                self.by_pointer.clear();
            }
            // Holding the Arc keeps its address from being used for another workload.
            self.by_pointer.insert(pointer, (Arc::clone(workload), group));
            group
        };
        self.last = (pointer, group);
        group
    }

    fn group_by_content(&mut self, workload: &Arc<Workload>) -> usize {
        if let Some(group) = self.by_content.get(workload) {
            return *group;
        }
        let mut attributes = Vec::new();
        self.resource.of_workload(workload, |name, value| match value {
            Value::Text(text) => wire::named_attribute(&mut attributes, 1, name, text),
            Value::Texts(texts) => wire::named_attributes(&mut attributes, 1, name, texts),
        });
        let mut resource = Vec::new();
        wire::bytes(&mut resource, 1, &attributes);
        let group = self.groups.len();
        self.groups.push(Group {
            workload: Arc::clone(workload),
            resource,
            records: Vec::new(),
            idle: 0,
        });
        self.by_content.insert(Arc::clone(workload), group);
        group
    }

    /// Moves the record in `scratch` to its group.
    fn append(&mut self, group: usize) {
        let group = &mut self.groups[group];
        if group.records.is_empty() {
            // Tags and lengths of ResourceLogs and ScopeLogs: at most 6 bytes each.
            self.bytes += group.resource.len() + self.scope.len() + 2 * self.schema_url.len() + 12;
        }
        let record = self.scratch.as_bytes();
        wire::bytes(&mut group.records, 2, record);
        self.bytes += wire::delimited_len(record.len());
    }

    fn encode(&mut self, head: &Head, write: impl FnOnce(&mut LogAttributes<'_>)) {
        let out = &mut self.scratch;
        out.clear();
        if head.time_unix_nano != 0 {
            out.fixed64(field::TIME, head.time_unix_nano);
        }
        out.small(field::SEVERITY_NUMBER, head.severity.number());
        out.bytes(field::SEVERITY_TEXT, head.severity.name().as_bytes());
        out.any_string(field::BODY, &self.line);
        write(&mut LogAttributes { out });
        if let Some(ids) = &mut self.ids {
            let id = ids.next(head.observed_unix_nano);
            out.string_attribute(semconv::RECORD_UID, id.as_bytes());
        }
        if head.observed_unix_nano != 0 {
            out.fixed64(field::OBSERVED_TIME, head.observed_unix_nano);
        }
        out.bytes(field::EVENT_NAME, head.event_name.as_bytes());
    }

    /// Frees what has been idle for long.
    fn shrink(&mut self) {
        for group in &mut self.groups {
            group.idle += 1;
        }
        let host = Arc::clone(&self.groups[self.host].workload);
        if self
            .groups
            .iter()
            .all(|group| group.idle <= IDLE_BATCHES || group.workload == host)
        {
            return;
        }
        self.groups
            .retain(|group| group.idle <= IDLE_BATCHES || group.workload == host);
        self.by_content = self
            .groups
            .iter()
            .enumerate()
            .map(|(at, group)| (Arc::clone(&group.workload), at))
            .collect();
        self.by_pointer.clear();
        self.last = (0, 0);
        self.host = self.by_content[&host];
    }

    fn write(&mut self, record: &Record<'_>) {
        self.line.clear();
        let ends = Ends::of(record.packet);
        display::packet_between(&mut self.line, record, &ends, Style::default());
        let head = Head {
            time_unix_nano: record.time_unix_nano,
            observed_unix_nano: record.observed_unix_nano,
            severity: record.severity(),
            event_name: record.event_name(),
        };
        self.encode(&head, |out| attributes::of_record(record, &ends, out));
        let group = record
            .process
            .map_or(self.host, |process| self.group_of(&process.workload));
        self.append(group);
    }

    fn report(
        &mut self,
        observed_unix_nano: u64,
        severity: Severity,
        event_name: &'static str,
        write: impl FnOnce(&mut LogAttributes<'_>),
    ) {
        let head = Head {
            time_unix_nano: observed_unix_nano,
            observed_unix_nano,
            severity,
            event_name,
        };
        self.encode(&head, write);
        self.append(self.host);
        self.reports += 1;
    }
}

/// The fields of a `LogRecord` that are no attributes.
struct Head {
    time_unix_nano: u64,
    observed_unix_nano: u64,
    severity: Severity,
    event_name: &'static str,
}

impl Encoder for Otlp {
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
        self.report(observed, Severity::Info, event, |out| {
            attributes::of_suppressed(suppressed, out);
        });
    }

    fn push_loss(&mut self, loss: &Loss) {
        self.line.clear();
        display::loss(&mut self.line, loss, Style::default());
        let (observed, event) = (loss.observed_unix_nano, semconv::EVENT_LOSS);
        self.report(observed, Severity::Warn, event, |out| {
            attributes::of_loss(loss, out);
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
        self.bytes
    }

    fn take(&mut self) -> Batch {
        let mut out = Vec::with_capacity(self.bytes);
        for group in self.groups.iter_mut().filter(|group| !group.records.is_empty()) {
            let scope_logs = self.scope.len() + group.records.len() + self.schema_url.len();
            let resource_logs =
                group.resource.len() + wire::delimited_len(scope_logs) + self.schema_url.len();
            wire::open(&mut out, 1, resource_logs);
            out.extend_from_slice(&group.resource);
            wire::open(&mut out, 2, scope_logs);
            out.extend_from_slice(&self.scope);
            out.extend_from_slice(&group.records);
            out.extend_from_slice(&self.schema_url);
            out.extend_from_slice(&self.schema_url);
            group.clear();
        }
        self.bytes = 0;
        self.shrink();
        Batch::new(
            Bytes::from(out),
            std::mem::take(&mut self.reports),
            self.account.take(),
        )
    }
}

/// Attributes as `LogRecord.attributes`.
struct LogAttributes<'a> {
    out: &'a mut Scratch,
}

impl Attributes for LogAttributes<'_> {
    fn text(&mut self, key: Key, value: &str) {
        self.out.string_attribute(key, value.as_bytes());
    }

    fn int(&mut self, key: Key, value: i64) {
        self.out.int_attribute(key, value);
    }

    fn boolean(&mut self, key: Key, value: bool) {
        self.out.bool_attribute(key, value);
    }

    fn texts<'a>(&mut self, key: Key, values: impl Iterator<Item = &'a str> + Clone) {
        self.out.strings_attribute(key, values);
    }
}
