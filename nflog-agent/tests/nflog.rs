//! The NFLOG library against the real kernel, with real rules, in network namespaces of its own. Needs root.

mod support;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nflog_agent::nflog::{Config, CopyMode, Flags, Loss, NetnsError, Nflog, OpenError, Warning};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use support::traffic::{
    GROUP, PORT, Tally, close, config, log_output, open, send, send_and_flush, under_flood,
};
use support::{Netns, PATIENCE, wait_for};

#[test]
fn without_overload_every_packet_that_the_rule_counts_is_received() {
    let netns = Netns::new("calm");
    log_output(&netns);
    let mut nflog = open(config(&netns));
    let mut tally = Tally::default();
    thread::scope(|scope| {
        scope.spawn(|| send(&netns, 20_000));
        tally.read(&mut nflog, 20_000);
    });
    tally.drain(&mut nflog);
    assert_eq!((tally.received, tally.lost, tally.unnumbered), (20_000, 0, 0));
    assert_eq!(netns.counter("sent"), 20_000);
    assert_eq!(nflog.loss().unwrap(), Loss::default());
    assert_eq!(nflog.gaps(GROUP), Some(0));
}

#[test]
fn under_overload_received_and_gaps_add_up_to_what_the_rule_counts() {
    for no_enobufs in [true, false] {
        let netns = Netns::new("overload");
        log_output(&netns);
        let mut nflog = open(
            config(&netns)
                .receive_buffer(64 * 1024)
                .nlbufsiz(8192)
                .no_enobufs(no_enobufs),
        );
        // The reader does not read meanwhile.
        send_and_flush(&netns, 20_000);
        let mut tally = Tally::default();
        tally.drain(&mut nflog);
        let loss = nflog.loss().unwrap();
        assert!(loss.sk_drops > 0, "no overload: {loss:?}");
        assert!(
            loss.pending,
            "the last packets are lost, and it does not say so: {loss:?}"
        );
        assert_eq!(loss.enobufs > 0, !no_enobufs, "{loss:?}");

        // A probe packet reveals how many were lost at the end.
        send(&netns, 1);
        tally.read(&mut nflog, 20_001);
        tally.drain(&mut nflog);
        assert_eq!(tally.received + tally.lost, 20_001);
        assert_eq!(tally.unnumbered, 0);
        assert_eq!(netns.counter("sent"), 20_001);
        let loss = nflog.loss().unwrap();
        assert!(!loss.pending, "{loss:?}");
        assert_eq!(loss.gaps, tally.lost);
        assert_eq!(nflog.gaps(GROUP), Some(tally.lost));
        assert_eq!((loss.truncated, loss.malformed), (0, 0));
    }
}

#[test]
fn packets_that_come_while_groups_are_being_bound_are_not_lost() {
    let netns = Netns::new("early");
    let groups: Vec<u16> = (100..140).collect();
    let rules: String = groups
        .iter()
        .map(|group| format!("udp dport {PORT} log group {group}\n"))
        .collect();
    netns.nft(&format!(
        "table inet test {{ chain output {{ type filter hook output priority 0\n{rules}}}\n}}"
    ));
    under_flood(&netns, || {
        for _ in 0..5 {
            // Small batches, so that many datagrams come between a bind and its answer.
            let builder = Config::builder()
                .netns(netns.netns())
                .groups(groups.iter().copied())
                .receive_buffer(64 << 20)
                .qthresh(1);
            let mut nflog = open(builder);
            let mut tally = Tally::default();
            let deadline = Instant::now() + PATIENCE;
            while tally.next.len() < groups.len() {
                assert!(Instant::now() < deadline, "groups without packets: {tally:?}");
                if let Some(mut batch) = nflog.recv(Some(Duration::from_secs(1))).unwrap() {
                    tally.take(&mut batch);
                }
            }
            // `take` checks that every group's first number is 0 or what is said to be lost: nothing may be.
            assert_eq!(tally.lost, 0);
            close(nflog);
        }
    });
}

#[test]
fn groups_are_bound_under_traffic_with_the_smallest_receive_buffer() {
    let netns = Netns::new("crowded");
    log_output(&netns);
    under_flood(&netns, || {
        for _ in 0..5 {
            // After the first group, each answer competes with its packets for the buffer.
            let builder = config(&netns).groups(200..240);
            let mut nflog = open(builder.receive_buffer(4096).qthresh(1));
            assert_eq!(nflog.effective().groups.len(), 41);
            assert_eq!(nflog.effective().instances.len(), 41);
            let mut tally = Tally::default();
            let mut batch = nflog.recv(Some(PATIENCE)).unwrap().expect("traffic is flowing");
            tally.take(&mut batch);
            drop(batch);
            let loss = nflog.close(|batch| tally.take(batch)).unwrap();
            assert_eq!(loss.gaps, tally.lost);
        }
    });
}

