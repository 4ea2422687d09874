//! What a running agent can still do, read from `/proc`, beside what it promises.

use std::collections::BTreeSet;

use procfs::process::{Process, Status};
use procfs::{ProcError, ProcResult};
use rustix::thread::CapabilitySet;

use super::finding::{Cause, Finding};
use crate::confinement::{OUTWARD_THREADS, Role, allowed, described, names};

/// Program and subcommand that are looked for.
const PROGRAM: &str = "nflog-agent";
const SUBCOMMAND: &str = "run";
/// Mode of seccomp with a filter (`SECCOMP_MODE_FILTER`).
const FILTERED: u32 = 2;
/// Threads that are named, of those that something is wrong with.
const NAMED: usize = 3;
/// What helps against all of it.
const REMEDY: &str = "start it without --sandbox off; its first messages say what could not be given up";

/// Threads of the agent. `namespaces`: whether it is to enter namespaces later, if that is known.
pub(super) fn check(pid: Option<u32>, namespaces: Option<bool>) -> Vec<Finding> {
    let pid = match pid {
        Some(pid) => pid,
        None => match found() {
            Ok(pid) => pid,
            Err(finding) => return vec![finding],
        },
    };
    let threads = match threads(pid) {
        Ok(threads) => threads,
        Err(error) => {
            let found = format!("process {pid} cannot be read: {error}");
            let remedy = "name the pid of an agent that runs, and run as root";
            return vec![Finding::failed("agent", Cause::Unavailable, found, remedy)];
        }
    };
    let main = threads.first().map(|thread| (thread.ruid, thread.euid));
    let (ruid, euid) = main.unwrap_or_default();
    let agent = format!(
        "process {pid}, user {euid} (real {ruid}), {} threads",
        threads.len()
    );
    vec![
        Finding::ok("agent", agent),
        every(
            &threads,
            "no-new-privs",
            "no thread can gain rights by a program",
            |thread| (thread.nonewprivs != Some(1)).then(|| "may gain rights".to_owned()),
        ),
        every(
            &threads,
            "seccomp",
            "every thread has a filter of system calls",
            |thread| (thread.seccomp != Some(FILTERED)).then(|| "has no filter of system calls".to_owned()),
        ),
        capabilities(&threads, "capabilities-readers", Role::Inward, namespaces),
        capabilities(&threads, "capabilities-network", Role::Outward, namespaces),
        every(
            &threads,
            "capabilities-passed-on",
            "no thread passes any on to programs",
            |thread| {
                let passed = CapabilitySet::from_bits_retain(thread.capinh | thread.capamb.unwrap_or(0));
                (!passed.is_empty()).then(|| format!("passes on {}", names(passed)))
            },
        ),
    ]
}

/// The one agent that runs.
fn found() -> Result<u32, Finding> {
    let processes = procfs::process::all_processes()
        .map_err(|error| Finding::failed("agent", Cause::Unavailable, error.to_string(), "mount /proc"))?;
    let own = std::process::id();
    let pids: BTreeSet<u32> = processes
        .flatten()
        .filter(is_agent)
        .filter_map(|process| u32::try_from(process.pid()).ok())
        .filter(|pid| *pid != own)
        .collect();
    let remedy = "name one: nflog-agent check --running PID";
    match Vec::from_iter(pids).as_slice() {
        [pid] => Ok(*pid),
        [] => Err(Finding::failed(
            "agent",
            Cause::Unavailable,
            "none runs here",
            format!("start one, or {remedy}"),
        )),
        several => {
            let several: Vec<_> = several.iter().map(u32::to_string).collect();
            let found = format!("several run: {}", several.join(", "));
            Err(Finding::failed("agent", Cause::Usage, found, remedy))
        }
    }
}

fn is_agent(process: &Process) -> bool {
    let is_program = process.stat().is_ok_and(|stat| stat.comm == PROGRAM);
    is_program
        && process
            .cmdline()
            .is_ok_and(|line| line.get(1).is_some_and(|argument| argument == SUBCOMMAND))
}

/// The main thread first.
fn threads(pid: u32) -> ProcResult<Vec<Status>> {
    let pid = i32::try_from(pid).map_err(|_| ProcError::NotFound(None))?;
    let process = Process::new(pid)?;
    let mut threads = Vec::new();
    for task in process.tasks()? {
        match task.and_then(|task| task.status()) {
            Ok(status) => threads.push(status),
            // It has ended meanwhile.
            Err(ProcError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    threads.sort_by_key(|thread| thread.pid);
    Ok(threads)
}

/// Something that holds for each thread; `against` says what is wrong with one.
fn every(
    threads: &[Status],
    check: &str,
    good: &str,
    against: impl Fn(&Status) -> Option<String>,
) -> Finding {
    let bad: Vec<_> = threads
        .iter()
        .filter_map(|thread| Some(format!("{} ({}) {}", thread.name, thread.pid, against(thread)?)))
        .collect();
    let Some(more) = bad.len().checked_sub(NAMED) else {
        return judged(check, good, &bad, "");
    };
    let and = if more == 0 {
        String::new()
    } else {
        format!(", and {more} more")
    };
    judged(check, good, &bad[..NAMED], &and)
}

fn judged(check: &str, good: &str, bad: &[String], and: &str) -> Finding {
    if bad.is_empty() {
        return Finding::ok(check, good);
    }
    Finding::failed(
        check,
        Cause::Permission,
        format!("{}{and}", bad.join(", ")),
        REMEDY,
    )
}

fn role(thread: &Status) -> Role {
    if OUTWARD_THREADS.contains(&thread.name.as_str()) {
        Role::Outward
    } else {
        Role::Inward
    }
}

/// The threads of a role have no more than it may have.
fn capabilities(threads: &[Status], check: &str, wanted: Role, namespaces: Option<bool>) -> Finding {
    let kept = allowed(wanted, namespaces);
    let most: CapabilitySet = kept.iter().map(|kept| kept.capability).collect();
    let has = |thread: &Status| CapabilitySet::from_bits_retain(thread.capprm | thread.capeff);
    let of_role: Vec<_> = threads
        .iter()
        .filter(|thread| role(thread) == wanted)
        .cloned()
        .collect();
    let all = of_role
        .iter()
        .map(has)
        .fold(CapabilitySet::empty(), |all, one| all | one);
    let good = if all.is_empty() {
        format!("{} threads have none", of_role.len())
    } else {
        format!("{} threads keep {}", of_role.len(), described(all & most, &kept))
    };
    every(&of_role, check, &good, |thread| {
        let more = has(thread) - most;
        (!more.is_empty()).then(|| format!("still has {}", names(more)))
    })
}
