//! A packet as one line of text: the body of its OTLP record, and what the console prints.
//!
//! Invariants: no line break and no control character, whatever the rule prefix, device name or `comm` contains.

use std::io::Write as _;

use super::address::{Address, Ends};
use super::attributes::problem_name;
use super::text;
use super::{Account, Device, Flow, Loss, Record, Suppressed};
use crate::owner::{Attribution, End};
use crate::packet::{Packet, Transport};
use crate::workload::Workload;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// ANSI colours.
    pub colour: bool,
    /// Fixed column widths, `-` for an empty prefix or device.
    pub columns: bool,
}

const CYAN: &str = "\x1b[36m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
pub(super) const RESET: &str = "\x1b[0m";

/// Characters of a container id that a line shows, as `docker ps` and `crictl ps` do.
const SHORT_ID: usize = 12;

/// Appends the line of a packet, without a line break: hook, prefix, devices, tuple, flags, length, owner, workload.
pub fn packet(out: &mut Vec<u8>, record: &Record<'_>, style: Style) {
    packet_between(out, record, &Ends::of(record.packet), style);
}

/// The same, when the text of the packet's addresses is at hand.
pub(super) fn packet_between(out: &mut Vec<u8>, record: &Record<'_>, ends: &Ends, style: Style) {
    let mut line = Line {
        out,
        style,
        first: true,
    };
    line.column(11, CYAN, |out| out.extend_from_slice(record.hook.as_bytes()));
    line.column(16, YELLOW, |out| {
        text::push_escaped(out, record.prefix.trim_end());
    });
    line.column(12, "", |out| devices(out, record));
    line.column(48, "", |out| tuple(out, record.packet, ends));
    line.column(7, "", |out| flags(out, record.packet.transport));
    line.column(8, "", |out| length(out, record.packet));
    line.field("", |out| {
        stands_for(out, record.flow.as_ref(), record.sample_rate);
    });
    let owned = record.attribution.owner().is_some();
    line.field(if owned { GREEN } else { RED }, |out| {
        // At all other hooks the direction says whose end it is.
        if let Some(end) = record.attribution.end().filter(|_| record.direction.is_none()) {
            out.extend_from_slice(match end {
                End::Source => b"from ",
                End::Destination => b"to ",
            });
        }
        owner(out, record.attribution);
    });
    if let Some(process) = record.process {
        workload(&mut line, &process.workload);
    }
}

/// Appends the line of a record about packets that were held back, without a line break.
pub fn suppressed(out: &mut Vec<u8>, suppressed: &Suppressed<'_>, style: Style) {
    let mut line = Line {
        out,
        style,
        first: true,
    };
    line.field(YELLOW, |out| {
        out.extend_from_slice(b"held back ");
        text::push_decimal(out, suppressed.packets);
        out.extend_from_slice(if suppressed.packets == 1 {
            b" packet: limit of "
        } else {
            b" packets: limit of "
        });
        text::push_escaped(out, suppressed.rule);
    });
}

/// Appends the line of a loss record, without a line break.
pub fn loss(out: &mut Vec<u8>, loss: &Loss, style: Style) {
    let mut line = Line {
        out,
        style,
        first: true,
    };
    line.field(RED, |out| {
        out.extend_from_slice(b"lost ");
        text::push_decimal(out, loss.packets);
        out.extend_from_slice(if loss.packets == 1 {
            b" packet of group "
        } else {
            b" packets of group "
        });
        text::push_decimal(out, loss.group.into());
        out.extend_from_slice(b": ");
        out.extend_from_slice(loss.reason.as_bytes());
    });
}

/// Appends the line of an account, without a line break.
pub(super) fn account(out: &mut Vec<u8>, account: &Account<'_>) {
    write!(out, "{}", account.snapshot).expect("writing to a Vec does not fail");
}

/// Fields separated by one space; an empty field leaves no trace unless there are columns.
struct Line<'a> {
    out: &'a mut Vec<u8>,
    style: Style,
    first: bool,
}

impl Line<'_> {
    fn field(&mut self, colour: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.write(0, colour, write);
    }

    fn column(&mut self, width: usize, colour: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.write(if self.style.columns { width } else { 0 }, colour, write);
    }

    fn write(&mut self, width: usize, colour: &str, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.out.len();
        if !self.first {
            self.out.push(b' ');
        }
        let colour = if self.style.colour { colour } else { "" };
        self.out.extend_from_slice(colour.as_bytes());
        let content = self.out.len();
        write(self.out);
        if self.out.len() == content {
            if width == 0 {
                self.out.truncate(start);
                return;
            }
            self.out.push(b'-');
        }
        let end = self.out.len();
        if !colour.is_empty() {
            self.out.extend_from_slice(RESET.as_bytes());
        }
        if width > 0 {
            // Continuation bytes do not advance the cursor.
            let shown = self.out[content..end]
                .iter()
                .filter(|byte| **byte & 0xc0 != 0x80)
                .count();
            self.out
                .extend(std::iter::repeat_n(b' ', width.saturating_sub(shown)));
        }
        self.first = false;
    }
}

/// `eth0>` in, `>eth0` out, `eth0>eth1` through; bridge ports in parentheses.
fn devices(out: &mut Vec<u8>, record: &Record<'_>) {
    if record
        .indev
        .or(record.outdev)
        .or(record.physindev)
        .or(record.physoutdev)
        .is_none()
    {
        return;
    }
    device(out, record.indev);
    port(out, record.physindev);
    out.push(b'>');
    device(out, record.outdev);
    port(out, record.physoutdev);
}

fn device(out: &mut Vec<u8>, device: Option<Device<'_>>) {
    let Some(device) = device else { return };
    if let Some(name) = device.name {
        text::push_escaped(out, name);
    } else {
        out.extend_from_slice(b"if");
        text::push_decimal(out, device.index.into());
    }
}

