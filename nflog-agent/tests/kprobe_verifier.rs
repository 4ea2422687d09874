//! Every program loads on this kernel, and its verification takes what the table `verifier.txt` says.
//!
//! The table is made anew by
//! `cargo xtask vm -- kprobe_verifier | sed -n 's/^.*VERIFIER //p' | sort > nflog-agent/tests/verifier.txt`.
//! Skips, loudly, only on a kernel built without kprobes. The kernel tells the counts since 5.16; before, and on a kernel that is
//! not one of the guests' (`NFLOG_VM`), only loading is tested.

use std::collections::BTreeMap;

use nflog_agent::owner::{ProbesError, verify};

/// Kernel line, program, instructions.
const TABLE: &str = include_str!("verifier.txt");

/// How far a count may be from the table's, in per cent. A point release of the kernel or another LLVM moves counts by some per
/// cent, as where branches meet decides which paths the verifier need not walk again; a path more through a lookup or a loop
/// that is not unrolled any longer moves them by tens of per cent. Far below is reported too: the table would no longer notice
/// a growth back.
const TOLERANCE: u32 = 20;
/// The same in instructions, for programs so small that a spilled register is some per cent.
const SLACK: u32 = 24;

fn agrees(expected: u32, count: u32) -> bool {
    expected.abs_diff(count) <= (expected / 100 * TOLERANCE).max(SLACK)
}

/// What disagrees with the table.
fn complaints(line: &str, counts: &BTreeMap<String, u32>) -> Vec<String> {
    let table: BTreeMap<&str, u32> = TABLE
        .lines()
        .filter_map(|row| {
            let mut words = row.split(' ');
            let of_this_kernel = words.next() == Some(line);
            let program = words.next().expect("a program");
            let count = words
                .next()
                .and_then(|count| count.parse().ok())
                .expect("a count");
            of_this_kernel.then_some((program, count))
        })
        .collect();
    let grown = counts
        .iter()
        .filter_map(|(program, &count)| match table.get(program.as_str()) {
            None => Some(format!("{program}: {count}, and it is not in the table")),
            Some(&expected) if agrees(expected, count) => None,
            Some(&expected) => Some(format!("{program}: {count}, in the table {expected}")),
        });
    let gone = table
        .keys()
        .filter(|program| !counts.contains_key(**program))
        .map(|program| format!("{program}: in the table, and there is no such program"));
    grown.chain(gone).collect()
}

#[test]
fn every_program_loads_with_the_effort_in_the_table() {
    let verified = match verify() {
        Ok(verified) => verified,
        Err(error @ ProbesError::NoKprobes) => {
            println!("SKIPPED: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let programs: Vec<_> = verified.iter().map(|one| one.program.as_str()).collect();
    assert!(programs.contains(&"nf_log_packet"), "{programs:?}");
    let counts: BTreeMap<_, _> = verified
        .iter()
        .filter_map(|one| Some((one.program.clone(), one.instructions?)))
        .collect();
    let Ok(line) = std::env::var("NFLOG_VM") else {
        println!("all {} programs load; no guest, so no table", verified.len());
        return;
    };
    if counts.is_empty() {
        assert_eq!(line, "5.10", "the kernel tells the counts since 5.16");
        println!("all {} programs load; this kernel does not count", verified.len());
        return;
    }
    assert_eq!(counts.len(), verified.len(), "{verified:?}");
    println!();
    for (program, count) in &counts {
        println!("VERIFIER {line} {program} {count}");
    }
    let complaints = complaints(&line, &counts);
    assert!(
        complaints.is_empty(),
        "verifier.txt disagrees; if that is as it should be, make the table anew:\n{}",
        complaints.join("\n")
    );
}

#[test]
fn growth_by_more_than_a_fifth_is_reported() {
    assert!(agrees(1000, 1200) && !agrees(1000, 1201));
    assert!(agrees(1000, 800) && !agrees(1000, 799));
    assert!(agrees(10, 34) && !agrees(10, 35));
}
