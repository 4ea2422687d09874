//! The tokio forms of the NFLOG library against the real kernel. Needs root.
#![cfg(feature = "async")]

mod support;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use futures_core::Stream as _;
use nflog_agent::nflog::{AsyncNflog, CloseError, ConfigBuilder, EntryBuf, EntryStream, Loss, RecvError};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use support::traffic::{
    GROUP, Tally, config, log_output, log_to_groups, open, send, send_and_flush, under_flood,
};
use support::{Netns, PATIENCE};
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::timeout;

/// Runs `body` on a runtime of one thread.
fn run<T>(body: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, body)
}

fn open_async(builder: ConfigBuilder) -> AsyncNflog {
    AsyncNflog::new(open(builder)).unwrap()
}

/// Reads until `count` packets are accounted for.
async fn read(nflog: &mut AsyncNflog, tally: &mut Tally, count: u64) {
    while tally.received + tally.lost < count {
        let batch = timeout(PATIENCE, nflog.recv()).await;
        tally.take(&mut batch.expect("more packets are logged").unwrap());
    }
}

/// Reads until nothing more comes: what the kernel holds is flushed after 10 ms.
async fn drain(nflog: &mut AsyncNflog, tally: &mut Tally) {
    while let Ok(batch) = timeout(Duration::from_millis(500), nflog.recv()).await {
        tally.take(&mut batch.unwrap());
    }
}

async fn next(stream: &mut EntryStream) -> Result<EntryBuf, RecvError> {
    let next = poll_fn(|context| Pin::new(&mut *stream).poll_next(context));
    let item = timeout(PATIENCE, next).await.expect("more packets are logged");
    item.expect("the stream does not end")
}

#[test]
fn every_packet_that_the_rule_counts_is_received() {
    let netns = Netns::new("async");
    log_output(&netns);
    let nflog = open(config(&netns));
    thread::scope(|scope| {
        scope.spawn(|| send(&netns, 20_000));
        run(async {
            let mut nflog = AsyncNflog::new(nflog).unwrap();
            let mut tally = Tally::default();
            read(&mut nflog, &mut tally, 20_000).await;
            drain(&mut nflog, &mut tally).await;
            assert_eq!((tally.received, tally.lost), (20_000, 0));
            assert_eq!(nflog.loss().unwrap(), Loss::default());
            assert_eq!(nflog.get_ref().gaps(GROUP), Some(0));
        });
    });
}

#[test]
fn a_recv_that_is_dropped_loses_nothing() {
    let netns = Netns::new("async-cancel");
    log_output(&netns);
    let nflog = open(config(&netns).qthresh(1));
    let mut cancelled = 0;
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(&netns, 20_000));
        run(async {
            let mut nflog = AsyncNflog::new(nflog).unwrap();
            while !sender.is_finished() || tally.received < 20_000 {
                tokio::select! {
                    biased;
                    batch = nflog.recv() => tally.take(&mut batch.unwrap()),
                    () = yield_now() => cancelled += 1,
                }
            }
            assert_eq!(nflog.into_inner().loss().unwrap(), Loss::default());
        });
    });
    assert!(cancelled > 0, "no recv was dropped");
    assert_eq!((tally.received, tally.lost), (20_000, 0));
}

#[test]
fn a_flood_leaves_other_tasks_of_the_thread_their_turn() {
    const PACKETS: u32 = 4000;
    for form in ["recv", "stream", "close"] {
        let netns = Netns::new("async-fair");
        log_output(&netns);
        let nflog = open(config(&netns).qthresh(1));
        // All in the queue: the reader never has to wait.
        send(&netns, PACKETS);
        run(async {
            let ticks = Rc::new(Cell::new(0_u32));
            let ticker = Rc::clone(&ticks);
            let task = spawn_local(async move {
                loop {
                    ticker.set(ticker.get() + 1);
                    yield_now().await;
                }
            });
            // In a task, as block_on polls its own future beside the others in any case.
            let nflog = AsyncNflog::new(nflog).unwrap();
            let reader = spawn_local(async move {
                match form {
                    "recv" => count_batches(nflog, PACKETS).await,
                    "stream" => count_items(nflog.into_stream(), PACKETS).await,
                    _ => {
                        let mut tally = Tally::default();
                        nflog.close(|batch| tally.take(batch)).await.unwrap();
                        assert_eq!(tally.received, u64::from(PACKETS));
                    }
                }
            });
            reader.await.unwrap();
            task.abort();
            // A task's budget is 128 operations, and each datagram is one at least.
            let ticks = ticks.get();
            assert!(
                ticks >= PACKETS / 128 / 2,
                "{form}: {ticks} turns in {PACKETS} datagrams"
            );
        });
    }
}

async fn count_batches(mut nflog: AsyncNflog, packets: u32) {
    let mut received = 0;
    while received < packets {
        received += u32::try_from(nflog.recv().await.unwrap().count()).unwrap();
    }
}

async fn count_items(mut stream: EntryStream, packets: u32) {
    for _ in 0..packets {
        let item = poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await;
        item.expect("no end").unwrap();
    }
}

#[test]
fn an_overflow_is_counted_exactly_and_is_no_error() {
    for no_enobufs in [true, false] {
        let netns = Netns::new("async-overflow");
        log_to_groups(&netns, &[GROUP, 6]);
        let builder = config(&netns).group(6).receive_buffer(64 * 1024).nlbufsiz(8192);
        run(async {
            let mut nflog = open_async(builder.no_enobufs(no_enobufs));
            // The reader does not read meanwhile.
            send_and_flush(&netns, 20_000);
            let mut tally = Tally::default();
            drain(&mut nflog, &mut tally).await;
            let loss = nflog.loss().unwrap();
            assert!(loss.sk_drops > 0 && loss.pending, "{loss:?}");
            assert_eq!(loss.enobufs > 0, !no_enobufs, "{loss:?}");
            send(&netns, 1);
            read(&mut nflog, &mut tally, 40_002).await;
            for group in [GROUP, 6] {
                assert_eq!(tally.next[&group], 20_001);
            }
            let loss = nflog.close(|batch| tally.take(batch)).await.unwrap();
            assert_eq!((loss.gaps, loss.pending), (tally.lost, false));
        });
    }
}

