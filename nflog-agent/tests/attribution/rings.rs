//! Case 28: sockets that are used through io_uring instead of system calls.
//!
//! A request runs in the process that submits it, in a thread of the ring's pool, or in the thread that polls the ring. Where
//! there is `IORING_FEAT_NATIVE_WORKERS` (5.12, 5.10.162) these threads are of the process; elsewhere they are the kernel's, and act for a
//! process that they do not name.

use std::net::SocketAddr;

use crate::case::{Case, Expected, case};
use crate::worker::{Slot, Worker};
use crate::world::{Site, World};

case!(28, io_uring_run_by_the_caller, by_caller);
case!(28, io_uring_run_by_a_worker_thread, by_worker);
case!(28, io_uring_run_by_the_polling_thread, by_poller);

fn by_caller(world: &World, case: &mut Case) {
    judge(world, case, "caller");
}

fn by_worker(world: &World, case: &mut Case) {
    judge(world, case, "worker");
}

fn by_poller(world: &World, case: &mut Case) {
    judge(world, case, "poller");
}

/// A process, and who runs the requests of its ring.
struct Hand {
    worker: Worker,
    runner: &'static str,
    /// The ring's threads are the process's.
    native: bool,
}

impl Hand {
    /// `None` on a kernel without io_uring.
    fn start(site: &Site, runner: &'static str) -> Option<Self> {
        let mut worker = site.worker();
        match worker.attempt(&format!("ring {runner} native")) {
            Ok(answer) => Some(Self {
                worker,
                runner,
                native: answer == "true",
            }),
            // ENOSYS: built without CONFIG_IO_URING; EPERM: forbidden by the sysctl io_uring_disabled.
            Err(error)
                if ["(os error 38)", "(os error 1)"]
                    .iter()
                    .any(|proof| error.contains(proof)) =>
            {
                println!("SKIPPED: this kernel has no io_uring: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn ask(&mut self, command: &str) -> String {
        self.worker.ask(&format!("ring {} {command}", self.runner))
    }

    /// A polling thread of the kernel's own cannot open descriptors: then the process accepts by a system call.
    fn accept(&mut self, listener: Slot) -> Slot {
        if self.runner == "poller" && !self.native {
            return self.worker.accept(listener);
        }
        self.ask(&format!("accept {listener}")).parse().expect("a slot")
    }

    /// Whether the requests were run by whom the case is about.
    fn assert_runner(&mut self) {
        let thread = match self.runner {
            "worker" => "iou-wrk-",
            "poller" => "iou-sqp-",
            _ => return,
        };
        let threads = self.worker.ask("threads");
        assert!(!self.native || threads.contains(thread), "{threads}");
    }

    fn expected(&self) -> Expected<'static> {
        if self.native {
            Expected::Owner(self.worker.truth)
        } else {
            // Besides that probes have missed it.
            Expected::OwnerOr(self.worker.truth, &["no-socket"])
        }
    }
}

fn judge(world: &World, case: &mut Case, runner: &'static str) {
    let hands = (Hand::start(&world.a, runner), Hand::start(&world.b, runner));
    let (Some(mut client), Some(mut server)) = hands else {
        case.absent("this kernel has no io_uring");
        return;
    };
    let (listener, at) = server.worker.listener("tcp", world.b.any_port(case.family));
    let (datagrams, udp_at) = server.worker.bound("udp", world.b.any_port(case.family));
    let sites = [&world.a, &world.b];
    let from = world.now(&sites);
    let slot = client.worker.socket("tcp", at);
    client.ask(&format!("connect {slot} {at}"));
    let accepted = server.accept(listener);
    client.ask(&format!("send {slot} 100"));
    server.ask(&format!("receive {accepted} 100"));
    server.ask(&format!("send {accepted} 100"));
    client.ask(&format!("receive {slot} 100"));
    let local = client.worker.local(slot);
    let slot = client.worker.socket("udp", at);
    client.ask(&format!("send-to {slot} 10 {udp_at}"));
    server.ask(&format!("receive {datagrams} 10"));
    let port = client.worker.local(slot).port();
    let udp_local = SocketAddr::new(world.a.address(case.family), port);
    server.ask(&format!("send-to {datagrams} 10 {udp_local}"));
    client.ask(&format!("receive {slot} 10"));
    client.assert_runner();
    server.assert_runner();
    let entries = world.since(&from, &sites);
    for (flow, hand, at_least) in [
        (world.a.flow("tcp", local, at), &client, 2),
        (world.b.flow("tcp", at, local), &server, 2),
        (world.a.flow("udp", udp_local, udp_at), &client, 1),
        (world.b.flow("udp", udp_at, udp_local), &server, 1),
    ] {
        let expected = hand.expected();
        case.judge("output", flow.output(&entries), at_least, &expected);
        case.judge("input", flow.input(&entries), at_least, &expected);
    }
}
