//! The screen: what is known of all packets, the chosen table, keys. Fits 80x24, and smaller ones as far as it goes.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Table};

use super::browser::Browser;
use super::model::{Row, Sort};
use super::quantity::short;
use super::tally::By;

/// What is known beside the browser.
pub(super) struct Surroundings<'a> {
    /// What is read.
    pub(super) reading: &'a str,
    /// The agent's last message.
    pub(super) message: Option<&'a str>,
    pub(super) colour: bool,
}

const KEYS: &str = "q quit  1-6 tab view  s sort  / filter  p pause  up down";

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, browser: &Browser, around: &Surroundings<'_>) {
    let [head, tabs, table, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(2),
    ])
    .areas(frame.area());
    let paint = Paint(around.colour);
    frame.render_widget(Paragraph::new(head_lines(browser, around, paint)), head);
    frame.render_widget(Paragraph::new(tab_line(browser.view(), paint)), tabs);
    if browser.view() == By::Loss {
        losses(frame, table, browser, paint);
    } else {
        rows(frame, table, browser, paint);
    }
    frame.render_widget(Paragraph::new(foot_lines(browser, around, paint)), foot);
}

/// Colours, unless there are to be none; then weight alone tells things apart.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn colour(self, colour: Color) -> Style {
        if self.0 {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn chosen(self) -> Style {
        self.colour(Color::Cyan)
            .add_modifier(Modifier::BOLD | Modifier::REVERSED)
    }
}

fn head_lines<'a>(browser: &Browser, around: &Surroundings<'a>, paint: Paint) -> Vec<Line<'a>> {
    let model = browser.shown();
    let all = model.all();
    let lost = model.lost();
    let mut first = vec![
        Span::styled("nflog-agent top", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!("  {}  {}", clock(model.elapsed()), around.reading)),
    ];
    if browser.is_paused() {
        let style = paint
            .colour(Color::Yellow)
            .add_modifier(Modifier::BOLD | Modifier::REVERSED);
        first.insert(1, Span::styled(" PAUSED ", style));
    }
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut second = vec![
        Span::styled(short(all.packet_rate), bold),
        Span::raw(" packets/s  "),
        Span::styled(short(all.byte_rate), bold),
        Span::raw(format!(" bytes/s  {} packets  ", all.total.packets)),
        Span::styled(
            format!("{lost} lost"),
            if lost > 0 {
                paint.colour(Color::Red).add_modifier(Modifier::BOLD)
            } else {
                Style::new()
            },
        ),
    ];
    if let Some(owned) = model.owned() {
        second.push(Span::raw(format!("  {:.1}% with owner", owned * 100.0)));
    }
    vec![Line::from(first), Line::from(second)]
}

fn tab_line(view: By, paint: Paint) -> Line<'static> {
    let mut spans = Vec::new();
    for (at, by) in By::ALL.into_iter().enumerate() {
        let style = if by == view { paint.chosen() } else { Style::new() };
        spans.push(Span::styled(format!(" {} {} ", at + 1, by.name()), style));
    }
    Line::from(spans)
}

fn rows(frame: &mut Frame<'_>, area: Rect, browser: &Browser, paint: Paint) {
    let rows = browser.rows();
    let room = usize::from(area.height.saturating_sub(1));
    let first = browser.first(rows.len(), room);
    let shown = rows
        .iter()
        .skip(first)
        .take(room)
        .map(|row| table_row(row, paint));
    let widths = [
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(11),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Min(10),
    ];
    let table = Table::new(shown, widths).header(header(browser, paint));
    frame.render_widget(table, area);
}

