//! What is shown: totals since the start and rates of the last interval. Knows no terminal and no clock.

use std::collections::HashMap;
use std::time::Duration;

use super::tally::{By, Counts, MAX_KEYS, Table, Tally};
use crate::telemetry::ledger::{LossReason, Snapshot};

/// Names that stay when a table is full: there must be room for new ones.
const KEPT: usize = MAX_KEYS / 4 * 3;

/// A name with its total, and what of it came in the last interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    total: Counts,
    last: Counts,
}

/// All that is known at the end of an interval.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    tables: [HashMap<Box<str>, Entry>; By::ALL.len()],
    /// What had no room in the tables.
    rests: [Entry; By::ALL.len()],
    all: Entry,
    /// Length of the last interval.
    interval: Duration,
    elapsed: Duration,
    account: Option<Snapshot>,
}

/// A line of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) total: Counts,
    /// Per second.
    pub(super) packet_rate: f64,
    /// Per second.
    pub(super) byte_rate: f64,
    /// Of all packets, 0 to 1.
    pub(super) share: f64,
}

/// What rows are sorted by; the greatest come first, names from A to Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    PacketRate,
    ByteRate,
    Packets,
    Bytes,
    Name,
}

impl Sort {
    /// The next one, in the order of the columns.
    pub(super) const fn next(self) -> Self {
        match self {
            Self::PacketRate => Self::ByteRate,
            Self::ByteRate => Self::Packets,
            Self::Packets => Self::Bytes,
            Self::Bytes => Self::Name,
            Self::Name => Self::PacketRate,
        }
    }
}

impl Model {
    /// Ends an interval: `tally` is what came in it.
    pub(super) fn advance(&mut self, mut tally: Tally, interval: Duration, account: Option<Snapshot>) {
        self.interval = interval;
        self.elapsed += interval;
        self.account = account;
        self.all.advance(std::mem::take(&mut tally.all));
        for (at, table) in tally.tables.into_iter().enumerate() {
            take(&mut self.tables[at], &mut self.rests[at], table);
        }
    }

    /// The rows of a view whose names contain `filter`, whatever the case; the rest, if there is one, is the last of them.
    pub(super) fn rows(&self, by: By, sort: Sort, filter: &str) -> Vec<Row> {
        let filter = filter.to_lowercase();
        let mut rows: Vec<_> = self.tables[by as usize]
            .iter()
            .filter(|(name, _)| filter.is_empty() || name.to_lowercase().contains(&filter))
            .map(|(name, entry)| self.row(name.to_string(), entry))
            .collect();
        rows.sort_by(|a, b| {
            let order = match sort {
                Sort::PacketRate => b.packet_rate.total_cmp(&a.packet_rate),
                Sort::ByteRate => b.byte_rate.total_cmp(&a.byte_rate),
                Sort::Packets => b.total.packets.cmp(&a.total.packets),
                Sort::Bytes => b.total.bytes.cmp(&a.total.bytes),
                Sort::Name => a.name.cmp(&b.name),
            };
            // Rates are often equal, as when nothing comes: then what has been most stays on top.
            order
                .then(b.total.packets.cmp(&a.total.packets))
                .then_with(|| a.name.cmp(&b.name))
        });
        let rest = &self.rests[by as usize];
        if rest.total.packets > 0 && filter.is_empty() {
            rows.push(self.row("(others, no room)".to_owned(), rest));
        }
        rows
    }

    /// All records.
    pub(super) fn all(&self) -> Row {
        self.row("all".to_owned(), &self.all)
    }

    /// Since the start.
    pub(super) const fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Share of the packets that have an owner or are the kernel's, 0 to 1; `None` before the first packet.
    pub(super) fn owned(&self) -> Option<f64> {
        let none: u64 = self.tables[By::Owner as usize]
            .iter()
            .filter(|(name, _)| name.starts_with("none"))
            .map(|(_, entry)| entry.total.packets)
            .sum();
        let all = self.all.total.packets;
        (all > 0).then(|| 1.0 - ratio(none, all))
    }

    /// What became of the records, in words and numbers; what is 0 is left out but for the first ones.
    pub(super) fn account(&self) -> Vec<(&'static str, u64)> {
        let Some(account) = &self.account else {
            return Vec::new();
        };
        let mut lines = vec![
            ("packets received", account.received),
            ("shown", account.exported),
            ("missed before receipt (sequence gaps)", account.gaps),
        ];
        let more = [
            ("withheld by the configuration's rules", account.withheld_total()),
            ("times the receive buffer was full (ENOBUFS)", account.overruns),
            ("datagrams dropped by the socket", account.dropped_datagrams),
            ("datagrams truncated", account.truncated),
            ("datagrams malformed", account.malformed),
        ];
        lines.extend(more.into_iter().filter(|(_, count)| *count > 0));
        for reason in LossReason::ALL {
            if account.lost(reason) > 0 {
                lines.push((reason.name(), account.lost(reason)));
            }
        }
        lines
    }

