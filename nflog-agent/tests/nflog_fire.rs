//! The NFLOG library under fire: groups that come and go, loss, rights and namespaces that vanish, readers in other processes.
//! Needs root.

mod support;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nflog_agent::nflog::{self, CloseError, Config, Flags, GroupOwner, Nflog, OpenError};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use support::traffic::{
    GROUP, Tally, close, config, log_output, log_to_groups, open, send, send_and_flush, under_flood,
};
use support::{Netns, PATIENCE, wait_for};

/// A second group.
const OTHER: u16 = 6;
/// Tells a child process which namespace to work in.
const NETNS: &str = "NFLOG_TEST_NETNS";

#[test]
fn a_group_that_is_bound_anew_under_traffic_has_an_exact_account() {
    // Without loss, and with a buffer that overflows all the time.
    for receive_buffer in [64 << 20, 32 * 1024] {
        let netns = Netns::new("rebind");
        log_to_groups(&netns, &[GROUP, OTHER]);
        let mut nflog = open(
            config(&netns)
                .group(OTHER)
                .receive_buffer(receive_buffer)
                .nlbufsiz(8192),
        );
        let mut tally = Tally::default();
        thread::scope(|scope| {
            let sender = scope.spawn(|| send(&netns, 30_000));
            let mut binds = 0;
            while !sender.is_finished() || binds < 3 {
                nflog.unbind(GROUP, |batch| tally.take(batch)).unwrap();
                assert_eq!(nflog.effective().groups, [OTHER]);
                assert_eq!(nflog.gaps(GROUP), None);
                // Counts from 0 again: `take` checks it.
                tally.next.remove(&GROUP);
                nflog.bind(GROUP).unwrap();
                assert_eq!(nflog.effective().groups, [OTHER, GROUP]);
                for _ in 0..3 {
                    if let Some(mut batch) = nflog.recv(Some(Duration::from_millis(20))).unwrap() {
                        tally.take(&mut batch);
                    }
                }
                assert_eq!(nflog.loss().unwrap().gaps, tally.lost);
                binds += 1;
            }
        });
        tally.drain(&mut nflog);
        // Reveals what was lost at the end.
        send(&netns, 1);
        tally.drain(&mut nflog);
        // The other group lost nothing that was not counted.
        assert_eq!(u64::from(tally.next[&OTHER]), netns.counter("6"));
        let loss = nflog.loss().unwrap();
        assert_eq!(loss.gaps, tally.lost);
        assert_eq!(loss.sk_drops > 0, receive_buffer < 64 << 20, "{loss:?}");
        if loss.sk_drops == 0 {
            assert_eq!((tally.lost, loss.pending), (0, false));
        }
        close(nflog);
    }
}

#[test]
fn unbinding_hands_out_what_the_kernel_holds_and_frees_the_group() {
    let netns = Netns::new("unbind");
    log_to_groups(&netns, &[GROUP, OTHER]);
    // Neither 1000 packets nor an hour will be reached.
    let mut nflog = open(config(&netns).group(OTHER).timeout(Duration::from_secs(3600)));
    send(&netns, 10);
    let mut tally = Tally::default();
    nflog.unbind(GROUP, |batch| tally.take(batch)).unwrap();
    assert_eq!((tally.received, tally.next[&GROUP]), (10, 10));
    let next = open(config(&netns));
    match nflog.bind(GROUP).unwrap_err() {
        OpenError::GroupBusy { group: GROUP, owner } => {
            assert_eq!(owner.unwrap().port_id, next.effective().port_id);
        }
        error => panic!("{error:?}"),
    }
    close(next);
    assert!(matches!(
        nflog.bind(OTHER),
        Err(OpenError::AlreadyBound { group: OTHER })
    ));
    assert!(matches!(
        nflog.unbind(GROUP, |_| ()),
        Err(CloseError::NotBound { group: GROUP })
    ));
    nflog.bind(GROUP).unwrap();
    let effective = nflog.effective();
    assert_eq!(effective.instances.len(), 2);
    assert!(effective.warnings.is_empty(), "{:?}", effective.warnings);
    let loss = nflog.close(|batch| tally.take(batch)).unwrap();
    assert_eq!((tally.received, tally.next[&OTHER]), (20, 10));
    assert_eq!(loss, nflog::Loss::default());
}

