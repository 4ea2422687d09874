//! The account of every record, and the agent's own metrics.

pub mod ledger;
pub mod metrics;