fn header(browser: &Browser, paint: Paint) -> TableRow<'static> {
    let sort = browser.sort();
    let cell = |title: &str, width: usize, by: Option<Sort>| {
        let style = if by == Some(sort) {
            paint.chosen()
        } else {
            Style::new().add_modifier(Modifier::UNDERLINED)
        };
        Cell::from(Span::styled(format!("{title:>width$}"), style))
    };
    let name = match browser.view() {
        By::Prefix => "PREFIX",
        By::Process => "PROCESS",
        By::Workload => "WORKLOAD",
        By::Action => "ACTION",
        By::Owner => "OWNER FOUND BY",
        By::Loss => "LOST",
    };
    TableRow::new([
        cell("packets/s", 9, Some(Sort::PacketRate)),
        cell("bytes/s", 8, Some(Sort::ByteRate)),
        cell("packets", 11, Some(Sort::Packets)),
        cell("bytes", 7, Some(Sort::Bytes)),
        cell("share", 6, None),
        cell(name, 0, Some(Sort::Name)),
    ])
}

fn table_row(row: &Row, paint: Paint) -> TableRow<'static> {
    let none = row.name.starts_with("none") || row.name.starts_with('(');
    let style = paint.colour(if none { Color::DarkGray } else { Color::Green });
    TableRow::new([
        Cell::from(format!("{:>9}", short(row.packet_rate))),
        Cell::from(format!("{:>8}", short(row.byte_rate))),
        Cell::from(format!("{:>11}", row.total.packets)),
        Cell::from(format!("{:>7}", short(row.total.bytes as f64))),
        Cell::from(format!("{:>5.1}%", row.share * 100.0)),
        Cell::from(Span::styled(row.name.clone(), style)),
    ])
}

/// The account, and below it the loss reports by group.
fn losses(frame: &mut Frame<'_>, area: Rect, browser: &Browser, paint: Paint) {
    let mut lines: Vec<_> = browser
        .shown()
        .account()
        .into_iter()
        .map(|(what, count)| Line::from(format!("{count:>14}  {what}")))
        .collect();
    let rows = browser.rows();
    if !rows.is_empty() {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        lines.extend([Line::default(), Line::styled("missed by group", bold)]);
    }
    for row in rows {
        let line = format!("{:>14}  {}", row.total.packets, row.name);
        lines.push(Line::styled(line, paint.colour(Color::Red)));
    }
    let room = usize::from(area.height);
    let first = browser.first(lines.len(), room);
    let shown: Vec<_> = lines.into_iter().skip(first).take(room).collect();
    frame.render_widget(Paragraph::new(shown), area);
}

fn foot_lines<'a>(browser: &Browser, around: &Surroundings<'a>, paint: Paint) -> Vec<Line<'a>> {
    let message = Line::styled(around.message.unwrap_or_default(), paint.colour(Color::Yellow));
    let filter = browser.filter();
    let last = if browser.is_editing() {
        Line::from(format!("filter: {filter}_   Enter keep  Esc clear"))
    } else if filter.is_empty() {
        Line::from(KEYS)
    } else {
        Line::from(format!("filter: {filter}   Esc clear   {KEYS}"))
    };
    vec![message, last]
}