#[test]
fn close_hands_out_what_the_kernel_still_holds() {
    let netns = Netns::new("close");
    log_output(&netns);
    // Neither 1000 packets nor an hour will be reached.
    let nflog = open(config(&netns).timeout(Duration::from_secs(3600)));
    send(&netns, 10);
    let mut tally = Tally::default();
    let loss = nflog.close(|batch| tally.take(batch)).unwrap();
    assert_eq!((tally.received, tally.lost), (10, 0));
    assert_eq!(loss, Loss::default());
}

#[test]
fn close_under_traffic_ends_and_frees_the_group() {
    let netns = Netns::new("busy-close");
    log_output(&netns);
    under_flood(&netns, || {
        // With room, and with the buffer full when the unbind is sent, so that its answer may be dropped.
        for receive_buffer in [16 << 20, 8192] {
            for _ in 0..10 {
                let mut nflog = open(config(&netns).receive_buffer(receive_buffer).nlbufsiz(8192));
                let mut tally = Tally::default();
                let mut batch = nflog.recv(None).unwrap().expect("traffic is flowing");
                tally.take(&mut batch);
                drop(batch);
                thread::sleep(Duration::from_millis(20));
                let loss = nflog.close(|batch| tally.take(batch)).unwrap();
                assert_eq!(loss.gaps, tally.lost);
            }
        }
    });
}

