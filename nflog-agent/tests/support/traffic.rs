//! Traffic that a rule logs, and an account of what arrives of it.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nflog_agent::nflog::{Batch, Config, ConfigBuilder, Nflog};

use super::{Netns, PATIENCE};

/// The group that most tests read.
pub(crate) const GROUP: u16 = 5;
/// Port that the rule of [`log_output`] matches.
pub(crate) const PORT: u16 = 7777;
/// Most packets that a thread sends while a test runs.
const FLOOD_MAX: u32 = 5_000_000;

/// Counts and logs what is sent to [`PORT`].
pub(crate) fn log_output(netns: &Netns) {
    netns.nft(&format!(
        r#"table inet test {{
            chain output {{
                type filter hook output priority 0
                udp dport {PORT} counter log prefix "sent" group {GROUP} comment "sent"
            }}
        }}"#
    ));
}

/// Counts and logs what is sent to [`PORT`] to each of `groups`; the counter of a group has its number as comment.
pub(crate) fn log_to_groups(netns: &Netns, groups: &[u16]) {
    let rules: String = groups
        .iter()
        .map(|group| format!("udp dport {PORT} counter log group {group} comment \"{group}\"\n"))
        .collect();
    netns.nft(&format!(
        "table inet test {{ chain output {{ type filter hook output priority 0\n{rules}}}\n}}"
    ));
}

/// Settings to read [`GROUP`] in a namespace.
pub(crate) fn config(netns: &Netns) -> ConfigBuilder {
    Config::builder().netns(netns.netns()).group(GROUP)
}

/// Opens a reader.
pub(crate) fn open(builder: ConfigBuilder) -> Nflog {
    Nflog::open(&builder.build().unwrap()).unwrap_or_else(|error| panic!("{error}"))
}

/// Frees the groups now. Dropping the reader does so too, but not while another test's thread is between fork and exec, when
/// its child holds a copy of the socket.
pub(crate) fn close(nflog: Nflog) {
    nflog.close(|_| ()).unwrap();
}

/// Sends `count` datagrams over loopback.
pub(crate) fn send(netns: &Netns, count: u32) {
    netns.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        // Nobody listens: port unreachable comes back as an error of a later send on a connected socket only.
        for _ in 0..count {
            socket.send_to(b"payload", ("127.0.0.1", PORT)).unwrap();
        }
    });
}

/// Sends `count` datagrams, and waits until the kernel has passed on the last of them: into a full receive buffer it is lost.
pub(crate) fn send_and_flush(netns: &Netns, count: u32) {
    send(netns, count);
    // The flush timeout of the tests is 10 ms.
    thread::sleep(Duration::from_millis(300));
}

/// Runs `body` while another thread sends without pause.
pub(crate) fn under_flood(netns: &Netns, body: impl FnOnce()) {
    struct StopOnDrop<'a>(&'a AtomicBool);
    impl Drop for StopOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| flood(netns, &stop));
        let _stop = StopOnDrop(&stop);
        body();
    });
}

/// Sends until told to stop.
fn flood(netns: &Netns, stop: &AtomicBool) {
    netns.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..FLOOD_MAX {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            socket.send_to(b"payload", ("127.0.0.1", PORT)).unwrap();
        }
        panic!("the test did not end within {FLOOD_MAX} packets");
    });
}

/// What arrived.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) received: u64,
    pub(crate) lost: u64,
    /// Logged in the instant between the bind of the group and its flags, before all others: received without number.
    pub(crate) unnumbered: u64,
    /// Next number expected, by group.
    pub(crate) next: HashMap<u16, u32>,
}

impl Tally {
    /// Takes a batch; checks that each entry's number is the one before it plus what is said to be lost between them.
    pub(crate) fn take(&mut self, batch: &mut Batch<'_>) {
        for entry in batch {
            self.entry(entry.group(), entry.seq(), entry.lost_before());
        }
    }

    /// Takes one entry.
    #[track_caller]
    pub(crate) fn entry(&mut self, group: u16, seq: Option<u32>, lost_before: u32) {
        self.received += 1;
        self.lost += u64::from(lost_before);
        let Some(seq) = seq else {
            assert!(!self.next.contains_key(&group), "group {group}: no number");
            self.unnumbered += 1;
            return;
        };
        let next = self.next.entry(group).or_default();
        assert_eq!(seq, *next + lost_before, "group {group}");
        *next += lost_before + 1;
    }

    /// Reads until `count` packets are accounted for.
    #[track_caller]
    pub(crate) fn read(&mut self, nflog: &mut Nflog, count: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.received + self.lost < count {
            assert!(
                Instant::now() < deadline,
                "{self:?} of {count} after {PATIENCE:?}"
            );
            if let Some(mut batch) = nflog.recv(Some(Duration::from_secs(1))).unwrap() {
                self.take(&mut batch);
            }
        }
    }

    /// Reads until nothing more comes: what the kernel holds is flushed after 10 ms.
    pub(crate) fn drain(&mut self, nflog: &mut Nflog) {
        while let Some(mut batch) = nflog.recv(Some(Duration::from_millis(500))).unwrap() {
            self.take(&mut batch);
        }
    }
}
