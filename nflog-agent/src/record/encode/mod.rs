//! Records to bytes: OTLP protobuf, console lines, JSON lines.
//!
//! Invariants: a record is copied once, into the open batch; after warm-up the OTLP encoder allocates per batch, not per
//! record; the bytes of a batch depend on the records pushed since the last [`Encoder::take`] and on nothing else.

mod console;
mod json;
mod otlp;
mod protobuf;
mod scratch;

pub use console::Console;
pub use json::Json;
pub use otlp::Otlp;

use super::{Account, Loss, Record, Suppressed};
use crate::export::Batch;
use crate::telemetry::ledger::Unsettled;

/// Collects records into the open batch.
pub trait Encoder: Send {
    /// Adds a packet; from here on the ledger counts it as received and in flight.
    fn push(&mut self, record: &Record<'_>);

    /// Adds a packet that is counted as received already, on the account `held`, which has one record less from here on.
    fn push_held(&mut self, record: &Record<'_>, held: &mut Unsettled);

    /// Adds a report of packets that a limit held back. It is not a packet, as the following.
    fn push_suppressed(&mut self, suppressed: &Suppressed<'_>);

    /// Adds a report of lost packets. Such a report is not a packet: the ledger does not count it.
    fn push_loss(&mut self, loss: &Loss);

    /// Adds the account. It is no packet either.
    fn push_account(&mut self, account: &Account<'_>);

    /// Log records in the open batch, reports included.
    fn records(&self) -> u32;

    /// Size of the open batch if it were taken now, bytes. Never less than the true size.
    fn bytes(&self) -> usize;

    /// Closes the open batch and starts an empty one.
    fn take(&mut self) -> Batch;
}
