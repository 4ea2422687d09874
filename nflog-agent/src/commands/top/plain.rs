//! `--batch`: the tables as text, for pipes.

use std::fmt::Write as _;

use super::model::{Model, Sort};
use super::tally::By;

/// One report: what is known of all packets, then the tables, of each at most `rows` rows.
pub(super) fn report(model: &Model, views: &[By], rows: usize) -> String {
    let all = model.all();
    let mut text = String::new();
    push(
        &mut text,
        format_args!(
            "after {:.1} s: {:.1} packets/s, {:.1} bytes/s, {} packets, {} bytes, {} lost\n",
            model.elapsed().as_secs_f64(),
            all.packet_rate,
            all.byte_rate,
            all.total.packets,
            all.total.bytes,
            model.lost(),
        ),
    );
    for by in views {
        push(&mut text, format_args!("\n{}\n", by.name()));
        if *by == By::Loss {
            for (what, count) in model.account() {
                push(&mut text, format_args!("{count:>14}  {what}\n"));
            }
            for row in model.rows(*by, Sort::Packets, "").iter().take(rows) {
                push(
                    &mut text,
                    format_args!("{:>14}  {}\n", row.total.packets, row.name),
                );
            }
            continue;
        }
        push(
            &mut text,
            format_args!(
                "{:>12} {:>14} {:>14} {:>16} {:>6}  name\n",
                "packets/s", "bytes/s", "packets", "bytes", "share"
            ),
        );
        let all = model.rows(*by, Sort::PacketRate, "");
        for row in all.iter().take(rows) {
            push(
                &mut text,
                format_args!(
                    "{:>12.1} {:>14.1} {:>14} {:>16} {:>5.1}%  {}\n",
                    row.packet_rate,
                    row.byte_rate,
                    row.total.packets,
                    row.total.bytes,
                    row.share * 100.0,
                    row.name
                ),
            );
        }
        if all.len() > rows {
            push(&mut text, format_args!("{:>12} more\n", all.len() - rows));
        }
    }
    text.push('\n');
    text
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments)
        .expect("writing to a String does not fail");
}
