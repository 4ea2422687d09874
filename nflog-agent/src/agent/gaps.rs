//! Reports of lost packets, at most one per group and second however many gaps there are. Pure: time is an argument.

use std::time::{Duration, Instant};

use crate::export::Batcher;
use crate::record::Loss;

const INTERVAL: Duration = Duration::from_secs(1);

/// What the ledger calls packets that the kernel numbered and that never arrived.
const REASON: &str = "receive-buffer-full";

/// Gaps of one reader that are counted but not reported yet.
pub(super) struct Gaps {
    netns: u32,
    open: Vec<Loss>,
    reported: Option<Instant>,
}

impl Gaps {
    pub(super) const fn new(netns: u32) -> Self {
        Self {
            netns,
            open: Vec::new(),
            reported: None,
        }
    }

    /// Whether all is reported.
    pub(super) const fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Adds a gap of `packets` in `group`, noticed at `observed_unix_nano`.
    pub(super) fn add(&mut self, group: u16, packets: u64, observed_unix_nano: u64) {
        if let Some(loss) = self.open.iter_mut().find(|loss| loss.group == group) {
            loss.packets += packets;
            return;
        }
        self.open.push(Loss {
            observed_unix_nano,
            netns: self.netns,
            group,
            packets,
            reason: REASON,
        });
    }

    /// Reports if the last report is old enough.
    pub(super) fn report(&mut self, batcher: &mut Batcher, now: Instant) {
        if self.open.is_empty()
            || self
                .reported
                .is_some_and(|last| now.duration_since(last) < INTERVAL)
        {
            return;
        }
        self.reported = Some(now);
        self.report_all(batcher);
    }

    /// Reports what there is.
    pub(super) fn report_all(&mut self, batcher: &mut Batcher) {
        for loss in self.open.drain(..) {
            tracing::warn!(
                "group {}: {} packets lost in the kernel; a larger --receive-buffer holds longer bursts",
                loss.group,
                loss.packets
            );
            batcher.push_loss(&loss, Instant::now());
        }
    }
}
