//! The callback form of the NFLOG library against the real kernel. Needs root.

mod support;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nflog_agent::nflog::{self, Config, Entry, Nflog, RecvError, Registration};
use rustix::process::{Resource, Rlimit, setrlimit};
use support::traffic::{GROUP, Tally, config, log_output, open, send, under_flood};
use support::{Netns, wait_for};

type Shared = Arc<Mutex<Tally>>;

/// Registers a hook that counts, and no error may come.
fn count(nflog: Nflog) -> (Registration, Shared) {
    let tally = Shared::default();
    let shared = Arc::clone(&tally);
    let hook = move |entry: &Entry<'_>| {
        let mut tally = shared.lock().unwrap();
        tally.entry(entry.group(), entry.seq(), entry.lost_before());
        ControlFlow::Continue(())
    };
    (nflog.register(hook, no_error).unwrap(), tally)
}

#[expect(clippy::needless_pass_by_value, reason = "the signature of an error callback")]
fn no_error(error: RecvError) -> ControlFlow<()> {
    panic!("{error}");
}

/// The group has no reader any more.
#[track_caller]
fn assert_free(netns: &Netns) {
    let config = config(netns).build().unwrap();
    let nflog = wait_for("the group", || Nflog::open(&config).ok());
    nflog.close(|_| ()).unwrap();
}

#[test]
fn the_hook_gets_every_entry_and_stop_the_rest() {
    let netns = Netns::new("callback");
    log_output(&netns);
    // What is less than 1000 packets waits in the kernel for an hour.
    let (registration, tally) = count(open(config(&netns).timeout(Duration::from_secs(3600))));
    send(&netns, 20_500);
    wait_for("whole batches", || {
        (tally.lock().unwrap().received >= 10_000).then_some(())
    });
    assert!(!registration.is_finished());
    let loss = registration.stop().unwrap();
    let tally = tally.lock().unwrap();
    assert_eq!((tally.received, tally.lost), (20_500, 0));
    assert_eq!(loss, nflog::Loss::default());
    assert_free(&netns);
}

#[test]
fn a_hook_that_breaks_ends_the_registration_and_gets_nothing_more() {
    let netns = Netns::new("callback-break");
    log_output(&netns);
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    let hook = move |_: &Entry<'_>| match counter.fetch_add(1, Ordering::Relaxed) {
        0..9 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    };
    let registration = open(config(&netns)).register(hook, no_error).unwrap();
    send(&netns, 100);
    let loss = registration.wait().unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 10);
    // Nothing is missing: the rest was not wanted.
    assert_eq!(loss, nflog::Loss::default());
    assert_free(&netns);
}

#[test]
fn an_overflow_behind_a_slow_hook_is_counted_exactly() {
    let netns = Netns::new("callback-slow");
    log_output(&netns);
    let nflog = open(config(&netns).receive_buffer(32 * 1024).nlbufsiz(8192));
    let tally = Shared::default();
    let shared = Arc::clone(&tally);
    let hook = move |entry: &Entry<'_>| {
        let mut tally = shared.lock().unwrap();
        tally.entry(entry.group(), entry.seq(), entry.lost_before());
        thread::sleep(Duration::from_micros(200));
        ControlFlow::Continue(())
    };
    let registration = nflog.register(hook, no_error).unwrap();
    send(&netns, 20_000);
    // A probe packet reveals what was lost at the end. The drops are noticed when the queue is empty; only a packet from after
    // the next time that it is shows that nothing is missing.
    let accounted = |tally: &Tally| tally.received + tally.lost;
    let mut exact = 0;
    wait_for("the account", || {
        send(&netns, 1);
        thread::sleep(Duration::from_millis(50));
        exact += u32::from(accounted(&tally.lock().unwrap()) == netns.counter("sent"));
        (exact >= 3).then_some(())
    });
    let loss = registration.stop().unwrap();
    let tally = tally.lock().unwrap();
    assert!(loss.sk_drops > 0 && !loss.pending, "{loss:?}");
    assert_eq!(loss.gaps, tally.lost);
    assert_eq!(accounted(&tally), netns.counter("sent"));
}

