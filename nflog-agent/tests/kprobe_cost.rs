//! What the probes cost: the kernel's run-time statistics (`kernel.bpf_stats_enabled`) of each program, beside those of the
//! empty program on the same function in the same run. Prints a line `COST ..` for each; RELIABILITY.md has them as a table.
//!
//! No time is asserted: in an emulated guest only the ratio to the empty program means anything, and even that includes the
//! clock reads around each run, which make it smaller than it is. What is asserted is that each program ran as often as its
//! workload called for. Skips, loudly, only on a kernel built without kprobes.

mod support;

use std::net::{TcpListener, TcpStream, UdpSocket};

use nflog_agent::owner::{Noop, Probes, ProbesError, ProgramStatistics};
use support::Netns;

const RULES: &str = "
    table ip t {
        chain out { type filter hook output priority 0; udp dport 9 log group 12; }
    }";

/// Calls of each workload that makes no connection.
const MANY: u32 = 3000;
const CONNECTIONS: u32 = 300;

/// What is measured: a program on a function, driven by a workload.
struct Case {
    what: &'static str,
    program: &'static str,
    symbol: &'static str,
    runs: u32,
    drive: fn(&Sockets),
}

const CASES: [Case; 6] = [
    Case {
        what: "logged packet",
        program: "nf_log_packet",
        symbol: "nf_log_packet",
        runs: MANY,
        drive: |sockets| sockets.send(9),
    },
    Case {
        what: "UDP send, socket known",
        program: "sendmsg",
        symbol: "udp_sendmsg",
        runs: MANY,
        drive: |sockets| sockets.send(10),
    },
    Case {
        what: "connect",
        program: "tcp_connect",
        symbol: "tcp_connect",
        runs: CONNECTIONS,
        drive: Sockets::connect,
    },
    Case {
        what: "handshake",
        program: "inet_csk_reqsk_queue_hash_add",
        symbol: "inet_csk_reqsk_queue_hash_add",
        runs: CONNECTIONS,
        drive: Sockets::connect,
    },
    Case {
        what: "accept",
        program: "security_sock_graft",
        symbol: "security_sock_graft",
        runs: CONNECTIONS,
        drive: Sockets::connect,
    },
    Case {
        what: "end of a connection's socket",
        program: "inet_sock_destruct",
        symbol: "inet_sock_destruct",
        runs: CONNECTIONS,
        drive: Sockets::connect,
    },
];

struct Sockets {
    listener: TcpListener,
    sender: UdpSocket,
}

impl Sockets {
    fn open() -> Self {
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
        Self {
            listener: TcpListener::bind("127.0.0.1:0").expect("a port"),
            sender,
        }
    }

    fn send(&self, port: u16) {
        for _ in 0..MANY {
            // Nobody listens there: the socket hears of it at its next call.
            let _ = self.sender.send_to(b"datagram", ("127.0.0.1", port));
        }
    }

    fn connect(&self) {
        let to = self.listener.local_addr().expect("bound");
        for _ in 0..CONNECTIONS {
            let client = TcpStream::connect(to).expect("loopback works");
            drop(self.listener.accept().expect("a connection"));
            drop(client);
        }
    }
}

#[track_caller]
fn of_program(probes: &Probes, name: &str) -> ProgramStatistics {
    let all = probes.statistics().read().expect("/proc is mounted");
    *all.iter()
        .find(|one| one.program == name)
        .unwrap_or_else(|| panic!("no program {name}: {all:?}"))
}

fn of_noop(noop: &Noop) -> ProgramStatistics {
    noop.statistics().read().expect("/proc is mounted")[0]
}

/// Runs and their mean time in ns between two readings.
fn mean(before: &ProgramStatistics, after: &ProgramStatistics) -> (u64, f64) {
    let runs = after.runs - before.runs;
    let time = after.run_time - before.run_time;
    let runs_or_one = u32::try_from(runs.max(1)).expect("a few thousand");
    (runs, time.as_secs_f64() * 1e9 / f64::from(runs_or_one))
}

#[test]
fn every_program_beside_the_empty_one() {
    let netns = Netns::new("cost");
    let mut probes = match Probes::open(&[12], None) {
        Ok(probes) => probes,
        Err(error @ ProbesError::NoKprobes) => {
            println!("SKIPPED: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    netns.nft(RULES);
    std::fs::write("/proc/sys/kernel/bpf_stats_enabled", "1").expect("statistics can be switched on");
    let sockets = netns.run(Sockets::open);
    let line = std::env::var("NFLOG_VM").unwrap_or_else(|_| "host".to_owned());
    println!();
    let mut idle = Vec::new();
    for case in &CASES {
        // Once without measuring, so that maps and caches are as they will be.
        netns.run(|| (case.drive)(&sockets));
        let noop = probes.noop(case.symbol).unwrap_or_else(|error| panic!("{error}"));
        let (program_before, noop_before) = (of_program(&probes, case.program), of_noop(&noop));
        netns.run(|| (case.drive)(&sockets));
        let (program_after, noop_after) = (of_program(&probes, case.program), of_noop(&noop));
        let (runs, ours) = mean(&program_before, &program_after);
        let (noop_runs, empty) = mean(&noop_before, &noop_after);
        println!(
            "COST {line} | {} | {} | {runs} | {ours:.0} ns | {empty:.0} ns | {:.1} |",
            case.what,
            case.program,
            ours / empty
        );
        // Some may be left out, because another program ran on that CPU.
        let enough = u64::from(case.runs / 10 * 9);
        if runs < enough || noop_runs < enough {
            idle.push(format!(
                "{}: {runs} runs, {noop_runs} of the empty program",
                case.what
            ));
        }
    }
    std::fs::write("/proc/sys/kernel/bpf_stats_enabled", "0").expect("statistics can be switched off");
    assert!(idle.is_empty(), "fewer than the workload called for: {idle:?}");
}
