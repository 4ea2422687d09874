//! The account of every record, and what the agent tells of itself: metrics, health, messages.

pub mod endpoint;
pub mod health;
pub mod ledger;
pub mod messages;
pub mod metrics;
pub mod standard_error;