/// `1:02:03`.
fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::buffer::Buffer;

    use super::*;
    use crate::commands::top::browser::Wish;
    use crate::commands::top::tally::{Counts, Tally};
    use crate::telemetry::ledger::Ledger;

    /// A browser with a minute of one interval behind it, and some names in each table.
    fn browser() -> Browser {
        let ledger = Ledger::new();
        ledger.gap(12);
        let mut account = ledger.account();
        (0..40).for_each(|_| account.receive());
        account.exported();
        let mut tally = Tally::default();
        let names: [(By, &[(&str, u64)]); 6] = [
            (By::Prefix, &[("in-new", 30), ("out-dns", 10)]),
            (
                By::Process,
                &[("nginx[4711]", 25), ("none(no-socket)", 10), ("dig[99]", 5)],
            ),
            (By::Workload, &[("shop/web-7/app", 25), ("(host)", 15)]),
            (By::Action, &[("accept", 30), ("drop", 10)]),
            (By::Owner, &[("socket", 30), ("none no-socket", 10)]),
            (
                By::Loss,
                &[("sequence-gap, group 7 in network namespace 4026531840", 12)],
            ),
        ];
        for (by, names) in names {
            for (name, packets) in names {
                let counts = Counts {
                    packets: *packets,
                    bytes: packets * 1500,
                };
                tally.tables[by as usize].add(name, counts);
            }
        }
        tally.all = Counts {
            packets: 40,
            bytes: 60_000,
        };
        let mut browser = Browser::new(By::Prefix);
        let interval = Duration::from_secs(60);
        browser
            .model_mut()
            .advance(tally, interval, Some(ledger.snapshot()));
        browser
    }

    fn draw_on(browser: &Browser, colour: bool, width: u16, height: u16) -> Buffer {
        let around = Surroundings {
            reading: "group 7",
            message: Some("WARN web: 12 packets lost"),
            colour,
        };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, browser, &around)).unwrap();
        terminal.backend().buffer().clone()
    }

    fn text(buffer: &Buffer) -> String {
        let mut text = String::new();
        for row in buffer.content().chunks(usize::from(buffer.area.width)) {
            let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
            writeln!(text, "{}", line.trim_end()).unwrap();
        }
        text
    }

    /// All views, each below its name.
    fn screens(width: u16, height: u16) -> String {
        let mut browser = browser();
        let mut screens = String::new();
        for by in By::ALL {
            browser.obey(Wish::Show(by));
            let screen = text(&draw_on(&browser, true, width, height));
            write!(screens, "=== {} {width}x{height}\n{screen}", by.name()).unwrap();
        }
        screens
    }

    /// `NFLOG_AGENT_UPDATE_SCREENS=1 cargo test` writes them anew.
    fn assert_is_golden(name: &str, screens: &str) {
        let path = format!(
            "{}/src/commands/top/screens/{name}.txt",
            env!("CARGO_MANIFEST_DIR")
        );
        if std::env::var_os("NFLOG_AGENT_UPDATE_SCREENS").is_some() {
            std::fs::write(&path, screens).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap();
        assert!(golden == screens, "{path} is not:\n{screens}");
    }

    #[test]
    fn every_view_fits_a_small_and_a_large_terminal() {
        assert_is_golden("80x24", &screens(80, 24));
        assert_is_golden("200x50", &screens(200, 50));
    }

    #[test]
    fn a_terminal_too_small_for_anything_is_no_reason_to_panic() {
        let mut browser = browser();
        for by in By::ALL {
            browser.obey(Wish::Show(by));
            for (width, height) in [(1, 1), (10, 3), (40, 5)] {
                draw_on(&browser, true, width, height);
            }
        }
    }

    #[test]
    fn without_colour_there_is_none_anywhere() {
        let mut browser = browser();
        browser.obey(Wish::Pause);
        for by in By::ALL {
            browser.obey(Wish::Show(by));
            let plain = draw_on(&browser, false, 80, 24);
            assert!(
                plain
                    .content()
                    .iter()
                    .all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
            );
            let colourful = draw_on(&browser, true, 80, 24);
            assert!(colourful.content().iter().any(|cell| cell.fg != Color::Reset));
        }
    }

    #[test]
    fn a_pause_and_a_filter_are_seen() {
        let mut browser = browser();
        browser.obey(Wish::Pause);
        browser.obey(Wish::Filter);
        browser.obey(Wish::Write('d'));
        let editing = text(&draw_on(&browser, true, 80, 24));
        assert!(
            editing.contains("PAUSED") && editing.contains("filter: d_"),
            "{editing}"
        );
        browser.obey(Wish::Accept);
        let filtered = text(&draw_on(&browser, true, 80, 24));
        assert!(
            filtered.contains("filter: d ") && filtered.contains("out-dns"),
            "{filtered}"
        );
        assert!(!filtered.contains("in-new"), "{filtered}");
    }
}