#[test]
fn a_group_with_another_reader_is_refused_and_the_reader_is_named() {
    let netns = Netns::new("busy");
    let holder = open(config(&netns));
    let error = Nflog::open(&config(&netns).build().unwrap()).unwrap_err();
    let OpenError::GroupBusy {
        group: GROUP,
        owner: Some(owner),
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(owner.port_id, holder.effective().port_id);
    let process = owner.process.as_ref().expect("our own process is visible");
    assert_eq!(process.pid, std::process::id());
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    assert_eq!(process.comm, comm.trim_end());
    let text = error.to_string();
    let names = format!("process {} ({})", process.pid, process.comm);
    assert!(text.contains(&names), "{text}");
    // Once it is gone, the group is free.
    drop(holder);
    wait_for("the group", || Nflog::open(&config(&netns).build().unwrap()).ok());
}

#[test]
fn without_cap_net_admin_the_error_says_so_even_if_the_group_is_busy() {
    let netns = Netns::new("nocap");
    let holder = open(config(&netns));
    for group in [GROUP, GROUP + 1] {
        let error = netns.run(|| {
            let mut sets = capabilities(None).unwrap();
            sets.effective.remove(CapabilitySet::NET_ADMIN);
            set_capabilities(None, sets).unwrap();
            // On a thread of its own, which ends with the closure.
            Nflog::open(&Config::builder().group(group).build().unwrap()).unwrap_err()
        });
        assert!(
            matches!(error, OpenError::PermissionDenied { group: refused } if refused == group),
            "{error:?}"
        );
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    }
    drop(holder);
}

#[test]
fn a_wrong_namespace_is_named() {
    let missing = PathBuf::from("/run/netns/there-is-no-such-namespace");
    let builder = Config::builder().group(GROUP);
    let config = builder
        .clone()
        .netns(nflog_agent::nflog::Netns::Path(missing.clone()));
    match Nflog::open(&config.build().unwrap()).unwrap_err() {
        OpenError::Netns(NetnsError::Open { path, .. }) => assert_eq!(path, missing),
        error => panic!("{error:?}"),
    }
    let file = PathBuf::from("/proc/self/status");
    let config = builder.netns(nflog_agent::nflog::Netns::Path(file.clone()));
    match Nflog::open(&config.build().unwrap()).unwrap_err() {
        OpenError::Netns(NetnsError::NotNetns { path }) => assert_eq!(path, file),
        error => panic!("{error:?}"),
    }
}

#[test]
fn the_namespace_that_is_read_is_the_one_asked_for() {
    let netns = Netns::new("inode");
    let by_path = open(config(&netns));
    assert_eq!(by_path.netns_inode(), netns.inode());
    let by_fd = std::fs::File::open(netns.path()).unwrap();
    let by_fd = nflog_agent::nflog::Netns::Fd(std::sync::Arc::new(by_fd.into()));
    let by_fd = open(Config::builder().netns(by_fd).group(GROUP + 1));
    assert_eq!(by_fd.netns_inode(), netns.inode());
    let by_pid = nflog_agent::nflog::Netns::Pid(std::process::id());
    let ours = Nflog::open(&Config::builder().netns(by_pid).group(54_321).build().unwrap()).unwrap();
    assert_ne!(ours.netns_inode(), netns.inode());
}

#[test]
fn settings_are_read_back_from_the_kernel() {
    let netns = Netns::new("settings");
    log_output(&netns);
    let mut nflog = open(
        config(&netns)
            .group(65_535)
            .copy_range(20)
            .timeout(Duration::from_millis(30))
            .receive_buffer(1 << 20),
    );
    let effective = nflog.effective();
    assert!(effective.warnings.is_empty(), "{:?}", effective.warnings);
    assert_eq!(effective.groups, [GROUP, 65_535]);
    assert_eq!(effective.receive_buffer, 1 << 20);
    assert_eq!(effective.flags, Flags::SEQ | Flags::SEQ_GLOBAL);
    assert_eq!(effective.instances.len(), 2);
    for instance in &effective.instances {
        assert_eq!(instance.port_id, effective.port_id);
        assert_eq!(instance.copy_mode, CopyMode::Packet as u8);
        assert_eq!(instance.copy_range, 20);
        assert_eq!(instance.timeout, Duration::from_millis(30));
    }
    // The kernel's own list says the same.
    let listed =
        netns.run(|| std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_log").unwrap());
    let port_id = effective.port_id.to_string();
    let fields = |line: &'static str| line.split(' ').collect::<Vec<_>>();
    for line in listed.lines() {
        let columns: Vec<_> = line.split_ascii_whitespace().collect();
        assert_eq!(columns[1], port_id, "{listed}");
        assert_eq!(columns[3..6], fields("2 20 3"), "{listed}");
    }
    send(&netns, 1);
    let mut batch = nflog.recv(Some(PATIENCE)).unwrap().expect("a packet was sent");
    assert_eq!(batch.next().unwrap().payload().len(), 20);
}

#[test]
fn without_packet_copies_there_is_no_payload() {
    let netns = Netns::new("meta");
    log_output(&netns);
    for mode in [CopyMode::None, CopyMode::Meta] {
        let mut nflog = open(config(&netns).copy_mode(mode));
        assert!(nflog.effective().warnings.is_empty());
        send(&netns, 1);
        let mut batch = nflog.recv(Some(PATIENCE)).unwrap().expect("a packet was sent");
        let entry = batch.next().unwrap();
        assert_eq!(entry.payload(), b"");
        assert_eq!(entry.prefix(), b"sent");
        drop(batch);
        close(nflog);
    }
}

#[test]
fn conntrack_is_attached_or_its_refusal_is_reported_and_reading_works() {
    let netns = Netns::new("conntrack");
    log_output(&netns);
    // Loads conntrack into the namespace.
    let conntrack = netns.try_nft(
        "table inet track { chain output { type filter hook output priority -10\n ct state new counter\n }\n}",
    );
    let flags = Flags::SEQ | Flags::SEQ_GLOBAL | Flags::CONNTRACK;
    let mut nflog = open(config(&netns).flags(flags));
    let refused = match nflog.effective().warnings.as_slice() {
        [] => false,
        [Warning::ConntrackRefused] => true,
        warnings => panic!("{warnings:?}"),
    };
    assert_eq!(nflog.effective().flags.contains(Flags::CONNTRACK), !refused);
    send(&netns, 1);
    let mut batch = nflog.recv(Some(PATIENCE)).unwrap().expect("a packet was sent");
    let entry = batch.next().unwrap();
    assert_eq!(entry.seq(), Some(0));
    assert_eq!(entry.seq_global(), Some(1));
    let attached = !refused && conntrack.is_ok();
    assert_eq!(entry.ct().is_some(), attached, "{entry:?}");
    assert_eq!(entry.ct_info().is_some(), attached, "{entry:?}");
    if refused {
        eprintln!("NOTE: this kernel cannot attach conntrack entries; only the refusal was tested");
    }
}

#[test]
fn a_waker_ends_a_wait_without_end() {
    let netns = Netns::new("waker");
    let mut nflog = open(config(&netns));
    let waker = nflog.waker();
    thread::scope(|scope| {
        let reader = scope.spawn(move || nflog.recv(None).unwrap().is_none());
        thread::sleep(Duration::from_millis(50));
        waker.wake().unwrap();
        assert!(reader.join().unwrap());
    });
}

#[test]
fn a_batch_tells_since_when_its_packets_can_have_been_waiting() {
    let netns = Netns::new("empty");
    log_output(&netns);
    let mut nflog = open(config(&netns));
    // Without a look at the empty socket nothing is known.
    send(&netns, 1);
    thread::sleep(Duration::from_millis(200));
    let batch = nflog.recv(Some(PATIENCE)).unwrap().expect("a packet was sent");
    assert_eq!(batch.last_empty_ns(), None);
    let first = batch.received_ns();
    drop(batch);
    assert!(nflog.recv(Some(Duration::ZERO)).unwrap().is_none());
    send(&netns, 1);
    let batch = nflog.recv(Some(PATIENCE)).unwrap().expect("a packet was sent");
    let empty = batch.last_empty_ns().expect("the socket was empty");
    assert!(first <= empty && empty <= batch.received_ns());
}
