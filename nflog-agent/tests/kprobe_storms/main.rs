//! Storms: sockets that live for an instant, pids and ports that come again at once, and a socket map that is full. Whatever
//! happens, no packet gets a wrong owner, and every packet without one has its reason.
//!
//! Truth comes from the workers: each marks its sockets (`SO_MARK`) with a number that no other one ever uses, and lives in a
//! cgroup of its own. The mark is in each record of what the worker sends, so that a record tells whose it is
//! even where pid and ports are another's by now. Skips, loudly, only on a kernel built without kprobes.

#[path = "../support/mod.rs"]
mod support;

#[allow(dead_code, reason = "shared with the tests of the agent")]
#[path = "../agent/program.rs"]
mod program;
#[allow(dead_code, reason = "shared with the tests of the agent")]
#[path = "../agent/seen.rs"]
mod seen;

mod storm;
mod worker;

use nflog_agent::owner::{Probes, ProbesError};
use storm::Storm;
use support::kernel;
use worker::{Order, Worker};

/// How many sockets the map holds where it shall overflow.
const FEW: u32 = 48;

#[test]
fn sockets_that_live_for_an_instant_are_never_anothers() {
    let Some(storm) = Storm::begin(&[]) else { return };
    let workers: Vec<_> = (1..=4)
        .map(|mark| {
            let order = Order {
                datagrams: 500,
                connections: 40,
                ..Order::new(mark)
            };
            Worker::start(&storm, order)
        })
        .collect();
    let truths: Vec<_> = workers.into_iter().map(Worker::finish).collect();
    let verdict = storm.end(&truths);
    verdict.print("short-lived");
    verdict.assert_never_wrong();
    // Nothing is shared between these sockets: only what the kernel did not let the probes see may be missing.
    assert!(verdict.right * 10 >= verdict.entries * 9, "{verdict:?}");
}

/// Most of them only take a port and close, which costs little beside the probes: one in 65 sends, and is judged.
#[test]
fn ports_that_are_taken_for_an_instant_name_nobody_else() {
    let Some(storm) = Storm::begin(&[]) else { return };
    let workers: Vec<_> = (1..=2)
        .map(|mark| {
            let order = Order {
                datagrams: 400,
                silent: 64,
                ..Order::new(mark)
            };
            Worker::start(&storm, order)
        })
        .collect();
    let truths: Vec<_> = workers.into_iter().map(Worker::finish).collect();
    let verdict = storm.end(&truths);
    verdict.print("ports");
    verdict.assert_never_wrong();
    assert!(verdict.right * 10 >= verdict.entries * 9, "{verdict:?}");
}

#[test]
fn a_pid_and_a_port_that_come_again_at_once_are_told_apart() {
    let Some(storm) = Storm::begin(&[]) else { return };
    storm.few_ports();
    let mut truths = Vec::new();
    for mark in 1..=24 {
        let order = Order {
            datagrams: 8,
            connections: 3,
            ..Order::new(mark)
        };
        let again = truths.first().map(|first: &worker::Truth| first.pid);
        truths.push(Worker::start_as(&storm, order, again).finish());
    }
    let verdict = storm.end(&truths);
    verdict.print("reuse");
    verdict.assert_never_wrong();
    assert!(verdict.right > 0, "{verdict:?}");
    let recurred = truths.iter().filter(|truth| truth.pid == truths[0].pid).count();
    assert!(recurred > 10, "the pid came again {recurred} times: {truths:?}");
    assert!(verdict.ports_shared > 0, "no port came again: {verdict:?}");
}

#[test]
fn a_full_socket_map_costs_owners_and_is_counted() {
    let Some(storm) = Storm::begin(&["--max-sockets", &FEW.to_string()]) else {
        return;
    };
    let order = Order {
        datagrams: 300,
        connections: 0,
        keep: true,
        ..Order::new(1)
    };
    let crowd = Worker::start(&storm, order).finish();
    let order = Order {
        datagrams: 20,
        connections: 5,
        ..Order::new(2)
    };
    let afterwards = Worker::start(&storm, order).finish();
    let verdict = storm.end(&[crowd, afterwards]);
    verdict.print("full-map");
    verdict.assert_never_wrong();
    let refused = program::counted(&verdict.messages, "socket-map-error");
    assert!(refused >= u64::from(300 - FEW), "{refused} refused: {verdict:?}");
    let unowned = verdict.reasons.get("map-full").copied().unwrap_or(0);
    assert!(unowned >= u64::from(300 - FEW), "{verdict:?}");
    assert_eq!(verdict.reasons.get("older-than-agent"), None, "{verdict:?}");
    // The map has room again when the crowd has gone. Its sockets may be freed a moment later.
    assert!(verdict.right_of(2) >= 10, "{verdict:?}");
}

#[test]
fn runs_that_the_kernel_leaves_out_are_reported() {
    let Some(storm) = Storm::begin(&[]) else { return };
    let order = Order {
        datagrams: 50,
        connections: 5,
        ..Order::new(1)
    };
    let truth = Worker::start(&storm, order).finish();
    let verdict = storm.end(&[truth]);
    verdict.print("left-out");
    verdict.assert_never_wrong();
    let said = verdict.message("the kernel left out").is_some();
    let not_counted = verdict
        .message("does not count the runs that it leaves out")
        .is_some();
    assert_eq!(
        (said, not_counted),
        (kernel() >= (6, 7), kernel() < (6, 7)),
        "{}",
        verdict.messages
    );
}

/// Reads maps, which keeps programs from running on the reader's CPU, while packets are logged. Whether a run is left out is
/// the scheduler's choice, so that is printed and not asserted.
#[test]
fn the_kernel_says_of_every_program_what_it_left_out_if_it_counts_that() {
    let probes = match Probes::open(&[11], None) {
        Ok(probes) => probes,
        Err(error @ ProbesError::NoKprobes) => {
            println!("SKIPPED: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let netns = support::Netns::new("left-out");
    let sending = netns.run(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let to = socket.local_addr().expect("bound");
        std::thread::spawn(move || {
            for _ in 0..5000 {
                socket.send_to(b"storm", to).expect("loopback works");
            }
        })
    });
    while !sending.is_finished() {
        probes.counters().read().expect("the counters");
    }
    sending.join().expect("the datagrams are sent");
    let statistics = probes.statistics().read().expect("/proc is mounted");
    println!();
    for one in &statistics {
        assert_eq!(one.skipped.is_some(), kernel() >= (6, 7), "{one:?}");
        // Tracepoints, and programs that another one goes on in, are on no kprobe.
        let on_kprobe = !["process_", "nf_log_sender", "nf_log_receiver"]
            .iter()
            .any(|start| one.program.starts_with(start));
        assert_eq!(one.missed.is_some(), on_kprobe && kernel() >= (6, 17), "{one:?}");
        if one.left_out() > Some(0) {
            println!("STORM left-out {one:?}");
        }
    }
    let programs: Vec<_> = statistics.iter().map(|one| one.program).collect();
    assert!(
        programs.contains(&"nf_log_packet") && programs.contains(&"sendmsg"),
        "{programs:?}"
    );
}