#[test]
fn stop_under_traffic_ends_also_with_a_slow_hook() {
    let netns = Netns::new("callback-busy");
    log_output(&netns);
    under_flood(&netns, || {
        for pause in [Duration::ZERO, Duration::from_millis(1)] {
            for _ in 0..3 {
                let nflog = open(config(&netns).receive_buffer(64 * 1024).nlbufsiz(8192));
                let (called, calls) = channel();
                let tally = Shared::default();
                let shared = Arc::clone(&tally);
                let hook = move |entry: &Entry<'_>| {
                    let mut tally = shared.lock().unwrap();
                    tally.entry(entry.group(), entry.seq(), entry.lost_before());
                    thread::sleep(pause);
                    // Nobody listens after the first.
                    let _heard = called.send(());
                    ControlFlow::Continue(())
                };
                let registration = nflog.register(hook, no_error).unwrap();
                calls.recv().unwrap();
                let loss = registration.stop().unwrap();
                assert_eq!(loss.gaps, tally.lock().unwrap().lost);
            }
        }
    });
    assert_free(&netns);
}

#[test]
fn a_panic_of_the_hook_is_passed_on_by_stop_and_frees_the_group() {
    let netns = Netns::new("callback-panic");
    log_output(&netns);
    let hook = |_: &Entry<'_>| -> ControlFlow<()> { panic!("the hook says so") };
    let registration = open(config(&netns)).register(hook, no_error).unwrap();
    send(&netns, 1);
    wait_for("the panic", || registration.is_finished().then_some(()));
    let panic = catch_unwind(AssertUnwindSafe(|| registration.stop())).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"the hook says so"));
    assert_free(&netns);
}

#[test]
fn dropping_does_not_wait_for_a_hook_that_blocks() {
    let netns = Netns::new("callback-drop");
    log_output(&netns);
    let (release, released) = channel::<()>();
    let (called, calls) = channel();
    let hook = move |_: &Entry<'_>| {
        called.send(()).unwrap();
        // Until the test lets go, which it does after the drop.
        assert!(released.recv().is_err());
        ControlFlow::Continue(())
    };
    let registration = open(config(&netns)).register(hook, no_error).unwrap();
    send(&netns, 10);
    calls.recv().unwrap();
    drop(registration);
    drop(release);
    assert_free(&netns);
    // The other nine were not handed out.
    assert_eq!(calls.iter().count(), 0);
}

#[test]
fn dropping_an_idle_registration_frees_the_group() {
    let netns = Netns::new("callback-idle");
    drop(count(open(config(&netns))));
    assert_free(&netns);
}

/// Tells the child process which namespace to work in.
const NETNS: &str = "NFLOG_TEST_NETNS";

#[test]
fn errors_go_to_the_error_callback_until_it_breaks() {
    let netns = Netns::new("callback-error");
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([
        "--exact",
        "child_that_cannot_wait",
        "--ignored",
        "--test-threads=1",
    ]);
    let output = child.env(NETNS, netns.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "is a child process of errors_go_to_the_error_callback_until_it_breaks"]
fn child_that_cannot_wait() {
    let path = std::env::var_os(NETNS).expect("set by the test that starts this one");
    let netns = nflog::Netns::Path(PathBuf::from(path));
    let nflog = open(Config::builder().netns(netns).group(GROUP));
    // poll refuses more descriptors than a process may have.
    let limit = Rlimit {
        current: Some(1),
        maximum: Some(1),
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    let (say, said) = channel();
    let on_error = move |error: RecvError| {
        say.send(error).unwrap();
        ControlFlow::Continue(())
    };
    let registration = nflog.register(|_| ControlFlow::Break(()), on_error).unwrap();
    for _ in 0..3 {
        assert!(matches!(said.recv().unwrap(), RecvError::Wait(_)));
    }
    // The error lasts: the callback is called until the registration is stopped.
    assert_eq!(registration.stop().unwrap(), nflog::Loss::default());
}