#[test]
fn a_reader_without_groups_can_bind_one() {
    let netns = Netns::new("none-left");
    log_output(&netns);
    let mut nflog = open(config(&netns).flags(Flags::SEQ | Flags::SEQ_GLOBAL | Flags::CONNTRACK));
    let flags = nflog.effective().flags;
    nflog.unbind(GROUP, |_| ()).unwrap();
    send(&netns, 5);
    assert!(nflog.recv(Some(Duration::from_millis(100))).unwrap().is_none());
    nflog.bind(GROUP).unwrap();
    assert_eq!(nflog.effective().flags, flags);
    send(&netns, 3);
    let mut tally = Tally::default();
    tally.read(&mut nflog, 3);
    assert_eq!((tally.received, tally.lost), (3, 0));
    nflog.unbind(GROUP, |_| ()).unwrap();
    close(nflog);
}

#[test]
fn an_overflow_is_counted_exactly_for_each_group_of_a_socket() {
    const GROUPS: [u16; 3] = [GROUP, OTHER, 7];
    let netns = Netns::new("overflow");
    log_to_groups(&netns, &GROUPS);
    let builder = Config::builder().netns(netns.netns()).groups(GROUPS);
    let mut nflog = open(builder.receive_buffer(64 * 1024).nlbufsiz(8192));
    send_and_flush(&netns, 20_000);
    let mut tally = Tally::default();
    tally.drain(&mut nflog);
    let loss = nflog.loss().unwrap();
    assert!(loss.sk_drops > 0 && loss.pending, "{loss:?}");
    send(&netns, 1);
    tally.drain(&mut nflog);
    for group in GROUPS {
        // Received and said to be lost.
        assert_eq!(u64::from(tally.next[&group]), netns.counter(&group.to_string()));
        assert!(nflog.gaps(group).unwrap() > 0, "group {group} lost nothing");
    }
    let loss = nflog.loss().unwrap();
    assert_eq!((loss.gaps, loss.pending), (tally.lost, false));
    assert_eq!(
        GROUPS.iter().filter_map(|&group| nflog.gaps(group)).sum::<u64>(),
        tally.lost
    );
    close(nflog);
}

/// Gives up CAP_NET_ADMIN on this thread.
fn drop_net_admin() {
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::NET_ADMIN);
    sets.permitted.remove(CapabilitySet::NET_ADMIN);
    set_capabilities(None, sets).unwrap();
}

#[test]
fn a_capability_that_is_dropped_after_opening_costs_nothing_but_an_orderly_unbind() {
    let netns = Netns::new("dropped");
    log_output(&netns);
    // On a thread of its own, which ends with the closure.
    netns.run(|| {
        let mut nflog = open(config(&netns).timeout(Duration::from_millis(500)));
        drop_net_admin();
        send(&netns, 10);
        let mut tally = Tally::default();
        tally.read(&mut nflog, 10);
        assert_eq!(nflog.loss().unwrap(), nflog::Loss::default());
        match nflog.bind(OTHER).unwrap_err() {
            OpenError::PermissionDenied { group: OTHER } => {}
            error => panic!("{error:?}"),
        }
        match nflog.unbind(GROUP, |batch| tally.take(batch)).unwrap_err() {
            CloseError::PermissionDenied { group: GROUP, .. } => {}
            error => panic!("{error:?}"),
        }
        // Still reading.
        send(&netns, 10);
        tally.read(&mut nflog, 20);
        // The kernel holds them back when close begins.
        send(&netns, 10);
        let error = nflog.close(|batch| tally.take(batch)).unwrap_err();
        assert_eq!((tally.received, tally.lost), (30, 0));
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
        let CloseError::PermissionDenied { group: GROUP, loss } = error else {
            panic!("{error:?}");
        };
        assert_eq!(loss, nflog::Loss::default());
    });
    // The socket is closed.
    wait_for("the group", || Nflog::open(&config(&netns).build().unwrap()).ok());
}

#[test]
fn close_without_the_capability_ends_under_traffic() {
    let netns = Netns::new("dropped-busy");
    log_output(&netns);
    under_flood(&netns, || {
        for receive_buffer in [16 << 20, 8192] {
            netns.run(|| {
                let mut nflog = open(config(&netns).receive_buffer(receive_buffer).nlbufsiz(8192));
                drop_net_admin();
                let mut tally = Tally::default();
                let mut batch = nflog.recv(Some(PATIENCE)).unwrap().expect("traffic is flowing");
                tally.take(&mut batch);
                drop(batch);
                let Err(CloseError::PermissionDenied { loss, .. }) = nflog.close(|batch| tally.take(batch))
                else {
                    panic!("unbound without the capability");
                };
                assert_eq!(loss.gaps, tally.lost);
            });
        }
    });
}

