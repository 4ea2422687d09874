//! Batches on disk while the receiver cannot take them.

mod error;
mod frame;
mod fs;
#[cfg(test)]
mod model;
mod store;

pub use error::SpoolError;
pub use store::{SpoolLimits, WhenFull};