fn port(out: &mut Vec<u8>, port: Option<Device<'_>>) {
    if port.is_some() {
        out.push(b'(');
        device(out, port);
        out.push(b')');
    }
}

/// `tcp 10.1.2.3:44321 > [2001:db8::1]:443`, as much of it as is known.
fn tuple(out: &mut Vec<u8>, packet: &Packet, ends: &Ends) {
    if let Some(protocol) = packet.protocol {
        out.extend_from_slice(text::protocol(protocol).as_bytes());
        out.push(b' ');
    }
    let (source, destination) = match packet.transport {
        Transport::Tcp {
            source, destination, ..
        }
        | Transport::Ports { source, destination } => (Some(source), Some(destination)),
        Transport::Icmp { .. } | Transport::Absent | Transport::Other => (None, None),
    };
    if packet.source.or(packet.destination).is_some() {
        end(out, ends.source.as_ref(), source);
        out.extend_from_slice(b" > ");
        end(out, ends.destination.as_ref(), destination);
    }
    if let Some(problem) = packet.problem {
        if out.last().is_some_and(|last| *last != b' ') {
            out.push(b' ');
        }
        out.extend_from_slice(problem_name(problem).as_bytes());
    }
}

fn end(out: &mut Vec<u8>, address: Option<&Address>, port: Option<u16>) {
    let Some(address) = address else {
        out.push(b'?');
        return;
    };
    let brackets = port.is_some() && address.as_bytes().contains(&b':');
    if brackets {
        out.push(b'[');
    }
    out.extend_from_slice(address.as_bytes());
    if brackets {
        out.push(b']');
    }
    if let Some(port) = port {
        out.push(b':');
        text::push_decimal(out, port.into());
    }
}

fn flags(out: &mut Vec<u8>, transport: Transport) {
    match transport {
        Transport::Tcp { flags, .. } => out.extend_from_slice(text::tcp_flags(flags).as_bytes()),
        Transport::Icmp { kind, code, echo_id } => {
            out.extend_from_slice(b"type ");
            text::push_decimal(out, kind.into());
            out.extend_from_slice(b" code ");
            text::push_decimal(out, code.into());
            if let Some(id) = echo_id {
                out.extend_from_slice(b" id ");
                text::push_decimal(out, id.into());
            }
        }
        Transport::Absent | Transport::Ports { .. } | Transport::Other => {}
    }
}

fn length(out: &mut Vec<u8>, packet: &Packet) {
    if let Some(length) = packet.length {
        out.extend_from_slice(b"len ");
        text::push_decimal(out, length.into());
    }
}

/// `flow of 12 packets, 3400 bytes`, `1 of 100`.
fn stands_for(out: &mut Vec<u8>, flow: Option<&Flow>, sample_rate: Option<u32>) {
    if let Some(flow) = flow {
        out.extend_from_slice(b"flow of ");
        text::push_decimal(out, flow.packets);
        out.extend_from_slice(if flow.packets == 1 {
            b" packet, "
        } else {
            b" packets, "
        });
        text::push_decimal(out, flow.bytes);
        out.extend_from_slice(b" bytes");
    }
    if let Some(rate) = sample_rate {
        out.extend_from_slice(b"1 of ");
        text::push_decimal(out, rate.into());
    }
}

/// `comm[pid]`, of a forwarded packet `from comm[pid]` or `to comm[pid]`, or the method with the reason: `none(no-socket)`, `kernel(kernel-icmp)`.
pub(crate) fn owner(out: &mut Vec<u8>, attribution: &Attribution) {
    match attribution {
        Attribution::Owned { owner, .. } => {
            let comm = owner.comm.as_str();
            text::push_escaped(out, if comm.is_empty() { "?" } else { comm });
            out.push(b'[');
            text::push_decimal(out, owner.pid.into());
            out.push(b']');
        }
        Attribution::Unowned(reason) => {
            out.extend_from_slice(attribution.method_name().as_bytes());
            out.push(b'(');
            out.extend_from_slice(reason.name().as_bytes());
            out.push(b')');
        }
    }
}

/// Appends the same as a packet's line has at its end: nothing if the workload is the host itself.
pub(crate) fn place(out: &mut Vec<u8>, of: &Workload) {
    let mut line = Line {
        out,
        style: Style::default(),
        first: true,
    };
    workload(&mut line, of);
}

/// `docker:0123456789ab`, `pod:NAMESPACE/NAME/CONTAINER` or `pod:UID`, `unit:NAME`: as many as are known.
fn workload(line: &mut Line<'_>, workload: &Workload) {
    if let Some(id) = workload.container_id.as_deref() {
        line.field("", |out| {
            out.extend_from_slice(workload.runtime.unwrap_or("container").as_bytes());
            out.push(b':');
            text::push_escaped(out, id.get(..SHORT_ID).unwrap_or(id));
        });
    }
    if let Some(pod) = &workload.pod {
        line.field("", |out| {
            out.extend_from_slice(b"pod:");
            text::push_escaped(out, &pod.namespace);
            let container = workload.container.as_ref().map(|container| &container.name);
            for name in [Some(&pod.name), container].into_iter().flatten() {
                out.push(b'/');
                text::push_escaped(out, name);
            }
        });
    }
    let uid = workload.pod_uid.as_ref().filter(|_| workload.pod.is_none());
    for (kind, value) in [("pod:", uid), ("unit:", workload.unit.as_ref())] {
        if let Some(value) = value {
            line.field("", |out| {
                out.extend_from_slice(kind.as_bytes());
                text::push_escaped(out, value);
            });
        }
    }
}
