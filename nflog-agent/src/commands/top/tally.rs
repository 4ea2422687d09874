//! What records add up to, by what they have in common. Bounded: a table has at most [`MAX_KEYS`] names, and what does not fit is
//! counted together. So whatever comes, the sum over a table's names and the rest is the sum of all records.

use std::collections::HashMap;

use crate::named::named;
use crate::record::{Loss, Record, push_escaped, push_owner, push_place};
use crate::workload::Workload;

/// Most names of a table.
pub(super) const MAX_KEYS: usize = 4096;

/// Packets, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl Counts {
    pub(super) const fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }

    /// What the record stands for: its packet, all of its flow, all of which it is a sample. IP lengths; where a header does not
    /// say, what was captured.
    fn of(record: &Record<'_>) -> Self {
        let one = record.flow.map_or_else(
            || Self {
                packets: 1,
                bytes: record.packet.length.unwrap_or(record.packet.captured).into(),
            },
            |flow| Self {
                packets: flow.packets,
                bytes: flow.bytes,
            },
        );
        let samples = u64::from(record.sample_rate.unwrap_or(1));
        Self {
            packets: one.packets * samples,
            bytes: one.bytes * samples,
        }
    }
}

named! {
    /// What records are counted by.
    pub enum By {
        /// The rule's prefix.
        Prefix = "prefixes",
        /// The process that owns the packet.
        Process = "processes",
        /// Its pod, container or unit.
        Workload = "workloads",
        /// What the rule does with the packet, as far as its prefix tells.
        Action = "actions",
        /// How the owner was found, or why there is none.
        Owner = "owners",
        /// What was lost.
        Loss = "losses",
    }
}

/// Names and their counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) names: HashMap<Box<str>, Counts>,
    /// What had no room.
    pub(super) rest: Counts,
}

impl Table {
    pub(super) fn add(&mut self, name: &str, counts: Counts) {
        if let Some(known) = self.names.get_mut(name) {
            known.add(counts);
        } else if self.names.len() < MAX_KEYS {
            self.names.insert(name.into(), counts);
        } else {
            self.rest.add(counts);
        }
    }

    fn take_all(&mut self, other: &mut Self) {
        for (name, counts) in other.names.drain() {
            self.add(&name, counts);
        }
        self.rest.add(std::mem::take(&mut other.rest));
    }
}

/// The tables, and what all records add up to.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) all: Counts,
    pub(super) tables: [Table; By::ALL.len()],
    name: Vec<u8>,
}

impl Tally {
    /// Counts a record.
    pub(super) fn record(&mut self, record: &Record<'_>) {
        let counts = Counts::of(record);
        self.all.add(counts);
        self.count(By::Prefix, counts, |name| prefix(name, record));
        self.count(By::Process, counts, |name| push_owner(name, record.attribution));
        self.count(By::Workload, counts, |name| workload(name, record));
        self.count(By::Action, counts, |name| {
            match record.rule.and_then(|rule| rule.action.as_deref()) {
                Some(action) => push_escaped(name, action),
                None => prefix(name, record),
            }
        });
        self.count(By::Owner, counts, |name| {
            name.extend_from_slice(record.attribution.method_name().as_bytes());
            if let Some(reason) = record.attribution.reason_name() {
                name.push(b' ');
                name.extend_from_slice(reason.as_bytes());
            }
        });
    }

    /// Counts packets that did not arrive.
    pub(super) fn loss(&mut self, loss: &Loss) {
        let counts = Counts {
            packets: loss.packets,
            bytes: 0,
        };
        self.count(By::Loss, counts, |name| {
            let (reason, group, netns) = (loss.reason, loss.group, loss.netns);
            name.extend_from_slice(
                format!("{reason}, group {group} in network namespace {netns}").as_bytes(),
            );
        });
    }

    /// Takes what another one has counted, and leaves it empty.
    pub(super) fn take_all(&mut self, other: &mut Self) {
        self.all.add(std::mem::take(&mut other.all));
        for (table, other) in self.tables.iter_mut().zip(&mut other.tables) {
            table.take_all(other);
        }
    }

    fn count(&mut self, by: By, counts: Counts, write: impl FnOnce(&mut Vec<u8>)) {
        self.name.clear();
        write(&mut self.name);
        // What is written comes from strings.
        let name = std::str::from_utf8(&self.name).unwrap_or("?");
        self.tables[by as usize].add(name, counts);
    }
}

fn prefix(name: &mut Vec<u8>, record: &Record<'_>) {
    match record.prefix.trim() {
        "" => name.extend_from_slice(b"(no prefix)"),
        prefix => push_escaped(name, prefix),
    }
}

fn workload(name: &mut Vec<u8>, record: &Record<'_>) {
    match (record.process, record.attribution.owner()) {
        (Some(process), _) => place(name, &process.workload),
        (None, Some(_)) => name.extend_from_slice(b"(not resolved)"),
        (None, None) => name.extend_from_slice(b"(no owner)"),
    }
}

/// A pod's names if they are known: they say more than a container's id, and there is not much room.
fn place(name: &mut Vec<u8>, workload: &Workload) {
    let Some(pod) = &workload.pod else {
        push_place(name, workload);
        if name.is_empty() {
            name.extend_from_slice(b"(host)");
        }
        return;
    };
    push_escaped(name, &pod.namespace);
    let container = workload.container.as_ref().map(|container| &container.name);
    for part in [Some(&pod.name), container].into_iter().flatten() {
        name.push(b'/');
        push_escaped(name, part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Counts = Counts {
        packets: 1,
        bytes: 60,
    };

    #[test]
    fn what_does_not_fit_is_counted_together() {
        let mut table = Table::default();
        for number in 0..MAX_KEYS + 10 {
            table.add(&number.to_string(), ONE);
            table.add("0", ONE);
        }
        assert_eq!(table.names.len(), MAX_KEYS);
        assert_eq!(table.rest.packets, 10);
        assert_eq!(table.names["0"].packets, 1 + (MAX_KEYS as u64 + 10));
    }

    #[test]
    fn taking_all_leaves_nothing_and_loses_nothing() {
        let (mut whole, mut part) = (Tally::default(), Tally::default());
        for _ in 0..3 {
            part.all.add(ONE);
            part.count(By::Process, ONE, |name| name.extend_from_slice(b"nc[1]"));
            whole.take_all(&mut part);
        }
        assert_eq!(whole.all.packets, 3);
        assert_eq!(whole.tables[By::Process as usize].names["nc[1]"].bytes, 180);
        assert_eq!(part.all, Counts::default());
        assert!(part.tables[By::Process as usize].names.is_empty());
    }
}