#[test]
fn a_namespace_that_is_deleted_while_it_is_read_ends_nothing() {
    let netns = Netns::new("deleted");
    log_output(&netns);
    let mut nflog = open(config(&netns).timeout(Duration::from_secs(3600)));
    send(&netns, 10);
    let path = netns.path();
    drop(netns);
    assert!(!path.exists());
    assert!(nflog.recv(Some(Duration::from_millis(100))).unwrap().is_none());
    // The socket keeps the namespace alive, nameless.
    nflog.bind(OTHER).unwrap();
    let effective = nflog.effective();
    assert_eq!(effective.instances.len(), 2, "{effective:?}");
    let mut tally = Tally::default();
    nflog.close(|batch| tally.take(batch)).unwrap();
    assert_eq!((tally.received, tally.lost), (10, 0));
}

/// A child process that runs one of the ignored tests of this program.
struct Helper(Child);

impl Helper {
    /// Starts `test` through `launcher`, with its standard streams piped.
    fn start(netns: &Netns, launcher: &[&str], test: &str) -> Self {
        let program = std::env::current_exe().unwrap();
        let (first, rest) = launcher.split_first().unzip();
        let mut command = first.map_or_else(|| Command::new(&program), Command::new);
        if let Some(rest) = rest {
            command.args(rest).arg(&program);
        }
        let child = command
            .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
            .env(NETNS, netns.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self(child)
    }

    /// The rest of the first line that contains `tag`.
    fn line(&mut self, tag: &str) -> String {
        let output = self.0.stdout.as_mut().expect("piped");
        let mut lines = BufReader::new(output).lines();
        let found = lines.find_map(|line| Some(line.unwrap().split_once(tag)?.1.to_owned()));
        found.unwrap_or_else(|| panic!("the child ended without {tag:?}"))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Ends by itself at the end of its input.
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

fn helper_config() -> Config {
    let path = std::env::var_os(NETNS).expect("set by the test that starts this one");
    let netns = nflog::Netns::Path(PathBuf::from(path));
    Config::builder().netns(netns).group(GROUP).build().unwrap()
}

#[test]
#[ignore = "is a child process of a_reader_in_another_process_is_named"]
fn child_that_holds_the_group() {
    let nflog = Nflog::open(&helper_config()).unwrap();
    println!("\nholding: {}", nflog.effective().port_id);
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    close(nflog);
}

#[test]
#[ignore = "is a child process of a_reader_in_a_pid_namespace_that_is_not_visible_has_a_port_only"]
fn child_that_finds_the_group_busy() {
    match Nflog::open(&helper_config()) {
        Err(OpenError::GroupBusy {
            owner: Some(GroupOwner { port_id, process }),
            ..
        }) => println!("\nbusy: {port_id} {process:?}"),
        result => println!("\nbusy: {result:?}"),
    }
}

#[test]
fn a_reader_in_another_process_is_named() {
    let netns = Netns::new("other-process");
    let mut holder = Helper::start(&netns, &[], "child_that_holds_the_group");
    let port_id: u32 = holder.line("holding: ").parse().unwrap();
    let Err(OpenError::GroupBusy {
        owner: Some(owner), ..
    }) = Nflog::open(&config(&netns).build().unwrap())
    else {
        panic!("the group is not busy");
    };
    assert_eq!(owner.port_id, port_id);
    let process = owner.process.expect("a child is visible");
    assert_eq!(process.pid, holder.0.id());
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", process.pid)).unwrap();
    assert_eq!(process.comm, comm.trim_end());
    drop(holder);
    wait_for("the group", || Nflog::open(&config(&netns).build().unwrap()).ok());
}

#[test]
fn a_reader_in_a_pid_namespace_that_is_not_visible_has_a_port_only() {
    let netns = Netns::new("other-pids");
    let holder = open(config(&netns));
    // We cannot be seen from there.
    let launcher = ["unshare", "--pid", "--fork", "--mount-proc"];
    let mut child = Helper::start(&netns, &launcher, "child_that_finds_the_group_busy");
    let port_id = holder.effective().port_id;
    assert_eq!(child.line("busy: "), format!("{port_id} None"));
    drop(child);
    close(holder);
}