    /// Packets that did not arrive, and records that were not shown.
    pub(super) fn lost(&self) -> u64 {
        self.account
            .as_ref()
            .map_or(0, |account| account.gaps + account.lost_total())
    }

    fn row(&self, name: String, entry: &Entry) -> Row {
        let seconds = self.interval.as_secs_f64();
        let rate = |count: u64| {
            if seconds > 0.0 {
                count as f64 / seconds
            } else {
                0.0
            }
        };
        Row {
            name,
            total: entry.total,
            packet_rate: rate(entry.last.packets),
            byte_rate: rate(entry.last.bytes),
            share: ratio(entry.total.packets, self.all.total.packets),
        }
    }
}

impl Entry {
    fn advance(&mut self, last: Counts) {
        self.total.add(last);
        self.last = last;
    }
}

fn take(entries: &mut HashMap<Box<str>, Entry>, rest: &mut Entry, table: Table) {
    for entry in entries.values_mut() {
        entry.last = Counts::default();
    }
    rest.advance(table.rest);
    for (name, counts) in table.names {
        entries.entry(name).or_default().advance(counts);
    }
    if entries.len() <= MAX_KEYS {
        return;
    }
    // Those that were least active lately, and then over all, make room.
    let mut order: Vec<_> = entries
        .iter()
        .map(|(name, entry)| (entry.last.packets, entry.total.packets, name.clone()))
        .collect();
    order.sort_unstable();
    for (_, _, name) in &order[..order.len() - KEPT] {
        if let Some(entry) = entries.remove(name) {
            rest.total.add(entry.total);
            rest.last.add(entry.last);
        }
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(names: impl IntoIterator<Item = (String, u64)>) -> Tally {
        let mut tally = Tally::default();
        for (name, packets) in names {
            let counts = Counts {
                packets,
                bytes: packets * 100,
            };
            tally.all.add(counts);
            tally.tables[By::Process as usize].add(&name, counts);
        }
        tally
    }

    fn names(model: &Model, sort: Sort, filter: &str) -> Vec<String> {
        let rows = model.rows(By::Process, sort, filter);
        rows.into_iter().map(|row| row.name).collect()
    }

    #[test]
    fn rates_are_of_the_last_interval_and_totals_of_all() {
        let mut model = Model::default();
        let second = Duration::from_secs(1);
        model.advance(tally([("a".to_owned(), 30), ("b".to_owned(), 10)]), second, None);
        model.advance(tally([("b".to_owned(), 20)]), 2 * second, None);
        let rows = model.rows(By::Process, Sort::default(), "");
        assert_eq!(rows[0].name, "b");
        assert_eq!((rows[0].packet_rate, rows[0].byte_rate), (10.0, 1000.0));
        assert_eq!((rows[0].total.packets, rows[0].share), (30, 0.5));
        assert_eq!((rows[1].packet_rate, rows[1].total.packets), (0.0, 30));
        assert_eq!(model.all().total.packets, 60);
        assert_eq!(model.elapsed(), 3 * second);
    }

    #[test]
    fn rows_are_sorted_and_filtered_as_asked() {
        let mut model = Model::default();
        let second = Duration::from_secs(1);
        model.advance(
            tally([("curl".to_owned(), 3), ("Nginx".to_owned(), 9)]),
            second,
            None,
        );
        model.advance(tally([("curl".to_owned(), 1)]), second, None);
        assert_eq!(names(&model, Sort::PacketRate, ""), ["curl", "Nginx"]);
        assert_eq!(names(&model, Sort::Packets, ""), ["Nginx", "curl"]);
        assert_eq!(names(&model, Sort::Name, ""), ["Nginx", "curl"]);
        assert_eq!(names(&model, Sort::Name, "NGI"), ["Nginx"]);
    }

    #[test]
    fn names_that_went_quiet_make_room_and_no_packet_is_forgotten() {
        let mut model = Model::default();
        let second = Duration::from_secs(1);
        let many = |from: usize| (from..from + MAX_KEYS).map(|number| (format!("p{number}"), 1));
        model.advance(tally(many(0)), second, None);
        model.advance(tally(many(MAX_KEYS)), second, None);
        let rows = model.rows(By::Process, Sort::default(), "");
        assert_eq!(rows.len(), KEPT + 1);
        let rest = rows.last().unwrap();
        assert_eq!(rest.name, "(others, no room)");
        let sum: u64 = rows.iter().map(|row| row.total.packets).sum();
        assert_eq!(sum, 2 * MAX_KEYS as u64);
        let active = rows.iter().filter(|row| row.packet_rate > 0.0).count();
        assert_eq!(active, KEPT + 1, "the quiet ones went first");
    }
}
