//! Case 28: sockets that are used through io_uring instead of system calls.
//!
//! A request runs in the process that submits it, in a thread of the ring's pool, or in the thread that polls the ring. Since
//! Linux 5.12 these threads are of the process; before, they are the kernel's and act for a process that they do not name.

use crate::case::{Case, Expected, case};
use crate::support::kernel;
use crate::worker::{Slot, Truth, Worker};
use crate::world::World;

case!(28, io_uring_run_by_the_caller, by_caller);
case!(28, io_uring_run_by_a_worker_thread, by_worker);
case!(28, io_uring_run_by_the_polling_thread, by_poller);

fn by_caller(world: &World, case: &mut Case) {
    judge(world, case, "caller", &[]);
}

fn by_worker(world: &World, case: &mut Case) {
    judge(world, case, "worker", threads_reasons());
}

fn by_poller(world: &World, case: &mut Case) {
    judge(world, case, "poller", threads_reasons());
}

/// Why there may be no owner of what the ring's threads do.
fn threads_reasons() -> &'static [&'static str] {
    if kernel() < (5, 12) {
        &["kernel-thread", "no-socket"]
    } else {
        &[]
    }
}

/// A process and its ring.
struct Hand<'a> {
    worker: &'a mut Worker,
    runner: &'static str,
}

impl Hand<'_> {
    fn ask(&mut self, command: &str) -> String {
        self.worker.ask(&format!("ring {} {command}", self.runner))
    }

    /// A polling thread cannot open descriptors before 5.12: then the process accepts by a system call.
    fn accept(&mut self, listener: Slot) -> Slot {
        if self.runner == "poller" && kernel() < (5, 12) {
            return self.worker.accept(listener);
        }
        self.ask(&format!("accept {listener}")).parse().expect("a slot")
    }
}

fn judge(world: &World, case: &mut Case, runner: &'static str, excuses: &[&str]) {
    let (mut server, mut client) = (world.b.worker(), world.a.worker());
    let probe = client.socket("udp", world.b.any_port(case.family));
    // A datagram to nobody shows whether there is io_uring; everything else must then work.
    let nobody = std::net::SocketAddr::new(world.b.address(case.family), 9);
    match client.attempt(&format!("ring {runner} send-to {probe} 1 {nobody}")) {
        Ok(_) => {}
        Err(error) => {
            // ENOSYS: built without CONFIG_IO_URING; EPERM: the sysctl io_uring_disabled.
            assert!(
                ["(os error 38)", "(os error 1)"]
                    .iter()
                    .any(|proof| error.contains(proof)),
                "{error}"
            );
            println!("SKIPPED: this kernel has no io_uring: {error}");
            case.absent("this kernel has no io_uring");
            return;
        }
    }
    let (client_truth, server_truth) = (client.truth, server.truth);
    let expected = |truth: Truth| {
        if excuses.is_empty() {
            Expected::Owner(truth)
        } else {
            Expected::OwnerOr(truth, excuses)
        }
    };
    let (listener, at) = server.listener("tcp", world.b.any_port(case.family));
    let (datagrams, udp_at) = server.bound("udp", world.b.any_port(case.family));
    let from = world.now(&[&world.a, &world.b]);
    let slot = client.socket("tcp", at);
    let udp_slot = client.socket("udp", at);
    let mut server = Hand {
        worker: &mut server,
        runner,
    };
    let mut client = Hand {
        worker: &mut client,
        runner,
    };
    client.ask(&format!("connect {slot} {at}"));
    let accepted = server.accept(listener);
    client.ask(&format!("send {slot} 100"));
    server.ask(&format!("receive {accepted} 100"));
    server.ask(&format!("send {accepted} 100"));
    client.ask(&format!("receive {slot} 100"));
    client.ask(&format!("send-to {udp_slot} 10 {udp_at}"));
    server.ask(&format!("receive {datagrams} 10"));
    let port = client.worker.local(udp_slot).port();
    let udp_local = std::net::SocketAddr::new(world.a.address(case.family), port);
    server.ask(&format!("send-to {datagrams} 10 {udp_local}"));
    client.ask(&format!("receive {udp_slot} 10"));
    let local = client.worker.local(slot);
    let entries = world.since(&from, &[&world.a, &world.b]);
    for (flow, truth, at_least) in [
        (world.a.flow("tcp", local, at), client_truth, 2),
        (world.b.flow("tcp", at, local), server_truth, 2),
        (world.a.flow("udp", udp_local, udp_at), client_truth, 1),
        (world.b.flow("udp", udp_at, udp_local), server_truth, 1),
    ] {
        let sent = flow.output(&entries);
        case.judge(
            &format!("{}-output", flow.transport),
            sent,
            at_least,
            &expected(truth),
        );
        let received = flow.input(&entries);
        case.judge(
            &format!("{}-input", flow.transport),
            received,
            at_least,
            &expected(truth),
        );
    }
}
