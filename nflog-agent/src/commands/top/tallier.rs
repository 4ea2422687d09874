//! The encoder of `top`: counts records instead of encoding them.
//!
//! A reader counts into a tally of its own and hands that over when its batch is due, under a lock that is held for adding it up
//! and for nothing else. The batch has no bytes; that it goes through the queue settles its records as exported: shown.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::tally::Tally;
use crate::export::Batch;
use crate::record::{Account, Encoder, Loss, Record, Suppressed};
use crate::telemetry::ledger::{Ledger, Unsettled};

/// What the readers have counted since it was taken last.
pub(super) type Basket = Mutex<Tally>;

/// Takes what is there.
pub(super) fn take(basket: &Basket) -> Tally {
    std::mem::take(&mut *basket.lock().unwrap_or_else(PoisonError::into_inner))
}

pub(super) struct Tallier {
    tally: Tally,
    basket: Arc<Basket>,
    account: Unsettled,
    reports: u32,
}

impl Tallier {
    pub(super) fn new(basket: &Arc<Basket>, ledger: &Arc<Ledger>) -> Self {
        Self {
            tally: Tally::default(),
            basket: Arc::clone(basket),
            account: ledger.account(),
            reports: 0,
        }
    }
}

impl Encoder for Tallier {
    fn push(&mut self, record: &Record<'_>) {
        self.tally.record(record);
        self.account.receive();
    }

    fn push_held(&mut self, record: &Record<'_>, held: &mut Unsettled) {
        self.tally.record(record);
        self.account.adopt(held);
    }

    // The ledger has the count.
    fn push_suppressed(&mut self, _: &Suppressed<'_>) {
        self.reports += 1;
    }

    fn push_loss(&mut self, loss: &Loss) {
        self.tally.loss(loss);
        self.reports += 1;
    }

    // It is shown from the ledger itself.
    fn push_account(&mut self, _: &Account<'_>) {
        self.reports += 1;
    }

    fn records(&self) -> u32 {
        self.account.records() + self.reports
    }

    fn bytes(&self) -> usize {
        0
    }

    fn take(&mut self) -> Batch {
        let mut basket = self.basket.lock().unwrap_or_else(PoisonError::into_inner);
        basket.take_all(&mut self.tally);
        drop(basket);
        Batch::new(
            Bytes::new(),
            std::mem::take(&mut self.reports),
            self.account.take(),
        )
    }
}