#[test]
fn reports_of_an_overflow_do_not_stop_a_reader_that_keeps_up_badly() {
    let netns = Netns::new("async-enobufs");
    log_output(&netns);
    under_flood(&netns, || {
        run(async {
            let builder = config(&netns).receive_buffer(4096).nlbufsiz(4096).qthresh(1);
            let mut nflog = open_async(builder.no_enobufs(false));
            let mut tally = Tally::default();
            while nflog.loss().unwrap().enobufs < 50 {
                let batch = timeout(PATIENCE, nflog.recv()).await;
                tally.take(&mut batch.expect("traffic is flowing").unwrap());
            }
            let loss = nflog.close(|batch| tally.take(batch)).await.unwrap();
            assert_eq!(loss.gaps, tally.lost);
        });
    });
}

#[test]
fn groups_come_and_go_on_an_asynchronous_reader() {
    let netns = Netns::new("async-groups");
    log_to_groups(&netns, &[GROUP, 6]);
    under_flood(&netns, || {
        run(async {
            let mut nflog = open_async(config(&netns).receive_buffer(64 << 20));
            let mut tally = Tally::default();
            for _ in 0..5 {
                nflog.get_mut().bind(6).unwrap();
                while tally.next.get(&6).is_none_or(|&next| next < 100) {
                    let batch = timeout(PATIENCE, nflog.recv()).await;
                    tally.take(&mut batch.expect("traffic is flowing").unwrap());
                }
                nflog.get_mut().unbind(6, |batch| tally.take(batch)).unwrap();
                tally.next.remove(&6);
            }
            let loss = nflog.close(|batch| tally.take(batch)).await.unwrap();
            assert_eq!(loss.gaps, tally.lost);
        });
    });
}

#[test]
fn the_stream_yields_owned_entries_in_order_and_closes_with_the_rest() {
    let netns = Netns::new("async-stream");
    log_output(&netns);
    run(async {
        let mut stream = open_async(config(&netns).timeout(Duration::from_secs(3600))).into_stream();
        // Two batches, and a part that stays in the kernel.
        send(&netns, 2500);
        let mut tally = Tally::default();
        for _ in 0..1500 {
            let entry = next(&mut stream).await.unwrap();
            assert_eq!(entry.prefix, b"sent");
            tally.entry(entry.group, entry.seq, entry.lost_before);
        }
        assert_eq!(stream.loss().unwrap(), Loss::default());
        assert_eq!(stream.get_ref().get_ref().effective().groups, [GROUP]);
        let rest = |entry: EntryBuf| tally.entry(entry.group, entry.seq, entry.lost_before);
        let loss = stream.close(rest).await.unwrap();
        assert_eq!((tally.received, tally.lost), (2500, 0));
        assert_eq!(loss, Loss::default());
    });
}

#[test]
fn a_stream_waits_and_goes_on() {
    let netns = Netns::new("async-wait");
    log_output(&netns);
    run(async {
        let mut stream = open_async(config(&netns)).into_stream();
        for number in 0..5 {
            let idle = poll_fn(|context| Pin::new(&mut stream).poll_next(context));
            assert!(timeout(Duration::from_millis(50), idle).await.is_err());
            send(&netns, 1);
            assert_eq!(next(&mut stream).await.unwrap().seq, Some(number));
        }
        stream.close(|_| ()).await.unwrap();
    });
}

#[test]
fn close_under_traffic_ends() {
    let netns = Netns::new("async-busy");
    log_output(&netns);
    under_flood(&netns, || {
        for receive_buffer in [16 << 20, 8192] {
            for stream in [false, true] {
                run(async {
                    let builder = config(&netns)
                        .receive_buffer(receive_buffer)
                        .nlbufsiz(8192)
                        .qthresh(1);
                    let mut nflog = open_async(builder);
                    let mut tally = Tally::default();
                    read(&mut nflog, &mut tally, 1).await;
                    // Fills the queue.
                    thread::sleep(Duration::from_millis(20));
                    let loss = if stream {
                        let rest = |entry: EntryBuf| tally.entry(entry.group, entry.seq, entry.lost_before);
                        nflog.into_stream().close(rest).await
                    } else {
                        nflog.close(|batch| tally.take(batch)).await
                    };
                    assert_eq!(loss.unwrap().gaps, tally.lost);
                });
            }
        }
    });
}

#[test]
fn close_without_the_capability_hands_out_what_the_kernel_held() {
    let netns = Netns::new("async-dropped");
    log_output(&netns);
    // On a thread of its own, which ends with the closure.
    netns.run(|| {
        run(async {
            let nflog = open_async(config(&netns).timeout(Duration::from_millis(500)));
            let mut sets = capabilities(None).unwrap();
            sets.effective.remove(CapabilitySet::NET_ADMIN);
            set_capabilities(None, sets).unwrap();
            send(&netns, 10);
            let mut tally = Tally::default();
            let closed = nflog.close(|batch| tally.take(batch)).await;
            assert_eq!((tally.received, tally.lost), (10, 0));
            assert!(
                matches!(closed, Err(CloseError::PermissionDenied { group: GROUP, .. })),
                "{closed:?}"
            );
        });
    });
}
